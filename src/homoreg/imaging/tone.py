"""Tone: from counts, kelvins or colours to the [0, 1] a network takes, recorded to be repeatable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

import cv2
import numpy as np
import numpy.typing as npt

from homoreg.errors import ConfigError, InputError
from homoreg.imaging.palettes import palette_intensity, palette_names, recognise_palette
from homoreg.imaging.reading import Picture

__all__ = ["Modality", "Tone", "fit_tone", "is_featureless"]

Modality: TypeAlias = Literal["ir", "rgb"]

_TAILS = (0.5, 99.5)  # percentiles; dead and hot pixels are a smaller share of any working sensor
_MIN_COUNTS = 8.0  # narrowest 16-bit stretch: a few counts are below any sensor's noise, not a scene
_DEPTHS = (8, 10, 12, 14, 16)  # bits of the sensors whose values come as 16-bit integers
_NARROW = 1.0 / 32.0  # floats within [0, 1] that fill less are counts over their full scale
_MIN_RELATIVE = 1e-6  # narrowest float stretch, relative: some ten float32 steps
_MAX_SAMPLES = 2**20  # percentiles of more floats than this are taken from an even sample
_SMALLEST, _LARGEST = 1e-37, 3e38  # of float32, about
_LEVELS = 4096  # of a histogram of [0, 1]; a sixteenth of the step below
_FLAT = 1.0 / 255.0  # an image whose std is below one 8-bit step shows nothing


@dataclass(frozen=True)
class Tone:
    """The map of an image's own units onto [0, 1]: off its palette if it has one, then linear, then clipped.

    Parameters
    ----------
    modality
        "ir" or "rgb".
    low, high
        What maps to 0 and to 1, in the image's own units; ``low < high``, both finite.
    palette
        Name of the colour palette that the image was coloured with, see `homoreg.imaging.palettes`; its
        intensity runs from 0 to 255. Empty for images that are not.

    Raises
    ------
    InputError
        If a value is none of these.
    """

    modality: Modality
    low: float
    high: float
    palette: str = ""

    def __post_init__(self) -> None:
        if self.modality not in get_args(Modality):
            raise InputError(f"modality is {self.modality!r}; expected 'ir' or 'rgb'")
        # Beyond these the float32 arithmetic of `apply` would overflow or divide by zero.
        if not (abs(self.low) <= _LARGEST and _SMALLEST <= self.high - self.low <= _LARGEST):
            raise InputError(
                f"tone runs from {self.low!r} to {self.high!r}; expected two finite numbers, low < high, "
                "within the range of float32"
            )
        if self.palette and self.palette not in palette_names():
            raise InputError(f"palette is {self.palette!r}; expected one of {', '.join(palette_names())}")

    def intensity(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Take pixels off the palette; to be done before they are resized, which mixes colours.

        Parameters
        ----------
        pixels
            Shape (H, W) or (H, W, 3), as the tone was fitted to.

        Returns
        -------
        numpy.ndarray
            Shape (H, W), uint8, if there is a palette and the pixels are uint8 colours; else the pixels.
        """
        if self.palette and pixels.dtype == np.uint8 and pixels.ndim == 3:
            return palette_intensity(pixels, self.palette)
        return pixels

    def apply(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Map pixels to [0, 1].

        Parameters
        ----------
        pixels
            Shape (H, W) or (H, W, 3), in the units the tone was fitted to, or what `intensity` made of them.

        Returns
        -------
        numpy.ndarray
            Shape (H, W, 3), float32 in [0, 1]; grey is repeated.

        Raises
        ------
        InputError
            If the shape is another.
        """
        if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
            raise InputError(f"pixels have shape {pixels.shape}; expected (H, W) or (H, W, 3)")
        unit = self.intensity(pixels).astype(np.float32)
        with np.errstate(over="ignore"):  # a value far outside becomes infinite here and 0 or 1 below
            if self.low != 0:
                unit -= np.float32(self.low)
            unit /= np.float32(self.high - self.low)
        np.clip(unit, 0, 1, out=unit)
        return unit if unit.ndim == 3 else np.repeat(unit[..., None], 3, axis=2)

    def as_dict(self) -> dict[str, str | float]:
        """Values by field name, ready for JSON; `from_dict` takes them back."""
        values = asdict(self)
        if not self.palette:
            del values["palette"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tone:
        """Tone of a mapping as `as_dict` returns it.

        Parameters
        ----------
        values
            "modality", "low" and "high", and "palette" if there is one; no others.

        Returns
        -------
        Tone
            Equal to the one the mapping came from.

        Raises
        ------
        ConfigError
            If a key is missing or unknown, or a value is not accepted.
        """
        expected = {"modality", "low", "high"}
        if set(values) - {"palette"} != expected:
            raise ConfigError(f"a tone has the keys {sorted(map(str, values))}; expected {sorted(expected)}")
        low, high, palette = values["low"], values["high"], values.get("palette", "")
        for value in (low, high):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"a tone has the bound {value!r}; expected a number")
        try:
            return cls(values["modality"], float(low), float(high), palette)
        except (InputError, OverflowError) as error:
            raise ConfigError(f"a tone is not valid: {error}") from error


def fit_tone(picture: Picture, modality: Modality, *, palettes: bool = False) -> Tone:
    """Choose the tone of a picture from its depth, kind and values.

    - 8-bit, either modality: 0 to 255, exactly, so that a frame reaches the network as it is;
    - 16-bit RGB: 0 to the full scale of 8, 10, 12, 14 or 16 bits, the least that holds its opaque pixels,
      since cameras store shallower values in 16 bits;
    - float RGB, and float infrared that lies within [0, 1] and fills 1/32 of it or more: as it is;
    - 16-bit and other float infrared: from the 0.5th to the 99.5th percentile of its opaque pixels, which
      dead and hot pixels do not move. Counts of exactly 0 and 65535 (no data, saturation) are left out unless
      there is nothing else. The stretch never gets narrower than 8 counts, or 8/65535 within [0, 1], so that
      a constant image becomes a constant.

    Parameters
    ----------
    picture
        The image.
    modality
        "ir" or "rgb".
    palettes
        Whether 8-bit infrared colours shall be looked up in the palettes of thermal displays.

    Returns
    -------
    Tone
        To be applied to the picture, and to others of the same camera that shall look the same.

    Raises
    ------
    InputError
        If the modality is another, or a float RGB picture does not lie within [0, 1].
    """
    if modality not in get_args(Modality):
        raise InputError(f"modality is {modality!r}; expected 'ir' or 'rgb'")
    pixels = picture.pixels
    if pixels.dtype == np.uint8:
        known = palettes and modality == "ir"
        return Tone(modality, 0.0, 255.0, recognise_palette(pixels, picture.mask) if known else "")
    values = pixels.reshape(-1) if picture.mask is None else pixels[picture.mask].reshape(-1)
    if values.size == 0:  # a mask without one opaque pixel
        values = pixels.reshape(-1)
    if modality == "rgb" and pixels.dtype == np.uint16:
        bits = next(bits for bits in _DEPTHS if int(values.max()) < 2**bits)
        return Tone(modality, 0.0, 2.0**bits - 1)
    if pixels.dtype == np.float32:
        low, high = float(pixels.min()), float(pixels.max())
        if low >= 0 and high <= 1:
            if modality == "rgb":
                return Tone(modality, 0.0, 1.0)
            ends = _float_range(values)
            wide = ends[1] - ends[0] >= _NARROW
            return Tone(modality, 0.0, 1.0) if wide else Tone(modality, *_widen(*ends, _MIN_COUNTS / 65535))
        if modality == "rgb":
            raise InputError(
                f"the float values of {picture.name!r} run from {low:g} to {high:g}; a float RGB image must "
                "lie within [0, 1]; divide it by its full scale"
            )
    low, high = _count_range(values) if pixels.dtype == np.uint16 else _float_range(values)
    return Tone(modality, low, high)


def is_featureless(unit_image: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None = None) -> bool:
    """Whether an image is constant for all practical purposes.

    Parameters
    ----------
    unit_image
        Shape (H, W) or (H, W, C), in [0, 1], as `Tone.apply` returns it.
    mask
        Shape (H, W), False where the image holds no data; None if it does everywhere.

    Returns
    -------
    bool
        True if the standard deviation over the picture is below 1/255 in every channel. The lowest and the
        highest half per cent of the values are clipped first, so a few dead pixels do not count as content.
        True also if the mask leaves nothing.
    """
    image = np.ascontiguousarray(unit_image, np.float32)
    shown = None if mask is None else mask.astype(np.uint8)
    channels = image.shape[2] if image.ndim == 3 else 1
    return all(_robust_std(image, channel, shown) < _FLAT for channel in range(channels))


def _robust_std(image: npt.NDArray[np.float32], channel: int, mask: npt.NDArray[np.uint8] | None) -> float:
    """Standard deviation with both tails clipped, from a histogram, which is much faster than sorting."""
    top = 1 + 1 / _LEVELS  # the upper end is exclusive
    counts = cv2.calcHist([image], [channel], mask, [_LEVELS], [0.0, top]).reshape(-1).astype(np.float64)
    below = np.cumsum(counts)
    if below[-1] == 0:
        return 0.0
    low, high = (np.searchsorted(below, below[-1] * tail / 100) for tail in _TAILS)
    values = np.clip(np.arange(_LEVELS), low, high) * (top / _LEVELS)
    mean = np.average(values, weights=counts)
    return float(np.sqrt(np.average((values - mean) ** 2, weights=counts)))


def _count_range(counts: npt.NDArray[Any]) -> tuple[float, float]:
    """Robust range of uint16 counts, exactly, from their histogram."""
    histogram = np.bincount(counts, minlength=65536)
    data = histogram.copy()
    data[[0, 65535]] = 0
    # With under one per cent between the ends the ends are the picture, not a border or a glare in it.
    if data.sum() >= 0.01 * counts.size:
        histogram = data
    below = np.cumsum(histogram)
    low, high = (float(np.searchsorted(below, below[-1] * tail / 100)) for tail in _TAILS)
    return _widen(low, high, _MIN_COUNTS)


def _float_range(values: npt.NDArray[Any]) -> tuple[float, float]:
    low, high = (float(value) for value in np.percentile(values[_even_sample(values.size)], _TAILS))
    return _widen(low, high, max(_MIN_RELATIVE * max(abs(low), abs(high)), 1e-12))


def _widen(low: float, high: float, least: float) -> tuple[float, float]:
    """Range of at least the given width about the same centre."""
    if high - low >= least:
        return low, high
    centre = (low + high) / 2
    return centre - least / 2, centre + least / 2


def _even_sample(count: int) -> slice:
    return slice(None, None, max(1, count // _MAX_SAMPLES))
