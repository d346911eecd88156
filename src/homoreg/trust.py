"""From the evidence of one estimate to a probability: the calibration that ``config.json`` carries.

Evidence is a handful of numbers that fall out of the looks a registration takes anyway. A logistic model
over them gives the confidence, a log-linear one the expected error; both are fitted on pairs that were not
trained on, see :func:`fit_trust`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from homoreg.errors import ConfigError, InputError

__all__ = ["MOST_STRAIN", "RIGHT", "Evidence", "Trust", "fit_trust"]

Floats: TypeAlias = NDArray[np.float64]

RIGHT = 3.0
"""An estimate is right if its mean corner error is under so many px at n = 128."""

MOST_STRAIN = 7.0  # px at n = 128: without a start, answers further from a similarity are not believed
RIDGE = 10.0  # pull of the fitted weights to 0, in samples: of evidence scaled to unit deviation
FEWEST = 20  # samples that can be fitted


@dataclass(frozen=True)
class Evidence:
    """What speaks for one estimate. Lengths are in px at n = 128.

    Parameters
    ----------
    precision
        Mean predicted log precision of the last solve.
    spread
        Log of the corners' standard deviation by the solver's covariance.
    agreement
        Log of 0.1 px and the mean distance between the corners of this answer and of the one that it
        started from; 0 where there is none.
    single
        1 where there is no such answer, else 0.
    mirrored
        Log of 1 px and the mean distance between the corners of this answer and of those that are found in
        both pictures mirrored, in the median over these; 0 where there are none.
    unmirrored
        1 where there are none, else 0.
    height, lead
        How far the edges of both images coincide, see :func:`homoreg.structure.edge_agreement`.
    strain
        Log of 1 and how far the answer is from a similarity, see :func:`homoreg.priors.strain`; 0 where the
        caller gave a start, which may be of any shape.
    beyond
        Log of 1 and how far the answer is beyond the reach of the start that the caller gave, see
        :func:`homoreg.priors.beyond_reach`; 0 without one.
    rival
        Confidence of the best answer elsewhere in frames of the same size, over that of the best anywhere; 0
        where none was looked for.
    over_decoys
        Log precision, in frames of the size that answers are compared in, by which the answer exceeds the
        best that the infrared picture mirrored, upside down or turned by half finds in the RGB picture as it
        is, where it belongs nowhere; at most 0.25 either way, and 0 where none was looked for. The idea is
        that of decoys for chance matches of spectra (Elias and Gygi, Nature Methods 4, 2007).
    beats_decoys
        ``tanh((over_decoys - 0.05) / 0.05)``, a soft step between what strangers reach and what right answers
        do; 0 where no decoy was looked for.
    """

    precision: float
    spread: float = 0.0
    agreement: float = 0.0
    single: float = 0.0
    mirrored: float = 0.0
    unmirrored: float = 0.0
    height: float = 0.0
    lead: float = 0.0
    strain: float = 0.0
    beyond: float = 0.0
    rival: float = 0.0
    over_decoys: float = 0.0
    beats_decoys: float = 0.0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Floats:
        return np.array(dataclasses.astuple(self), dtype or np.float64)


@dataclass(frozen=True)
class Trust:
    """Calibration of what a model's evidence is worth.

    ``confidence = 1 / (1 + exp(-(confidence_offset + sum_e confidence_e * e)))`` over the evidence ``e`` is
    the probability that the mean corner error is under 3 px at n = 128, and
    ``exp(error_offset + sum_e error_e * e)`` the expected error in px at n = 128. The defaults, of a model
    that was never calibrated, trust little.

    Parameters
    ----------
    confidence_offset, confidence_precision, ...
        Of the logistic, one for each field of :class:`Evidence`.
    error_offset, error_precision, ...
        Of the log of the error.
    threshold
        Confidence from which a result calls itself reliable.
    """

    confidence_offset: float = -2.0
    confidence_precision: float = 2.0
    confidence_spread: float = 0.0
    confidence_agreement: float = -0.5
    confidence_single: float = -0.5
    confidence_mirrored: float = 0.0
    confidence_unmirrored: float = 0.0
    confidence_height: float = 0.5
    confidence_lead: float = 0.5
    confidence_strain: float = 0.0
    confidence_beyond: float = 0.0
    confidence_rival: float = -1.0
    confidence_over_decoys: float = 0.0
    confidence_beats_decoys: float = 0.0
    error_offset: float = 1.5
    error_precision: float = -1.0
    error_spread: float = 0.0
    error_agreement: float = 0.5
    error_single: float = 0.5
    error_mirrored: float = 0.0
    error_unmirrored: float = 0.0
    error_height: float = 0.0
    error_lead: float = -0.2
    error_strain: float = 0.0
    error_beyond: float = 0.0
    error_rival: float = 0.5
    error_over_decoys: float = 0.0
    error_beats_decoys: float = 0.0
    threshold: float = 0.5

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Trust:
        """Read the calibration of a config; an empty one gives the defaults, which trust little.

        Raises
        ------
        ConfigError
            If a key is unknown or a value is not a finite number.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise ConfigError(f"unknown calibration key {name!r}; known keys: {', '.join(sorted(known))}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ConfigError(f"calibration {name} is {value!r}; expected a finite number")
        return cls(**values)

    def as_dict(self) -> dict[str, float]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    def confidence(self, evidence: Evidence) -> float:
        """Probability, 0 to 1, that the mean corner error is under 3 px at n = 128.

        0 for NaN, and for an answer without a start that no two cameras side by side can have.
        """
        odds = self._weigh("confidence", evidence)
        if math.isnan(odds) or evidence.strain > math.log1p(MOST_STRAIN):
            return 0.0  # no prediction, no trust
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, odds))))

    def expected_error(self, evidence: Evidence) -> float:
        """Expected mean corner error, px at n = 128; that of a lost estimate for NaN."""
        log_error = self._weigh("error", evidence)
        return math.exp(5.0 if math.isnan(log_error) else max(-5.0, min(5.0, log_error)))

    def _weigh(self, kind: str, evidence: Evidence) -> float:
        total: float = getattr(self, f"{kind}_offset")
        for name, value in vars(evidence).items():
            total += getattr(self, f"{kind}_{name}") * value
        return total


def fit_trust(
    evidence: Sequence[Evidence],
    errors: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    threshold: float = 0.5,
) -> Trust:
    """Fit the calibration on pairs that were not trained on.

    The confidence by logistic regression, the error by least squares of its logarithm, shifted so that its
    mean is right; both with a weak pull of the weights to 0, which keeps separable data finite and gives
    evidence that never varies no weight.

    Parameters
    ----------
    evidence
        Of N estimates.
    errors
        Shape (N,), px at n = 128; ``inf`` where there is no right answer. Those have no part in the
        expected error.
    weights
        Shape (N,), how much each counts; 1 by default.
    threshold
        Kept in the result.

    Returns
    -------
    Trust
        The fitted calibration.

    Raises
    ------
    InputError
        If there are fewer than 20 estimates, the lengths differ, evidence is not finite, an error is NaN or
        a weight is negative.
    """
    x = np.array([np.asarray(one) for one in evidence], np.float64)
    e = np.asarray(errors, np.float64)
    w = np.ones_like(e) if weights is None else np.asarray(weights, np.float64)
    if len(x) < FEWEST or e.shape != (len(x),) or w.shape != e.shape:
        raise InputError(
            f"got evidence of {len(x)} estimates, errors of shape {e.shape} and weights of shape {w.shape}; "
            f"expected one of each for at least {FEWEST} estimates"
        )
    if not np.isfinite(x).all() or np.isnan(e).any() or not (w >= 0).all():
        raise InputError(
            "evidence is not finite, an error is NaN or a weight negative; leave such estimates out, or give "
            "those without an answer the error inf"
        )
    known = np.isfinite(e)
    log_error = np.log(np.clip(e[known], 0.05, 100.0))
    odds = _fit_logistic(x, (e < RIGHT).astype(np.float64), w)
    errs = _fit_line(x[known], log_error, w[known])
    names = [f.name for f in dataclasses.fields(Evidence)]
    return Trust(
        **{f"confidence_{name}": float(value) for name, value in zip([*names, "offset"], odds, strict=True)},
        **{f"error_{name}": float(value) for name, value in zip([*names, "offset"], errs, strict=True)},
        threshold=threshold,
    )


def _standardise(x: Floats, w: Floats) -> tuple[Floats, Floats, Floats]:
    """Columns of zero mean and unit deviation, and a column of ones; the mean and the deviation."""
    mean = np.average(x, axis=0, weights=w)
    deviation = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=w))
    deviation = np.where(deviation > 1e-9, deviation, np.inf)  # what never varies says nothing
    return np.column_stack([(x - mean) / deviation, np.ones(len(x))]), mean, deviation


def _unscaled(b: Floats, mean: Floats, deviation: Floats) -> Floats:
    slopes = b[:-1] / deviation
    return np.append(slopes, b[-1] - slopes @ mean)


def _pull(count: int) -> Floats:
    ridge = RIDGE * np.eye(count)
    ridge[-1, -1] = 1e-2  # of the offset: keeps it finite where all are right, or all wrong
    return ridge


def _fit_logistic(x: Floats, right: Floats, w: Floats) -> Floats:
    """Weights of the columns, and the offset: the maximum of the penalised likelihood, by Newton's method."""
    z, mean, deviation = _standardise(x, w)
    ridge = _pull(z.shape[1])
    b = np.zeros(z.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(z @ b, -30, 30)))
        gradient = z.T @ (w * (right - p)) - ridge @ b
        hessian = (z * (w * p * (1 - p))[:, None]).T @ z + ridge
        step = np.clip(np.linalg.solve(hessian, gradient), -1, 1)
        b = b + step
        if np.abs(step).max() < 1e-9:
            break
    return _unscaled(b, mean, deviation)


def _fit_line(x: Floats, y: Floats, w: Floats) -> Floats:
    """Weights of the columns, and the offset, of the log error."""
    if w.sum() <= 0:
        return np.append(np.zeros(x.shape[1]), 5.0)  # nothing was ever right: the largest error there is
    z, mean, deviation = _standardise(x, w)
    b: Floats = np.linalg.solve((z * w[:, None]).T @ z + _pull(z.shape[1]), z.T @ (w * y)).astype(np.float64)
    # The fit gives a geometric mean; this lifts it to the arithmetic one (Duan's smearing, in one number).
    b[-1] += np.log(np.average(np.exp(y), weights=w) / np.average(np.exp(z @ b), weights=w))
    return _unscaled(b, mean, deviation)
