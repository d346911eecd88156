"""From a model's own precision to a probability: the calibration that ``config.json`` carries."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from homoreg.errors import ConfigError, InputError

__all__ = ["Trust", "fit_trust"]


@dataclass(frozen=True)
class Trust:
    """Logistic calibration of the log precision of the last solve.

    ``confidence = 1 / (1 + exp(-(confidence_slope * log_precision + confidence_offset)))`` is the
    probability that the mean corner error is under 3 px at n = 128, and
    ``exp(error_slope * log_precision + error_offset)`` the expected error in px at n = 128.

    Parameters
    ----------
    confidence_slope, confidence_offset
        Of the logistic.
    error_slope, error_offset
        Of the log of the error.
    threshold
        Confidence from which a result calls itself reliable.
    """

    confidence_slope: float = 2.0
    confidence_offset: float = 0.0
    error_slope: float = -1.0
    error_offset: float = 1.0
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

    def confidence(self, log_precision: float) -> float:
        """Probability, 0 to 1, that the mean corner error is under 3 px at n = 128; 0 for NaN."""
        odds = self.confidence_slope * log_precision + self.confidence_offset
        if math.isnan(odds):
            return 0.0  # no prediction, no trust
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, odds))))

    def expected_error(self, log_precision: float) -> float:
        """Expected mean corner error, px at n = 128."""
        return math.exp(max(-5.0, min(5.0, self.error_slope * log_precision + self.error_offset)))


def fit_trust(log_precisions: ArrayLike, errors: ArrayLike, *, threshold: float = 0.5) -> Trust:
    """Fit the calibration on pairs that were not trained on.

    Maximum likelihood logistic regression (Platt scaling) by Newton's method, with a weak prior that
    keeps separable data finite; the error by least squares of its logarithm, shifted so that the mean is
    right.

    Parameters
    ----------
    log_precisions
        Shape (N,), of the estimates.
    errors
        Shape (N,), px at n = 128.
    threshold
        Kept in the result.

    Returns
    -------
    Trust
        The fitted calibration.

    Raises
    ------
    InputError
        If there are fewer than 20 pairs, the lengths differ, a precision is not finite or an error is NaN.
    """
    x, e = np.asarray(log_precisions, np.float64), np.asarray(errors, np.float64)
    if x.shape != e.shape or x.ndim != 1 or len(x) < 20:
        raise InputError(
            f"got {x.shape} precisions and {e.shape} errors; expected one of each for at least 20 pairs"
        )
    if not np.isfinite(x).all() or np.isnan(e).any():
        raise InputError(
            "a log precision is not finite or an error is NaN; leave such pairs out, or give a diverged one "
            "the error inf"
        )
    right = (e < 3.0).astype(np.float64)
    design = np.stack([x, np.ones_like(x)], axis=1)
    weights = np.array([1.0, 0.0])
    ridge = 1e-2 * np.eye(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (right - p) - ridge @ weights
        hessian = (design * (p * (1 - p))[:, None]).T @ design + ridge
        step = np.linalg.solve(hessian, gradient)
        weights = weights + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-8:
            break
    log_error = np.log(np.clip(e, 0.05, 100.0))
    slope, offset = np.linalg.lstsq(design, log_error, rcond=None)[0]
    # The fit gives a geometric mean; this lifts it to the arithmetic one (Duan's smearing, in one number).
    offset += np.log(np.exp(log_error).mean() / np.exp(design @ np.array([slope, offset])).mean())
    return Trust(float(weights[0]), float(weights[1]), float(slope), float(offset), threshold)
