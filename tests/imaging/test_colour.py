from __future__ import annotations

import builtins
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest

from homoreg.imaging.colour import cmyk_jpeg_to_srgb, to_srgb
from homoreg.imaging.reading import read_image
from tests.fuzz.seeds import encoded
from tests.imaging.pictures import Array, colour


def profile(
    primaries: dict[str, tuple[float, float, float]], space: bytes = b"RGB ", gamma: float = 2.2
) -> bytes:
    """A matrix profile (ICC.1:2001-04): primaries as XYZ under D50, one gamma, a description."""
    tags = {b"wtpt": _xyz(0.9642, 1.0, 0.8249), b"desc": _text("a test"), b"cprt": b"text\0\0\0\0none\0"}
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    for name, xyz in primaries.items():
        tags[f"{name}XYZ".encode()] = _xyz(*xyz)
        tags[f"{name}TRC".encode()] = curve
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name_, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += name_ + struct.pack(">II", start + len(body), len(content))
        body += padded
    size = struct.pack(">I", start + len(body))
    head = size + b"none" + struct.pack(">I", 0x02400000) + b"mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    return head.ljust(128, b"\0") + table + body


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def _text(text: str) -> bytes:
    ascii_ = text.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(ascii_)) + ascii_ + bytes(78)


# Primaries of Adobe RGB (1998), adapted to D50; those of sRGB with red and blue exchanged.
WIDE = profile(
    {"r": (0.60974, 0.31111, 0.01947), "g": (0.20528, 0.62567, 0.06087), "b": (0.14919, 0.06322, 0.74457)}
)
EXCHANGED = profile(
    {"r": (0.14307, 0.06061, 0.71417), "g": (0.38515, 0.71687, 0.09708), "b": (0.43607, 0.22249, 0.01392)}
)


def test_a_wide_gamut_becomes_more_saturated_in_srgb() -> None:
    pixels = np.tile(np.array([120, 140, 90], np.uint8), (20, 20, 1))
    converted = to_srgb(pixels, WIDE)
    assert converted.shape == pixels.shape
    assert converted.dtype == np.uint8
    red, green, blue = (int(value) for value in converted[0, 0])
    assert red < 120
    assert blue < 90
    assert abs(green - 140) <= 3
    assert len(np.unique(converted.reshape(-1, 3), axis=0)) == 1


def test_large_pictures_are_converted_band_by_band(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = to_srgb(colour(), WIDE)
    monkeypatch.setattr("homoreg.imaging.colour._BAND", 100)
    np.testing.assert_array_equal(to_srgb(colour(), WIDE), whole)
    assert not np.array_equal(whole, colour())


def test_a_jpeg_with_a_profile(tmp_path: Path) -> None:
    plain = encoded(colour(), "JPEG", quality=95, subsampling=0)
    marked = encoded(colour(), "JPEG", quality=95, subsampling=0, icc_profile=EXCHANGED)
    for name, data in (("plain", plain), ("marked", marked)):
        (tmp_path / f"{name}.jpg").write_bytes(data)
    seen = read_image(tmp_path / "marked.jpg").pixels.astype(int)
    expected = read_image(tmp_path / "plain.jpg").pixels[..., ::-1]
    # Red and blue are exchanged; 2.2 is not quite the curve of sRGB, which tells in the darkest pixels.
    assert abs(seen - expected).max() <= 12


@pytest.mark.parametrize(
    "data",
    [b"", b"RGB ", bytes(200), WIDE[:150], profile({}), WIDE.replace(b"RGB ", b"GRAY")],
    ids=["none", "short", "zeros", "cut", "no primaries", "grey"],
)
def test_a_profile_that_cannot_be_used_changes_nothing(data: bytes) -> None:
    assert to_srgb(colour(), data) is not None
    np.testing.assert_array_equal(to_srgb(colour(), data), colour())


def test_srgb_and_deep_pixels_are_left_alone() -> None:
    srgb = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    pixels = colour()
    assert to_srgb(pixels, srgb) is pixels
    deep = pixels.astype(np.uint16)
    assert to_srgb(deep, WIDE) is deep


def without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def refuse(name: str, *rest: Any, **named: Any) -> Any:
        if name.split(".")[0] == "PIL":
            raise ImportError(name)
        return load(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_without_pillow_the_profile_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pillow(monkeypatch)
    pixels = colour()
    assert to_srgb(pixels, WIDE) is pixels


# --- CMYK --------------------------------------------------------------------------------------------------


def cmyk_jpeg(**options: Any) -> tuple[bytes, Array]:
    """File of two areas, and what they are without colour management: each ink takes its colour away."""
    inks = np.zeros((32, 48, 4), np.uint8)
    inks[:, :24] = (200, 30, 10, 40)
    inks[:, 24:] = (10, 180, 220, 5)
    stream = io.BytesIO()
    PIL.Image.fromarray(inks, "CMYK").save(stream, "JPEG", quality=97, **options)
    keep = 255 - inks.astype(np.float64)
    return stream.getvalue(), np.asarray((keep[..., :3] * keep[..., 3:] / 255).round(), np.uint8)


@pytest.mark.parametrize("pillow", [True, False])
def test_a_cmyk_jpeg_becomes_rgb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pillow: bool) -> None:
    data, expected = cmyk_jpeg()
    (tmp_path / "a.jpg").write_bytes(data)
    if not pillow:
        without_pillow(monkeypatch)
    pixels = read_image(tmp_path / "a.jpg").pixels
    assert pixels.dtype == np.uint8
    assert abs(pixels.astype(int) - expected)[:, [4, -4]].max() <= 6


def test_a_cmyk_jpeg_with_an_unusable_profile_is_decoded_without_it(tmp_path: Path) -> None:
    data, expected = cmyk_jpeg(icc_profile=profile({}, space=b"CMYK"))
    (tmp_path / "a.jpg").write_bytes(data)
    assert abs(read_image(tmp_path / "a.jpg").pixels.astype(int) - expected)[:, [4, -4]].max() <= 6
    assert cmyk_jpeg_to_srgb(data, b"") is None
