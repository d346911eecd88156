"""The enhanced correlation coefficient of gradient images, and what it is computed from."""

from __future__ import annotations

import cv2
import numpy as np

from homoreg.baselines.common import BaselineResult, Bytes, Float32s, Floats, attempt, finite
from homoreg.geometry import resize_matrix

__all__ = ["correlation", "ecc", "gradient_image"]

# Coarsest first; at 1/4 a shift of 32 px is one of 8 px. The motion model grows as the images come closer.
_STAGES = (
    (0.25, cv2.MOTION_TRANSLATION),
    (0.25, cv2.MOTION_AFFINE),
    (0.5, cv2.MOTION_HOMOGRAPHY),
    (1.0, cv2.MOTION_HOMOGRAPHY),
)
_ITERATIONS = 50
_EPSILON = 1e-4
_BLUR = 5
# Standard deviation of a normalised image below which there is nothing to correlate.
_FLAT = 1e-6


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
    return attempt(_search, ir, rgb, prior)


def _search(ir: Bytes, rgb: Bytes, prior: Floats) -> Floats | None:
    found = prior
    for scale, motion in _STAGES:
        step = _stage(gradient_image(ir, scale), gradient_image(rgb, scale), found, motion)
        if step is None:
            return None
        found = step
    pair = gradient_image(ir, 1.0), gradient_image(rgb, 1.0)
    return found if correlation(*pair, found) > correlation(*pair, prior) else None


def gradient_image(grey: Bytes, scale: float) -> tuple[Float32s, Floats]:
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


def correlation(ir: tuple[Float32s, Floats], rgb: tuple[Float32s, Floats], homography: Floats) -> float:
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


def _stage(
    ir: tuple[Float32s, Floats], rgb: tuple[Float32s, Floats], homography: Floats, motion: int
) -> Floats | None:
    """Refine a full-resolution homography at one scale; None when the method does not converge there."""
    (ir_image, ir_frame), (rgb_image, rgb_frame) = ir, rgb
    local = rgb_frame @ homography @ np.linalg.inv(ir_frame)
    # The smaller motion models would drop the perspective of a prior that has some.
    affine = motion != cv2.MOTION_HOMOGRAPHY and float(np.abs(local[2, :2]).max()) < _FLAT
    motion, rows = (motion, 2) if affine else (cv2.MOTION_HOMOGRAPHY, 3)
    warp = np.asarray((local / local[2, 2])[:rows], dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _ITERATIONS, _EPSILON)
    mask = np.full(rgb_image.shape, 255, np.uint8)
    try:
        _, found = cv2.findTransformECC(ir_image, rgb_image, warp, motion, stop, mask, _BLUR)
    except cv2.error:  # raised when the images stop overlapping or the correlation falls
        return None
    refined = np.vstack([found, [[0.0, 0.0, 1.0]]]) if rows == 2 else found.astype(np.float64)
    with np.errstate(all="ignore"):  # what is not finite is turned away next
        return finite(np.linalg.inv(rgb_frame) @ refined @ ir_frame)
