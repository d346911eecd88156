"""Keep OpenCV's own log lines off the user's terminal while homoreg reports the same thing as an error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2

__all__ = ["quiet_opencv"]

# OpenCV 5 moved getLogLevel and setLogLevel from the top of the package to here.
_logging: Any = getattr(cv2.utils, "logging", cv2)
_SILENT = 0
_lock = threading.Lock()
_depth = 0
_level = 0


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Silence OpenCV's log for the length of a ``with`` block and restore its level afterwards.

    The level is one per process. Blocks of several threads may overlap, so the first one in saves the level
    and the last one out restores it; otherwise a thread could save, and later restore, "silent".
    """
    global _depth, _level
    with _lock:
        if _depth == 0:
            _level = _logging.getLogLevel()
            _logging.setLogLevel(_SILENT)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _logging.setLogLevel(_level)
