"""What a misspelt name was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["suggest"]


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``". Did you mean 'x'?"``, to end an error with, or nothing where no known name is close."""
    (close, *_) = [*difflib.get_close_matches(name, list(known), n=1, cutoff=0.6), ""]
    return f". Did you mean {close!r}?" if close else ""
