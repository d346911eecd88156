"""Narrow fields of view: infrared pictures that show a quarter of the RGB picture's width, anywhere in it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from homoreg import Registrar
from homoreg.imaging.resampling import map_points
from tests.samples import NAMES, SAMPLES, read_pair

PLACES = ((0.5, 0.5), (0.3, 0.35), (0.7, 0.65))  # centres of the parts, as shares of the infrared picture
SHARE = 0.25  # of the RGB picture's width
RIGHT = 10.0  # px at n = 128: in parts this narrow the references are up to 8 px off


def corners(width: int, height: int) -> NDArray[np.float64]:
    return np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)


def register_parts(registrar: Registrar, name: str) -> list[tuple[float, bool]]:
    """Error in px at n = 128, and whether the answer calls itself reliable, for each place."""
    truth = np.array(json.loads((SAMPLES / name / "gt.json").read_text())["H_ir_to_rgb"], np.float64)
    ir, rgb = read_pair(name)
    height, width = ir.shape[:2]
    top = map_points(truth, corners(width, height))[:2]
    wide = round(SHARE * rgb.shape[1] * (width - 1) / float(np.linalg.norm(top[1] - top[0])))
    high = round(wide * height / width)
    found = []
    for u, v in PLACES:
        left, upper = round(u * width - wide / 2), round(v * height - high / 2)
        part = np.ascontiguousarray(ir[upper : upper + high, left : left + wide])
        result = registrar(part, rgb)
        wanted = map_points(truth, corners(wide, high) + np.array([left, upper]))
        error = np.linalg.norm(result.corners - wanted, axis=1).mean()
        side = np.linalg.norm(np.roll(wanted, -1, axis=0) - wanted, axis=1).mean()
        found.append((float(error / side * 128), result.reliable))
    return found


@pytest.fixture(scope="module")
def parts() -> list[tuple[float, bool]]:
    registrar = Registrar.from_pretrained("m120")
    return [one for name in NAMES for one in register_parts(registrar, name)]


def test_about_half_of_them_are_found(parts: list[tuple[float, bool]]) -> None:
    assert sum(error < RIGHT for error, _ in parts) >= 7


def test_nearly_all_that_are_not_found_are_unreliable(parts: list[tuple[float, bool]]) -> None:
    """One may not be: a pier repeats itself from post to post."""
    assert sum(reliable for _, reliable in parts) >= 5
    assert sum(error > RIGHT and reliable for error, reliable in parts) <= 1
