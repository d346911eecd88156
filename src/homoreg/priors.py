"""Where to look first: priors as callers give them, and the placements that are tried.

A *placement* maps infrared px to RGB px, like a homography that was found; the model looks at the RGB picture
through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry import fit_matrix

__all__ = ["Prior", "beside", "fields_of_view", "same_view", "scattered_fields", "spread_priors"]

Prior: TypeAlias = Literal["auto"] | ArrayLike | Tensor
Size: TypeAlias = tuple[int, int]

FIELD_RATIOS = (1.25, 1.0, 0.78, 0.6, 0.45)  # infrared field of view over that of the RGB
# Other starts: turned by degrees, scaled, and shifted by shares of the infrared picture's sides.
BESIDE = (
    *((0.0, 1.0, x / 8, y / 8) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)),
    *((turn, 1.0, 0.0, 0.0) for turn in (-15.0, 15.0)),
    *((0.0, scale, 0.0, 0.0) for scale in (0.8, 1.25)),
)
# Fields beside the centre: ratio, and shares of the RGB picture's sides. A frame reaches a quarter of the
# infrared picture beyond it, and the model's matching a little further.
SCATTERED = (
    *((0.6, x * 0.13, y * 0.13) for x in (-1, 1) for y in (-1, 1)),
    *((0.45, x * 0.15, y * 0.15) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)),
    *((0.33, x * 0.2, y * 0.2) for x in (-1, 0, 1) for y in (-1, 0, 1)),
)


def same_view(ir: Size, rgb: Size) -> Tensor:
    """Placement that takes both pictures, (width, height), to show the same field of view."""
    return fit_matrix(ir, rgb)


def fields_of_view(ir: Size, rgb: Size) -> list[Tensor]:
    """Placements centred on the RGB picture, one for each field-of-view ratio."""
    return [_field(ir, rgb, ratio) for ratio in FIELD_RATIOS]


def scattered_fields(ir: Size, rgb: Size) -> list[Tensor]:
    """Placements of narrow fields of view beside the centre of the RGB picture."""
    return [_field(ir, rgb, ratio, x * rgb[0], y * rgb[1]) for ratio, x, y in SCATTERED]


def _field(ir: Size, rgb: Size, ratio: float, right: float = 0.0, down: float = 0.0) -> Tensor:
    # The ratio is that of the geometric means, so that it is one number for pictures of unlike aspects.
    scale = ratio * (rgb[0] * rgb[1] / (ir[0] * ir[1])) ** 0.5
    x = (rgb[0] - 1 - scale * (ir[0] - 1)) / 2 + right
    y = (rgb[1] - 1 - scale * (ir[1] - 1)) / 2 + down
    return torch.tensor([[scale, 0, x], [0, scale, y], [0, 0, 1]], dtype=torch.float64)


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


def spread_priors(prior: Any, count: int) -> list[Tensor | None]:
    """One checked prior a pair; None stands for "auto".

    Raises
    ------
    InputError
        If a prior is not usable or their number is neither one nor that of the pairs.
    """
    if isinstance(prior, list | tuple) and _are_priors(prior):
        if len(prior) != count:
            raise InputError(
                f"got {len(prior)} priors for {count} pairs; expected one for all or one for each"
            )
        return [_check_prior(one) for one in prior]
    return [_check_prior(prior)] * count


def _are_priors(values: Sequence[Any]) -> bool:
    """Whether a sequence holds priors rather than the rows of one."""
    try:
        return all(isinstance(value, str) or np.ndim(value) == 2 for value in values)
    except ValueError:  # rows of unequal lengths
        return False


def _check_prior(prior: Any) -> Tensor | None:
    if isinstance(prior, str):
        if prior == "auto":
            return None
        raise InputError(f'prior is {prior!r}; expected "auto" or a 3x3 matrix from infrared px to RGB px')
    if isinstance(prior, Tensor):
        prior = prior.detach().cpu().numpy()
    try:
        matrix = np.asarray(prior, np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f'prior is a {type(prior).__name__}; expected "auto" or a 3x3 matrix from infrared px to RGB px'
        ) from None
    if matrix.shape != (3, 3):
        raise InputError(f"prior has shape {matrix.shape}; expected (3, 3), a map from infrared px to RGB px")
    if not np.isfinite(matrix).all() or matrix[2, 2] == 0 or abs(np.linalg.det(matrix / matrix[2, 2])) < 1e-9:
        raise InputError(
            f"prior {matrix.tolist()} is singular or not finite; expected an invertible homography"
        )
    return torch.from_numpy(matrix / matrix[2, 2])
