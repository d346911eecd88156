from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from homoreg.errors import ConfigError, InputError
from homoreg.imaging.palettes import palette_colours
from homoreg.imaging.reading import Picture, read_image
from homoreg.imaging.tone import Modality, Tone, fit_tone, is_featureless
from tests.imaging.pictures import HEIGHT, WIDTH, Array, colour, counts, grey
from tests.scenes import heat

MODALITIES: tuple[Modality, ...] = ("ir", "rgb")


def thermal(seed: int = 0, low: float = 7300, high: float = 7900) -> Array:
    """Smooth counts with a little noise, evenly spread between two values."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(low, high, 120 * 160).reshape(120, 160)
    return (ramp + rng.normal(0, 2, ramp.shape)).round().astype(np.uint16)


# --- choosing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("pixels", [grey(), colour(), np.full((20, 20), 7, np.uint8)])
def test_8_bit_reaches_the_network_exactly(modality: Modality, pixels: Array) -> None:
    tone = fit_tone(Picture(pixels), modality)
    assert tone == Tone(modality, 0.0, 255.0)
    unit = tone.apply(pixels)
    as_torch_does = torch.from_numpy(pixels).float() / 255
    if pixels.ndim == 2:
        as_torch_does = as_torch_does[..., None].expand(-1, -1, 3)
    np.testing.assert_array_equal(unit, as_torch_does.numpy())


def test_16_bit_rgb_is_divided_by_its_full_scale() -> None:
    pixels = colour().astype(np.uint16) * 257
    tone = fit_tone(Picture(pixels), "rgb")
    assert tone == Tone("rgb", 0.0, 65535.0)
    np.testing.assert_allclose(tone.apply(pixels), colour() / 255, atol=1e-7)


@pytest.mark.parametrize(("bits", "full"), [(8, 255), (10, 1023), (12, 4095), (14, 16383)])
def test_rgb_of_fewer_bits_in_16_is_divided_by_its_own_full_scale(bits: int, full: int) -> None:
    pixels = (colour().astype(np.float64) / 255 * full).round().astype(np.uint16)
    pixels[0, 0] = full
    tone = fit_tone(Picture(pixels), "rgb")
    assert tone == Tone("rgb", 0.0, full)
    np.testing.assert_allclose(tone.apply(pixels)[1:], (colour() / 255)[1:], atol=0.6 / full)


def test_the_depth_of_rgb_is_that_of_what_the_mask_shows() -> None:
    pixels = colour().astype(np.uint16) * 4
    mask = np.ones(pixels.shape[:2], bool)
    pixels[0], mask[0] = 65535, False
    assert fit_tone(Picture(pixels, mask=mask), "rgb") == Tone("rgb", 0.0, 1023.0)


def test_16_bit_infrared_is_stretched_between_its_percentiles() -> None:
    pixels = thermal()
    tone = fit_tone(Picture(pixels), "ir")
    low, high = np.percentile(pixels, (0.5, 99.5))
    assert abs(tone.low - low) <= 1
    assert abs(tone.high - high) <= 1
    unit = tone.apply(pixels)
    assert unit.min() == 0
    assert unit.max() == 1
    assert 0.25 < unit.std() < 0.35  # an even spread has 0.289


def test_dead_and_hot_pixels_do_not_move_the_stretch() -> None:
    pixels = thermal()
    clean = fit_tone(Picture(pixels), "ir")
    spoilt = pixels.copy().reshape(-1)
    where = np.random.default_rng(1).permutation(spoilt.size)[:60]
    spoilt[where[:30]], spoilt[where[30:]] = 1, 65000
    tone = fit_tone(Picture(spoilt.reshape(pixels.shape)), "ir")
    assert abs(tone.low - clean.low) < 5
    assert abs(tone.high - clean.high) < 5


@pytest.mark.parametrize("value", [0, 65535])
def test_a_border_without_data_does_not_move_the_stretch(value: int) -> None:
    pixels = thermal()
    clean = fit_tone(Picture(pixels), "ir")
    pixels[:, :40] = value
    tone = fit_tone(Picture(pixels), "ir")
    assert abs(tone.low - clean.low) < 10
    assert abs(tone.high - clean.high) < 10


def test_counts_of_only_the_two_ends_keep_them() -> None:
    pixels = np.where(grey() > 100, 65535, 0).astype(np.uint16)
    assert fit_tone(Picture(pixels), "ir") == Tone("ir", 0.0, 65535.0)


def test_the_mask_leaves_out_what_is_transparent() -> None:
    pixels, mask = thermal(), np.ones((120, 160), np.bool_)
    clean = fit_tone(Picture(pixels), "ir")
    pixels[:60], mask[:60] = 30000, False
    masked = fit_tone(Picture(pixels, mask), "ir")
    assert masked.high == pytest.approx(clean.high, abs=5)
    assert fit_tone(Picture(pixels), "ir").high == 30000


def test_a_mask_of_nothing_falls_back_to_every_pixel() -> None:
    pixels = thermal()
    assert fit_tone(Picture(pixels, np.zeros(pixels.shape, np.bool_)), "ir") == fit_tone(
        Picture(pixels), "ir"
    )


def test_three_channels_of_counts_share_one_stretch() -> None:
    pixels = np.stack([thermal(), thermal() + 1000, thermal()], axis=-1)
    tone = fit_tone(Picture(pixels), "ir")
    assert tone.high > 8800
    assert tone.apply(pixels).shape == (120, 160, 3)


def test_float_infrared_is_stretched_like_its_counts() -> None:
    kelvin = thermal().astype(np.float32) * np.float32(0.04)
    tone = fit_tone(Picture(kelvin), "ir")
    of_counts = fit_tone(Picture(thermal()), "ir")
    assert tone.low == pytest.approx(of_counts.low * 0.04, abs=0.05)
    assert tone.high == pytest.approx(of_counts.high * 0.04, abs=0.05)


def test_floats_below_zero_are_stretched() -> None:
    celsius = np.linspace(-30, 20, 10_000, dtype=np.float32).reshape(100, 100)
    unit = fit_tone(Picture(celsius), "ir").apply(celsius)
    assert unit[0, 0, 0] == 0
    assert unit[-1, -1, 0] == 1


@pytest.mark.parametrize("modality", MODALITIES)
def test_floats_within_0_and_1_are_taken_as_they_are(modality: Modality) -> None:
    pixels = np.linspace(0.2, 0.4, 400, dtype=np.float32).reshape(20, 20)
    tone = fit_tone(Picture(pixels), modality)
    assert tone == Tone(modality, 0.0, 1.0)
    np.testing.assert_array_equal(tone.apply(pixels)[..., 1], pixels)


def test_counts_over_their_full_scale_are_stretched_like_counts() -> None:
    counts = thermal()
    unit = counts.astype(np.float32) / np.float32(65535)
    assert np.ptp(unit) < 1 / 32
    unit[3, 4] = 1.0  # a hot pixel
    shown = fit_tone(Picture(unit), "ir").apply(unit)
    wanted = fit_tone(Picture(counts), "ir").apply(counts)
    keep = np.ones(counts.shape, bool)
    keep[3, 4] = False
    np.testing.assert_allclose(shown[keep], wanted[keep], atol=0.01)
    assert not is_featureless(shown)


def test_float_infrared_within_0_and_1_is_stretched_no_further_than_8_counts() -> None:
    pixels = np.full((20, 20), 0.5, np.float32)
    pixels[::2] += np.float32(1e-5)
    tone = fit_tone(Picture(pixels), "ir")
    assert tone.high - tone.low == pytest.approx(8 / 65535)


def test_float_rgb_beyond_1_is_refused() -> None:
    picture = read_image(np.full((20, 20), 200.0))
    with pytest.raises(InputError, match=r"'array 20x20' run from 200 to 200; a float RGB image must lie"):
        fit_tone(picture, "rgb")


def test_the_range_of_many_floats_is_sampled_evenly() -> None:
    pixels = np.linspace(100, 200, 4_000_000, dtype=np.float32).reshape(2000, 2000)
    tone = fit_tone(Picture(pixels), "ir")
    assert tone.low == pytest.approx(100.5, abs=0.01)
    assert tone.high == pytest.approx(199.5, abs=0.01)


def test_an_unknown_modality_is_refused() -> None:
    with pytest.raises(InputError, match="modality is 'nir'; expected 'ir' or 'rgb'"):
        fit_tone(Picture(grey()), "nir")  # type: ignore[arg-type]


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (np.uint8, 0),
        (np.uint8, 255),
        (np.uint16, 0),
        (np.uint16, 7500),
        (np.uint16, 65535),
        (np.float32, 1.0),
    ],
)
def test_a_constant_image_becomes_a_featureless_constant(
    modality: Modality, dtype: Any, value: float
) -> None:
    pixels = np.full((20, 30), value, dtype)
    unit = fit_tone(Picture(pixels), modality).apply(pixels)
    assert np.ptp(unit) == 0
    assert np.isfinite(unit).all()
    assert is_featureless(unit)


@pytest.mark.parametrize("value", [300.0, -40.0, 1e30, -1e-30, 3e38])
def test_constant_float_infrared_becomes_a_constant(value: float) -> None:
    pixels = np.full((20, 30), value, np.float32)
    unit = fit_tone(Picture(pixels), "ir").apply(pixels)
    assert np.ptp(unit) == 0
    assert 0 <= unit[0, 0, 0] <= 1


def test_a_stretch_is_never_narrower_than_noise() -> None:
    pixels = np.full((100, 100), 7500, np.uint16)
    pixels[::2] += 1
    tone = fit_tone(Picture(pixels), "ir")
    assert tone.high - tone.low == 8


# --- applying ----------------------------------------------------------------------------------------------


def test_apply_clips_and_repeats_grey() -> None:
    unit = Tone("ir", 10, 20).apply(np.array([[0, 10, 15, 20, 90]], np.uint16))
    assert unit.dtype == np.float32
    assert unit.shape == (1, 5, 3)
    np.testing.assert_array_equal(unit[0, :, 0], np.array([0, 0, 0.5, 1, 1], np.float32))
    np.testing.assert_array_equal(unit[..., 0], unit[..., 2])


def test_apply_leaves_its_input_alone() -> None:
    pixels = np.linspace(0, 3, 400, dtype=np.float32).reshape(20, 20)
    before = pixels.copy()
    Tone("ir", 1, 2).apply(pixels)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("shape", [(4,), (4, 4, 1), (4, 4, 4), (1, 4, 4, 3)])
def test_apply_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(H, W\) or \(H, W, 3\)"):
        Tone("ir", 0, 1).apply(np.zeros(shape, np.float32))


COUNTS = hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, min_side=16, max_side=24))
FLOATS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=16, max_side=24),
    elements=st.floats(-(2.0**126), 2.0**126, width=32),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.one_of(COUNTS, FLOATS))
def test_any_infrared_stays_within_0_and_1_and_in_order(pixels: Array) -> None:
    tone = fit_tone(Picture(np.ascontiguousarray(pixels)), "ir")
    unit = tone.apply(pixels)[..., 0]
    assert unit.dtype == np.float32
    assert unit.min() >= 0
    assert unit.max() <= 1
    order = np.argsort(pixels, axis=None)
    assert (np.diff(unit.reshape(-1)[order]) >= 0).all()
    assert Tone.from_dict(json.loads(json.dumps(tone.as_dict()))) == tone


@settings(max_examples=100, deadline=None, derandomize=True)
@given(COUNTS, st.integers(1, 2000))
def test_an_offset_of_the_counts_changes_nothing(pixels: Array, offset: int) -> None:
    pixels = pixels % 60000 + 1  # away from 0 and 65535, which mean "no data"
    unit = fit_tone(Picture(pixels), "ir").apply(pixels)
    shifted = (pixels + offset).astype(np.uint16)
    np.testing.assert_allclose(fit_tone(Picture(shifted), "ir").apply(shifted), unit, atol=1e-6)


# --- the record --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (1.0, 1.0),
        (2.0, 1.0),
        (float("nan"), 1.0),
        (0.0, float("inf")),
        (float("-inf"), 0.0),
        (0, 1e-40),
        (-2e38, 2e38),
    ],
)
def test_a_tone_needs_a_finite_range(low: float, high: float) -> None:
    with pytest.raises(InputError, match="expected two finite numbers, low < high"):
        Tone("ir", low, high)


def test_a_tone_needs_a_modality() -> None:
    with pytest.raises(InputError, match="modality is 'x'; expected 'ir' or 'rgb'"):
        Tone("x", 0, 1)  # type: ignore[arg-type]


def test_a_palette_is_looked_up_only_where_it_is_asked_for() -> None:
    coloured = Picture(palette_colours("ironbow")[heat()])
    assert fit_tone(coloured, "ir").palette == ""
    assert fit_tone(coloured, "rgb", palettes=True).palette == ""
    assert fit_tone(Picture(heat()), "ir", palettes=True) == Tone("ir", 0, 255)
    assert fit_tone(coloured, "ir", palettes=True) == Tone("ir", 0, 255, "ironbow")


def test_a_palette_is_undone_and_recorded() -> None:
    coloured = palette_colours("ironbow")[heat()]
    tone = Tone.from_dict(Tone("ir", 0, 255, "ironbow").as_dict())
    unit = tone.apply(coloured)
    np.testing.assert_allclose(unit, np.repeat(heat()[..., None] / 255, 3, axis=2), atol=2.5 / 255)
    np.testing.assert_array_equal(tone.apply(tone.intensity(coloured)), unit)
    np.testing.assert_array_equal(tone.apply(heat()), Tone("ir", 0, 255).apply(heat()))


def test_an_unknown_palette_is_refused() -> None:
    with pytest.raises(InputError, match="palette is 'sepia'; expected one of autumn, "):
        Tone("ir", 0, 255, "sepia")
    with pytest.raises(ConfigError, match="palette is 'sepia'"):
        Tone.from_dict({"modality": "ir", "low": 0, "high": 255, "palette": "sepia"})


def test_a_tone_as_a_dict() -> None:
    assert Tone("ir", 7300.0, 7900.0).as_dict() == {"modality": "ir", "low": 7300.0, "high": 7900.0}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modality": "ir", "low": 0}, r"has the keys \['low', 'modality'\]; expected \['high', 'low'"),
        ({"modality": "ir", "low": 0, "high": 1, "gamma": 2}, "'gamma'"),
        ({"modality": "ir", "low": "0", "high": 1}, "bound '0'; expected a number"),
        ({"modality": "ir", "low": True, "high": 2}, "bound True; expected a number"),
        ({"modality": "ir", "low": None, "high": 2}, "bound None; expected a number"),
        ({"modality": "ir", "low": 3, "high": 2}, "low < high"),
        ({"modality": "ir", "low": 0, "high": 10**400}, "a tone is not valid"),
        ({"modality": 1, "low": 0, "high": 1}, "modality is 1"),
    ],
)
def test_a_wrong_record_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Tone.from_dict(values)


# --- featureless -------------------------------------------------------------------------------------------


def test_a_textured_image_is_not_featureless() -> None:
    assert not is_featureless(Tone("ir", 0, 255).apply(grey()))
    assert not is_featureless(np.linspace(0, 0.05, 400, dtype=np.float32).reshape(20, 20))


def test_a_constant_colour_is_featureless_although_its_channels_differ() -> None:
    assert is_featureless(np.full((20, 20, 3), (0.1, 0.5, 0.9), np.float32))


def test_content_in_one_channel_is_enough() -> None:
    unit = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    unit[..., 2] = grey() / 255
    assert not is_featureless(unit)


def test_less_than_one_8_bit_step_of_noise_is_featureless() -> None:
    noise = np.random.default_rng(0).normal(0.5, 0.5 / 255, (100, 100)).astype(np.float32)
    assert is_featureless(noise)
    assert not is_featureless(0.5 + (noise - 0.5) * 4)


def test_a_few_dead_pixels_are_no_content() -> None:
    unit = np.full((100, 100), 0.5, np.float32)
    unit[::25, ::25], unit[1::25, 1::25] = 0, 1
    assert is_featureless(unit)
    unit[:50] = 0.6
    assert not is_featureless(unit)


def test_only_what_the_mask_shows_counts() -> None:
    unit, mask = np.full((20, 20, 3), 0.5, np.float32), np.ones((20, 20), np.bool_)
    unit[:10], mask[:10] = np.random.default_rng(0).random((10, 20, 3)), False
    assert not is_featureless(unit)
    assert is_featureless(unit, mask)
    assert is_featureless(unit, np.zeros((20, 20), np.bool_))


def test_real_counts_are_not_featureless() -> None:
    tone = fit_tone(Picture(counts()), "ir")
    assert not is_featureless(tone.apply(counts()))
