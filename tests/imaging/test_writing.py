from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from homoreg.errors import InputError, OutputError
from homoreg.imaging.reading import read_image
from homoreg.imaging.writing import encode_image, write_image, write_text
from tests.disk import FullDisk, everything_below
from tests.imaging.pictures import colour, counts, grey


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG"])
@pytest.mark.parametrize("pixels", [grey(), colour(), counts(), colour().astype(np.uint16) * 257])
def test_lossless_round_trip(tmp_path: Path, suffix: str, pixels: Any) -> None:
    path = write_image(tmp_path / f"a{suffix}", pixels)
    assert path == tmp_path / f"a{suffix}"
    back = read_image(path).pixels
    assert back.dtype == pixels.dtype
    np.testing.assert_array_equal(back, pixels)


def test_the_channel_order_is_rgb_for_other_readers(tmp_path: Path) -> None:
    write_image(str(tmp_path / "a.png"), colour())
    with PIL.Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), colour())


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpeg_is_close(tmp_path: Path, suffix: str) -> None:
    flat = np.full((32, 32, 3), (200, 100, 30), np.uint8)
    write_image(tmp_path / f"a{suffix}", flat)
    assert np.abs(read_image(tmp_path / f"a{suffix}").pixels.astype(int) - flat).max() <= 4


def test_float_tiff_and_bool(tmp_path: Path) -> None:
    kelvin = counts().astype(np.float32) / 25
    np.testing.assert_array_equal(read_image(write_image(tmp_path / "a.tiff", kelvin)).pixels, kelvin)
    mask = grey() > 100
    expected = np.where(mask, 255, 0)
    np.testing.assert_array_equal(read_image(write_image(tmp_path / "a.png", mask)).pixels, expected)


def test_a_view_of_any_layout_is_written_as_it_looks(tmp_path: Path) -> None:
    view = colour()[::-1, ::-1]
    np.testing.assert_array_equal(read_image(write_image(tmp_path / "a.png", view)).pixels, view)


@pytest.mark.parametrize("suffix", ["", ".gif", ".exr", ".npy"])
def test_other_suffixes_are_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InputError, match=f"cannot write a picture as '{suffix}'; use one of .png, .jpg"):
        write_image(tmp_path / f"a{suffix}", grey())


@pytest.mark.parametrize(
    ("suffix", "dtype", "accepted"),
    [
        (".jpg", np.uint16, "uint8"),
        (".png", np.float32, "uint8 or uint16"),
        (".tiff", np.int32, "uint8 or uint16 or float32"),
    ],
)
def test_a_depth_the_format_cannot_hold_is_refused(suffix: str, dtype: Any, accepted: str) -> None:
    with pytest.raises(
        InputError, match=f"{suffix} file cannot hold {np.dtype(dtype)} pixels, only {accepted};"
    ):
        encode_image(suffix, counts().astype(dtype))


@pytest.mark.parametrize("shape", [(20,), (20, 20, 4), (20, 20, 1), (0, 20), (20, 0, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(H, W\) or \(H, W, 3\), neither side 0"):
        encode_image(".png", np.zeros(shape, np.uint8))


def test_a_picture_too_large_for_its_format_is_an_input_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"70000 x 16 pixels are too many for a \.jpg file; use \.tiff"):
        encode_image(".jpg", np.zeros((16, 70_000), np.uint8))
    assert capfd.readouterr().err == ""


def test_an_encoder_that_gives_up_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, None))
    with pytest.raises(InputError, match="are too many for a"):
        encode_image(".png", grey())


def test_a_full_disk_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "a.png", grey())
    before = everything_below(tmp_path)
    FullDisk(monkeypatch, room=100)
    with pytest.raises(OutputError, match="the disk is full"):
        write_image(tmp_path / "a.png", colour())
    assert everything_below(tmp_path) == before


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist; create it first"):
        write_image(tmp_path / "no" / "a.png", grey())


def test_write_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a.json", "{}\n")
    assert (tmp_path / "a.json").read_text() == "{}\n"
    FullDisk(monkeypatch, room=1)
    with pytest.raises(OutputError, match="the disk is full"):
        write_text(tmp_path / "a.json", "longer")
    assert (tmp_path / "a.json").read_bytes() == b"{}\n"
