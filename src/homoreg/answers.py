"""Answers kept as they come, so that a long evaluation can be cut and continued."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from homoreg.errors import OutputError
from homoreg.files import atomic_write_text, make_folder

__all__ = ["Answer", "AnswerLog"]

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a method answered for one pair.

    Attributes
    ----------
    homography
        (3, 3) float64, template px to search px.
    confidence
        0..1, or None for a method that gives none.
    ok
        False where the method itself said that it failed.
    model
        Name that the method gave itself; may be empty.
    milliseconds
        Wall time.
    """

    homography: Floats
    confidence: float | None
    ok: bool
    model: str
    milliseconds: float


class AnswerLog:
    """Answers by the name of their pair, in a file of one JSON line each.

    Parameters
    ----------
    path
        Of the file; its folder is created. It is read; a last line that a kill cut short is dropped.
    key
        What the answers are about, such as the method, its weights and the set. A file with another key is
        about something else and is emptied.

    Raises
    ------
    OutputError
        If the file cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], key: Mapping[str, str]) -> None:
        self.path = Path(path)
        self.answers: dict[str, Answer] = {}
        make_folder(self.path.parent)
        head = json.dumps({"key": dict(key)}, sort_keys=True)
        lines = self._lines()
        kept = [head]
        for line in lines[1:] if lines[:1] == kept else ():
            try:
                name, answer = _parse(line)
            except (ValueError, KeyError, TypeError):
                break
            self.answers[name] = answer
            kept.append(line)
        if kept != lines:
            atomic_write_text(self.path, "\n".join(kept) + "\n")

    def append(self, names: Sequence[str], answers: Sequence[Answer]) -> None:
        """Add answers and wait until the disk holds them.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        text = "".join(_format(*pair) + "\n" for pair in zip(names, answers, strict=True))
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                f"cannot write {str(self.path)!r}: {error.strerror}; free some space, or name another folder"
            ) from error
        self.answers.update(zip(names, answers, strict=True))

    def _lines(self) -> list[str]:
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise OutputError(
                f"cannot read {str(self.path)!r}: {error.strerror}; remove it, or name another folder"
            ) from error
        *lines, torn = text.split("\n")
        # What follows the last line end was being written when the process died; the mark, which is no
        # JSON, has the file written anew without it.
        return [*lines, "torn"] if torn else lines


def _format(name: str, answer: Answer) -> str:
    record = {
        "name": name,
        "homography": np.asarray(answer.homography, np.float64).ravel().tolist(),
        "confidence": None if answer.confidence is None else float(answer.confidence),
        "ok": bool(answer.ok),
        "model": answer.model,
        "milliseconds": float(answer.milliseconds),
    }
    return json.dumps(record)  # repr of a float reads back as the same float; NaN and Infinity do too


def _parse(line: str) -> tuple[str, Answer]:
    record: dict[str, Any] = json.loads(line)
    confidence = record["confidence"]
    return str(record["name"]), Answer(
        homography=np.array(record["homography"], np.float64).reshape(3, 3),
        confidence=None if confidence is None else float(confidence),
        ok=bool(record["ok"]),
        model=str(record["model"]),
        milliseconds=float(record["milliseconds"]),
    )
