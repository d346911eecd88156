"""benchmarks/compare.py from its command line, on small generated sets."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compare
from homoreg.errors import DataError, UnknownNameError
from tests.scenes import write_set

SCRIPT = Path(compare.__file__)


@pytest.fixture(scope="module")
def park(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("sets") / "park", 3)


def run(*arguments: object) -> int:
    return compare.main([str(argument) for argument in arguments])


def test_a_table_errors_and_a_picture(tmp_path: Path, park: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--data", park, "--method", "ecc", "nothing", "--out", tmp_path / "mine", "--limit", 2) == 0
    said = capsys.readouterr().err
    assert "ecc on park: median" in said
    assert f"written: {tmp_path / 'mine' / 'comparison.png'}" in said
    with (tmp_path / "mine" / "comparison.csv").open(newline="") as stream:
        assert [(row["method"], row["n"]) for row in csv.DictReader(stream)] == [
            ("nothing", "2"),
            ("ecc", "2"),
        ]
    with (tmp_path / "mine" / "comparison_errors.csv").open(newline="") as stream:
        assert [row["name"] for row in csv.DictReader(stream)] == ["00", "01"] * 2


def test_the_picture_is_drawn_again_only_when_the_errors_changed(tmp_path: Path, park: Path) -> None:
    run("--data", park, "--method", "nothing", "--out", tmp_path)
    picture = tmp_path / "comparison.png"
    stamp = picture.stat().st_mtime_ns
    assert run("--out", tmp_path) == 0
    assert picture.stat().st_mtime_ns == stamp
    picture.unlink()
    assert run("--out", tmp_path) == 0
    assert picture.exists()
    errors = tmp_path / "comparison_errors.csv"
    errors.write_text(errors.read_text().replace(",00,", ",99,"))
    run("--out", tmp_path)
    assert picture.stat().st_mtime_ns != stamp


def test_results_measured_elsewhere_are_merged(tmp_path: Path, park: Path) -> None:
    run("--data", park, "--method", "nothing", "--out", tmp_path / "a")
    run("--data", park, "--method", "ecc", "--out", tmp_path / "b")
    assert run("--merge", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c") == 0
    with (tmp_path / "c" / "comparison.csv").open(newline="") as stream:
        assert [row["method"] for row in csv.DictReader(stream)] == ["nothing", "ecc"]
    assert (tmp_path / "c" / "comparison.png").exists()


def test_what_is_missing_is_named_and_left_out(
    tmp_path: Path, park: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "METHODS", ("nothing", "unheard_of"))
    assert run("--data", park, "--out", tmp_path) == 1
    assert "unheard_of is not available: no model is called 'unheard_of'" in capsys.readouterr().err
    assert (tmp_path / "comparison.csv").read_text().count("\n") == 2


def test_a_method_that_was_asked_for_has_to_be_there(tmp_path: Path, park: Path) -> None:
    with pytest.raises(UnknownNameError, match="unheard_of"):
        run("--data", park, "--out", tmp_path, "--method", "nothing", "unheard_of")
    with pytest.raises(DataError, match="is not a folder"):
        run("--data", tmp_path / "nowhere", "--out", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [("--limit", "2"), ("--limit", "0", "--out", "x")])
def test_the_committed_table_is_about_whole_sets(options: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("--data", "x", *options)


def test_as_a_script_an_error_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
