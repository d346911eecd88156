"""Writing pictures and text, each complete or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from homoreg.errors import InputError
from homoreg.files import atomic_write_bytes
from homoreg.files import atomic_write_text as write_text
from homoreg.imaging.quiet import quiet_opencv

__all__ = ["encode_image", "write_image", "write_text"]

_DTYPES: dict[str, tuple[str, ...]] = {
    ".png": ("uint8", "uint16"),
    ".jpg": ("uint8",),
    ".jpeg": ("uint8",),
    ".tif": ("uint8", "uint16", "float32"),
    ".tiff": ("uint8", "uint16", "float32"),
}
_OPTIONS: dict[str, list[int]] = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95],
}


def write_image(path: str | os.PathLike[str], pixels: npt.NDArray[Any]) -> Path:
    """Write a picture in one step; the suffix names the format.

    Parameters
    ----------
    path
        Ends in .png, .jpg, .jpeg, .tif or .tiff. Its folder must exist.
    pixels
        As for `encode_image`.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    InputError
        As `encode_image`.
    OutputError
        If the file cannot be written; nothing is left behind then.
    """
    return atomic_write_bytes(path, encode_image(Path(path).suffix, pixels))


def encode_image(suffix: str, pixels: npt.NDArray[Any]) -> bytes:
    """Encode a picture in memory.

    Parameters
    ----------
    suffix
        ".png" or ".tiff" (lossless), ".jpg" (8-bit, quality 95); ".tif" and ".jpeg" are the same.
    pixels
        Shape (H, W), or (H, W, 3) in RGB order; uint8, uint16 (PNG and TIFF), float32 (TIFF), or bool, which
        is written as 0 and 255.

    Returns
    -------
    bytes
        What the file shall hold.

    Raises
    ------
    InputError
        If the suffix is none of these, or the format cannot hold the pixels.
    """
    suffix = suffix.lower()
    if suffix not in _DTYPES:
        raise InputError(f"cannot write a picture as {suffix!r}; use one of {', '.join(_DTYPES)}")
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)) or pixels.size == 0:
        raise InputError(
            f"the picture has shape {pixels.shape}; expected (H, W) or (H, W, 3), neither side 0"
        )
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if str(pixels.dtype) not in _DTYPES[suffix]:
        raise InputError(
            f"a {suffix} file cannot hold {pixels.dtype} pixels, only {' or '.join(_DTYPES[suffix])}; "
            "convert them or use .tiff"
        )
    ordered = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    try:
        with quiet_opencv():
            done, data = cv2.imencode(suffix, np.ascontiguousarray(ordered), _OPTIONS.get(suffix, []))
    except cv2.error as error:
        raise InputError(_failed(suffix, pixels)) from error
    if not done:
        raise InputError(_failed(suffix, pixels))
    return data.tobytes()


def _failed(suffix: str, pixels: npt.NDArray[Any]) -> str:
    height, width = pixels.shape[:2]
    return f"{width} x {height} pixels are too many for a {suffix} file; use .tiff or a smaller picture"
