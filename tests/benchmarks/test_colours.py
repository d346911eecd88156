"""benchmarks/colours.py from its command line, on a small generated set."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks import colours
from homoreg.imaging.palettes import palette_colours
from tests.scenes import heat, write_set


def test_errors_of_every_colouring(tmp_path: Path) -> None:
    park = write_set(tmp_path / "park", 2)
    out = tmp_path / "out" / "colours.csv"
    assert colours.main(["--data", str(park), "--model", "m70", "--out", str(out)]) == 0
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    shown = [(row["colours"], row["compressed"]) for row in rows]
    assert shown == [(name, str(int(compressed))) for name, compressed in colours.colourings()]
    assert {(row["model"], row["set"], row["n"]) for row in rows} == {("m70", "park", "2")}
    assert all(0 < float(row["median"]) <= float(row["max"]) for row in rows)


@pytest.mark.parametrize("compressed", [False, True])
def test_colouring(compressed: bool) -> None:
    grey = heat()
    same, negative, jet = (
        colours.coloured(grey, name, compressed=compressed) for name in ("grey", "negative", "jet")
    )
    assert same.shape == negative.shape == jet.shape == (*grey.shape, 3)
    wanted = palette_colours("jet")[grey]
    assert np.array_equal(jet, wanted) is not compressed
    assert np.abs(jet.astype(int) - wanted).mean() < 12
    assert np.abs(same.astype(int) - grey[..., None]).mean() < 3
    assert np.abs(negative.astype(int) + grey[..., None] - 255).mean() < 3
