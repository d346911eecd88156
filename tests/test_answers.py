from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from homoreg.answers import Answer, AnswerLog
from homoreg.errors import OutputError

KEY = {"method": "m120", "set": "park"}
FIRST = Answer(np.array([[1 / 3, 0, 2e-300], [0, math.pi, 0], [0, 0, 1]]), 0.1, True, "m120", 12.5)
DIVERGED = Answer(np.full((3, 3), math.nan), None, False, "", math.inf)


def logged(path: Path) -> AnswerLog:
    log = AnswerLog(path, KEY)
    log.append(["a", "b"], [FIRST, DIVERGED])
    return log


def same(found: Answer, expected: Answer) -> bool:
    rest = ("confidence", "ok", "model", "milliseconds")
    return np.array_equal(found.homography, expected.homography, equal_nan=True) and all(
        getattr(found, name) == getattr(expected, name) for name in rest
    )


def test_what_was_appended_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    written = logged(tmp_path / "new" / "log.jsonl")
    for log in (written, AnswerLog(written.path, KEY)):
        assert list(log.answers) == ["a", "b"]
        assert same(log.answers["a"], FIRST)
        assert same(log.answers["b"], DIVERGED)


@pytest.mark.parametrize("lost", [1, 20, 60])
def test_a_line_that_was_cut_is_dropped_and_the_rest_continued(tmp_path: Path, lost: int) -> None:
    path = logged(tmp_path / "log.jsonl").path
    path.write_bytes(path.read_bytes()[:-lost])
    log = AnswerLog(path, KEY)
    assert list(log.answers) == ["a"]
    log.append(["c"], [FIRST])
    assert list(AnswerLog(path, KEY).answers) == ["a", "c"]


@pytest.mark.parametrize("damage", ["{}", "not JSON", '{"name": "x", "homography": [1, 2]}', "\x00\x00"])
def test_what_follows_a_damaged_line_is_asked_again(tmp_path: Path, damage: str) -> None:
    path = logged(tmp_path / "log.jsonl").path
    lines = path.read_text().split("\n")
    lines[2] = damage
    path.write_text("\n".join(lines))
    assert list(AnswerLog(path, KEY).answers) == ["a"]


def test_answers_about_something_else_are_not_taken(tmp_path: Path) -> None:
    path = logged(tmp_path / "log.jsonl").path
    assert AnswerLog(path, {**KEY, "set": "city"}).answers == {}
    assert AnswerLog(path, KEY).answers == {}


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"cannot read .*log\.jsonl': .*remove it, or name another folder"):
        AnswerLog(tmp_path / "log.jsonl", KEY)


def test_a_log_that_cannot_grow(tmp_path: Path) -> None:
    log = logged(tmp_path / "log.jsonl")
    log.path.unlink()
    log.path.mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*log\.jsonl'"):
        log.append(["c"], [FIRST])
    assert "c" not in log.answers
