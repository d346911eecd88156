"""Where to look first: priors as callers give them, and the placements that are tried.

A *placement* maps infrared px to RGB px, like a homography that was found; the model looks at the RGB picture
through it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry import compose, fit_matrix, image_corners, transform_points
from homoreg.imaging.metadata import placement as placement_of_metadata
from homoreg.imaging.reading import Picture
from homoreg.registration import Registration

__all__ = [
    "Guess",
    "Orientation",
    "Prior",
    "beside",
    "beyond_reach",
    "fields_of_view",
    "given",
    "same_view",
    "scattered_fields",
    "spread_priors",
    "strain",
]

Prior: TypeAlias = Literal["auto", "same-view"] | float | ArrayLike | Tensor | Registration
Orientation: TypeAlias = Literal["upright", "any"]
Size: TypeAlias = tuple[int, int]

FIELD_RATIOS = (1.25, 1.0, 0.78, 0.6, 0.45, 0.33)  # infrared field of view over that of the RGB
REACH = 0.25  # of the infrared's sides: how far its corners are taken to be from a start that is given
METADATA_SLACK = (1.0, 0.88, 1.14)  # factors: what files say of a field of view is seldom exact
MOST_SHAPE = 1.2  # width over height, or the reverse, of an infrared pixel in the fields that are tried
# Other starts: turned by degrees, scaled, and shifted by shares of the infrared picture's sides.
BESIDE = (
    *((0.0, 1.0, x / 8, y / 8) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)),
    *((turn, 1.0, 0.0, 0.0) for turn in (-15.0, 15.0)),
    *((0.0, scale, 0.0, 0.0) for scale in (0.8, 1.25)),
)
# Fields beside the centre: ratio, and shares of the RGB picture's sides. A frame reaches a quarter of the
# infrared picture beyond it, and the model's matching a little further. The last are for parts down to 25 %.
SCATTERED = (
    *((0.6, x * 0.13, y * 0.13) for x in (-1, 1) for y in (-1, 1)),
    *((0.45, x * 0.15, y * 0.15) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)),
    *((0.3, x * 0.15, y * 0.15) for x in (-2, -1, 0, 1, 2) for y in (-2, -1, 0, 1, 2)),
)


@dataclass(frozen=True)
class Guess:
    """Where to look first in one pair.

    Parameters
    ----------
    place
        Gives the placement from the sizes (width, height) of the infrared and of the RGB picture; None to
        look for it.
    orientation
        "any" also tries quarter turns and mirror images.
    """

    place: Callable[[Size, Size], Tensor] | None = None
    orientation: Orientation = "upright"

    def starts(self, ir: Picture, rgb: Picture) -> list[Tensor]:
        """Placements to choose from, the likeliest first: what is given, else metadata, else all fields."""
        if self.place is not None:
            found = turned = [self.place(ir.size, rgb.size)]
        elif (told := placement_of_metadata(ir, rgb)) is not None:
            found = turned = [_scaled(torch.from_numpy(told), ir.size, factor) for factor in METADATA_SLACK]
        else:
            found = fields_of_view(ir.size, rgb.size)
            # The aspects of pictures a quarter turn apart say nothing of a stretch.
            turned = fields_of_view(ir.size, rgb.size, square=True)
        if self.orientation == "any":
            found = [_oriented(one, ir.size, k) for k in range(8) for one in (turned if k % 2 else found)]
        return found

    def others(self, best: Tensor, ir: Picture, rgb: Picture) -> list[Tensor]:
        """Placements to try after a best one that is not certain: that one first."""
        # Without a prior, what was chosen is the best guess there is.
        found = beside(best if self.place is None else self.place(ir.size, rgb.size), ir.size)
        if self.place is None:
            found += scattered_fields(ir.size, rgb.size)
            if placement_of_metadata(ir, rgb) is not None:  # which may be wrong
                found += fields_of_view(ir.size, rgb.size)
        return found


def same_view(ir: Size, rgb: Size) -> Tensor:
    """Placement that takes both pictures, (width, height), to show the same field of view."""
    return fit_matrix(ir, rgb)


def fields_of_view(ir: Size, rgb: Size, *, square: bool = False) -> list[Tensor]:
    """Placements centred on the RGB picture, one for each field-of-view ratio.

    The pixels of both pictures are taken as square where the pictures are of one aspect, or where asked
    for. Else one of them may have been stretched to its aspect, and the fields are halfway between square
    pixels and the aspect of the RGB picture: the model reaches either from there.
    """
    shape = 1.0 if square else _likely_shape(ir, rgb)
    return [_field(ir, rgb, ratio, shape=shape) for ratio in FIELD_RATIOS]


def scattered_fields(ir: Size, rgb: Size) -> list[Tensor]:
    """Placements of narrow fields of view beside the centre of the RGB picture, of the same shape."""
    shape = _likely_shape(ir, rgb)
    return [_field(ir, rgb, ratio, x * rgb[0], y * rgb[1], shape=shape) for ratio, x, y in SCATTERED]


def _likely_shape(ir: Size, rgb: Size) -> float:
    """Width over height of what an infrared pixel shows in the RGB picture."""
    unlike = rgb[0] * ir[1] / (rgb[1] * ir[0])
    return min(max(math.sqrt(unlike), 1 / MOST_SHAPE), MOST_SHAPE)


def _field(
    ir: Size, rgb: Size, ratio: float, right: float = 0.0, down: float = 0.0, *, shape: float = 1.0
) -> Tensor:
    # The ratio is that of the geometric means, so that it is one number for pictures of unlike aspects.
    scale = ratio * (rgb[0] * rgb[1] / (ir[0] * ir[1])) ** 0.5
    across, along = scale * shape**0.5, scale / shape**0.5
    x = (rgb[0] - 1 - across * (ir[0] - 1)) / 2 + right
    y = (rgb[1] - 1 - along * (ir[1] - 1)) / 2 + down
    return torch.tensor([[across, 0, x], [0, along, y], [0, 0, 1]], dtype=torch.float64)


def _about_centre(ir: Size, linear: Sequence[Sequence[float]]) -> Tensor:
    """Map of the infrared picture onto itself, (3, 3), that leaves its centre where it is."""
    move = torch.eye(3, dtype=torch.float64)
    move[:2, :2] = torch.tensor(linear, dtype=torch.float64)
    centre = torch.tensor([(ir[0] - 1) / 2, (ir[1] - 1) / 2], dtype=torch.float64)
    move[:2, 2] = centre - move[:2, :2] @ centre
    return move


def _scaled(placement: Tensor, ir: Size, factor: float) -> Tensor:
    return placement @ _about_centre(ir, ((factor, 0), (0, factor)))


def _oriented(placement: Tensor, ir: Size, index: int) -> Tensor:
    """One of the eight symmetries of a square: quarter turns, from 4 on of the mirrored picture."""
    c, s = ((1, 0), (0, 1), (-1, 0), (0, -1))[index % 4]
    flip = -1 if index >= 4 else 1
    return placement @ _about_centre(ir, ((c * flip, -s), (s * flip, c)))


def strain(placement: Tensor, ir: Size, rgb: Size) -> float:
    """How far a placement (3, 3) is from a similarity, as that of two cameras side by side nearly is.

    The mean distance of the corners of the infrared picture from those of the similarity, or mirrored one,
    that fits best, in px where the infrared picture is 128 px wide on average. The RGB picture counts as it
    is, or as stretched to its aspect from that of the infrared picture, whichever fits better.
    """
    corners = image_corners(*ir, dtype=torch.float64)
    there = transform_points(placement, corners)
    unstretched = there * torch.tensor([1.0, rgb[0] * ir[1] / (rgb[1] * ir[0])], dtype=torch.float64)
    return min(_strain(corners, there, ir), _strain(corners, unstretched, ir))


def _strain(here: Tensor, there: Tensor, ir: Size) -> float:
    source, target = (torch.view_as_complex((c - c.mean(0)).contiguous()) for c in (here, there))
    least = math.inf
    for one in (source, source.conj()):
        factor = (one.conj() * target).sum() / one.abs().square().sum()
        rest = (target - factor * one).abs().mean() / factor.abs().clamp_min(1e-12)
        least = min(least, float(rest) * 128 / math.sqrt(ir[0] * ir[1]))
    return least


def beyond_reach(placement: Tensor, start: Tensor, ir: Size) -> float:
    """By how much a placement (3, 3) is further from a given start (3, 3) than models are trained to look.

    Protocol samples displace each corner of the infrared picture by up to a quarter of its sides, across and
    down (DeTone et al., Deep Image Homography Estimation, 2016). What is beyond that is added up over the
    corners and both directions, in px where the infrared picture is 128 px wide and high; ``inf`` where that
    is no number.
    """
    corners = image_corners(*ir, dtype=torch.float64)
    seen = transform_points(torch.linalg.inv(start) @ placement, corners)
    moved = (seen - corners).abs() / torch.tensor(ir, dtype=torch.float64)
    beyond = float((moved - REACH).clamp_min(0).sum() * 128)
    return beyond if math.isfinite(beyond) else math.inf


def beside(placement: Tensor, ir: Size) -> list[Tensor]:
    """The placement, and others shifted, turned and scaled in the frame of the infrared picture."""
    # In a square frame, so that a turn is one in the frames that the model sees.
    to_square = torch.diag(torch.tensor([1 / ir[0], 1 / ir[1], 1], dtype=torch.float64))
    from_square = torch.diag(torch.tensor([ir[0], ir[1], 1], dtype=torch.float64))
    middle = torch.tensor([(ir[0] - 1) / 2, (ir[1] - 1) / 2], dtype=torch.float64) / torch.tensor(ir)
    placements = [placement]
    for turn, scale, x, y in BESIDE:
        angle = torch.deg2rad(torch.tensor(turn, dtype=torch.float64))
        c, s = scale * angle.cos(), scale * angle.sin()
        move = torch.eye(3, dtype=torch.float64)
        move[:2, :2] = torch.stack([c, -s, s, c]).view(2, 2)
        move[:2, 2] = middle - move[:2, :2] @ middle + torch.tensor([x, y], dtype=torch.float64)
        placements.append(placement @ from_square @ move @ to_square)
    return placements


def spread_priors(prior: Any, orientation: Any, count: int) -> list[Guess]:
    """One checked guess a pair.

    Raises
    ------
    InputError
        If a prior or the orientation is not usable, or the number of priors is neither one nor that of the
        pairs.
    """
    if orientation not in get_args(Orientation):
        expected = " or ".join(map(repr, get_args(Orientation)))
        raise InputError(f"orientation is {orientation!r}; expected {expected}")
    if isinstance(prior, list | tuple) and _are_priors(prior, count):
        if len(prior) != count:
            raise InputError(
                f"got {len(prior)} priors for {count} pairs; expected one for all or one for each"
            )
        return [Guess(_check_prior(one), orientation) for one in prior]
    return [Guess(_check_prior(prior), orientation)] * count


def given(matrix: Any) -> Guess:
    """Guess of a matrix (3, 3) from infrared px to RGB px, or of none."""
    return Guess(None if matrix is None else _check_prior(matrix))


def _are_priors(values: Sequence[Any], count: int) -> bool:
    """Whether a sequence holds priors rather than the rows, or the numbers, of one matrix."""
    numbers = (0,) if len(values) == count else ()
    try:
        return all(isinstance(one, str | Registration) or np.ndim(one) in (2, *numbers) for one in values)
    except ValueError:  # rows of unequal lengths
        return False


_EXPECTED = (
    'expected "auto", "same-view", the share of the RGB picture\'s width that the infrared picture covers '
    "(a number, such as 0.5), a 3x3 matrix from infrared px to RGB px, or a Registration"
)


def _check_prior(prior: Any) -> Callable[[Size, Size], Tensor] | None:
    if isinstance(prior, str):
        if prior in ("auto", "same-view"):
            return same_view if prior == "same-view" else None
        raise InputError(f"prior is {prior!r}; {_EXPECTED}")
    if isinstance(prior, Registration):
        return lambda ir, rgb: _carried_over(prior, ir, rgb)
    if isinstance(prior, Tensor):
        prior = prior.detach().cpu().numpy()
    try:
        matrix = np.asarray(prior, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"prior is a {type(prior).__name__}; {_EXPECTED}") from None
    if matrix.shape == ():
        share = float(matrix)
        if isinstance(prior, bool) or not 0.05 <= share <= 20:
            raise InputError(f"prior is {prior!r}; as a share of the RGB picture's width expected 0.05 to 20")
        return lambda ir, rgb: _field_of_width(ir, rgb, share)
    if matrix.shape != (3, 3):
        raise InputError(f"prior has shape {matrix.shape}; expected (3, 3), a map from infrared px to RGB px")
    if not np.isfinite(matrix).all() or matrix[2, 2] == 0 or abs(np.linalg.det(matrix / matrix[2, 2])) < 1e-9:
        raise InputError(
            f"prior {matrix.tolist()} is singular or not finite; expected an invertible homography"
        )
    return lambda ir, rgb: torch.from_numpy(matrix / matrix[2, 2])


def _field_of_width(ir: Size, rgb: Size, share: float) -> Tensor:
    """Centred placement of an infrared picture that covers a share of the RGB picture's width."""
    return _field(ir, rgb, share * math.sqrt(rgb[0] * ir[1] / (rgb[1] * ir[0])))


def _carried_over(earlier: Registration, ir: Size, rgb: Size) -> Tensor:
    """Placement of an earlier registration, for pictures of the same cameras in any size."""
    homography = torch.from_numpy(earlier.homography.copy())
    return compose(fit_matrix(earlier.rgb.size, rgb), homography, fit_matrix(ir, earlier.ir.size))
