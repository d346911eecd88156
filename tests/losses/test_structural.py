"""Structural losses: what they measure, what they do not mind, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from homoreg.errors import InputError
from homoreg.losses import mind_descriptor, mind_loss, ncc_loss, ngf_loss, photometric_loss

Loss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]

LOSSES: dict[str, Loss] = {
    "photometric": photometric_loss,
    "ncc": ncc_loss,
    "ncc squared": lambda a, b, m: ncc_loss(a, b, m, squared=True),
    "local ncc": lambda a, b, m: ncc_loss(a, b, m, window=5),
    "local ncc squared": lambda a, b, m: ncc_loss(a, b, m, window=5, squared=True),
    "ngf": ngf_loss,
    "mind": mind_loss,
}
POLARITY_FREE = [name for name in LOSSES if "squared" in name or name in ("ngf", "mind")]
STRUCTURAL = [name for name in LOSSES if name != "photometric"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Smooth random images in [0, 1], float64."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    smooth = F.avg_pool2d(noise, 3, stride=1, padding=1)
    return 0.5 + 0.4 * smooth / smooth.abs().amax()


IMAGE = draw(2, 3, 16, 20)
ALL = torch.ones(2, 1, 16, 20, dtype=torch.bool)
PART = ALL.clone()
PART[:, :, :3], PART[1, :, :, 15:] = False, False


# --- what all of them have in common ------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_alike_images_cost_less_than_others(name: str) -> None:
    alike, shifted, other = (
        LOSSES[name](IMAGE, image, ALL).item()
        for image in (IMAGE, IMAGE.roll(2, 3), draw(2, 3, 16, 20, seed=1))
    )
    assert 0 <= alike < 0.9 * min(shifted, other)


@pytest.mark.parametrize("name", LOSSES)
def test_pixels_outside_the_mask_do_not_matter(name: str) -> None:
    first, second = IMAGE.clone(), draw(2, 3, 16, 20, seed=1)
    expected = LOSSES[name](first, second, PART)
    spoilt = torch.where(PART, second, torch.full_like(second, math.nan)).requires_grad_()
    loss = LOSSES[name](first, spoilt, PART)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert spoilt.grad is not None
    assert torch.isfinite(spoilt.grad).all()
    assert spoilt.grad[PART.expand_as(spoilt)].abs().sum() > 0
    assert not spoilt.grad[~PART.expand_as(spoilt)].any()


@pytest.mark.parametrize("name", LOSSES)
def test_an_empty_mask_costs_nothing(name: str) -> None:
    first = IMAGE.clone().requires_grad_()
    loss = LOSSES[name](first, IMAGE.flip(3), ~ALL)
    assert loss.item() == 0
    loss.backward()
    assert first.grad is not None
    assert not first.grad.any()


@pytest.mark.parametrize("name", STRUCTURAL)
def test_an_image_without_a_mask_does_not_dilute_the_others(name: str) -> None:
    one = ALL.clone()
    one[1] = False
    other = draw(2, 3, 16, 20, seed=1)
    torch.testing.assert_close(LOSSES[name](IMAGE, other, one), LOSSES[name](IMAGE[:1], other[:1], ALL[:1]))


@pytest.mark.parametrize("name", LOSSES)
def test_flat_images_have_finite_gradients(name: str) -> None:
    first = torch.full_like(IMAGE, 0.4).requires_grad_()
    second = torch.full_like(IMAGE, 0.6).requires_grad_()
    loss = LOSSES[name](first, second, ALL)
    loss.backward()
    for image in (first, second):
        assert image.grad is not None
        assert torch.isfinite(image.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_float32_agrees_with_float64(name: str) -> None:
    other = draw(2, 3, 16, 20, seed=1)
    single = LOSSES[name](IMAGE.float(), other.float(), PART)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), LOSSES[name](IMAGE, other, PART), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name: str) -> None:
    first, second = draw(2, 1, 7, 8), draw(2, 1, 7, 8, seed=1)
    mask = torch.ones(2, 1, 7, 8, dtype=torch.bool)
    mask[0, :, 0] = False
    inputs = (first.requires_grad_(), second.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: LOSSES[name](a, b, mask), inputs, atol=1e-6, rtol=1e-3)


# --- what a change of modality may do -----------------------------------------------------------------------


@pytest.mark.parametrize("gain", [0.3, 1.7])
@pytest.mark.parametrize("offset", [-0.4, 0.3])
@pytest.mark.parametrize("name", STRUCTURAL)
def test_gain_and_offset_do_not_matter(name: str, gain: float, offset: float) -> None:
    other = 0.5 * IMAGE + 0.5 * draw(2, 3, 16, 20, seed=1)
    expected = LOSSES[name](IMAGE, other, PART)
    torch.testing.assert_close(LOSSES[name](IMAGE, gain * other + offset, PART), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", POLARITY_FREE)
def test_polarity_does_not_matter(name: str) -> None:
    other = 0.5 * IMAGE + 0.5 * draw(2, 3, 16, 20, seed=1)
    torch.testing.assert_close(LOSSES[name](IMAGE, 1 - other, PART), LOSSES[name](IMAGE, other, PART))


@pytest.mark.parametrize("name", ["ncc", "local ncc"])
def test_polarity_matters_to_the_plain_coefficient(name: str) -> None:
    same, reversed_ = LOSSES[name](IMAGE, IMAGE, ALL).item(), LOSSES[name](IMAGE, 1 - IMAGE, ALL).item()
    assert same + reversed_ == pytest.approx(2)
    assert same < 0.01


@pytest.mark.parametrize("name", ["local ncc squared", "ngf", "mind"])
def test_polarity_may_change_from_place_to_place(name: str) -> None:
    sign = torch.ones_like(IMAGE)
    sign[..., 10:] = -1
    mask = ALL.clone()
    mask[..., 8:12] = False  # no window across the seam
    patchwork = 0.5 + sign * (IMAGE - 0.5)
    torch.testing.assert_close(LOSSES[name](IMAGE, patchwork, mask), LOSSES[name](IMAGE, IMAGE, mask))
    assert LOSSES["ncc squared"](IMAGE, patchwork, mask) > 0.3


# --- one by one ---------------------------------------------------------------------------------------------


def test_the_coefficient_is_pearsons() -> None:
    a, b = draw(1, 1, 6, 6), draw(1, 1, 6, 6, seed=1)
    mask = ALL[:1, :, :6, :6].clone()
    mask[..., 0] = False
    r = torch.corrcoef(torch.stack([a[mask], b[mask]]))[0, 1]
    torch.testing.assert_close(ncc_loss(a, b, mask, noise=1e-9), 1 - r)
    torch.testing.assert_close(ncc_loss(a, b, mask, noise=1e-9, squared=True), 1 - r**2)


def test_a_window_as_large_as_the_image_is_the_whole_image() -> None:
    a, b = draw(1, 2, 7, 7), draw(1, 2, 7, 7, seed=1)
    mask = torch.ones(1, 1, 7, 7, dtype=torch.bool)
    torch.testing.assert_close(ncc_loss(a, b, mask, window=7), ncc_loss(a, b, mask))


def test_windows_are_averaged() -> None:
    a, b = draw(1, 1, 5, 6), draw(1, 1, 5, 6, seed=1)
    mask = torch.ones(1, 1, 5, 6, dtype=torch.bool)
    parts = [ncc_loss(a[..., :5], b[..., :5], mask[..., :5]), ncc_loss(a[..., 1:], b[..., 1:], mask[..., 1:])]
    torch.testing.assert_close(ncc_loss(a, b, mask, window=5), torch.stack(parts).mean())


def test_contrast_below_the_noise_does_not_correlate() -> None:
    faint = 0.5 + 1e-4 * (IMAGE - 0.5)
    assert ncc_loss(IMAGE, faint, ALL).item() > 0.9
    assert ncc_loss(IMAGE, faint, ALL, noise=1e-9).item() == pytest.approx(0, abs=1e-3)


def ramp(angle: float) -> Tensor:
    x, y = torch.meshgrid(torch.arange(9).double(), torch.arange(9).double(), indexing="xy")
    return (math.cos(angle) * x + math.sin(angle) * y)[None, None]


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, math.pi])
def test_ngf_of_ramps_is_the_angle_between_them(angle: float) -> None:
    mask = torch.ones(1, 1, 9, 9, dtype=torch.bool)
    # With e = |grad| both fields have the length 1 / sqrt(2).
    loss = ngf_loss(ramp(0.2), ramp(0.2 + angle), mask)
    assert loss.item() == pytest.approx(1 - (math.cos(angle) / 2) ** 2)
    assert ngf_loss(ramp(0.2), ramp(0.2 + angle), mask, edge=1e-6).item() == pytest.approx(
        1 - math.cos(angle) ** 2, abs=1e-9
    )


def test_mind_by_hand() -> None:
    image = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    image[..., 1, 1], image[..., 1, 2] = 2.0, 1.0
    found = mind_descriptor(image, patch=1)
    # Squared differences to up, down, left, right: 4, 4, 4, 1; their mean, and a thousandth, is 3.25 * 1.001.
    other = math.exp(-3 / (3.25 * 1.001))
    torch.testing.assert_close(found.flatten(), torch.tensor([other, other, other, 1.0]).double())


def test_mind_of_a_batch_has_a_place_for_every_neighbour_and_channel() -> None:
    found = mind_descriptor(IMAGE, reach=2, patch=5)
    assert found.shape == (2, 12, 8, 12)
    assert found.max() == 1
    assert found.min() > 0
    torch.testing.assert_close(found[1:, 1::3], mind_descriptor(IMAGE[1:, 1:2], reach=2, patch=5))


def test_the_mind_loss_compares_descriptors() -> None:
    other = draw(2, 3, 16, 20, seed=1)
    expected = (mind_descriptor(IMAGE) - mind_descriptor(other)).abs().mean()
    torch.testing.assert_close(mind_loss(IMAGE, other, ALL), expected)


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "given",
    [
        (IMAGE, IMAGE[:1], ALL),
        (IMAGE, IMAGE, ALL[:, 0]),
        (IMAGE, IMAGE, ALL.float()),
        (IMAGE[0], IMAGE[0], ALL[0]),
        (IMAGE, IMAGE, ALL[..., 1:]),
    ],
    ids=["batch", "mask without channel", "float mask", "three dimensions", "mask size"],
)
def test_shapes_that_do_not_fit(name: str, given: tuple[Tensor, Tensor, Tensor]) -> None:
    with pytest.raises(
        InputError, match=r"images have shapes .*expected \(B, C, H, W\) twice and \(B, 1, H, W\)"
    ):
        LOSSES[name](*given)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ncc_loss(IMAGE, IMAGE, ALL, window=4),
            "window is 4 px for images of 20x16 px; expected an odd",
        ),
        (lambda: ncc_loss(IMAGE, IMAGE, ALL, window=17), "window is 17 px"),
        (lambda: ncc_loss(IMAGE, IMAGE, ALL, noise=0), "noise is 0; expected a positive"),
        (lambda: ngf_loss(IMAGE, IMAGE, ALL, edge=-1), "edge is -1; expected a positive"),
        (
            lambda: ngf_loss(IMAGE[..., :2], IMAGE[..., :2], ALL[..., :2]),
            "the neighbourhood is 3 px for images of 2x",
        ),
        (lambda: mind_descriptor(IMAGE, patch=2), "patch is 2 px"),
        (lambda: mind_descriptor(IMAGE, reach=0), "reach is 0; expected at least 1 px"),
        (lambda: mind_loss(IMAGE, IMAGE, ALL, reach=8), r"2 reach \+ patch is 19 px"),
    ],
)
def test_options_that_cannot_be(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
