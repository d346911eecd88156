"""What an image file says about itself, read without decoding it: is it whole, how large, which way up.

Decoders differ in what they make of a damaged file: some fill the missing part of a JPEG with grey, some
print to the terminal from C, some make room for whatever size is declared. Walking the file's own structure
first costs next to nothing, finds a cut file whatever the decoder's version, and tells the declared size
before anything of that size is allocated.

Sources: JPEG, ITU-T T.81 annex B; PNG, ISO/IEC 15948 section 5; TIFF 6.0; Exif 2.3 section 4.6.4; the WebP
container specification and RFC 6386 section 9.1; the ICC profile specification, annex B.4; Netpbm's formats.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field, replace

from homoreg.imaging.tiff import Directory, Tiff

__all__ = ["BrokenFileError", "Container", "inspect"]

_ORIENTATION, _WIDTH, _HEIGHT, _XMP = 0x112, 0x100, 0x101, 0x2BC
# A marker is 0xFF and a code; FF00 is a data byte, FF01 and FFD0-FFD7 stand alone, FFFF is padding.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_XMP_IN_JPEG, _ICC_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_XMP_IN_PNG = b"XML:com.adobe.xmp\0\0"  # not compressed, as the XMP specification asks for
_FLIR_IN_JPEG = b"FLIR\0"
_NETPBM = re.compile(rb"P([1-6])(?:\s|#[^\n]*\n)+(\d{1,10})(?:\s|#[^\n]*\n)+(\d{1,10})(?:\s+(\d{1,5}))?")
# No whole file holds more than these for each of its bytes. Deflate emits at most 1032 bytes a byte. A
# progressive JPEG spends at least one bit on a block of 8 x 8 px of each component, of which the coarsest
# sampling has 18 in 32 x 32 px: 455 px a byte.
_MOST_BYTES_OF_DEFLATE, _MOST_PIXELS_OF_JPEG, _MOST_BYTES_OF_TIFF = 1032, 1024, 2048
_DENSE_TIFF = {1, 5, 8, 32773, 32946}  # none, LZW, deflate, PackBits: the compressions that bound applies to
_OPENCV_TIFF = {1, 2, 3, 4, 5, 7, 8, 32773, 32946}
# Bits of a sample by what it is: unsigned, signed, floating point, undefined.
_WHOLE_BITS = (1, 8, 10, 12, 14, 16, 32, 64)
_OPENCV_BITS = {1: _WHOLE_BITS, 2: _WHOLE_BITS, 3: (32, 64), 4: _WHOLE_BITS}
_MAX_TILE_BYTES = 2**27
_MOST_PARTS = 2**18  # of a file: more than cameras and editors write, few enough to be walked at once


class BrokenFileError(ValueError):
    """The file is cut short or damaged; the message says in which way."""


@dataclass(frozen=True)
class Container:
    """What the headers of an image file declare.

    Parameters
    ----------
    kind
        "PNG", "JPEG", "TIFF", "WebP", "BMP" or "Netpbm"; "" for any other content.
    size
        Width and height in pixels as stored, before `orientation`; None where the headers do not say.
    orientation
        Exif orientation, 1 (upright) to 8, of formats whose decoder leaves it to the caller.
    components
        Channels of a JPEG, where 4 are CMYK; 2 of a PNG or TIFF of grey with alpha. 0 where they do not
        matter.
    profile
        ICC profile of a JPEG.
    exif
        Exif block, which is a TIFF structure; of a TIFF, the file itself.
    xmp
        XMP packet.
    flir
        Records of a FLIR camera in a JPEG.
    pages
        Positions of the directories of a TIFF.
    needs_gdal
        Whether it is a TIFF of a kind that OpenCV refuses or gets wrong.
    bits
        Bits of a sample of a TIFF.
    mask_page
        Number of the page of a TIFF that is the mask of the page that was asked for; 0 if none is.
    transparent
        The grey or the colour that stands for transparent pixels in a PNG; empty if none does.
    pixel_bytes
        Bytes that a pixel takes when it is decoded; 0 where the headers do not say.
    capacity
        Most pixels that so many bytes can hold; None where there is no bound.
    """

    kind: str = ""
    size: tuple[int, int] | None = None
    orientation: int = 1
    components: int = 0
    profile: bytes = field(default=b"", repr=False)
    exif: bytes = field(default=b"", repr=False)
    xmp: bytes = field(default=b"", repr=False)
    flir: bytes = field(default=b"", repr=False)
    pages: tuple[int, ...] = ()
    needs_gdal: bool = False
    bits: int = 8
    mask_page: int = 0
    transparent: tuple[int, ...] = ()
    pixel_bytes: int = 0
    capacity: int | None = None


def inspect(data: bytes, *, page: int = 0) -> Container:
    """Read the headers of an image file and check that it is complete.

    Parameters
    ----------
    data
        The whole file.
    page
        Which image of a TIFF is meant, from 0; of one that is not there, only `Container.pages` is told.

    Returns
    -------
    Container
        What it declares; an empty record for formats that this module does not know.

    Raises
    ------
    BrokenFileError
        If a file ends before its last part, or a part of a PNG fails its checksum.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(data, page)
    if data[:2] == b"BM":
        return _bmp(data)
    netpbm = _NETPBM.match(data[:4096])
    return Container() if netpbm is None else _netpbm(data, netpbm)


def _png(data: bytes) -> Container:
    found = Container("PNG")
    room = depth = pixel_bytes = 0
    position = 8
    for _ in range(_MOST_PARTS):
        if position + 12 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(memoryview(data)[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise BrokenFileError(
                f"the PNG is damaged: its part {kind!r} at byte {position} fails its checksum"
            )
        if kind == b"IHDR" and length >= 13:
            width, height, bits, colour = struct.unpack_from(">IIBB", data, position + 8)
            depth = bits * {2: 3, 4: 2, 6: 4}.get(colour, 1)
            # A palette may have transparent colours, and OpenCV makes four channels of grey with alpha.
            pixel_bytes = {0: 1, 2: 3}.get(colour, 4) * (2 if bits > 8 else 1)
            components = 2 if colour == 4 else 0
            found = replace(found, size=(width, height), components=components, pixel_bytes=pixel_bytes)
        elif kind == b"tRNS" and pixel_bytes != 4 and depth >= 8 and length in (2, 6):
            found = replace(found, transparent=struct.unpack_from(f">{length // 2}H", data, position + 8))
        elif kind == b"IDAT":
            room += _MOST_BYTES_OF_DEFLATE * length
        elif kind == b"eXIf" and not found.exif:
            exif = data[position + 8 : end]
            found = replace(found, orientation=_orientation(exif), exif=exif)
        elif kind == b"iTXt" and data.startswith(_XMP_IN_PNG, position + 8):
            found = replace(found, xmp=data[position + 8 + len(_XMP_IN_PNG) : end])
        elif kind == b"IEND":
            return replace(found, capacity=8 * room // max(1, depth))
        position = end + 4
    raise BrokenFileError(f"the PNG is truncated: {len(data)} bytes end before its last part (IEND)")


def _jpeg(data: bytes) -> Container:
    found = Container("JPEG")
    profile: dict[int, bytes] = {}
    flir: dict[int, bytes] = {}
    position = 2
    for _ in range(_MOST_PARTS):
        marker = _JPEG_MARKER.search(data, position)
        if marker is None:
            break
        code, position = marker[1][0], marker.end()
        if code == 0xD9:  # end of image; cameras append previews and metadata after it
            return replace(
                found,
                profile=b"".join(body for _, body in sorted(profile.items())),
                flir=b"".join(body for _, body in sorted(flir.items())),
                capacity=_MOST_PIXELS_OF_JPEG * len(data),
            )
        if position + 2 > len(data):
            break
        (length,) = struct.unpack_from(">H", data, position)
        body = data[position + 2 : position + length]
        if code in _JPEG_FRAMES and len(body) >= 6:
            height, width = struct.unpack_from(">HH", body, 1)
            found = replace(found, size=(width, height), components=body[5], pixel_bytes=min(body[5], 4))
        elif code == 0xE1 and body.startswith(b"Exif\0\0") and not found.exif:
            found = replace(found, orientation=_orientation(body[6:]), exif=body[6:])
        elif code == 0xE1 and body.startswith(_XMP_IN_JPEG):
            found = replace(found, xmp=body[len(_XMP_IN_JPEG) :])
        elif code == 0xE1 and body.startswith(_FLIR_IN_JPEG) and len(body) > 8:
            flir.setdefault(body[6], body[8:])  # byte 6 counts the parts, from 0; byte 7 is the last one's
        elif code == 0xE2 and body.startswith(_ICC_IN_JPEG) and len(body) > 14:
            profile[body[12]] = body[14:]  # byte 12 counts the parts, from 1
        position += max(length, 2)
    raise BrokenFileError(f"the JPEG is truncated: {len(data)} bytes end before its end-of-image marker")


def _webp(data: bytes) -> Container:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise BrokenFileError(f"the WebP is truncated: it declares {end} bytes and has {len(data)}")
    found = Container("WebP", pixel_bytes=3)
    position = 12
    for _ in range(_MOST_PARTS):
        if position + 8 > end:
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        body = data[position + 8 : position + 8 + length]
        if kind == b"EXIF" and not found.exif:
            exif = body.removeprefix(b"Exif\0\0")
            found = replace(found, orientation=_orientation(exif), exif=exif)
        elif kind == b"XMP ":
            found = replace(found, xmp=body)
        elif kind == b"VP8X" and len(body) >= 10:
            alpha = bool(body[0] & 0x10)
            size = (_uint24(body, 4) + 1, _uint24(body, 7) + 1)
            found = replace(found, size=size, pixel_bytes=3 + alpha)
        elif kind == b"VP8L" and len(body) >= 5:
            bits = int.from_bytes(body[1:5], "little")
            size = found.size or ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
            found = replace(found, size=size, pixel_bytes=3 + (bits >> 28 & 1))
        elif kind == b"VP8 " and len(body) >= 10:
            width, height = struct.unpack_from("<HH", body, 6)
            found = replace(found, size=found.size or (width & 0x3FFF, height & 0x3FFF))
        position += 8 + length + length % 2
    return found


def _uint24(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 3], "little")


def _bmp(data: bytes) -> Container:
    header = int.from_bytes(data[14:18], "little")
    layout = "<HHHH" if header == 12 else "<iiHHI"
    if len(data) < 18 + struct.calcsize(layout):
        raise BrokenFileError(f"the BMP is truncated: {len(data)} bytes end within its header")
    width, height, _, bits, *compression = struct.unpack_from(layout, data, 18)
    size = (width, abs(height))  # negative: rows from the top down
    if compression and compression[0] in (1, 2):  # run lengths: two bytes for at most 255 px
        return Container("BMP", size, pixel_bytes=3, capacity=128 * len(data))
    room = len(data) - int.from_bytes(data[10:14], "little")
    if (width * bits + 31) // 32 * 4 * size[1] > max(0, room):
        raise BrokenFileError(f"the BMP is truncated: its {len(data)} bytes end within its pixels")
    return Container("BMP", size, pixel_bytes=4 if bits == 32 else 3)


def _netpbm(data: bytes, header: re.Match[bytes]) -> Container:
    kind, width, height = (int(header[group]) for group in (1, 2, 3))
    # Text spends at least a byte on a pixel; binary one bit (P4), one sample (P5) or three (P6).
    wide = 2 if int(header[4] or 0) > 255 else 1
    capacity = {4: 8 * len(data), 5: len(data) // wide, 6: len(data) // (3 * wide)}.get(kind, len(data))
    pixel_bytes = wide * (3 if kind in (3, 6) else 1)
    return Container("Netpbm", (width, height), pixel_bytes=pixel_bytes, capacity=capacity)


def _tiff(data: bytes, page: int) -> Container:
    tiff = Tiff.parse(data)
    pages = tuple(tiff.pages()) if tiff is not None else ()
    if tiff is None or not pages:
        raise BrokenFileError("the TIFF is truncated or damaged: it has no image directory")
    directory = tiff.directory(pages[page]) if page < len(pages) else None
    if directory is None:
        return Container("TIFF", pages=pages)
    width, height = directory.whole(_WIDTH), directory.whole(_HEIGHT)
    samples, bits = directory.whole(277, 1), directory.whole(258, 1)
    depth = max(1, samples * bits)
    tile = directory.whole(322) * directory.whole(323) * depth // 8
    if tile > max(_MAX_TILE_BYTES, width * height * depth // 2):
        raise BrokenFileError("the TIFF is damaged: its tiles are larger than its picture")
    needs_gdal = not _is_for_opencv(directory)
    dense = directory.whole(259, 1) in _DENSE_TIFF
    return Container(
        "TIFF",
        (width, height) if width and height else None,
        _orientation_of(directory) if needs_gdal else 1,  # OpenCV's TIFF decoder turns it upright itself
        components=2 if samples == 2 else 0,
        exif=data,
        xmp=directory.bytes_of(_XMP),
        pages=pages,
        needs_gdal=needs_gdal,
        bits=bits,
        mask_page=_mask_page(tiff, pages, page, (width, height)),
        pixel_bytes=max(min(samples, 4), 3 if directory.whole(262) == 3 else 1) * max(1, bits // 8),
        capacity=8 * _MOST_BYTES_OF_TIFF * len(data) // depth if dense else None,
    )


def _mask_page(tiff: Tiff, pages: tuple[int, ...], page: int, size: tuple[int, int]) -> int:
    """Number of the page that is the transparency mask (TIFF 6.0, tag 254) of a page; 0 if there is none."""
    for number in range(page + 1, min(page + 16, len(pages))):
        directory = tiff.directory(pages[number])
        kind = 0 if directory is None else directory.whole(254)
        if directory is None or not kind & 5:  # neither a mask nor a smaller copy: the next picture
            return 0
        if kind & 5 == 4 and (directory.whole(_WIDTH), directory.whole(_HEIGHT)) == size:
            return number
    return 0


def _is_for_opencv(directory: Directory) -> bool:
    """Whether OpenCV decodes a TIFF page right, rather than its first band only, or the bands mixed up."""
    samples, planar = directory.whole(277, 1), directory.whole(284, 1)
    if directory.whole(259, 1) not in _OPENCV_TIFF or (planar != 1 and samples > 1):
        return False
    bits, sample = directory.whole(258, 1), directory.whole(339, 1)
    if bits not in _OPENCV_BITS.get(sample, ()) and directory.whole(262, 1) != 3:  # palettes are as they are
        return False
    extra = directory.whole(338, 4)  # without a word, the fourth channel is alpha, as OpenCV itself writes it
    allowed = {0: {1}, 1: {1}, 2: {3, 4}, 3: {1}, 5: {4}, 6: {3}, 8: {3}}.get(directory.whole(262, 1), {1})
    return samples in allowed and not (samples == 4 and directory.whole(262) == 2 and extra == 0)


def _orientation(exif: bytes) -> int:
    tiff = Tiff.parse(exif)
    directory = None if tiff is None else tiff.directory(tiff.first)
    return 1 if directory is None else _orientation_of(directory)


def _orientation_of(directory: Directory) -> int:
    value = directory.whole(_ORIENTATION, 1)
    return value if 1 <= value <= 8 else 1
