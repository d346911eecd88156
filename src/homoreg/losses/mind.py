"""MIND, the modality-independent neighbourhood descriptor, and the distance of two of them.

M. P. Heinrich, M. Jenkinson, M. Bhushan, T. Matin, F. V. Gleeson, M. Brady, J. A. Schnabel: MIND: Modality
independent neighbourhood descriptor for multi-modal deformable registration. Medical Image Analysis 16, 2012.
Two deviations: box patches for Gaussian ones, and the four neighbours of the plane for the six of a volume.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from homoreg.errors import InputError
from homoreg.losses.masked import TINY, check_images, check_window, inside, masked_mean, whole_windows

__all__ = ["mind_descriptor", "mind_loss"]


def mind_descriptor(image: Tensor, *, reach: int = 1, patch: int = 3) -> Tensor:
    """How like a pixel's surroundings are to it.

    ``exp(-D(x, r) / V(x))``, divided by its largest value over ``r``, for the four neighbours ``x + r`` at
    distance ``reach``. ``D`` is the mean squared difference of the patches around ``x`` and ``x + r``,
    ``V`` the mean of the four ``D``, to which a thousandth of the image's mean ``V`` is added: noise in a
    flat place is not structure. ``I -> g I + o`` with g != 0 does not change it.

    Parameters
    ----------
    image
        Shape (B, C, H, W).
    reach
        Distance of the neighbours in px.
    patch
        Odd side of the patches in px.

    Returns
    -------
    Tensor
        Shape (B, 4 C, H - m, W - m), in (0, 1], with m = 2 reach + patch - 1 px of border lost; neighbour by
        neighbour (up, down, left, right), channel by channel.

    Raises
    ------
    InputError
        If ``reach`` or ``patch`` is not usable, or the image is too small for them.
    """
    return _mind(image, None, reach, patch).flatten(1, 2)


def mind_loss(first: Tensor, second: Tensor, mask: Tensor, *, reach: int = 1, patch: int = 3) -> Tensor:
    """Mean absolute difference of the :func:`mind_descriptor` of two images.

    ``mean |MIND(a, x, r) - MIND(b, x, r)|`` over pixels, neighbours and channels.

    Parameters
    ----------
    first, second
        Shape (B, C, H, W).
    mask
        Shape (B, 1, H, W), bool. A pixel counts where all that its descriptor looks at lies in the mask.
    reach, patch
        As in :func:`mind_descriptor`.

    Returns
    -------
    Tensor
        Scalar in [0, 1). Zero where no pixel counts.

    Raises
    ------
    InputError
        If the shapes do not fit each other, the mask is not bool, or as :func:`mind_descriptor`.
    """
    check_images(first, second, mask)
    a, b = (_mind(inside(image, mask), mask, reach, patch) for image in (first, second))
    return masked_mean((a - b).abs().mean(dim=1), whole_windows(mask, 2 * reach + patch))


def _mind(image: Tensor, mask: Tensor | None, reach: int, patch: int) -> Tensor:
    """Descriptor (B, 4, C, H - m, W - m); the mean of ``V`` is taken over the mask."""
    if reach < 1:
        raise InputError(f"reach is {reach}; expected at least 1 px")
    check_window(patch, image, "patch")
    check_window(2 * reach + patch, image, "2 reach + patch")
    height, width = (side - 2 * reach for side in image.shape[-2:])
    here = image[..., reach : reach + height, reach : reach + width]
    offsets = ((0, 1), (2, 1), (1, 0), (1, 2))  # in reaches, of the neighbour's frame: up, down, left, right
    there = (image[..., reach * y : reach * y + height, reach * x : reach * x + width] for y, x in offsets)
    distance = torch.stack([F.avg_pool2d((here - n).square(), patch, stride=1) for n in there], dim=1)
    spread = distance.mean(dim=1)
    if mask is None:
        mean = spread.mean(dim=(2, 3), keepdim=True)
    else:
        counted = whole_windows(mask, 2 * reach + patch)
        mean = inside(spread, counted).sum(dim=(2, 3), keepdim=True)
        mean = mean / counted.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    exponent = -distance / (spread + 1e-3 * mean + TINY).unsqueeze(1)
    return torch.exp(exponent - exponent.amax(dim=1, keepdim=True))
