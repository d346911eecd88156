"""The result of one registration: the homography, how far to trust it, and what can be made of it."""

from __future__ import annotations

import contextlib
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, overload

import numpy as np
import numpy.typing as npt

from homoreg.errors import InputError
from homoreg.files import atomic_write_files, make_folder
from homoreg.imaging import drawing
from homoreg.imaging.geo import encode_warped
from homoreg.imaging.reading import ImageLike, Picture, read_image
from homoreg.imaging.resampling import Interpolation, Matrix, map_points, resample, share_inside
from homoreg.imaging.tone import Tone
from homoreg.imaging.writing import encode_image

__all__ = ["Direction", "Registration"]

Direction: TypeAlias = Literal["ir_to_rgb", "rgb_to_ir"]

DISPLAY_SIDE = 1600
"""Longer side, px, of the pictures for people, unless the caller asks for another."""

_SINGULAR = 1e-12  # a determinant this small, beside a last entry of 1, shrinks the image a millionfold


@dataclass(frozen=True, eq=False, repr=False)
class Registration:
    """Where an infrared image lies in an RGB image, and how far to trust that.

    `build` fills in what follows from the homography and the images.

    Parameters
    ----------
    homography
        Shape (3, 3), float64, last entry 1: infrared pixels to RGB pixels of the images as given,
        ``x_rgb ~ homography @ [x_ir, y_ir, 1]``, pixel centres at integer coordinates. Read-only.
    corners
        Shape (4, 2), float64, px of the RGB image: where the infrared image's corner pixels land, clockwise
        from the top left. Read-only.
    expected_error
        Expected mean error of the corners, px of the RGB image; infinite where there is no answer.
    confidence
        Probability, 0 to 1, that the mean corner error is under 3 px at the scale of a 128-px template.
    reliable
        Whether the confidence is high enough to use the result unseen.
    overlap
        Share, 0 to 1, of the infrared image's area that lands inside the RGB image.
    model
        Name of the model that found it.
    status
        "ok" for a reliable result. Else why it is not: "uncertain", the confidence is below the threshold of
        the model; "outside", less than a fifth of the infrared image lands inside the RGB image, or the prior
        does not show any of it; "diverged", the model found no plausible answer; "featureless", an image has
        nothing to register by. Without an answer the homography is the prior.
    ir, rgb
        The images as given.
    ir_tone, rgb_tone
        How each was mapped to the [0, 1] that the model saw.

    Raises
    ------
    InputError
        If a value is out of its range, or the homography is singular.
    """

    homography: Matrix
    corners: Matrix
    expected_error: float
    confidence: float
    reliable: bool
    overlap: float
    model: str
    status: str
    ir: Picture = field(repr=False)
    rgb: Picture = field(repr=False)
    ir_tone: Tone = field(repr=False)
    rgb_tone: Tone = field(repr=False)

    def __post_init__(self) -> None:
        homography = _read_only(self.homography, "homography", (3, 3))
        if homography[2, 2] != 1:
            raise InputError(f"homography ends in {homography[2, 2]:g}; divide it by its last entry")
        if abs(np.linalg.det(homography)) < _SINGULAR:
            raise InputError(f"homography {homography.tolist()} is singular; expected an invertible matrix")
        object.__setattr__(self, "homography", homography)
        object.__setattr__(self, "corners", _read_only(self.corners, "corners", (4, 2)))
        if math.isnan(self.expected_error) or self.expected_error < 0:
            raise InputError(f"expected_error is {self.expected_error}; expected 0 or more, or infinity")
        for name, value in (("confidence", self.confidence), ("overlap", self.overlap)):
            if not 0 <= value <= 1:
                raise InputError(f"{name} is {value}; expected 0 to 1")
        # Plain Python numbers, whatever scalar types the caller computed with: JSON takes no others.
        for name in ("expected_error", "confidence", "overlap"):
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "reliable", bool(self.reliable))

    def __repr__(self) -> str:
        rows = ", ".join("[" + ", ".join(f"{entry:.6g}" for entry in row) + "]" for row in self.homography)
        trust = "reliable" if self.reliable else "UNRELIABLE"
        return (
            f"Registration({trust}, status={self.status!r}, model={self.model!r}, "
            f"expected_error={self.expected_error:.2f} px, confidence={self.confidence:.2f}, "
            f"overlap={self.overlap:.2f}, homography=[{rows}])"
        )

    @classmethod
    def build(
        cls,
        homography: npt.ArrayLike,
        *,
        ir: Picture,
        rgb: Picture,
        ir_tone: Tone,
        rgb_tone: Tone,
        expected_error: float,
        confidence: float,
        reliable: bool,
        model: str,
        status: str = "ok",
    ) -> Registration:
        """Registration with its corners and overlap worked out from the homography and the images.

        Parameters
        ----------
        homography
            Shape (3, 3), infrared pixels to RGB pixels, of any scale.
        ir, rgb, ir_tone, rgb_tone, expected_error, confidence, reliable, model, status
            As for the class.

        Returns
        -------
        Registration
            With the homography scaled to a last entry of 1.

        Raises
        ------
        InputError
            If the homography is not 3x3, not finite or singular, has a last entry of 0, or maps a corner of
            the infrared image to infinity.
        """
        matrix = _matrix(homography, "homography", (3, 3))
        if matrix[2, 2] == 0:
            raise InputError(
                f"homography {matrix.tolist()} maps the first infrared pixel to infinity; "
                "expected a last entry other than 0"
            )
        matrix /= matrix[2, 2]
        right, bottom = ir.width - 1, ir.height - 1
        frame = np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], np.float64)
        return cls(
            homography=matrix,
            corners=map_points(matrix, frame),
            expected_error=expected_error,
            confidence=confidence,
            reliable=reliable,
            overlap=share_inside(matrix, ir.size, rgb.size),
            model=model,
            status=status,
            ir=ir,
            rgb=rgb,
            ir_tone=ir_tone,
            rgb_tone=rgb_tone,
        )

    @overload
    def warp(
        self,
        image: ImageLike | None = None,
        *,
        direction: Direction = "ir_to_rgb",
        interpolation: Interpolation = "linear",
        fill: float = 0,
        return_mask: Literal[False] = False,
    ) -> npt.NDArray[Any]: ...

    @overload
    def warp(
        self,
        image: ImageLike | None = None,
        *,
        direction: Direction = "ir_to_rgb",
        interpolation: Interpolation = "linear",
        fill: float = 0,
        return_mask: Literal[True],
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]: ...

    def warp(
        self,
        image: ImageLike | None = None,
        *,
        direction: Direction = "ir_to_rgb",
        interpolation: Interpolation = "linear",
        fill: float = 0,
        return_mask: bool = False,
    ) -> npt.NDArray[Any] | tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Bring an image onto the other image's pixel grid, in its own bit depth.

        Parameters
        ----------
        image
            Any image on the pixel grid of the side it starts from, for instance a segmentation of the
            infrared image; read as `homoreg.imaging.read_image` reads it. None for the registered image.
        direction
            "ir_to_rgb" or "rgb_to_ir".
        interpolation
            "linear", or "nearest", which keeps counts and labels exactly.
        fill
            Value where there is no data.
        return_mask
            Whether to return the mask as well.

        Returns
        -------
        warped : numpy.ndarray
            Shape (H, W) or (H, W, 3) of the target grid; uint8, uint16 or float32 as the image.
        mask : numpy.ndarray
            Only with `return_mask`. Shape (H, W), bool: True where `warped` has data.

        Raises
        ------
        InputError
            If the image cannot be read or has another size than the side it starts from, the fill does not
            fit its dtype, or an option is unknown.
        """
        source, target, homography = self._sides(direction)
        picture = source
        if image is not None:
            picture = read_image(image)
            if picture.size != source.size:
                side = "infrared" if direction == "ir_to_rgb" else "RGB"
                raise InputError(
                    f"the image {picture.name!r} has {_size(picture)} pixels and the {side} image "
                    f"{source.name!r} has {_size(source)}; with direction {direction!r} both must be equal"
                )
        warped, valid = resample(
            picture.pixels, homography, target.size, interpolation=interpolation, fill=fill, mask=picture.mask
        )
        return (warped, valid) if return_mask else warped

    def valid_mask(self, *, direction: Direction = "ir_to_rgb") -> npt.NDArray[np.bool_]:
        """Where the registered image has data on the other image's pixel grid.

        Parameters
        ----------
        direction
            "ir_to_rgb" or "rgb_to_ir".

        Returns
        -------
        numpy.ndarray
            Shape (H, W) of the target grid, bool.

        Raises
        ------
        InputError
            If the direction is unknown.
        """
        source, target, homography = self._sides(direction)
        blank = np.zeros((source.height, source.width), np.uint8)
        return resample(blank, homography, target.size, interpolation="nearest", mask=source.mask)[1]

    def overlay(self, alpha: float = 0.5, *, max_side: int | None = DISPLAY_SIDE) -> npt.NDArray[np.uint8]:
        """RGB image with the infrared image blended in where it lands, and the outline of its frame.

        A grey infrared image is shown in a colour palette. A result that is not reliable is framed in red and
        says so; this holds for `checkerboard` and `before_after`, too.

        Parameters
        ----------
        alpha
            Weight of the infrared image, 0 to 1.
        max_side
            The longer side is reduced to this many px; None for the full size of the RGB image.

        Returns
        -------
        numpy.ndarray
            Shape (h, w, 3), uint8, RGB order.

        Raises
        ------
        InputError
            If an argument is out of its range.
        """
        return drawing.overlay(drawing.Scene.of(self, max_side), alpha)

    def checkerboard(self, tiles: int = 8, *, max_side: int | None = DISPLAY_SIDE) -> npt.NDArray[np.uint8]:
        """Alternate squares of both images: where they are aligned, edges run on from square to square.

        Parameters
        ----------
        tiles
            Squares along the longer side.
        max_side
            As for `overlay`.

        Returns
        -------
        numpy.ndarray
            Shape (h, w, 3), uint8, RGB order.

        Raises
        ------
        InputError
            If an argument is out of its range.
        """
        return drawing.checkerboard(drawing.Scene.of(self, max_side), tiles)

    def before_after(self, *, max_side: int | None = DISPLAY_SIDE) -> npt.NDArray[np.uint8]:
        """Left: the infrared image merely stretched over the RGB image. Right: the registered overlay.

        Parameters
        ----------
        max_side
            As for `overlay`, of the two panels together.

        Returns
        -------
        numpy.ndarray
            Shape (h, w, 3), uint8, RGB order, with a strip of labels on top.

        Raises
        ------
        InputError
            If an argument is out of its range.
        """
        return drawing.compare(drawing.Scene.of(self, max_side), self.model, max_side)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels, ready for `json.dumps`; an unknown expected error is None."""
        return {
            "homography": self.homography.tolist(),
            "convention": "infrared to RGB pixels; pixel centres at integer coordinates, (0, 0) the top left",
            "corners": self.corners.tolist(),
            "expected_error": self.expected_error if math.isfinite(self.expected_error) else None,
            "confidence": self.confidence,
            "reliable": self.reliable,
            "overlap": self.overlap,
            "model": self.model,
            "status": self.status,
            "ir": _describe(self.ir, self.ir_tone),
            "rgb": _describe(self.rgb, self.rgb_tone),
        }

    def save(
        self, folder: str | os.PathLike[str], *, interpolation: Interpolation = "linear"
    ) -> dict[str, Path]:
        """Write the warped image, its mask, the pictures and the numbers into a folder, all or nothing.

        Parameters
        ----------
        folder
            Created if it is not there. Files of these names are replaced.
        interpolation
            As for `warp`; "nearest" writes no count that the infrared image does not hold.

        Returns
        -------
        dict
            Path by content: "warped" (warped.png at the infrared image's bit depth; warped.tiff for floats;
            warped.tif, a GeoTIFF that lies where the RGB image lies, if that is georeferenced),
            "mask" (mask.png, 255 where warped has data), "overlay", "checkerboard" and "before_after" (.png),
            "json" (registration.json).

        Raises
        ------
        InputError
            If the interpolation is unknown.
        OutputError
            If anything cannot be written, for instance because the disk is full. Nothing of this call is left
            behind.
        """
        warped, mask = self.warp(interpolation=interpolation, return_mask=True)
        if self.rgb.geo is not None:
            suffix, encoded = ".tif", encode_warped(warped, mask, self.rgb.geo)
        else:
            suffix = ".tiff" if warped.dtype == np.float32 else ".png"
            encoded = encode_image(suffix, warped)
        scene = drawing.Scene.of(self, DISPLAY_SIDE)
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        contents = {
            "warped": (f"warped{suffix}", encoded),
            "mask": ("mask.png", encode_image(".png", mask)),
            "overlay": ("overlay.png", encode_image(".png", drawing.overlay(scene))),
            "checkerboard": ("checkerboard.png", encode_image(".png", drawing.checkerboard(scene))),
            "before_after": (
                "before_after.png",
                encode_image(".png", drawing.compare(scene, self.model, DISPLAY_SIDE)),
            ),
            # A file's name may hold bytes that are no UTF-8; escaped they are JSON all the same.
            "json": ("registration.json", text.encode("utf-8", "backslashreplace")),
        }
        target = Path(folder)
        missing = [path for path in (target, *target.parents) if not os.path.exists(path)]
        try:
            make_folder(target)
            atomic_write_files({target / name: data for name, data in contents.values()})
        except BaseException:
            for path in missing:
                with contextlib.suppress(OSError, ValueError):
                    path.rmdir()
            raise
        return {key: target / name for key, (name, _) in contents.items()}

    def _sides(self, direction: Direction) -> tuple[Picture, Picture, Matrix]:
        """Image to start from, image to arrive at, homography between them."""
        if direction == "ir_to_rgb":
            return self.ir, self.rgb, self.homography
        if direction == "rgb_to_ir":
            inverse: Matrix = np.linalg.inv(self.homography).astype(np.float64, copy=False)
            return self.rgb, self.ir, inverse
        raise InputError(
            f"direction is {direction!r}; expected one of {', '.join(map(repr, get_args(Direction)))}"
        )


def _read_only(values: npt.ArrayLike, name: str, shape: tuple[int, int]) -> Matrix:
    array = _matrix(values, name, shape)
    array.flags.writeable = False
    return array


def _matrix(values: npt.ArrayLike, name: str, shape: tuple[int, int]) -> Matrix:
    """Own float64 copy of an array of the given shape."""
    expected = f"expected finite numbers of shape {shape}"
    try:
        array: Matrix = np.asarray(values).astype(
            np.float64
        )  # in two steps: torch warns about np.array(tensor)
    except (TypeError, ValueError) as error:  # ragged lists, text
        raise InputError(f"{name} is {values!r}; {expected}") from error
    if array.shape != shape or not np.isfinite(array).all():
        raise InputError(f"{name} is {array.tolist()}; {expected}")
    return array


def _size(picture: Picture) -> str:
    return f"{picture.width} x {picture.height}"


def _describe(picture: Picture, tone: Tone) -> dict[str, Any]:
    return {
        "name": picture.name,
        "width": picture.width,
        "height": picture.height,
        "dtype": str(picture.pixels.dtype),
        "tone": tone.as_dict(),
    }
