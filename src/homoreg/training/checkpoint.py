"""Checkpoints: tensors and numbers only, written whole or not at all."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from homoreg.errors import WeightsError
from homoreg.files import atomic_write_bytes

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """State of a run after ``step`` optimizer steps.

    All randomness of a run is a function of its seed and the step, so no generator state is needed.
    ``losses`` and ``errors`` are those of the steps since the last whole epoch, whose means are still to be
    logged. ``samples`` counts those seen so far, over all processes; None in checkpoints of before it was
    counted.
    """

    step: int
    seconds: float
    model: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    losses: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    samples: int | None = None


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint under a temporary name and rename it over the last one.

    Raises
    ------
    OutputError
        If it cannot be written; the last checkpoint is then unharmed.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **vars(checkpoint)}, buffer)
    atomic_write_bytes(path, buffer.getbuffer())


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint; only tensors and plain values are unpickled.

    Raises
    ------
    WeightsError
        If the file is missing, corrupt or of another format.
    """
    try:
        values = torch.load(Path(path), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist; expected the checkpoint of a run: check --out") from None
    except Exception as error:
        raise WeightsError(
            f"{path} is not a readable checkpoint ({type(error).__name__}); start afresh"
        ) from error
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise WeightsError(f"{path} is not a checkpoint of format {FORMAT}; start the run afresh")
    try:
        return Checkpoint(**values)
    except TypeError:
        raise WeightsError(
            f"{path} lacks entries of a checkpoint or has others; resume with the homoreg that wrote it"
        ) from None
