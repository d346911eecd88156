"""Every recipe, made short, trains on generated pairs and lowers its loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from homoreg.models.base import HomographyModel
from homoreg.models.layers import OffsetRegressor
from homoreg.models.registry import build
from homoreg.models.storage import load_model
from homoreg.training.loop import train
from homoreg.training.recipe import get_recipe
from tests.scenes import write_pairs
from tests.training.runs import rows

CONFIGS: dict[str, dict[str, Any]] = {
    "dhn": {"side": 32, "widths": [4, 4, 8, 8], "hidden": 16, "dropout": 0.0},
    "mhn": {"side": 96, "widths": [4, 4, 4, 8, 8, 8], "hidden": 16, "dropout": 0.0},
}
SHORT: dict[str, Any] = {
    "samples_per_epoch": 40, "batch_size": 4, "size": 64, "half_size_share": 1.0, "peak_rate": 2e-2,
    "easy_until": 0.2, "easy_gone": 0.4, "ema": 0.5, "snapshots": (), "validate_every": 100,
    "validation_samples": 4, "validation_share": 0.3,
}  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {"dhn": {"epochs": 4}, "mhn": {"epochs": 6, "restarts": (4, 5)}}


def build_astray(kind: str) -> HomographyModel:
    """A small network that begins with the same wrong answer for every pair: that is unlearned in seconds."""
    model = build(kind, CONFIGS[kind])
    with torch.no_grad():
        next(module for module in model.modules() if isinstance(module, OffsetRegressor)).out.bias.fill_(1)
    return model


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_short_run_lowers_the_loss(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homoreg.training.loop.build", build_astray)
    monkeypatch.setattr("homoreg.training.metrics_log.MetricsLog.plot", lambda self, path: False)
    recipe = get_recipe(name, **(SHORT | CHANGES[name]))
    train(recipe, [write_pairs(tmp_path / "park", 3)], tmp_path / "run", device="cpu")
    losses = [float(row["loss"]) for row in rows(tmp_path / "run")]
    assert losses[3] < 0.8 * losses[0], losses
    model, config = load_model(next((tmp_path / "run" / "snapshots").iterdir()))
    assert config["training"]["recipe"] == name
    regressors = [module for module in model.modules() if isinstance(module, OffsetRegressor)]
    assert all(module.out.weight.any() for module in regressors)  # every stage has begun to learn
