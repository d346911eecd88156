from __future__ import annotations

import csv
import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from homoreg.answers import AnswerLog
from homoreg.baselines import BaselineResult, nothing
from homoreg.errors import InputError, OutputError, UnknownNameError, WeightsError
from homoreg.evaluation import (
    Evaluation,
    RegistersMany,
    do_nothing,
    evaluate,
    format_table,
    weights_digest,
    write_csv,
)
from homoreg.metrics import summarize
from homoreg.registrar import Registrar
from homoreg.synthesis.dataset import SkyDataSet
from tests.disk import FullDisk, everything_below
from tests.scenes import Bytes, Floats, write_set


@dataclass
class Answer:
    homography: Floats
    confidence: float = 0.5
    status: str = "ok"
    model: str = "oracle"


class Oracle:
    """A registrar that knows the answers, finds a pair by its pixels, and notes what it was given."""

    def __init__(self, data: SkyDataSet, offset: float = 0.0) -> None:
        self.known = {pair.template.tobytes(): pair.homography for pair in data}
        self.offset = offset
        self.calls: list[tuple[int, Floats, int]] = []

    def register_many(
        self, pairs: Sequence[tuple[Bytes, Bytes]], *, prior: Floats, batch_size: int
    ) -> list[Answer]:
        self.calls.append((len(pairs), prior, batch_size))
        shift = np.array([[1, 0, self.offset], [0, 1, 0], [0, 0, 1]])
        return [Answer(shift @ self.known[ir.tobytes()]) for ir, _ in pairs]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SkyDataSet:
    return SkyDataSet(write_set(tmp_path_factory.mktemp("sets") / "park", 5))


# --- evaluate -----------------------------------------------------------------------------------------------


def test_a_perfect_method_has_no_error(data: SkyDataSet) -> None:
    result = evaluate(Oracle(data), data, batch_size=2)
    assert result.errors == pytest.approx(np.zeros(5), abs=1e-9)
    assert (result.method, result.dataset, result.names) == ("oracle", "park", data.names)
    assert result.homographies == pytest.approx(np.stack([pair.homography for pair in data]))
    assert result.confidence is not None
    assert result.confidence.tolist() == [0.5] * 5
    assert result.ok.all()
    assert (result.milliseconds > 0).all()


def test_errors_are_in_px_of_the_search_image(data: SkyDataSet) -> None:
    result = evaluate(Oracle(data, offset=2.5), data)
    assert result.errors == pytest.approx(np.full(5, 2.5))
    assert result.summary == summarize(result.errors)


def test_a_registrar_gets_batches_the_prior_and_nothing_else(data: SkyDataSet) -> None:
    oracle = Oracle(data)
    assert isinstance(oracle, RegistersMany)
    evaluate(oracle, data, batch_size=2)
    assert [(count, batch) for count, _, batch in oracle.calls] == [(2, 2), (2, 2), (1, 2)]
    for _, prior, _ in oracle.calls:
        assert prior.tolist() == [[1, 0, 16], [0, 1, 16], [0, 0, 1]]


def test_a_set_of_several_sizes_is_scored_size_by_size(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "mixed", 2)
    other = write_set(tmp_path / "small", 2, n=32)
    for path in sorted(other.rglob("*.*")):
        path.rename(folder / path.parent.name / f"z{path.name}")
    mixed = SkyDataSet(folder)
    oracle = Oracle(mixed, offset=1)
    assert evaluate(oracle, mixed).errors == pytest.approx(np.ones(4))
    assert [(count, prior[0, 2]) for count, prior, _ in oracle.calls] == [(2, 16), (2, 8)]


def test_doing_nothing_is_the_displacement_of_the_corners(data: SkyDataSet) -> None:
    square = np.array([[16, 16], [79, 16], [79, 79], [16, 79]])
    expected = [np.linalg.norm(pair.corners - square, axis=1).mean() for pair in data]
    result = do_nothing(data)
    assert result.errors == pytest.approx(np.array(expected), abs=1e-9)
    assert (result.method, result.weights, result.confidence, result.failed) == ("nothing", "", None, 0)


@pytest.mark.parametrize("name", ["sift", "ecc"])
def test_baselines_by_name(data: SkyDataSet, name: str) -> None:
    result = evaluate(name, data)
    assert result.method == name
    untouched = do_nothing(data).errors
    assert (result.errors[~result.ok] == untouched[~result.ok]).all()
    assert result.summary.median < float(np.median(untouched))


def test_a_function_is_a_method(data: SkyDataSet) -> None:
    def give_up(ir: Bytes, rgb: Bytes, prior: Floats) -> BaselineResult:
        assert (ir.shape, rgb.shape) == ((64, 64, 3), (96, 96, 3))
        return dataclasses.replace(nothing(ir, rgb, prior), ok=False)

    result = evaluate(give_up, data)
    assert (result.method, result.failed) == ("give_up", 5)
    assert evaluate(give_up, data, name="mine").method == "mine"


def test_an_answer_that_is_not_finite_is_an_infinite_error(data: SkyDataSet) -> None:
    def diverge(ir: Bytes, rgb: Bytes, prior: Floats) -> BaselineResult:
        return BaselineResult(prior * math.nan, True)

    summary = evaluate(diverge, data).summary
    assert (summary.diverged, summary.mean, summary.under_10) == (5, math.inf, 0)


def test_a_failure_the_method_admits_is_counted_not_dropped(data: SkyDataSet) -> None:
    class Unsure(Oracle):
        def register_many(self, *args: Any, **options: Any) -> list[Answer]:
            return [
                dataclasses.replace(a, status="diverged") for a in super().register_many(*args, **options)
            ]

    result = evaluate(Unsure(data), data)
    assert (result.failed, result.summary.n) == (5, 5)


def test_confidence_is_rated_against_the_errors(data: SkyDataSet) -> None:
    class Graded(Oracle):
        def register_many(self, *args: Any, **options: Any) -> list[Answer]:
            answers = super().register_many(*args, **options)
            for rank, answer in enumerate(answers):
                answer.confidence = rank / 10
                answer.homography = answer.homography + np.array(
                    [[0, 0, 10.0 * (rank < 2)], [0, 0, 0], [0, 0, 0]]
                )
            return answers

    result = evaluate(Graded(data), data)
    assert result.auroc() == 1.0
    assert result.auroc(100.0) != result.auroc(100.0)  # NaN: every answer is right at 100 px
    assert math.isnan(do_nothing(data).auroc())


def test_the_weights_are_named_by_12_digits(data: SkyDataSet) -> None:
    assert evaluate(Oracle(data), data, weights="0123456789abcdef").weights == "0123456789ab"


def test_a_real_registrar(data: SkyDataSet) -> None:
    from homoreg.models import build

    config = {"width2": 8, "width4": 8, "width8": 16, "layers": 1, "hidden": (8, 8, 8), "steps": (1, 1, 0)}
    registrar = Registrar(build("m", config), name="untrained")
    result = evaluate(registrar, data, batch_size=4)
    assert result.method == "untrained"
    assert result.homographies.shape == (5, 3, 3)
    assert result.confidence is not None
    assert ((result.confidence >= 0) & (result.confidence <= 1)).all()


def test_progress_goes_nowhere_without_a_terminal(
    data: SkyDataSet, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate("nothing", data, progress=True)
    assert capsys.readouterr() == ("", "")


def test_an_unknown_baseline(data: SkyDataSet) -> None:
    with pytest.raises(UnknownNameError, match="no baseline is called 'orb'; known baselines: nothing, sift"):
        evaluate("orb", data)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (3, {}, "method is a int; expected a Registrar, a baseline's name or a function"),
        ("nothing", {"batch_size": 0}, "batch_size is 0; expected at least 1"),
    ],
)
def test_evaluate_refuses(data: SkyDataSet, method: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(method, data, **options)


def test_a_registrar_that_loses_pairs_is_refused(data: SkyDataSet) -> None:
    class Forgetful(Oracle):
        def register_many(self, *args: Any, **options: Any) -> list[Answer]:
            return super().register_many(*args, **options)[1:]

    with pytest.raises(InputError, match="register_many returned 4 results for 5 pairs"):
        evaluate(Forgetful(data), data)


# --- rows, CSV and tables -----------------------------------------------------------------------------------


def fixed(errors: list[float], method: str = "m120", weights: str = "ab12") -> Evaluation:
    count = len(errors)
    return Evaluation(
        method=method,
        weights=weights,
        dataset="park",
        names=tuple(map(str, range(count))),
        homographies=np.stack([np.eye(3)] * count),
        errors=np.array(errors),
        confidence=None,
        ok=np.array([error < 20 for error in errors]),
        milliseconds=np.array([10.0, 30.0, 20.0, 1000.0])[:count],
    )


ROW = fixed([0.5, 2.0, 4.0, math.inf])


def test_a_row_holds_every_figure() -> None:
    row = ROW.row()
    assert row == {
        "method": "m120", "weights": "ab12", "set": "park",
        **dataclasses.asdict(summarize([0.5, 2.0, 4.0, math.inf])), "failed": 1, "ms": 25.0,
    }  # fmt: skip


def test_csv(tmp_path: Path) -> None:
    path = write_csv([ROW, fixed([1.0 / 3.0], "nothing", "")], str(tmp_path / "rows.csv"))
    assert path == tmp_path / "rows.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        first, second = csv.DictReader(stream)
    assert list(first) == [
        "method", "weights", "set", "n", "mean", "std", "min", "q25", "median", "q75", "max",
        "under_1", "under_3", "under_5", "under_10", "auc_3", "auc_5", "auc_10", "diverged", "failed", "ms",
    ]  # fmt: skip
    assert (first["method"], first["weights"], first["n"], first["mean"]) == ("m120", "ab12", "4", "inf")
    assert (first["median"], first["under_3"], first["diverged"], first["ms"]) == ("3", "0.5", "1", "25")
    assert (second["weights"], second["mean"], second["std"]) == ("", "0.333333", "0")


def test_csv_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rows to write; expected at least one Evaluation"):
        write_csv([], tmp_path / "rows.csv")
    assert not list(tmp_path.iterdir())


def test_csv_on_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FullDisk(monkeypatch, room=50)
    with pytest.raises(OutputError, match="the disk is full"):
        write_csv([ROW], tmp_path / "rows.csv")
    assert everything_below(tmp_path) == {}


def test_csv_into_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        write_csv([ROW], tmp_path / "no" / "rows.csv")


def test_a_plain_table_is_aligned() -> None:
    header, first, second = format_table([ROW, fixed([12.0], "nothing", "")]).splitlines()
    assert header.split() == [
        "method", "set", "n", "mean", "std", "min", "25%", "50%", "75%", "max",
        "<1px", "<3px", "<5px", "<10px", "AUC@3", "AUC@5", "AUC@10", "failed", "ms",
    ]  # fmt: skip
    assert first.split() == [
        "m120", "park", "4", "inf", "inf", "0.50", "1.62", "3.00", "inf", "inf",
        "25%", "50%", "75%", "75%", *(f"{value:.3f}" for value in (0.375, 0.525, 0.6375)), "1", "25.0",
    ]  # fmt: skip
    assert second.split()[:4] == ["nothing", "park", "1", "12.00"]
    assert len(header) == len(first) == len(second)
    assert header.index("mean") + len("mean") == first.index("inf") + len("inf")


def test_a_markdown_table() -> None:
    lines = format_table([ROW], markdown=True).splitlines()
    assert len(lines) == 3
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(line) for line in cells} == {19}
    assert cells[0][:3] == ["method", "set", "n"]
    assert cells[1][0].strip("-") == ""
    assert all(rule.endswith("-:") or rule == ":" for rule in cells[1][2:])
    assert cells[2][:3] == ["m120", "park", "4"]


def test_the_digest_is_the_files_sha256(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert weights_digest(tmp_path) == hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(
        WeightsError, match=r"model\.safetensors': No such file.*expected a folder with config"
    ):
        weights_digest(tmp_path / "nowhere")


# --- answers kept as they come ------------------------------------------------------------------------------


def test_a_cut_evaluation_continues_and_gives_the_same(data: SkyDataSet, tmp_path: Path) -> None:
    whole = evaluate(Oracle(data, offset=2), data, batch_size=2)

    class Cut(Oracle):
        def register_many(self, *args: Any, **options: Any) -> list[Answer]:
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().register_many(*args, **options)

    log = AnswerLog(tmp_path / "log.jsonl", {"set": "park"})
    with pytest.raises(KeyboardInterrupt):
        evaluate(Cut(data, offset=2), data, batch_size=2, log=log)
    rest = Oracle(data, offset=2)
    result = evaluate(rest, data, batch_size=2, log=AnswerLog(tmp_path / "log.jsonl", {"set": "park"}))
    assert [count for count, _, _ in rest.calls] == [1]
    assert (result.homographies == whole.homographies).all()
    assert (result.errors == whole.errors).all()
    assert result.method == "oracle"


def test_a_csv_row_is_text() -> None:
    row = ROW.csv_row()
    assert (row["method"], row["n"], row["mean"], row["ms"], row["failed"]) == ("m120", "4", "inf", "25", "1")
    assert list(row) == list(ROW.row())
