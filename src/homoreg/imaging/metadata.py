"""What a file says about the camera: enough to tell how much more one camera sees than another.

Sources: Exif 2.3 (CIPA DC-008), section 4.6.5; the XMP specification, part 1; DJI's ``drone-dji`` namespace
and FLIR's file records as ExifTool documents them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from homoreg.imaging.containers import Container
from homoreg.imaging.flir import FlirRecords, parse_flir
from homoreg.imaging.tiff import Tiff

__all__ = ["Camera", "field_of_view_ratio", "pixel_scale", "read_camera"]

_DIAGONAL_35MM = math.hypot(36.0, 24.0)  # mm; equivalents are by the diagonal
_EXIF_DIRECTORY = 0x8769
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}  # of the focal plane's resolution
_MAX_XMP = 2**20
# Attributes or elements of DJI's namespace. No XML parser: the packet is a stranger's.
_DJI = re.compile(rb'drone-dji:(\w{1,64})(?:\s*=\s*"([^"<]{0,256})"|>\s*([^<]{0,256}?)\s*</drone-dji:\1>)')


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
    width
        Width in px of the image that `focal_plane_resolution` speaks of.
    calibrated_focal_length
        In px, as DJI's cameras write it.
    digital_zoom
        1 for none. Told, but not used: makers disagree on whether the other fields include it.
    field_of_view
        Horizontal angle in degrees, as FLIR's cameras write it.
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
    calibrated_focal_length: float | None = None
    digital_zoom: float = 1.0
    field_of_view: float | None = None
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
            the focal plane, the calibrated focal length.
        """
        if self.focal_length_35mm:
            return self.focal_length_35mm / _DIAGONAL_35MM * math.hypot(*size)
        if self.field_of_view:
            return size[0] / 2 / math.tan(math.radians(self.field_of_view / 2))
        if self.focal_length and self.focal_plane_resolution:
            # A file that was made smaller after the shot keeps the resolution of the shot.
            shrunk = max(size) / self.width if self.width else 1.0
            return self.focal_length * self.focal_plane_resolution * shrunk
        return self.calibrated_focal_length


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
    return scale if 0.05 <= ratio <= 20 else None


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


def _even_scale(source: tuple[int, int], target: tuple[int, int]) -> float:
    return math.sqrt(target[0] * target[1] / (source[0] * source[1]))


def read_camera(container: Container) -> Camera | None:
    """Camera of a file; None if the file says nothing about it."""
    values: dict[str, object] = {}
    if container.exif:
        values |= _from_exif(container.exif)
    if container.xmp:
        values |= _from_xmp(container.xmp[:_MAX_XMP])
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
        found["width"] = max(inner.whole(0xA002), inner.whole(0xA003)) or None
        found["digital_zoom"] = _positive(inner.number(0xA404)) or 1.0
    kept = {key: value for key, value in found.items() if value}
    return kept if set(kept) - {"digital_zoom", "width"} else {}


def _from_xmp(xmp: bytes) -> dict[str, object]:
    fields = {
        name.decode("ascii"): (attribute or element).decode("utf-8", "replace")
        for name, attribute, element in _DJI.findall(xmp)
    }
    if not fields:
        return {}
    found: dict[str, object] = {"dji": MappingProxyType(fields), "source": fields.get("ImageSource", "")}
    try:
        found["calibrated_focal_length"] = _positive(float(fields.get("CalibratedFocalLength", "0")))
    except ValueError:
        found["calibrated_focal_length"] = None
    return found


def _from_flir(records: FlirRecords) -> dict[str, object]:
    found: dict[str, object] = {"make": "FLIR"}
    if records.model:
        found["model"] = records.model
    if records.field_of_view:
        found["field_of_view"] = records.field_of_view
    return found


def _positive(value: float) -> float | None:
    return float(value) if 0 < value < 1e9 else None
