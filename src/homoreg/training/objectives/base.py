"""What an objective takes and returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from homoreg.geometry import homography_from_corners, image_corners, is_plausible, transform_points
from homoreg.synthesis.protocol import SampleBatch

__all__ = ["Objective", "Outcome", "displaced", "involving", "unwrapped"]

Model = TypeVar("Model", bound=torch.nn.Module)


@dataclass(frozen=True, eq=False)
class Outcome:
    """Loss (scalar, with gradient) and corner errors (B,), px at n = 128, of an estimate made unaided."""

    loss: Tensor
    errors: Tensor


Objective = Callable[[torch.nn.Module, SampleBatch, int, float], Outcome]
"""Maps the (possibly wrapped) model, a batch, a seed and the share of the run done to an :class:`Outcome`."""


def unwrapped(model: torch.nn.Module, kind: type[Model]) -> Model:
    """Return the model of a data-parallel wrapper, or the model itself."""
    inner = getattr(model, "module", model)
    assert isinstance(inner, kind)
    return inner


def involving(loss: Tensor, parameters: Iterable[torch.nn.Parameter]) -> Tensor:
    """The same loss, which gives each parameter a gradient: data parallelism waits for all of them."""
    return loss + 0.0 * torch.stack([p.sum() for p in parameters]).sum()


def displaced(truth: Tensor, offset: Tensor, n: int) -> Tensor:
    """Homographies whose corners lie ``offset`` (B, 4, 2) px beside the truth's, where that is sound."""
    square = image_corners(n, n, dtype=truth.dtype, device=truth.device)
    moved = homography_from_corners(square, transform_points(truth, square) + offset)
    return torch.where(is_plausible(moved, n)[:, None, None], moved, truth)
