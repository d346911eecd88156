"""Colour palettes of thermal displays: recognised in a picture, and turned back to intensity.

A palette is a curve through colour space; a picture that was coloured with it lies along that curve, whatever
it shows, but for what compression, scaling and burnt-in text move away. A photograph does not.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["palette_colours", "palette_intensity", "palette_names", "recognise_palette"]

_Floats: TypeAlias = npt.NDArray[np.float32]

# Of OpenCV's, those with colours enough. Bone, pink, cividis and twilight are near grey, as photographs are;
# the luma of most is their intensity anyway.
_OPENCV = (
    "autumn", "cool", "deepgreen", "hot", "hsv", "inferno", "jet", "magma", "ocean", "parula", "plasma",
    "rainbow", "spring", "summer", "turbo", "viridis", "winter",
)  # fmt: skip

# Ramps as they are seen on the displays of thermal cameras, by eye: (position, red, green, blue).
_RAMPS: dict[str, tuple[tuple[float, int, int, int], ...]] = {
    "iron": (
        (0.0, 0, 0, 20), (0.2, 70, 0, 130), (0.45, 190, 20, 110), (0.7, 250, 120, 20), (0.9, 255, 210, 50),
        (1.0, 255, 255, 240),
    ),
    "ironbow": (
        (0.0, 0, 0, 0), (0.12, 30, 0, 115), (0.3, 130, 0, 155), (0.5, 210, 45, 85), (0.66, 240, 105, 10),
        (0.85, 255, 200, 20), (1.0, 255, 255, 255),
    ),
    "rainbow hc": (
        (0.0, 0, 0, 0), (0.1, 110, 0, 130), (0.22, 20, 20, 200), (0.36, 0, 190, 220), (0.5, 0, 190, 40),
        (0.64, 240, 240, 0), (0.78, 250, 120, 0), (0.9, 230, 0, 20), (1.0, 255, 255, 255),
    ),
    "lava": (
        (0.0, 0, 0, 0), (0.2, 20, 40, 110), (0.35, 20, 110, 110), (0.5, 120, 30, 90), (0.65, 200, 20, 20),
        (0.82, 250, 150, 20), (1.0, 255, 255, 220),
    ),
    "arctic": (
        (0.0, 10, 10, 60), (0.25, 20, 60, 220), (0.42, 70, 190, 240), (0.55, 110, 110, 120),
        (0.72, 180, 110, 30), (0.87, 245, 190, 60), (1.0, 255, 250, 220),
    ),
    "glow": (
        (0.0, 0, 0, 0), (0.4, 130, 20, 0), (0.7, 235, 120, 10), (0.9, 255, 220, 90), (1.0, 255, 255, 255),
    ),
    "medical": (
        (0.0, 20, 20, 20), (0.17, 110, 0, 150), (0.33, 0, 60, 230), (0.5, 0, 190, 120), (0.67, 200, 220, 0),
        (0.83, 245, 90, 0), (1.0, 250, 210, 230),
    ),
    "fusion": (
        (0.0, 20, 0, 60), (0.2, 0, 20, 200), (0.4, 130, 0, 200), (0.6, 225, 0, 90), (0.8, 250, 150, 0),
        (1.0, 255, 255, 190),
    ),
}  # fmt: skip

_SAMPLES = 4096  # pixels that decide
_NEAR = 16.0  # distance from the curve, 8-bit steps, that compression leaves
_LEAST_NEAR = 0.85  # share of the pixels that must be as near; the rest may be text and logos
_LEAST_COLOUR = 24.0  # mean saturation, 8-bit steps, under which a picture is grey
_LEAST_SPAN = 0.12  # of the curve, between the 5th and the 95th percentile
_STRAY = 56.0  # distance from the curve, chroma in full, at which a pixel is text rather than picture
_CHROMA = 0.5  # weight of chroma beside luma: JPEG keeps half or a quarter of it
_HINT = 0.25  # the same near the curve, where luma says more precisely which colour it was


def palette_names() -> tuple[str, ...]:
    """Names of the palettes that are known."""
    return (*_OPENCV, *_RAMPS)


@lru_cache(maxsize=64)
def palette_colours(name: str) -> npt.NDArray[np.uint8]:
    """Colours of a palette from its cold to its hot end, shape (256, 3), RGB order; read-only."""
    if name in _RAMPS:
        knots = np.array(_RAMPS[name], np.float64)
        level = np.linspace(0, 1, 256)
        colours = np.stack([np.interp(level, knots[:, 0], knots[:, 1 + c]) for c in range(3)], axis=-1)
        table = colours.round().astype(np.uint8)
    else:
        code = int(getattr(cv2, f"COLORMAP_{name.upper()}"))
        ramp = np.arange(256, dtype=np.uint8)[:, None]
        table = np.ascontiguousarray(cv2.applyColorMap(ramp, code)[:, 0, ::-1])
    table.flags.writeable = False
    return table


def recognise_palette(pixels: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None = None) -> str:
    """Name of the palette that a picture was coloured with.

    Parameters
    ----------
    pixels
        Shape (H, W) or (H, W, 3), RGB order.
    mask
        Shape (H, W), False where it holds no data.

    Returns
    -------
    str
        Empty if it is not uint8 RGB, is grey, or does not lie along any known palette.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        return ""
    sample = pixels.reshape(-1, 3) if mask is None else pixels[mask]
    if len(sample) == 0:
        return ""
    # Evenly over the pixels; an odd step, so that it does not run along one column.
    sample = sample[:: max(1, len(sample) // _SAMPLES) | 1]
    if float((sample.max(axis=1) - sample.min(axis=1)).mean()) < _LEAST_COLOUR:
        return ""
    points = _opponent(sample)
    best, least = "", np.inf
    for name in palette_names():
        index, distance = _nearest(points, _opponent(palette_colours(name)))
        near = distance < _NEAR
        if near.mean() < _LEAST_NEAR:
            continue
        low, high = np.percentile(index[near], (5, 95))
        score = float(np.minimum(distance, _NEAR).mean())
        if (high - low) / 255 >= _LEAST_SPAN and score < least:
            best, least = name, score
    return best


def palette_intensity(pixels: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    """Turn a coloured picture back to intensity.

    Parameters
    ----------
    pixels
        Shape (H, W, 3), uint8, RGB order.
    name
        One of `palette_names`.

    Returns
    -------
    numpy.ndarray
        Shape (H, W), uint8: 0 at the cold end of the palette, 255 at the hot end. What lies far from its
        colours, such as burnt-in text, takes the mean of what is around it.
    """
    packed = pixels.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    seen, where = np.unique(packed, return_inverse=True)
    colours = np.stack([seen >> 16, seen >> 8 & 255, seen & 255], axis=-1)
    curve = palette_colours(name)
    _, distance = _nearest(_opponent(colours, 1.0), _opponent(curve, 1.0))
    near = distance < _STRAY / 2
    index = np.empty(len(colours), np.int64)
    for part, chroma in ((near, _HINT), (~near, _CHROMA)):
        index[part], _ = _nearest(_opponent(colours[part], chroma), _opponent(curve, chroma))
    intensity = index.astype(np.uint8)[where].reshape(pixels.shape[:2])
    stray = (distance > _STRAY)[where].reshape(pixels.shape[:2])
    return _filled(intensity, stray) if stray.any() else intensity


def _opponent(colours: npt.NDArray[Any], chroma: float = _CHROMA) -> _Floats:
    """RGB, (N, 3), as luma and weighted chroma."""
    axes = np.array(
        [[0.299, -0.168736, 0.5], [0.587, -0.331264, -0.418688], [0.114, 0.5, -0.081312]], np.float32
    )
    values: _Floats = colours.astype(np.float32) @ (axes * np.array([1, chroma, chroma], np.float32))
    return values


def _nearest(points: _Floats, curve: _Floats) -> tuple[npt.NDArray[np.int64], _Floats]:
    """Nearest entry of a curve (M, 3) to each of the points (N, 3), and its distance."""
    index = np.empty(len(points), np.int64)
    distance = np.empty(len(points), np.float32)
    length = (curve**2).sum(axis=1)
    for first in range(0, len(points), 8192):
        part = points[first : first + 8192]
        # |p - c|^2 without |p|^2, which is the same for all entries.
        cost = length - 2 * (part @ curve.T)
        chosen = cost.argmin(axis=1)
        index[first : first + 8192] = chosen
        distance[first : first + 8192] = np.linalg.norm(part - curve[chosen], axis=1)
    return index, distance


def _filled(intensity: npt.NDArray[np.uint8], stray: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Give stray pixels the mean of the others around them, from near to far."""
    kept = (~stray).astype(np.float32)
    values = intensity.astype(np.float32) * kept
    filled = intensity.copy()
    for side in (5, 15, 45, 135):
        weight = cv2.blur(kept, (side, side), borderType=cv2.BORDER_REPLICATE)
        known = stray & (weight > 0.02)
        mean = cv2.blur(values, (side, side), borderType=cv2.BORDER_REPLICATE)[known] / weight[known]
        filled[known] = mean.round().astype(np.uint8)
        stray = stray & ~known
        if not stray.any():
            break
    return filled
