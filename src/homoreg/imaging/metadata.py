"""What a file says about the camera: enough to tell how much more one camera sees than another.

`field_ratio` and `placement` turn what two files say into where to look first.

Sources: Exif 2.3 (CIPA DC-008), section 4.6.5; the XMP specification, parts 1 and 2; DJI's ``drone-dji``
namespace and FLIR's file records as ExifTool documents them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from homoreg.imaging.containers import Container
from homoreg.imaging.flir import FlirRecords, parse_flir
from homoreg.imaging.tiff import Tiff

if TYPE_CHECKING:
    from homoreg.imaging.reading import Picture

__all__ = ["Camera", "field_of_view_ratio", "field_ratio", "pixel_scale", "placement", "read_camera"]

_DIAGONAL_35MM = math.hypot(36.0, 24.0)  # mm; equivalents are by the diagonal
_EXIF_DIRECTORY = 0x8769
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}  # of the focal plane's resolution
_MAX_XMP = 2**20
_LEAST_RATIO, _LARGEST_RATIO = 0.05, 20.0  # of two fields of view that are worth a look
_ASPECT_SLACK = 0.02  # relative; what rounding leaves between the sides of a picture and of its small copy
# Attributes or elements of two namespaces. No XML parser: the packet is a stranger's.
_XMP_FIELD = re.compile(
    rb"\b(drone-dji|exif):(\w{1,64})(?:\s{0,9}=\s{0,9}[\"']([^\"'<]{0,256})[\"']|>([^<]{0,256})</\1:\2>)"
)


@dataclass(frozen=True)
class Camera:
    """The camera that took a picture, as far as its file tells.

    Parameters
    ----------
    make, model
        Names as the camera writes them; empty if unknown.
    source
        Which of a camera's sensors, in DJI's words: "InfraredCamera", "WideCamera", "ZoomCamera"...
    focal_length
        In mm.
    focal_length_35mm
        Focal length in mm of a camera of 36 x 24 mm that sees the same diagonal.
    focal_plane_resolution
        Sensor pixels per mm.
    width, height
        Longer and shorter side in px of the image that the camera took, which the other fields speak of.
    calibrated_focal_length
        In px, as DJI's cameras write it.
    digital_zoom
        1 for none. Told, but not used: makers disagree on whether the other fields include it.
    field_of_view
        Angle along the longer side in degrees, as FLIR's cameras write it.
    real_to_ir, offset, visual_size
        Of a radiometric JPEG of FLIR: how many times the field of view of its visual picture is that of the
        infrared picture; shift (x, y) of the infrared picture's centre, px of the visual picture; width and
        height of the visual picture, px.
    dji
        Every field of DJI's XMP namespace, as text.
    """

    make: str = ""
    model: str = ""
    source: str = ""
    focal_length: float | None = None
    focal_length_35mm: float | None = None
    focal_plane_resolution: float | None = None
    width: int | None = None
    height: int | None = None
    calibrated_focal_length: float | None = None
    digital_zoom: float = 1.0
    field_of_view: float | None = None
    real_to_ir: float | None = None
    offset: tuple[int, int] | None = None
    visual_size: tuple[int, int] | None = None
    dji: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False, hash=False)

    @property
    def is_infrared(self) -> bool | None:
        """Whether the camera calls itself infrared; None if it does not say."""
        if not self.source:
            return None
        return any(word in self.source.lower() for word in ("infrared", "thermal"))

    def focal_length_px(self, size: tuple[int, int]) -> float | None:
        """Focal length in px of an image of the whole sensor.

        Parameters
        ----------
        size
            Width and height of the image, px.

        Returns
        -------
        float or None
            From the first of these that is known: the 35 mm equivalent, the field of view, the resolution of
            the focal plane, the calibrated focal length. None also if the sides are not in the ratio of those
            that the camera took: then the image is a part of it, and nobody knows which.
        """
        if self._is_cropped(size):
            return None
        # A file that was made smaller after the shot keeps what the shot says in pixels.
        shrunk = max(size) / self.width if self.width else 1.0
        if self.focal_length_35mm:
            return self.focal_length_35mm / _DIAGONAL_35MM * math.hypot(*size)
        if self.field_of_view:
            return max(size) / 2 / math.tan(math.radians(self.field_of_view / 2))
        if self.focal_length and self.focal_plane_resolution:
            return self.focal_length * self.focal_plane_resolution * shrunk
        return self.calibrated_focal_length * shrunk if self.calibrated_focal_length else None

    def _is_cropped(self, size: tuple[int, int]) -> bool:
        if not self.width or not self.height:
            return False
        taken, given = self.width / self.height, max(size) / min(size)
        return abs(taken / given - 1) > _ASPECT_SLACK + 1 / min(size)


def pixel_scale(
    ir: Camera | None, ir_size: tuple[int, int], rgb: Camera | None, rgb_size: tuple[int, int]
) -> float | None:
    """RGB pixels across one infrared pixel, for distant scenes and cameras that look the same way.

    Parameters
    ----------
    ir, rgb
        The cameras, if known.
    ir_size, rgb_size
        Width and height of their images, px.

    Returns
    -------
    float or None
        None unless both files tell, and the ratio of fields of view that follows is between 1/20 and 20.
    """
    if ir is None or rgb is None:
        return None
    infrared, visible = ir.focal_length_px(ir_size), rgb.focal_length_px(rgb_size)
    if not infrared or not visible:
        return None
    scale = visible / infrared
    ratio = scale * _even_scale(rgb_size, ir_size)
    return scale if _LEAST_RATIO <= ratio <= _LARGEST_RATIO else None


def field_of_view_ratio(
    ir: Camera | None, ir_size: tuple[int, int], rgb: Camera | None, rgb_size: tuple[int, int]
) -> float | None:
    """Field of view of the infrared image over that of the RGB image.

    Parameters
    ----------
    ir, ir_size, rgb, rgb_size
        As for `pixel_scale`.

    Returns
    -------
    float or None
        A ratio of lengths in the image plane, of the geometric means of width and height: 1 if a square
        infrared image covers a square RGB image, 0.5 if it covers half its width. None if the files do not
        tell.
    """
    scale = pixel_scale(ir, ir_size, rgb, rgb_size)
    return None if scale is None else scale * _even_scale(rgb_size, ir_size)


def field_ratio(ir: Picture, rgb: Picture) -> float | None:
    """Field of view of the infrared picture over that of the RGB picture, from what their files say.

    Parameters
    ----------
    ir, rgb
        The pictures, as `read_image` or `read_rjpeg` returns them.

    Returns
    -------
    float or None
        As `field_of_view_ratio`: a ratio of lengths, of the geometric means of width and height. From the
        first of these that there is: FLIR's Real2IR, if the RGB picture is the visual one of the same file or
        of the same camera; the focal lengths of both cameras (`Camera.focal_length_px`). None if the files do
        not tell, as most do not, or what follows is not between 1/20 and 20.
    """
    scale = _pair_scale(ir, rgb)
    return None if scale is None else scale * _even_scale(rgb.size, ir.size)


def placement(ir: Picture, rgb: Picture) -> npt.NDArray[np.float64] | None:
    """Where the infrared picture lies in the RGB picture, from what their files say.

    It takes cameras that look the same way, upright, at a distant scene: the scale is trustworthy, the place
    a guess, unless FLIR's camera tells it.

    Parameters
    ----------
    ir, rgb
        As for `field_ratio`.

    Returns
    -------
    numpy.ndarray or None
        Shape (3, 3), float64, infrared px to RGB px: the scale of `field_ratio`, the same along both sides,
        about the centres of both pictures, shifted by FLIR's offset where that holds and leaves the centre of
        the infrared picture within the RGB picture. None where `field_ratio` is None.
    """
    scale = _pair_scale(ir, rgb)
    if scale is None:
        return None
    x, y = (rgb.width - 1) / 2, (rgb.height - 1) / 2
    if ir.camera is not None and ir.camera.offset and ir.camera.visual_size and _is_visual_of(ir, rgb):
        per_pixel = rgb.width / ir.camera.visual_size[0]
        right, down = ir.camera.offset[0] * per_pixel, ir.camera.offset[1] * per_pixel
        if abs(right) <= x and abs(down) <= y:  # else it is damage
            x, y = x + right, y + down
    x, y = x - scale * (ir.width - 1) / 2, y - scale * (ir.height - 1) / 2
    return np.array([[scale, 0, x], [0, scale, y], [0, 0, 1]], np.float64)


def _pair_scale(ir: Picture, rgb: Picture) -> float | None:
    """RGB pixels across one infrared pixel."""
    if ir.camera is not None and ir.camera.real_to_ir and _is_visual_of(ir, rgb):
        return rgb.width / (ir.camera.real_to_ir * ir.width)
    return pixel_scale(ir.camera, ir.size, rgb.camera, rgb.size)


def _is_visual_of(ir: Picture, rgb: Picture) -> bool:
    """Whether the RGB picture is what a FLIR camera's visual sensor saw beside the infrared picture.

    It is told by the size of the one inside the infrared file, or, of a copy of another size, by its aspect
    and the names of maker and model.
    """
    camera, visual = ir.camera, rgb.camera
    if camera is None or camera.visual_size is None or (ir.width < ir.height) != (rgb.width < rgb.height):
        return False
    if visual is None:
        return rgb.size == camera.visual_size
    width, height = camera.visual_size
    same_aspect = abs(rgb.width * height / (rgb.height * width) - 1) <= _ASPECT_SLACK
    named = (visual.make.upper()[:4], visual.model) == (camera.make.upper()[:4], camera.model)
    return named and same_aspect and visual.field_of_view is None


def _even_scale(source: tuple[int, int], target: tuple[int, int]) -> float:
    return math.sqrt(target[0] * target[1] / (source[0] * source[1]))


def read_camera(container: Container) -> Camera | None:
    """Camera of a file; None if the file says nothing about it."""
    values: dict[str, object] = {}
    if container.xmp:
        values |= _from_xmp(container.xmp[:_MAX_XMP])
    if container.exif:
        values |= _from_exif(container.exif)
    flir = parse_flir(container.flir) if container.flir else None
    if flir is not None:
        values |= _from_flir(flir)
    return Camera(**values) if values else None  # type: ignore[arg-type]


def _from_exif(exif: bytes) -> dict[str, object]:
    tiff = Tiff.parse(exif)
    first = None if tiff is None else tiff.directory(tiff.first)
    if tiff is None or first is None:
        return {}
    found: dict[str, object] = {"make": first.text(0x10F), "model": first.text(0x110)}
    inner = tiff.directory(first.whole(_EXIF_DIRECTORY))
    if inner is not None:
        found["focal_length"] = _positive(inner.number(0x920A))
        found["focal_length_35mm"] = _positive(inner.number(0xA405))
        per_unit, unit = _positive(inner.number(0xA20E)), _UNIT_MM.get(inner.whole(0xA210, 2))
        if per_unit and unit:
            found["focal_plane_resolution"] = per_unit / unit
        sides = sorted((inner.whole(0xA002), inner.whole(0xA003)))
        found["height"], found["width"] = sides if sides[0] > 0 else (None, max(0, sides[1]))
        found["digital_zoom"] = _positive(inner.number(0xA404)) or 1.0
    kept = {key: value for key, value in found.items() if value}
    return kept if set(kept) - {"digital_zoom", "width", "height"} else {}


def _from_xmp(xmp: bytes) -> dict[str, object]:
    fields: dict[str, dict[str, str]] = {"drone-dji": {}, "exif": {}}
    for space, name, attribute, element in _XMP_FIELD.findall(xmp):
        value = (attribute or element).decode("utf-8", "replace").strip()
        fields[space.decode("ascii")][name.decode("ascii")] = value
    dji, exif = fields["drone-dji"], fields["exif"]
    found: dict[str, object] = {
        "focal_length": _rational(exif.get("FocalLength", "")),
        "focal_length_35mm": _rational(exif.get("FocalLengthIn35mmFilm", "")),
    }
    per_unit = _rational(exif.get("FocalPlaneXResolution", ""))
    unit = _UNIT_MM.get(int(_rational(exif.get("FocalPlaneResolutionUnit", "")) or 2))
    if per_unit and unit:
        found["focal_plane_resolution"] = per_unit / unit
    if dji:
        found |= {"dji": MappingProxyType(dji), "source": dji.get("ImageSource", "")}
        found["calibrated_focal_length"] = _rational(dji.get("CalibratedFocalLength", ""))
    return {key: value for key, value in found.items() if value}


def _rational(text: str) -> float | None:
    """Positive value of "24", "6.72" or "672/100"; None of anything else."""
    above, _, below = text.partition("/")
    try:
        return _positive(float(above) / float(below or 1))
    except (ValueError, ZeroDivisionError):
        return None


def _from_flir(records: FlirRecords) -> dict[str, object]:
    found: dict[str, object] = {"make": "FLIR"}
    if records.model:
        found["model"] = records.model
    if records.field_of_view:
        found["field_of_view"] = records.field_of_view
    if records.visual_size and records.real_to_ir:
        found |= {"real_to_ir": records.real_to_ir, "offset": records.offset}
        found["visual_size"] = records.visual_size
    return found


def _positive(value: float) -> float | None:
    return float(value) if 0 < value < 1e9 else None
