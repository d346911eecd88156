"""The m family: matching, flow likelihood and corner error, from starts within reach."""

from __future__ import annotations

import torch
from torch import Tensor

from homoreg.geometry import square_prior
from homoreg.losses import flow_loss, matching_loss, per_pair_corner_error
from homoreg.models.m import FINE, STRIDES, FlowStep, M
from homoreg.synthesis.protocol import SampleBatch
from homoreg.synthesis.random import Draw
from homoreg.training.objectives.base import Outcome, displaced, involving, unwrapped

__all__ = ["m_objective"]

STEPS = (2, 3, 2)  # of the refinement while it learns, at 1/8, 1/4 and 1/2
FINE_STEPS = (1, 2, 2)  # the same in frames of FINE px and more, from a given start
FINE_REACH = 0.06  # largest displacement of the corners of such a start, as a share of n


class _Guide:
    """Starts for the levels of the m family while it learns.

    A level cannot learn from starts beyond its window, and at first nearly all are. Those are replaced
    by the truth, displaced within the window, so that all levels learn from the first step on. Training
    only: inference never sees the truth.
    """

    def __init__(self, truth: Tensor, n: int, radius: tuple[int, int, int], draw: Draw) -> None:
        self.truth, self.n, self.draw = truth, n, draw
        self.reach = {s: float(r * s) for s, r in zip(STRIDES, radius, strict=True)}

    def __call__(self, homography: Tensor, stride: int) -> Tensor:
        n, reach = self.n, self.reach[stride]
        if stride == STRIDES[0]:
            # Refinement must also work from the prior, which is where a second start begins.
            prior = square_prior(n, dtype=homography.dtype, device=homography.device)
            from_prior = self.draw.chance(0.25)
            homography = torch.where(from_prior[:, None, None], prior, homography)
        error = per_pair_corner_error(homography, self.truth, n)
        lost = ~(error < (1.0 if stride == STRIDES[0] else 0.75) * reach)
        rescue = displaced(self.truth, self.draw.uniform(-0.5, 0.5, 4, 2) * reach, n)
        return torch.where(lost[:, None, None], rescue, homography)

    def beside(self) -> Tensor:
        """Starts as an earlier look leaves them, at all distances up to the largest."""
        offset = self.draw.uniform(-1.0, 1.0, 4, 2) * self.draw.uniform(0.0, 1.0)[:, None, None]
        return displaced(self.truth, offset * (FINE_REACH * self.n), self.n)


def _step_loss(flow: FlowStep, following: Tensor, truth: Tensor, n: int) -> Tensor:
    """Flow likelihood plus the corner error after the step, where the start was within reach."""
    likelihood = flow_loss(
        flow.start, flow.points, flow.flow, flow.log_scale, flow.visible, truth, reach=flow.reach
    )
    within = per_pair_corner_error(flow.start, truth, n) < 1.5 * flow.reach
    error = per_pair_corner_error(following, truth, n) * (128 / n)
    error = torch.where(within & torch.isfinite(error), error.clamp(max=60), 0.0)
    return 0.3 * likelihood + 0.1 * error.mean()


def m_objective(
    model: torch.nn.Module, batch: SampleBatch, seed: int | Draw, progress: float = 0.0
) -> Outcome:
    """Matching cross entropy, flow likelihood and corner error of every step.

    Frames of :data:`homoreg.models.m.FINE` px and more are finer looks: they are refined from starts beside
    the truth, and there is no matching.

    Parameters
    ----------
    model
        An :class:`~homoreg.models.m.M`, or a data-parallel wrapper of one.
    batch
        Labelled samples.
    seed
        Of the starts that replace lost ones, or the random numbers for them.
    progress
        Share of the run that is done; nothing depends on it here.
    """
    inner = unwrapped(model, M)
    n, truth = batch.template.shape[-1], batch.homography
    draw = seed if isinstance(seed, Draw) else Draw(seed, len(truth), truth.device)
    guide = _Guide(truth, n, inner.config.radius, draw)
    fine = n >= FINE
    if fine:
        estimate = model(batch.template, batch.search, initial=guide.beside(), steps=FINE_STEPS)
        loss = torch.zeros((), device=truth.device)
        if inner is not model:  # the matching has no part in it
            loss = involving(loss, inner.parameters())
    else:
        estimate = model(batch.template, batch.search, guide=guide, steps=STEPS)
        loss = matching_loss(estimate.details["scores"], truth, n)
    flows: list[FlowStep] = estimate.details["flows"]
    for flow, following in zip(flows, estimate.stages[1:], strict=True):
        loss = loss + _step_loss(flow, following, truth, n) / len(flows) * 3
    # The final estimate may have been helped by the guide; the first stage never is.
    with torch.no_grad():
        errors = per_pair_corner_error(estimate.stages[-1 if fine else 0], truth, n) * (128 / n)
    return Outcome(loss, errors)
