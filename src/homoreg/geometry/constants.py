"""Small tensors of fixed values, without waiting for the device that is to hold them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["constant"]


def constant(values: Sequence[Any], dtype: torch.dtype, device: torch.device | str | None = None) -> Tensor:
    """Return a tensor of the given values.

    Copying them to a CUDA device makes the CPU wait until the device has done all it was given before, and
    cannot be part of a CUDA graph. So each such tensor is copied there once and cloned from then on.

    Parameters
    ----------
    values
        Numbers, or rows of them.
    dtype, device
        Of the result.
    """
    where = torch.device(device or "cpu")
    if where.type != "cuda":
        return torch.tensor(values, dtype=dtype, device=where)
    rows = tuple(tuple(row) if isinstance(row, Sequence) else row for row in values)
    return _kept(rows, dtype, where).clone()


@lru_cache(maxsize=256)
def _kept(rows: tuple[object, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(mode=False):
        return torch.tensor(rows, dtype=dtype, device=device)
