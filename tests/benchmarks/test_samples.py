"""benchmarks/samples.py: what it foretells; the versions themselves are in the repository's history."""

from __future__ import annotations

import pytest

from benchmarks import samples


def test_a_power_law_is_continued() -> None:
    rows: list[dict[str, object]] = [
        {"samples": seen, "set": name, "n": 4, "median": 800 / seen, "mean": 30 * seen**-0.5}
        for seen in (100, 200, 400)
        for name in ("park", "city")
    ]
    told = samples.foretell(rows, "park")
    assert (told["commit"], told["samples"], told["set"], told["n"]) == ("", 4000, "park", 4)
    assert told["median"] == pytest.approx(0.2)
    assert told["mean"] == pytest.approx(30 * 4000**-0.5)
