from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homoreg.errors import ConfigError, InputError
from homoreg.trust import Trust, fit_trust

quick = settings(max_examples=60, deadline=None, derandomize=True)
slopes = st.floats(-20, 20)
anything = st.floats(allow_nan=True, allow_infinity=True)


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Log precisions, and errors whose spread follows them: median 1 px at precision 1."""
    rng = np.random.default_rng(seed)
    precision = rng.uniform(-2, 3, count)
    return precision, np.exp(rng.normal(0, 0.5, count) - 1.2 * precision + 1)


# --- Trust -------------------------------------------------------------------------------------------------


def test_confidence_is_the_logistic_of_the_log_precision() -> None:
    trust = Trust(confidence_slope=2.0, confidence_offset=-1.0)
    assert trust.confidence(0.5) == pytest.approx(0.5)
    assert trust.confidence(1.5) == pytest.approx(1 / (1 + math.exp(-2)))
    assert trust.confidence(0.0) == pytest.approx(1 - Trust(2.0, 1.0).confidence(0.0))


def test_the_expected_error_is_the_exponential() -> None:
    trust = Trust(error_slope=-1.0, error_offset=1.0)
    assert trust.expected_error(1.0) == pytest.approx(1)
    assert trust.expected_error(0.0) == pytest.approx(math.e)


@quick
@given(slopes, slopes, slopes, slopes, anything)
def test_any_precision_gives_a_probability_and_a_finite_error(
    slope: float, offset: float, error_slope: float, error_offset: float, precision: float
) -> None:
    trust = Trust(slope, offset, error_slope, error_offset)
    assert 0 <= trust.confidence(precision) <= 1
    assert 0 < trust.expected_error(precision) < 150


@quick
@given(st.floats(-50, 50), st.floats(-50, 50))
def test_more_precision_never_means_less_trust(one: float, other: float) -> None:
    low, high = sorted((one, other))
    trust = Trust()
    assert trust.confidence(low) <= trust.confidence(high)
    assert trust.expected_error(low) >= trust.expected_error(high)


def test_no_prediction_is_no_trust() -> None:
    assert Trust().confidence(math.nan) == 0
    assert Trust().expected_error(math.nan) > 100


def test_extremes_do_not_overflow() -> None:
    assert Trust().confidence(1e300) == pytest.approx(1)
    assert Trust().confidence(-1e300) == pytest.approx(0)
    assert Trust().expected_error(-1e300) == pytest.approx(math.exp(5))


# --- as a dictionary ---------------------------------------------------------------------------------------


def test_a_calibration_survives_json() -> None:
    trust = fit_trust(*drawn(100), threshold=0.6)
    assert Trust.from_dict(json.loads(json.dumps(trust.as_dict()))) == trust
    assert set(trust.as_dict()) == {field.name for field in dataclasses.fields(Trust)}


def test_values_left_out_take_their_defaults() -> None:
    assert Trust.from_dict({}) == Trust()
    assert Trust.from_dict({"threshold": 1}) == Trust(threshold=1)


def test_an_unknown_key_is_named() -> None:
    expected = (
        "unknown calibration key 'slope'; known keys: confidence_offset, confidence_slope, error_offset, "
        "error_slope, threshold"
    )
    with pytest.raises(ConfigError, match=expected):
        Trust.from_dict({"threshold": 0.5, "slope": 1.0})


@pytest.mark.parametrize("value", ["2", None, True, math.nan, math.inf, [1.0]])
def test_a_value_that_is_no_finite_number_is_named(value: Any) -> None:
    expected = f"calibration error_slope is {value!r}; expected a finite number"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        Trust.from_dict({"error_slope": value})


# --- fitting -----------------------------------------------------------------------------------------------


def test_the_fit_is_calibrated_on_pairs_it_has_not_seen() -> None:
    trust = fit_trust(*drawn(2000))
    precision, error = drawn(2000, seed=1)
    confidence = np.array([trust.confidence(value) for value in precision])
    right = error < 3
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        inside = (confidence >= low) & (confidence <= high)
        assert inside.sum() > 50
        assert right[inside].mean() == pytest.approx(confidence[inside].mean(), abs=0.08)


def test_the_error_is_fitted_in_its_logarithm_and_right_in_the_mean() -> None:
    precision, error = drawn(4000)
    trust = fit_trust(precision, error, threshold=0.7)
    assert trust.error_slope == pytest.approx(-1.2, abs=0.05)
    expected = np.array([trust.expected_error(value) for value in precision])
    assert expected.mean() == pytest.approx(np.clip(error, 0.05, 100).mean(), rel=0.02)
    assert trust.threshold == 0.7


def test_the_maximum_of_the_likelihood_is_met() -> None:
    precision, error = drawn(500)
    trust = fit_trust(precision, error)
    right = error < 3

    def penalised(slope: float, offset: float) -> float:
        odds = slope * precision + offset
        likelihood = np.where(right, -np.logaddexp(0, -odds), -np.logaddexp(0, odds)).sum()
        return float(likelihood - 0.5e-2 * (slope**2 + offset**2))

    best = penalised(trust.confidence_slope, trust.confidence_offset)
    for step in (-0.01, 0.01):
        assert penalised(trust.confidence_slope + step, trust.confidence_offset) < best
        assert penalised(trust.confidence_slope, trust.confidence_offset + step) < best


@pytest.mark.parametrize("errors", ["split", "all right", "all wrong"])
def test_separable_pairs_stay_finite(errors: str) -> None:
    precision = np.linspace(-2, 2, 40)
    error = {
        "split": np.where(precision > 0, 1.0, 9.0),
        "all right": np.ones(40),
        "all wrong": np.full(40, 9.0),
    }[errors]
    trust = fit_trust(precision, error)
    assert all(math.isfinite(value) for value in trust.as_dict().values())
    mean = float(np.mean([trust.confidence(value) for value in precision]))
    assert mean == pytest.approx(float((error < 3).mean()), abs=0.05)


def test_a_diverged_pair_counts_as_a_large_error() -> None:
    precision, error = drawn(100)
    error[np.argmin(precision)] = math.inf
    assert all(math.isfinite(value) for value in fit_trust(precision, error).as_dict().values())


def test_lists_are_taken_too() -> None:
    precision, error = drawn(30)
    assert fit_trust(precision.tolist(), error.tolist()) == fit_trust(precision, error)


@pytest.mark.parametrize(("first", "second"), [((19,), (19,)), ((20,), (21,)), ((20, 1), (20, 1)), ((), ())])
def test_too_few_pairs_or_unequal_lengths_are_refused(
    first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    expected = f"got {first} precisions and {second} errors; expected one of each for at least 20 pairs"
    with pytest.raises(InputError, match=re.escape(expected)):
        fit_trust(np.zeros(first), np.zeros(second))


@pytest.mark.parametrize(("precision", "error"), [(math.nan, 1.0), (math.inf, 1.0), (0.0, math.nan)])
def test_values_that_cannot_be_fitted_are_refused(precision: float, error: float) -> None:
    precisions, errors = drawn(30)
    precisions[3], errors[3] = precision, error
    with pytest.raises(
        InputError, match="a log precision is not finite or an error is NaN; leave such pairs o"
    ):
        fit_trust(precisions, errors)
