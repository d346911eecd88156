"""Radiometric JPEGs of FLIR's cameras: one file that holds the infrared counts and a visual picture."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from homoreg.errors import ImageReadError, InputError
from homoreg.imaging.arrays import UnfitError, check_size
from homoreg.imaging.colour import is_luma_chroma, ycbcr_to_rgb
from homoreg.imaging.containers import BrokenFileError, inspect
from homoreg.imaging.decoding import decode, file_bytes
from homoreg.imaging.flir import FlirRecords, parse_flir
from homoreg.imaging.metadata import Camera, placement, read_camera
from homoreg.imaging.reading import Picture

__all__ = ["RadiometricJpeg", "read_rjpeg"]


@dataclass(frozen=True, eq=False)
class RadiometricJpeg:
    """Both pictures of a radiometric JPEG, and what the camera knows about how they lie.

    Parameters
    ----------
    thermal
        Counts as the sensor gave them: (H, W), uint16.
    visual
        The visual picture: (H, W, 3), uint8.
    camera
        The infrared camera.
    real_to_ir
        How many times the field of view of the visual camera is that of the infrared camera ("Real2IR").
    offset
        Shift, (x, y) in px of the visual picture, of the infrared picture's centre from its centre
        ("OffsetX", "OffsetY"), set at the factory or by the user for one distance.
    data
        The file.
    """

    thermal: Picture
    visual: Picture
    camera: Camera | None
    real_to_ir: float | None
    offset: tuple[int, int] | None
    data: bytes = field(repr=False)

    @property
    def prior(self) -> npt.NDArray[np.float64] | None:
        """Where the camera says that they lie: (3, 3), infrared px to visual px; None if it does not."""
        return placement(self.thermal, self.visual) if self.real_to_ir is not None else None

    def temperatures(self) -> npt.NDArray[np.float32]:
        """Temperatures in kelvin, (H, W), by the emissivity, distance and air that the file states.

        Raises
        ------
        InputError
            If flyr is not installed, or it cannot make temperatures of this file.
        """
        try:
            import flyr
        except ImportError:
            raise InputError(
                "temperatures of a radiometric JPEG need flyr; install it: pip install 'homoreg[thermal]'"
            ) from None
        try:
            kelvin = np.asarray(flyr.unpack(io.BytesIO(self.data)).kelvin, np.float32)
        except Exception as error:  # flyr checks little and fails in any number of ways
            raise InputError(
                f"flyr cannot make temperatures of {self.thermal.name!r} ({error}); use the counts"
            ) from error
        if kelvin.shape != self.thermal.pixels.shape or not np.isfinite(kelvin).all():
            raise InputError(
                f"the camera constants in {self.thermal.name!r} give no temperatures; use the counts"
            )
        return kelvin


def read_rjpeg(path: str | os.PathLike[str]) -> RadiometricJpeg:
    """Read the infrared counts and the visual picture of a FLIR radiometric JPEG.

    Parameters
    ----------
    path
        The file as the camera wrote it. Most image editors drop the radiometric data.

    Returns
    -------
    RadiometricJpeg
        Neither picture is the one that a viewer shows, which has palette, scale and logo burnt in.

    Raises
    ------
    ImageReadError
        If the file cannot be read, has no radiometric data or no visual picture, or is damaged.
    """
    name = os.fsdecode(path)
    try:
        return _read(name)
    except (UnfitError, BrokenFileError) as error:
        raise ImageReadError(f"cannot read the radiometric JPEG {name!r}: {error}") from error.__cause__


def _read(path: str) -> RadiometricJpeg:
    data = file_bytes(path)
    container = inspect(data)
    records = parse_flir(container.flir) if container.flir else None
    if records is None:
        raise UnfitError("it holds no FLIR records; give a radiometric JPEG as a FLIR camera wrote it")
    counts = records.counts()
    check_size(counts.shape[1], counts.shape[0])
    camera, name = read_camera(container), os.path.basename(path)
    visual = _visual(records, name)
    if camera is not None and camera.visual_size is not None:
        camera = replace(camera, visual_size=visual.size)  # whatever its record declares
    return RadiometricJpeg(
        thermal=Picture(np.ascontiguousarray(counts), name=f"{name} (thermal)", camera=camera),
        visual=visual,
        camera=camera,
        real_to_ir=records.real_to_ir,
        offset=records.offset,
        data=data,
    )


def _visual(records: FlirRecords, name: str) -> Picture:
    if not records.visual:
        raise UnfitError(
            "it holds no visual picture (the camera may have been set to store none); register its infrared "
            "picture to another RGB image"
        )
    try:
        pixels, _ = decode(records.visual)
    except (UnfitError, BrokenFileError) as error:
        raise UnfitError(f"its visual picture is damaged ({error})") from error
    if pixels.dtype != np.uint8:
        raise UnfitError(f"its visual picture is {pixels.dtype}; expected uint8; copy or export it again")
    # A PNG has no way of saying that its channels are luma and chroma, and FLIR's are.
    if is_luma_chroma(pixels):
        pixels = ycbcr_to_rgb(pixels)
    return Picture(np.ascontiguousarray(pixels), name=f"{name} (visual)")
