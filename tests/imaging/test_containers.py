from __future__ import annotations

import contextlib
import io
import struct
import time
import zlib

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homoreg.imaging.containers import BrokenFileError, Container, inspect
from tests.imaging.pictures import HEIGHT, WIDTH, colour, exif


def encoded(kind: str, orientation: int = 1, **options: object) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(colour()).save(stream, kind, exif=exif(orientation), **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_size_and_orientation_are_read(kind: str) -> None:
    found = inspect(encoded(kind, 6))
    assert (found.kind, found.size, found.orientation) == (kind, (WIDTH, HEIGHT), 6)


def test_webp_and_tiff_tell_what_their_decoder_does_not_handle() -> None:
    webp, tiff = inspect(encoded("WEBP", 6)), inspect(encoded("TIFF", 6))
    assert (webp.kind, webp.size, webp.orientation) == ("WebP", (WIDTH, HEIGHT), 6)
    assert (tiff.kind, tiff.size, tiff.orientation) == ("TIFF", (WIDTH, HEIGHT), 1)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders(order: str) -> None:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(f"{order}HHIHH", 0x112, 3, 1, 8, 0)
    tags = mark + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)
    segment = b"Exif\0\0" + tags
    data = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + b"\xff\xd9"
    assert inspect(data).orientation == 8


@pytest.mark.parametrize("data", [b"", b"\xff", b"GIF89a", b"text", b"II", b"P7 16 16"])
def test_other_content_is_of_no_kind(data: bytes) -> None:
    assert inspect(data) == Container()


@pytest.mark.parametrize(
    "data", [b"BM", b"BM" + bytes(20), b"II*\0", b"MM\0*\0\0\0\x08", b"II+\0" + bytes(12)]
)
def test_a_header_alone_is_broken(data: bytes) -> None:
    with pytest.raises(BrokenFileError, match="truncated"):
        inspect(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_every_cut_is_noticed(kind: str) -> None:
    data = encoded(kind, 3)
    start = {"PNG": 8, "JPEG": 3, "WEBP": 12}[kind]
    for length in range(start, len(data)):
        with pytest.raises(BrokenFileError, match="is truncated"):
            inspect(data[:length])


def test_jpeg_markers_inside_the_image_data_are_not_the_end() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    stream = io.BytesIO()
    PIL.Image.fromarray(noise).save(stream, "JPEG", quality=100, restart_marker_blocks=4)
    data = stream.getvalue()
    assert b"\xff\x00" in data
    assert b"\xff\xd3" in data
    assert inspect(data).size == (200, 200)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from([b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"\x89PNG\r\n\x1a\n", b"RIFF"]),
    st.binary(max_size=80),
)
def test_noise_raises_nothing_else(start: bytes, rest: bytes) -> None:
    with contextlib.suppress(BrokenFileError):
        assert inspect(start + rest).orientation in range(1, 9)


def many_parts(kind: str, count: int) -> bytes:
    """File of very many parts without content, before those that matter."""
    data = encoded(kind, 6)
    if kind == "PNG":
        part = struct.pack(">I", 0) + b"teSt" + struct.pack(">I", zlib.crc32(b"teSt"))
        return data[:8] + part * count + data[8:]
    if kind == "JPEG":
        return data[:2] + b"\xff\xe5\0\2" * count + data[2:]
    body = data[12:] + b"teSt\0\0\0\0" * count
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_very_many_parts_take_no_time(kind: str) -> None:
    assert inspect(many_parts(kind, 1000)).size == (WIDTH, HEIGHT)
    start = time.process_time()
    with contextlib.suppress(BrokenFileError):
        inspect(many_parts(kind, 2_000_000))
    assert time.process_time() - start < 2


def test_of_several_exif_blocks_the_first_counts() -> None:
    data = encoded("JPEG", 6)
    tags = exif(3).tobytes()
    second = b"\xff\xe1" + struct.pack(">H", len(tags) + 2) + tags
    (length,) = struct.unpack_from(">H", data, data.index(b"\xff\xe1") + 2)
    behind = data.index(b"\xff\xe1") + 2 + length
    assert inspect(data[:behind] + second + data[behind:]).orientation == 6
    assert inspect(data[:2] + second + data[2:]).orientation == 3


def test_transparent_colours_of_fewer_bits_are_left_out() -> None:
    """They are scaled when they are decoded, and the key is not."""
    stream = io.BytesIO()
    PIL.Image.fromarray(colour()[..., 0] > 99).save(stream, "PNG", transparency=1)
    assert inspect(stream.getvalue()).transparent == ()
    stream = io.BytesIO()
    PIL.Image.fromarray(colour()[..., 0]).save(stream, "PNG", transparency=7)
    assert inspect(stream.getvalue()).transparent == (7,)
