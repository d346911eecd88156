from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from typing import Any

import pytest

from homoreg.errors import ConfigError, UnknownNameError
from homoreg.models.registry import list_architectures
from homoreg.synthesis.appearance import AppearanceConfig
from homoreg.synthesis.protocol import GeometryConfig
from homoreg.training.objectives.corners import MHN_PHASES
from homoreg.training.objectives.lucas_kanade import CLKN_SHARES
from homoreg.training.recipe import Recipe, get_recipe, list_recipes


def test_every_recipe_is_of_a_registered_architecture() -> None:
    assert "m" in list_recipes()
    for name in list_recipes():
        recipe = get_recipe(name)
        assert recipe.name == name
        assert recipe.architecture in list_architectures()


def test_the_flagships_recipe_follows_the_seed_protocol() -> None:
    recipe = get_recipe("m")
    assert recipe.size == 128
    assert recipe.geometry.perturbation == 0.25
    assert recipe.snapshots == (70, 120, 175)
    assert recipe.epochs == 175
    assert recipe.samples_per_epoch == 28_000


def test_changes() -> None:
    recipe = get_recipe("m", epochs=3, batch_size=10, samples_per_epoch=105)
    assert (recipe.epochs, recipe.batch_size, recipe.steps_per_epoch) == (3, 10, 10)
    assert dataclasses.replace(recipe, epochs=175, batch_size=16, samples_per_epoch=28_000) == get_recipe("m")


@pytest.mark.parametrize(
    ("epochs", "restarts"), [(200, (156, 192)), (10, (8,)), (3, (2,)), (1, ()), (100, (78, 96))]
)
def test_restarts_keep_their_share_of_the_run(epochs: int, restarts: tuple[int, ...]) -> None:
    """So that the rate rises where the objective turns to the next stage."""
    assert get_recipe("mhn", epochs=epochs).restarts == restarts
    assert get_recipe("mhn", epochs=epochs, restarts=()).restarts == ()


@pytest.mark.parametrize(("name", "shares"), [("clkn", CLKN_SHARES), ("mhn", MHN_PHASES)])
def test_the_rate_restarts_where_the_next_part_learns(name: str, shares: tuple[float, ...]) -> None:
    recipe = get_recipe(name)
    assert [restart / recipe.epochs for restart in recipe.restarts] == pytest.approx(shares)


def test_through_json_and_back() -> None:
    recipe = get_recipe(
        "m_wider",
        seed=7,
        snapshots=(1, 2),
        geometry=GeometryConfig(tilt=3.0),
        appearance=AppearanceConfig(jpeg=0.0),
    )
    assert Recipe.from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe


def test_what_is_left_out_takes_its_default() -> None:
    assert Recipe.from_dict({"name": "x", "architecture": "m"}) == Recipe("x", "m")


def test_easy_samples_fade_out() -> None:
    recipe = get_recipe("m", epochs=10, samples_per_epoch=160, easy_until=0.1, easy_gone=0.5)
    shares = [recipe.easy_share(step) for step in range(100)]
    assert shares[:11] == [1.0] * 11
    assert shares[30] == pytest.approx(0.5)
    assert all(a > b for a, b in pairwise(shares[10:51]))
    assert shares[50:] == [0.0] * 50


def test_no_easy_samples() -> None:
    recipe = get_recipe("m", easy_until=0.0, easy_gone=0.0)
    assert recipe.easy_share(0) == 0


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_recipe("m").epochs = 1  # type: ignore[misc]


def test_unknown_name() -> None:
    with pytest.raises(UnknownNameError, match=r"no recipe is called 'n'; known recipes: .*m"):
        get_recipe("n")


def test_unknown_change() -> None:
    with pytest.raises(ConfigError, match=r"unknown recipe key 'epoch'; known keys: .*epochs"):
        get_recipe("m", epoch=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "x", "architecture": "m", "lr": 1}, "unknown recipe key 'lr'; known keys: .*epochs"),
        ({"name": "x", "architecture": "m", "geometry": {"tlit": 1}}, "unknown geometry key 'tlit'; known"),
        ({"name": "x", "architecture": "m", "appearance": {"jepg": 1}}, "unknown appearance key 'jepg'"),
        ({"name": "x", "architecture": "m", "geometry": 3}, "the geometry is 3; expected names and values"),
        ({"name": "x"}, "the recipe has no 'architecture'; expected one"),
    ],
)
def test_a_record_that_does_not_fit(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe.from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs is 0; expected at least 1"),
        ({"batch_size": -2}, "batch_size is -2; expected at least 1"),
        ({"samples_per_epoch": 0}, "samples_per_epoch is 0; expected at least 1"),
        ({"validate_every": 0}, "validate_every is 0; expected at least 1"),
        ({"validation_samples": 0}, "validation_samples is 0; expected at least 1"),
        ({"size": 96}, "size is 96; expected a multiple of 64"),
        ({"size": 0}, "size is 0; expected a multiple of 64"),
        ({"size": 192}, "size is 192; expected under 192 for m, whose frames of that size"),
        ({"samples_per_epoch": 8}, "samples_per_epoch is 8 and batch_size 16; an epoch must hold at least"),
        ({"precision": "float16"}, "precision is 'float16'; expected auto, float32 or bfloat16"),
        ({"warm_up": 1.5}, "warm_up is 1.5; expected a share between 0 and 1"),
        ({"ema": float("nan")}, "ema is nan; expected a share between 0 and 1"),
        ({"fine_share": 1.5}, "fine_share is 1.5; expected a share between 0 and 1"),
        ({"validation_share": 1.0}, "validation_share is 1.0; expected 0 or more and under 1"),
    ],
)
def test_impossible_values(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_recipe("m", **change)


def test_easy_samples_cannot_be_gone_before_they_fade() -> None:
    with pytest.raises(ConfigError, match=r"easy_until is 0\.5 and easy_gone 0\.2"):
        get_recipe("m", easy_until=0.5, easy_gone=0.2)


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (1 / 3, 100), (0.5, 150), (1.0, 300)])
def test_finer_steps_are_spread_over_the_run(share: float, count: int) -> None:
    recipe = get_recipe("m", fine_share=share)
    fine = [step for step in range(300) if recipe.is_fine(step)]
    assert len(fine) == pytest.approx(count, abs=1)
    assert len({b - a for a, b in pairwise(fine)}) <= 2


def test_what_changes_with_the_progress_cannot_be_recorded() -> None:
    with pytest.raises(ConfigError, match="graphs is True for mhn, whose steps change with the progress"):
        get_recipe("mhn", graphs=True)
