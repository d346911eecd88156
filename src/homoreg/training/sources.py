"""Folders of pairs to train on: how much each counts, and which of its images are held back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from homoreg.errors import DataError
from homoreg.synthesis.sources import SourcePair, find_pairs

__all__ = ["Source", "names_digest", "split_sources"]


@dataclass(frozen=True)
class Source:
    """A folder of pairs and how much it counts.

    Each of its images is drawn in proportion to ``weight / sqrt(count)`` of the images trained on, so that a
    folder's share grows with the root of their number.
    """

    folder: Path
    weight: float = 1.0


def split_sources(
    sources: Sequence[Source], share: float
) -> tuple[list[SourcePair], list[float], list[SourcePair]]:
    """Hold back the last images of each folder (neighbouring frames stay on one side).

    A share above 0 holds back at least one image and leaves at least one to train on.

    Returns
    -------
    tuple
        Training pairs, their weights, validation pairs.
    """
    training: list[SourcePair] = []
    weights: list[float] = []
    held: list[SourcePair] = []
    for source in sources:
        pairs = find_pairs(source.folder)
        back = max(1, round(share * len(pairs))) if share > 0 else 0
        keep = max(1, len(pairs) - back)
        training += pairs[:keep]
        weights += [source.weight / keep**0.5] * keep
        held += pairs[keep:]
    if not training:
        raise DataError("no image pairs to train on; expected at least one folder with pairs: pass --pairs")
    return training, weights, held


def names_digest(pairs: Sequence[SourcePair]) -> str:
    """SHA-256 in hex over the names of a folder's image files, in order, by which some are held back."""
    names = [[pair.rgb.name, pair.infrared.name if pair.infrared else ""] for pair in pairs]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()
