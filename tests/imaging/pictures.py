"""Small pictures whose every value says where it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

Array = npt.NDArray[Any]
HEIGHT, WIDTH = 24, 40


def counts() -> Array:
    """Thermal counts as a camera gives them: 7300 to 7900, all of which an 8-bit conversion would lose."""
    ramp = 7300 + (np.arange(HEIGHT * WIDTH) * 7) % 601
    return ramp.reshape(HEIGHT, WIDTH).astype(np.uint16)


def grey() -> Array:
    return (counts() % 251).astype(np.uint8)


def colour() -> Array:
    """RGB whose channels cannot be mistaken for each other."""
    return np.stack([grey(), 255 - grey(), grey() // 2], axis=-1)


def save(path: Path, pixels: Array, **options: Any) -> Path:
    """Write with Pillow, so that reading is not tested against its own library."""
    PIL.Image.fromarray(pixels).save(path, **options)
    return path


def exif(orientation: int) -> PIL.Image.Exif:
    tags = PIL.Image.Exif()
    tags[0x112] = orientation
    return tags
