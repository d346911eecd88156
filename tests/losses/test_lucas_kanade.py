from __future__ import annotations

import pytest
import torch
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry import compose, square_prior
from homoreg.losses import (
    brightness_constancy,
    convexity_hinge,
    decrease_hinge,
    per_pair_corner_error,
    star_convexity_hinge,
)
from tests.geometry.maps import double, random_maps, shift

N = 64
PRIOR = square_prior(N)[None]
TRUTH = compose(PRIOR, random_maps(3, side=float(N)))


def maps(batch: int = 3, stride: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    side = N // stride
    template = torch.rand(batch, 2, side, side, generator=draw, dtype=torch.float64)
    search = torch.rand(batch, 2, 3 * side // 2, 3 * side // 2, generator=draw, dtype=torch.float64)
    return template, search


# --- CLKN ---------------------------------------------------------------------------------------------------


def test_a_level_that_meets_the_demand_pays_nothing() -> None:
    before = shift(30, 0) @ PRIOR
    # From 30 px away by 10 px: to 19 px at each corner, a little more than asked for.
    assert decrease_hinge(before, shift(19, 0) @ PRIOR, PRIOR, N, drop=10.0).item() == 0
    assert decrease_hinge(before, shift(21, 0) @ PRIOR, PRIOR, N, drop=10.0).item() > 0


def test_the_hinge_is_its_equation() -> None:
    before, after = shift(30, 0) @ PRIOR, shift(0, 25) @ PRIOR
    found = decrease_hinge(before, after, PRIOR, N, drop=10.0, margin=2.0)
    assert found.item() == pytest.approx((2 + 4 * 25**2 - (60 - 20) ** 2) / (2 + 60**2))


def test_standing_still_costs_one_where_all_is_asked_for() -> None:
    before = compose(TRUTH, random_maps(3, side=float(N), reach=0.05, seed=1))
    torch.testing.assert_close(
        decrease_hinge(before, before, TRUTH, N, drop=100.0), torch.ones(3, dtype=torch.float64)
    )
    error = per_pair_corner_error(before, TRUTH, N)
    assert (decrease_hinge(before, TRUTH, TRUTH, N, drop=100.0) < 1 / error).all()


def test_the_start_gets_no_gradient() -> None:
    before = (shift(3, 1) @ PRIOR).requires_grad_()
    after = (shift(2, 2) @ PRIOR).requires_grad_()
    decrease_hinge(before, after, PRIOR, N, drop=4.0).sum().backward()
    assert before.grad is None
    assert after.grad is not None
    assert after.grad.any()


@pytest.mark.parametrize(("drop", "margin"), [(-1.0, 1.0), (1.0, 0.0), (1.0, -2.0)])
def test_impossible_demands_are_refused(drop: float, margin: float) -> None:
    with pytest.raises(InputError, match=f"drop is {drop} and margin {margin}; expected"):
        decrease_hinge(PRIOR, PRIOR, PRIOR, N, drop=drop, margin=margin)


def test_gradient_of_the_decrease_hinge() -> None:
    before = compose(TRUTH, random_maps(3, side=float(N), reach=0.1, seed=1))
    after = compose(TRUTH, random_maps(3, side=float(N), reach=0.05, seed=2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda h: decrease_hinge(before, h, TRUTH, N, drop=50.0), (after,))


# --- brightness constancy -----------------------------------------------------------------------------------


def test_what_the_homography_aligns_is_constant() -> None:
    _, search = maps()
    side = N // 8
    template = search[..., 2 : 2 + side, 2 : 2 + side]  # the centred square: N/4 px are two cells
    homographies = PRIOR.expand(3, 3, 3)
    assert brightness_constancy(template, search, homographies, stride=8).abs().max() < 1e-20
    moved = brightness_constancy(template, search, shift(3, 0) @ homographies, stride=8)
    assert (moved > 0.01).all()


def test_the_difference_is_squared_and_averaged_over_what_is_seen() -> None:
    template = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    search = torch.full((1, 2, 12, 12), 3.0, dtype=torch.float64)
    assert brightness_constancy(template, search, PRIOR, stride=8).item() == pytest.approx(9)
    # Half of the template beyond the right edge: the rest is as different as before.
    assert brightness_constancy(template, search, shift(48, 0) @ PRIOR, stride=8).item() == pytest.approx(9)
    assert brightness_constancy(template, search, shift(999, 0) @ PRIOR, stride=8).item() == 0


def test_gradient_of_brightness_constancy() -> None:
    template, search = (value.requires_grad_() for value in maps(1, 16))
    homography = (shift(1.3, -0.7) @ PRIOR).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda t, s, h: brightness_constancy(t, s, h, stride=16), (template, search, homography)
    )


# --- the landscape around the truth -------------------------------------------------------------------------


def test_a_landscape_that_rises_enough_pays_nothing() -> None:
    centre, margin = double([0.1, 0.1, 0.1]), double([0.02, 0.02, 0.02])
    around = double([[0.2, 0.12, 0.11], [0.0, 0.1, 0.3]])
    torch.testing.assert_close(
        convexity_hinge(centre, around, margin), double([[0, 0, 0.01], [0.12, 0.02, 0]]), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_a_parabola_is_strongly_star_convex(share: float) -> None:
    size = torch.linspace(0.1, 2.0, 5, dtype=torch.float64)
    centre, margin = double(0.3).expand(5), 0.5 * size**2  # E = E* + w^2: mu = 2 is asked for, and 1 is half
    inner, outer = 0.3 + (share * size) ** 2, 0.3 + size**2
    assert not star_convexity_hinge(centre, inner, outer, margin, share=share).any()
    assert (
        not star_convexity_hinge(centre, inner, outer, 2 * margin, share=share)
        .clamp_min(1e-12)
        .gt(1e-9)
        .any()
    )
    assert (star_convexity_hinge(centre, inner, outer, 3 * margin, share=share) > 0).all()


def test_a_ridge_on_the_way_is_not_star_convex() -> None:
    centre, outer, margin = double([0.0]), double([1.0]), double([0.1])
    assert star_convexity_hinge(centre, double([0.4]), outer, margin, share=0.5).item() == 0
    ridge = star_convexity_hinge(centre, double([0.8]), outer, margin, share=0.5)
    assert ridge.item() == pytest.approx(0.8 - 0.5 + 0.1 * 0.25)
    assert convexity_hinge(centre, outer, margin).item() == 0  # which looks at the far end only


def test_a_hollow_on_the_way_is_not_star_convex() -> None:
    found = star_convexity_hinge(double([0.5]), double([0.4]), double([1.0]), double([0.1]), share=0.5)
    assert found.item() == pytest.approx(0.5 + 0.1 * 0.25 - 0.4)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 2.0])
def test_a_share_outside_the_ray_is_refused(share: float) -> None:
    one = double([1.0])
    with pytest.raises(InputError, match=f"share is {share}; expected a number between 0 and 1"):
        star_convexity_hinge(one, one, one, one, share=share)


def test_gradients_of_the_landscape_hinges() -> None:
    draw = torch.Generator().manual_seed(3)
    centre, inner, outer = (
        torch.rand(6, generator=draw, dtype=torch.float64).requires_grad_() for _ in range(3)
    )
    margin = double([0.05] * 6)
    assert torch.autograd.gradcheck(lambda c, o: convexity_hinge(c, o, margin), (centre, outer))
    assert torch.autograd.gradcheck(
        lambda c, i, o: star_convexity_hinge(c, i, o, margin, share=0.5), (centre, inner, outer)
    )
