from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from homoreg.errors import InputError
from homoreg.geometry import image_corners, transform_points
from homoreg.imaging.metadata import Camera
from homoreg.imaging.reading import Picture, read_image
from homoreg.imaging.tone import fit_tone
from homoreg.priors import (
    BESIDE,
    FIELD_RATIOS,
    MOST_SHAPE,
    beside,
    beyond_reach,
    fields_of_view,
    same_view,
    scattered_fields,
    spread_priors,
    strain,
)
from homoreg.registration import Registration

IR, RGB = (160, 120), (1280, 720)
TURNED = torch.tensor([[5.9, -1.2, 30], [1.2, 5.9, -5], [0, 0, 1]], dtype=torch.float64)


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


def shape(placement: torch.Tensor) -> float:
    return float(placement[0, 0] / placement[1, 1])


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((1280, 960), 1.0),  # of one aspect
        ((1280, 720), (16 / 9 / (4 / 3)) ** 0.5),  # halfway to the aspect of the RGB picture
        ((960, 1280), 1 / MOST_SHAPE),
        ((3000, 1000), MOST_SHAPE),
    ],
)
def test_fields_are_halfway_to_those_of_a_stretched_picture(rgb: tuple[int, int], expected: float) -> None:
    for one in (*fields_of_view(IR, rgb), *scattered_fields(IR, rgb)):
        assert shape(one) == pytest.approx(expected)
    for one in fields_of_view(IR, rgb, square=True):
        assert shape(one) == pytest.approx(1.0)


def test_fields_of_pictures_a_quarter_turn_apart_keep_square_pixels() -> None:
    found = starts("auto", "any", ir=(120, 160))
    count = len(FIELD_RATIOS)
    upright, turned = found[:count], found[count : 2 * count]
    assert shape(upright[0]) == pytest.approx(MOST_SHAPE)
    for one in turned:
        assert float(one[0, 1].abs()) == pytest.approx(float(one[1, 0].abs()))


def test_scattered_fields_lie_beside_the_centre_within_the_picture() -> None:
    seen = set()
    for placement in scattered_fields(IR, RGB):
        quad = transform_points(placement, image_corners(*IR, dtype=torch.float64))
        inside = (quad > -0.15 * torch.tensor(RGB)) & (quad < 1.15 * torch.tensor(RGB))
        assert bool(inside.all())
        seen.add(tuple(np.round([*centre(placement), area(placement)])))
    assert len(seen) == len(scattered_fields(IR, RGB))


@pytest.mark.parametrize("ratio", [0.25, 0.3, 0.35, 0.4])
def test_every_narrow_part_is_near_a_field(ratio: float) -> None:
    """Within a quarter of the frame and of its size, which is how far a model looks around."""
    fields = []
    for one in (*fields_of_view(IR, RGB), *scattered_fields(IR, RGB)):
        fields.append((*(centre(one) / RGB), (area(one) / (1280 * 720) * (160 * 120) / (159 * 119)) ** 0.5))
    places = np.linspace(ratio / 2, 1 - ratio / 2, 12)
    for x in places:
        for y in places:
            assert any(
                max(abs(x - u), abs(y - v)) <= size / 4 + 1e-3 and 0.75 < ratio / size < 1.34
                for u, v, size in fields
            ), (x, y)


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


def pictures(ir: tuple[int, int] = IR, rgb: tuple[int, int] = RGB) -> tuple[Picture, Picture]:
    infrared, colour = np.zeros(ir[::-1], np.uint8), np.zeros((*rgb[::-1], 3), np.uint8)
    return read_image(infrared, role="ir"), read_image(colour, role="rgb")


def starts(prior: Any, orientation: str = "upright", ir: tuple[int, int] = IR) -> list[torch.Tensor]:
    (guess,) = spread_priors(prior, orientation, 1)
    return guess.starts(*pictures(ir))


def test_priors_are_spread_over_the_pairs() -> None:
    matrix = np.diag([2.0, 2.0, 2.0])
    first, second = spread_priors(["auto", matrix], "upright", 2)
    assert first.place is None
    assert torch.equal(second.starts(*pictures())[0], torch.eye(3, dtype=torch.float64))
    assert len(spread_priors("auto", "upright", 3)) == 3
    assert [len(one.starts(*pictures())) for one in spread_priors([0.5, 0.7], "upright", 2)] == [1, 1]


def test_without_a_prior_or_metadata_all_fields_are_compared() -> None:
    assert len(starts("auto")) == len(FIELD_RATIOS)


def test_metadata_go_first_and_all_fields_remain_for_the_doubtful() -> None:
    ir, rgb = pictures()
    ir = dataclasses.replace(ir, camera=Camera(focal_length_35mm=80.0))
    rgb = dataclasses.replace(rgb, camera=Camera(focal_length_35mm=40.0))
    (guess,) = spread_priors("auto", "upright", 1)
    found = guess.starts(ir, rgb)
    assert centre(found[0]) == pytest.approx([639.5, 359.5])
    diagonals = np.hypot(*IR), np.hypot(*RGB)
    assert float(found[0][0, 0]) == pytest.approx(0.5 * diagonals[1] / diagonals[0])
    assert [float(one[0, 0] / found[0][0, 0]) for one in found] == pytest.approx([1.0, 0.88, 1.14])
    without = guess.others(found[0], *pictures())
    assert len(guess.others(found[0], ir, rgb)) == len(without) + len(FIELD_RATIOS)


def test_the_same_view_is_one_start() -> None:
    (start,) = starts("same-view")
    assert torch.equal(start, same_view(IR, RGB))


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0, 1.5])
def test_a_number_is_the_share_of_the_width(share: float) -> None:
    (start,) = starts(share)
    assert centre(start) == pytest.approx([639.5, 359.5])
    assert float(start[0, 0]) == pytest.approx(share * 1280 / 160)
    assert float(start[1, 1]) == pytest.approx(float(start[0, 0])), "square pixels"


def test_an_earlier_registration_is_carried_over_to_other_sizes() -> None:
    ir, rgb = pictures((320, 240), (640, 360))
    homography = np.array([[1.1, 0.02, 140], [-0.01, 1.2, 30], [1e-5, 0, 1]])
    earlier = Registration.build(
        homography,
        ir=ir,
        rgb=rgb,
        ir_tone=fit_tone(ir, "ir"),
        rgb_tone=fit_tone(rgb, "rgb"),
        expected_error=1.0,
        confidence=0.9,
        reliable=True,
        model="m",
        status="ok",
    )
    (start,) = starts(earlier)
    there = transform_points(start, torch.tensor([[79.5, 59.5]], dtype=torch.float64))
    middle = transform_points(torch.from_numpy(homography), torch.tensor([[159.5, 119.5]]).double())
    assert ((there + 0.5) / 2 - 0.5).numpy() == pytest.approx(middle.numpy())
    (same,) = spread_priors(earlier, "upright", 1)
    assert same.starts(ir, rgb)[0].numpy() == pytest.approx(homography)


def test_any_orientation_tries_quarter_turns_and_mirror_images() -> None:
    found = starts(0.5, "any")
    assert len(found) == 8
    assert torch.allclose(found[0], starts(0.5)[0])
    corners = image_corners(*IR, dtype=torch.float64)
    quads = [transform_points(one, corners) for one in found]
    for quad in quads:
        assert quad.mean(0).numpy() == pytest.approx([639.5, 359.5])
    signs = [float(torch.det(one[:2, :2]).sign()) for one in found]
    assert signs == [1.0] * 4 + [-1.0] * 4
    for k, quad in enumerate(quads):
        assert not any(torch.allclose(quad, other, atol=1.0) for other in quads[k + 1 :])
    upside_down = quads[2]
    assert torch.allclose(upside_down, quads[0].roll(2, 0))
    mirrored = quads[4]
    assert torch.allclose(mirrored, quads[0][[1, 0, 3, 2]])


def test_an_unknown_orientation_is_refused() -> None:
    with pytest.raises(InputError, match="orientation is 'left'; expected 'upright' or 'any'"):
        starts("auto", "left")


@pytest.mark.parametrize("mirror", [1, -1])
def test_similarities_are_not_strained(mirror: int) -> None:
    turned = torch.tensor([[0.9, -1.2 * mirror, 30], [1.2, 0.9 * mirror, -5], [0, 0, 1]], dtype=torch.float64)
    assert strain(turned, IR, RGB) == pytest.approx(0, abs=1e-9)


def test_the_strain_is_in_px_at_128() -> None:
    """Scales of 3.3 and 3.0 are 5 % off the similarity of 3.15 between them, along both axes."""
    for side in (128, 640):
        stretched = torch.diag(torch.tensor([3.3, 3.0, 1.0], dtype=torch.float64))
        half = (side - 1) / 2 * 128 / side
        assert strain(stretched, (side, side), (500, 500)) == pytest.approx(half * 2**0.5 * 0.15 / 3.15)


def test_a_stretched_rgb_picture_is_no_strain() -> None:
    """As that of a 4:3 camera in a 16:9 file."""
    stretch = torch.diag(torch.tensor([1.0, 0.75, 1.0], dtype=torch.float64))
    assert strain(stretch @ TURNED, IR, RGB) == pytest.approx(0, abs=1e-9)
    assert strain(stretch @ TURNED, IR, (800, 600)) > 5


@pytest.mark.parametrize("ir", [(128, 128), (640, 512)])
def test_within_a_quarter_of_its_sides_a_placement_is_in_reach_of_the_start(ir: tuple[int, int]) -> None:
    width, height = ir
    for right, down, beyond in [(0.25, -0.25, 0), (-0.2, 0.3, 4 * 0.05 * 128), (0.35, -0.3, 4 * 0.15 * 128)]:
        move = torch.tensor([[1, 0, right * width], [0, 1, down * height], [0, 0, 1]], dtype=torch.float64)
        found = beyond_reach(TURNED @ move, TURNED, ir)
        assert found == pytest.approx(beyond, abs=1e-9), "added up over four corners, at 128 px"


def test_a_placement_with_a_corner_on_the_horizon_is_out_of_reach() -> None:
    horizon = torch.eye(3, dtype=torch.float64)
    horizon[2, 0] = -1 / (IR[0] - 1)
    assert beyond_reach(horizon, torch.eye(3, dtype=torch.float64), IR) == math.inf
