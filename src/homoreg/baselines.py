"""Classical registration with OpenCV, to compare the networks with.

Every baseline is a function ``(ir, rgb, prior) -> BaselineResult`` of two uint8 images and the homography
to start from. When it fails, or its own acceptance test refuses the result, it returns the prior and says
so with ``ok=False``. No acceptance test looks at a ground truth. All of them expect images of about equal
scale, as the seed protocol's frames are, and give the same result in every run.

Examples
--------
>>> import numpy as np
>>> flat = np.zeros((128, 128, 3), np.uint8)
>>> sift(flat, flat, np.eye(3)).ok
False
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from homoreg.errors import InputError, UnknownNameError
from homoreg.geometry import is_plausible, resize_matrix

__all__ = ["BASELINES", "Baseline", "BaselineResult", "ecc", "get_baseline", "nothing", "sift"]

Bytes: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float64]
Float32s: TypeAlias = NDArray[np.float32]

# Nearest over second nearest descriptor distance; Lowe, IJCV 2004, section 7.1.
_RATIO = 0.8
# Inlier threshold of MAGSAC++ in px. It is an upper bound that the method marginalises over.
_REPROJECTION = 3.0
# Twice the minimal sample: four inliers fit any four matches.
_LEAST_INLIERS = 8
# Images up to this long are doubled first, which about doubles the features of frames as small as the
# protocol's.
_SMALL = 256

# Coarsest first; at 1/4 a shift of 32 px is one of 8 px. The motion model grows as the images come closer.
_ECC_STAGES = (
    (0.25, cv2.MOTION_TRANSLATION),
    (0.25, cv2.MOTION_AFFINE),
    (0.5, cv2.MOTION_HOMOGRAPHY),
    (1.0, cv2.MOTION_HOMOGRAPHY),
)
_ECC_ITERATIONS = 50
_ECC_EPSILON = 1e-4
_ECC_BLUR = 5
# Standard deviation of a normalised image below which there is nothing to correlate.
_FLAT = 1e-6


@dataclass(frozen=True, eq=False)
class BaselineResult:
    """What a baseline found.

    Attributes
    ----------
    homography
        (3, 3) float64, infrared px to RGB px, last entry 1. The prior where ``ok`` is False.
    ok
        Whether the method succeeded by its own test.
    """

    homography: Floats
    ok: bool


Baseline: TypeAlias = Callable[[Bytes, Bytes, Floats], BaselineResult]


def nothing(ir: Bytes, rgb: Bytes, prior: Floats) -> BaselineResult:
    """Return the prior: the row that every method has to beat.

    Parameters
    ----------
    ir, rgb
        Images, not looked at beyond their shape.
    prior
        (3, 3) homography, infrared px to RGB px.

    Returns
    -------
    BaselineResult
        The prior, ``ok=True``.

    Raises
    ------
    InputError
        If an image is not uint8 (H, W) or (H, W, 3), or the prior is not a finite 3x3 matrix.
    """
    _, _, start = _check(ir, rgb, prior)
    return BaselineResult(start, True)


def sift(ir: Bytes, rgb: Bytes, prior: Floats) -> BaselineResult:
    """SIFT features, mutual nearest neighbours with the ratio test, and MAGSAC++.

    Images of up to 256 px are doubled in size first. Accepted with at least 8 inliers and a homography that
    neither folds nor mirrors the image.

    Parameters
    ----------
    ir, rgb
        uint8 images, (H, W) or (H, W, 3) in RGB order, of any two sizes.
    prior
        (3, 3) homography, infrared px to RGB px. Only used on failure: the method searches the whole image.

    Returns
    -------
    BaselineResult
        The homography, or the prior with ``ok=False``.

    Raises
    ------
    InputError
        As :func:`nothing`.
    """
    ir_grey, rgb_grey, start = _check(ir, rgb, prior)
    failed = BaselineResult(start, False)
    source, target = _sift_matches(ir_grey, rgb_grey)
    if len(source) < _LEAST_INLIERS:
        return failed
    try:
        # OpenCV's annotations do not say so, but both are None when no model is found.
        result: tuple[Any, Any] = cv2.findHomography(source, target, cv2.USAC_MAGSAC, _REPROJECTION)
    except cv2.error:
        return failed
    found, mask = result
    if found is None or mask is None or int(mask.sum()) < _LEAST_INLIERS:
        return failed
    return _accept(np.asarray(found, dtype=np.float64), start, max(ir_grey.shape))


def ecc(ir: Bytes, rgb: Bytes, prior: Floats) -> BaselineResult:
    """Maximise the enhanced correlation coefficient of gradient magnitudes, coarse to fine, from the prior.

    Evangelidis and Psarakis, PAMI 2008: a shift and then an affine map at a quarter of the resolution (the
    full homography at once, if the prior has perspective), the full homography at half and at full
    resolution. Locally normalised gradient magnitudes rather than intensities, because the polarity of
    infrared and RGB need not agree. Accepted when every stage converges, the correlation ends higher than
    the prior's, and the homography neither folds nor mirrors the image.

    Parameters
    ----------
    ir, rgb
        uint8 images, (H, W) or (H, W, 3) in RGB order, of any two sizes.
    prior
        (3, 3) homography, infrared px to RGB px, to start from.

    Returns
    -------
    BaselineResult
        The homography, or the prior with ``ok=False``.

    Raises
    ------
    InputError
        As :func:`nothing`.
    """
    ir_grey, rgb_grey, start = _check(ir, rgb, prior)
    failed = BaselineResult(start, False)
    found = start
    for scale, motion in _ECC_STAGES:
        step = _ecc_stage(_gradient(ir_grey, scale), _gradient(rgb_grey, scale), found, motion)
        if step is None:
            return failed
        found = step
    before = _correlation(_gradient(ir_grey, 1.0), _gradient(rgb_grey, 1.0), start)
    after = _correlation(_gradient(ir_grey, 1.0), _gradient(rgb_grey, 1.0), found)
    return _accept(found, start, max(ir_grey.shape)) if after > before else failed


BASELINES: dict[str, Baseline] = {"nothing": nothing, "sift": sift, "ecc": ecc}
"""The baselines by name."""


def get_baseline(name: str) -> Baseline:
    """Baseline of a given name.

    Parameters
    ----------
    name
        A key of :data:`BASELINES`.

    Returns
    -------
    callable
        ``(ir, rgb, prior) -> BaselineResult``.

    Raises
    ------
    UnknownNameError
        If there is no such baseline.
    """
    try:
        return BASELINES[name]
    except KeyError:
        raise UnknownNameError(
            f"no baseline is called {name!r}; known baselines: {', '.join(BASELINES)}"
        ) from None


def _check(ir: Bytes, rgb: Bytes, prior: Floats) -> tuple[Bytes, Bytes, Floats]:
    """Both images as grey uint8 and the prior as float64 with last entry 1."""
    matrix = np.asarray(prior, dtype=np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or matrix[2, 2] == 0:
        raise InputError(
            f"prior is {matrix.tolist()}; expected a finite 3x3 matrix, infrared px to RGB px, last entry "
            "not 0"
        )
    return _grey(ir, "ir"), _grey(rgb, "rgb"), matrix / matrix[2, 2]


def _grey(image: Bytes, name: str) -> Bytes:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise InputError(
            f"{name} has dtype {image.dtype} and shape {image.shape}; "
            "expected uint8 of shape (H, W) or (H, W, 3)"
        )
    if image.ndim == 2:
        return np.ascontiguousarray(image)
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _accept(found: Floats, prior: Floats, size: int) -> BaselineResult:
    """Accept `found` unless, seen from the prior, it folds, mirrors or shrinks the frame beyond sense."""
    with np.errstate(all="ignore"):
        matrix = found / found[2, 2]
    if not np.isfinite(matrix).all():
        return BaselineResult(prior, False)
    # The prior carries the images' ratio of scales; without it a plain scale limit would depend on the
    # sensors.
    relative = torch.from_numpy(np.linalg.pinv(prior) @ matrix)
    relative = relative / relative[2, 2]
    ok = bool(is_plausible(relative[None], size)[0])
    return BaselineResult(matrix if ok else prior, ok)


def _sift_matches(ir: Bytes, rgb: Bytes) -> tuple[Float32s, Float32s]:
    """Mutual nearest neighbours that pass the ratio test: (N, 2) px in each image."""
    none = np.zeros((0, 2), np.float32)
    source, source_features = _sift_features(ir)
    target, target_features = _sift_features(rgb)
    if len(source) < 2 or len(target) < 2:
        return none, none
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    forward = matcher.knnMatch(source_features, target_features, k=2)
    back = {match.queryIdx: match.trainIdx for match in matcher.match(target_features, source_features)}
    kept = [
        (best.queryIdx, best.trainIdx)
        for best, second in forward
        if best.distance < _RATIO * second.distance and back.get(best.trainIdx) == best.queryIdx
    ]
    if not kept:
        return none, none
    rows, columns = np.array(kept).T
    return source[rows], target[columns]


def _sift_features(grey: Bytes) -> tuple[Float32s, Float32s]:
    """Key points (N, 2) in px of the image and descriptors (N, 128)."""
    factor = 2 if max(grey.shape) <= _SMALL else 1
    if factor > 1:
        grey = np.asarray(
            cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), dtype=np.uint8
        )
    # Half of SIFT's default contrast threshold, which suits photographs; thermal frames are flatter.
    points, features = cv2.SIFT.create(contrastThreshold=0.02).detectAndCompute(grey, None)
    if not points:
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
    place = np.array([point.pt for point in points], dtype=np.float32)
    return (place + 0.5) / np.float32(factor) - 0.5, np.asarray(features, dtype=np.float32)


def _gradient(grey: Bytes, scale: float) -> tuple[Float32s, Floats]:
    """Gradient magnitude over its local mean, standardised, at a scale; and the map full px -> scaled px."""
    height, width = grey.shape
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(grey.astype(np.float32) / 255.0, size, interpolation=cv2.INTER_AREA)
    smooth = cv2.GaussianBlur(small, (0, 0), 1.0)
    dx, dy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    # cv2.magnitude rounds differently from one memory alignment, and so from one run, to the next.
    strength = np.sqrt(dx * dx + dy * dy)
    # Weak edges of one modality may be strong ones of the other; the constant keeps noise from being lifted.
    local = cv2.GaussianBlur(strength / (cv2.GaussianBlur(strength, (0, 0), 6.0) + 0.02), (0, 0), 1.5)
    image = np.asarray(local, dtype=np.float32)
    deviation = float(image.std())
    image = (image - image.mean()) / np.float32(deviation if deviation > _FLAT else 1.0)
    frame = resize_matrix(size[0] / width, size[1] / height)
    return image, np.asarray(frame.numpy(), dtype=np.float64)


def _ecc_stage(
    ir: tuple[Float32s, Floats], rgb: tuple[Float32s, Floats], homography: Floats, motion: int
) -> Floats | None:
    """Refine a full-resolution homography at one scale; None when the method does not converge there."""
    (ir_image, ir_frame), (rgb_image, rgb_frame) = ir, rgb
    local = rgb_frame @ homography @ np.linalg.inv(ir_frame)
    # The smaller motion models would drop the perspective of a prior that has some.
    affine = motion != cv2.MOTION_HOMOGRAPHY and float(np.abs(local[2, :2]).max()) < _FLAT
    motion, rows = (motion, 2) if affine else (cv2.MOTION_HOMOGRAPHY, 3)
    warp = np.asarray((local / local[2, 2])[:rows], dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _ECC_ITERATIONS, _ECC_EPSILON)
    mask = np.full(rgb_image.shape, 255, np.uint8)
    try:
        _, found = cv2.findTransformECC(ir_image, rgb_image, warp, motion, stop, mask, _ECC_BLUR)
    except cv2.error:  # raised when the images stop overlapping or the correlation falls
        return None
    refined = np.vstack([found, [[0.0, 0.0, 1.0]]]) if rows == 2 else found.astype(np.float64)
    with np.errstate(all="ignore"):
        refined = np.linalg.inv(rgb_frame) @ refined @ ir_frame
        refined = refined / refined[2, 2]
    return np.asarray(refined, dtype=np.float64) if np.isfinite(refined).all() else None


def _correlation(ir: tuple[Float32s, Floats], rgb: tuple[Float32s, Floats], homography: Floats) -> float:
    """Pearson correlation of two full-resolution gradient images under a homography, over their overlap."""
    image, size = rgb[0], (ir[0].shape[1], ir[0].shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(image, homography, size, flags=flags)
    inside = cv2.warpPerspective(np.ones_like(image), homography, size, flags=flags) > 0.999
    if inside.sum() < 2:
        return -1.0
    a, b = ir[0][inside], np.asarray(warped)[inside]
    if a.std() < _FLAT or b.std() < _FLAT:
        return -1.0
    return float(np.corrcoef(a, b)[0, 1])
