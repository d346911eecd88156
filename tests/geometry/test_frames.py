from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry import (
    compose,
    crop_matrix,
    fit_matrix,
    image_corners,
    invert_homography,
    pad_matrix,
    resize_matrix,
    square_prior,
    transform_points,
)
from tests.geometry.maps import double, quick

factors = st.floats(0.05, 20)
sides = st.integers(1, 5000)


def close(actual: Tensor, expected: Tensor, atol: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-9)


@quick
@given(factors, factors, st.floats(-100, 5000), st.floats(-100, 5000))
def test_resizing_keeps_edges_on_edges(sx: float, sy: float, x: float, y: float) -> None:
    mapped = transform_points(resize_matrix(sx, sy), double([[x, y], [-0.5, -0.5]]))
    close(mapped, double([[sx * (x + 0.5) - 0.5, sy * (y + 0.5) - 0.5], [-0.5, -0.5]]))


@pytest.mark.parametrize(("old", "new"), [(12, 24), (12, 36), (24, 12), (30, 10)])
def test_resizing_agrees_with_opencv(old: int, new: int) -> None:
    ramp = np.tile(np.arange(old, dtype=np.float32), (4, 1))
    resized = cv2.resize(ramp, (new, 4), interpolation=cv2.INTER_LINEAR)
    where = transform_points(resize_matrix(old / new, 1.0), double([[float(x), 0.0] for x in range(new)]))[
        :, 0
    ].clamp(0, old - 1)
    np.testing.assert_allclose(resized[0], where.numpy(), atol=1e-5)


@quick
@given(factors, factors)
def test_resizing_back_is_the_inverse(sx: float, sy: float) -> None:
    close(compose(resize_matrix(1 / sx, 1 / sy), resize_matrix(sx, sy)), torch.eye(3, dtype=torch.float64))
    close(invert_homography(resize_matrix(sx, sy)), resize_matrix(1 / sx, 1 / sy))


@quick
@given(sides, sides, sides, sides)
def test_fitting_takes_outer_edges_to_outer_edges(w: int, h: int, w2: int, h2: int) -> None:
    edges = double([[-0.5, -0.5], [w - 0.5, h - 0.5]])
    expected = double([[-0.5, -0.5], [w2 - 0.5, h2 - 0.5]])
    close(transform_points(fit_matrix((w, h), (w2, h2)), edges), expected)


def test_cropping_moves_the_crop_to_the_origin_and_padding_away_from_it() -> None:
    close(transform_points(crop_matrix(5, 7), double([[5, 7]])), double([[0, 0]]))
    close(transform_points(pad_matrix(5, 7), double([[0, 0]])), double([[5, 7]]))
    close(compose(pad_matrix(2.5, 3.5), crop_matrix(2.5, 3.5)), torch.eye(3, dtype=torch.float64))


def test_the_prior_centres_the_template_in_the_search_frame() -> None:
    assert square_prior(128).tolist() == [[1, 0, 32], [0, 1, 32], [0, 0, 1]]
    quad = transform_points(square_prior(96), image_corners(96, 96, dtype=torch.float64))
    close(quad.mean(0), image_corners(144, 144, dtype=torch.float64).mean(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda dtype: resize_matrix(2, 3, dtype=dtype),
        lambda dtype: crop_matrix(2, 3, dtype=dtype),
        lambda dtype: pad_matrix(2, 3, dtype=dtype),
        lambda dtype: fit_matrix((2, 3), (4, 5), dtype=dtype),
        lambda dtype: square_prior(64, dtype=dtype),
    ],
)
def test_the_type_can_be_chosen(make: Callable[[torch.dtype], Tensor]) -> None:
    for dtype in (torch.float32, torch.float64):
        matrix = make(dtype)
        assert matrix.dtype == dtype
        assert matrix.shape == (3, 3)


@pytest.mark.parametrize("factor", [0, -1, math.nan, math.inf])
def test_factors_that_are_not_positive_are_named(factor: float) -> None:
    with pytest.raises(InputError, match=f"resize factors are {factor} and 1; both must be positive and fin"):
        resize_matrix(factor, 1)
    with pytest.raises(InputError, match=f"resize factors are 1 and {factor}"):
        resize_matrix(1, factor)


@pytest.mark.parametrize(("source", "target"), [((0, 4), (4, 4)), ((4, 4), (4, -1))])
def test_empty_frames_are_named(source: tuple[int, int], target: tuple[int, int]) -> None:
    with pytest.raises(
        InputError, match=r"frames are \(.*\) and \(.*\) \(width, height\); every side must be"
    ):
        fit_matrix(source, target)
