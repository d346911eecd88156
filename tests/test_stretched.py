"""Pictures that were stretched in one direction, as on export to another aspect."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from homoreg import Registrar
from homoreg.imaging.resampling import map_points, resize_matrix
from tests.samples import read_pair


@pytest.fixture(scope="module")
def registrar() -> Registrar:
    return Registrar.from_pretrained("m120")


def stretched(image: NDArray[np.uint8], factor: float) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The image with its width changed, and the map of its px to those of the image."""
    height, width = image.shape[:2]
    size = round(width * factor), height
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=method)), resize_matrix(size, (width, height))


@pytest.mark.parametrize("name", ["sea_ice", "building"])
@pytest.mark.parametrize(("side", "factor"), [("ir", 0.75), ("ir", 1.33), ("rgb", 0.75), ("rgb", 1.33)])
def test_a_stretch_changes_the_mapped_corners_by_less_than_the_error(
    registrar: Registrar, name: str, side: str, factor: float
) -> None:
    ir, rgb = read_pair(name)
    before = registrar(ir, rgb)
    assert before.reliable
    picture, back = stretched(ir if side == "ir" else rgb, factor)
    after = registrar(picture, rgb) if side == "ir" else registrar(ir, picture)
    assert after.reliable
    height, width = after.ir.pixels.shape[:2]
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)
    if side == "ir":
        there, wanted = after.corners, map_points(before.homography @ back, corners)
    else:
        there, wanted = map_points(back, after.corners), before.corners
    assert np.linalg.norm(there - wanted, axis=1).mean() < before.expected_error
