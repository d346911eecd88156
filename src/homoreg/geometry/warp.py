"""Warps that pull: every output pixel looks up where it comes from."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from homoreg.geometry.constants import constant
from homoreg.geometry.homography import transform_points

__all__ = ["cell_centres", "fill_outside", "pixel_grid", "pull"]

_MOST_KEPT = 2**16  # cells of a grid that is kept: those of whole pictures would fill the memory


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Pixel centres of a frame in reading order.

    Parameters
    ----------
    height, width
        Size of the frame in px.
    like
        Tensor that gives dtype and device.

    Returns
    -------
    Tensor
        Shape (height * width, 2), as (x, y).
    """
    return cell_centres(height, width, 1, like)


def cell_centres(height: int, width: int, stride: int, like: Tensor) -> Tensor:
    """Centres, in px of the full frame, of the cells of a feature map.

    Parameters
    ----------
    height, width
        Size of the feature map in cells.
    stride
        Side of a cell in px; the centre of the first cell is at ``(stride - 1) / 2``.
    like
        Tensor that gives dtype and device.

    Returns
    -------
    Tensor
        Shape (height * width, 2), as (x, y), in reading order.
    """
    if height * width > _MOST_KEPT:
        return _centres(height, width, stride, like.dtype, like.device)
    return _kept_centres(height, width, stride, like.dtype, like.device).clone()


def _centres(height: int, width: int, stride: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    offset = (stride - 1) / 2
    x = torch.arange(width, dtype=dtype, device=device) * stride + offset
    y = torch.arange(height, dtype=dtype, device=device) * stride + offset
    return torch.stack([x.expand(height, -1), y.unsqueeze(1).expand(-1, width)], dim=-1).reshape(-1, 2)


@lru_cache(maxsize=64)
def _kept_centres(height: int, width: int, stride: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(mode=False):
        return _centres(height, width, stride, dtype, device)


def pull(
    image: Tensor, homography: Tensor, size: tuple[int, int], *, stride: int = 1
) -> tuple[Tensor, Tensor]:
    """Sample an image, or a feature map, at the points its homography gives.

    Parameters
    ----------
    image
        Shape (B, C, H, W): an image, or a feature map whose cells are ``stride`` px apart.
    homography
        Shape (B, 3, 3): pixels of the output frame to pixels of the input frame (both at full
        resolution, whatever the stride).
    size
        (height, width) of the output, in cells of ``stride`` px.
    stride
        Side of a cell in px, the same for input and output.

    Returns
    -------
    pulled : Tensor
        Shape (B, C, height, width), the image's dtype, bilinear; beyond the outermost centres it fades to
        zero within one cell.
    mask : Tensor
        Shape (B, 1, height, width), bool: True where the sample lies within the input's pixel centres.
    """
    height, width = size
    in_height, in_width = image.shape[-2:]
    points = transform_points(homography, cell_centres(height, width, stride, homography))
    extent = constant([in_width * stride, in_height * stride], homography.dtype, homography.device)
    # A point at infinity must not reach the sampler: its gradient would be NaN.
    far = max(1e4, 2.0 * stride * max(in_height, in_width))
    points = torch.nan_to_num(points, nan=-far, posinf=far, neginf=-far).clamp(-far, far)
    margin = (stride - 1) / 2
    inside = ((points >= margin) & (points <= extent - 1 - margin)).all(-1)
    # Half precision would round the sampling points to a quarter of a pixel.
    precise = torch.promote_types(image.dtype, torch.float32)
    grid = ((points + 0.5) / extent * 2 - 1).to(precise).view(-1, height, width, 2)
    pulled = F.grid_sample(
        image.to(precise), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    ).to(image.dtype)
    return pulled, inside.view(-1, 1, height, width)


def fill_outside(image: Tensor, inside: Tensor) -> Tensor:
    """Give the pixels outside a mask the mean of those inside, a channel and member at a time.

    Parameters
    ----------
    image
        Shape (B, C, H, W).
    inside
        Shape (B, 1, H, W), bool.

    Returns
    -------
    Tensor
        Same shape as the image; zero outside where nothing is inside.
    """
    weight = inside.to(image.dtype)
    count = weight.sum(dim=(-2, -1), keepdim=True).clamp_min(1)
    mean = (image * weight).sum(dim=(-2, -1), keepdim=True) / count
    return torch.where(inside, image, mean)
