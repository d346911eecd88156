"""Losses of correlation networks: the true match of a cell, and its residual flow."""

from __future__ import annotations

import torch
from torch import Tensor

from homoreg.geometry import cell_centres, compose, invert_homography, transform_points

__all__ = ["flow_loss", "matching_loss"]


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
