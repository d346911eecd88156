"""Short training runs on generated pairs."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from homoreg.models.registry import build
from homoreg.training.checkpoint import Checkpoint, load_checkpoint
from homoreg.training.recipe import Recipe, get_recipe

TINY: dict[str, Any] = {
    "width2": 8, "width4": 16, "width8": 16, "layers": 1, "heads": 2, "hidden": [16, 16, 16],
    "steps": [1, 1, 1],
}  # fmt: skip
"""Config of a small m network."""

SHORT: dict[str, Any] = {
    "epochs": 3, "samples_per_epoch": 4, "batch_size": 2, "size": 64, "half_size_share": 0.5,
    "validation_share": 0.3, "validation_samples": 2, "validate_every": 3, "snapshots": (2,),
}  # fmt: skip
"""Six steps in three epochs."""

Progress = Callable[[int, int, dict[str, float]], None]


ROOT = Path(__file__).resolve().parents[2]


def environment(**more: str) -> dict[str, str]:
    """Variables for a process that is to import the tests as this one does, and to sum as it does."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = str(torch.get_num_threads())  # sums of other thread counts differ in their last bits
    own = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": threads}
    return {**os.environ, **own, **more}


def short(**changes: Any) -> Recipe:
    """Recipe of a few steps."""
    return get_recipe("m", **{**SHORT, **changes})


def build_tiny(architecture: str, _config: dict[str, Any] | None = None) -> Any:
    """Stand-in for `build` that takes the small config."""
    return build(architecture, TINY)


class Wrapper(nn.Module):
    """What data parallelism does, as far as callers can tell."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **options: Any) -> Any:
        return self.module(*args, **options)


def rows(run: Path) -> list[dict[str, str]]:
    """Metrics of a run but for the time they took."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "minutes"} for row in csv.DictReader(file)]


def checkpoint_of(run: Path) -> Checkpoint:
    return load_checkpoint(run / "checkpoint.pt")


def identical(first: Any, second: Any) -> bool:
    """Whether two nested structures hold the same values, bit for bit."""
    if isinstance(first, Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(identical(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(identical, first, second))
    if isinstance(first, float) and math.isnan(first):
        return math.isnan(second)
    return bool(first == second)


def same_state(first: Path, second: Path) -> bool:
    """Whether two runs stand at the same step with the same weights, averages, optimizer and metrics."""
    one, two = (vars(checkpoint_of(run)) for run in (first, second))
    one.pop("seconds"), two.pop("seconds")
    return identical(one, two) and rows(first) == rows(second)
