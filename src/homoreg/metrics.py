"""Figures of merit: corner error, success rates, AUC, the summary row, and calibration of a confidence.

Everything here is a pure function of numbers that are already known; nothing reads an image or runs a model.

A prediction that diverged has the error ``inf``. Such rows are kept by every function of this module and
are never dropped: they count as failures in rates and AUCs, they push quantiles up, and one of them makes
the mean and the standard deviation infinite. ``Summary.diverged`` says how many there were. NaN is refused,
because it would have to be dropped or guessed.

Examples
--------
>>> summarize([0.5, 1.5, 4.0, float("inf")]).under_3
0.5
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry import image_corners

__all__ = [
    "ReliabilityDiagram",
    "RiskCoverage",
    "Summary",
    "auc",
    "auroc",
    "chance_calibration_error",
    "corner_error",
    "expected_calibration_error",
    "reliability_diagram",
    "risk_coverage",
    "success_rate",
    "summarize",
]

Floats: TypeAlias = NDArray[np.float64]

# A homogeneous weight this small against the terms it is summed from is rounding noise: the point is at
# infinity.
_AT_INFINITY = 1e-12

_NORMAL_FROM = 400.0  # variance of a number of successes from which its distribution is taken as normal


@torch.no_grad()
def corner_error(predicted: Tensor, true: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Mean distance between the template's corners as mapped by two homographies.

    ``e = 1/4 sum_k || pi(P c_k) - pi(T c_k) ||`` over the corners ``c_k`` = (0, 0), (w-1, 0), (w-1, h-1),
    (0, h-1), with ``pi`` the division by the third coordinate. The scale and sign of either matrix do not
    matter.

    Parameters
    ----------
    predicted, true
        Homographies from template pixels to search pixels, each (B, 3, 3) or (3, 3), of any real dtype.
    size
        Template size in px: ``n`` for a square one, or ``(width, height)``.

    Returns
    -------
    Tensor
        (B,) float64, or a scalar for two (3, 3) matrices; px of the search image. ``inf`` where a matrix
        has a NaN or infinite entry or sends a corner to infinity; never NaN. No gradient is recorded.

    Raises
    ------
    InputError
        If the shapes differ or are not (B, 3, 3), or the size is not at least 2 px a side.
    """
    if predicted.shape != true.shape or predicted.ndim not in (2, 3) or predicted.shape[-2:] != (3, 3):
        raise InputError(
            f"corner_error: predicted has shape {tuple(predicted.shape)} and true {tuple(true.shape)}; "
            "give two tensors of the same shape (B, 3, 3) or (3, 3)"
        )
    width, height = (size, size) if isinstance(size, int) else size
    if min(width, height) < 2:
        raise InputError(f"corner_error: size {size!r} is too small; give at least 2 px a side")
    corners = image_corners(width, height, dtype=torch.float64, device=predicted.device)
    points = torch.cat([corners, torch.ones_like(corners[:, :1])], dim=1)
    difference = _map(predicted, points) - _map(true.to(predicted.device), points)
    # hypot does not overflow where a sum of squares would.
    error = torch.hypot(difference[..., 0], difference[..., 1]).mean(dim=-1)
    return torch.where(torch.isfinite(error), error, torch.full_like(error, torch.inf))


def _map(homography: Tensor, points: Tensor) -> Tensor:
    """Map homogeneous points (4, 3) by (..., 3, 3); (..., 4, 2), NaN where a point goes to infinity."""
    matrix = homography.to(torch.float64)
    # A common factor is free; dividing it out first keeps huge and tiny matrices from over- and underflowing.
    matrix = matrix / matrix.abs().amax(dim=(-2, -1), keepdim=True)
    mapped = points @ matrix.mT
    weight = mapped[..., 2:]
    scale = points @ matrix[..., 2:, :].abs().mT
    return torch.where(weight.abs() > _AT_INFINITY * scale, mapped[..., :2] / weight, torch.nan)


def success_rate(errors: ArrayLike | Tensor, thresholds: float | Sequence[float]) -> Floats:
    """Share of errors strictly below each threshold.

    Parameters
    ----------
    errors
        (N,) errors in px, N >= 1; ``inf`` for a diverged pair, which lies below no threshold.
    thresholds
        One or T thresholds in px.

    Returns
    -------
    ndarray
        (T,) float64 in [0, 1]; T = 1 for a single number.

    Raises
    ------
    InputError
        If errors are empty, NaN or negative, or a threshold is not a positive number.
    """
    values = _errors(errors)
    limits = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
    for limit in limits:
        _check_threshold(float(limit))
    return np.asarray((values[None, :] < limits[:, None]).mean(axis=1), dtype=np.float64)


def auc(errors: ArrayLike | Tensor, threshold: float) -> float:
    """Area under the cumulative error curve up to a threshold, as a share of the threshold.

    With the errors sorted, ``e_1 <= ... <= e_n``, and ``m`` of them below ``t``, the curve runs straight from
    (0, 0) through the points ``(e_i, i/n)``, i = 1..m, and stays level from there to ``t``:

    ``AUC(t) = 1/t * ( sum_{i=1..m} (e_i - e_{i-1}) (2i - 1) / (2n) + (t - e_m) m/n )``, with ``e_0 = 0``.

    This is the trapezoidal form usual in the matching literature (SuperGlue, CVPR 2020, and its
    successors). It exceeds the exact area under the step curve, ``mean(max(0, 1 - e_i / t))``, by at most
    ``1 / (2n)``.

    Parameters
    ----------
    errors
        (N,) errors in px, N >= 1; ``inf`` for a diverged pair, which adds no area but counts in n.
    threshold
        Upper end ``t`` of the curve in px.

    Returns
    -------
    float
        Between 0 (no error below ``t``) and 1 (all errors zero).

    Raises
    ------
    InputError
        If errors are empty, NaN or negative, or the threshold is not a positive number.
    """
    values = np.sort(_errors(errors))
    _check_threshold(threshold)
    below = values[values < threshold]
    x = np.concatenate(([0.0], below, [threshold]))
    recall = np.arange(below.size + 1, dtype=np.float64) / values.size
    y = np.append(recall, recall[-1])
    return min(1.0, float(np.trapezoid(y, x)) / threshold)


@dataclass(frozen=True)
class Summary:
    """The row reported for one method on one set; see :func:`summarize`.

    Attributes
    ----------
    n
        Number of pairs, diverged ones included.
    mean, std, min, q25, median, q75, max
        Corner error in px. ``std`` is that of the population (divisor n). Each is ``inf`` where a diverged
        pair takes part in it.
    under_1, under_3, under_5, under_10
        Share of all pairs with an error below so many px, 0..1.
    auc_3, auc_5, auc_10
        Area under the cumulative error curve (see :func:`auc`), 0..1.
    diverged
        Number of pairs whose error is ``inf``.
    """

    n: int
    mean: float
    std: float
    min: float
    q25: float
    median: float
    q75: float
    max: float
    under_1: float
    under_3: float
    under_5: float
    under_10: float
    auc_3: float
    auc_5: float
    auc_10: float
    diverged: int


def summarize(errors: ArrayLike | Tensor) -> Summary:
    """Reduce corner errors to one :class:`Summary`.

    Quartiles interpolate linearly between neighbouring order statistics. A quartile that falls between a
    finite and a diverged error is ``inf``; so are the mean and the standard deviation as soon as one pair
    diverged.

    Parameters
    ----------
    errors
        (N,) errors in px, N >= 1; ``inf`` for a diverged pair.

    Returns
    -------
    Summary
        The row.

    Raises
    ------
    InputError
        If errors are empty, NaN or negative.
    """
    values = np.sort(_errors(errors))
    diverged = int(np.isinf(values).sum())
    under = [float(rate) for rate in success_rate(values, (1.0, 3.0, 5.0, 10.0))]
    return Summary(
        n=int(values.size),
        mean=math.inf if diverged else float(values.mean()),
        std=math.inf if diverged else float(values.std()),
        min=float(values[0]),
        q25=_quantile(values, 0.25),
        median=_quantile(values, 0.5),
        q75=_quantile(values, 0.75),
        max=float(values[-1]),
        under_1=under[0],
        under_3=under[1],
        under_5=under[2],
        under_10=under[3],
        auc_3=auc(values, 3.0),
        auc_5=auc(values, 5.0),
        auc_10=auc(values, 10.0),
        diverged=diverged,
    )


def _quantile(ordered: Floats, share: float) -> float:
    """Linearly interpolated quantile of sorted values; where they end in ``inf``, NumPy's would be NaN."""
    position = share * (ordered.size - 1)
    low = math.floor(position)
    fraction = position - low
    below = float(ordered[low])
    if fraction == 0.0 or math.isinf(below):
        return below
    above = float(ordered[low + 1])
    return math.inf if math.isinf(above) else below + fraction * (above - below)


def auroc(scores: ArrayLike | Tensor, correct: ArrayLike | Tensor) -> float:
    """Area under the ROC curve of a score that should be high for correct results.

    Equals the probability that a correct result scores above a wrong one, a tie counting one half
    (the Mann-Whitney statistic over the product of the class sizes).

    Parameters
    ----------
    scores
        (N,) scores, higher means more trusted. Any scale; infinities are allowed.
    correct
        (N,) booleans.

    Returns
    -------
    float
        0..1, or NaN when all results are correct, all are wrong, or there are none: nothing can be ranked
        then.

    Raises
    ------
    InputError
        If the lengths differ, a score is NaN, or ``correct`` is not boolean.
    """
    values = _vector(scores, "scores")
    right = _booleans(correct, values.size)
    n_right = int(right.sum())
    n_wrong = values.size - n_right
    if n_right == 0 or n_wrong == 0:
        return math.nan
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    # Tied scores share the mean of the ranks that they occupy.
    rank = np.cumsum(counts) - (counts - 1) / 2.0
    statistic = float(rank[group][right].sum()) - n_right * (n_right + 1) / 2.0
    return statistic / (n_right * n_wrong)


@dataclass(frozen=True, eq=False)
class ReliabilityDiagram:
    """What was stated beside what came true, bin by bin; see :func:`reliability_diagram`.

    Attributes
    ----------
    count
        (K,) int64, results in each of the K bins of equal width on [0, 1].
    stated
        (K,) mean confidence in each bin, NaN where it is empty.
    correct
        (K,) share correct in each bin, NaN where it is empty.
    """

    count: NDArray[np.int64]
    stated: Floats
    correct: Floats

    @property
    def expected_error(self) -> float:
        """Expected calibration error: the gap between both, averaged over the results."""
        gap = np.abs(np.nan_to_num(self.stated - self.correct))
        return float((self.count * gap).sum()) / int(self.count.sum())


def reliability_diagram(
    confidence: ArrayLike | Tensor, correct: ArrayLike | Tensor, bins: int = 10
) -> ReliabilityDiagram:
    """Sort results into bins of stated confidence and look at the share that was correct in each.

    Parameters
    ----------
    confidence
        (N,) probabilities, N >= 1.
    correct
        (N,) booleans.
    bins
        Number of bins, at least 1: of equal width on [0, 1], each closed below and open above except the
        last, which is closed.

    Returns
    -------
    ReliabilityDiagram
        One entry for each bin.

    Raises
    ------
    InputError
        If the input is empty, the lengths differ, a confidence lies outside [0, 1] or ``bins`` is below 1.
    """
    values = _confidence(confidence)
    right = _booleans(correct, values.size)
    index = _bins(values, bins)
    count = np.bincount(index, minlength=bins)
    filled = np.where(count > 0, count, np.nan)
    stated = np.bincount(index, weights=values, minlength=bins) / filled
    return ReliabilityDiagram(count, stated, np.bincount(index, weights=right, minlength=bins) / filled)


def expected_calibration_error(
    confidence: ArrayLike | Tensor, correct: ArrayLike | Tensor, bins: int = 10
) -> float:
    """Gap between a stated confidence and the share that was correct, averaged over bins.

    ``ECE = sum_b |B_b| / N * | mean confidence in B_b - share correct in B_b |`` over the bins of
    :func:`reliability_diagram` (Guo et al., ICML 2017).

    Parameters
    ----------
    confidence
        (N,) probabilities, N >= 1.
    correct
        (N,) booleans.
    bins
        Number of bins, at least 1.

    Returns
    -------
    float
        0 (perfectly calibrated at this resolution) to 1.

    Raises
    ------
    InputError
        If the input is empty, the lengths differ, a confidence lies outside [0, 1] or ``bins`` is below 1.
    """
    return reliability_diagram(confidence, correct, bins).expected_error


def chance_calibration_error(confidence: ArrayLike | Tensor, bins: int = 10) -> float:
    """Mean of :func:`expected_calibration_error` where every confidence is the exact probability.

    Of finitely many results a share is never quite what was stated, so that the error of perfect confidences
    is above 0, the more so the fewer results there are (Roelofs et al., AISTATS 2022). What is measured can
    only be judged beside it: ``sum_b 1 / N * E | sum of confidences in B_b - number correct in B_b |``,
    the number being a sum of independent trials with the confidences as probabilities.

    Parameters
    ----------
    confidence
        (N,) probabilities, N >= 1.
    bins
        Number of bins, at least 1.

    Returns
    -------
    float
        0 (all confidences are 0 or 1) to 0.5.

    Raises
    ------
    InputError
        If the input is empty, a confidence lies outside [0, 1] or ``bins`` is below 1.
    """
    values = _confidence(confidence)
    index = _bins(values, bins)
    return sum(_mean_deviation(values[index == k]) for k in range(bins)) / values.size


def _bins(confidence: Floats, bins: int) -> NDArray[np.int64]:
    """Which of the bins of equal width on [0, 1] each confidence lies in."""
    if bins < 1:
        raise InputError(f"bins is {bins}; give at least 1")
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def _mean_deviation(probability: Floats) -> float:
    """Mean absolute deviation of the number of successes of independent trials from its expectation."""
    variance = float((probability * (1 - probability)).sum())
    if variance > _NORMAL_FROM:
        return math.sqrt(2 * variance / math.pi)
    chances = np.ones(1)  # of 0, 1, ... successes
    for p in probability:
        chances = np.convolve(chances, [1 - p, p])
    return float(chances @ np.abs(np.arange(chances.size) - probability.sum()))


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """Risk against coverage when only results above a confidence are accepted; see :func:`risk_coverage`.

    Attributes
    ----------
    confidence
        (K,) the distinct confidences, falling: accept everything at or above the k-th.
    coverage
        (K,) share of all results accepted then, rising to 1.
    risk
        (K,) share of the accepted results that are wrong.
    area
        Area under the curve (AURC), ``sum_k (coverage_k - coverage_{k-1}) risk_k``; 0 is best.
    """

    confidence: Floats
    coverage: Floats
    risk: Floats
    area: float

    def risk_at(self, coverage: float) -> float:
        """Share wrong among the accepted when at least ``coverage`` of all results are accepted.

        Raises
        ------
        InputError
            If the coverage is not above 0 and at most 1.
        """
        if not 0 < coverage <= 1:
            raise InputError(f"coverage is {coverage}; give a share above 0 and at most 1")
        return float(self.risk[int((self.coverage < coverage - 1e-12).sum())])

    def coverage_at(self, risk: float) -> float:
        """Largest share that can be accepted with at most ``risk`` of the accepted wrong; 0 if none can.

        Raises
        ------
        InputError
            If the risk is not between 0 and 1.
        """
        if not 0 <= risk <= 1:
            raise InputError(f"risk is {risk}; give a share between 0 and 1")
        return float(self.coverage[self.risk <= risk].max(initial=0.0))


def risk_coverage(
    confidence: ArrayLike | Tensor, errors: ArrayLike | Tensor, threshold: float
) -> RiskCoverage:
    """Trade-off between how many results are accepted and how many of those are wrong.

    A result is wrong when its error is not below the threshold. Results of equal confidence are accepted
    together, since no rule on the confidence could part them.

    Parameters
    ----------
    confidence
        (N,) confidences, N >= 1, in [0, 1].
    errors
        (N,) corner errors in px; ``inf`` for a diverged pair.
    threshold
        Largest error in px (exclusive) that still counts as right.

    Returns
    -------
    RiskCoverage
        The curve at each distinct confidence, and its area.

    Raises
    ------
    InputError
        If the input is empty, NaN or of unequal length, a confidence lies outside [0, 1], an error is
        negative, or the threshold is not positive.
    """
    values = _confidence(confidence)
    distances = _errors(errors)
    _check_length(distances.size, values.size, "errors")
    _check_threshold(threshold)
    levels, group, counts = np.unique(-values, return_inverse=True, return_counts=True)
    wrong = np.bincount(group, weights=~(distances < threshold), minlength=levels.size)
    accepted = np.cumsum(counts)
    coverage = accepted / values.size
    risk = np.cumsum(wrong) / accepted
    return RiskCoverage(-levels, coverage, risk, float((counts * risk).sum()) / values.size)


def _vector(values: ArrayLike | Tensor, name: str) -> Floats:
    """Return a (N,) float64 array without NaN."""
    raw = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    try:
        vector = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {type(values).__name__}; give N numbers") from error
    if vector.ndim != 1:
        raise InputError(f"{name} has shape {vector.shape}; give N numbers, shape (N,)")
    if np.isnan(vector).any():
        at = int(np.isnan(vector).argmax())
        raise InputError(f"{name}[{at}] is NaN; give numbers (inf for a diverged pair)")
    return vector


def _errors(values: ArrayLike | Tensor) -> Floats:
    vector = _vector(values, "errors")
    if vector.size == 0:
        raise InputError("errors is empty; give at least one error")
    if (vector < 0).any():
        at = int((vector < 0).argmax())
        raise InputError(f"errors[{at}] is {vector[at]}; an error in px is 0 or more")
    return vector


def _confidence(values: ArrayLike | Tensor) -> Floats:
    vector = _vector(values, "confidence")
    if vector.size == 0:
        raise InputError("confidence is empty; give at least one value")
    outside = (vector < 0) | (vector > 1)
    if outside.any():
        at = int(outside.argmax())
        raise InputError(f"confidence[{at}] is {vector[at]}; a confidence lies between 0 and 1")
    return vector


def _booleans(values: ArrayLike | Tensor, length: int) -> NDArray[np.bool_]:
    raw = np.asarray(values.detach().cpu().numpy() if isinstance(values, Tensor) else values)
    if raw.ndim != 1 or (raw.size and raw.dtype != np.bool_):
        raise InputError(f"correct has dtype {raw.dtype} and shape {raw.shape}; give N booleans, shape (N,)")
    _check_length(raw.size, length, "correct")
    return raw.astype(np.bool_)


def _check_length(length: int, expected: int, name: str) -> None:
    if length != expected:
        raise InputError(f"{name} has {length} entries beside {expected} scores; give one entry for each")


def _check_threshold(threshold: float) -> None:
    if not (math.isfinite(threshold) and threshold > 0):
        raise InputError(f"threshold is {threshold}; give a positive number of px")
