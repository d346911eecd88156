"""Homographies for property tests, of the kind and size that the seed protocol draws."""

from __future__ import annotations

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from homoreg.geometry import homography_from_corners, image_corners

SIDE = 128
quick = settings(max_examples=40, deadline=None, derandomize=True)

offsets = st.lists(st.floats(-24, 24, width=32), min_size=8, max_size=8)
"""Displacements of the four corners in px: well within what keeps a 128-px square convex."""

points = st.lists(st.tuples(st.floats(0, 127, width=32), st.floats(0, 127, width=32)), min_size=1, max_size=9)


def double(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def square(side: float = SIDE) -> Tensor:
    return image_corners(side, side, dtype=torch.float64)


def displaced(offset: list[float]) -> Tensor:
    """Corners of the 128-px square, displaced: (4, 2) float64."""
    return square() + double(offset).view(4, 2)


def map_of(offset: list[float]) -> Tensor:
    """The homography that displaces the corners of the 128-px square: (3, 3) float64."""
    return homography_from_corners(square(), displaced(offset))


def random_maps(count: int, *, side: float = SIDE, reach: float = 0.15, seed: int = 0) -> Tensor:
    """Seeded maps that displace the corners of a square by up to ``reach`` of its side: (count, 3, 3)."""
    draw = torch.Generator().manual_seed(seed)
    corners = square(side)
    moved = corners + (2 * torch.rand(count, 4, 2, generator=draw, dtype=torch.float64) - 1) * reach * side
    return homography_from_corners(corners, moved)


def shift(x: float, y: float) -> Tensor:
    return double([[1, 0, x], [0, 1, y], [0, 0, 1]])
