"""What the Lucas-Kanade networks are trained to minimise: CLKN level by level, DLKFM by its landscape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from homoreg.losses import (
    brightness_constancy,
    convexity_hinge,
    decrease_hinge,
    per_pair_corner_error,
    star_convexity_hinge,
)
from homoreg.models import dlkfm
from homoreg.models.clkn import CLKN
from homoreg.models.dlkfm import DLKFM
from homoreg.models.lucas_kanade import Alignment
from homoreg.synthesis.protocol import SampleBatch
from homoreg.synthesis.random import Draw
from homoreg.training.objectives.base import Outcome, displaced, involving, unwrapped

__all__ = ["CLKN_SHARES", "clkn_objective", "dlkfm_objective"]

CLKN_SHARES = (0.5, 0.8, 0.94)
"""Shares of a run after which CLKN's next, finer level is trained; its recipe restarts the rate there."""

UNROLLED = 5  # Lucas-Kanade steps that CLKN's loss looks through
COPIES = (8, 6, 3, 1)  # starts a pair, a level: maps cost more than alignments
GROWING = 0.4  # share of a level's turn in which its starts spread to their full reach
CLKN_REACH = (32.0, 14.0, 6.0, 3.0)  # px at n = 128: largest corner displacement of the starts, a level
DLKFM_REACH = (24.0, 12.0, 6.0)  # px at n = 128: largest corner displacement of the wide perturbations
RELATIVE, LEAST_RELATIVE = 1 / 12, 0.02  # noise on the entries of H, as in the paper
PERTURBATIONS = (3, 3, 2)  # of each kind, a level, each on both sides of the truth; the paper takes 4 of one
HINGES = 1.6  # weight of their mean against brightness constancy; the paper has 8 at 0.2 each
WIDE_MARGIN = 0.06  # of a wide perturbation, times its mean square in units of the reach
MARGIN_SCALE = 25.0  # of all margins: the maps have unit variance, the paper's ratios far less
STAR_SHARE = 0.5  # where along the ray PRISE's hinges look


def _clkn_turn(progress: float) -> tuple[int, float]:
    """Which level learns at a share of the run, and how much of its turn is done."""
    level = sum(progress >= share for share in CLKN_SHARES)
    first, last = (0.0, *CLKN_SHARES)[level], (*CLKN_SHARES, 1.0)[level]
    return level, (progress - first) / (last - first)


def _clkn_starts(truth: Tensor, n: int, reach: float, draw: Draw) -> Tensor:
    """Displaced truths: half of a displacement is a shift of all corners, as it is for real starts."""
    size = draw.uniform(0.15, 1.0)[:, None, None].to(truth) * reach
    offset = 0.6 * draw.uniform(-1.0, 1.0, 4, 2) + 0.6 * draw.uniform(-1.0, 1.0, 1, 2)
    return displaced(truth, offset.to(truth) * size, n)


def clkn_objective(model: torch.nn.Module, batch: SampleBatch, seed: int, progress: float = 0.0) -> Outcome:
    """CLKN's hinge on the decrease of the corner error, for the level whose turn it is.

    Parameters
    ----------
    model
        A :class:`~homoreg.models.clkn.CLKN`, or a data-parallel wrapper of one.
    batch
        Labelled samples.
    seed
        Of the starts.
    progress
        Share of the run that is done, which says which level is trained.

    Returns
    -------
    Outcome
        The errors are those of the level that is trained, from displaced starts of its reach (see
        ``CLKN_REACH``), not of the cascade.
    """
    inner = unwrapped(model, CLKN)
    n, truth = batch.template.shape[-1], batch.homography
    level, done = _clkn_turn(progress)
    truth = truth.repeat(COPIES[level], 1, 1)
    reach = CLKN_REACH[level] * n / 128
    growth = 0.4 + 0.6 * min(1.0, done / GROWING)
    start = _clkn_starts(truth, n, growth * reach, Draw(seed, len(truth), truth.device))
    estimate = model(
        batch.template,
        batch.search,
        initial=start,
        levels=(level,),
        unrolled=UNROLLED,
        copies=COPIES[level],
    )
    alignments: Sequence[Alignment] = estimate.details["alignments"]
    steps = alignments[-1].steps[1:] or [estimate.homography]
    loss = torch.zeros((), dtype=truth.dtype, device=truth.device)
    for step in steps:
        loss = loss + decrease_hinge(start, step, truth, n, drop=reach).clamp(max=4).mean() / len(steps)
    loss = involving(loss, inner.parameters())  # the other levels wait
    with torch.no_grad():
        errors = per_pair_corner_error(steps[-1], truth, n) * (128 / n)
    return Outcome(loss, errors)


def dlkfm_objective(model: torch.nn.Module, batch: SampleBatch, seed: int, progress: float = 0.0) -> Outcome:
    """Brightness constancy at the truth and convexity around it, on the maps of all levels.

    Parameters
    ----------
    model
        A :class:`~homoreg.models.dlkfm.DLKFM`, or a data-parallel wrapper of one.
    batch
        Labelled samples.
    seed
        Of the perturbations.
    progress
        Share of the run that is done; nothing depends on it here.

    Returns
    -------
    Outcome
        The errors are those of a short alignment from the centred square.

    Notes
    -----
    The paper perturbs the entries of the homography by up to a twelfth of their size; half of the
    perturbations do so here. The other half displaces the corners by up to ``DLKFM_REACH``, so that the
    coarse levels have a basin as wide as MHN's errors. The paper trains the levels one after the other, here
    they are trained together.
    """
    inner = unwrapped(model, DLKFM)
    n, truth = batch.template.shape[-1], batch.homography
    draw = Draw(seed, len(truth), truth.device)
    estimate = model(batch.template, batch.search, iterations=(3, 1, 1))
    maps: dlkfm.Maps = estimate.details["maps"]
    loss = torch.zeros((), dtype=truth.dtype, device=truth.device)
    for level, (template, search) in enumerate(maps):
        rays = _rays(truth, DLKFM_REACH[level] * n / 128, n, draw, PERTURBATIONS[level])
        loss = loss + _landscape(
            template, search, truth, rays, n // template.shape[-1], star=inner.config.star_convex
        )
    with torch.no_grad():
        errors = per_pair_corner_error(estimate.homography, truth, n) * (128 / n)
    return Outcome(loss, errors)


Ray = tuple[Tensor, Tensor, Tensor]


def _rays(truth: Tensor, reach: float, n: int, draw: Draw, count: int) -> list[Ray]:
    """Perturbations on both sides: what is halfway (B, 3, 3), the perturbed one, and its margin (B,)."""
    rays: list[Ray] = []
    for _ in range(count):
        noise = draw.uniform(-RELATIVE, RELATIVE, 8)
        noise = torch.where(noise.abs() < LEAST_RELATIVE, LEAST_RELATIVE * torch.sign(noise), noise).to(truth)
        delta = torch.nn.functional.pad(noise, [0, 1]).unflatten(-1, (3, 3)) * truth
        margin = MARGIN_SCALE * noise.square().sum(-1)
        size = draw.uniform(0.2, 1.0)[:, None, None].to(truth)
        offset = draw.uniform(-1.0, 1.0, 4, 2).to(truth) * size * reach
        wide = MARGIN_SCALE * WIDE_MARGIN * (offset / reach).square().mean(dim=(-2, -1))
        for sign in (1.0, -1.0):
            rays.append((truth + STAR_SHARE * sign * delta, truth + sign * delta, margin))
            near, far = (displaced(truth, share * sign * offset, n) for share in (STAR_SHARE, 1.0))
            rays.append((near, far, wide))
    return rays


def _landscape(
    template: Tensor, search: Tensor, truth: Tensor, rays: Sequence[Ray], stride: int, *, star: bool
) -> Tensor:
    """Loss of one level: brightness constancy plus the weighted hinges, scalar."""
    centre = brightness_constancy(template, search, truth, stride=stride)
    loss = centre.mean()
    for between, around, margin in rays:
        outer = brightness_constancy(template, search, around, stride=stride)
        if star:
            inner = brightness_constancy(template, search, between, stride=stride)
            hinge = star_convexity_hinge(centre, inner, outer, margin, share=STAR_SHARE)
        else:
            hinge = convexity_hinge(centre, outer, margin)
        loss = loss + HINGES * hinge.mean() / len(rays)
    return loss
