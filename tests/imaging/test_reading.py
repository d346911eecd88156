from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homoreg.errors import ImageReadError, InputError
from homoreg.imaging.containers import inspect
from homoreg.imaging.reading import Picture, Role, read_image
from tests.imaging.pictures import HEIGHT, WIDTH, Array, colour, counts, exif, grey, save

# --- files that are fine -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
@pytest.mark.parametrize("make", [grey, colour])
def test_lossless_8_bit_files(tmp_path: Path, suffix: str, make: Callable[[], Array]) -> None:
    picture = read_image(save(tmp_path / f"a{suffix}", make()))
    assert picture.pixels.dtype == np.uint8
    np.testing.assert_array_equal(picture.pixels, make())
    assert picture.mask is None
    assert picture.name == f"a{suffix}"
    assert picture.size == (picture.width, picture.height) == (WIDTH, HEIGHT)
    assert picture.pixels.flags.c_contiguous


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_counts_survive(tmp_path: Path, suffix: str) -> None:
    picture = read_image(str(save(tmp_path / f"a{suffix}", counts())), role="ir")
    assert picture.pixels.dtype == np.uint16
    np.testing.assert_array_equal(picture.pixels, counts())


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_colours_survive_in_rgb_order(tmp_path: Path, suffix: str) -> None:
    pixels = colour().astype(np.uint16) * 257
    done, data = cv2.imencode(suffix, pixels[..., ::-1])
    assert done
    (tmp_path / f"a{suffix}").write_bytes(data.tobytes())
    picture = read_image(tmp_path / f"a{suffix}")
    assert picture.pixels.dtype == np.uint16
    np.testing.assert_array_equal(picture.pixels, pixels)


def test_float_tiff_in_kelvin(tmp_path: Path) -> None:
    kelvin = counts().astype(np.float32) * np.float32(0.04)
    picture = read_image(save(tmp_path / "a.tif", kelvin), role="ir")
    assert picture.pixels.dtype == np.float32
    np.testing.assert_array_equal(picture.pixels, kelvin)


def test_int32_tiff_of_counts(tmp_path: Path) -> None:
    picture = read_image(save(tmp_path / "a.tif", counts().astype(np.int32)), role="ir")
    assert picture.pixels.dtype == np.uint16
    np.testing.assert_array_equal(picture.pixels, counts())


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_files_are_close_and_in_rgb_order(tmp_path: Path, suffix: str) -> None:
    flat = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    flat[:] = (200, 100, 30)
    picture = read_image(save(tmp_path / f"a{suffix}", flat, quality=95))
    assert np.abs(picture.pixels.astype(int) - flat).max() <= 6


def test_grey_jpeg_stays_grey(tmp_path: Path) -> None:
    assert read_image(save(tmp_path / "a.jpg", grey())).is_grey


@pytest.mark.parametrize("array", [grey(), counts(), colour(), counts().astype(np.float32)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path: Path, array: Array, order: Any) -> None:
    np.save(tmp_path / "a.npy", np.array(array, order=order))
    picture = read_image(tmp_path / "a.npy")
    assert picture.pixels.dtype == array.dtype
    np.testing.assert_array_equal(picture.pixels, array)
    assert picture.name == "a.npy"


def test_palette_png_becomes_rgb(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(colour()).quantize(16)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_alpha_becomes_the_mask(tmp_path: Path, suffix: str) -> None:
    rgba = np.dstack([colour(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    rgba[:5, :, 3] = 0
    rgba[5, :, 3] = 1
    rgba[6, :, 3] = 128
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    picture = read_image(save(tmp_path / f"a{suffix}", rgba, **options))
    np.testing.assert_array_equal(picture.pixels, colour())
    assert picture.mask is not None
    assert not picture.mask[:5].any()
    assert picture.mask[5:].all()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_alpha_beside_grey(tmp_path: Path, suffix: str) -> None:
    alpha = np.where(grey() > 90, 255, 0).astype(np.uint8)
    options = {"lossless": True} if suffix == ".webp" else {}
    picture = read_image(save(tmp_path / f"a{suffix}", np.dstack([grey(), alpha]), **options))
    np.testing.assert_array_equal(picture.mask, alpha > 0)
    assert picture.is_grey == (suffix != ".webp")  # which has no grey
    shown = picture.pixels if picture.is_grey else picture.pixels[..., 1]
    np.testing.assert_array_equal(shown[alpha > 0], grey()[alpha > 0])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_of_16_bits(tmp_path: Path, suffix: str) -> None:
    """As OpenCV writes it: its TIFFs do not say that the fourth channel is alpha."""
    alpha = np.where(grey() > 90, 65535, 0).astype(np.uint16)
    colours = np.dstack([counts(), counts() + 1, counts() + 2])
    cv2.imwrite(str(tmp_path / f"a{suffix}"), np.dstack([colours[..., ::-1], alpha]))
    picture = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(picture.pixels, colours)
    np.testing.assert_array_equal(picture.mask, alpha > 0)


def test_a_colour_of_a_png_that_stands_for_nothing(tmp_path: Path) -> None:
    key = int(grey()[0, 0])
    picture = read_image(save(tmp_path / "grey.png", grey(), transparency=key))
    np.testing.assert_array_equal(picture.pixels, grey())
    np.testing.assert_array_equal(picture.mask, grey() != key)
    pixel = colour()[3, 4]
    shown = read_image(save(tmp_path / "colour.png", colour(), transparency=tuple(map(int, pixel)))).mask
    np.testing.assert_array_equal(shown, (colour() != pixel).any(axis=2))
    quantised = PIL.Image.fromarray(colour()).quantize(16)
    quantised.save(tmp_path / "palette.png", transparency=3)
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png").mask, np.asarray(quantised) != 3)


def test_trailing_bytes_after_a_whole_file_are_ignored(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        path = save(tmp_path / name, colour())
        whole = read_image(path).pixels
        path.write_bytes(path.read_bytes() + b"camera metadata \xff\xd8\xff\xe0" * 10)
        np.testing.assert_array_equal(read_image(path).pixels, whole)


def test_a_progressive_jpeg_and_a_preview_inside_one(tmp_path: Path) -> None:
    preview = io.BytesIO()
    PIL.Image.fromarray(colour()[:16, :16]).save(preview, "JPEG")
    path = save(tmp_path / "a.jpg", colour(), progressive=True)
    data = path.read_bytes()
    segment = b"\xff\xe2" + struct.pack(">H", len(preview.getvalue()) + 2) + preview.getvalue()
    path.write_bytes(data[:2] + segment + data[2:])
    assert read_image(path).size == (WIDTH, HEIGHT)


# --- orientation -------------------------------------------------------------------------------------------


def stored_as(upright: Array, orientation: int) -> Array:
    """How a camera stores an upright picture under an Exif orientation (Exif 2.3, tag 0x112)."""
    turns: dict[int, Callable[[Array], Array]] = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    return turns[orientation](upright)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_exif_orientation_of_lossless_files(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored = np.ascontiguousarray(stored_as(colour(), orientation))
    options = {"lossless": True} if suffix == ".webp" else {}
    path = save(tmp_path / f"a{suffix}", stored, exif=exif(orientation), **options)
    np.testing.assert_array_equal(read_image(path).pixels, colour())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_jpegs(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24] = (220, 40, 40)  # red top left, green top right
    upright[:16, 24:] = (40, 220, 40)
    stored = np.ascontiguousarray(stored_as(upright, orientation))
    path = save(tmp_path / "a.jpg", stored, exif=exif(orientation), quality=95, subsampling=0)
    picture = read_image(path)
    assert picture.size == (48, 32)
    assert np.abs(picture.pixels.astype(int) - upright).mean() < 4


def test_exif_orientation_of_16_bit_and_of_alpha(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.ascontiguousarray(stored_as(counts(), 6)), exif=exif(6))
    np.testing.assert_array_equal(read_image(path).pixels, counts())
    rgba = np.dstack([colour(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    rgba[0, :, 3] = 0
    path = save(tmp_path / "b.png", np.ascontiguousarray(stored_as(rgba, 8)), exif=exif(8))
    picture = read_image(path)
    np.testing.assert_array_equal(picture.pixels, colour())
    assert picture.mask is not None
    assert not picture.mask[0].any()
    assert picture.mask[1:].all()


def test_a_nonsense_orientation_is_upright(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        read_image(save(tmp_path / "a.png", colour(), exif=exif(9))).pixels, colour()
    )


# --- files that are not ------------------------------------------------------------------------------------


def refused(path: str | Path, capfd: pytest.CaptureFixture[str], role: Role = "image") -> str:
    """The error's text; it must name the file, and nothing else may reach the terminal."""
    with pytest.raises(ImageReadError) as caught:
        read_image(path, role=role)
    output = capfd.readouterr()
    assert output.err == ""
    assert output.out == ""
    assert repr(os.fspath(path)) in str(caught.value)
    return str(caught.value)


def test_a_missing_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = refused(tmp_path / "no.png", capfd, "ir")
    assert message.startswith("cannot read the infrared image '")
    assert "no such file; check the path" in message


def test_a_directory(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = refused(tmp_path, capfd, "rgb")
    assert message.startswith("cannot read the RGB image '")
    assert "it is a directory; give a PNG, TIFF, JPEG, WebP or BMP file" in message


def test_a_path_through_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_bytes(b"x")
    assert "Not a directory; check the path" in refused(tmp_path / "a" / "b.png", capfd)


def test_a_null_byte_in_the_path(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "null byte; check the path" in refused(f"{tmp_path}/a\0.png", capfd)


def test_a_pipe_is_refused_without_waiting(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "it is a device or a pipe" in refused(tmp_path / "pipe", capfd)


def test_an_unreadable_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = save(tmp_path / "a.png", grey())
    monkeypatch.setattr(Path, "read_bytes", deny)
    assert "Permission denied; check the path and its permissions" in refused(path, capfd)


def test_an_empty_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    assert "the file is empty (0 bytes)" in refused(tmp_path / "a.png", capfd)


@pytest.mark.parametrize(
    "content",
    [b"hello, world\n" * 50, b"<html></html>", b"\0" * 4096, b"%PDF-1.7 ...", b"PK\x03\x04" + b"\0" * 100],
    ids=["text", "html", "zeros", "pdf", "zip"],
)
def test_something_else(tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    message = refused(tmp_path / "a.png", capfd)
    assert "it is not an image of a known format; give a PNG, TIFF, JPEG" in message


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp", ".webp", ".npy"])
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.5, 0.9, 0.99, -1])
def test_truncated_files(tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str, keep: float) -> None:
    path = tmp_path / f"a{suffix}"
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 80, 3), np.uint8)
    if suffix == ".npy":
        np.save(path, pixels)
    else:
        save(path, pixels)
    data = path.read_bytes()
    length = len(data) - 1 if keep < 0 else int(len(data) * keep)
    path.write_bytes(data[:length])
    message = refused(path, capfd)
    if suffix in (".jpg", ".png", ".webp", ".tif") and keep >= 0.3:
        assert "truncated" in message


@pytest.mark.parametrize("make", [lambda: counts(), lambda: counts().astype(np.float32)])
def test_a_truncated_deep_tiff(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], make: Callable[[], Array]
) -> None:
    path = save(tmp_path / "a.tif", make())
    path.write_bytes(path.read_bytes()[:-100])
    assert "the TIFF is truncated or damaged; copy or export it again" in refused(path, capfd)


def test_a_truncated_progressive_jpeg(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "a.jpg", colour(), progressive=True)
    data = path.read_bytes()
    for length in range(2, len(data), 37):
        path.write_bytes(data[:length])
        refused(path, capfd)


def test_a_png_with_a_flipped_bit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "a.png", colour())
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 20] ^= 4
    path.write_bytes(bytes(data))
    assert "the PNG is damaged: its part b'IDAT' at byte" in refused(path, capfd)


def png_that_claims(width: int, height: int) -> bytes:
    def part(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", data) + part(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (2**31 - 1, 20), (2**20, 2**10)])
def test_a_huge_declared_size_is_refused_before_decoding(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    width: int,
    height: int,
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    (tmp_path / "a.png").write_bytes(png_that_claims(width, height))
    message = refused(tmp_path / "a.png", capfd)
    assert f"it has {width} x {height} pixels; at most 268435456 in all are accepted" in message


def test_a_huge_declared_size_of_jpeg_and_tiff(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "a.jpg", grey())
    data = bytearray(path.read_bytes())
    frame = data.index(b"\xff\xc0") + 5
    data[frame : frame + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(bytes(data))
    assert "it has 65535 x 65535 pixels" in refused(path, capfd)
    path = save(tmp_path / "a.tif", grey())
    data = bytearray(path.read_bytes())
    entry = data.index(struct.pack("<HHI", 0x100, 4, 1))
    data[entry + 8 : entry + 12] = struct.pack("<I", 2**30)
    path.write_bytes(bytes(data))
    assert f"it has {2**30} x {HEIGHT} pixels" in refused(path, capfd)


def test_a_huge_declared_size_that_only_the_decoder_reads(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5\n1000000 1000000\n255\n" + bytes(100))
    assert "pixels" in refused(tmp_path / "a.pgm", capfd)


def test_a_huge_declared_npy_is_not_allocated(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"shape": (10**6, 10**6), "fortran_order": False, "descr": "|u1"}
    )
    (tmp_path / "a.npy").write_bytes(stream.getvalue() + bytes(100))
    assert "takes 1000000000000 bytes and 100 are there" in refused(tmp_path / "a.npy", capfd)


def test_a_pickle_in_an_npy_is_never_loaded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", np.array([[object()]]), allow_pickle=True)
    assert "the .npy file holds object; save an array of numbers" in refused(tmp_path / "a.npy", capfd)


@pytest.mark.parametrize("shape", [(0, 5), (5,), (2, 30, 30, 3), (30, 30, 2)])
def test_an_npy_of_a_wrong_shape(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], shape: tuple[int, ...]
) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    assert f"shape {shape}" in refused(tmp_path / "a.npy", capfd)


def test_an_npy_with_a_negative_side(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stream = io.BytesIO()
    header = {"shape": (-20, -20), "fortran_order": False, "descr": "|u1"}
    np.lib.format.write_array_header_1_0(stream, header)
    (tmp_path / "a.npy").write_bytes(stream.getvalue() + bytes(400))
    assert "an empty array of shape (-20, -20)" in refused(tmp_path / "a.npy", capfd)


def test_an_npy_of_nan(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", np.full((20, 20), np.nan))
    assert "400 of its 400 values are NaN or infinite" in refused(tmp_path / "a.npy", capfd)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (15, 40), (40, 15)])
def test_a_file_that_is_too_small(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], width: int, height: int
) -> None:
    for suffix in (".png", ".jpg", ".bmp", ".tif", ".webp"):
        path = save(tmp_path / f"a{suffix}", np.full((height, width), 9, np.uint8))
        message = refused(path, capfd)
        assert (
            f"it has {width} x {height} pixels; at least 16 x 16 are needed; give a larger image" in message
        )


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_damaged_files_never_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    kind = data.draw(st.sampled_from(["PNG", "TIFF", "BMP", "WEBP", "npy"]))
    stream = io.BytesIO()
    if kind == "npy":
        np.save(stream, grey())
    else:
        PIL.Image.fromarray(colour()).save(stream, kind)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 200) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        picture = read_image(path)
    except ImageReadError:
        return
    assert picture.pixels.dtype in (np.uint8, np.uint16, np.float32)


# --- the picture ------------------------------------------------------------------------------------------


def test_the_picture_checks_its_arrays() -> None:
    with pytest.raises(InputError, match=r"pixels have shape \(20, 20, 4\)"):
        Picture(np.zeros((20, 20, 4), np.uint8))
    with pytest.raises(InputError, match="pixels are float64"):
        Picture(np.zeros((20, 20)))
    with pytest.raises(InputError, match="C-contiguous"):
        Picture(np.zeros((20, 30), np.uint8).T)
    with pytest.raises(InputError, match=r"the mask is uint8 of shape \(20, 20\); expected bool"):
        Picture(np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8))


def test_the_picture_says_what_it_is() -> None:
    assert repr(read_image(counts())) == "Picture('array 40x24', 40x24, uint16, grey)"
    assert repr(read_image(colour())) == "Picture('array 40x24', 40x24, uint8, RGB)"


# --- pages -------------------------------------------------------------------------------------------------


def save_pages(path: Path, *frames: Array) -> Path:
    first, *rest = (PIL.Image.fromarray(frame) for frame in frames)
    first.save(path, save_all=True, append_images=rest)
    return path


def test_any_page_of_a_tiff(tmp_path: Path) -> None:
    other = np.full((30, 20), 7, np.uint8)
    path = save_pages(tmp_path / "a.tif", counts(), other, colour())
    for page, expected in enumerate((counts(), other, colour())):
        np.testing.assert_array_equal(read_image(path, page=page).pixels, expected)
    np.testing.assert_array_equal(read_image(path).pixels, counts())


def test_a_page_that_is_not_there(tmp_path: Path) -> None:
    path = save_pages(tmp_path / "a.tif", counts(), counts())
    with pytest.raises(ImageReadError, match=r"it has 2 pages, and page 2 was asked for \(from 0\)"):
        read_image(path, page=2)
    for suffix in (".png", ".npy"):
        single = tmp_path / f"a{suffix}"
        np.save(single, grey()) if suffix == ".npy" else save(single, grey())
        with pytest.raises(ImageReadError, match=r"it has (1|one) page"):
            read_image(single, page=1)
    with pytest.raises(InputError, match="only a TIFF file has pages"):
        read_image(grey(), page=1)


@pytest.mark.parametrize("page", [-1, 1.0, True, "0", None])
def test_a_page_that_is_no_number(page: Any) -> None:
    with pytest.raises(InputError, match=r"page is .*; expected a whole number from 0 up"):
        read_image(grey(), page=page)


def test_the_declared_size_of_a_later_page_counts(tmp_path: Path) -> None:
    path = save_pages(tmp_path / "a.tif", grey(), grey())
    data = bytearray(path.read_bytes())
    entry = data.rindex(struct.pack("<HHI", 0x100, 4, 1))
    data[entry + 8 : entry + 12] = struct.pack("<I", 2**30)
    path.write_bytes(bytes(data))
    np.testing.assert_array_equal(read_image(path).pixels, grey())
    with pytest.raises(ImageReadError, match=f"it has {2**30} x {HEIGHT} pixels"):
        read_image(path, page=1)


# --- bytes that cannot hold the declared size ---------------------------------------------------------------


def test_more_pixels_than_the_bytes_can_hold_are_refused_before_decoding(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jpeg = bytearray(save(tmp_path / "a.jpg", colour()).read_bytes())
    frame = jpeg.index(b"\xff\xc0") + 5
    jpeg[frame : frame + 4] = struct.pack(">HH", 16_000, 16_000)
    tiff = bytearray(save(tmp_path / "a.tif", colour()).read_bytes())
    for tag in (0x100, 0x101):
        entry = tiff.index(struct.pack("<HHI", tag, 4, 1))
        tiff[entry + 8 : entry + 12] = struct.pack("<I", 16_000)
    bmp = bytearray(save(tmp_path / "a.bmp", colour()).read_bytes())
    bmp[18:26] = struct.pack("<ii", 16_000, -16_000)
    ppm = b"P6 16000 16000 255\n" + bytes(1000)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    files = {
        "a.png": png_that_claims(16_000, 16_000),
        "a.jpg": jpeg,
        "a.tif": tiff,
        "a.bmp": bmp,
        "a.ppm": ppm,
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(bytes(data))
        assert "truncated" in refused(tmp_path / name, capfd)


def test_tiles_larger_than_the_picture_are_refused(tmp_path: Path) -> None:
    entries = [
        (256, 20),
        (257, 20),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, 2**20),
        (323, 2**20),
        (324, 8),
        (325, 9),
    ]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(100))
    with pytest.raises(ImageReadError, match="its tiles are larger than its picture"):
        read_image(tmp_path / "a.tif")


def bomb(width: int, height: int, bits: int, colour: int) -> bytes:
    """PNG that is whole but for its pixels, which could be there: so many zeros deflate to little."""

    def part(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", bytes(2**21)) + part(b"IEND", b"")


@pytest.mark.parametrize(("bits", "colour"), [(8, 6), (16, 2), (16, 4), (8, 3)])
def test_more_bytes_than_may_be_decoded_are_refused_before_decoding(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bits: int,
    colour: int,
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    (tmp_path / "a.png").write_bytes(bomb(16_384, 16_384, bits, colour))
    assert "MB when decoded; at most 805 MB are accepted" in refused(tmp_path / "a.png", capfd)


def test_the_bytes_of_a_pixel_by_format(tmp_path: Path) -> None:
    rgba = np.dstack([colour(), grey()])
    expected: list[tuple[Array, str, int]] = [
        (grey(), "PNG", 1),
        (counts(), "PNG", 2),
        (colour(), "PNG", 3),
        (rgba, "PNG", 4),
        (grey(), "JPEG", 1),
        (colour(), "JPEG", 3),
        (counts(), "TIFF", 2),
        (counts().astype(np.float32), "TIFF", 4),
        (rgba, "TIFF", 4),
        (colour(), "WEBP", 3),
        (rgba, "WEBP", 4),
        (colour(), "BMP", 3),
        (rgba, "BMP", 4),
        (counts(), "PPM", 2),
        (colour(), "PPM", 3),
    ]
    for pixels, kind, count in expected:
        for options in ({"lossless": True}, {}) if kind == "WEBP" else ({},):
            stream = io.BytesIO()
            PIL.Image.fromarray(pixels).save(stream, kind, **options)
            assert inspect(stream.getvalue()).pixel_bytes == count, (kind, pixels.dtype, pixels.shape)


def test_running_out_of_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(ImageReadError, match="there is not enough memory; shrink or tile it"):
        read_image(save(tmp_path / "a.png", grey()))


# --- what comes along --------------------------------------------------------------------------------------


def test_netpbm_files(tmp_path: Path) -> None:
    for name, pixels in (("a.ppm", colour()), ("a.pgm", grey()), ("b.pgm", counts())):
        np.testing.assert_array_equal(read_image(save(tmp_path / name, pixels)).pixels, pixels)


def test_a_bmp_from_the_top_down(tmp_path: Path) -> None:
    data = bytearray(save(tmp_path / "a.bmp", colour()).read_bytes())
    data[22:26] = struct.pack("<i", -HEIGHT)
    (tmp_path / "a.bmp").write_bytes(bytes(data))
    np.testing.assert_array_equal(read_image(tmp_path / "a.bmp").pixels, colour()[::-1])


def test_the_camera_comes_with_the_picture(tmp_path: Path) -> None:
    tags = exif(1)
    tags[0x10F] = "DJI"
    camera = read_image(save(tmp_path / "a.jpg", colour(), exif=tags)).camera
    assert camera is not None
    assert camera.make == "DJI"
    assert read_image(save(tmp_path / "b.jpg", colour())).camera is None
    assert read_image(colour()).camera is None
