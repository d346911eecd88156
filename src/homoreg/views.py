"""From two pictures of any size to the frames a model takes, and back.

A *frame* is a square of n px (template) or 3n/2 px (search). The template is the infrared picture stretched
edge to edge. The search frame is the RGB picture pulled through a placement ``P`` that maps infrared pixels
to RGB pixels: seen through it, the template lies at the centred square wherever ``P`` is right. With
``T`` from infrared px to template px and ``C`` from template px to the centred square,

    search px -> RGB px:     P T^-1 C^-1
    infrared px -> RGB px:   P T^-1 C^-1 h T      for an estimate h from template px to search px.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from homoreg.geometry import (
    compose,
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
    _reduced: dict[int, Tensor] = field(init=False, default_factory=dict)
    _templates: dict[int, Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.ir_tone = fit_tone(self.ir, "ir")
        self.rgb_tone = fit_tone(self.rgb, "rgb")

    @property
    def is_featureless(self) -> bool:
        """Whether either picture is too even to be registered."""
        template = self.template(128)[0].permute(1, 2, 0).numpy()
        level = max(0, min(self.rgb.size).bit_length() - 8)
        whole = self._rgb_at(level)[0].permute(1, 2, 0).numpy()
        mask = None
        if self.rgb.mask is not None:
            size = (whole.shape[1], whole.shape[0])
            mask = _resize(self.rgb.mask.astype(np.uint8) * 255, size) > 127
        return is_featureless(template) or is_featureless(whole, mask)

    def to_template(self, n: int) -> Tensor:
        """Infrared px to template px, (3, 3) float64."""
        return fit_matrix(self.ir.size, (n, n))

    def template(self, n: int) -> Tensor:
        """The infrared frame, (1, 3, n, n) float32 in [0, 1]."""
        if n not in self._templates:
            unit = _frame(self.ir.pixels, self.ir_tone, (n, n))
            if self.ir.mask is not None:
                inside = _resize(self.ir.mask.astype(np.uint8) * 255, (n, n)) > 127
                unit = fill_outside(unit, torch.from_numpy(inside)[None, None])
            self._templates[n] = unit
        return self._templates[n]

    def to_rgb(self, placement: Tensor, n: int) -> Tensor:
        """Search px to RGB px for a placement (3, 3) of the infrared picture."""
        return compose(placement, invert_homography(self.to_template(n)), invert_homography(square_prior(n)))

    def search(self, placement: Tensor, n: int) -> Tensor:
        """The RGB frame seen through a placement, (1, 3, 3n/2, 3n/2) float32 in [0, 1].

        What lies outside the picture takes the mean of what lies inside.
        """
        side = 3 * n // 2
        view = self.to_rgb(placement, n)
        window = _window(view, side, self.rgb.size)
        if window is not None:  # whole pixels: nothing to interpolate, so they are taken as they are
            seen = self._rgb_at(0)[..., window[0], window[1]]
            opaque = np.ones((side, side), np.bool_) if self.rgb.mask is None else self.rgb.mask[window]
            return fill_outside(seen, torch.from_numpy(np.ascontiguousarray(opaque))[None, None])
        quad = transform_points(view, image_corners(side, side, dtype=view.dtype))
        span = (quad.roll(-1, 0) - quad).norm(dim=-1).amax() / (side - 1)
        level = 0
        while bool(torch.isfinite(span)) and span / 2**level > _ANTIALIAS * 2**0.5 and level < 8:
            level += 1
        image = self._rgb_at(level)
        to_level = resize_matrix(image.shape[-1] / self.rgb.width, image.shape[-2] / self.rgb.height)
        seen, inside = pull(image, compose(to_level, view)[None].float(), (side, side))
        if self.rgb.mask is not None:
            mask = torch.from_numpy(self.rgb.mask.astype(np.float32))[None, None]
            seen_mask, _ = pull(mask, view[None].float(), (side, side))
            inside = inside & (seen_mask > 0.5)
        return fill_outside(seen, inside)

    def compose(self, placement: Tensor, estimate: Tensor, n: int) -> Tensor:
        """Infrared px to RGB px, float64, of an estimate made through a placement."""
        return compose(self.to_rgb(placement, n), estimate.double(), self.to_template(n))

    def _rgb_at(self, level: int) -> Tensor:
        """The RGB picture reduced by 2**level, (1, 3, H, W) in [0, 1]."""
        if level not in self._reduced:
            width, height = (max(1, round(side / 2**level)) for side in self.rgb.size)
            self._reduced[level] = _frame(self.rgb.pixels, self.rgb_tone, (width, height))
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


def _resize(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize edge to edge in the picture's own depth, averaging along the sides that shrink."""
    height, width = pixels.shape[:2]
    least = min(width, size[0]), min(height, size[1])
    # One side may shrink while the other grows; INTER_AREA averages only where neither grows.
    if least != (width, height):
        pixels = np.asarray(cv2.resize(pixels, least, interpolation=cv2.INTER_AREA))
    if least != size:
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR))
    return pixels


def _frame(pixels: NDArray[Any], tone: Tone, size: tuple[int, int]) -> Tensor:
    """Pixels as a tensor (1, 3, height, width) in [0, 1] of the given size (width, height)."""
    if pixels.dtype == np.float32:
        # Toned first: a stretch would make texture of the rounding of a resized constant 293.15 K.
        unit = _resize(tone.apply(pixels), size)
    else:
        unit = tone.apply(_resize(pixels, size))
    return torch.from_numpy(np.ascontiguousarray(unit.transpose(2, 0, 1)))[None]
