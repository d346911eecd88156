"""Pictures in and out: reading and writing at full bit depth, tone mapping, resampling and drawing."""

from __future__ import annotations

from homoreg.imaging.reading import ImageLike, Picture, read_image
from homoreg.imaging.tone import Tone, fit_tone, is_featureless
from homoreg.imaging.writing import encode_image, write_image, write_text

__all__ = [
    "ImageLike",
    "Picture",
    "Tone",
    "encode_image",
    "fit_tone",
    "is_featureless",
    "read_image",
    "write_image",
    "write_text",
]
