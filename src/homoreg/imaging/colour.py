"""Colours of files that are not sRGB, brought to sRGB.

Registration sees structure, so this is no colour management: a profile that cannot be used, or a missing
Pillow, leaves the colours as they are decoded.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import PIL.ImageCms

__all__ = ["cmyk_jpeg_to_srgb", "is_luma_chroma", "to_srgb", "ycbcr_to_rgb"]

_BAND = 2**22  # px converted at a time: Pillow holds four bytes of each, beside the result
_LEAST_PROFILE = 128 + 4  # header and number of tags


def to_srgb(pixels: npt.NDArray[Any], profile: bytes) -> npt.NDArray[Any]:
    """Convert 8-bit RGB pixels from a profile's colours to sRGB.

    Parameters
    ----------
    pixels
        Shape (H, W, 3), RGB order; left as they are unless uint8.
    profile
        ICC profile.

    Returns
    -------
    numpy.ndarray
        Shape (H, W, 3); `pixels` itself if the profile is sRGB, not of RGB colours or not usable.
    """
    if pixels.dtype != np.uint8 or pixels.shape[2:] != (3,) or profile[16:20] != b"RGB ":
        return pixels
    if b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile:
        return pixels  # as good as all profiles of cameras
    transform = _transform(profile, "RGB")
    if transform is None:
        return pixels
    import PIL.Image
    import PIL.ImageCms

    rows = max(1, _BAND // pixels.shape[1])
    converted = np.empty(pixels.shape, np.uint8)
    for first in range(0, len(pixels), rows):
        band = PIL.Image.fromarray(np.ascontiguousarray(pixels[first : first + rows]))
        converted[first : first + rows] = np.asarray(PIL.ImageCms.applyTransform(band, transform))
    return converted


def cmyk_jpeg_to_srgb(data: bytes, profile: bytes) -> npt.NDArray[Any] | None:
    """Decode a CMYK JPEG with its profile.

    Parameters
    ----------
    data
        The file.
    profile
        ICC profile.

    Returns
    -------
    numpy.ndarray or None
        Shape (H, W, 3), uint8, RGB order; None if profile or file cannot be used in this way.
    """
    transform = _transform(profile, "CMYK") if profile[16:20] == b"CMYK" else None
    if transform is None:
        return None
    import PIL.Image
    import PIL.ImageCms

    try:
        with PIL.Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            limit = PIL.Image.MAX_IMAGE_PIXELS
            if image.mode != "CMYK" or (limit is not None and image.width * image.height > limit):
                return None
            return np.array(PIL.ImageCms.applyTransform(image, transform))
    except Exception:  # Pillow's readers fail in any number of ways; the plain decoder then has its turn
        return None


def _transform(profile: bytes, mode: str) -> PIL.ImageCms.ImageCmsTransform | None:
    if len(profile) < _LEAST_PROFILE:
        return None
    try:
        import PIL.ImageCms
    except ImportError:
        return None
    try:
        source = PIL.ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return PIL.ImageCms.buildTransform(source, PIL.ImageCms.createProfile("sRGB"), mode, "RGB")
    except (PIL.ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def is_luma_chroma(pixels: npt.NDArray[Any]) -> bool:
    """Whether three 8-bit channels are Y, Cb and Cr rather than red, green and blue.

    FLIR's cameras store their visual picture so, in a PNG that has no way of saying it. Chroma lies about 128
    and varies less than luma; red, green and blue vary together.
    """
    if pixels.dtype != np.uint8 or pixels.shape[2:] != (3,):
        return False
    sample = pixels[:: max(1, len(pixels) // 256), :: max(1, pixels.shape[1] // 256)].reshape(-1, 3)
    middle, spread = np.median(sample, axis=0), sample.std(axis=0)
    return bool((abs(middle[1:] - 128) < 32).all() and (spread[1:] < 0.5 * spread[0]).all())


def ycbcr_to_rgb(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Y, Cb and Cr of JPEG (ITU-T T.871) as red, green and blue; shape (H, W, 3), uint8."""
    y, cb, cr = np.moveaxis(pixels.astype(np.float32), -1, 0)
    cb, cr = cb - 128, cr - 128
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
    return rgb.round().clip(0, 255).astype(np.uint8)
