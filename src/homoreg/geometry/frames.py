"""Pixel frames: resizing, cropping and padding as 3x3 matrices.

Pixel centres are at integer coordinates, so resizing by ``s`` maps ``x`` to ``s * (x + 0.5) - 0.5``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry.constants import constant

__all__ = ["crop_matrix", "fit_matrix", "pad_matrix", "resize_matrix", "square_prior"]


def _matrix(sx: float, sy: float, tx: float, ty: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor([[sx, 0, tx], [0, sy, ty], [0, 0, 1]], dtype=dtype)


def resize_matrix(scale_x: float, scale_y: float, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Map from pixels of an image to pixels of the image resized by the given factors.

    Parameters
    ----------
    scale_x, scale_y
        New size over old size, positive and finite.
    dtype
        Of the result.

    Returns
    -------
    Tensor
        Shape (3, 3).

    Raises
    ------
    InputError
        If a factor is not positive and finite.
    """
    if not (0 < scale_x < math.inf and 0 < scale_y < math.inf):
        raise InputError(f"resize factors are {scale_x} and {scale_y}; both must be positive and finite")
    return _matrix(scale_x, scale_y, 0.5 * scale_x - 0.5, 0.5 * scale_y - 0.5, dtype)


def crop_matrix(left: float, top: float, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Map from pixels of an image to pixels of a crop whose first pixel is at (left, top)."""
    return _matrix(1.0, 1.0, -left, -top, dtype)


def pad_matrix(left: float, top: float, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Map from pixels of an image to pixels of the image padded by (left, top) px."""
    return _matrix(1.0, 1.0, left, top, dtype)


def fit_matrix(
    source: tuple[int, int], target: tuple[int, int], *, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Map that stretches one frame onto another, edge to edge.

    Parameters
    ----------
    source, target
        Sizes (width, height) in px.
    dtype
        Of the result.

    Returns
    -------
    Tensor
        Shape (3, 3), source pixels to target pixels.

    Raises
    ------
    InputError
        If a side is not positive.
    """
    if min(*source, *target) <= 0:
        raise InputError(f"frames are {source} and {target} (width, height); every side must be positive")
    return resize_matrix(target[0] / source[0], target[1] / source[1], dtype=dtype)


def square_prior(
    size: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
) -> Tensor:
    """Where the seed protocol expects the template: the centred square of the search frame.

    Parameters
    ----------
    size
        Side ``n`` of the template in px; the search frame has side ``3n/2``.
    dtype, device
        Of the result.

    Returns
    -------
    Tensor
        Shape (3, 3): a shift by ``n/4`` px in x and y.
    """
    return constant([[1, 0, size / 4], [0, 1, size / 4], [0, 0, 1]], dtype, device)
