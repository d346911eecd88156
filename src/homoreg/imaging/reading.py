"""Reading: a path, PIL image, NumPy array or tensor becomes one `Picture`, at the bit depth it came with.

Nothing here scales values: 16-bit thermal counts stay counts. Turning them into [0, 1] is `tone.py`'s work.
"""

from __future__ import annotations

import io
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import cv2
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
from homoreg.imaging.quiet import quiet_opencv

if TYPE_CHECKING:
    import PIL.Image
    import torch

__all__ = ["ImageLike", "Picture", "Role", "read_image"]

ImageLike: TypeAlias = "str | os.PathLike[str] | PIL.Image.Image | npt.NDArray[Any] | torch.Tensor"
"""Whatever `read_image` accepts."""

_LABEL: dict[Role, str] = {"image": "image", "ir": "infrared image", "rgb": "RGB image"}
_FORMATS = "give a PNG, TIFF, JPEG, WebP or BMP file, or a NumPy .npy file"
_MAX_FILE_BYTES = 2**31 - 1  # OpenCV counts the bytes of a buffer in an int


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

    Raises
    ------
    InputError
        If the arrays are not as described.
    """

    pixels: npt.NDArray[Any]
    mask: npt.NDArray[np.bool_] | None = None
    name: str = "image"

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


def read_image(source: ImageLike, *, role: Role = "image") -> Picture:
    """Read an image at the bit depth it has.

    Parameters
    ----------
    source
        One of

        - a path: PNG, TIFF, JPEG, WebP, BMP or what else OpenCV decodes, of 8 or 16 bits, or of 32 as a float
          TIFF; or ``.npy``. The Exif orientation is applied;
        - a NumPy array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), channels in RGB(A) order;
        - a torch tensor (H, W), (1, H, W), (3, H, W) or (4, H, W), on any device;
        - a PIL image of any mode, as its pixels stand (PIL leaves the Exif orientation to its user).

        uint8, uint16 and float32 are kept; bool becomes 0 and 255; other floats become float32; other
        integers become uint16 if their values fit, but an RGB image of values up to 255 becomes uint8. Alpha
        becomes the mask, unless it is zero everywhere.
    role
        "ir": infrared, where floats may have any finite values (kelvin, radiance...). "rgb": floats must be
        in [0, 1]. "image": neither is assumed.

    Returns
    -------
    Picture
        With its own copy of the pixels.

    Raises
    ------
    ImageReadError
        If a file is missing, a directory, empty, truncated, damaged, no image, or holds what is not accepted.
    InputError
        If an array, tensor or PIL image is not accepted: type, shape, dtype, size, NaN or infinite values.
    """
    if role not in _LABEL:
        raise InputError(f"role is {role!r}; expected one of {', '.join(map(repr, get_args(Role)))}")
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        try:
            pixels, alpha = _load(path)
            return _picture(pixels, alpha, role, os.path.basename(path))
        except UnfitError as error:
            raise ImageReadError(f"cannot read the {_LABEL[role]} {path!r}: {error}") from error.__cause__
    try:
        pixels, alpha, kind = unwrap(source)
        name = f"{kind} {pixels.shape[1]}x{pixels.shape[0]}" if pixels.ndim > 1 else kind
        return _picture(pixels, alpha, role, name)
    except UnfitError as error:
        raise InputError(f"cannot use the {_LABEL[role]}: {error}") from error.__cause__


def _picture(pixels: npt.NDArray[Any], alpha: npt.NDArray[Any] | None, role: Role, name: str) -> Picture:
    check_size(pixels.shape[1], pixels.shape[0])
    mask = None
    # Transparent everywhere would show nothing: then the channel is padding, as in many BMP files.
    if alpha is not None and alpha.any() and not alpha.all():
        mask = alpha != 0
    # Always a copy: a caller may reuse its buffer (video frames), and the picture lives on in a result.
    return Picture(np.array(to_accepted_dtype(pixels, role), order="C", copy=True), mask, name)


def _load(path: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    data = _file_bytes(path)
    if data.startswith(b"\x93NUMPY"):
        return split_alpha(_parse_npy(data))
    try:
        container = inspect(data)
    except BrokenFileError as error:
        raise UnfitError(f"{error}; copy or export it again") from error
    if container.size is not None:
        check_size(*container.size)
    buffer = np.frombuffer(data, np.uint8)
    try:
        with quiet_opencv():
            # UNCHANGED keeps 16 bits and alpha. It also ignores the Exif orientation, which is applied below.
            decoded = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        if "MAX_IMAGE" in str(error):  # a size that only the decoder could read
            raise UnfitError("it declares more pixels than can be decoded; shrink or tile it") from error
        decoded = None
    if decoded is None:
        if container.kind:
            raise UnfitError(f"the {container.kind} is truncated or damaged; copy or export it again")
        raise UnfitError(f"it is not an image of a known format; {_FORMATS}")
    upright = _apply_orientation(decoded, container.orientation)
    pixels, alpha = split_alpha(upright)
    return (pixels[..., ::-1] if pixels.ndim == 3 else pixels), alpha  # OpenCV decodes to BGR


def _file_bytes(path: str) -> bytes:
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


def _parse_npy(data: bytes) -> npt.NDArray[Any]:
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
