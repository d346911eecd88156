"""What a change of the pictures that a matrix describes does to the answer: that matrix, and no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from homoreg import Registrar, Registration
from tests.samples import read_pair

Pixels: TypeAlias = NDArray[Any]
Matrix: TypeAlias = NDArray[np.float64]
Change: TypeAlias = Callable[[Pixels, Pixels], tuple[Pixels, Pixels, Matrix, Matrix]]

SAME = np.eye(3)


def resize(image: Pixels, factor: float) -> tuple[Pixels, Matrix]:
    """The resized image, and the map of its px to those of the image."""
    height, width = image.shape[:2]
    size = round(width * factor), round(height * factor)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    sx, sy = width / size[0], height / size[1]
    back = np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]])
    return cv2.resize(image, size, interpolation=method), back


def mirror(image: Pixels) -> tuple[Pixels, Matrix]:
    return np.ascontiguousarray(image[:, ::-1]), np.array(
        [[-1.0, 0, image.shape[1] - 1], [0, 1, 0], [0, 0, 1]]
    )


def shift(x: float, y: float) -> Matrix:
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def smaller_rgb(ir: Pixels, rgb: Pixels) -> tuple[Pixels, Pixels, Matrix, Matrix]:
    small, back = resize(rgb, 0.7)
    return ir, small, SAME, back


def larger_rgb(ir: Pixels, rgb: Pixels) -> tuple[Pixels, Pixels, Matrix, Matrix]:
    large, back = resize(rgb, 2.0)
    return ir, large, SAME, back


def smaller_infrared(ir: Pixels, rgb: Pixels) -> tuple[Pixels, Pixels, Matrix, Matrix]:
    small, back = resize(ir, 0.5)
    return small, rgb, back, SAME


def padded_rgb(ir: Pixels, rgb: Pixels) -> tuple[Pixels, Pixels, Matrix, Matrix]:
    return ir, np.pad(rgb, ((30, 20), (40, 10), (0, 0)), mode="edge"), SAME, shift(-40, -30)


def cropped_infrared(ir: Pixels, rgb: Pixels) -> tuple[Pixels, Pixels, Matrix, Matrix]:
    return np.ascontiguousarray(ir[24:-16, 20:-30]), rgb, shift(20, 24), SAME


def both_mirrored(ir: Pixels, rgb: Pixels) -> tuple[Pixels, Pixels, Matrix, Matrix]:
    (ir, ir_back), (rgb, rgb_back) = mirror(ir), mirror(rgb)
    return ir, rgb, ir_back, rgb_back


def opposite_polarity(ir: Pixels, rgb: Pixels) -> tuple[Pixels, Pixels, Matrix, Matrix]:
    return ir.max() - ir + ir.min(), rgb, SAME, SAME


def eight_bits(ir: Pixels, rgb: Pixels) -> tuple[Pixels, Pixels, Matrix, Matrix]:
    low, high = np.percentile(ir, [0.5, 99.5])
    return ((ir - low) / (high - low) * 255).clip(0, 255).astype(np.uint8), rgb, SAME, SAME


def sixteen_bit_rgb(ir: Pixels, rgb: Pixels) -> tuple[Pixels, Pixels, Matrix, Matrix]:
    return ir, rgb.astype(np.uint16) * 257, SAME, SAME


def palette(ir: Pixels, rgb: Pixels) -> tuple[Pixels, Pixels, Matrix, Matrix]:
    grey = eight_bits(ir, rgb)[0]
    grey = grey if grey.ndim == 2 else grey[..., 0]
    return np.ascontiguousarray(cv2.applyColorMap(grey, cv2.COLORMAP_JET)[..., ::-1]), rgb, SAME, SAME


def floats(ir: Pixels, rgb: Pixels) -> tuple[Pixels, Pixels, Matrix, Matrix]:
    return ir.astype(np.float32) * 0.04 - 273.15, rgb, SAME, SAME


CHANGES: list[Change] = [
    smaller_rgb,
    larger_rgb,
    smaller_infrared,
    padded_rgb,
    cropped_infrared,
    both_mirrored,
    opposite_polarity,
    eight_bits,
    sixteen_bit_rgb,
    palette,
    floats,
]


@pytest.fixture(scope="module")
def registrar() -> Registrar:
    return Registrar.from_pretrained("m120")


@pytest.fixture(scope="module", params=["sea_ice", "pier"])
def case(request: pytest.FixtureRequest, registrar: Registrar) -> tuple[Pixels, Pixels, Registration]:
    ir, rgb = read_pair(request.param)
    return ir, rgb, registrar(ir, rgb)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_the_mapped_corners_move_by_less_than_the_error(
    registrar: Registrar, case: tuple[Pixels, Pixels, Registration], change: Change
) -> None:
    ir, rgb, before = case
    ir, rgb, ir_back, rgb_back = change(ir, rgb)
    after = rgb_back @ registrar(ir, rgb).homography @ np.linalg.inv(ir_back)
    width, height = before.ir.size
    corners = np.array([[0, 0, 1], [width - 1, 0, 1], [width - 1, height - 1, 1], [0, height - 1, 1]], float)
    moved = corners @ after.T
    distance = np.linalg.norm(moved[:, :2] / moved[:, 2:] - before.corners, axis=1).mean()
    assert distance < before.expected_error


@pytest.mark.parametrize(("turns", "mirrored"), [(1, False), (2, False), (3, True)])
def test_turned_and_mirrored_sensors_are_found_where_asked_for(
    registrar: Registrar, turns: int, mirrored: bool
) -> None:
    ir, rgb = read_pair("sea_ice")
    before = registrar(ir, rgb)
    height, width = ir.shape
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    pixels, columns, rows = (
        np.ascontiguousarray(np.rot90(one[:, ::-1] if mirrored else one, turns)) for one in (ir, x, y)
    )
    after = registrar(pixels, rgb, orientation="any")
    assert after.reliable
    places = [(0, 0), (0, -1), (-1, -1), (-1, 0)]
    turned_height, turned_width = pixels.shape
    here = np.array([[column % turned_width, row % turned_height, 1] for row, column in places], np.float64)
    there = here @ after.homography.T
    original = np.array([[columns[place], rows[place], 1] for place in places], np.float64)
    expected = original @ before.homography.T
    distance = np.linalg.norm(there[:, :2] / there[:, 2:] - expected[:, :2] / expected[:, 2:], axis=1).mean()
    assert distance < before.expected_error
