"""Losses that shape features for Lucas-Kanade: that a level comes closer, and that its landscape is a bowl.

A landscape is ``E(H) = mean_x |G(H x) - F(x)|**2`` with ``F`` the template's map and ``G`` the search
image's; it is evaluated at the truth, ``E*``, and at homographies around it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry import image_corners, pull, transform_points

__all__ = ["brightness_constancy", "convexity_hinge", "decrease_hinge", "star_convexity_hinge"]


def _corner_distance(predicted: Tensor, truth: Tensor, size: int) -> Tensor:
    """Root of the summed squared corner distances, (B,), px."""
    corners = image_corners(size, size, dtype=truth.dtype, device=truth.device)
    difference = transform_points(predicted, corners) - transform_points(truth, corners)
    # The root's gradient is infinite at zero; a millionth of a pixel keeps it finite.
    return (difference.square().sum(dim=(-2, -1)) + 1e-12).sqrt()


def decrease_hinge(
    before: Tensor, after: Tensor, truth: Tensor, size: int, *, drop: float, margin: float = 1.0
) -> Tensor:
    """CLKN's hinge: a level must bring the corners closer by a given distance.

    ``max(0, m + d(after)**2 - max(0, d(before) - 2 drop)**2)`` with ``d`` the root of the summed squared
    distances of the four corners, so that ``2 drop`` is a drop of ``drop`` px at each (Chang et al., CLKN,
    CVPR 2017). Here it is divided by ``m + d(before)**2``, so that far starts do not drown near ones.

    Parameters
    ----------
    before, after, truth
        Shape (B, 3, 3); ``before`` counts as given, without gradient.
    size
        Side of the template in px.
    drop
        Distance in px at each corner, not negative. Where ``before`` is nearer than that, the truth itself
        is asked for.
    margin
        ``m``, px**2, positive.

    Returns
    -------
    Tensor
        Shape (B,), without unit; 0 where the demand is met, 1 where nothing moved from far away.

    Raises
    ------
    InputError
        If ``drop`` is negative or ``margin`` not positive.
    """
    if drop < 0 or margin <= 0:
        raise InputError(f"drop is {drop} and margin {margin}; expected at least 0 and more than 0")
    first = _corner_distance(before, truth, size).detach()
    last = _corner_distance(after, truth, size)
    goal = (first - 2 * drop).clamp_min(0).square()
    return (margin + last.square() - goal).clamp_min(0) / (margin + first.square())


def brightness_constancy(template: Tensor, search: Tensor, homography: Tensor, *, stride: int) -> Tensor:
    """Mean squared difference of two maps under a homography: one value of the landscape.

    ``E(H) = mean_x |G(H x) - F(x)|**2`` over the cells that ``H`` maps into the search image (Zhao et al.,
    arXiv 2104.11693, equation 6, without its mean over the batch).

    Parameters
    ----------
    template, search
        Shape (B, C, h, w) and (B, C, H, W): maps whose cells are ``stride`` px apart.
    homography
        Shape (B, 3, 3), template px to search px at full resolution.
    stride
        Side of a cell in px.

    Returns
    -------
    Tensor
        Shape (B,), squared units of the maps; 0 where no cell is seen.
    """
    pulled, inside = pull(search, homography, (template.shape[-2], template.shape[-1]), stride=stride)
    mask = inside.to(template.dtype)
    difference = (pulled - template).square().mean(dim=1, keepdim=True) * mask
    return difference.sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3)).clamp_min(1)


def convexity_hinge(centre: Tensor, around: Tensor, margin: Tensor) -> Tensor:
    """DLKFM's hinge: away from the truth the landscape must be higher by a margin.

    ``max(0, E* + m - E(H))`` (Zhao et al., arXiv 2104.11693, equation 7: ``m`` is the squared size of the
    perturbation, on both sides of the truth).

    Parameters
    ----------
    centre
        Shape (B,): ``E*``.
    around
        Shape (..., B): ``E`` at perturbed homographies.
    margin
        Shape of ``around``: what the perturbations are worth, not negative.

    Returns
    -------
    Tensor
        Shape of ``around``.
    """
    return (centre + margin - around).clamp_min(0)


def star_convexity_hinge(
    centre: Tensor, between: Tensor, around: Tensor, margin: Tensor, *, share: float
) -> Tensor:
    """PRISE's hinge: along every ray from the truth the landscape must be strongly convex.

    With ``E_1`` at a perturbation and ``E_r`` at the share ``r`` of it, the sum of

    - ``max(0, E* + m r**2 - E_r)`` and ``max(0, E* + m - E_1)``: both are higher than the truth;
    - ``max(0, E_r - (1 - r) E* - r E_1 + m r (1 - r))``: the chord lies above the landscape

    (Zhang et al., PRISE, CVPR 2023: strong star-convexity, ``m`` standing for ``mu |w|**2 / 2``).

    Parameters
    ----------
    centre
        Shape (B,): ``E*``.
    between, around
        Shape (..., B): ``E_r`` and ``E_1``.
    margin
        Shape of ``around``: ``m``, not negative.
    share
        ``r``, between 0 and 1.

    Returns
    -------
    Tensor
        Shape of ``around``.

    Raises
    ------
    InputError
        If ``share`` is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise InputError(f"share is {share}; expected a number between 0 and 1, such as 0.5")
    higher = (centre + margin * share**2 - between).clamp_min(0) + (centre + margin - around).clamp_min(0)
    chord = (1 - share) * centre + share * around - margin * share * (1 - share)
    return higher + torch.clamp_min(between - chord, 0)
