"""DHN and MHN: the displacement of the corners, as their papers have it."""

from __future__ import annotations

import torch
from torch import Tensor

from homoreg.geometry import compose, image_corners, invert_homography, square_prior, transform_points
from homoreg.losses import per_pair_corner_error
from homoreg.models.dhn import DHN
from homoreg.models.mhn import MHN, STAGES
from homoreg.synthesis.protocol import SampleBatch
from homoreg.training.objectives.base import Outcome, involving, unwrapped

__all__ = ["MHN_PHASES", "dhn_objective", "mhn_objective"]

MHN_PHASES = (0.78, 0.96)
"""Shares of a run at which MHN's second and third stages begin to train and the one before is done."""


def _displacement(start: Tensor, truth: Tensor, n: int) -> Tensor:
    """How far the template's corners, seen through a start, still have to go: (B, 4, 2) in template px."""
    corners = image_corners(n, n, dtype=truth.dtype, device=truth.device)
    return transform_points(compose(invert_homography(start), truth), corners) - corners


def dhn_objective(model: torch.nn.Module, batch: SampleBatch, seed: int, progress: float = 0.0) -> Outcome:
    """Half the squared distance of the eight offsets, in units of the largest displacement.

    ``L = 1/2 |d - d*|^2`` of DeTone et al., arXiv 1606.03798, with ``d`` in units of n/4 px, a mean over the
    batch.

    Parameters
    ----------
    model
        A :class:`~homoreg.models.dhn.DHN`, or a data-parallel wrapper of one.
    batch
        Labelled samples.
    seed, progress
        Nothing depends on them.
    """
    inner = unwrapped(model, DHN)
    n, side = batch.template.shape[-1], inner.config.side
    estimate = model(batch.template, batch.search)
    prior = square_prior(n, dtype=batch.homography.dtype, device=batch.homography.device)
    target = _displacement(prior, batch.homography, n) * (4 / n)
    offsets = estimate.details["offsets"] * (4 / side)
    loss = 0.5 * (offsets - target).square().sum(dim=(1, 2)).mean()
    with torch.no_grad():
        errors = per_pair_corner_error(estimate.homography, batch.homography, n) * (128 / n)
    return Outcome(loss, errors)


def mhn_objective(model: torch.nn.Module, batch: SampleBatch, seed: int, progress: float = 0.0) -> Outcome:
    """Mean distance of the corners after the stage in training, from what the stages before it answer.

    ``L_k = mean |d_k - d_k*|`` with ``d_k* = H_{k-1}^-1 H c - c``, in units of n/4 px (Le et al., arXiv
    2004.02132; the residual of each stage in place of the sum). Stages are trained one after another, see
    :data:`MHN_PHASES`: the ones before are frozen, the ones after are left out. A stage that looks more than
    once learns from its first starts and from its own answers, batch by batch.

    Parameters
    ----------
    model
        An :class:`~homoreg.models.mhn.MHN`, or a data-parallel wrapper of one.
    batch
        Labelled samples.
    seed
        Picks the look.
    progress
        Share of the run that is done; it picks the stage.
    """
    inner = unwrapped(model, MHN)
    n, truth = batch.template.shape[-1], batch.homography
    stage = sum(progress >= begin for begin in MHN_PHASES)
    inner.inherit(stage)
    repeats = inner.config.repeats
    before = [k for k in range(stage) for _ in range(repeats[k])]
    looks = [*before, *[stage] * (1 + seed % repeats[stage])]
    estimate = model(batch.template, batch.search, looks=looks, train_last=True)
    target = _displacement(estimate.details["starts"][-1], truth, n)
    difference = (estimate.details["offsets"][-1] - target) * (4 / n)
    distance = (difference.square().sum(-1) + 1e-8).sqrt().mean(-1)
    # A start far astray asks for a displacement that would drown the others.
    loss = torch.where(torch.isfinite(distance), distance.clamp(max=4.0), 0.0).mean()
    if inner is not model:
        others = (p for k in range(STAGES) if k != stage for p in inner.stages[k].parameters())
        loss = involving(loss, others)
    with torch.no_grad():
        errors = per_pair_corner_error(estimate.homography, truth, n) * (128 / n)
    return Outcome(loss, errors)
