from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from homoreg.errors import ConfigError
from homoreg.synthesis.appearance import (
    AppearanceConfig,
    _surfaces,
    infrared_appearance,
    palettes,
    pseudo_infrared,
    rgb_appearance,
)
from homoreg.synthesis.random import Draw
from tests.scenes import infrared_of, scene

NAMES = [field.name for field in dataclasses.fields(AppearanceConfig)]
OF_RGB = [name for name in NAMES if name.startswith("rgb_")] + ["night", "jpeg"]
OF_INFRARED = [name for name in NAMES if name not in OF_RGB or name == "jpeg"]
BATCH = 4


def only(*names: str) -> AppearanceConfig:
    """Those changes always and no others."""
    return AppearanceConfig(**{name: float(name in names) for name in NAMES})


@pytest.fixture(scope="module")
def rgb() -> Tensor:
    images = np.stack([scene(96, 96, seed=seed) for seed in range(BATCH)])
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255


@pytest.fixture(scope="module")
def infrared() -> Tensor:
    images = np.stack([infrared_of(scene(64, 64, seed=seed))[..., 0] for seed in range(BATCH)])
    return torch.from_numpy(images).unsqueeze(1) / 255


def seen_infrared(infrared: Tensor, *names: str, seed: int = 0) -> Tensor:
    return infrared_appearance(infrared, Draw(seed, len(infrared)), only(*names))


def seen_rgb(rgb: Tensor, *names: str, seed: int = 0) -> Tensor:
    return rgb_appearance(rgb, Draw(seed, len(rgb)), only(*names))


def flat(value: float, channels: int, side: int = 64) -> Tensor:
    return torch.full((BATCH, channels, side, side), value)


# --- all of them --------------------------------------------------------------------------------------------


def test_the_two_sides_make_up_the_config() -> None:
    assert {*OF_RGB, *OF_INFRARED} == set(NAMES)


def test_without_a_chance_nothing_changes(rgb: Tensor, infrared: Tensor) -> None:
    assert torch.equal(seen_infrared(infrared), infrared.expand(-1, 3, -1, -1))
    assert torch.equal(seen_rgb(rgb), rgb)


@pytest.mark.parametrize("name", OF_INFRARED)
def test_each_change_of_the_infrared_changes_every_member(infrared: Tensor, name: str) -> None:
    before = infrared.clone()
    out = seen_infrared(infrared, name, seed=2)
    assert out.shape == (BATCH, 3, 64, 64)
    assert out.min() >= 0
    assert out.max() <= 1
    change = (out - infrared).abs().amax(dim=(1, 2, 3))
    assert (change > 0).all()
    assert change.max() > 0.02  # the narrowest blurs change little
    assert torch.equal(infrared, before)


@pytest.mark.parametrize("name", OF_RGB)
def test_each_change_of_the_rgb_changes_every_member(rgb: Tensor, name: str) -> None:
    before = rgb.clone()
    out = seen_rgb(rgb, name)
    assert out.shape == rgb.shape
    assert out.min() >= 0
    assert out.max() <= 1
    change = (out - rgb).abs().amax(dim=(1, 2, 3))
    assert (change > 0).all()
    assert change.max() > 0.02  # the narrowest blurs change little
    assert torch.equal(rgb, before)


@pytest.mark.parametrize("name", OF_RGB)
def test_changes_of_the_rgb_leave_the_infrared(infrared: Tensor, name: str) -> None:
    if name != "jpeg":
        assert torch.equal(seen_infrared(infrared, name), infrared.expand(-1, 3, -1, -1))


@pytest.mark.parametrize("name", OF_INFRARED)
def test_changes_of_the_infrared_leave_the_rgb(rgb: Tensor, name: str) -> None:
    if name != "jpeg":
        assert torch.equal(seen_rgb(rgb, name), rgb)


def test_seeds(rgb: Tensor, infrared: Tensor) -> None:
    assert torch.equal(seen_infrared(infrared, *NAMES, seed=1), seen_infrared(infrared, *NAMES, seed=1))
    assert not torch.equal(seen_infrared(infrared, *NAMES, seed=1), seen_infrared(infrared, *NAMES, seed=2))
    assert torch.equal(seen_rgb(rgb, *NAMES, seed=1), seen_rgb(rgb, *NAMES, seed=1))
    assert not torch.equal(seen_rgb(rgb, *NAMES, seed=1), seen_rgb(rgb, *NAMES, seed=2))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_images_stay_in_range(value: float) -> None:
    for seed in range(3):
        for out in (
            seen_infrared(flat(value, 1), *NAMES, seed=seed),
            seen_rgb(flat(value, 3, 96), *NAMES, seed=seed),
            pseudo_infrared(flat(value, 3), Draw(seed, BATCH)),
        ):
            assert out.isfinite().all()
            assert out.min() >= 0
            assert out.max() <= 1


# --- the infrared, one by one -------------------------------------------------------------------------------


def test_polarity_inverts(infrared: Tensor) -> None:
    assert torch.equal(seen_infrared(infrared, "polarity"), (1 - infrared).expand(-1, 3, -1, -1))


def test_stretch_spans_the_range(infrared: Tensor) -> None:
    dull = 0.4 + 0.1 * infrared
    out = seen_infrared(dull, "stretch")[:, :1]
    assert (out.amin(dim=(1, 2, 3)) < 0.01).all()
    assert (out.amax(dim=(1, 2, 3)) > 0.95).all()
    kept = (out > 0) & (out < 0.98)
    for k in range(BATCH):
        order = np.corrcoef(dull[k][kept[k]].numpy(), out[k][kept[k]].numpy())[0, 1]
        assert order > 0.9999  # linear between the ends


def test_gamma_is_a_power(infrared: Tensor) -> None:
    out = seen_infrared(infrared, "gamma")[:, :1]
    middling = (infrared > 0.2) & (infrared < 0.9)
    exponents = []
    for k in range(BATCH):
        ratio = (out[k].log() / infrared[k].log())[middling[k]]
        assert ratio.std() < 1e-3
        exponents.append(float(ratio.mean()))
    assert all(0.49 < exponent < 2.02 for exponent in exponents)
    assert len(set(exponents)) == BATCH


def test_faint_images_keep_their_order_in_a_narrow_band(infrared: Tensor) -> None:
    for seed in range(8):
        out = seen_infrared(infrared, "faint", seed=seed)[:, :1]
        for before, after in zip(infrared.flatten(1), out.flatten(1), strict=True):
            order = before.argsort()
            assert (after[order].diff() >= -1e-6).all()
            # Half of what there is has at most half of its spread.
            low, middle = before.quantile(0.05), before.quantile(0.3)
            dim = after[(before >= low) & (before <= middle)]
            assert dim.max() - dim.min() <= 0.5 * (middle - low) + 1e-6


def test_a_curve_is_a_function_of_the_value_and_need_not_be_monotone() -> None:
    ramp = (torch.arange(4096) / 4095).view(1, 1, 64, 64).expand(BATCH, -1, -1, -1)
    out = seen_infrared(ramp, "curve")[:, 0].flatten(1)
    steps = out[:, 1:] - out[:, :-1]
    assert ((steps > 1e-4).any(1) & (steps < -1e-4).any(1)).any()
    # One of 256 levels a value: neighbouring values share it or take the next.
    assert steps.abs().max() < 0.1
    assert (out.amax(1) - out.amin(1)).min() > 0.9


def test_patchwork_depends_on_the_place() -> None:
    spread = (seen_infrared(flat(0.3, 1), "patchwork") - 0.3).abs()
    assert spread.amax(dim=(1, 2, 3)).min() > 0.02
    assert (spread.flatten(1).std(1) > 0.005).any()


def test_vignettes_are_smooth() -> None:
    out = seen_infrared(flat(0.5, 1), "vignette")
    assert (out[..., 1:] - out[..., :-1]).abs().max() < 0.05
    assert (out.amax(dim=(1, 2, 3)) - out.amin(dim=(1, 2, 3)) > 0.1).any()


def test_stripes_are_columns() -> None:
    out = seen_infrared(flat(0.5, 1), "stripes")[:, 0]
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert (out[:, 0].std(1) > 0.003).all()
    assert (out[:, 0].std(1) < 0.05).all()


def test_blur_spreads_and_keeps_the_mean() -> None:
    x = flat(0.0, 1)
    x[..., 32, 32] = 1
    out = seen_infrared(x, "infrared_blur", seed=2)[:, 0]
    assert torch.allclose(out.sum(dim=(1, 2)), torch.ones(BATCH), atol=1e-4)
    assert (out[:, 32, 32] < 1).all()
    assert out[:, 32, 32].min() < 0.5
    assert torch.allclose(out, out.transpose(1, 2), atol=1e-6)
    assert torch.allclose(seen_infrared(flat(0.7, 1), "infrared_blur"), flat(0.7, 3), atol=1e-5)


def test_noise_is_noise() -> None:
    residual = seen_infrared(flat(0.5, 1), "infrared_noise")[:, 0] - 0.5
    deviation = residual.flatten(1).std(1)
    assert ((deviation > 0.0035) & (deviation < 0.065)).all()
    assert (residual.flatten(1).mean(1).abs() < 0.1 * deviation).all()
    assert not torch.equal(residual[0], residual[1])


def test_a_palette_colours(infrared: Tensor) -> None:
    out = seen_infrared(infrared, "palette")
    level = (infrared[:, 0] * 255).round().long()
    tables = palettes()
    for k in range(BATCH):
        candidates = tables[:, level[k]].permute(0, 3, 1, 2)
        assert (candidates == out[k]).flatten(1).all(1).sum() >= 1


def test_jpeg_stays_close(infrared: Tensor, rgb: Tensor) -> None:
    for out, before in ((seen_infrared(infrared, "jpeg"), infrared), (seen_rgb(rgb, "jpeg"), rgb)):
        assert 0.001 < (out - before).abs().mean() < 0.1


# --- the RGB, one by one ------------------------------------------------------------------------------------


def test_gains_tint() -> None:
    out = seen_rgb(flat(0.5, 3), "rgb_gain")
    colours = out[:, :, 0, 0]
    assert torch.allclose(out, colours[:, :, None, None].expand_as(out), atol=1e-6)
    assert (colours.amax(1) - colours.amin(1) > 0.01).all()


def test_mixes_keep_grey_and_change_colours(rgb: Tensor) -> None:
    grey = rgb[:, :1].expand(-1, 3, -1, -1)
    assert torch.allclose(seen_rgb(grey, "rgb_mix"), grey, atol=1e-5)
    out = seen_rgb(rgb, "rgb_mix")
    assert (out <= rgb.amax(1, keepdim=True) + 1e-5).all()
    assert (out >= rgb.amin(1, keepdim=True) - 1e-5).all()


def test_grey_is_the_mean(rgb: Tensor) -> None:
    assert torch.allclose(seen_rgb(rgb, "rgb_grey"), rgb.mean(1, keepdim=True).expand_as(rgb))


def test_nights_are_dark_and_noisy() -> None:
    out = seen_rgb(flat(0.8, 3), "night")
    level, deviation = out.mean(dim=(1, 2, 3)), out.flatten(1).std(1)
    assert (level < 0.6 * 0.8 + 0.01).all()
    assert (level > 0.15 * 0.8 - 0.01).all()
    assert (deviation > 0.008).all()


def test_rgb_noise_differs_between_channels() -> None:
    residual = seen_rgb(flat(0.5, 3), "rgb_noise") - 0.5
    assert (residual[:, 0] != residual[:, 1]).any()
    assert ((residual.flatten(1).std(1) > 0.0035) & (residual.flatten(1).std(1) < 0.045)).all()


def test_rgb_blur_keeps_flat_images_flat(rgb: Tensor) -> None:
    assert torch.allclose(seen_rgb(flat(0.7, 3), "rgb_blur"), flat(0.7, 3), atol=1e-5)
    rough = (rgb[..., 1:] - rgb[..., :-1]).abs().mean(dim=(1, 2, 3))
    out = seen_rgb(rgb, "rgb_blur")
    assert ((out[..., 1:] - out[..., :-1]).abs().mean(dim=(1, 2, 3)) < rough).all()


# --- palettes and pseudo-infrared ---------------------------------------------------------------------------


def test_palettes() -> None:
    tables = palettes()
    assert tables.dtype == torch.float32
    assert tables.shape[1:] == (256, 3)
    assert tables.min() >= 0
    assert tables.max() <= 1
    assert len(tables) > 10
    assert len(torch.unique(tables.flatten(1), dim=0)) > 10
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    jet = cv2.applyColorMap(ramp, cv2.COLORMAP_JET)[:, 0, ::-1].astype(np.float32) / 255
    assert (tables == torch.from_numpy(jet)).flatten(1).all(1).sum() == 1


def test_pseudo_infrared_shows_the_scene(rgb: Tensor) -> None:
    out = torch.cat([pseudo_infrared(rgb, Draw(seed, BATCH)) for seed in range(5)])
    assert out.shape == (5 * BATCH, 1, 96, 96)
    assert out.min() >= 0
    assert out.max() <= 1
    assert (out.flatten(1).std(1) > 0.02).all()
    assert torch.equal(out[:BATCH], pseudo_infrared(rgb, Draw(0, BATCH)))
    # Curves need not be monotone, so both polarities occur.
    grey = rgb.mean(1).repeat(5, 1, 1)
    signs = [np.corrcoef(out[k].flatten(), grey[k].flatten())[0, 1] > 0 for k in range(len(out))]
    assert 0 < sum(signs) < len(signs)


def test_surfaces_of_one_colour_have_one_temperature() -> None:
    colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.1, 0.2, 0.9], [0.7, 0.7, 0.7]])
    image = colours.T.reshape(1, 3, 2, 2).repeat_interleave(32, 2).repeat_interleave(32, 3)
    rgb = image.expand(BATCH, -1, -1, -1)
    temperatures = _surfaces(rgb, Draw(3, BATCH))
    assert temperatures.shape == (BATCH, 1, 64, 64)
    tiles = temperatures.view(BATCH, 2, 32, 2, 32).transpose(2, 3).flatten(3)
    assert tiles.std(-1).max() < 1e-5
    means = tiles.mean(-1).flatten(1)
    assert means.std(1).min() > 0.01, "and different ones different temperatures"


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_chances_out_of_range(name: str) -> None:
    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match=f"{name} is {value}; expected a chance between 0 and 1"):
            AppearanceConfig(**{name: value})
