"""benchmarks/references.py on a small generated set."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks import references
from homoreg.synthesis.dataset import SkyDataSet
from tests.scenes import write_set


@pytest.fixture(scope="module")
def park(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("sets") / "park", 3)


def test_pictures_agree_best_through_the_true_matrix(park: Path) -> None:
    for pair in SkyDataSet(park):
        there = references.agreement(pair, pair.homography)
        for x, y in ((3, 0), (-3, 0), (0, 3), (0, -3)):
            shift = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)
            assert (references.agreement(pair, shift @ pair.homography) < there).all()


def test_mutual_information_of_a_picture_with_itself_and_with_noise() -> None:
    rng = np.random.default_rng(0)
    picture, other = rng.integers(0, 256, (2, 128, 128)).astype(np.float64)
    itself = references.mutual_information(picture, picture)
    assert itself == pytest.approx(np.log(references.BINS), abs=0.01), "the entropy of even bins"
    assert references.mutual_information(picture, 255 - picture) == pytest.approx(itself, abs=0.05)
    assert references.mutual_information(picture, other) < 0.1


def test_answers_are_counted_by_error(park: Path, tmp_path: Path) -> None:
    assert references.main(["--data", str(park), "--model", "m70", "--out", str(tmp_path)]) == 0
    with (tmp_path / "references.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["model"], row["set"], row["from"]) for row in rows] == [
        ("m70", "park", str(low)) for low in references.BANDS
    ]
    assert sum(int(row["n"]) for row in rows) == 3
    for row in rows:
        n, reliable, *preferred, both = (
            int(row[key]) for key in ("n", "reliable", "information", "gradients", "both")
        )
        assert 0 <= both <= min(preferred) <= max(preferred) <= n
        assert 0 <= reliable <= n
