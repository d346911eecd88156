"""Losses on the four corners: what the homography does, in pixels."""

from __future__ import annotations

from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry import image_corners, transform_points

__all__ = ["corner_loss", "per_pair_corner_error"]


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
