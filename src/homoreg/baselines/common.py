"""What all baselines share: their form, the check of what goes in and of what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from homoreg.errors import InputError
from homoreg.geometry import is_plausible

__all__ = ["Baseline", "BaselineResult", "Bytes", "Float32s", "Floats", "attempt", "finite"]

Bytes: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float64]
Float32s: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class BaselineResult:
    """What a baseline found.

    Attributes
    ----------
    homography
        (3, 3) float64, infrared px to RGB px, last entry 1. The prior where ``ok`` is False.
    ok
        Whether the method succeeded by its own test.
    """

    homography: Floats
    ok: bool


Baseline: TypeAlias = Callable[[Bytes, Bytes, Floats], BaselineResult]
Search: TypeAlias = Callable[[Bytes, Bytes, Floats], Floats | None]


def attempt(search: Search, ir: Bytes, rgb: Bytes, prior: Floats) -> BaselineResult:
    """Run a search on grey images; answer with the prior where it finds nothing, or nothing plausible.

    Parameters
    ----------
    search
        ``(ir, rgb, prior) -> homography or None``, of two (H, W) uint8 images and a prior with last entry 1.
    ir, rgb
        uint8 images, (H, W) or (H, W, 3) in RGB order.
    prior
        (3, 3) homography, infrared px to RGB px.

    Returns
    -------
    BaselineResult
        What was found unless, seen from the prior, it folds, mirrors or shrinks the frame beyond sense.

    Raises
    ------
    InputError
        If an image is not uint8 (H, W) or (H, W, 3), or the prior is not a finite 3x3 matrix.
    """
    ir_grey, rgb_grey, start = _grey(ir, "ir"), _grey(rgb, "rgb"), _checked(prior)
    found = search(ir_grey, rgb_grey, start)
    matrix = None if found is None else finite(found)
    if matrix is None:
        return BaselineResult(start, False)
    # The prior carries the images' ratio of scales; without it a plain scale limit would depend on the
    # sensors.
    relative = torch.from_numpy(np.linalg.pinv(start) @ matrix)
    relative = relative / relative[2, 2]
    ok = bool(is_plausible(relative[None], max(ir_grey.shape))[0])
    return BaselineResult(matrix if ok else start, ok)


def finite(matrix: Floats) -> Floats | None:
    """Scale a matrix to last entry 1; None where that, or an entry, is not finite."""
    with np.errstate(all="ignore"):
        scaled = np.asarray(matrix / matrix[2, 2], np.float64)
    return scaled if np.isfinite(scaled).all() else None


def _checked(prior: Floats) -> Floats:
    matrix = np.asarray(prior, dtype=np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or matrix[2, 2] == 0:
        raise InputError(
            f"prior is {matrix.tolist()}; expected a finite 3x3 matrix, infrared px to RGB px, last entry "
            "not 0"
        )
    return np.asarray(matrix / matrix[2, 2], np.float64)


def _grey(image: Bytes, name: str) -> Bytes:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise InputError(
            f"{name} has dtype {image.dtype} and shape {image.shape}; "
            "expected uint8 of shape (H, W) or (H, W, 3)"
        )
    if image.ndim == 2:
        return np.ascontiguousarray(image)
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), dtype=np.uint8)
