"""Objects in memory as arrays, and the rules on layout, size and dtype that every source must meet."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import PIL.Image
    import torch

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "Role",
    "UnfitError",
    "check_bytes",
    "check_size",
    "split_alpha",
    "to_accepted_dtype",
    "unwrap",
]

Role: TypeAlias = Literal["image", "ir", "rgb"]
"""What a picture is meant as; it decides how floats and wide integers are read, and what messages call it."""

MIN_SIDE = 16
"""Shortest accepted side, px: below it there is nothing to register."""

MAX_PIXELS = 2**28
"""Largest accepted number of pixels; 268 million, 0.8 GB as 8-bit RGB."""

MAX_BYTES = 3 * MAX_PIXELS
"""Most bytes that a file's pixels may take when they are decoded; a copy of them then stays under 2 GB."""

_LAYOUTS = "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
_FLOAT_SLACK = 1e-4  # interpolation leaves floats this little outside [0, 1]


class UnfitError(Exception):
    """Why a source cannot be used; `read_image` adds which one it is."""


def unwrap(source: object) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None, str]:
    """Pixels, alpha and kind of an object in memory."""
    if isinstance(source, np.ndarray):
        if isinstance(source, np.ma.MaskedArray):
            raise UnfitError(
                "it is a masked array; pass an (H, W, 4) array whose alpha is 0 where it is masked"
            )
        return (*split_alpha(np.asarray(source)), "array")
    # Their classes exist only if they have been imported, so nothing is imported to ask.
    tensor_class = getattr(sys.modules.get("torch"), "Tensor", None)
    if tensor_class is not None and isinstance(source, tensor_class):
        return (*split_alpha(_from_tensor(source)), "tensor")
    image_class = getattr(sys.modules.get("PIL.Image"), "Image", None)
    if image_class is not None and isinstance(source, image_class):
        return (*_from_pil(source), "PIL image")
    raise UnfitError(
        f"it is a {type(source).__name__}; pass a path, a PIL image, a NumPy array or a torch tensor"
    )


def _from_tensor(tensor: torch.Tensor) -> npt.NDArray[Any]:
    shape = tuple(tensor.shape)
    if tensor.ndim not in (2, 3) or (tensor.ndim == 3 and shape[0] not in (1, 3, 4)):
        hint = "take one image out of the batch" if tensor.ndim == 4 else "put the channels first"
        raise UnfitError(
            f"the tensor has shape {shape}; expected (H, W), (1, H, W), (3, H, W) or (4, H, W); {hint}"
        )
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()  # NumPy has no bfloat16
    array: npt.NDArray[Any] = tensor.numpy()
    return array if array.ndim == 2 else np.moveaxis(array, 0, -1)


def _from_pil(image: PIL.Image.Image) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    try:
        if image.mode in ("La", "RGBa"):  # premultiplied
            image = image.convert(image.mode.upper())
        elif image.mode in ("P", "PA"):
            transparent = image.mode == "PA" or "transparency" in image.info
            image = image.convert("RGBA" if transparent else "RGB")
        elif image.mode in ("RGBX", "CMYK", "YCbCr", "HSV", "LAB"):
            image = image.convert("RGB")
        array = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:  # PIL decodes the file on first use
        raise UnfitError(f"PIL cannot decode it ({error}); copy or export its file again") from error
    if image.mode == "LA":
        return array[..., 0], array[..., 1]
    return split_alpha(array)


def split_alpha(array: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Colour or grey channels, and the fourth channel, (H, W), if there is one."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = ""
        if array.ndim == 4:
            hint = "; take one image out of the batch"
        elif array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "; put the channels last, for instance with array.transpose(1, 2, 0)"
        raise UnfitError(f"the array has shape {array.shape}; expected {_LAYOUTS}{hint}")
    if array.ndim == 2:
        return array, None
    if array.shape[2] == 4:
        return array[..., :3], array[..., 3]
    return (array[..., 0] if array.shape[2] == 1 else array), None


def check_size(width: int, height: int) -> None:
    """Refuse an image that is too small to register or too large to hold."""
    if min(width, height) < MIN_SIDE:
        raise UnfitError(
            f"it has {width} x {height} pixels; at least {MIN_SIDE} x {MIN_SIDE} are needed; "
            "give a larger image"
        )
    if width * height > MAX_PIXELS:
        raise UnfitError(
            f"it has {width} x {height} pixels; at most {MAX_PIXELS} in all are accepted; shrink or tile it"
        )


def check_bytes(count: int) -> None:
    """Refuse a file whose pixels would take more memory than they may, before room is made for them."""
    if count > MAX_BYTES:
        raise UnfitError(
            f"its pixels take {count / 1e6:.0f} MB when decoded; at most {MAX_BYTES / 1e6:.0f} MB are "
            "accepted; shrink or tile it, or pass it as an array"
        )


def to_accepted_dtype(pixels: npt.NDArray[Any], role: Role) -> npt.NDArray[Any]:
    """Convert to uint8, uint16 or float32 without loss (but for wider floats), or refuse."""
    kind = pixels.dtype.kind
    if kind == "b":
        return pixels.astype(np.uint8) * np.uint8(255)
    if kind in "iu":
        return _to_unsigned(pixels, role)
    if kind == "f":
        return _to_float32(pixels, role)
    raise UnfitError(
        f"its dtype is {pixels.dtype}; accepted are uint8, uint16, other integers within 0..65535, bool and "
        "floats; convert it"
    )


def _to_unsigned(pixels: npt.NDArray[Any], role: Role) -> npt.NDArray[Any]:
    if pixels.dtype.itemsize <= 2 and pixels.dtype.kind == "u":
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 65535:
        raise UnfitError(
            f"its {pixels.dtype} values run from {low} to {high}; integers must lie within 0..65535; "
            "shift or scale them, or convert them to float"
        )
    # An integer type wider than the values says nothing about their scale. Colours up to 255 are 8-bit
    # colours; infrared counts have no fixed scale, and a stretch follows.
    return pixels.astype(np.uint8 if role == "rgb" and high <= 255 else np.uint16)


def _to_float32(pixels: npt.NDArray[Any], role: Role) -> npt.NDArray[Any]:
    with np.errstate(over="ignore"):
        values = pixels.astype(np.float32)
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise UnfitError(
            f"{bad} of its {values.size} values are NaN or infinite in float32; fill them in first, "
            "for instance with numpy.nan_to_num"
        )
    if role == "rgb":
        low, high = float(values.min()), float(values.max())
        if low < -_FLOAT_SLACK or high > 1 + _FLOAT_SLACK:
            raise UnfitError(
                f"its float values run from {low:g} to {high:g}; a float RGB image must lie within [0, 1]; "
                "divide it by its full scale (255 or 65535) or pass it as uint8 or uint16"
            )
        np.clip(values, 0, 1, out=values)
    return values
