"""SIFT, the ratio test and MAGSAC++."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from homoreg.baselines.common import BaselineResult, Bytes, Float32s, Floats, attempt

__all__ = ["sift"]

# Nearest over second nearest descriptor distance; Lowe, IJCV 2004, section 7.1.
_RATIO = 0.8
# Inlier threshold of MAGSAC++ in px. It is an upper bound that the method marginalises over.
_REPROJECTION = 3.0
# Twice the minimal sample: four inliers fit any four matches.
_LEAST_INLIERS = 8
# Images up to this long are doubled first, which about doubles the features of frames as small as the
# protocol's.
_SMALL = 256


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
    return attempt(_search, ir, rgb, prior)


def _search(ir: Bytes, rgb: Bytes, _: Floats) -> Floats | None:
    source, target = _matches(ir, rgb)
    if len(source) < _LEAST_INLIERS:
        return None
    try:
        # OpenCV's annotations do not say so, but both are None when no model is found.
        result: tuple[Any, Any] = cv2.findHomography(source, target, cv2.USAC_MAGSAC, _REPROJECTION)
    except cv2.error:
        return None
    found, mask = result
    if found is None or mask is None or int(mask.sum()) < _LEAST_INLIERS:
        return None
    return np.asarray(found, dtype=np.float64)


def _matches(ir: Bytes, rgb: Bytes) -> tuple[Float32s, Float32s]:
    """Mutual nearest neighbours that pass the ratio test: (N, 2) px in each image."""
    none = np.zeros((0, 2), np.float32)
    source, source_features = _features(ir)
    target, target_features = _features(rgb)
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


def _features(grey: Bytes) -> tuple[Float32s, Float32s]:
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
