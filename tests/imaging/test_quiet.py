from __future__ import annotations

import threading
from pathlib import Path

import cv2
import pytest

from homoreg.errors import ImageReadError
from homoreg.imaging.quiet import quiet_opencv
from homoreg.imaging.reading import read_image

SILENT = 0


def log_level() -> int:
    level: int = getattr(cv2.utils, "logging", cv2).getLogLevel()
    return level


def test_opencv_keeps_its_log_level(tmp_path: Path) -> None:
    level = log_level()
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ImageReadError):
        read_image(tmp_path / "a.png")
    assert log_level() == level


def test_overlapping_threads_restore_opencvs_log_level() -> None:
    level = log_level()
    first_is_in, second_is_in = threading.Event(), threading.Event()

    def first() -> None:
        with quiet_opencv():
            first_is_in.set()
            assert second_is_in.wait(5)

    def second() -> None:
        assert first_is_in.wait(5)
        with quiet_opencv():
            second_is_in.set()
            thread.join(5)
            assert log_level() == SILENT

    thread = threading.Thread(target=first)
    other = threading.Thread(target=second)
    thread.start()
    other.start()
    other.join(10)
    assert log_level() == level
