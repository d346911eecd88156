"""A comparison: which cells are measured, what is written, and what a cut leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from homoreg import baselines
from homoreg.baselines import BaselineResult, nothing
from homoreg.comparison import LEARNED, METHODS, Comparison, Contender, compare, find_contender
from homoreg.errors import (
    ConfigError,
    DataError,
    HubError,
    MissingPackageError,
    OutputError,
    UnknownNameError,
    WeightsError,
)
from homoreg.evaluation import evaluate, weights_digest
from homoreg.models import build
from homoreg.pretrained import Source, locate
from homoreg.registrar import Registrar
from homoreg.synthesis.dataset import SkyDataSet
from tests.disk import FullDisk, everything_below
from tests.scenes import Bytes, Floats, write_set


class Counter:
    """A baseline that notes how often it is run, and can be made to stop."""

    def __init__(self) -> None:
        self.calls = 0
        self.stop_at = -1

    def __call__(self, ir: Bytes, rgb: Bytes, prior: Floats) -> BaselineResult:
        if ir.shape[0] == 32:  # asked whether it is there
            return nothing(ir, rgb, prior)
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.calls += 1
        return BaselineResult(prior + np.array([[0, 0, self.calls], [0, 0, 0], [0, 0, 0]]), True)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    made = Counter()
    monkeypatch.setitem(baselines.BASELINES, "sift", made)
    return made


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[SkyDataSet]:
    home = tmp_path_factory.mktemp("sets")
    return [SkyDataSet(write_set(home / name, count)) for name, count in (("park", 5), ("city", 3))]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = {"width2": 8, "width4": 8, "width8": 16, "layers": 1, "hidden": (8, 8, 8), "steps": (1, 1, 0)}
    registrar = Registrar(build("m", config), name="tiny")
    registrar.training = {"samples": 640, "minutes": 1.5, "hardware": "one core"}
    folder = tmp_path_factory.mktemp("models") / "tiny"
    registrar.save_pretrained(folder)
    return folder


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


# --- contenders ---------------------------------------------------------------------------------------------


def test_the_methods_are_the_baselines_and_the_seven() -> None:
    assert list(METHODS[:5]) == ["nothing", "sift", "ecc", "mutual_information", "kornia"]
    assert METHODS[5:] == LEARNED
    assert LEARNED == ("dhn", "mhn", "clkn", "dlkfm", "m70", "m120", "m175")


def test_a_baseline_has_no_weights_and_no_budget() -> None:
    found = find_contender("ecc")
    assert (found.name, found.weights, set(found.budget.values())) == ("ecc", "", {""})
    assert found.load() is baselines.ecc


def test_a_model_brings_its_digest_and_its_budget(tiny: Path) -> None:
    found = find_contender(str(tiny))
    assert (found.name, found.weights) == ("tiny", weights_digest(tiny))
    assert found.budget == {"samples": "640", "minutes": "1.5", "hardware": "one core", "starter": ""}
    assert isinstance(found.load(), Registrar)


def test_the_embedded_model_is_loaded_by_its_name() -> None:
    found = find_contender("m120")
    assert found.load_as == "m120"
    assert int(found.budget["samples"]) > 0


def test_what_cannot_be_run_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no model is called 'surf'"):
        find_contender("surf")

    def lacking(*_: Any) -> Any:
        raise MissingPackageError("needs a package")

    monkeypatch.setitem(baselines.BASELINES, "ecc", lacking)
    with pytest.raises(MissingPackageError):
        find_contender("ecc")
    (tmp_path / "model.safetensors").write_bytes(b"")
    for text in ("[1]", "not JSON", '{"training": 3}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ConfigError, match=r"cannot read .*config\.json'.*expected a model's config"):
            find_contender(str(tmp_path))


# --- cells --------------------------------------------------------------------------------------------------


def test_a_model_without_its_starter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    clkn = find_contender("clkn")
    monkeypatch.setattr("homoreg.registrar.locate", fail_to_locate)
    with pytest.raises(WeightsError, match="clkn starts from mhn, which cannot be loaded"):
        clkn.load()


def fail_to_locate(name: str, **_: object) -> Source:
    if name == "mhn":
        raise HubError("no network")
    return locate(name)


def test_a_cell_is_what_evaluate_says(tmp_path: Path, sets: list[SkyDataSet], tiny: Path) -> None:
    table = Comparison(tmp_path / "results")
    assert compare([find_contender("nothing"), find_contender(str(tiny))], sets, table) == []
    rows = lines(table.table_path)
    # By set, then in the order of METHODS, then by name.
    assert [(row["set"], row["method"]) for row in rows] == [
        ("city", "nothing"), ("city", "tiny"), ("park", "nothing"), ("park", "tiny"),
    ]  # fmt: skip
    assert list(rows[0])[:4] == ["method", "weights", "set", "n"]
    assert list(rows[0])[-7:] == ["failed", "ms", "samples", "minutes", "hardware", "starter", "set_hash"]
    expected = evaluate("nothing", sets[0])
    own = {key: value for key, value in expected.csv_row().items() if key != "ms"}
    assert own.items() <= rows[2].items()
    assert rows[3]["weights"] == weights_digest(tiny)[:12]
    assert (rows[3]["samples"], rows[2]["samples"]) == ("640", "")
    errors = [row for row in lines(table.errors_path) if (row["method"], row["set"]) == ("nothing", "park")]
    assert [row["name"] for row in errors] == list(sets[0].names)
    assert [float(row["error"]) for row in errors] == pytest.approx(expected.errors.tolist(), abs=0.005)
    assert not list(table.partial_folder.iterdir())


def test_what_is_there_is_not_run_again(tmp_path: Path, sets: list[SkyDataSet], counter: Counter) -> None:
    sift = [find_contender("sift")]
    compare(sift, sets, Comparison(tmp_path))
    before = everything_below(tmp_path)
    said: list[str] = []
    compare(sift, sets, Comparison(tmp_path), report=said.append)
    assert counter.calls == 8
    assert everything_below(tmp_path) == before
    assert said == ["sift on park: there already", "sift on city: there already"]
    compare(sift, sets[:1], Comparison(tmp_path), again=True)
    assert counter.calls == 13


def test_other_pairs_or_other_weights_are_run_again(
    tmp_path: Path, sets: list[SkyDataSet], counter: Counter
) -> None:
    table = Comparison(tmp_path / "results")
    compare([find_contender("sift")], sets, table)
    compare([find_contender("sift")], [sets[0].head(2)], table)
    assert counter.calls == 8 + 2
    assert table.rows["sift", "park"]["n"] == "2"
    label = next(iter(sorted((write_set(tmp_path / "park", 2) / "val_label").iterdir())))
    compare([find_contender("sift")], [SkyDataSet(tmp_path / "park")], table)
    assert counter.calls == 8 + 2  # a copy elsewhere is the same set
    label.write_text(label.read_text().replace("_u", " _u").replace(" _u", "_u") + "\n")
    compare([find_contender("sift")], [SkyDataSet(tmp_path / "park")], table)
    assert counter.calls == 8 + 2 + 2
    other = Contender("sift", weights="f" * 64)
    compare([other], [sets[1]], table)
    assert counter.calls == 8 + 2 + 2 + 3
    assert Comparison(tmp_path / "results").rows["sift", "city"]["weights"] == "f" * 12


def test_a_row_without_all_its_errors_is_run_again(
    tmp_path: Path, sets: list[SkyDataSet], counter: Counter
) -> None:
    table = Comparison(tmp_path)
    compare([find_contender("sift")], sets, table)
    text = table.errors_path.read_text()
    table.errors_path.write_text(text[: text.rindex("sift")])
    compare([find_contender("sift")], sets, Comparison(tmp_path))
    assert counter.calls == 8 + 5
    assert table.errors_path.read_text().count("\n") == text.count("\n")


def test_a_cut_run_continues_where_it_was_cut(
    tmp_path: Path, sets: list[SkyDataSet], counter: Counter
) -> None:
    whole = Comparison(tmp_path / "whole")
    compare([find_contender("sift")], sets, whole)
    counter.calls, counter.stop_at = 0, 6
    cut = Comparison(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        compare([find_contender("sift")], sets, cut, batch_size=1)
    assert [row["set"] for row in lines(cut.table_path)] == ["park"]
    counter.stop_at = -1
    compare([find_contender("sift")], sets, Comparison(tmp_path / "cut"), batch_size=1)
    assert counter.calls == 8
    assert cut.errors_path.read_bytes() == whole.errors_path.read_bytes()
    assert not list(cut.partial_folder.iterdir())


def test_a_model_that_does_not_load_is_named_and_the_others_are_run(
    tmp_path: Path, sets: list[SkyDataSet], tiny: Path
) -> None:
    found = find_contender(str(tiny))
    gone = Contender("gone", "0" * 64, str(tmp_path / "gone"), found.budget)
    table = Comparison(tmp_path / "results")
    (why,) = compare([gone, find_contender("nothing")], sets, table)
    assert why.startswith("gone cannot be loaded: no model is called")
    assert [row["method"] for row in lines(table.table_path)] == ["nothing", "nothing"]


def test_a_budget_that_was_corrected_is_taken_over(
    tmp_path: Path, sets: list[SkyDataSet], tiny: Path
) -> None:
    found = find_contender(str(tiny))
    compare([found], sets[1:], Comparison(tmp_path))
    corrected = Contender(found.name, found.weights, found.load_as, {**found.budget, "minutes": "2"})
    compare([corrected], sets[1:], Comparison(tmp_path))
    assert [row["minutes"] for row in lines(tmp_path / "comparison.csv")] == ["2"]


def test_a_full_disk_leaves_the_table_as_it_was(
    tmp_path: Path, sets: list[SkyDataSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Comparison(tmp_path)
    compare([find_contender("nothing")], sets[:1], table)
    before = (table.table_path.read_bytes(), table.errors_path.read_bytes())
    found = evaluate("nothing", sets[1])
    FullDisk(monkeypatch, room=100)
    table.put(find_contender("nothing"), found, "0" * 12)
    with pytest.raises(OutputError, match="the disk is full"):
        table.write()
    assert (table.table_path.read_bytes(), table.errors_path.read_bytes()) == before


@pytest.mark.parametrize(
    "text", ["method,weights\na,b\n", "method,weights,set,n,mean,set_hash\na,b\n", '"method\n', "\x00"]
)
def test_a_file_that_is_no_table(tmp_path: Path, text: str) -> None:
    (tmp_path / "comparison.csv").write_text(text + "x,y\n")
    with pytest.raises(DataError, match=r"comparison\.csv'"):
        Comparison(tmp_path)


def test_partial_answers_say_what_they_are_about(
    tmp_path: Path, sets: list[SkyDataSet], counter: Counter
) -> None:
    counter.stop_at = 2
    table = Comparison(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        compare([find_contender("sift")], sets[:1], table, batch_size=1)
    (log,) = table.partial_folder.iterdir()
    head = json.loads(log.read_text().splitlines()[0])
    assert head == {"key": {"method": "sift", "weights": "", "set": "park", "pairs": sets[0].digest()[:12]}}


def test_two_processes_fill_one_table(tmp_path: Path, sets: list[SkyDataSet]) -> None:
    first, second = Comparison(tmp_path), Comparison(tmp_path)
    compare([find_contender("nothing")], sets, first)
    compare([find_contender("ecc")], sets[:1], second)
    compare([find_contender("ecc")], sets[1:], first)
    rows = lines(first.table_path)
    assert [(row["set"], row["method"]) for row in rows] == [
        ("city", "nothing"), ("city", "ecc"), ("park", "nothing"), ("park", "ecc"),
    ]  # fmt: skip
    assert len(lines(first.errors_path)) == 2 * 8
    assert second.rows.keys() < first.rows.keys() == Comparison(tmp_path).rows.keys()


def test_another_comparison_is_taken_over(tmp_path: Path, sets: list[SkyDataSet], counter: Counter) -> None:
    compare([find_contender("sift")], sets, Comparison(tmp_path / "a"))
    compare([find_contender("nothing"), find_contender("sift")], sets[:1], Comparison(tmp_path / "b"))
    table = Comparison(tmp_path / "b")
    table.take(Comparison(tmp_path / "a"))
    table.write()
    found = Comparison(tmp_path / "b")
    assert found.keys == [("sift", "city"), ("nothing", "park"), ("sift", "park")]
    assert found.errors["sift", "park"] == Comparison(tmp_path / "a").errors["sift", "park"]
