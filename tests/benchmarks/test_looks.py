"""benchmarks/looks.py from its command line, on a few generated pairs."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import pytest

from benchmarks import looks
from tests.scenes import infrared_of, scene


def test_a_line_a_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for side in ("ir", "rgb"):
        (tmp_path / "park" / side).mkdir(parents=True)
    for seed in range(4):
        rgb = scene(256, 256, seed=seed)
        cv2.imwrite(str(tmp_path / "park" / "rgb" / f"{seed}.png"), rgb[..., ::-1])
        cv2.imwrite(str(tmp_path / "park" / "ir" / f"{seed}.png"), infrared_of(rgb))
    assert looks.main(["--pairs", str(tmp_path / "park"), "--share", "0.5", "--samples", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].strip() for line in lines] == ["first", *map(str, looks.SIZES)]
    medians = [float(re.findall(r"[\d.]+ / ([\d.]+) /", line)[0]) for line in lines]
    assert all(0 < median < 60 for median in medians)
    assert all(line.endswith(" ms") for line in lines[1:])
