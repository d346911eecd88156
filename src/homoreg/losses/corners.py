"""Losses on the four corners, which is what the homography does in pixels, and on its entries."""

from __future__ import annotations

import torch
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry import compose, image_corners, invert_homography, square_prior, transform_points

__all__ = ["corner_loss", "entry_loss", "per_pair_corner_error"]


def per_pair_corner_error(predicted: Tensor, truth: Tensor, size: int) -> Tensor:
    """Mean distance between the four corners mapped by two homographies.

    Parameters
    ----------
    predicted, truth
        Shape (B, 3, 3).
    size
        Side of the template in px.

    Returns
    -------
    Tensor
        Shape (B,), px. Differentiable; infinite or NaN where a corner lies on the horizon.
    """
    corners = image_corners(size, size, dtype=truth.dtype, device=truth.device)
    difference = transform_points(predicted, corners) - transform_points(truth, corners)
    # The root's gradient is infinite at zero; a millionth of a pixel keeps it finite.
    return (difference.square().sum(-1) + 1e-12).sqrt().mean(-1)


def corner_loss(predicted: Tensor, truth: Tensor, size: int, *, norm: int = 1) -> Tensor:
    """L1 or L2 loss on the displacement of the four corners.

    The mean over the batch and the eight coordinates of ``|c(H) - c(T)|`` for ``norm=1``, of its square for
    ``norm=2`` (DeTone et al., Deep Image Homography Estimation, arXiv 1606.03798, which regresses the
    corners for the same reason: all eight numbers have one unit).

    Parameters
    ----------
    predicted, truth
        Shape (B, 3, 3).
    size
        Side of the template in px.
    norm
        1 or 2.

    Returns
    -------
    Tensor
        Scalar, px or px**2.

    Raises
    ------
    InputError
        If ``norm`` is neither 1 nor 2.
    """
    if norm not in (1, 2):
        raise InputError(f"norm is {norm}; expected 1 or 2")
    corners = image_corners(size, size, dtype=truth.dtype, device=truth.device)
    difference = transform_points(predicted, corners) - transform_points(truth, corners)
    return difference.abs().mean() if norm == 1 else difference.square().mean()


def entry_loss(predicted: Tensor, truth: Tensor, size: int, *, norm: int = 2) -> Tensor:
    """L1 or L2 loss on the eight entries of the homography in a unit frame.

    The mean over the batch and the eight free entries of ``|U(H) - U(T)|`` for ``norm=1``, of its square for
    ``norm=2``, where ``U(H) = N P^-1 H N^-1`` with last entry 1. ``N`` maps the template to [-1, 1] and ``P``
    shifts it to the centred square of the search image, so the prior is the identity and the entries are of
    one magnitude, as regressing entries needs (Zhou and Li, STN-Homography, Applied Sciences 2019). In raw
    pixels the perspective entries are four orders of magnitude below the shifts. The corners remain the
    better target; this is for comparison.

    Parameters
    ----------
    predicted, truth
        Shape (B, 3, 3), of any scale.
    size
        Side n of the template in px.
    norm
        1 or 2.

    Returns
    -------
    Tensor
        Scalar, without unit. Infinite or NaN where the last entry in the unit frame is 0: where the middle of
        the template maps to infinity.

    Raises
    ------
    InputError
        If ``norm`` is neither 1 nor 2.
    """
    if norm not in (1, 2):
        raise InputError(f"norm is {norm}; expected 1 or 2")
    scale, shift = 2 / size, -(size - 1) / size
    unit = torch.tensor([[scale, 0, shift], [0, scale, shift], [0, 0, 1]]).to(truth)
    inner = unit @ invert_homography(square_prior(size).to(truth))
    outer = invert_homography(unit)
    difference = compose(inner, predicted, outer) - compose(inner, truth, outer)
    entries = difference.flatten(1)[:, :8]
    return entries.abs().mean() if norm == 1 else entries.square().mean()
