"""Every recipe, made short, trains on generated pairs and lowers its loss on samples it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from homoreg.models.base import HomographyModel
from homoreg.models.layers import OffsetRegressor
from homoreg.models.registry import build
from homoreg.models.storage import load_model
from homoreg.synthesis.protocol import SampleBatch, draw_samples
from homoreg.synthesis.sources import ImageBank, find_pairs
from homoreg.training.loop import train
from homoreg.training.objectives import get_objective
from homoreg.training.objectives.corners import MHN_PHASES
from homoreg.training.objectives.lucas_kanade import CLKN_SHARES
from homoreg.training.recipe import Recipe, get_recipe, list_recipes
from tests.models.contract import TINY
from tests.scenes import write_pairs
from tests.training import runs

N = 64
CONFIGS: dict[str, dict[str, Any]] = {
    "clkn": TINY["clkn"].config,
    "dhn": {"side": 32, "widths": [4, 4, 8, 8], "hidden": 16, "dropout": 0.0},
    "dlkfm": TINY["dlkfm"].config,
    "m": runs.TINY,
    "mhn": {"side": 96, "widths": [4, 4, 4, 8, 8, 8], "hidden": 16, "dropout": 0.0},
}
SHORT: dict[str, Any] = {
    "epochs": 4, "samples_per_epoch": 40, "batch_size": 4, "size": N, "half_size_share": 0.0,
    "peak_rate": 1e-2, "easy_until": 0.2, "easy_gone": 0.4, "ema": 0.5, "snapshots": (),
    "validate_every": 100, "validation_samples": 4, "validation_share": 0.3,
}  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {
    "clkn": {
        "epochs": 8, "samples_per_epoch": 56, "peak_rate": 6e-3, "easy_gone": 1.0, "restarts": (4, 6, 7),
    },
    "dhn": {"peak_rate": 2e-2},
    "dlkfm": {},
    "m": {"peak_rate": 3e-3},
    "m_finer": {"peak_rate": 3e-3},
    "m_further": {"peak_rate": 3e-3, "restarts": ()},
    "m_polish": {"peak_rate": 3e-3},
    "m_wider": {"peak_rate": 3e-3},
    "mhn": {"peak_rate": 2e-2, "epochs": 6, "restarts": (4, 5)},
}  # fmt: skip
# Shares of a run at which its parts learn, one after another: the loss of each is looked at.
TURNS = {"clkn": (*(share - 0.01 for share in CLKN_SHARES), 1.0), "mhn": (0.0, *MHN_PHASES)}


def short(name: str, **changes: Any) -> Recipe:
    """A recipe of a few dozen steps."""
    return get_recipe(name, **(SHORT | CHANGES[name] | changes))


def build_small(name: str, changes: dict[str, Any]) -> HomographyModel:
    """A small network; one that regresses offsets begins with a wrong answer, unlearned in seconds."""
    model = build(name, CONFIGS[name] | changes)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, OffsetRegressor):
                module.out.bias.fill_(0.6)
    return model


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> SampleBatch:
    """Samples of pictures that are not trained on."""
    bank = ImageBank(find_pairs(write_pairs(tmp_path_factory.mktemp("unseen"), 8, seed=50)))
    return draw_samples(bank, N, seed=9, batch=16, geometry=get_recipe("dhn").geometry)


@torch.no_grad()
def losses(name: str, model: HomographyModel, batch: SampleBatch) -> list[float]:
    """Loss of every part of a network, in training mode: then batch norm goes by the batch alone."""
    model.train()
    objective = get_objective(model)
    return [float(objective(model, batch, 0, turn).loss) for turn in TURNS.get(name, (0.0,))]


def before_and_after(
    recipe: Recipe, folder: Path, batch: SampleBatch, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[float, float]]:
    """Train, and return the losses of the untrained network and of the last snapshot."""
    monkeypatch.setattr("homoreg.training.loop.build", build_small)
    monkeypatch.setattr("homoreg.training.metrics_log.MetricsLog.plot", lambda self, path: False)
    torch.manual_seed(recipe.seed)
    first = losses(recipe.name, build_small(recipe.architecture, recipe.network), batch)
    train(recipe, [write_pairs(folder / "park", 6)], folder / "run", device="cpu")
    model, config = load_model(next((folder / "run" / "snapshots").iterdir()))
    assert config["training"]["recipe"] == recipe.name
    return list(zip(first, losses(recipe.name, model, batch), strict=True))


def test_every_recipe_is_here() -> None:
    assert sorted(CHANGES) == list_recipes()


@pytest.mark.parametrize("name", list_recipes())
def test_a_short_run_lowers_the_loss(
    name: str, tmp_path: Path, unseen: SampleBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all, by a tenth and more, and of every part."""
    found = before_and_after(short(name), tmp_path, unseen, monkeypatch)
    before, after = (sum(side) for side in zip(*found, strict=True))
    assert after < 0.9 * before, found
    assert all(last < first for first, last in found), found


@pytest.mark.parametrize("name", list_recipes())
def test_without_a_rate_it_stays_where_it_is(
    name: str, tmp_path: Path, unseen: SampleBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is the training that lowers the loss, and not the way it is measured."""
    recipe = short(name, peak_rate=0.0, samples_per_epoch=4)
    found = before_and_after(recipe, tmp_path, unseen, monkeypatch)
    assert all(last == pytest.approx(first, rel=0.01) for first, last in found), found
