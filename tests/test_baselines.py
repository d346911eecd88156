from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from homoreg.baselines import BASELINES, Baseline, BaselineResult, ecc, get_baseline, nothing, sift
from homoreg.errors import InputError, UnknownNameError
from homoreg.metrics import corner_error
from homoreg.synthesis.dataset import corners_to_homography
from tests.scenes import Bytes, Floats, cut, infrared_of, scene, shifted_square

N = 128
PRIOR = np.array([[1, 0, 32], [0, 1, 32], [0, 0, 1]], np.float64)
FLAT = np.full((N, N, 3), 90, np.uint8)


def pair(reach: int, seed: int = 3) -> tuple[Bytes, Bytes, Floats]:
    """Infrared template, RGB search image and the true homography, displaced by up to ``reach`` px."""
    rgb = scene(192, 192, seed=seed)
    corners = shifted_square(N, reach, seed=seed)
    return cut(rgb, corners, N), rgb, corners_to_homography(corners, N)


def error(result: BaselineResult, true: Floats) -> float:
    return float(corner_error(torch.from_numpy(result.homography), torch.from_numpy(true), N))


def noise(seed: int, side: int = N) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)


# --- what they find -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [5, 6, 7])
def test_sift_finds_a_large_displacement(seed: int) -> None:
    ir, rgb, true = pair(32, seed)
    result = sift(ir, rgb, PRIOR)
    assert result.ok
    assert error(result, true) < 1
    assert result.homography[2, 2] == 1
    assert str(result.homography.dtype) == "float64"


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_ecc_refines_a_small_displacement(seed: int) -> None:
    ir, rgb, true = pair(5, seed)
    result = ecc(ir, rgb, PRIOR)
    assert result.ok
    assert error(result, true) < 1 < 2 < error(nothing(ir, rgb, PRIOR), true)


def test_ecc_does_not_mind_polarity() -> None:
    ir, rgb, true = pair(5)
    assert error(ecc(255 - ir, rgb, PRIOR), true) < 1


def test_ecc_starts_at_the_prior_and_keeps_its_perspective() -> None:
    ir, rgb, true = pair(32, seed=8)
    assert not ecc(ir, rgb, PRIOR).ok
    near = np.array([[1, 0, 2.0], [0, 1, -2.0], [0, 0, 1]]) @ true
    assert error(ecc(ir, rgb, near), true) < 1


def test_nothing_returns_the_prior_with_last_entry_1() -> None:
    result = nothing(FLAT, noise(1, 192), 2 * PRIOR)
    assert result.ok
    assert (result.homography == PRIOR).all()


def test_sizes_need_not_be_square() -> None:
    rgb = scene(240, 320, seed=8)
    ir = infrared_of(rgb)[30:210, 40:290]
    result = sift(ir, rgb, np.eye(3))
    shift = np.array([[1, 0, 40], [0, 1, 30], [0, 0, 1]])
    assert result.ok
    assert result.homography == pytest.approx(shift, abs=0.5)


@pytest.mark.parametrize("method", [sift, ecc])
def test_grey_images_give_the_same_answer(method: Baseline) -> None:
    ir, rgb, _ = pair(5)
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    expected = method(ir, rgb, PRIOR).homography
    assert method(ir[..., 0], grey, PRIOR).homography == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("method", [sift, ecc])
def test_the_same_call_gives_the_same_answer(method: Baseline) -> None:
    ir, rgb, _ = pair(5)
    first = method(ir, rgb, PRIOR)
    blocks = []
    for seed in range(20):
        cv2.setRNGSeed(seed)
        # Odd blocks move the next images in memory: sums and roots must not depend on their alignment.
        blocks.append(np.empty(1009 * seed + 17, np.uint8))
        assert (method(ir, rgb, PRIOR).homography == first.homography).all()


# --- failure ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [sift, ecc])
@pytest.mark.parametrize(
    ("ir", "rgb"),
    [(FLAT, np.full((192, 192, 3), 90, np.uint8)), (FLAT, scene(192, 192)), (scene(N, N), noise(5, 192) * 0)],
    ids=["both flat", "flat infrared", "black RGB"],
)
def test_a_featureless_image_fails_to_the_prior(method: Baseline, ir: Bytes, rgb: Bytes) -> None:
    result = method(ir, rgb, PRIOR)
    assert not result.ok
    assert (result.homography == PRIOR).all()


def test_sift_finds_nothing_common_in_noise() -> None:
    result = sift(noise(1), noise(2, 192), PRIOR)
    assert not result.ok
    assert (result.homography == PRIOR).all()


def test_a_prior_outside_the_image_fails() -> None:
    ir, rgb, _ = pair(5)
    far = np.array([[1, 0, 5000], [0, 1, 5000], [0, 0, 1]], np.float64)
    result = ecc(ir, rgb, far)
    assert not result.ok
    assert (result.homography == far).all()


MIRROR = np.array([[-1, 0, 159], [0, 1, 32], [0, 0, 1]], np.float64)
SPECK = np.array([[0.1, 0, 90], [0, 0.1, 90], [0, 0, 1]], np.float64)
BROKEN = np.full((3, 3), np.nan)


@pytest.mark.parametrize("found", [MIRROR, SPECK, BROKEN, None], ids=["mirror", "speck", "nan", "none"])
def test_sift_refuses_an_absurd_model(monkeypatch: pytest.MonkeyPatch, found: Floats | None) -> None:
    def fake(source: Any, *_: Any) -> tuple[Any, Any]:
        return found, None if found is None else np.ones((len(source), 1), np.uint8)

    ir, rgb, _ = pair(5)
    monkeypatch.setattr(cv2, "findHomography", fake)
    result = sift(ir, rgb, PRIOR)
    assert not result.ok
    assert (result.homography == PRIOR).all()


def test_sift_refuses_a_handful_of_inliers(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(source: Any, *_: Any) -> tuple[Any, Any]:
        mask = np.zeros((len(source), 1), np.uint8)
        mask[:count] = 1
        return PRIOR, mask

    ir, rgb, _ = pair(5)
    monkeypatch.setattr(cv2, "findHomography", fake)
    count = 7
    assert not sift(ir, rgb, PRIOR).ok
    count = 8
    assert sift(ir, rgb, PRIOR).ok


def test_an_error_of_opencv_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise cv2.error("no convergence")

    ir, rgb, _ = pair(5)
    monkeypatch.setattr(cv2, "findHomography", fail)
    monkeypatch.setattr(cv2, "findTransformECC", fail)
    for method in (sift, ecc):
        result = method(ir, rgb, PRIOR)
        assert not result.ok
        assert (result.homography == PRIOR).all()


def test_ecc_refuses_an_answer_that_correlates_less_than_its_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    def drift(_a: Any, _b: Any, warp: Any, *_: Any) -> tuple[float, Any]:
        moved = warp.copy()
        moved[0, 2] += 4
        return 1.0, moved

    ir, rgb, true = pair(5)
    monkeypatch.setattr(cv2, "findTransformECC", drift)
    result = ecc(ir, rgb, true)
    assert not result.ok
    assert result.homography == pytest.approx(true, abs=1e-12)


# --- names and bad input ------------------------------------------------------------------------------------


def test_baselines_by_name() -> None:
    assert {name: get_baseline(name) for name in ("nothing", "sift", "ecc")} == BASELINES
    assert {"nothing": nothing, "sift": sift, "ecc": ecc} == BASELINES


def test_an_unknown_name() -> None:
    with pytest.raises(
        UnknownNameError, match="no baseline is called 'surf'; known baselines: nothing, sift"
    ):
        get_baseline("surf")


@pytest.mark.parametrize("method", BASELINES.values(), ids=BASELINES)
@pytest.mark.parametrize(
    "prior",
    [np.eye(2), np.full((3, 3), np.inf), np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0.0]])],
    ids=["2x2", "inf", "last entry 0"],
)
def test_a_prior_that_is_none(method: Baseline, prior: Floats) -> None:
    with pytest.raises(
        InputError, match=r"prior is \[\[.*expected a finite 3x3 matrix, infrared px to RGB px"
    ):
        method(FLAT, FLAT, prior)


@pytest.mark.parametrize("method", BASELINES.values(), ids=BASELINES)
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (FLAT.astype(np.float32), r"dtype float32 and shape \(128, 128, 3\)"),
        (np.zeros((8, 8, 4), np.uint8), r"dtype uint8 and shape \(8, 8, 4\)"),
        (np.zeros(8, np.uint8), r"dtype uint8 and shape \(8,\)"),
    ],
)
def test_an_image_of_another_kind(method: Baseline, image: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"ir has {message}; expected uint8 of shape"):
        method(image, FLAT, PRIOR)
    with pytest.raises(InputError, match=f"rgb has {message}; expected uint8 of shape"):
        method(FLAT, image, PRIOR)
