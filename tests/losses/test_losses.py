from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry import (
    cell_centres,
    compose,
    image_corners,
    invert_homography,
    pad_matrix,
    square_prior,
    transform_points,
)
from homoreg.losses import corner_loss, flow_loss, matching_loss, per_pair_corner_error, photometric_loss
from tests.geometry.maps import double, random_maps, shift

N = 64
PRIOR = square_prior(N)[None]
TRUTH = compose(PRIOR, random_maps(3, side=float(N)))
HORIZON = double([[[1, 0, 0], [0, 1, 0], [-1 / (N - 1), 0, 1]]])  # sends the right-hand corners to infinity


def scores_for(truth: Tensor, height: float) -> Tensor:
    """Scores of 8-px cells that are `height` at the true cell and 0 elsewhere."""
    cells, across = N // 8, 3 * N // 16
    there = ((transform_points(truth, cell_centres(cells, cells, 8, truth)) + 0.5) / 8).floor().long()
    index = (there[..., 1] * across + there[..., 0]).clamp(0, across**2 - 1)
    scores = torch.zeros(len(truth), cells**2, across**2, dtype=truth.dtype)
    return scores.scatter(2, index.unsqueeze(-1), height)


# --- corners -----------------------------------------------------------------------------------------------


def test_the_corner_error_is_the_mean_distance_of_the_corners() -> None:
    predicted = torch.cat([shift(3, 4)[None], torch.diag(double([2, 1, 1]))[None]])
    error = per_pair_corner_error(predicted, torch.eye(3, dtype=torch.float64).expand(2, 3, 3), N)
    # A shift moves every corner by 5; doubling the width moves the two at the right by 63.
    torch.testing.assert_close(error, double([5, 63 / 2]))


def test_the_corner_error_at_the_truth_is_zero_with_a_finite_gradient() -> None:
    predicted = TRUTH.clone().requires_grad_()
    error = per_pair_corner_error(predicted, TRUTH, N)
    assert error.shape == (3,)
    assert (error < 2e-6).all()
    error.sum().backward()
    assert predicted.grad is not None
    assert torch.isfinite(predicted.grad).all()


def test_a_corner_on_the_horizon_leaves_the_rest_of_the_batch_alone() -> None:
    error = per_pair_corner_error(torch.cat([HORIZON, PRIOR]), PRIOR, N)
    assert torch.isfinite(error).tolist() == [False, True]
    # One corner only, and none of its coordinates is 0: then it is infinitely far.
    slanted = double([[[1, 0, 0], [0, 1, 0], [-0.5 / (N - 1), -0.5 / (N - 1), 1]]])
    assert per_pair_corner_error(slanted, PRIOR, N).tolist() == [math.inf]


def test_the_corner_loss_is_the_mean_over_all_coordinates() -> None:
    predicted = shift(3, -4)[None] @ PRIOR
    assert corner_loss(predicted, PRIOR, N).item() == pytest.approx((3 + 4) / 2)
    assert corner_loss(predicted, PRIOR, N, norm=2).item() == pytest.approx((9 + 16) / 2)
    assert corner_loss(TRUTH, TRUTH, N).item() == 0
    assert corner_loss(TRUTH, TRUTH, N, norm=2).item() == 0


@pytest.mark.parametrize("norm", [0, 3, -1])
def test_other_norms_are_refused(norm: int) -> None:
    with pytest.raises(InputError, match=f"norm is {norm}; expected 1 or 2"):
        corner_loss(PRIOR, PRIOR, N, norm=norm)


# --- matching ----------------------------------------------------------------------------------------------


def test_even_scores_cost_the_logarithm_of_the_number_of_cells() -> None:
    loss = matching_loss(torch.zeros(1, 64, 144, dtype=torch.float64), PRIOR, N)
    assert loss.item() == pytest.approx(math.log(64) + math.log(144))


def test_certain_matching_costs_nothing_and_certain_mismatching_much() -> None:
    # At the prior cell p of the template is cell p + 2 of the search frame, one to one.
    assert matching_loss(scores_for(PRIOR, 60.0), PRIOR, N).item() == pytest.approx(0, abs=1e-9)
    assert matching_loss(scores_for(PRIOR, 60.0), PRIOR @ shift(8, 0), N).item() > 60


def test_matching_at_another_stride() -> None:
    loss = matching_loss(torch.zeros(2, 16, 36, dtype=torch.float64), PRIOR.expand(2, 3, 3), N, stride=16)
    assert loss.item() == pytest.approx(math.log(16) + math.log(36))


def test_only_visible_cells_count_in_matching() -> None:
    # Three cells to the right of the prior: the last column of template cells leaves the search frame.
    truth = PRIOR @ shift(24, 0)
    scores = torch.randn(1, 64, 144, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    worse = scores.clone()
    worse[:, 7::8] *= -5
    both = [value.log_softmax(2) for value in (scores, worse)]
    rows = torch.arange(64)[torch.arange(64) % 8 != 7]
    cells = (rows // 8 + 2) * 12 + rows % 8 + 5
    expected = -both[0][0, rows, cells].mean() - scores.log_softmax(1)[0, rows, cells].mean()
    torch.testing.assert_close(matching_loss(scores, truth, N), expected)
    expected = -both[1][0, rows, cells].mean() - worse.log_softmax(1)[0, rows, cells].mean()
    torch.testing.assert_close(matching_loss(worse, truth, N), expected)


@pytest.mark.parametrize("truth", [shift(1000, 0)[None], torch.full((1, 3, 3), math.nan).double()])
def test_matching_without_a_visible_cell_is_zero(truth: Tensor) -> None:
    scores = torch.randn(1, 64, 144, dtype=torch.float64).requires_grad_()
    loss = matching_loss(scores, truth, N)
    assert loss.item() == 0
    loss.backward()
    assert scores.grad is not None
    assert not scores.grad.any()


# --- flow --------------------------------------------------------------------------------------------------

POINTS = cell_centres(8, 8, 8, PRIOR)
SEEN = torch.ones(1, 64, dtype=torch.bool)


def flow_of(start: Tensor, truth: Tensor) -> Tensor:
    return transform_points(compose(invert_homography(start), truth), POINTS) - POINTS


def test_the_flow_loss_is_the_laplace_likelihood() -> None:
    truth = PRIOR @ shift(2, 1)
    flow, log_scale = flow_of(PRIOR, truth), torch.zeros(1, 64, 2, dtype=torch.float64)
    torch.testing.assert_close(flow, double([2, 1]).expand_as(flow))
    assert flow_loss(PRIOR, POINTS, flow, log_scale, SEEN, truth, reach=8).item() == pytest.approx(0)
    off = flow + double([3, -1])
    assert flow_loss(PRIOR, POINTS, off, log_scale, SEEN, truth, reach=8).item() == pytest.approx(2)
    wide = log_scale + math.log(2)
    loss = flow_loss(PRIOR, POINTS, off, wide, SEEN, truth, reach=8)
    assert loss.item() == pytest.approx(2 / 2 + math.log(2))


def test_the_best_scale_is_the_mean_deviation() -> None:
    flow = torch.zeros(1, 64, 2, dtype=torch.float64)
    truth = PRIOR @ shift(3, 3)
    losses = {
        scale: flow_loss(PRIOR, POINTS, flow, flow + math.log(scale), SEEN, truth, reach=8).item()
        for scale in (1.5, 2.5, 3.0, 3.5, 6.0)
    }
    assert min(losses, key=lambda scale: losses[scale]) == 3.0


def test_cells_beyond_reach_or_unseen_are_left_out() -> None:
    # Half the width again: the flow grows from 0 at the left to 31.5 at the right.
    truth = PRIOR @ double([[1.5, 0, 0], [0, 1, 0], [0, 0, 1]])
    flow = flow_of(PRIOR, truth)
    near = flow[..., 0].abs() < 1.5 * 8
    assert 0 < near.sum() < 64
    log_scale = torch.zeros_like(flow)
    wrong_far = torch.where(near.unsqueeze(-1), flow + 1, 1e6)
    assert flow_loss(PRIOR, POINTS, wrong_far, log_scale, SEEN, truth, reach=8).item() == pytest.approx(1)
    seen = near & (torch.arange(64) % 2 == 0)
    wrong_unseen = torch.where(seen.unsqueeze(-1), flow + 1, 1e6)
    assert flow_loss(PRIOR, POINTS, wrong_unseen, log_scale, seen, truth, reach=8).item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("start", "visible"),
    [(PRIOR, ~SEEN), (PRIOR @ shift(500, 0), SEEN), (torch.full_like(PRIOR, math.nan), SEEN)],
)
def test_flow_without_a_cell_to_learn_from_is_zero(start: Tensor, visible: Tensor) -> None:
    flow = torch.ones(1, 64, 2, dtype=torch.float64).requires_grad_()
    loss = flow_loss(start, POINTS, flow, torch.zeros_like(flow), visible, PRIOR, reach=8)
    assert loss.item() == 0
    loss.backward()
    assert flow.grad is not None
    assert not flow.grad.any()


# --- photometric -------------------------------------------------------------------------------------------


def test_the_photometric_loss_is_the_mean_over_the_mask() -> None:
    first, second = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, :2] = True
    second[0, :, :2] = -0.5
    second[:, :, 2:] = 9.0
    assert photometric_loss(first, second, mask).item() == pytest.approx(0.5)
    assert photometric_loss(first, first, mask).item() == 0


def test_an_empty_mask_costs_nothing() -> None:
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    assert photometric_loss(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4), mask).item() == 0


# --- gradients ---------------------------------------------------------------------------------------------


def gradcheck(function: object, *values: Tensor) -> None:
    inputs = [value.detach().clone().requires_grad_() for value in values]
    assert callable(function)
    assert torch.autograd.gradcheck(function, inputs, atol=1e-5, rtol=1e-3)


def test_gradients() -> None:
    predicted = TRUTH[:2] @ shift(1.3, 0.7)
    gradcheck(lambda h: per_pair_corner_error(h, TRUTH[:2], N), predicted)
    gradcheck(lambda h: corner_loss(h, TRUTH[:2], N), predicted)
    gradcheck(lambda h: corner_loss(h, TRUTH[:2], N, norm=2), predicted)
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 16, 36, generator=draw, dtype=torch.float64)
    gradcheck(lambda s: matching_loss(s, square_prior(32)[None], 32), scores)
    points = POINTS[::16]
    flow = torch.randn(1, 4, 2, generator=draw, dtype=torch.float64)
    truth = PRIOR @ shift(2, 1)
    gradcheck(
        lambda f, s: flow_loss(PRIOR, points, f, s, SEEN[:, :4], truth, reach=8), flow, 0.1 * flow.flip(-1)
    )
    first = torch.rand(1, 2, 3, 3, generator=draw, dtype=torch.float64)
    mask = torch.rand(1, 1, 3, 3, generator=draw) > 0.5
    gradcheck(lambda a, b: photometric_loss(a, b, mask), first, first.flip(-1) + 2)


def test_corners_are_those_of_the_template() -> None:
    # Only the corner that moves counts, and it is at n - 1, not at n.
    grow = double([[1 + 1 / (N - 1), 0, 0], [0, 1, 0], [0, 0, 1]])[None]
    assert per_pair_corner_error(grow, torch.eye(3).double()[None], N).item() == pytest.approx(0.5, abs=1e-5)
    assert transform_points(grow[0], image_corners(N, N).double())[1].tolist() == pytest.approx([N, 0])
    assert pad_matrix(0, 0).tolist() == torch.eye(3).tolist()
