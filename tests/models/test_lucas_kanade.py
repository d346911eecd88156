from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from homoreg.geometry import compose, image_corners, is_plausible, pad_matrix, square_prior, transform_points
from homoreg.losses import per_pair_corner_error
from homoreg.models.layers import standardize
from homoreg.models.lucas_kanade import (
    WORST,
    Alignment,
    Level,
    align,
    coarse_to_fine,
    reduce_pair,
    sound_start,
)
from tests.geometry.maps import double, random_maps
from tests.models.contract import pairs

N = 64


def level(stride: int = 4, batch: int = 3, **settings: object) -> tuple[Level, Tensor]:
    """Both images averaged over cells, in double precision, and the truth."""
    template, search, truth = pairs(N, batch)
    maps = [F.avg_pool2d(image.double(), stride) for image in (template, search)]
    values: dict[str, object] = {"reach": 16.0, "iterations": 40, **settings}
    return Level(maps[0], maps[1], stride, **values), truth  # type: ignore[arg-type]


def square(batch: int) -> Tensor:
    return square_prior(N).expand(batch, 3, 3)


def members(one: Level, *index: int) -> Level:
    chosen = list(index)
    return dataclasses.replace(one, template=one.template[chosen], search=one.search[chosen])


@pytest.mark.parametrize("monotone", [True, False])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_truth_is_found(stride: int, monotone: bool) -> None:
    one, truth = level(stride, monotone=monotone, tolerance=1e-4)
    found = align(one, square(3))
    assert (per_pair_corner_error(square(3), truth, N) > 2).all()
    assert (per_pair_corner_error(found.homography, truth, N) < 0.1 * stride).all()
    assert found.improved.all()
    assert found.converged.all()
    assert (found.cost < 0.3 * found.start_cost).all()


def test_a_step_of_many_channels_is_the_step_of_their_mean() -> None:
    one, _ = level()
    grey = [image.mean(1, keepdim=True) for image in (one.template, one.search)]
    repeated = dataclasses.replace(
        one, template=grey[0].expand(-1, 5, -1, -1), search=grey[1].expand(-1, 5, -1, -1)
    )
    single = dataclasses.replace(one, template=grey[0], search=grey[1])
    torch.testing.assert_close(align(repeated, square(3)).homography, align(single, square(3)).homography)


def test_the_first_step_is_that_of_gauss_and_newton() -> None:
    """Against the Jacobian that autograd finds through the warp of the template."""
    one, _ = level(2, batch=1, iterations=1, monotone=False, damping=0.0)
    grey = dataclasses.replace(one, template=one.template[:, :1], search=one.search[:, :1])
    n, cells = float(N), N // 2
    unit = double([[2 / n, 0, -(n - 1) / n], [0, 2 / n, -(n - 1) / n], [0, 0, 1]])
    padded = F.pad(grey.template, [1, 1, 1, 1], mode="replicate")
    gx = (padded[0, 0, 1:-1, 2:] - padded[0, 0, 1:-1, :-2]).flatten() / 4
    gy = (padded[0, 0, 2:, 1:-1] - padded[0, 0, :-2, 1:-1]).flatten() / 4
    y, x = torch.meshgrid(*[torch.arange(cells, dtype=torch.float64) * 2 + 0.5] * 2, indexing="ij")
    points = torch.stack([x.flatten(), y.flatten()], -1)

    def moved(entries: Tensor) -> Tensor:
        warp = torch.eye(3).double() + F.pad(entries, [0, 1]).view(3, 3)
        return transform_points(torch.linalg.inv(unit) @ warp @ unit, points)

    jacobian = torch.autograd.functional.jacobian(moved, torch.zeros(8, dtype=torch.float64))
    assert isinstance(jacobian, Tensor)
    rows = gx[:, None] * jacobian[:, 0] + gy[:, None] * jacobian[:, 1]
    shifted = (points + N / 4 - 0.5) / 2  # the centred square is whole cells away: no interpolation
    residual = grey.search[0, 0, shifted[:, 1].round().long(), shifted[:, 0].round().long()]
    residual = residual - grey.template.flatten()
    entries = torch.linalg.solve(
        rows.T @ rows / len(rows) + 1e-3 * torch.eye(8).double(), rows.T @ residual / len(rows)
    )
    warp = torch.eye(3).double() + F.pad(entries, [0, 1]).view(3, 3)
    expected = compose(square_prior(N), torch.linalg.inv(unit), torch.linalg.inv(warp), unit)
    torch.testing.assert_close(align(grey, square(1)).steps[1][0], expected, atol=1e-8, rtol=1e-8)


def test_a_finished_member_is_left_alone() -> None:
    one, _ = level()
    start = torch.cat([align(one, square(3)).steps[-1][:1], square(2)])
    found = align(one, start)
    assert found.iterations[0] < found.iterations[1:].min()
    frozen = torch.stack(found.steps)[:, 0]
    last = int(found.iterations[0])
    assert torch.equal(frozen[last:], frozen[last].expand_as(frozen[last:]))


def test_a_batch_is_its_members() -> None:
    one, truth = level()
    start = torch.cat([truth[:1], square(2)])
    together = align(one, start)
    for k in range(3):
        alone = align(members(one, k), start[k : k + 1])
        torch.testing.assert_close(alone.homography[0], together.homography[k], atol=1e-9, rtol=0)
        assert alone.iterations[0] == together.iterations[k]


def test_with_levenberg_no_step_raises_the_objective() -> None:
    template, search, _ = pairs(N, 4)
    noise = torch.randn(template.shape, generator=torch.Generator().manual_seed(0)).double()
    one = Level(F.avg_pool2d(noise, 4), F.avg_pool2d(search.double(), 4), 4, reach=30.0)
    steps = align(one, square(4)).steps
    costs = [align(dataclasses.replace(one, iterations=0), step).start_cost for step in steps]
    # Over all cells each sees, as the solver compares them; here no start loses a cell.
    assert all((after <= before + 1e-9).all() for before, after in pairwise(costs))


def test_what_does_not_lower_the_objective_is_given_up() -> None:
    one, truth = level(monotone=False)
    # The search image is the template itself, at the centred square: every move away from it is worse.
    still = F.pad(one.template, [N // 16] * 4, mode="replicate")
    found = align(dataclasses.replace(one, search=still), square(3))
    assert not found.improved.any()
    assert torch.equal(found.homography, square(3))
    assert torch.equal(found.cost, found.start_cost)
    assert not align(one, truth.clone()).finite.logical_not().any()


def test_no_step_leaves_the_reach() -> None:
    one, truth = level(reach=1.5, monotone=False)
    found = align(one, square(3))
    assert (per_pair_corner_error(square(3), truth, N) > 1.5).all()
    assert all((per_pair_corner_error(step, square(3), N) <= 1.5 + 1e-6).all() for step in found.steps)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_maps_that_are_not_finite_leave_the_start_and_the_others_alone(value: float) -> None:
    one, _ = level()
    broken = one.template.clone()
    broken[1] = value
    found = align(dataclasses.replace(one, template=broken), square(3))
    assert found.finite.tolist() == [True, False, True]
    assert found.improved.tolist() == [True, False, True]
    assert torch.equal(found.homography[1], square_prior(N))
    expected = align(members(one, 0, 2), square(2))
    torch.testing.assert_close(found.homography[[0, 2]], expected.homography)
    assert torch.isfinite(found.information).all()


def test_flat_maps_do_not_move() -> None:
    flat = torch.full((2, 3, 16, 16), 0.5)
    found = align(Level(flat, torch.full((2, 3, 24, 24), 0.2), 4, reach=9.0), square(2).float())
    assert torch.equal(found.homography, square(2).float())
    assert not found.improved.any()


def test_cells_outside_the_search_image_do_not_count() -> None:
    one, truth = level(batch=1)
    search = one.search.clone()
    start = compose(pad_matrix(N / 4, 0.0), truth)  # a quarter of the frame hangs over the right edge
    hung = F.pad(search, [4, 0, 0, 0])[..., : search.shape[-1]]
    found = align(dataclasses.replace(one, search=hung), compose(start, random_maps(1, side=N, reach=0.02)))
    assert per_pair_corner_error(found.homography, start, N).item() < 1.0


def test_gradients_reach_both_maps_and_the_start() -> None:
    one, _ = level(8, batch=1, iterations=2, monotone=False)
    template = one.template[:, :1].clone().requires_grad_()
    search = one.search[:, :1].clone().requires_grad_()
    between = compose(square(1), random_maps(1, side=N, reach=0.04, seed=3))  # no cell on another: smooth

    def run(first: Tensor, second: Tensor, offset: Tensor) -> Tensor:
        start = between + F.pad(offset, [0, 1]).view(1, 3, 3)
        return align(dataclasses.replace(one, template=first, search=second), start).steps[-1]

    offset = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (template, search, offset), atol=1e-4)


def test_the_information_gives_the_scatter_of_the_corners() -> None:
    """Covariance against the spread of many alignments of one noisy pair."""
    sigma, count = 0.01, 200
    one, truth = level(2, batch=1, tolerance=1e-5)
    repeated = one.template[:, :1].expand(count, -1, -1, -1)
    noise = torch.randn(repeated.shape, generator=torch.Generator().manual_seed(1)).double()
    noisy = dataclasses.replace(
        one, template=repeated, search=one.search[:, :1].expand(count, -1, -1, -1) + 0.0, reach=8.0
    )
    noisy = dataclasses.replace(noisy, template=noisy.template + sigma * noise)
    found = align(noisy, truth.expand(count, 3, 3))
    estimate = coarse_to_fine([noisy], truth.expand(count, 3, 3))
    corners = transform_points(found.steps[-1], image_corners(N, N, dtype=torch.float64))
    scatter = corners.var(dim=0).mean()
    predicted = estimate.covariance.diagonal(dim1=-2, dim2=-1).mean()
    assert 0.25 < float(predicted / scatter) < 4


# --- several levels -----------------------------------------------------------------------------------------


def pyramid(batch: int = 2, **settings: float) -> tuple[list[Level], Tensor]:
    template, search, truth = pairs(N, batch)
    levels = [
        Level(standardize(F.avg_pool2d(template, s)), standardize(F.avg_pool2d(search, s)), s, 16.0)
        for s in (8, 4, 2)
    ]
    return [dataclasses.replace(one, **settings) for one in levels], truth  # type: ignore[arg-type]


def test_coarse_to_fine() -> None:
    levels, truth = pyramid()
    estimate = coarse_to_fine(levels, square(2).float())
    errors = torch.stack([per_pair_corner_error(stage, truth, N) for stage in estimate.stages])
    assert len(errors) == 5
    assert (errors[1:4] < errors[:3]).all()
    assert torch.equal(estimate.stages[-1], estimate.homography)
    assert estimate.details["improved"].all()
    assert (estimate.details["gain"] > 0.5).all()
    assert not estimate.diverged.any()
    alignments: list[Alignment] = estimate.details["alignments"]
    assert [a.homography.shape for a in alignments] == [(2, 3, 3)] * 3


def test_what_is_worse_on_the_average_of_the_levels_gives_the_start() -> None:
    levels, truth = pyramid()
    # On a coarse level with another truth the answer looks better; the fine ones know better.
    astray = dataclasses.replace(levels[0], search=levels[0].search.roll(2, -1), reach=30.0)
    still = [dataclasses.replace(one, iterations=0) for one in levels[1:]]
    estimate = coarse_to_fine([astray, *still], truth.float())
    assert not estimate.details["improved"].any()
    assert torch.equal(estimate.homography, truth.float())
    assert not estimate.diverged.any()
    assert (per_pair_corner_error(estimate.stages[1], truth, N) > 3).all()


def test_precision_has_a_floor_above_that_of_a_lost_estimate() -> None:
    flat = Level(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 12, 12), 8, reach=16.0)
    estimate = coarse_to_fine([flat], square(1).float())
    assert estimate.log_precision.item() == pytest.approx(WORST)
    assert torch.isfinite(estimate.covariance).all()


# --- around it ----------------------------------------------------------------------------------------------


def test_starts_that_fold_become_the_square() -> None:
    like = torch.zeros((), dtype=torch.float64)
    folded = double([[1, 0, 0], [0, 1, 0], [-0.05, 0, 1]])
    sound = compose(square_prior(N), random_maps(1, side=N)[0])
    lost = torch.full((3, 3), math.nan).double()
    start = sound_start(torch.stack([folded, sound, lost]), 3, N, like)
    assert torch.equal(start, torch.stack([square_prior(N), sound, square_prior(N)]))
    assert torch.equal(sound_start(None, 2, N, like), square(2))
    assert is_plausible(start, N).all()


@pytest.mark.parametrize(("n", "factor"), [(32, 1), (64, 1), (96, 1), (128, 2), (160, 2), (256, 4), (512, 8)])
def test_pairs_are_reduced_to_the_side(n: int, factor: int) -> None:
    draw = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 3, side, side, generator=draw) for side in (n, 3 * n // 2)]
    template, search, found = reduce_pair(images[0], images[1], side=64)
    assert found == factor
    assert template.shape[-1] == n // factor
    assert search.shape[-1] == 3 * n // (2 * factor)
    assert template.shape[-1] % 8 == search.shape[-1] % 4 == 0


def test_a_price_on_leaving_the_start_holds_back() -> None:
    errors = []
    for prior in (0.0, 0.2, 5.0, 500.0):
        one, _ = level(prior=prior, sigma=4.0)
        errors.append(per_pair_corner_error(align(one, square(3)).homography, square(3), N))
    assert all((later < earlier).all() for earlier, later in pairwise(errors))
    assert (errors[-1] < 0.1).all()


@pytest.mark.parametrize("border", [1, 3])
def test_the_border_does_not_count(border: int) -> None:
    one, _ = level(border=border)
    template = one.template.clone()
    inside = torch.zeros_like(template, dtype=torch.bool)
    inside[..., border - 1 : 1 - border or None, border - 1 : 1 - border or None] = (
        True  # gradients look one on
    )
    changed = dataclasses.replace(one, template=torch.where(inside, template, 7.0))
    torch.testing.assert_close(align(changed, square(3)).homography, align(one, square(3)).homography)
