from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from homoreg.errors import InputError
from homoreg.geometry import fit_matrix, transform_points
from homoreg.imaging.resampling import (
    Matrix,
    clip_frame,
    map_points,
    resample,
    resize_matrix,
    share_inside,
)
from tests.imaging.pictures import HEIGHT, WIDTH, Array, colour, counts, grey

EYE = np.eye(3)


def shift(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


# --- resample ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", [grey(), counts(), colour(), counts().astype(np.float32)])
@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_the_identity_changes_nothing(pixels: Array, interpolation: Any) -> None:
    warped, valid = resample(pixels, EYE, (WIDTH, HEIGHT), interpolation=interpolation)
    assert warped.dtype == pixels.dtype
    np.testing.assert_array_equal(warped, pixels)
    assert valid.dtype == np.bool_
    assert valid.all()


def test_a_whole_shift_moves_pixels_and_fills_the_rest() -> None:
    warped, valid = resample(counts(), shift(3, 2), (WIDTH, HEIGHT), fill=65535)
    np.testing.assert_array_equal(warped[2:, 3:], counts()[:-2, :-3])
    assert valid[2:, 3:].all()
    assert not valid[:2].any()
    assert not valid[:, :3].any()
    assert (warped[~valid] == 65535).all()


def test_half_a_pixel_is_the_mean_of_two_at_integer_centres() -> None:
    ramp = np.tile(np.arange(WIDTH, dtype=np.float32) * 100, (HEIGHT, 1))
    warped, _ = resample(ramp, shift(0.5, 0), (WIDTH, HEIGHT))
    np.testing.assert_allclose(warped[:, 1:], ramp[:, 1:] - 50, atol=1e-3)


def test_counts_are_interpolated_at_16_bits() -> None:
    ramp = np.tile(7300 + np.arange(WIDTH, dtype=np.uint16) * 10, (HEIGHT, 1))
    warped, _ = resample(ramp, shift(0.5, 0), (WIDTH, HEIGHT))
    np.testing.assert_array_equal(warped[:, 1:], ramp[:, 1:] - 5)


def test_nearest_takes_over_only_values_that_are_there() -> None:
    homography = np.array([[1.7, 0.3, -4], [-0.2, 1.4, 6], [1e-3, 2e-3, 1]])
    warped, valid = resample(counts(), homography, (90, 70), interpolation="nearest")
    assert valid.any()
    assert set(warped[valid].tolist()) <= set(counts().reshape(-1).tolist())


def test_every_pixel_goes_where_the_homography_says() -> None:
    homography = np.array([[1.9, 0.2, 5], [-0.3, 1.6, 30], [1e-3, -5e-4, 1]])
    points = np.array([[5, 5], [20, 3], [33, 20], [11, 17]])
    for x, y in points:
        dot = np.zeros((HEIGHT, WIDTH), np.float32)
        dot[y, x] = 1
        warped, _ = resample(dot, homography, (120, 100))
        rows, columns = np.indices(warped.shape)
        centre = [(warped * columns).sum() / warped.sum(), (warped * rows).sum() / warped.sum()]
        # The blob's centre of mass: within a fifth of a pixel, for a bilinear kernel seen in perspective.
        np.testing.assert_allclose(centre, map_points(homography, np.array([[x, y]]))[0], atol=0.2)


def test_inside_it_agrees_with_plain_opencv() -> None:
    homography = np.array([[1.2, 0.1, -3], [0.05, 1.3, 4], [1e-3, 1e-3, 1]])
    warped, valid = resample(counts(), homography, (60, 50))
    plain = cv2.warpPerspective(counts(), homography, (60, 50))
    inner = cv2.erode(valid.astype(np.uint8), np.ones((5, 5))).astype(bool)
    assert inner.sum() > 500
    np.testing.assert_array_equal(warped[inner], plain[inner])


def test_the_edge_is_not_blended_with_the_fill() -> None:
    bright = np.full((HEIGHT, WIDTH), 7800, np.uint16)
    warped, valid = resample(bright, shift(0.3, 0.4), (WIDTH, HEIGHT))
    assert set(np.unique(warped[valid])) == {7800}


def test_enlarging_covers_the_whole_target() -> None:
    size = (WIDTH * 4, HEIGHT * 4)
    warped, valid = resample(grey(), resize_matrix((WIDTH, HEIGHT), size), size)
    assert valid.all()
    expected = cv2.resize(grey(), size, interpolation=cv2.INTER_LINEAR)
    assert np.abs(warped.astype(int) - expected).max() <= 1


def test_the_mask_of_the_source_travels_along() -> None:
    mask = np.ones((HEIGHT, WIDTH), np.bool_)
    mask[:, :10] = False
    _, valid = resample(grey(), shift(5, 0), (WIDTH, HEIGHT), mask=mask)
    assert not valid[:, :15].any()
    assert valid[:, 15:].all()


def test_what_lies_behind_the_horizon_is_not_valid() -> None:
    # The third coordinate is x / 50 - 1 seen from the far side: columns of the source beyond x = 50 fold back
    # into negative target coordinates, which the shift brings into view.
    fold = shift(400, 0) @ np.array([[1, 0, 0], [0, 1, 0], [-1 / 50, 0, 1]])
    source = np.full((100, 100), 200, np.uint8)
    plain = cv2.warpPerspective(source, fold, (600, 100), flags=cv2.INTER_NEAREST) > 0
    warped, valid = resample(source, fold, (600, 100))
    columns = np.nonzero(valid.any(axis=0))[0]
    assert plain[:, :300].any()  # the ghost is there to be seen
    assert not valid[:, :300].any()
    assert columns.min() >= 399  # x = 0 lands at 400, and everything before the horizon right of it
    assert (warped[~valid] == 0).all()


def test_nothing_in_sight_is_all_fill() -> None:
    warped, valid = resample(counts(), shift(1e6, 1e6), (30, 20), fill=9)
    assert not valid.any()
    assert (warped == 9).all()


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [(np.uint8, 256), (np.uint8, -1), (np.uint16, 65536), (np.uint8, 0.5), (np.uint8, float("nan"))],
)
def test_a_fill_that_does_not_fit_is_refused(dtype: Any, fill: float) -> None:
    top = np.iinfo(dtype).max
    with pytest.raises(
        InputError, match=rf"expected an integer from 0 to {top} for {np.dtype(dtype)} pixels"
    ):
        resample(np.zeros((20, 20), dtype), EYE, (20, 20), fill=fill)


def test_floats_may_be_filled_with_nan() -> None:
    warped, valid = resample(np.ones((20, 20), np.float32), shift(5, 0), (20, 20), fill=float("nan"))
    np.testing.assert_array_equal(np.isnan(warped), ~valid)


def test_an_unknown_interpolation_is_refused() -> None:
    with pytest.raises(InputError, match="interpolation is 'cubic'; expected 'linear' or 'nearest'"):
        resample(grey(), EYE, (20, 20), interpolation="cubic")  # type: ignore[arg-type]


def test_what_opencv_cannot_do_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise cv2.error("dst.cols < SHRT_MAX")

    monkeypatch.setattr(cv2, "warpPerspective", fail)
    with pytest.raises(InputError, match=r"cannot warp 40 x 24 px onto 50000 x 20 px; .* tile the images"):
        resample(grey(), EYE, (50_000, 20))


# --- frames ------------------------------------------------------------------------------------------------


def test_resizing_keeps_the_outer_edges() -> None:
    matrix = resize_matrix((10, 20), (40, 10))
    edges = map_points(matrix, np.array([[-0.5, -0.5], [9.5, 19.5]]))
    np.testing.assert_allclose(edges, [[-0.5, -0.5], [39.5, 9.5]])


def test_the_maps_are_those_of_the_geometry() -> None:
    # Two of one kind: pictures are warped in NumPy, without PyTorch; the models' frames in PyTorch.
    matrix = np.array([[1.1, 0.2, 3], [-0.1, 0.9, 5], [1e-3, -2e-3, 1]])
    points = np.random.default_rng(0).uniform(-50, 50, (20, 2))
    twin = transform_points(torch.from_numpy(matrix), torch.from_numpy(points)).numpy()
    np.testing.assert_allclose(map_points(matrix, points), twin, rtol=1e-12)
    np.testing.assert_allclose(
        resize_matrix((640, 512), (128, 96)), fit_matrix((640, 512), (128, 96)).numpy()
    )


def test_points_on_the_horizon_go_to_infinity() -> None:
    homography = np.array([[1, 0, 0], [0, 1, 0], [-0.1, 0, 1]])
    assert np.isinf(map_points(homography, np.array([[10, 5]]))).all()


@pytest.mark.parametrize(
    ("homography", "share"),
    [
        (EYE, 1.0),
        (shift(50, 0), 0.5),
        (shift(-50, 40), 0.25),
        (shift(100, 0), 0.0),
        (shift(-1e9, 0), 0.0),
        (np.diag([2.0, 2.0, 1.0]), 0.25),
        (np.diag([0.1, 0.1, 1.0]), 1.0),
        (np.diag([-1.0, 1.0, 1.0]), 0.0),
    ],
)
def test_known_overlaps(homography: Matrix, share: float) -> None:
    # Scaling about (0, 0), not about the outer corner, moves the edges by part of a pixel: hence 0.01.
    assert share_inside(homography, (100, 80), (100, 80)) == pytest.approx(share, abs=0.01)


def test_a_rotated_frame_overlaps_by_the_known_octagon() -> None:
    # A unit square and the same turned by 45 degrees share 2 * (sqrt(2) - 1) of their area.
    half = np.sqrt(0.5)
    turn = np.array([[half, -half, 0], [half, half, 0], [0, 0, 1]])
    homography = shift(49.5, 49.5) @ turn @ shift(-49.5, -49.5)
    assert share_inside(homography, (100, 100), (100, 100)) == pytest.approx(2 * (np.sqrt(2) - 1), abs=1e-9)


def test_only_the_part_before_the_horizon_overlaps() -> None:
    homography = np.array([[1, 0, 0], [0, 1, 0], [-1 / 50, 0, 1]])
    polygon = clip_frame(homography, (100, 80), (10**7, 10**7))
    assert polygon[:, 0].max() < 50
    assert share_inside(homography, (100, 80), (10**9, 10**9)) == pytest.approx(0.5, abs=0.02)


def test_the_margin_extends_the_target() -> None:
    assert share_inside(shift(100, 0), (100, 80), (100, 80)) == 0
    polygon = clip_frame(shift(100, 0), (100, 80), (100, 80), margin=100)
    np.testing.assert_allclose(
        sorted(map(tuple, polygon)), [(-0.5, -0.5), (-0.5, 79.5), (99.5, -0.5), (99.5, 79.5)]
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-60, 60), min_size=8, max_size=8),
    st.tuples(st.integers(20, 80), st.integers(20, 80)),
)
def test_the_overlap_is_the_share_of_pixels_that_land_inside(
    moves: list[float], target: tuple[int, int]
) -> None:
    corners = np.array([[0, 0], [99, 0], [99, 79], [0, 79]], np.float32)
    homography = cv2.getPerspectiveTransform(corners, corners + np.array(moves, np.float32).reshape(4, 2))
    if abs(homography[2, 2]) < 1e-6 or not np.isfinite(homography).all():
        return
    homography = (homography / homography[2, 2]).astype(np.float64)
    x, y = np.meshgrid(np.linspace(-0.5, 99.5, 201), np.linspace(-0.5, 79.5, 161))
    lifted = homography @ np.stack([x.reshape(-1), y.reshape(-1), np.ones(x.size)])
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = lifted[:2] / lifted[2]
    inside = (lifted[2] > 0) & (u >= -0.5) & (u <= target[0] - 0.5) & (v >= -0.5) & (v <= target[1] - 0.5)
    assert share_inside(homography, (100, 80), target) == pytest.approx(inside.mean(), abs=0.015)
