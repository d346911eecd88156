from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from homoreg.errors import ConfigError, UnknownNameError
from homoreg.models import (
    ARCHITECTURES,
    HomographyModel,
    M,
    MConfig,
    build,
    list_architectures,
    list_models,
)
from homoreg.pins import PINS
from homoreg.pretrained import is_embedded, locate
from homoreg.training.objectives import get_objective


def test_names_are_sorted_and_known() -> None:
    assert list_architectures() == sorted(ARCHITECTURES)
    assert "m" in list_architectures()
    assert list_models() == sorted(list_models())
    assert "m120" in list_models()


def test_models_are_listed_by_pattern() -> None:
    assert list_models("m120") == ["m120"]
    assert list_models("m*") == [name for name in list_models() if name.startswith("m")]
    assert list_models("none*") == []


def test_the_documentation_says_where_each_model_is_and_how_large() -> None:
    page = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    found = {name: row for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert sorted(found) == list_models()
    for name, (_, architecture, place, size, kind) in found.items():
        weights = locate(name).folder / "model.safetensors"
        assert architecture == f"`{PINS[name].architecture}`"
        assert (place == "in the package") == is_embedded(name)
        assert float(size.split()[0]) == round(weights.stat().st_size / 1e6, 1), name
        assert (kind == "int8") == (b'"dtype":"I8"' in weights.read_bytes()[:100_000])


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_an_architecture_knows_its_name_and_its_objective(name: str) -> None:
    model_class, _ = ARCHITECTURES[name]
    assert issubclass(model_class, HomographyModel)
    assert model_class.architecture == name
    assert callable(get_objective(build(name)))


def test_values_left_out_take_their_defaults() -> None:
    model = build("m", {"width2": 12, "hidden": [64, 48, 24]})
    assert isinstance(model, M)
    assert model.config == MConfig(width2=12, hidden=(64, 48, 24))
    assert build("m").config == build("m", {}).config == MConfig()


def test_the_given_config_is_not_changed() -> None:
    config: dict[str, Any] = {"radius": [3, 3, 1]}
    build("m", config)
    assert config == {"radius": [3, 3, 1]}


def test_new_models_have_random_weights() -> None:
    torch.manual_seed(1)
    first = build("m").state_dict()
    second = build("m").state_dict()
    torch.manual_seed(1)
    again = build("m").state_dict()
    assert all(torch.equal(again[name], value) for name, value in first.items())
    assert not all(torch.equal(second[name], value) for name, value in first.items())


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(
        UnknownNameError, match=r"no architecture is called 'n'; known architectures: .*\bm\b"
    ):
        build("n")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"width3": 24},
            "unknown m config key 'width3'; known keys: ",
        ),
        ({"width2": "24"}, "m config width2 is '24'; expected a value like 24"),
        ({"width2": 24.0}, "m config width2 is 24.0; expected a value like 24"),
        ({"layers": True}, "m config layers is True; expected a value like 2"),
        ({"layers": None}, "m config layers is None; expected a value like 2"),
        ({"layers": -1}, "m config layers is -1; expected a value like 2"),
        ({"hidden": [96, 64]}, "m config hidden is [96, 64]; expected 3 values like [96, 64, 32]"),
        ({"hidden": 96}, "m config hidden is 96; expected 3 values like [96, 64, 32]"),
        ({"hidden": [96, 64, "32"]}, "m config hidden is '32'; expected a value like 32"),
        ({"heads": 7}, "m config width8 is 96 with 7 heads; expected a multiple of 4 and of the heads"),
    ],
)
def test_config_values_that_do_not_fit_are_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        build("m", config)
