"""The records that FLIR's cameras put into their JPEGs: counts, the visual picture, and how both fit.

Source: ExifTool's documentation of the FLIR tags (exiftool.org/TagNames/FLIR.html). Offsets come from the
file and are checked before anything is read or made room for.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from homoreg.imaging.arrays import MAX_PIXELS, UnfitError
from homoreg.imaging.quiet import quiet_opencv

__all__ = ["FlirRecords", "parse_flir"]

_RAW, _EMBEDDED, _CAMERA, _OVERLAP = 1, 14, 32, 42
_MOST_RECORDS = 1024
_HEADER = 32  # bytes before the pixels of a raw or embedded image


@dataclass(frozen=True)
class FlirRecords:
    """What the records hold.

    Parameters
    ----------
    model
        Camera model; empty if it is not told.
    field_of_view
        Horizontal angle of the infrared camera in degrees.
    real_to_ir
        How many times the visual camera's field of view is that of the infrared camera.
    offset
        Shift, (x, y) in px of the visual picture, of the infrared picture's centre from its centre.
    visual_size
        Width and height of the visual picture, px, as its record declares them.
    raw
        Infrared pixels: a record with its header.
    visual
        The visual picture, a PNG or JPEG file.
    """

    model: str = ""
    field_of_view: float | None = None
    real_to_ir: float | None = None
    offset: tuple[int, int] | None = None
    visual_size: tuple[int, int] | None = None
    raw: bytes = field(default=b"", repr=False)
    visual: bytes = field(default=b"", repr=False)

    def counts(self) -> npt.NDArray[np.uint16]:
        """Infrared counts, shape (H, W).

        Raises
        ------
        UnfitError
            If there are none, or they are damaged.
        """
        if len(self.raw) <= _HEADER:
            raise UnfitError("it holds no radiometric data; export it with its radiometric data")
        order, width, height = self._raw_layout()
        body = self.raw[_HEADER:]
        if body.startswith(b"\x89PNG"):
            return _counts_of_png(body, (width, height))
        if len(body) < 2 * width * height:
            raise UnfitError("its radiometric data are cut off; copy or export it again")
        return np.frombuffer(body, f"{order}u2", width * height).reshape(height, width).astype(np.uint16)

    def _raw_layout(self) -> tuple[str, int, int]:
        order = _order(self.raw)
        width, height = struct.unpack_from(f"{order}HH", self.raw, 2)
        if not 0 < width * height <= MAX_PIXELS:
            raise UnfitError(
                f"its radiometric data declare {width} x {height} pixels; copy or export it again"
            )
        return order, width, height


def _counts_of_png(body: bytes, size: tuple[int, int]) -> npt.NDArray[np.uint16]:
    declared = struct.unpack_from(">II", body, 16) if len(body) >= 24 else (0, 0)
    pixels: Any = None
    if declared == size:
        try:
            with quiet_opencv():
                pixels = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            pixels = None
    if pixels is None or pixels.ndim != 2 or pixels.dtype != np.uint16:
        raise UnfitError("its radiometric data are damaged; copy or export it again")
    swapped: npt.NDArray[np.uint16] = pixels.byteswap()  # FLIR writes the PNG's samples low byte first
    return swapped


def parse_flir(block: bytes) -> FlirRecords | None:
    """Records of a FLIR block; None if it is none, or its directory makes no sense.

    Parameters
    ----------
    block
        From "FFF" on, the parts of all segments joined.

    Returns
    -------
    FlirRecords or None
        With the fields that were found.
    """
    if block[:4] not in (b"FFF\0", b"AFF\0") or len(block) < 64:
        return None
    # The version, 100 and some, tells the byte order.
    order = ">" if struct.unpack_from(">I", block, 20)[0] < 2**16 else "<"
    start, count = struct.unpack_from(f"{order}II", block, 24)
    if count > _MOST_RECORDS or start + 32 * count > len(block):
        return None
    found: dict[int, bytes] = {}
    for at in range(start, start + 32 * count, 32):
        (kind,) = struct.unpack_from(f"{order}H", block, at)
        offset, length = struct.unpack_from(f"{order}II", block, at + 12)
        if kind and offset + length <= len(block):
            found.setdefault(kind, block[offset : offset + length])
    camera, overlap = found.get(_CAMERA, b""), found.get(_OVERLAP, b"")
    real_to_ir, offset_xy = None, None
    if len(overlap) >= 8:
        ratio, x, y = struct.unpack_from("<fhh", overlap)
        if 0.1 <= ratio <= 20:
            real_to_ir, offset_xy = float(ratio), (x, y)
    return FlirRecords(
        model=camera[212:244].split(b"\0")[0].decode("ascii", "replace").strip(),
        field_of_view=_angle(camera),
        real_to_ir=real_to_ir,
        offset=offset_xy,
        visual_size=_declared_size(found.get(_EMBEDDED, b"")),
        raw=found.get(_RAW, b""),
        visual=found.get(_EMBEDDED, b"")[_HEADER:],
    )


def _declared_size(record: bytes) -> tuple[int, int] | None:
    """Width and height in the header of an image's record."""
    if len(record) <= _HEADER:
        return None
    width, height = struct.unpack_from(f"{_order(record)}HH", record, 2)
    return (width, height) if width and height else None


def _order(record: bytes) -> str:
    # The record's first number is 2 in the byte order of the rest.
    return ">" if record[:2] == b"\x00\x02" else "<"


def _angle(camera: bytes) -> float | None:
    if len(camera) < 440:
        return None
    (angle,) = struct.unpack_from("<f", camera, 436)
    return float(angle) if math.isfinite(angle) and 1 <= angle <= 170 else None
