"""Disks that refuse, for tests of what is left behind."""

from __future__ import annotations

import builtins
import errno
import os
from pathlib import Path
from typing import Any

import pytest


class FullDisk:
    """Files whose last byte does not fit: every write to a new file fails after `room` bytes with ENOSPC."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        real_open = builtins.open

        def guarded(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            stream = real_open(file, mode, *args, **kwargs)
            if "x" in mode or "w" in mode:
                return _Limited(stream, self)
            return stream

        monkeypatch.setattr(builtins, "open", guarded)


class _Limited:
    def __init__(self, stream: Any, disk: FullDisk) -> None:
        self._stream, self._disk = stream, disk

    def write(self, data: Any) -> int:
        fits = min(len(data), self._disk.room)
        self._disk.room -= fits
        self._stream.write(bytes(data)[:fits])
        if fits < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return fits

    def __enter__(self) -> _Limited:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def everything_below(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder, hidden ones too, by relative path; folders map to b"dir"."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"dir"
        for path in sorted(folder.rglob("*"))
    }
