from __future__ import annotations

import sys
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from homoreg.baselines import (
    BASELINES,
    Baseline,
    BaselineResult,
    ecc,
    get_baseline,
    kornia,
    mutual_information,
    nothing,
    sift,
)
from homoreg.errors import InputError, MissingPackageError, UnknownNameError
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


@pytest.mark.parametrize("method", [kornia, mutual_information])
@pytest.mark.parametrize("seed", [3, 4])
def test_descents_refine_a_small_displacement(method: Baseline, seed: int) -> None:
    ir, rgb, true = pair(6, seed)
    result = method(ir, rgb, PRIOR)
    assert result.ok
    assert error(result, true) < 1.5 < 3 < error(nothing(ir, rgb, PRIOR), true)


@pytest.mark.parametrize("method", [kornia, mutual_information])
def test_descents_do_not_mind_polarity(method: Baseline) -> None:
    ir, rgb, true = pair(6)
    assert error(method(255 - ir, rgb, PRIOR), true) < 1.5


def test_mutual_information_does_not_mind_tone_curves() -> None:
    ir, rgb, true = pair(6)
    folded = np.abs(2 * ir.astype(np.int16) - 255).astype(np.uint8)
    assert error(mutual_information(folded, rgb, PRIOR), true) < 1.5


def test_mutual_information_finds_a_shift_beyond_the_reach_of_its_ascent() -> None:
    rgb = scene(192, 192, seed=4)
    ir = infrared_of(rgb)[50:178, 14:142]
    result = mutual_information(ir, rgb, PRIOR)
    assert result.homography == pytest.approx(np.array([[1, 0, 14], [0, 1, 50], [0, 0, 1]]), abs=0.6)


@pytest.mark.parametrize("method", [kornia, mutual_information])
def test_descents_start_at_the_prior_and_keep_its_perspective(method: Baseline) -> None:
    ir, rgb, true = pair(32, seed=8)
    near = np.array([[1, 0, 3.0], [0, 1, -3.0], [0, 0, 1]]) @ true
    result = method(ir, rgb, near)
    assert result.ok
    assert error(result, true) < 1.5


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


METHODS = [sift, ecc, mutual_information, kornia]


@pytest.mark.parametrize("method", METHODS)
def test_grey_images_give_the_same_answer(method: Baseline) -> None:
    ir, rgb, _ = pair(5)
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    expected = method(ir, rgb, PRIOR).homography
    assert method(ir[..., 0], grey, PRIOR).homography == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("method", "calls"), [(sift, 20), (ecc, 20), (mutual_information, 3), (kornia, 3)])
def test_the_same_call_gives_the_same_answer(method: Baseline, calls: int) -> None:
    ir, rgb, _ = pair(5)
    first = method(ir, rgb, PRIOR)
    blocks = []
    for seed in range(calls):
        cv2.setRNGSeed(seed)
        # Odd blocks move the next images in memory: sums and roots must not depend on their alignment.
        blocks.append(np.empty(1009 * seed + 17, np.uint8))
        again = method(ir, rgb, PRIOR).homography
        # The last bit of a 3x3 product may depend on alignment; nothing may grow out of it.
        assert again == pytest.approx(
            first.homography, abs=1e-9 if method is mutual_information else 0, rel=0
        )


# --- failure ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
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


@pytest.mark.parametrize("method", [ecc, mutual_information, kornia])
def test_a_prior_outside_the_image_fails(method: Baseline) -> None:
    ir, rgb, _ = pair(5)
    far = np.array([[1, 0, 5000], [0, 1, 5000], [0, 0, 1]], np.float64)
    result = method(ir, rgb, far)
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


def test_kornia_refuses_an_answer_that_correlates_less_than_its_prior(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kornia.geometry.transform import ImageRegistrator

    def drift(registrator: Any, *_: Any) -> None:
        registrator.model.model.data[0, 2] += 0.05

    ir, rgb, true = pair(5)
    monkeypatch.setattr(ImageRegistrator, "register", drift)
    result = kornia(ir, rgb, true)
    assert not result.ok
    assert result.homography == pytest.approx(true, abs=1e-12)


def test_mutual_information_refuses_to_end_with_less_than_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    shift = np.array([[1, 0, 4.0], [0, 1, 0], [0, 0, 1]])
    monkeypatch.setattr("homoreg.baselines.information._best_shift", lambda *_: shift)
    monkeypatch.setattr("homoreg.baselines.information._best_corners", lambda *_: np.eye(3))
    ir, rgb, true = pair(5)
    result = mutual_information(ir, rgb, true)
    assert not result.ok
    assert result.homography == pytest.approx(true, abs=1e-12)


def test_without_simpleitk_mutual_information_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(MissingPackageError, match=r"needs SimpleITK.*pip install 'homoreg\[benchmark\]'"):
        mutual_information(FLAT, FLAT, PRIOR)
    assert sift(FLAT, FLAT, PRIOR).ok is False


def test_an_error_of_itk_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    import SimpleITK

    def fail(*_: Any) -> Any:
        raise RuntimeError("All samples map outside moving image buffer")

    ir, rgb, _ = pair(5)
    monkeypatch.setattr(SimpleITK.ImageRegistrationMethod, "Execute", fail)
    result = mutual_information(ir, rgb, PRIOR)
    assert not result.ok
    assert (result.homography == PRIOR).all()


# --- names and bad input ------------------------------------------------------------------------------------


def test_baselines_by_name() -> None:
    assert list(BASELINES) == ["nothing", "sift", "ecc", "mutual_information", "kornia"]
    assert [get_baseline(name) for name in BASELINES] == [nothing, *METHODS]


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
