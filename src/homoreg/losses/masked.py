"""Means over masks, and the checks that the losses on aligned images share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from homoreg.errors import InputError

__all__ = ["TINY", "check_images", "check_window", "inside", "masked_mean", "whole_windows"]

TINY = 1e-12
"""Added under roots and quotients so that their gradients stay finite; far below any image's noise."""


def inside(values: Tensor, mask: Tensor) -> Tensor:
    """Values, zero outside the mask; a product would let NaN through."""
    return torch.where(mask, values, torch.zeros_like(values))


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over a mask (B, 1, H, W), batch and channels; zero where the mask is empty."""
    return inside(values, mask).sum() / (mask.sum() * values.shape[1]).clamp_min(1)


def whole_windows(mask: Tensor, window: int) -> Tensor:
    """Where windows lie wholly in a mask: (B, 1, H - window + 1, W - window + 1)."""
    return F.max_pool2d((~mask).float(), window, stride=1) == 0


def check_images(first: Tensor, second: Tensor, mask: Tensor) -> None:
    """Refuse two images and a mask that do not fit each other, with an InputError."""
    shape = first.shape
    fits = second.shape == shape and mask.shape == (shape[0], 1, *shape[2:]) if first.ndim == 4 else False
    if not fits or mask.dtype != torch.bool:
        raise InputError(
            f"images have shapes {tuple(shape)} and {tuple(second.shape)}, the mask {tuple(mask.shape)} of "
            f"{mask.dtype}; expected (B, C, H, W) twice and (B, 1, H, W) of torch.bool"
        )


def check_window(window: int, image: Tensor, name: str) -> None:
    """Refuse a window that is not odd or does not fit into an image, with an InputError."""
    if window < 1 or window % 2 == 0 or window > min(image.shape[-2:]):
        raise InputError(
            f"{name} is {window} px for images of {image.shape[-1]}x{image.shape[-2]} px; expected an odd "
            "number that fits"
        )
