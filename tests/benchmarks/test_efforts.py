"""benchmarks/efforts.py from its command line, on a small generated set."""

from __future__ import annotations

import csv
from pathlib import Path

from benchmarks import efforts
from tests.scenes import write_set


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_costs_errors_and_trust(tmp_path: Path) -> None:
    park = write_set(tmp_path / "park", 3)
    out = tmp_path / "out"
    told = ["--data", park, "--model", "m70", "--out", out, "--limit", 2, "--mismatches", 1]
    assert efforts.main([str(one) for one in told]) == 0
    costs, trust = read(out / "efforts.csv"), read(out / "trust.csv")
    assert [(row["model"], row["effort"], row["set"], row["n"]) for row in costs] == [
        ("m70", effort, "park", "2") for effort in ("fast", "auto", "best")
    ]
    assert all(float(row["ms"]) > 0 for row in costs)
    assert all(float(row["median"]) <= float(row["max"]) for row in costs)
    assert [(row["set"], row["n"]) for row in trust] == [("park", "3")]
    assert 0 <= float(trust[0]["refused"]) <= 1
    assert len(trust[0]["weights"]) == len(costs[0]["weights"]) == 12
