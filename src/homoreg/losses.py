"""Training losses: pure functions of tensors. Homographies map template px to search px."""

from __future__ import annotations

import torch
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry import cell_centres, compose, image_corners, invert_homography, transform_points

__all__ = ["corner_loss", "flow_loss", "matching_loss", "per_pair_corner_error", "photometric_loss"]


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


def matching_loss(scores: Tensor, truth: Tensor, size: int, *, stride: int = 8) -> Tensor:
    """Cross entropy of the dual softmax on the true cell of every template cell.

    ``-mean_p [log softmax_q S(p, q*) + log softmax_p S(p, q*)]`` with ``q*`` the cell that ``truth`` maps the
    centre of ``p`` into (LoFTR, Sun et al., CVPR 2021, equation 2, without its focal weight).

    Parameters
    ----------
    scores
        Shape (B, N, M): template cells against the cells of a search frame of 3/2 the side.
    truth
        Shape (B, 3, 3).
    size
        Side of the template in px.
    stride
        Side of a cell in px.

    Returns
    -------
    Tensor
        Scalar, nats. Zero where no cell is visible.
    """
    cells = size // stride
    across = 3 * cells // 2
    target = transform_points(truth, cell_centres(cells, cells, stride, truth))
    cell = ((target + 0.5) / stride).floor()
    visible = ((cell >= 0) & (cell < across)).all(-1)
    flat = (cell[..., 1] * across + cell[..., 0]).where(visible, torch.zeros_like(cell[..., 0])).long()
    both = scores.log_softmax(dim=2) + scores.log_softmax(dim=1)
    entropy = -both.gather(2, flat.unsqueeze(-1)).squeeze(-1)
    return (entropy * visible).sum() / visible.sum().clamp_min(1)


def flow_loss(
    start: Tensor,
    points: Tensor,
    flow: Tensor,
    log_scale: Tensor,
    visible: Tensor,
    truth: Tensor,
    *,
    reach: float,
) -> Tensor:
    """Negative log-likelihood of the true residual flow under the predicted Laplace density.

    ``mean |d - d*| exp(-s) + s`` over the cells that are visible and whose true residual
    ``d* = start**-1 truth p - p`` lies within one and a half windows (Kendall and Gal, NeurIPS 2017,
    equation 8, with the absolute value of a Laplace density).

    Parameters
    ----------
    start, truth
        Shape (B, 3, 3).
    points
        Shape (N, 2), px in the template.
    flow, log_scale
        Shape (B, N, 2), px and log px in the template.
    visible
        Shape (B, N), bool.
    reach
        Radius of the search window in px.

    Returns
    -------
    Tensor
        Scalar.
    """
    true_flow = transform_points(compose(invert_homography(start), truth), points) - points
    true_flow = torch.nan_to_num(true_flow, nan=1e6, posinf=1e6, neginf=-1e6)
    counted = (visible & (true_flow.abs().amax(-1) < 1.5 * reach)).unsqueeze(-1)
    likelihood = (flow - true_flow).abs() * torch.exp(-log_scale) + log_scale
    return torch.where(counted, likelihood, 0.0).sum() / (2 * counted.sum()).clamp_min(1)


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
