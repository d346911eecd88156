"""A short run of the fuzzer, and that it would notice what it looks for."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from homoreg.errors import ImageReadError
from homoreg.imaging import reading
from homoreg.imaging.reading import read_image
from homoreg.imaging.rjpeg import read_rjpeg
from tests.fuzz import harness
from tests.fuzz.mutations import case, with_checksums
from tests.fuzz.seeds import seeds


def test_every_seed_is_a_whole_file(tmp_path: Path) -> None:
    assert len(seeds()) >= 29
    for name, data in seeds().items():
        (tmp_path / name).write_bytes(data)
        assert min(read_image(tmp_path / name).size) >= 16
    assert read_rjpeg(tmp_path / "thermal.jpg").visual.size == (40, 24)


def test_cases_can_be_repeated_and_differ() -> None:
    first = [case(3, index) for index in range(60)]
    assert first == [case(3, index) for index in range(60)]
    assert len({data for _, data in first}) > 50
    assert first != [case(4, index) for index in range(60)]
    assert case(3, 30) == (case(3, 30)[0], seeds()[case(3, 30)[0]]), "one in thirty is whole"


def test_checksums_are_made_right(tmp_path: Path) -> None:
    data = bytearray(seeds()["colour.png"])
    data[20:24] = b"\0\0\0\x50"  # a height whose checksum is not that of the file
    (tmp_path / "a.png").write_bytes(bytes(data))
    with pytest.raises(ImageReadError, match="fails its checksum"):
        read_image(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(with_checksums(bytes(data)))
    with pytest.raises(ImageReadError, match="truncated or damaged"):
        read_image(tmp_path / "a.png")


def test_damaged_files_are_refused_one_by_one() -> None:
    report = harness.run(600, seed=2)
    assert report.failures == []
    assert sum(report.outcomes.values()) == 600
    assert report.outcomes["refused"] > 200
    assert report.outcomes["picture"] > 40


# --- the harness notices -----------------------------------------------------------------------------------


def outcome(path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> tuple[str, list[str]]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(reading, "read_image", fail)
    return harness._read(path, 0)


def test_another_error_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome(tmp_path / "a", monkeypatch, KeyError("x")) == ("error", ["KeyError: 'x'"])


def test_an_error_that_does_not_name_the_file_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outcome(tmp_path / "a", monkeypatch, ImageReadError("bad")) == ("refused", ["bad"])
    good = ImageReadError(f"cannot read {str(tmp_path / 'a')!r}: bad")
    assert outcome(tmp_path / "a", monkeypatch, good) == ("refused", [])


def test_running_out_of_memory_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ImageReadError(f"cannot read {str(tmp_path / 'a')!r}: there is not enough memory")
    assert outcome(tmp_path / "a", monkeypatch, error) == ("refused", ["ran out of memory"])


def stand_in(path: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a script in the place of the child."""
    path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{body}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(path))


def test_a_crash_is_a_failure_and_the_run_goes_on_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = {"name": "x", "outcome": "refused", "failed": [], "seconds": 0.1, "peak": 5}
    body = f"""
first, last = map(int, sys.argv[4].split(":"))
for index in range(first, last):
    if index == 2:
        os.abort()
    print(json.dumps({record!r} | {{"index": index}}), flush=True)
"""
    stand_in(tmp_path / "child", body, monkeypatch)
    report = harness.run(5, seed=1)
    assert report.outcomes == {"refused": 4, "crash": 1}
    (failure,) = report.failures
    assert failure.startswith("case 2 (")
    assert "the child died with -6" in failure


def test_a_child_without_a_sign_of_life_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path / "child", "time.sleep(60)", monkeypatch)
    monkeypatch.setattr(harness, "STUCK", 0.1)
    report = harness.run(1, seed=1)
    assert report.outcomes == {"crash": 1}
    assert "the child died with -9" in report.failures[0]


def test_a_slow_case_is_read_again_and_then_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = iter([3.0, 0.1, 3.0, 2.5])  # the first one was held up, the second one is slow
    monkeypatch.setattr(harness, "_timed", lambda *_: (next(taken), ("refused", [])))
    monkeypatch.setattr(harness, "_limit_memory", lambda: None)
    monkeypatch.setattr(harness, "_peak", lambda: 2**20)
    harness.child(1, 3, seed=1)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["failed"], first["seconds"]) == ([], 0.1)
    assert second["failed"] == ["took 2.5 s, twice"]


def test_too_much_memory_is_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "_timed", lambda *_: (0.1, ("picture", [])))
    monkeypatch.setattr(harness, "_limit_memory", lambda: None)
    monkeypatch.setattr(harness, "_peak", lambda: harness.MEMORY + 2**20)
    harness.child(1, 2, seed=1)
    assert "MiB are resident" in json.loads(capsys.readouterr().out)["failed"][0]
