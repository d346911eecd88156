"""What an objective takes and returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from homoreg.synthesis.protocol import SampleBatch

__all__ = ["Objective", "Outcome"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Loss (scalar, with gradient) and corner errors (B,), px at n = 128, of an estimate made unaided."""

    loss: Tensor
    errors: Tensor


Objective = Callable[[torch.nn.Module, SampleBatch, int, float], Outcome]
"""Maps the (possibly wrapped) model, a batch, a seed and the share of the run done to an :class:`Outcome`."""
