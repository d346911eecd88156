"""What an image file says about itself, read without decoding it: is it whole, how large, which way up.

Decoders differ in what they make of a damaged file: some fill the missing part of a JPEG with grey, some
print to the terminal from C. Walking the file's own structure first costs next to nothing, finds a cut file
whatever the decoder's version, and tells the declared size before anything of that size is allocated.

Sources: JPEG, ITU-T T.81 annex B; PNG, ISO/IEC 15948 section 5; TIFF 6.0 section 2; Exif 2.3 section 4.6.4;
the WebP container specification.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

__all__ = ["BrokenFileError", "Container", "inspect"]

_ORIENTATION, _WIDTH, _HEIGHT = 0x112, 0x100, 0x101
# A marker is 0xFF and a code; FF00 is a data byte, FF01 and FFD0-FFD7 stand alone, FFFF is padding.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class BrokenFileError(ValueError):
    """The file is cut short or damaged; the message says in which way."""


@dataclass(frozen=True)
class Container:
    """What the headers of an image file declare.

    Parameters
    ----------
    kind
        "PNG", "JPEG", "TIFF" or "WebP"; "" for any other content.
    size
        Width and height in pixels as stored, before `orientation`; None where the headers do not say.
    orientation
        Exif orientation, 1 (upright) to 8, of formats whose decoder leaves it to the caller.
    """

    kind: str = ""
    size: tuple[int, int] | None = None
    orientation: int = 1


def inspect(data: bytes) -> Container:
    """Read the headers of an image file and check that it is complete.

    Parameters
    ----------
    data
        The whole file.

    Returns
    -------
    Container
        What it declares; an empty record for formats that this module does not know.

    Raises
    ------
    BrokenFileError
        If a PNG, JPEG or WebP ends before its last part, or a part of a PNG fails its checksum.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data[:4] in (b"II*\0", b"MM\0*"):
        tags = _tiff_tags(data)
        width, height = tags.get(_WIDTH), tags.get(_HEIGHT)
        # OpenCV's TIFF decoder turns the picture upright itself.
        return Container("TIFF", (width, height) if width and height else None)
    return Container()


def _png(data: bytes) -> Container:
    size, orientation = None, 1
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(memoryview(data)[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise BrokenFileError(
                f"the PNG is damaged: its part {kind!r} at byte {position} fails its checksum"
            )
        body = data[position + 8 : end] if kind in (b"IHDR", b"eXIf") else b""
        if kind == b"IHDR" and length >= 8:
            size = struct.unpack_from(">II", body)
        elif kind == b"eXIf":
            orientation = _orientation(body)
        elif kind == b"IEND":
            return Container("PNG", size, orientation)
        position = end + 4
    raise BrokenFileError(f"the PNG is truncated: {len(data)} bytes end before its last part (IEND)")


def _jpeg(data: bytes) -> Container:
    size, orientation = None, 1
    position = 2
    while marker := _JPEG_MARKER.search(data, position):
        code, position = marker[1][0], marker.end()
        if code == 0xD9:  # end of image; cameras append previews and metadata after it
            return Container("JPEG", size, orientation)
        if position + 2 > len(data):
            break
        (length,) = struct.unpack_from(">H", data, position)
        body = data[position + 2 : position + length]
        if code in _JPEG_FRAMES and len(body) >= 5:
            height, width = struct.unpack_from(">HH", body, 1)
            size = (width, height)
        elif code == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = _orientation(body[6:])
        position += max(length, 2)
    raise BrokenFileError(f"the JPEG is truncated: {len(data)} bytes end before its end-of-image marker")


def _webp(data: bytes) -> Container:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise BrokenFileError(f"the WebP is truncated: it declares {end} bytes and has {len(data)}")
    orientation = 1
    position = 12
    while position + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"EXIF":
            body = data[position + 8 : position + 8 + length]
            orientation = _orientation(body.removeprefix(b"Exif\0\0"))
        position += 8 + length + length % 2
    # The format holds at most 16383 x 16383 px, so the declared size needs no look.
    return Container("WebP", None, orientation)


def _orientation(exif: bytes) -> int:
    value = _tiff_tags(exif).get(_ORIENTATION, 1)
    return value if 1 <= value <= 8 else 1


def _tiff_tags(data: bytes) -> dict[int, int]:
    """Single SHORT and LONG values of the first directory of a TIFF structure; empty if it makes no sense."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        return {}
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    if start + 2 > len(data):
        return {}
    (count,) = struct.unpack_from(f"{order}H", data, start)
    tags: dict[int, int] = {}
    for entry in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, values = struct.unpack_from(f"{order}HHI", data, entry)
        if values == 1 and kind in (3, 4):
            (tags[tag],) = struct.unpack_from(order + "HI"[kind - 3], data, entry + 8)
    return tags
