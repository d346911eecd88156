from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from homoreg.errors import ImageReadError, InputError
from homoreg.imaging.reading import ImageLike, read_image
from tests.imaging.pictures import HEIGHT, WIDTH, Array, colour, counts, grey, save

# --- NumPy -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_accepted_dtypes_are_kept(dtype: Any) -> None:
    array = (counts() % 200).astype(dtype)
    picture = read_image(array)
    assert picture.pixels.dtype == dtype
    np.testing.assert_array_equal(picture.pixels, array)
    assert picture.name == f"array {WIDTH}x{HEIGHT}"


def test_one_channel_is_dropped_and_four_are_split() -> None:
    assert read_image(counts()[..., None]).pixels.shape == (HEIGHT, WIDTH)
    rgba = np.dstack([colour(), np.zeros((HEIGHT, WIDTH), np.uint8)])
    rgba[3, 4, 3] = 7
    picture = read_image(rgba)
    np.testing.assert_array_equal(picture.pixels, colour())
    assert picture.mask is not None
    assert picture.mask.sum() == 1
    assert picture.mask[3, 4]


@pytest.mark.parametrize("alpha", [0, 255])
def test_an_alpha_that_says_nothing_gives_no_mask(alpha: int) -> None:
    rgba = np.dstack([colour(), np.full((HEIGHT, WIDTH), alpha, np.uint8)])
    assert read_image(rgba).mask is None


def test_the_picture_has_its_own_pixels() -> None:
    array = counts()
    picture = read_image(array)
    array[:] = 0
    np.testing.assert_array_equal(picture.pixels, counts())


@pytest.mark.parametrize(
    "view", [counts()[:, ::-1], counts()[:, ::2], np.asfortranarray(counts()), counts().astype(">u2")]
)
def test_any_memory_layout_and_byte_order(view: Array) -> None:
    picture = read_image(view)
    assert picture.pixels.flags.c_contiguous
    assert picture.pixels.dtype == np.uint16
    assert picture.pixels.dtype.isnative
    np.testing.assert_array_equal(picture.pixels, view)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.uint32, np.uint64])
def test_wider_integers_that_fit_become_uint16(dtype: Any) -> None:
    for role in ("image", "ir", "rgb"):
        picture = read_image(counts().astype(dtype), role=role)
        assert picture.pixels.dtype == np.uint16
        np.testing.assert_array_equal(picture.pixels, counts())


def test_wide_integers_up_to_255_are_8_bit_colours_but_16_bit_infrared() -> None:
    wide = colour().astype(np.int64)
    assert read_image(wide, role="rgb").pixels.dtype == np.uint8
    assert read_image(wide, role="ir").pixels.dtype == np.uint16


@pytest.mark.parametrize(("low", "high"), [(-1, 100), (0, 65536), (-(2**62), 2**62)])
def test_integers_that_do_not_fit_are_refused(low: int, high: int) -> None:
    array = np.full((20, 20), high, np.int64)
    array[0, 0] = low
    with pytest.raises(InputError, match=rf"int64 values run from {low} to {high}; integers must lie within"):
        read_image(array)


def test_bool_becomes_black_and_white() -> None:
    array = grey() > 100
    picture = read_image(array)
    assert picture.pixels.dtype == np.uint8
    np.testing.assert_array_equal(picture.pixels, np.where(array, 255, 0))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.longdouble])
def test_other_floats_become_float32(dtype: Any) -> None:
    picture = read_image((counts() / 8000).astype(dtype), role="rgb")
    assert picture.pixels.dtype == np.float32
    np.testing.assert_allclose(picture.pixels, counts() / 8000, atol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_are_counted_and_refused(value: float) -> None:
    array = np.zeros((20, 20))
    array[3, :2] = value
    for role in ("image", "ir", "rgb"):
        with pytest.raises(InputError, match=r"2 of its 400 values are NaN or infinite .* numpy.nan_to_num"):
            read_image(array, role=role)


def test_infrared_floats_may_have_any_range_and_rgb_floats_may_not() -> None:
    kelvin = counts().astype(np.float32) / 25
    np.testing.assert_array_equal(read_image(kelvin, role="ir").pixels, kelvin)
    with pytest.raises(
        InputError, match=r"RGB image: its float values run from 292 to 316; .* within \[0, 1\]"
    ):
        read_image(kelvin, role="rgb")


def test_rgb_floats_a_little_outside_are_clipped() -> None:
    array = np.linspace(-1e-6, 1 + 1e-6, 400).reshape(20, 20)
    pixels = read_image(array, role="rgb").pixels
    assert pixels.min() == 0
    assert pixels.max() == 1


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((20, 20), np.complex64),
        np.full((20, 20), "a"),
        np.full((20, 20), None),
        np.zeros((20, 20), "M8[s]"),
    ],
    ids=["complex", "text", "object", "dates"],
)
def test_other_dtypes_are_refused(array: Array) -> None:
    with pytest.raises(InputError, match=r"its dtype is .*; accepted are uint8, uint16, .* convert it"):
        read_image(array)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((), "expected"),
        ((20,), "expected"),
        ((20, 20, 2), "expected"),
        ((20, 20, 5), "expected"),
        ((3, 20, 20), r"put the channels last, for instance with array.transpose\(1, 2, 0\)"),
        ((2, 20, 20, 3), "take one image out of the batch"),
    ],
)
def test_wrong_dimensions_are_refused_with_a_hint(shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(InputError, match=hint) as caught:
        read_image(np.zeros(shape, np.uint8))
    assert f"has shape {shape}; expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)" in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 0), (0, 20), (1, 1), (15, 400), (400, 15), (1, 1, 3)])
def test_too_small_arrays_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=rf"it has {shape[1]} x {shape[0]} pixels; at least 16 x 16"):
        read_image(np.zeros(shape, np.uint8))


def test_a_huge_array_is_refused() -> None:
    view = np.broadcast_to(np.uint8(0), (2**15, 2**14))
    with pytest.raises(InputError, match="at most 268435456 in all are accepted"):
        read_image(view)


def test_a_masked_array_is_refused_rather_than_unmasked() -> None:
    with pytest.raises(InputError, match="it is a masked array; pass an"):
        read_image(np.ma.masked_less(counts(), 7400))


def test_an_array_error_is_not_a_file_error() -> None:
    with pytest.raises(InputError) as caught:
        read_image(np.zeros((20,)))
    assert not isinstance(caught.value, ImageReadError)


@pytest.mark.parametrize("source", [None, 3, [[1, 2], [3, 4]], b"bytes"])
def test_other_types_are_refused(source: Any) -> None:
    with pytest.raises(InputError, match=r"it is a \w+; pass a path, a PIL image, a NumPy array or a torch"):
        read_image(source)


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(InputError, match="role is 'thermal'; expected one of 'image', 'ir', 'rgb'"):
        read_image(counts(), role="thermal")  # type: ignore[arg-type]


# --- tensors -----------------------------------------------------------------------------------------------


def test_tensors_have_their_channels_first() -> None:
    chw = torch.from_numpy(np.moveaxis(colour(), -1, 0).copy())
    picture = read_image(chw)
    np.testing.assert_array_equal(picture.pixels, colour())
    assert picture.name == f"tensor {WIDTH}x{HEIGHT}"
    assert picture.pixels.flags.c_contiguous
    assert read_image(torch.from_numpy(grey())).is_grey
    assert read_image(torch.from_numpy(grey())[None]).is_grey


def test_a_tensor_with_alpha() -> None:
    rgba = torch.ones(4, 20, 20)
    rgba[3, :10] = 0
    picture = read_image(rgba, role="rgb")
    assert picture.mask is not None
    assert picture.mask.sum() == 200


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensor_floats(dtype: torch.dtype) -> None:
    tensor = torch.full((3, 20, 20), 0.5, dtype=dtype, requires_grad=True)
    assert (read_image(tensor, role="rgb").pixels == np.float32(0.5)).all()


def test_tensor_counts_keep_16_bits() -> None:
    tensor = torch.from_numpy(counts().astype(np.int32))
    np.testing.assert_array_equal(read_image(tensor, role="ir").pixels, counts())
    np.testing.assert_array_equal(read_image(torch.from_numpy(counts())).pixels, counts())


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((20, 20, 3), "put the channels first"),
        ((1, 3, 20, 20), "out of the batch"),
        ((20,), "channels first"),
    ],
)
def test_tensors_of_a_wrong_shape(shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        read_image(torch.zeros(shape))


def test_tensors_of_a_wrong_dtype_or_size() -> None:
    with pytest.raises(InputError, match="its dtype is complex64"):
        read_image(torch.zeros(20, 20, dtype=torch.complex64))
    with pytest.raises(InputError, match="it has 20 x 3 pixels"):
        read_image(torch.zeros(3, 20))
    with pytest.raises(InputError, match="NaN"):
        read_image(torch.full((20, 20), torch.nan))


# --- PIL ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV"])
def test_8_bit_pil_modes_look_as_pil_shows_them(mode: str) -> None:
    image = PIL.Image.fromarray(colour())
    image = image.convert("L").convert(mode) if mode == "1" else image
    image = image.convert(mode)
    picture = read_image(image)
    assert picture.pixels.dtype == np.uint8
    assert picture.mask is None
    assert picture.is_grey == (mode in ("1", "L"))
    expected = np.asarray(image.convert("L" if picture.is_grey else "RGB"))
    np.testing.assert_array_equal(picture.pixels, expected)
    assert picture.name == f"PIL image {WIDTH}x{HEIGHT}"


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I"])
def test_pil_modes_of_counts_keep_16_bits(mode: str) -> None:
    dtype = {"I;16": "<u2", "I;16L": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    image = PIL.Image.frombytes(mode, (WIDTH, HEIGHT), counts().astype(dtype).tobytes())
    picture = read_image(image, role="ir")
    assert picture.pixels.dtype == np.uint16
    np.testing.assert_array_equal(picture.pixels, counts())


def test_pil_floats() -> None:
    kelvin = counts().astype(np.float32) / 25
    np.testing.assert_array_equal(read_image(PIL.Image.fromarray(kelvin), role="ir").pixels, kelvin)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "La", "PA"])
def test_pil_alpha_becomes_the_mask(mode: str) -> None:
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:4] = 0
    image = PIL.Image.fromarray(np.dstack([colour(), alpha]))
    if mode in ("LA", "La"):
        image = image.convert("LA")
    if mode == "PA":
        image = PIL.Image.fromarray(grey()).convert("P").convert("PA")
        image.putalpha(PIL.Image.fromarray(alpha))
    picture = read_image(image.convert(mode))
    assert picture.is_grey == (mode in ("LA", "La"))
    assert picture.mask is not None
    np.testing.assert_array_equal(picture.mask, alpha > 0)


def test_a_transparent_palette_colour_becomes_the_mask(tmp_path: Path) -> None:
    indices = (grey() % 4).astype(np.uint8)
    image = PIL.Image.fromarray(indices).convert("P")
    image.info["transparency"] = 2
    picture = read_image(image)
    assert picture.mask is not None
    np.testing.assert_array_equal(picture.mask, np.asarray(image) != 2)


def test_a_pil_image_of_a_truncated_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:6000])
    with PIL.Image.open(path) as image, pytest.raises(InputError, match="PIL cannot decode it"):
        read_image(image)


def test_a_pil_image_that_cannot_be_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("conversion from CMYK to RGB not supported")

    monkeypatch.setattr(PIL.Image.Image, "convert", refuse)
    with pytest.raises(InputError, match="conversion from CMYK to RGB not supported"):
        read_image(PIL.Image.new("CMYK", (20, 20)))


def test_nothing_is_imported_to_recognise_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.delitem(sys.modules, "PIL.Image")
    read_image(counts())
    assert "torch" not in sys.modules
    assert "PIL.Image" not in sys.modules


def test_every_kind_of_source_is_in_the_alias() -> None:
    sources: list[ImageLike] = [counts(), torch.zeros(20, 20), PIL.Image.new("L", (20, 20))]
    sources.append(read_image(counts()))
    assert [read_image(source).is_grey for source in sources] == [True] * 4


def test_a_picture_is_returned_as_it_is() -> None:
    picture = read_image(counts())
    assert read_image(picture, role="ir") is picture
