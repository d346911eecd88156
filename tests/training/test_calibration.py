from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from homoreg.errors import DataError, InputError
from homoreg.models import save_weights
from homoreg.models.storage import read_config
from homoreg.registrar import Registrar
from homoreg.search import Search
from homoreg.synthesis.sources import ImageBank
from homoreg.training import Source, calibrate, calibration
from homoreg.training.calibration import _choose_threshold, _collect, _Row
from homoreg.training.sources import split_sources
from homoreg.training.trials import Trial
from homoreg.trust import Evidence, Trust
from tests.models.contract import tiny
from tests.scenes import write_pairs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_weights(tmp_path / "tiny", tiny("m"), training={"samples": 3})
    write_pairs(tmp_path / "pairs", 6)
    return tmp_path / "tiny"


def test_a_calibration_is_written_and_loaded_back(folder: Path) -> None:
    before = read_config(folder)
    told: list[tuple[int, int]] = []
    trust = calibrate(
        folder,
        [Source(folder.parent / "pairs", 2.0)],
        share=0.5,
        samples=24,
        progress=lambda done, total: told.append((done, total)),
    )
    assert Registrar.from_pretrained(folder).trust == trust
    assert read_config(folder) == before | {"calibration": trust.as_dict()}
    assert all(math.isfinite(value) for value in trust.as_dict().values())
    assert trust != Trust()
    assert 0.5 <= trust.threshold <= 0.95
    assert told[-1] == (24 + 6 + 12, 24 + 6 + 12)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_the_same_weights_and_pictures_give_the_same_calibration(folder: Path) -> None:
    source = Source(folder.parent / "pairs")
    first, again = (calibrate(folder, [source], share=0.5, samples=20, threshold=t) for t in (0.6, 0.7))
    assert first.threshold == 0.6
    assert again.threshold == 0.7
    assert {**first.as_dict(), "threshold": 0} == {**again.as_dict(), "threshold": 0}


def test_pairs_that_belong_together_are_fitted_where_they_are_shown_as_they_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the others, which take fewer looks, the strangers alone are; they do not set the threshold."""

    def rows(_search: Search, trials: Sequence[Trial], effort: str) -> Iterator[_Row]:
        for trial in trials:
            assert effort == ("auto" if trial.plain else "twice")
            yield _Row(Evidence(float(trial.plain)), math.inf if trial.truth is None else 1.0, 1.0, True)

    monkeypatch.setattr(calibration, "_rows", rows)
    _, _, held = split_sources([Source(folder.parent / "pairs")], 0.5)
    found = _collect(Registrar.from_pretrained(folder), ImageBank(held), 48, None)
    matching = [row for row in found if row.error == 1]
    strangers = [row for row in found if row.error == math.inf]
    assert [row.evidence.precision for row in matching] == [1] * (32 + 12)
    assert [row.evidence.precision for row in strangers] == [0] * 8 + [1] * 16
    assert all(row.last == (row.evidence.precision == 1) for row in found)


def test_nothing_held_back_cannot_be_fitted(folder: Path) -> None:
    with pytest.raises(DataError, match="no image pairs were given"):
        calibrate(folder, [Source(folder.parent / "pairs")], share=0.0, samples=20)


def test_a_model_that_does_not_rate_itself_is_not_calibrated(folder: Path, tmp_path: Path) -> None:
    save_weights(tmp_path / "clkn", tiny("clkn"))
    with pytest.raises(InputError, match="holds clkn, which does not rate itself"):
        calibrate(tmp_path / "clkn", [Source(folder.parent / "pairs")], share=0.5, samples=20)


def test_too_few_samples_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="at least 20"):
        calibrate(folder, [Source(folder.parent / "pairs")], share=0.5, samples=4)


def test_the_threshold_rises_until_few_mistakes_pass() -> None:
    confidence = np.concatenate([np.full(100, 0.97), np.full(20, 0.72), np.full(100, 0.62)])
    good = np.concatenate([np.full(100, 1.0), np.full(20, 2.0), np.full(100, np.inf)])
    assert _choose_threshold(confidence, good) == 0.65, "pairs that do not belong together are refused"
    far = np.concatenate([np.full(100, 1.0), np.full(20, 30.0), np.full(100, np.inf)])
    assert _choose_threshold(confidence, far) == 0.75
    assert _choose_threshold(confidence, np.full(220, 2.0)) == 0.5
    assert _choose_threshold(np.full(10, 0.99), np.full(10, np.inf)) == 0.95
