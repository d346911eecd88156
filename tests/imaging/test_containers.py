from __future__ import annotations

import contextlib
import io
import struct

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
