"""Mutual information, with SimpleITK."""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np
import torch

from homoreg.baselines.common import BaselineResult, Bytes, Floats, attempt
from homoreg.errors import MissingPackageError
from homoreg.geometry import homography_from_corners, image_corners, pad_matrix

__all__ = ["mutual_information"]

# Share of the template's side by which the RGB reaches beyond it: a corner of the seed protocol moves by
# at most a quarter.
_MARGIN = 0.25
_BINS = 20
# Reduction of the exhaustive search over shifts, its step in px of the reduced image, and its reach as a
# share of the template's side.
_COARSE, _STEP, _REACH = 4, 1.0, 0.2
# Reduction and smoothing (px) of the levels, coarsest first.
_LEVELS = ((4, 2.0), (2, 1.0), (1, 0.5))
_ITERATIONS = 60
# Of the corners together, in px of the reduced image; a step is multiplied by the third when it turns back.
_FIRST_STEP, _LAST_STEP, _RELAXATION = 1.0, 0.05, 0.8
# Contrast below which there is nothing to share, in levels of 255.
_FLAT = 0.5


def mutual_information(ir: Bytes, rgb: Bytes, prior: Floats) -> BaselineResult:
    """Maximise mutual information over shifts and then homographies, coarse to fine, from the prior.

    Mattes et al., IEEE TMI 2003, as SimpleITK has it: every pixel, no random sampling. All shifts of up to a
    fifth of the template are tried at a quarter of the resolution. From the best one, the shifts of the four
    corners ascend at a quarter, at half and at full resolution. SimpleITK has no homographies: between the
    corners the map of a level is bilinear, and the next level starts from the homography of the corners.
    Accepted when the mutual information ends higher than the prior's, and the homography neither folds nor
    mirrors the image.

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
    MissingPackageError
        If SimpleITK is not installed.
    """
    _simpleitk()
    return attempt(_search, ir, rgb, prior)


def _simpleitk() -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise MissingPackageError(
            "mutual_information needs SimpleITK, which is not installed; "
            "install it with: pip install 'homoreg[benchmark]'"
        ) from error
    return SimpleITK


def _search(ir: Bytes, rgb: Bytes, prior: Floats) -> Floats | None:
    if min(ir.std(), rgb.std()) < _FLAT:
        return None
    sitk = _simpleitk()
    fixed = sitk.GetImageFromArray(ir.astype(np.float32))
    seen = functools.partial(_seen, sitk, ir.shape, rgb)
    identity = sitk.TranslationTransform(2)
    try:
        found = prior @ _best_shift(sitk, fixed, seen(prior), max(ir.shape))
        for shrink, smoothing in _LEVELS:
            found = found @ _best_corners(sitk, fixed, seen(found), shrink, smoothing)
        # The metric is the negative of the information.
        before, after = (_method(sitk, identity).MetricEvaluate(fixed, seen(one)) for one in (prior, found))
    except RuntimeError:  # ITK's, when too few samples lie within both images
        return None
    return found if after < before else None


def _seen(sitk: Any, shape: tuple[int, ...], rgb: Bytes, homography: Floats) -> Any:
    """Pull the RGB image into the frame of the template, with a margin around it."""
    margin = round(_MARGIN * max(shape))
    into = np.asarray(pad_matrix(-margin, -margin).numpy(), np.float64)  # px of the wide frame -> template
    wide = cv2.warpPerspective(
        rgb.astype(np.float32),
        homography @ into,
        (shape[1] + 2 * margin, shape[0] + 2 * margin),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    image = sitk.GetImageFromArray(wide)
    image.SetOrigin((-float(margin), -float(margin)))
    return image


def _method(sitk: Any, transform: Any) -> Any:
    """Registration by mutual information over every pixel, in one thread: sums have one order."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(transform, inPlace=True)
    method.SetNumberOfThreads(1)
    return method


def _best_shift(sitk: Any, fixed: Any, moving: Any, side: int) -> Floats:
    """Shift in template px with the most mutual information at a fraction of the resolution."""
    transform = sitk.TranslationTransform(2)
    method = _method(sitk, transform)
    step = _COARSE * _STEP
    steps = int(_REACH * side / step)
    method.SetOptimizerAsExhaustive([steps, steps], step)
    method.SetShrinkFactorsPerLevel([_COARSE])
    method.SetSmoothingSigmasPerLevel([_LEVELS[0][1]])
    method.Execute(fixed, moving)
    x, y = transform.GetOffset()
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _best_corners(sitk: Any, fixed: Any, moving: Any, shrink: int, smoothing: float) -> Floats:
    """Homography of the corner shifts with the most mutual information at a reduced resolution."""
    width, height = fixed.GetSize()
    # A linear spline with one patch: its eight parameters are the shifts of the four corners in px.
    transform = sitk.BSplineTransform(2, 1)
    transform.SetTransformDomainMeshSize((1, 1))
    transform.SetTransformDomainPhysicalDimensions((width - 1.0, height - 1.0))
    method = _method(sitk, transform)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=_FIRST_STEP * shrink,
        minStep=_LAST_STEP * shrink,
        numberOfIterations=_ITERATIONS,
        relaxationFactor=_RELAXATION,
    )
    method.SetShrinkFactorsPerLevel([shrink])
    method.SetSmoothingSigmasPerLevel([smoothing])
    method.Execute(fixed, moving)
    # Parameters: x of the corners row by row, then y.
    x, y = np.array(transform.GetParameters()).reshape(2, 4)
    source = image_corners(width, height, dtype=torch.float64)
    target = source + torch.from_numpy(np.stack([x, y], 1)[[0, 1, 3, 2]])
    return np.asarray(homography_from_corners(source, target).numpy(), np.float64)
