"""Resampling whole pictures through a homography, with their bit depth, and the area that has data.

`homoreg.geometry.warp` does this for batches of float tensors inside the models. Here a user's picture is
warped once, in its own dtype, by OpenCV.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from homoreg.errors import InputError

__all__ = ["Interpolation", "Matrix", "clip_frame", "map_points", "resample", "resize_matrix", "share_inside"]

Matrix: TypeAlias = npt.NDArray[np.float64]
Interpolation: TypeAlias = Literal["linear", "nearest"]

_FLAGS: dict[str, int] = {"linear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST}


def resample(
    pixels: npt.NDArray[Any],
    homography: Matrix,
    size: tuple[int, int],
    *,
    interpolation: Interpolation = "linear",
    fill: float = 0,
    mask: npt.NDArray[np.bool_] | None = None,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Bring a picture onto another pixel grid.

    Parameters
    ----------
    pixels
        Shape (H, W) or (H, W, 3); uint8, uint16 or float32.
    homography
        Shape (3, 3), from the picture's pixels to the grid's; pixel centres at integer coordinates.
    size
        Width and height of the grid.
    interpolation
        "linear" between pixel centres, or "nearest", which takes values over exactly.
    fill
        Value where there is no data; it must fit the dtype.
    mask
        Shape (H, W), False where the picture holds no data.

    Returns
    -------
    warped : numpy.ndarray
        Shape (size[1], size[0]) or (size[1], size[0], 3), dtype of `pixels`.
    valid : numpy.ndarray
        Shape (size[1], size[0]), bool: True where the grid's pixel centre falls on a pixel with data. What
        lies behind the horizon of a strong perspective is not valid.

    Raises
    ------
    InputError
        If the interpolation is unknown, the fill does not fit, or OpenCV cannot handle the sizes.
    """
    if interpolation not in _FLAGS:
        raise InputError(f"interpolation is {interpolation!r}; expected 'linear' or 'nearest'")
    _check_fill(fill, pixels.dtype)
    source = np.ones(pixels.shape[:2], np.uint8) if mask is None else mask.astype(np.uint8)
    try:
        # Borders are replicated, not filled, so that the outer half pixel is not blended with the fill.
        warped = cv2.warpPerspective(
            pixels, homography, size, flags=_FLAGS[interpolation], borderMode=cv2.BORDER_REPLICATE
        )
        valid = cv2.warpPerspective(
            source, homography, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT
        ).astype(np.bool_)
    except cv2.error as error:
        raise InputError(
            f"cannot warp {pixels.shape[1]} x {pixels.shape[0]} px onto {size[0]} x {size[1]} px; "
            "this version of OpenCV warps sides up to 32766 px: update it or tile the images"
        ) from error
    _clear_behind_horizon(valid, homography)
    warped[~valid] = fill
    return warped, valid


def _check_fill(fill: float, dtype: np.dtype[Any]) -> None:
    if dtype.kind == "u" and not (0 <= fill <= np.iinfo(dtype).max and float(fill).is_integer()):
        raise InputError(
            f"fill is {fill!r}; expected an integer from 0 to {np.iinfo(dtype).max} for {dtype} pixels"
        )


def _clear_behind_horizon(valid: npt.NDArray[np.bool_], homography: Matrix) -> None:
    """Clear the mask, in place, where the way back to the source has a third coordinate of 0 or less."""
    a, b, c = np.linalg.inv(homography)[2]
    x, y = a * np.arange(valid.shape[1]), b * np.arange(valid.shape[0]) + c
    if x.min() + y.min() <= 0:  # no horizon in sight is the rule, and saves an array of floats
        valid &= x[None, :] + y[:, None] > 0


def map_points(homography: Matrix, points: npt.NDArray[Any]) -> Matrix:
    """Map points, (N, 2) in px, through a homography; those on its horizon become infinite or NaN."""
    lifted = np.column_stack([points, np.ones(len(points))]) @ homography.T
    with np.errstate(divide="ignore", invalid="ignore"):
        mapped: Matrix = lifted[:, :2] / lifted[:, 2:]
    return mapped


def resize_matrix(source: tuple[int, int], target: tuple[int, int]) -> Matrix:
    """Pixel coordinates after resizing, ``x -> s * (x + 0.5) - 0.5``, sizes as (width, height)."""
    sx, sy = target[0] / source[0], target[1] / source[1]
    return np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]], np.float64)


def clip_frame(
    homography: Matrix, source: tuple[int, int], target: tuple[int, int], margin: float = 0
) -> Matrix:
    """Part of the source frame that a homography brings into the target frame.

    The five conditions (before the horizon; right of the left side; ...) are linear in the homogeneous
    coordinates of the **source**, so the convex frame is cut by one half-plane after the other (Sutherland
    and Hodgman, 1974) before anything is divided. No perspective, however strong, is a special case.

    Parameters
    ----------
    homography
        Shape (3, 3), source pixels to target pixels, last entry positive.
    source, target
        Width and height, px.
    margin
        Extends the target frame on all sides, px.

    Returns
    -------
    numpy.ndarray
        Shape (N, 2), corners of the remaining polygon, in **source** pixels; N is 0 if nothing remains.
    """
    x, y, w = homography
    low, right, bottom = -0.5 - margin, target[0] - 0.5 + margin, target[1] - 0.5 + margin
    horizon = 1e-9 * np.abs(w).max() * np.array([0.0, 0.0, 1.0])
    planes = (w - horizon, x - low * w, right * w - x, y - low * w, bottom * w - y)
    wide, high = source[0] - 0.5, source[1] - 0.5
    polygon = np.array([[-0.5, -0.5], [wide, -0.5], [wide, high], [-0.5, high]])
    for plane in planes:
        polygon = _cut(polygon, plane)
    return polygon


def share_inside(homography: Matrix, source: tuple[int, int], target: tuple[int, int]) -> float:
    """Share of the source's pixel area, 0 to 1, that a homography brings into the target frame."""
    polygon = clip_frame(homography, source, target)
    if len(polygon) < 3:
        return 0.0
    following = np.roll(polygon, -1, axis=0)
    area = abs(float(np.sum(polygon[:, 0] * following[:, 1] - polygon[:, 1] * following[:, 0]))) / 2
    return min(1.0, area / (source[0] * source[1]))


def _cut(polygon: Matrix, plane: Matrix) -> Matrix:
    """Part of a convex polygon where ``plane @ [x, y, 1] >= 0``."""
    height = polygon @ plane[:2] + plane[2]
    kept: list[npt.NDArray[Any]] = []
    for here in range(len(polygon)):
        there = (here + 1) % len(polygon)
        if height[here] >= 0:
            kept.append(polygon[here])
        if (height[here] >= 0) != (height[there] >= 0):
            part = height[here] / (height[here] - height[there])
            kept.append(polygon[here] + part * (polygon[there] - polygon[here]))
    return np.array(kept).reshape(-1, 2)
