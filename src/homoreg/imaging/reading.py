"""Reading: a path, PIL image, NumPy array or tensor becomes one `Picture`, at the bit depth it came with.

Nothing here scales values: 16-bit thermal counts stay counts. Turning them into [0, 1] is `tone.py`'s work.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from homoreg.errors import ImageReadError, InputError
from homoreg.imaging.arrays import (
    Role,
    UnfitError,
    check_size,
    split_alpha,
    to_accepted_dtype,
    unwrap,
)
from homoreg.imaging.containers import BrokenFileError, inspect
from homoreg.imaging.decoding import decode_container, file_bytes, parse_npy
from homoreg.imaging.geo import GeoReference, is_georeferenced, read_georeference
from homoreg.imaging.metadata import Camera, read_camera
from homoreg.imaging.tiff import Tiff

if TYPE_CHECKING:
    import PIL.Image
    import torch

__all__ = ["ImageLike", "Picture", "Role", "read_image"]

ImageLike: TypeAlias = "str | os.PathLike[str] | PIL.Image.Image | npt.NDArray[Any] | torch.Tensor | Picture"
"""Whatever `read_image` accepts."""

_LABEL: dict[Role, str] = {"image": "image", "ir": "infrared image", "rgb": "RGB image"}
_NO_DATA = 42113  # GDAL's TIFF tag for the value of pixels without data


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as it was given, in one layout.

    Parameters
    ----------
    pixels
        Shape (H, W), or (H, W, 3) in RGB order; uint8, uint16 or float32; C-contiguous.
    mask
        Shape (H, W), bool, False where the image is transparent; None if it is opaque everywhere.
    name
        How messages call it: the file's name, or "array 640x512".
    camera
        What its file says about the camera; None if it says nothing, or there is no file.
    geo
        Where it lies on earth, of a GeoTIFF; None otherwise, or if rasterio is not installed.

    Raises
    ------
    InputError
        If the arrays are not as described.
    """

    pixels: npt.NDArray[Any]
    mask: npt.NDArray[np.bool_] | None = None
    name: str = "image"
    camera: Camera | None = None
    geo: GeoReference | None = None

    def __post_init__(self) -> None:
        pixels, mask = self.pixels, self.mask
        if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
            raise InputError(
                f"pixels have shape {pixels.shape}; expected (H, W) or (H, W, 3); use read_image"
            )
        if pixels.dtype not in (np.uint8, np.uint16, np.float32) or not pixels.flags.c_contiguous:
            raise InputError(
                f"pixels are {pixels.dtype}; expected C-contiguous uint8, uint16 or float32; use read_image"
            )
        if mask is not None and (mask.shape != pixels.shape[:2] or mask.dtype != np.bool_):
            raise InputError(
                f"the mask is {mask.dtype} of shape {mask.shape}; expected bool of shape {pixels.shape[:2]}"
            )

    def __repr__(self) -> str:
        colours = "grey" if self.is_grey else "RGB"
        return f"Picture({self.name!r}, {self.width}x{self.height}, {self.pixels.dtype}, {colours})"

    @property
    def height(self) -> int:
        """Number of rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self.pixels.shape[1])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        return self.width, self.height

    @property
    def is_grey(self) -> bool:
        """Whether there is one channel."""
        return self.pixels.ndim == 2


def read_image(source: ImageLike, *, role: Role = "image", page: int = 0) -> Picture:
    """Read an image at the bit depth it has.

    Parameters
    ----------
    source
        One of

        - a path: PNG, TIFF, JPEG, WebP, BMP or PPM, of up to 16 bits, or of 32 as a float TIFF; or ``.npy``.
          The Exif orientation is applied, and JPEGs of CMYK or with an ICC profile become sRGB (without
          Pillow, profiles are left out). Of a radiometric JPEG it is the picture that viewers show; see
          `homoreg.imaging.rjpeg.read_rjpeg` for the counts;
        - a NumPy array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), channels in RGB(A) order;
        - a torch tensor (H, W), (1, H, W), (3, H, W) or (4, H, W), on any device;
        - a PIL image of any mode, as its pixels stand (PIL leaves the Exif orientation to its user);
        - a `Picture`, which is returned as it is.

        uint8, uint16 and float32 are kept; bool becomes 0 and 255; other floats become float32; other
        integers become uint16 if their values fit, but an RGB image of values up to 255 becomes uint8. Alpha
        becomes the mask, unless it is zero everywhere; so do a PNG's transparent colour, a TIFF's mask and
        the pixels that a GeoTIFF calls no data.
    role
        "ir": infrared, where floats may have any finite values (kelvin, radiance...). "rgb": floats must be
        in [0, 1]. "image": neither is assumed.
    page
        Which image of a TIFF with several, from 0.

    Returns
    -------
    Picture
        With its own copy of the pixels, unless it was one already.

    Raises
    ------
    ImageReadError
        If a file is missing, a directory, empty, truncated, damaged, no image, too large (more than 268
        million px, or 805 MB when decoded), or holds what is not accepted.
    InputError
        If an array, tensor or PIL image is not accepted: type, shape, dtype, size, NaN or infinite values; or
        the page is not a whole number from 0 up.
    """
    if role not in _LABEL:
        raise InputError(f"role is {role!r}; expected one of {', '.join(map(repr, get_args(Role)))}")
    if type(page) is not int or page < 0:
        raise InputError(f"page is {page!r}; expected a whole number from 0 up")
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        try:
            return _read_file(path, role, page)
        except (UnfitError, BrokenFileError) as error:
            hint = "; copy or export it again" if isinstance(error, BrokenFileError) else ""
            message = f"cannot read the {_LABEL[role]} {path!r}: {error}{hint}"
            raise ImageReadError(message) from error.__cause__
        except MemoryError:
            raise ImageReadError(
                f"cannot read the {_LABEL[role]} {path!r}: there is not enough memory; shrink or tile it"
            ) from None
    if isinstance(source, Picture) and page == 0:
        return source
    if page:
        raise InputError(f"page is {page}, and only a TIFF file has pages; leave it at 0")
    try:
        pixels, alpha, kind = unwrap(source)
        name = f"{kind} {pixels.shape[1]}x{pixels.shape[0]}" if pixels.ndim > 1 else kind
        check_size(pixels.shape[1], pixels.shape[0])
        # Always a copy: a caller may reuse its buffer (video frames), and the picture lives on in a result.
        pixels = np.array(to_accepted_dtype(pixels, role), order="C", copy=True)
        return Picture(pixels, _mask(alpha), name)
    except UnfitError as error:
        raise InputError(f"cannot use the {_LABEL[role]}: {error}") from error.__cause__


def _read_file(path: str, role: Role, page: int) -> Picture:
    data = file_bytes(path)
    name = os.path.basename(path)
    if data.startswith(b"\x93NUMPY"):
        if page:
            raise UnfitError(f"it has one page, not a page {page}; only a TIFF has several")
        pixels, alpha = split_alpha(parse_npy(data))
        check_size(pixels.shape[1], pixels.shape[0])
        return Picture(np.array(to_accepted_dtype(pixels, role), order="C", copy=True), _mask(alpha), name)
    container = inspect(data, page=page)
    pixels, alpha = decode_container(data, container, page)
    check_size(pixels.shape[1], pixels.shape[0])
    mask, geo = _mask(alpha), None
    if container.kind == "TIFF":
        position = container.pages[page]
        pixels, mask = _hide_no_data(pixels, mask, _no_data(data, position))
        geo = read_georeference(data, page) if is_georeferenced(data, position) else None
    accepted = np.ascontiguousarray(to_accepted_dtype(pixels, role))
    return Picture(accepted, mask, name, read_camera(container), geo)


def _mask(alpha: npt.NDArray[Any] | None) -> npt.NDArray[np.bool_] | None:
    # Transparent everywhere would show nothing: then the channel is padding, as in many BMP files.
    return alpha != 0 if alpha is not None and alpha.any() and not alpha.all() else None


def _no_data(data: bytes, position: int) -> float | None:
    """Value of pixels without data that a TIFF page declares."""
    tiff = Tiff.parse(data)
    directory = None if tiff is None else tiff.directory(position)
    try:
        return None if directory is None else float(directory.text(_NO_DATA) or "none")
    except ValueError:
        return None


def _hide_no_data(
    pixels: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None, value: float | None
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
    """Take pixels without data out of the mask.

    Of types that hold more than counts they get the mean of the others: NaN or -9999 may stand for no data.
    """
    if value is None:
        return pixels, mask
    equal = np.isnan(pixels) if math.isnan(value) and pixels.dtype.kind == "f" else pixels == value
    hidden = equal if pixels.ndim == 2 else equal.all(axis=2)
    if not hidden.any() or hidden.all():
        return pixels, mask
    if pixels.dtype not in (np.uint8, np.uint16):
        pixels = pixels.copy()
        pixels[hidden] = pixels[~hidden].mean()
    return pixels, ~hidden if mask is None else mask & ~hidden
