"""Losses on aligned images: how alike they look."""

from __future__ import annotations

from torch import Tensor

__all__ = ["photometric_loss"]


def photometric_loss(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of two aligned images over a mask (brightness constancy).

    Parameters
    ----------
    first, second
        Shape (B, C, H, W).
    mask
        Shape (B, 1, H, W), bool.

    Returns
    -------
    Tensor
        Scalar, in units of the images. Zero where the mask is empty.
    """
    count = (mask.sum() * first.shape[1]).clamp_min(1)
    return ((first - second).abs() * mask).sum() / count
