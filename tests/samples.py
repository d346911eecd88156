"""The bundled sample pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from homoreg.imaging.reading import read_image

SAMPLES = Path(__file__).parents[1] / "examples" / "samples"
NAMES: dict[str, tuple[str, str]] = json.loads((SAMPLES / "pairs.json").read_text(encoding="utf-8"))
Pixels: TypeAlias = NDArray[Any]


def read_pair(name: str) -> tuple[Pixels, Pixels]:
    """Pixels of the infrared and the RGB image of a bundled pair."""
    ir, rgb = NAMES[name]
    folder = SAMPLES / name
    return read_image(folder / ir, role="ir").pixels, read_image(folder / rgb, role="rgb").pixels
