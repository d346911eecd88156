from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from homoreg.errors import OutputError
from homoreg.evaluation import evaluate
from homoreg.models import build, load_model, save_weights
from homoreg.registrar import Registrar
from homoreg.synthesis.dataset import SkyDataSet
from homoreg.trust import Trust
from tests.disk import FullDisk, everything_below
from tests.models.contract import TINY, tiny
from tests.scenes import infrared_of, scene, write_set

TRUST = Trust(1.5, 0.25, -0.5, 0.75, 0.4)


@pytest.fixture
def registrar() -> Registrar:
    made = Registrar(tiny("m"), name="small", trust=TRUST)
    made.training = {"recipe": "m", "license": "mit"}
    return made


def assert_equal(one: Registrar, other: Registrar) -> None:
    assert one.model.config == other.model.config
    assert (one.trust, one.training) == (other.trust, other.training)
    theirs = other.model.state_dict()
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(theirs[name], value, rtol=0, atol=0)


def test_what_is_saved_loads_back_equal(registrar: Registrar, tmp_path: Path) -> None:
    folder = registrar.save_pretrained(tmp_path / "new" / "small")
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    loaded = Registrar.from_pretrained(folder)
    assert_equal(loaded, registrar)
    assert loaded.name == "small"
    pair = infrared_of(scene(64, 64)), scene(96, 96)
    np.testing.assert_array_equal(loaded(*pair).homography, registrar(*pair).homography)


def test_halves_stay_halves_and_nothing_is_rounded(registrar: Registrar, tmp_path: Path) -> None:
    full = (registrar.save_pretrained(tmp_path / "full") / "model.safetensors").stat().st_size
    registrar.model.half().float()
    half = (registrar.save_pretrained(tmp_path / "half") / "model.safetensors").stat().st_size
    assert half < 0.6 * full
    assert_equal(Registrar.from_pretrained(tmp_path / "half"), registrar)


def test_an_unchanged_folder_is_passed_on_byte_for_byte(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save_weights(source, tiny("m"), training={"epochs": 3})
    (source / "README.md").write_text("# By hand\n\n![x](x.jpg)\n\n## Use\n")
    (source / "x.jpg").write_bytes(b"a picture")
    (source / "private.jpg").write_bytes(b"not on the card")
    copy = Registrar.from_pretrained(source).save_pretrained(tmp_path / "copy")
    expected = everything_below(source)
    del expected["private.jpg"]
    assert everything_below(copy) == expected


@pytest.mark.parametrize("what", ["weights", "trust", "training"])
def test_a_card_does_not_outlive_what_it_speaks_of(tmp_path: Path, what: str) -> None:
    source = tmp_path / "source"
    save_weights(source, tiny("m"))
    (source / "README.md").write_text("# The best results of all\n")
    loaded = Registrar.from_pretrained(source)
    if what == "weights":
        with torch.no_grad():
            next(loaded.model.parameters()).add_(1)
    elif what == "trust":
        loaded.trust = TRUST
    else:
        loaded.training = {"epochs": 4}
    copy = loaded.save_pretrained(tmp_path / "copy")
    assert_equal(Registrar.from_pretrained(copy), loaded)
    card = (copy / "README.md").read_text()
    assert "The best" not in card
    assert "Not measured for these weights." in card


def test_the_folder_may_be_gone_when_it_is_saved_again(tmp_path: Path) -> None:
    save_weights(tmp_path / "source", tiny("m"))
    loaded = Registrar.from_pretrained(tmp_path / "source")
    (tmp_path / "source" / "model.safetensors").unlink()
    assert_equal(Registrar.from_pretrained(loaded.save_pretrained(tmp_path / "copy")), loaded)


def test_results_and_pictures_are_on_the_card(registrar: Registrar, tmp_path: Path) -> None:
    pairs = SkyDataSet(write_set(tmp_path / "park", 2))
    result = registrar(infrared_of(scene(64, 64)), scene(96, 96))
    folder = registrar.save_pretrained(
        tmp_path / "small", results=[evaluate("nothing", pairs)], pictures={"A generated scene": result}
    )
    card = (folder / "README.md").read_text()
    assert "| nothing |" in card.replace("  ", " ")
    assert "![A generated scene](example-1.jpg)" in card
    assert (folder / "example-1.jpg").read_bytes().startswith(b"\xff\xd8")
    again = Registrar.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert everything_below(again) == everything_below(folder)


def test_a_full_disk_leaves_the_old_folder_as_it_was(
    registrar: Registrar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_weights(tmp_path / "small", build("m", TINY["m"].config))
    before = everything_below(tmp_path)
    with monkeypatch.context() as patched:
        FullDisk(patched, 20_000)
        with pytest.raises(OutputError, match="disk is full"):
            registrar.save_pretrained(tmp_path / "small")
    assert everything_below(tmp_path) == before
    load_model(tmp_path / "small")
