from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

from homoreg.errors import OutputError
from homoreg.training.metrics_log import COLUMNS, MetricsLog
from tests.disk import FullDisk, everything_below


def row(step: int, **more: Any) -> dict[str, Any]:
    return {
        "step": step,
        "epoch": step,
        "samples": 2 * step,
        "minutes": 0.5,
        "loss": 2.0,
        "error": 8.0 / step,
        **more,
    }


def filled(path: Path, count: int = 3) -> MetricsLog:
    log = MetricsLog(path)
    for step in range(1, count + 1):
        log.append(row(step, validation_median=1.23456789) if step == 2 else row(step))
    return log


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows(tmp_path: Path) -> None:
    filled(tmp_path / "m.csv")
    found = read(tmp_path / "m.csv")
    assert tuple(found[0]) == COLUMNS
    assert [r["step"] for r in found] == ["1", "2", "3"]
    assert [r["error"] for r in found] == ["8", "4", "2.6667"]
    assert [r["validation_median"] for r in found] == ["", "1.2346", ""]
    assert (tmp_path / "m.csv").read_bytes().count(b"\n") == 4


def test_a_resumed_log_continues_where_it_was_cut(tmp_path: Path) -> None:
    filled(tmp_path / "m.csv", 4)
    whole = (tmp_path / "m.csv").read_bytes()
    log = MetricsLog(tmp_path / "m.csv")
    log.cut(2)
    assert [r["step"] for r in read(tmp_path / "m.csv")] == ["1", "2"]
    for step in (3, 4):
        log.append(row(step))
    assert (tmp_path / "m.csv").read_bytes() == whole


def test_nothing_to_cut(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.csv")
    log.cut(0)
    assert not (tmp_path / "m.csv").exists()
    assert log.rows == []


def test_a_full_disk_keeps_the_rows_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(tmp_path / "m.csv")
    before = everything_below(tmp_path)
    with monkeypatch.context() as patch:
        FullDisk(patch, room=20)
        with pytest.raises(OutputError, match="the disk is full"):
            log.append(row(4))
    assert everything_below(tmp_path) == before


@pytest.mark.parametrize("resumed", [False, True])
def test_curve(tmp_path: Path, resumed: bool) -> None:
    pytest.importorskip("matplotlib")
    log = filled(tmp_path / "m.csv")
    if resumed:  # rows that were read are text
        log = MetricsLog(tmp_path / "m.csv")
        log.cut(3)
    assert log.plot(tmp_path / "curve.png")
    picture = cv2.imread(str(tmp_path / "curve.png"))
    assert picture is not None
    assert picture.shape[0] > 200
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert {(0xB4, 0x77, 0x1F), (0x0E, 0x7F, 0xFF)} <= colours  # both curves, in matplotlib's blue and orange


def test_curve_of_nothing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert MetricsLog(tmp_path / "m.csv").plot(tmp_path / "curve.png")


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    assert not filled(tmp_path / "m.csv").plot(tmp_path / "curve.png")
    assert list(everything_below(tmp_path)) == ["m.csv"]
