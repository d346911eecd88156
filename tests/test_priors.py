from __future__ import annotations

import numpy as np
import pytest
import torch

from homoreg.geometry import image_corners, transform_points
from homoreg.priors import (
    BESIDE,
    FIELD_RATIOS,
    beside,
    fields_of_view,
    same_view,
    scattered_fields,
    spread_priors,
)

IR, RGB = (160, 120), (1280, 720)


def centre(placement: torch.Tensor, size: tuple[int, int] = IR) -> np.ndarray:
    middle = torch.tensor([[(size[0] - 1) / 2, (size[1] - 1) / 2]], dtype=torch.float64)
    return transform_points(placement, middle)[0].numpy()


def area(placement: torch.Tensor) -> float:
    x, y = transform_points(placement, image_corners(*IR, dtype=torch.float64)).unbind(-1)
    return float((x * (y.roll(-1) - y.roll(1))).sum().abs()) / 2


def test_the_same_view_maps_edge_to_edge() -> None:
    edges = torch.tensor([[-0.5, -0.5], [159.5, 119.5]], dtype=torch.float64)
    assert transform_points(same_view(IR, RGB), edges).numpy() == pytest.approx(
        np.array([[-0.5, -0.5], [1279.5, 719.5]])
    )


def test_fields_of_view_are_centred_and_of_the_ratios() -> None:
    placements = fields_of_view(IR, RGB)
    assert len(placements) == len(FIELD_RATIOS)
    for placement, ratio in zip(placements, FIELD_RATIOS, strict=True):
        assert centre(placement) == pytest.approx([639.5, 359.5])
        assert (area(placement) / (159 * 119)) == pytest.approx(ratio**2 * 1280 * 720 / (160 * 120))


def test_scattered_fields_lie_beside_the_centre_within_the_picture() -> None:
    seen = set()
    for placement in scattered_fields(IR, RGB):
        quad = transform_points(placement, image_corners(*IR, dtype=torch.float64))
        inside = (quad > -0.15 * torch.tensor(RGB)) & (quad < 1.15 * torch.tensor(RGB))
        assert bool(inside.all())
        seen.add(tuple(np.round([*centre(placement), area(placement)])))
    assert len(seen) == len(scattered_fields(IR, RGB))


def test_starts_beside_a_placement_begin_with_it_and_differ() -> None:
    placement = torch.tensor([[3.0, 0.2, 100], [-0.1, 2.8, 50], [1e-4, 0, 1]], dtype=torch.float64)
    starts = beside(placement, IR)
    assert len(starts) == 1 + len(BESIDE)
    assert torch.equal(starts[0], placement)
    for k, one in enumerate(starts):
        assert not any(torch.allclose(one, other) for other in starts[k + 1 :])


def test_starts_beside_are_shifts_turns_and_scales_of_the_frame() -> None:
    starts = beside(torch.eye(3, dtype=torch.float64), IR)[1:]
    for (turn, scale, x, y), start in zip(BESIDE, starts, strict=True):
        assert centre(start) == pytest.approx([79.5 + x * 160, 59.5 + y * 120])
        assert area(start) == pytest.approx(scale**2 * 159 * 119)
        # Seen in the square frame of the model, the turn is one.
        square = np.diag([1 / 160, 1 / 120, 1]) @ start.numpy() @ np.diag([160, 120, 1])
        assert np.degrees(np.arctan2(square[1, 0], square[0, 0])) == pytest.approx(turn)


def test_priors_are_spread_over_the_pairs() -> None:
    matrix = np.diag([2.0, 2.0, 2.0])
    (first, second) = spread_priors(["auto", matrix], 2)
    assert first is None
    assert second is not None
    assert torch.equal(second, torch.eye(3, dtype=torch.float64))
    assert spread_priors("auto", 3) == [None] * 3
