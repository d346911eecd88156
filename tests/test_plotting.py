from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from homoreg.errors import InputError, MissingPackageError, OutputError
from homoreg.plotting import box_plot

ERRORS = {"park": {"a": [0.5, 1.0, 2.0], "b": [0.0, np.inf]}, "city": {"b": [3.0]}}


def test_a_picture_with_its_source(tmp_path: Path) -> None:
    path = box_plot(ERRORS, tmp_path / "box.png", methods=["a", "b"], source="0123abcd")
    image = cv2.imread(str(path))
    assert image is not None
    assert image.std() > 10
    assert b"Source\x000123abcd" in path.read_bytes()[:1024]


def test_the_same_errors_give_the_same_file_and_others_another(tmp_path: Path) -> None:
    files = [
        box_plot(errors, tmp_path / name, methods=["a", "b"]).read_bytes()
        for name, errors in (("1.png", ERRORS), ("2.png", ERRORS), ("3.png", {"park": {"a": [9.0]}}))
    ]
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize("errors", [{}, {"park": {}}])
def test_no_errors(tmp_path: Path, errors: dict[str, dict[str, list[float]]]) -> None:
    with pytest.raises(InputError, match="no errors to draw"):
        box_plot(errors, tmp_path / "box.png", methods=["a"])


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPackageError, match=r"needs matplotlib.*'homoreg\[benchmark\]'"):
        box_plot(ERRORS, tmp_path / "box.png", methods=["a"])


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        box_plot(ERRORS, tmp_path / "no" / "box.png", methods=["a", "b"])
