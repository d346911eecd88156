from __future__ import annotations

from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor

from homoreg.errors import UnknownNameError
from homoreg.geometry import compose, image_corners, invert_homography, square_prior, transform_points
from homoreg.losses import per_pair_corner_error
from homoreg.models.base import HomographyEstimate, HomographyModel
from homoreg.models.m import FINE, FlowStep, M
from homoreg.models.registry import build
from homoreg.synthesis.protocol import GeometryConfig, SampleBatch, draw_samples, enlarge
from homoreg.synthesis.random import Draw
from homoreg.synthesis.sources import ImageBank, find_pairs
from homoreg.training.objectives import get_objective, m_objective
from homoreg.training.objectives.m import FINE_REACH, FINE_STEPS, STEPS, _Guide, _step_loss
from tests.scenes import write_pairs
from tests.training.runs import TINY, Wrapper

N = 64


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> SampleBatch:
    bank = ImageBank(find_pairs(write_pairs(tmp_path_factory.mktemp("pairs"), 2)))
    return draw_samples(bank, N, seed=0, batch=3, geometry=GeometryConfig())


@pytest.fixture
def model() -> M:
    torch.manual_seed(0)
    return cast("M", build("m", TINY))


# --- the objective ------------------------------------------------------------------------------------------


def test_loss_and_errors(model: M, batch: SampleBatch) -> None:
    outcome = m_objective(model, batch, 0)
    assert outcome.loss.shape == ()
    assert outcome.loss.isfinite()
    assert outcome.errors.shape == (3,)
    assert not outcome.errors.requires_grad
    with torch.no_grad():
        unaided = model(batch.template, batch.search).stages[0]
    error = per_pair_corner_error(unaided, batch.homography, N)
    assert torch.allclose(outcome.errors, error * 2, rtol=1e-4)  # px at n = 128


def test_every_parameter_learns(model: M, batch: SampleBatch) -> None:
    """Data parallelism waits for every gradient, so none may be left out."""
    m_objective(model, batch, 0).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_of_a_wrapped_model_every_parameter_has_a_gradient_in_large_frames(
    model: M, batch: SampleBatch
) -> None:
    larger = enlarge(batch, FINE // N)
    outcome = m_objective(Wrapper(model), larger, 0)
    assert torch.equal(outcome.loss, m_objective(model, larger, 0).loss)
    outcome.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_wrapped_model_has_the_same_objective(model: M, batch: SampleBatch) -> None:
    assert torch.equal(m_objective(Wrapper(model), batch, 0).loss, m_objective(model, batch, 0).loss)


def test_the_seed_picks_the_starts(model: M, batch: SampleBatch) -> None:
    losses = [float(m_objective(model, batch, seed).loss.detach()) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_steps_down_the_gradient_lower_the_loss(model: M, batch: SampleBatch) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(12):
        outcome = m_objective(model, batch, 0)
        optimizer.zero_grad()
        outcome.loss.backward()
        optimizer.step()
        losses.append(float(outcome.loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_random_numbers_may_be_given(model: M, batch: SampleBatch) -> None:
    by_seed, by_draw = (m_objective(model, batch, rng).loss for rng in (1, Draw(1, 3)))
    assert torch.equal(by_seed, by_draw)


@pytest.mark.parametrize(("n", "matched", "steps"), [(N, True, STEPS), (FINE, False, FINE_STEPS)])
def test_large_frames_are_refined_only(
    model: M, batch: SampleBatch, monkeypatch: pytest.MonkeyPatch, n: int, matched: bool, steps: tuple[int]
) -> None:
    seen: list[HomographyEstimate] = []
    forward = model.forward

    def watched(*args: Tensor, **options: Any) -> HomographyEstimate:
        seen.append(forward(*args, **options))
        return seen[-1]

    monkeypatch.setattr(model, "forward", watched)
    outcome = m_objective(model, enlarge(batch, n // N), 0)
    outcome.loss.backward()
    (estimate,) = seen
    assert ("scores" in estimate.details) == matched
    assert len(estimate.details["flows"]) == sum(steps)
    told = estimate.stages[0 if matched else -1].detach()
    error = per_pair_corner_error(told, enlarge(batch, n // N).homography, n) * 128 / n
    assert torch.allclose(outcome.errors, error)


class Unknown(HomographyModel):
    architecture: ClassVar[str] = "unknown"

    @property
    def config(self) -> None:
        return None

    def forward(
        self,
        template: Tensor,
        search: Tensor,
        *,
        initial: Tensor | None = None,
        quick: bool = False,
        valid: Tensor | None = None,
    ) -> HomographyEstimate:
        raise NotImplementedError


def test_objectives_by_architecture(model: M) -> None:
    assert get_objective(model) is m_objective
    with pytest.raises(
        UnknownNameError, match="no training objective is known for the architecture 'unknown'"
    ):
        get_objective(Unknown())


# --- the starts while it learns -----------------------------------------------------------------------------


def truths(count: int) -> Tensor:
    """Homographies 14 px or so away from the prior."""
    shift = torch.tensor([[1.0, 0, 10], [0, 1, -10], [0, 0, 1]])
    return compose(square_prior(N, dtype=torch.float32), shift).expand(count, 3, 3)


def shifted(homography: Tensor, x: float) -> Tensor:
    return compose(torch.tensor([[1.0, 0, x], [0, 1, 0], [0, 0, 1]]), homography)


def guide(truth: Tensor, n: int = N) -> _Guide:
    return _Guide(truth, n, (4, 4, 2), Draw(0, len(truth)))


@pytest.mark.parametrize("stride", [4, 2])
def test_a_start_within_the_window_is_kept(stride: int) -> None:
    truth = truths(5)
    start = shifted(truth, 0.5 * stride)
    assert torch.equal(guide(truth)(start, stride), start)


@pytest.mark.parametrize(("stride", "reach"), [(8, 32.0), (4, 16.0), (2, 4.0)])
def test_a_lost_start_is_replaced_within_the_window(stride: int, reach: float) -> None:
    truth = truths(50)
    out = guide(truth)(shifted(truth, 200.0), stride)
    lost = per_pair_corner_error(out, truth, N) > reach
    if stride == 8:  # a quarter of the starts is the prior, here within reach
        assert not lost.any()
    square = image_corners(N, N)
    offset = (transform_points(out, square) - transform_points(truth, square)).abs()
    assert not lost.any()
    assert offset.amax(dim=(1, 2)).max() <= max(reach / 2, 10.0 if stride == 8 else 0) + 1e-3
    assert offset.amax(dim=(1, 2)).median() > reach / 5


def test_a_start_that_is_not_finite_is_replaced() -> None:
    truth = truths(4)
    start = torch.full_like(truth, float("nan"))
    assert guide(truth)(start, 4).isfinite().all()


def test_a_quarter_of_the_coarse_starts_is_the_prior() -> None:
    truth = truths(2000)
    prior = square_prior(N, dtype=torch.float32)
    out = guide(truth)(truth, 8)
    at_prior = (out == prior).flatten(1).all(1)
    assert at_prior.float().mean() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(out[~at_prior], truth[~at_prior])


def test_starts_beside_the_truth_lie_at_all_distances() -> None:
    truth, n = truths(2000), 256
    error = per_pair_corner_error(guide(truth, n).beside(), truth, n)
    most = FINE_REACH * n
    assert error.max() < most * 2**0.5
    assert error.min() < 0.01 * most
    assert error.median() == pytest.approx(0.38 * most, rel=0.1)


# --- the loss of a step -------------------------------------------------------------------------------------


def flow_step(start: Tensor, truth: Tensor, error: float, log_scale: float) -> FlowStep:
    """A step whose flow is the true one but for an error in px."""
    grid = torch.arange(0.0, N, 8)
    points = torch.cartesian_prod(grid, grid)
    flow = transform_points(compose(invert_homography(start), truth), points) - points + error
    return FlowStep(
        start=start,
        points=points,
        flow=flow,
        log_scale=torch.full_like(flow, log_scale),
        visible=torch.ones(flow.shape[:2], dtype=torch.bool),
        counted=torch.ones(flow.shape[:2], dtype=torch.bool),
        reach=16.0,
    )


def test_a_better_flow_costs_less() -> None:
    truth = truths(2)
    start = shifted(truth, 3.0)
    costs = [float(_step_loss(flow_step(start, truth, e, 0.0), start, truth, N)) for e in (0.0, 1.0, 2.0)]
    assert costs[1] - costs[0] == pytest.approx(0.3, abs=1e-3)
    assert costs[2] - costs[1] == pytest.approx(0.3, abs=1e-3)


def test_certainty_pays_only_where_it_is_right() -> None:
    truth = truths(2)
    start = shifted(truth, 3.0)

    def cost(error: float, log_scale: float) -> float:
        return float(_step_loss(flow_step(start, truth, error, log_scale), start, truth, N))

    assert cost(0.1, -2.0) < cost(0.1, 0.0)
    assert cost(3.0, -2.0) > cost(3.0, 1.0)


def test_the_error_after_the_step_counts_at_128_px() -> None:
    truth = truths(2)
    start = shifted(truth, 3.0)
    flow = flow_step(start, truth, 0.0, 0.0)
    after = float(_step_loss(flow, start, truth, N)) - float(_step_loss(flow, truth, truth, N))
    assert after == pytest.approx(0.1 * 3.0 * 128 / N, rel=1e-3)


def test_what_started_out_of_reach_or_diverged_does_not_count() -> None:
    truth = truths(2)
    far = shifted(truth, 40.0)
    assert float(_step_loss(flow_step(far, truth, 0.0, 0.0), far, truth, N)) == 0
    start = shifted(truth, 3.0)
    following = torch.stack([truth[0], torch.full((3, 3), float("nan"))])
    cost = _step_loss(flow_step(start, truth, 0.0, 0.0), following, truth, N)
    assert float(cost) == pytest.approx(0, abs=1e-4)
