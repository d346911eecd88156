"""Losses on aligned images: how alike they look, up to what a change of modality does to them.

All, and :func:`homoreg.losses.mind_loss`, take ``(first, second, mask)`` and look only at pixels inside the
mask; a value outside, NaN included, changes neither the loss nor a gradient.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from homoreg.errors import InputError
from homoreg.losses.masked import TINY, check_images, check_window, inside, masked_mean, whole_windows

__all__ = ["ncc_loss", "ngf_loss", "photometric_loss"]


def photometric_loss(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference over a mask (brightness constancy).

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

    Raises
    ------
    InputError
        If the shapes do not fit each other or the mask is not bool.
    """
    check_images(first, second, mask)
    return masked_mean((first - second).abs(), mask)


def ncc_loss(
    first: Tensor,
    second: Tensor,
    mask: Tensor,
    *,
    window: int | None = None,
    squared: bool = False,
    noise: float = 1e-3,
) -> Tensor:
    """One minus the zero-normalised cross correlation, of whole images or of windows.

    ``1 - r`` or ``1 - r**2`` with ``r = cov(a, b) / sqrt((var(a) + s**2) (var(b) + s**2))``. The moments
    are those over the mask, or over every window that lies wholly in it; the loss is the mean over batch,
    channels and windows. Where the contrast is well above ``s`` = ``noise``, ``a -> g a + o`` with g > 0
    does not change ``r``, and with g < 0 only its sign: squared, a window of reversed polarity costs
    nothing. In windows: Cachier et al., CVIU 2003; squared too: Balakrishnan et al., VoxelMorph, IEEE TMI
    2019.

    Parameters
    ----------
    first, second
        Shape (B, C, H, W).
    mask
        Shape (B, 1, H, W), bool.
    window
        Odd side of the windows in px; None for the whole image.
    squared
        Whether to square the coefficient, so that polarity does not matter.
    noise
        Standard deviation, in units of the images, below which there is nothing to correlate.

    Returns
    -------
    Tensor
        Scalar in [0, 2], or in [0, 1] if squared. An image whose mask is empty, or holds no whole window,
        does not count; zero where none does.

    Raises
    ------
    InputError
        If the shapes do not fit each other, the mask is not bool, the window is not odd or does not fit, or
        the noise is not positive.
    """
    check_images(first, second, mask)
    if not noise > 0:
        raise InputError(f"noise is {noise}; expected a positive standard deviation")
    if window is None:
        counted = mask.any(dim=(2, 3), keepdim=True)
        share = mask.to(first.dtype) / mask.sum(dim=(2, 3), keepdim=True).clamp_min(1)
        a, b = (inside(image, mask) for image in (first, second))
        # Centred before it is multiplied: E[ab] - E[a] E[b] would cancel in float32.
        a, b = (x - (x * share).sum(dim=(2, 3), keepdim=True) for x in (a, b))
        covariance, *variances = ((x * y * share).sum(dim=(2, 3), keepdim=True) for x, y in _products(a, b))
    else:
        check_window(window, first, "window")
        counted = whole_windows(mask, window)
        a, b = (inside(image, mask) for image in (first, second))
        a, b = (x - x.mean(dim=(2, 3), keepdim=True).detach() for x in (a, b))
        means = [F.avg_pool2d(x, window, stride=1) for x in (a, b)]
        moments = [F.avg_pool2d(x * y, window, stride=1) for x, y in _products(a, b)]
        squares = [x * y for x, y in _products(means[0], means[1])]
        covariance, *variances = (m - s for m, s in zip(moments, squares, strict=True))
    floor = [variance.clamp_min(0) + noise**2 for variance in variances]
    coefficient = covariance / (floor[0] * floor[1]).sqrt()
    return masked_mean(1 - (coefficient.square() if squared else coefficient), counted)


def ngf_loss(first: Tensor, second: Tensor, mask: Tensor, *, edge: float = 1.0) -> Tensor:
    """Distance of normalised gradient fields: how far from parallel edges are, whatever their sign.

    ``mean (1 - <n(a), n(b)>**2)`` with ``n(I) = grad I / sqrt(|grad I|**2 + e**2)``, by central
    differences, and ``e`` = ``edge`` times the mean of ``|grad I|`` over the mask (Haber and Modersitzki,
    Intensity gradient based registration and fusion of multi-modal images, MICCAI 2006). ``a -> g a + o``
    with g != 0 does not change it.

    Parameters
    ----------
    first, second
        Shape (B, C, H, W), H and W at least 3.
    mask
        Shape (B, 1, H, W), bool. A pixel counts where its 3x3 neighbourhood lies in the mask. One without an
        edge costs 1, so the least loss of a pair is not 0.
    edge
        What counts as an edge, in mean gradient magnitudes of the image.

    Returns
    -------
    Tensor
        Scalar in [0, 1]. Zero where no pixel counts.

    Raises
    ------
    InputError
        If the shapes do not fit each other, the mask is not bool, or ``edge`` is not positive.
    """
    check_images(first, second, mask)
    check_window(3, first, "the neighbourhood")
    if not edge > 0:
        raise InputError(f"edge is {edge}; expected a positive multiple of the mean gradient")
    counted = whole_windows(mask, 3)
    (ax, ay), (bx, by) = (_normalised_gradient(inside(x, mask), counted, edge) for x in (first, second))
    return masked_mean(1 - (ax * bx + ay * by).square(), counted)


def _normalised_gradient(image: Tensor, counted: Tensor, edge: float) -> tuple[Tensor, Tensor]:
    """Both components, (B, C, H - 2, W - 2)."""
    dx = (image[..., 1:-1, 2:] - image[..., 1:-1, :-2]) / 2
    dy = (image[..., 2:, 1:-1] - image[..., :-2, 1:-1]) / 2
    square = inside(dx.square() + dy.square(), counted)
    total = ((square + TINY).sqrt() * counted).sum(dim=(2, 3), keepdim=True)
    level = edge * total / counted.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    length = (square + level.square() + TINY).sqrt()
    return dx / length, dy / length


def _products(a: Tensor, b: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    return (a, b), (a, a), (b, b)
