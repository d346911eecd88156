"""The pictures that show a person what a registration found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from homoreg.errors import InputError
from homoreg.imaging.reading import Picture
from homoreg.imaging.resampling import Matrix, clip_frame, map_points, resample, resize_matrix
from homoreg.imaging.tone import Tone

if TYPE_CHECKING:
    from homoreg.registration import Registration

__all__ = ["Scene", "checkerboard", "compare", "overlay"]

Canvas = npt.NDArray[np.uint8]

_OUTLINE = (0, 255, 255)  # cyan: rare in photographs and absent from the palette
_WARNING = (230, 20, 20)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True, eq=False)
class Scene:
    """Both images of a registration at display size, ready to be combined.

    Parameters
    ----------
    rgb
        Shape (h, w, 3), uint8: the RGB image.
    warped, stretched
        Same shape: the infrared image in display colours, through the homography, and naively resized.
    valid
        Shape (h, w), bool: where `warped` has data.
    outline
        Shape (N, 2), px of `rgb`: corners of the infrared frame, cut a little outside the picture.
    warning
        What to write over the picture; empty if the result is reliable.
    """

    rgb: Canvas
    warped: Canvas
    stretched: Canvas
    valid: npt.NDArray[np.bool_]
    outline: Matrix
    warning: str

    @classmethod
    def of(cls, registration: Registration, max_side: int | None) -> Scene:
        """Scene of a registration whose longer side has at most `max_side` px (None: full size).

        Raises
        ------
        InputError
            If `max_side` is not a positive integer.
        """
        if max_side is not None and max_side < 16:
            raise InputError(f"max_side is {max_side}; expected at least 16, or None for the full size")
        rgb, to_rgb = _for_display(registration.rgb, registration.rgb_tone, max_side)
        ir, to_ir = _for_display(registration.ir, registration.ir_tone, max_side)
        if registration.ir.is_grey:
            ir = _colour(ir)
        size = (rgb.shape[1], rgb.shape[0])
        homography = to_rgb @ registration.homography @ np.linalg.inv(to_ir)
        mask = registration.ir.mask
        if mask is not None:
            mask = _resize(mask.astype(np.uint8), (ir.shape[1], ir.shape[0])) > 0
        warped, valid = resample(ir, homography, size, mask=mask)
        ir_size = (ir.shape[1], ir.shape[0])
        outline = map_points(homography, clip_frame(homography, ir_size, size, margin=max(size)))
        warning = "" if registration.reliable else f"UNRELIABLE (confidence {registration.confidence:.2f})"
        return cls(rgb, warped, _resize(ir, size), valid, outline, warning)


def overlay(scene: Scene, alpha: float = 0.5) -> Canvas:
    """RGB image with the warped infrared image blended in, and the outline of the infrared frame.

    Parameters
    ----------
    scene
        What to draw.
    alpha
        Weight of the infrared image, 0 to 1.

    Returns
    -------
    numpy.ndarray
        Shape (h, w, 3), uint8.

    Raises
    ------
    InputError
        If alpha lies outside 0 to 1.
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha is {alpha}; expected 0 (RGB only) to 1 (infrared only)")
    canvas = scene.rgb.copy()
    canvas[scene.valid] = _blend(scene.rgb, scene.warped, alpha)[scene.valid]
    _draw_outline(canvas, scene.outline)
    return _warn(canvas, scene.warning)


def checkerboard(scene: Scene, tiles: int = 8) -> Canvas:
    """Alternate squares of the RGB and the warped infrared image: edges must run on across the borders.

    Parameters
    ----------
    scene
        What to draw.
    tiles
        Squares along the longer side.

    Returns
    -------
    numpy.ndarray
        Shape (h, w, 3), uint8.

    Raises
    ------
    InputError
        If there are fewer than 2 tiles, or more than pixels.
    """
    height, width = scene.valid.shape
    if not 2 <= tiles <= max(height, width):
        raise InputError(
            f"tiles is {tiles}; expected 2 to {max(height, width)}, the pixels of the longer side"
        )
    side = max(height, width) / tiles
    row, column = (np.arange(height) // side).astype(int), (np.arange(width) // side).astype(int)
    infrared = (row[:, None] + column[None, :]) % 2 == 1
    canvas = scene.rgb.copy()
    chosen = infrared & scene.valid
    canvas[chosen] = scene.warped[chosen]
    return _warn(canvas, scene.warning)


def compare(scene: Scene, model: str, max_side: int | None) -> Canvas:
    """Side by side: the infrared image merely stretched over the RGB image, and the registered overlay.

    Parameters
    ----------
    scene
        What to draw.
    model
        What to name in the label.
    max_side
        Longest side of the whole, labels not counted; None for twice the scene.

    Returns
    -------
    numpy.ndarray
        Shape (h, w, 3), uint8.
    """
    before = _blend(scene.rgb, scene.stretched, 0.5)
    panels = np.hstack([before, overlay(scene)])
    if max_side is not None:
        panels = _resize(panels, _fit((panels.shape[1], panels.shape[0]), max_side))
    half = panels.shape[1] // 2
    labels = ["before: infrared stretched over RGB", f"after: registered by {model}"]
    longer = max(labels, key=len)
    widths = (half, panels.shape[1] - half)
    strip = np.hstack([_label(text, w, fits=longer) for text, w in zip(labels, widths, strict=True)])
    return np.ascontiguousarray(np.vstack([strip, panels]))


# --- parts -------------------------------------------------------------------------------------------------


def _for_display(picture: Picture, tone: Tone, max_side: int | None) -> tuple[Canvas, Matrix]:
    """Tone-mapped 8-bit picture of limited size, and the matrix from the picture's pixels to its pixels."""
    size = _fit(picture.size, max_side)
    # Shrunk before the tone: a 40-megapixel image as float would take half a gigabyte. Palettes stay.
    unit = replace(tone, palette="").apply(_resize(picture.pixels, size))
    return np.round(unit * 255).astype(np.uint8), resize_matrix(picture.size, size)


def _fit(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    factor = 1.0 if max_side is None else min(1.0, max_side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _resize(pixels: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    shrinks = size[0] < width or size[1] < height
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _colour(unit: Canvas) -> Canvas:
    """Grey in a perceptually uniform palette."""
    coloured = cv2.applyColorMap(np.ascontiguousarray(unit[..., 0]), cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(coloured[..., ::-1]).astype(np.uint8, copy=False)


def _blend(rgb: Canvas, infrared: Canvas, alpha: float) -> Canvas:
    return cv2.addWeighted(infrared, alpha, rgb, 1 - alpha, 0).astype(np.uint8, copy=False)


def _line_width(canvas: Canvas) -> int:
    height, width = canvas.shape[:2]
    return max(2, round(max(int(height), int(width)) / 400))  # 1 px fades where it lies between two pixels


def _draw_outline(canvas: Canvas, outline: Matrix) -> None:
    if len(outline) > 1:
        points = (
            np.round(outline * 16).astype(np.int32).reshape(-1, 1, 2)
        )  # OpenCV draws to 1/16 px with shift=4
        cv2.polylines(canvas, [points], True, _OUTLINE, _line_width(canvas), cv2.LINE_AA, shift=4)


def _warn(canvas: Canvas, warning: str) -> Canvas:
    """Frame the picture in red and write the warning over it, if there is one."""
    if warning:
        height, width = canvas.shape[:2]
        thickness = 3 * _line_width(canvas)
        strip = _label(warning, width, _WARNING)[:height]
        canvas[: len(strip)] = strip
        cv2.rectangle(canvas, (0, 0), (width - 1, height - 1), _WARNING, thickness)
    return canvas


def _label(text: str, width: int, background: tuple[int, int, int] = (32, 32, 32), fits: str = "") -> Canvas:
    """Strip of the given width with the text in white, in a size that `fits`, or the text, fits in."""
    scale = min(0.9 * width / cv2.getTextSize(fits or text, _FONT, 1.0, 1)[0][0], max(0.4, width / 1000))
    thickness = max(1, round(1.5 * scale))
    # Measured on letters with every extent, so that strips of the same scale have the same height.
    (_, ascent), descent = cv2.getTextSize("Ag", _FONT, scale, thickness)
    pad = max(3, ascent // 2)
    strip: Canvas = np.full((ascent + descent + 2 * pad, width, 3), background, np.uint8)
    cv2.putText(strip, text, (2 * pad, pad + ascent), _FONT, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    return strip
