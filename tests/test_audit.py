from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from homoreg.audit import MISMATCHES, Audit, audit, format_audits, plot_audits
from homoreg.errors import InputError, MissingPackageError
from homoreg.evaluation import Evaluation, evaluate
from homoreg.synthesis.dataset import SkyDataSet
from tests.scenes import write_set


@dataclass(frozen=True, eq=False)
class Verdict:
    homography: NDArray[Any]
    confidence: float
    status: str
    reliable: bool
    model: str = "keen"


class Keen:
    """A registrar that keeps its prior and accepts pairs whose infrared image it has seen in the set."""

    def __init__(self, known: SkyDataSet) -> None:
        self.known = [pair.template for pair in known]
        self.asked: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def register_many(self, pairs: Any, *, prior: Any, batch_size: int) -> list[Verdict]:
        priors = prior if isinstance(prior, list) else [prior] * len(pairs)
        self.asked += pairs
        return [self._one(ir, rgb, one) for (ir, rgb), one in zip(pairs, priors, strict=True)]

    def _one(self, ir: NDArray[Any], rgb: NDArray[Any], prior: NDArray[Any]) -> Verdict:
        known = any(np.array_equal(ir, one) for one in self.known)
        return Verdict(prior, 0.9 if known else 0.1, "ok" if known else "uncertain", known)


@pytest.fixture(scope="module")
def park(tmp_path_factory: pytest.TempPathFactory) -> SkyDataSet:
    folder = tmp_path_factory.mktemp("sets") / "park"
    write_set(folder, 6)
    return SkyDataSet(folder)


def made(confidence: list[float], errors: list[float], refused: list[bool] | None = None) -> Audit:
    stated = np.array(confidence)
    kinds = {} if refused is None else {"noise": np.array(refused)}
    return Audit("m", "park", np.array(errors), stated, stated >= 0.5, kinds)


def test_every_kind_of_mismatch_is_put_to_the_registrar(park: SkyDataSet) -> None:
    keen = Keen(park)
    evaluation = evaluate(keen, park)
    keen.asked.clear()
    found = audit(keen, evaluation, park, mismatches=3)
    assert {kind: len(refused) for kind, refused in found.refused.items()} == dict.fromkeys(MISMATCHES, 3)
    # It knows the partner's infrared image, too, and takes it for its own.
    assert {kind: bool(refused.all()) for kind, refused in found.refused.items()} == {
        "partner": False, "noise": True, "constant": True, "upside-down": True,
    }  # fmt: skip
    assert found.row()["refused"] == pytest.approx(0.75)
    templates = [pair.template for pair in park]
    searches = [pair.search for pair in park]
    for ir, rgb in keen.asked:
        number = next(k for k, search in enumerate(searches) if np.array_equal(search, rgb))
        assert not np.array_equal(ir, templates[number])


def test_wrong_partners_come_from_a_set_of_strangers_where_there_is_one(
    park: SkyDataSet, tmp_path: Path
) -> None:
    write_set(tmp_path / "town", 4, reach=9)
    town = SkyDataSet(tmp_path / "town")
    keen = Keen(park)
    evaluation = evaluate(keen, park)
    keen.asked.clear()
    found = audit(keen, evaluation, park, mismatches=3, strangers=town)
    assert found.refused["partner"].all()
    partners = [ir for ir, _ in keen.asked[:3]]
    assert all(any(np.array_equal(ir, pair.template) for pair in town) for ir in partners)


def test_more_mismatches_than_pairs_are_one_of_each(park: SkyDataSet) -> None:
    keen = Keen(park)
    found = audit(keen, evaluate(keen, park), park, mismatches=99)
    assert all(len(refused) == 6 for refused in found.refused.values())
    without = audit(keen, evaluate(keen, park), park, mismatches=0)
    assert without.refused == {}
    assert np.isnan(without.row()["refused"])


def test_a_baseline_cannot_be_audited(park: SkyDataSet) -> None:
    with pytest.raises(InputError, match="nothing gives no confidence; expected the evaluation of a model"):
        audit(Keen(park), evaluate("nothing", park), park)


def test_the_figures_of_a_known_case() -> None:
    row = made([0.9, 0.8, 0.7, 0.2, 0.1], [0.5, 1.0, 12.0, 5.0, 30.0], [True, True, True, False]).row()
    assert row["n"] == 5
    assert row["right"] == pytest.approx(0.4)
    assert row["confidence"] == pytest.approx(0.54)
    assert row["auroc"] == 1
    assert row["far_at_80"] == pytest.approx(1 / 4)
    assert row["coverage"] == pytest.approx(0.4)
    assert row["accepted"] == pytest.approx(0.6)
    assert row["accepted_far"] == pytest.approx(1 / 3)
    assert row["refused"] == pytest.approx(0.75)
    assert row["ece"] == pytest.approx((0.1 + 0.2 + 0.7 + 0.2 + 0.1) / 5)
    assert row["ece_by_chance"] == pytest.approx(2 * (0.09 + 0.16 + 0.21 + 0.16 + 0.09) / 5)


def test_nothing_accepted_is_not_far_off() -> None:
    assert np.isnan(made([0.1, 0.2], [1.0, 20.0]).row()["accepted_far"])


def test_the_table_has_a_line_for_each() -> None:
    lines = format_audits([made([0.9, 0.1], [1.0, 9.0]), made([0.2, 0.1], [1.0, 9.0])]).splitlines()
    assert lines[0].split()[:6] == ["method", "set", "n", "<3px", "conf", "AUROC"]
    assert [line.split()[:4] for line in lines[1:]] == [["m", "park", "2", "50%"]] * 2
    assert len({len(line) for line in lines}) == 1


def test_the_picture_depends_on_the_figures_only(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first, other = made([0.9, 0.1], [1.0, 19.0]), made([0.9, 0.8], [1.0, 19.0])
    paths = [
        plot_audits(audits, tmp_path / f"{k}.png") for k, audits in enumerate(([first], [first], [other]))
    ]
    image = cv2.imread(str(paths[0]))
    assert image is not None
    assert image.std() > 10
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()


def test_nothing_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no audits to draw"):
        plot_audits([], tmp_path / "x.png")


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPackageError, match=r"needs matplotlib.*'homoreg\[benchmark\]'"):
        plot_audits([made([0.9], [1.0])], tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_says_what_was_accepted(park: SkyDataSet) -> None:
    evaluation = evaluate(Keen(park), park)
    assert isinstance(evaluation, Evaluation)
    assert evaluation.ok.all()
    assert audit(Keen(park), evaluation, park, mismatches=0).reliable.all()
