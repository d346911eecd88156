"""From two pictures of any size to the frames a model takes, and back.

A *frame* is a square of n px (template) or 3n/2 px (search). The template is the infrared picture stretched
edge to edge. The search frame is the RGB picture pulled through a placement ``P`` that maps infrared pixels
to RGB pixels: seen through it, the template lies at the centred square wherever ``P`` is right. With
``T`` from infrared px to template px and ``C`` from template px to the centred square,

    search px -> RGB px:     P T^-1 C^-1
    infrared px -> RGB px:   P T^-1 C^-1 h T      for an estimate h from template px to search px.

A large picture is never converted whole: copies reduced by powers of two keep its own bit depth, and only the
part of one that a frame shows becomes floats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from homoreg.geometry import (
    compose,
    crop_matrix,
    fill_outside,
    fit_matrix,
    image_corners,
    invert_homography,
    pull,
    resize_matrix,
    square_prior,
    transform_points,
)
from homoreg.imaging.reading import Picture
from homoreg.imaging.tone import Tone, fit_tone, is_featureless

__all__ = ["PairViews"]

_ANTIALIAS = 1.3  # reduced copies have this many px per frame px, within a factor of sqrt 2
_MOST_LEVELS = 8
_WHOLE_SIDE = 1024  # px of the reduced copy that is taken whole where a frame looks past the horizon

_Pixels: TypeAlias = NDArray[Any]
_Mask: TypeAlias = NDArray[np.bool_] | None


@dataclass(eq=False)
class PairViews:
    """One pair of pictures, as a source of frames.

    Parameters
    ----------
    ir, rgb
        The pictures as given.
    """

    ir: Picture
    rgb: Picture
    ir_tone: Tone = field(init=False)
    rgb_tone: Tone = field(init=False)
    _reduced: list[tuple[_Pixels, _Mask]] = field(init=False, default_factory=list)
    _templates: dict[int, Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.ir_tone = fit_tone(self.ir, "ir", palettes=True)
        self.rgb_tone = fit_tone(self.rgb, "rgb")

    @property
    def is_featureless(self) -> bool:
        """Whether either picture is too even to be registered."""
        template = self.template(128)[0].permute(1, 2, 0).numpy()
        pixels, mask = self._rgb_at(max(0, min(self.rgb.size).bit_length() - 8))
        return is_featureless(template) or is_featureless(self.rgb_tone.apply(pixels), mask)

    def to_template(self, n: int) -> Tensor:
        """Infrared px to template px, (3, 3) float64."""
        return fit_matrix(self.ir.size, (n, n))

    def template(self, n: int) -> Tensor:
        """The infrared frame, (1, 3, n, n) float32 in [0, 1]."""
        if n not in self._templates:
            pixels = self.ir_tone.intensity(self.ir.pixels)
            # Toned first: a stretch would make texture of the rounding of a resized constant 293.15 K.
            early = pixels.dtype == np.float32
            resized, mask = _resize(self.ir_tone.apply(pixels) if early else pixels, self.ir.mask, (n, n))
            frame = _tensor(resized if early else self.ir_tone.apply(resized))
            self._templates[n] = _filled(frame, _as_valid(mask))[0]
        return self._templates[n]

    def to_rgb(self, placement: Tensor, n: int) -> Tensor:
        """Search px to RGB px for a placement (3, 3) of the infrared picture."""
        return compose(placement, invert_homography(self.to_template(n)), invert_homography(square_prior(n)))

    def search(self, placement: Tensor, n: int) -> Tensor:
        """The RGB frame seen through a placement, (1, 3, 3n/2, 3n/2) float32 in [0, 1].

        What lies outside the picture, or is transparent, takes the mean of the rest.
        """
        return self.search_and_valid(placement, n)[0]

    def search_and_valid(self, placement: Tensor, n: int) -> tuple[Tensor, Tensor | None]:
        """The same, and which of its pixels the picture shows.

        The second is (1, 1, 3n/2, 3n/2) bool, or None where it shows them all.
        """
        side = 3 * n // 2
        view = self.to_rgb(placement, n)
        window = _window(view, side, self.rgb.size)
        if window is not None:  # whole pixels: nothing to interpolate, so they are taken as they are
            opaque = None if self.rgb.mask is None else self.rgb.mask[window]
            return _filled(_tensor(self.rgb_tone.apply(self.rgb.pixels[window])), _as_valid(opaque))
        pixels, mask = self._rgb_at(self._level_for(view, side))
        height, width = pixels.shape[:2]
        view = compose(resize_matrix(width / self.rgb.width, height / self.rgb.height), view)
        part = _reach(view, side, (width, height))
        view = compose(crop_matrix(part[1].start, part[0].start), view)[None].float()
        image = _tensor(self.rgb_tone.apply(pixels[part]))
        if mask is None:
            return _filled(*pull(image, view, (side, side)))
        # What is transparent has no weight, so that its colour does not leak in at its edge.
        weight = torch.from_numpy(mask[part].astype(np.float32))[None, None]
        seen, inside = pull(torch.cat([image * weight, weight], dim=1), view, (side, side))
        share = seen[:, 3:]
        return _filled((seen[:, :3] / share.clamp_min(1e-6)).clamp(0, 1), inside & (share > 0.5))

    def compose(self, placement: Tensor, estimate: Tensor, n: int) -> Tensor:
        """Infrared px to RGB px, float64, of an estimate made through a placement."""
        return compose(self.to_rgb(placement, n), estimate.double(), self.to_template(n))

    def _level_for(self, view: Tensor, side: int) -> int:
        """Power of two by which the RGB picture may be reduced for a frame."""
        if _sees_horizon(view, side):
            return min(_MOST_LEVELS, max(0, (max(self.rgb.size) // _WHOLE_SIDE).bit_length()))
        quad = transform_points(view, image_corners(side, side, dtype=view.dtype))
        span = (quad.roll(-1, 0) - quad).norm(dim=-1).amax() / (side - 1)
        level = 0
        while bool(torch.isfinite(span)) and span / 2**level > _ANTIALIAS * 2**0.5 and level < _MOST_LEVELS:
            level += 1
        return level

    def _rgb_at(self, level: int) -> tuple[_Pixels, _Mask]:
        """Pixels and mask of the RGB picture reduced by 2**level, in its own bit depth.

        Each level is made from the one before, which costs a third more than the first alone.
        """
        if not self._reduced:
            self._reduced.append((self.rgb.pixels, self.rgb.mask))
        while len(self._reduced) <= level:
            width, height = (max(1, round(side / 2 ** len(self._reduced))) for side in self.rgb.size)
            self._reduced.append(_resize(*self._reduced[-1], (width, height)))
        return self._reduced[level]


def _window(view: Tensor, side: int, size: tuple[int, int]) -> tuple[slice, slice] | None:
    """Rows and columns of a frame that a whole-pixel shift cuts out of a picture (width, height)."""
    shift = torch.eye(3, dtype=view.dtype)
    shift[:2, 2] = view[:2, 2].round()
    if not bool(torch.isfinite(view).all()) or not torch.equal(view, shift):
        return None
    left, top = (int(value) for value in shift[:2, 2])
    if left < 0 or top < 0 or left + side > size[0] or top + side > size[1]:
        return None
    return slice(top, top + side), slice(left, left + side)


def _sees_horizon(view: Tensor, side: int) -> bool:
    """Whether a frame of the given side looks past the horizon of its view, or the view is not finite."""
    corners = image_corners(side, side, dtype=view.dtype)
    depth = corners @ view[2, :2] + view[2, 2]
    return not bool((depth > 1e-6 * depth.abs().max()).all() and torch.isfinite(view).all())


def _reach(view: Tensor, side: int, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a picture (width, height) that a frame shows; at least one pixel."""
    if _sees_horizon(view, side):
        return slice(0, size[1]), slice(0, size[0])
    quad = transform_points(view, image_corners(side, side, dtype=view.dtype)).numpy()
    spans = []
    for axis in (1, 0):
        # Two px more on each side: one for the interpolation, one for rounding in float32.
        low, high = np.clip([quad[:, axis].min() - 2, quad[:, axis].max() + 3], 0, size[axis])
        first = min(int(low), size[axis] - 1)
        spans.append(slice(first, max(first + 1, int(np.ceil(high)))))
    return spans[0], spans[1]


def _resize(pixels: _Pixels, mask: _Mask, size: tuple[int, int]) -> tuple[_Pixels, _Mask]:
    """Resize edge to edge in the picture's own depth; what is transparent does not count."""
    if mask is None:
        return _resize_plain(pixels, size), None
    opaque = mask if pixels.ndim == 2 else mask[..., None]
    share = _resize_plain(mask.astype(np.uint8) * np.uint8(255), size)
    shown = share > 127
    resized = _resize_plain(np.where(opaque, pixels, pixels.dtype.type(0)), size)
    mixed = (share < 255) & shown
    if mixed.any():
        weight = share[mixed].astype(np.float32) / 255
        values = resized[mixed] / (weight if pixels.ndim == 2 else weight[:, None])
        if pixels.dtype != np.float32:
            values = values.round().clip(0, np.iinfo(pixels.dtype).max)
        resized[mixed] = values.astype(pixels.dtype)
    return resized, shown


def _resize_plain(pixels: _Pixels, size: tuple[int, int]) -> _Pixels:
    """Resize, averaging along the sides that shrink."""
    height, width = pixels.shape[:2]
    least = min(width, size[0]), min(height, size[1])
    # One side may shrink while the other grows; INTER_AREA averages only where neither grows.
    if least != (width, height):
        pixels = np.asarray(cv2.resize(pixels, least, interpolation=cv2.INTER_AREA))
    if least != size:
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR))
    return pixels


def _tensor(unit: NDArray[np.float32]) -> Tensor:
    """(H, W, 3) to (1, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(unit.transpose(2, 0, 1)))[None]


def _as_valid(mask: _Mask) -> Tensor | None:
    """(H, W) to (1, 1, H, W)."""
    return None if mask is None else torch.from_numpy(np.ascontiguousarray(mask))[None, None]


def _filled(frame: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Frame with the mean of what a mask (1, 1, H, W) shows in place of the rest; the mask, if any."""
    if valid is None or bool(valid.all()):
        return frame, None
    return fill_outside(frame, valid), valid
