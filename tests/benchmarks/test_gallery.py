"""benchmarks/gallery.py from its command line."""

from __future__ import annotations

from pathlib import Path

import cv2

from benchmarks import gallery
from homoreg.models import build
from homoreg.models.storage import save_weights

TINY = {"width2": 8, "width4": 8, "width8": 16, "layers": 1, "hidden": (8, 8, 8), "steps": (1, 1, 0)}


def test_a_picture_a_pair(tmp_path: Path) -> None:
    save_weights(tmp_path / "tiny", build("m", TINY))
    assert gallery.main(["--model", str(tmp_path / "tiny"), "--out", str(tmp_path / "out")]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted(f"gallery_{name}.jpg" for name in gallery.PAIRS)
    for name in names:
        picture = cv2.imread(str(tmp_path / "out" / name))
        assert picture is not None
        assert 100 < picture.shape[1] <= gallery.WIDTH
