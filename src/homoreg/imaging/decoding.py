"""From the bytes of a file to pixels and alpha, at the bit depth the file has."""

from __future__ import annotations

import io
import math
import os
import stat
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from homoreg.imaging.arrays import UnfitError, check_bytes, check_size, split_alpha
from homoreg.imaging.colour import cmyk_jpeg_to_srgb, to_srgb
from homoreg.imaging.containers import Container, inspect
from homoreg.imaging.geo import decode_tiff
from homoreg.imaging.quiet import quiet_opencv
from homoreg.imaging.tiff import Directory, Tiff

__all__ = ["decode", "decode_container", "file_bytes", "parse_npy"]

_FORMATS = "give a PNG, TIFF, JPEG, WebP or BMP file, or a NumPy .npy file"
_MAX_FILE_BYTES = 2**31 - 1  # OpenCV counts the bytes of a buffer in an int
_SWAP_ROWS = 256
_EXTRA_SAMPLES = 338  # TIFF's tag: 1 for alpha that colours were multiplied by, 2 for any other
_SHORT = 3  # TIFF's type of 16 bits


def decode(data: bytes, page: int = 0) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Decode an image file in memory.

    Parameters
    ----------
    data
        The whole file.
    page
        Which image of a TIFF, from 0.

    Returns
    -------
    pixels : numpy.ndarray
        Shape (H, W) or (H, W, 3), RGB order, of any dtype, upright. It may be a view, and read-only.
    alpha : numpy.ndarray or None
        Shape (H, W); zero where it is transparent.

    Raises
    ------
    UnfitError, BrokenFileError
        If it is no image that is accepted, or it is damaged.
    """
    return decode_container(data, inspect(data, page=page), page)


def decode_container(
    data: bytes, container: Container, page: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Decode a file whose container was inspected; otherwise as `decode`."""
    if not container.kind:
        raise UnfitError(f"it is not an image of a known format; {_FORMATS}")
    count = len(container.pages) if container.kind == "TIFF" else 1
    if page >= count:
        raise UnfitError(f"it has {count} page{'s' * (count > 1)}, and page {page} was asked for (from 0)")
    if container.size is not None:
        width, height = container.size
        check_size(width, height)
        check_bytes(width * height * container.pixel_bytes)
        if container.capacity is not None and width * height > container.capacity:
            raise UnfitError(
                f"the {container.kind} is truncated or damaged: its {len(data)} bytes cannot hold "
                f"{width} x {height} px; copy or export it again"
            )
    pixels, alpha = _decode_right(data, container, page)
    if container.components == 2 and alpha is not None and pixels.ndim == 3:
        pixels = pixels[..., 0]  # the decoders make colours of grey that has alpha
    if alpha is None and container.mask_page:
        alpha = _mask_of(data, container, pixels.shape[:2])
    if alpha is None and len(container.transparent) == (1 if pixels.ndim == 2 else 3):
        differs = pixels != np.array(container.transparent, np.uint16)
        alpha = differs if pixels.ndim == 2 else differs.any(axis=2)
    return pixels, alpha


def _decode_right(
    data: bytes, container: Container, page: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Decode by the library that gets this kind of file right."""
    if container.needs_gdal:
        decoded = decode_tiff(data, page)
        if container.bits in (2, 4) and decoded.dtype == np.uint8:
            decoded *= np.uint8(255 // (2**container.bits - 1))
        return split_alpha(_apply_orientation(decoded, container.orientation))
    if container.components == 4 and container.profile:
        converted = cmyk_jpeg_to_srgb(data, container.profile)
        if converted is not None:
            return _apply_orientation(converted, container.orientation), None
    pixels, alpha = _decode_by_opencv(data, container, page)
    if container.profile and pixels.ndim == 3:
        pixels = to_srgb(pixels, container.profile)
    return pixels, alpha


def _mask_of(data: bytes, container: Container, shape: tuple[int, ...]) -> npt.NDArray[Any] | None:
    """The mask that follows a page of a TIFF; None if it cannot be read: the picture can."""
    tiff = Tiff.parse(data)
    directory = None if tiff is None else tiff.directory(tiff.first)
    upright = directory is not None and directory.whole(0x112, 1) == 1
    try:
        mask = decode_tiff(data, container.mask_page) if upright else None
    except UnfitError:
        return None
    return mask if mask is not None and mask.shape == shape else None


def _decode_by_opencv(
    data: bytes, container: Container, page: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    tiff = Tiff.parse(data) if container.kind == "TIFF" else None
    if tiff is not None:
        directory = tiff.directory(container.pages[page])
        data = tiff.with_first(container.pages[page]) if page else data
        data = _as_stored(data, directory) if directory is not None and container.bits == 8 else data
    try:
        with quiet_opencv():
            # UNCHANGED keeps 16 bits and alpha. It also ignores the Exif orientation, which is applied below.
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        if "MAX_IMAGE" in str(error):  # a size that only the decoder could read
            raise UnfitError("it declares more pixels than can be decoded; shrink or tile it") from error
        decoded = None
    if decoded is None:
        raise UnfitError(f"the {container.kind} is truncated or damaged; copy or export it again")
    if container.bits in (10, 12, 14) and decoded.dtype == np.uint16:
        # OpenCV makes them fill 16 bits, and counts are to stay counts.
        decoded = np.right_shift(decoded, 16 - container.bits)
    _swap_red_and_blue(decoded)
    return split_alpha(_apply_orientation(decoded, container.orientation))


def _as_stored(data: bytes, directory: Directory) -> bytes:
    """The TIFF with a page's alpha called associated, since libtiff multiplies colours by any other."""
    kind, _, start = directory.entries.get(_EXTRA_SAMPLES, (0, 0, 0))
    if kind != _SHORT or directory.numbers(_EXTRA_SAMPLES) != (2,):
        return data
    return data[:start] + struct.pack(f"{directory.order}H", 1) + data[start + 2 :]


def _swap_red_and_blue(pixels: npt.NDArray[Any]) -> None:
    """From OpenCV's order of channels to RGB, in place: a picture may be so large that two do not fit."""
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        return
    code = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    quick = pixels.dtype in (np.uint8, np.uint16, np.float32)
    for first in range(0, len(pixels), _SWAP_ROWS):
        rows = pixels[first : first + _SWAP_ROWS]
        rows[...] = cv2.cvtColor(rows, code) if quick else rows[..., [2, 1, 0, 3][: pixels.shape[2]]]


def file_bytes(path: str) -> bytes:
    """Whole content of an ordinary file.

    Raises
    ------
    UnfitError
        If there is no such file, it is not one, it is empty or too large, or it cannot be read.
    """
    try:
        info = os.stat(path)
        # Checked before opening: opening a pipe waits for a writer, and a device may never end.
        if stat.S_ISDIR(info.st_mode):
            raise UnfitError(f"it is a directory; {_FORMATS}")
        if not stat.S_ISREG(info.st_mode):
            raise UnfitError(f"it is a device or a pipe; {_FORMATS}")
        if info.st_size > _MAX_FILE_BYTES:
            raise UnfitError(
                f"it has {info.st_size} bytes; at most {_MAX_FILE_BYTES} are accepted; crop or tile it"
            )
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UnfitError(
            f"no such file; check the path (the working directory is {os.getcwd()!r})"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnfitError(f"{reason}; check the path and its permissions") from error
    if not data:
        raise UnfitError(f"the file is empty (0 bytes); {_FORMATS}")
    return data


def parse_npy(data: bytes) -> npt.NDArray[Any]:
    """Array of a .npy file whose header is not trusted: no pickles, no room made for what is not there."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read_header(stream)
    except Exception as error:  # NumPy parses the header as Python source, which fails in any number of ways
        raise UnfitError("the header of the .npy file is damaged; save it again with numpy.save") from error
    if dtype.kind not in "biuf":
        raise UnfitError(f"the .npy file holds {dtype}; save an array of numbers")
    count = math.prod(shape)
    if min(shape, default=1) <= 0:
        raise UnfitError(f"the .npy file holds an empty array of shape {shape}; save one with pixels")
    start = stream.tell()
    if len(data) - start < count * dtype.itemsize:
        raise UnfitError(
            f"the .npy file is truncated: shape {shape} of {dtype} takes {count * dtype.itemsize} bytes "
            f"and {len(data) - start} are there; save it again with numpy.save"
        )
    check_bytes(count * dtype.itemsize)
    flat = np.frombuffer(data, dtype, count, start)
    return flat.reshape(shape, order="F" if fortran else "C")


def _apply_orientation(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn stored rows and columns upright (Exif 2.3, tag 0x112)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
