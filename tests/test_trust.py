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
from homoreg.trust import MOST_STRAIN, RIDGE, RIGHT, Evidence, Trust, fit_trust

quick = settings(max_examples=60, deadline=None, derandomize=True)
slopes = st.floats(-20, 20)
anything = st.floats(allow_nan=True, allow_infinity=True)
NAMES = [field.name for field in dataclasses.fields(Evidence)]
NEUTRAL = dict.fromkeys((field.name for field in dataclasses.fields(Trust)), 0.0) | {"threshold": 0.5}

Drawn = tuple[list[Evidence], np.ndarray[Any, Any]]


def drawn(count: int, seed: int = 0) -> Drawn:
    """Evidence, and errors whose spread follows precision and lead; the height says nothing."""
    rng = np.random.default_rng(seed)
    precision, lead, height = rng.uniform(-2, 3, count), rng.normal(0, 1, count), rng.normal(0, 1, count)
    errors = np.exp(rng.normal(0, 0.5, count) - 1.2 * precision - 0.5 * lead + 1)
    evidence = [Evidence(p, lead=q, height=h) for p, q, h in zip(precision, lead, height, strict=True)]
    return evidence, errors


# --- Trust -------------------------------------------------------------------------------------------------


def test_every_kind_of_evidence_has_its_weights() -> None:
    fields = {field.name for field in dataclasses.fields(Trust)}
    expected = {f"{kind}_{name}" for kind in ("confidence", "error") for name in (*NAMES, "offset")}
    assert fields == expected | {"threshold"}


@pytest.mark.parametrize("name", NAMES)
def test_confidence_is_the_logistic_of_weighed_evidence(name: str) -> None:
    trust = Trust(**NEUTRAL | {f"confidence_{name}": 2.0, "confidence_offset": -1.0})
    assert trust.confidence(dataclasses.replace(Evidence(0.0), **{name: 0.5})) == pytest.approx(0.5)
    one = trust.confidence(dataclasses.replace(Evidence(0.0), **{name: 1.5}))
    assert one == pytest.approx(1 / (1 + math.exp(-2)))


@pytest.mark.parametrize("name", NAMES)
def test_the_expected_error_is_the_exponential(name: str) -> None:
    trust = Trust(**NEUTRAL | {f"error_{name}": -1.0, "error_offset": 1.0})
    assert trust.expected_error(dataclasses.replace(Evidence(0.0), **{name: 1.0})) == pytest.approx(1)
    assert trust.expected_error(Evidence(0.0)) == pytest.approx(math.e)


@quick
@given(slopes, slopes, slopes, slopes, anything)
def test_any_evidence_gives_a_probability_and_a_finite_error(
    slope: float, offset: float, error_slope: float, error_offset: float, value: float
) -> None:
    trust = Trust(
        confidence_spread=slope,
        confidence_offset=offset,
        error_spread=error_slope,
        error_offset=error_offset,
    )
    evidence = Evidence(0.5, spread=value)
    assert 0 <= trust.confidence(evidence) <= 1
    assert 0 < trust.expected_error(evidence) < 150


@quick
@given(st.floats(-50, 50), st.floats(-50, 50))
def test_more_precision_never_means_less_trust(one: float, other: float) -> None:
    low, high = (Evidence(value) for value in sorted((one, other)))
    trust = Trust()
    assert trust.confidence(low) <= trust.confidence(high)
    assert trust.expected_error(low) >= trust.expected_error(high)


def test_by_default_better_evidence_means_more_trust() -> None:
    trust, base = Trust(), Evidence(0.5)
    for better in ({"height": 1.0}, {"lead": 1.0}, {"agreement": -1.0}):
        evidence = dataclasses.replace(base, **better)
        assert trust.confidence(evidence) > trust.confidence(base)
        assert trust.expected_error(evidence) <= trust.expected_error(base)
    assert trust.confidence(dataclasses.replace(base, single=1.0)) < trust.confidence(base)


def test_no_prediction_is_no_trust() -> None:
    assert Trust().confidence(Evidence(math.nan)) == 0
    assert Trust().expected_error(Evidence(math.nan)) > 100


def test_extremes_do_not_overflow() -> None:
    assert Trust().confidence(Evidence(1e300)) == pytest.approx(1)
    assert Trust().confidence(Evidence(-1e300)) == pytest.approx(0)
    assert Trust().expected_error(Evidence(-1e300)) == pytest.approx(math.exp(5))


# --- as a dictionary ---------------------------------------------------------------------------------------


def test_a_calibration_survives_json() -> None:
    trust = fit_trust(*drawn(100), threshold=0.6)
    assert Trust.from_dict(json.loads(json.dumps(trust.as_dict()))) == trust
    assert set(trust.as_dict()) == {field.name for field in dataclasses.fields(Trust)}


def test_values_left_out_take_their_defaults() -> None:
    assert Trust.from_dict({}) == Trust()
    assert Trust.from_dict({"threshold": 1}) == Trust(threshold=1)


def test_an_unknown_key_is_named() -> None:
    expected = "unknown calibration key 'slope'; known keys: confidence_agreement, confidence_beats_decoys, "
    with pytest.raises(ConfigError, match=expected):
        Trust.from_dict({"threshold": 0.5, "slope": 1.0})


@pytest.mark.parametrize("value", ["2", None, True, math.nan, math.inf, [1.0]])
def test_a_value_that_is_no_finite_number_is_named(value: Any) -> None:
    expected = f"calibration error_spread is {value!r}; expected a finite number"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        Trust.from_dict({"error_spread": value})


# --- fitting -----------------------------------------------------------------------------------------------


def test_the_fit_is_calibrated_on_pairs_it_has_not_seen() -> None:
    trust = fit_trust(*drawn(5000))
    evidence, error = drawn(5000, seed=1)
    confidence = np.array([trust.confidence(one) for one in evidence])
    right = error < RIGHT
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        inside = (confidence >= low) & (confidence <= high)
        assert inside.sum() > 50
        assert right[inside].mean() == pytest.approx(confidence[inside].mean(), abs=0.08)


def test_the_error_is_fitted_in_its_logarithm_and_right_in_the_mean() -> None:
    evidence, error = drawn(4000)
    trust = fit_trust(evidence, error, threshold=0.7)
    assert trust.error_precision == pytest.approx(-1.2, abs=0.05)
    assert trust.error_lead == pytest.approx(-0.5, abs=0.05)
    expected = np.array([trust.expected_error(one) for one in evidence])
    assert expected.mean() == pytest.approx(np.clip(error, 0.05, 100).mean(), rel=0.02)
    assert trust.threshold == 0.7


def test_what_says_nothing_weighs_little_and_what_never_varies_nothing() -> None:
    trust = fit_trust(*drawn(2000))
    assert abs(trust.confidence_height) < 0.1 * trust.confidence_lead
    assert abs(trust.error_height) < 0.1 * abs(trust.error_lead)
    assert trust.confidence_agreement == trust.confidence_spread == trust.error_single == 0


def test_the_maximum_of_the_likelihood_is_met() -> None:
    evidence, error = drawn(500)
    trust = fit_trust(evidence, error)
    right = error < RIGHT
    deviation = np.array([np.asarray(one) for one in evidence]).std(axis=0)

    def penalised(**change: float) -> float:
        changed = dataclasses.replace(trust, **change)
        confidence = np.array([changed.confidence(one) for one in evidence])
        likelihood = np.log(np.where(right, confidence, 1 - confidence)).sum()
        weights = np.array([getattr(changed, f"confidence_{name}") for name in NAMES])
        return float(likelihood - 0.5 * RIDGE * ((weights * deviation) ** 2).sum())

    for name in ("precision", "lead", "height"):
        for step in (-0.05, 0.05):
            value = getattr(trust, f"confidence_{name}")
            assert penalised(**{f"confidence_{name}": value + step}) < penalised()


def test_a_weight_is_worth_so_many_copies() -> None:
    evidence, error = drawn(60)
    weights = np.ones(60)
    weights[:20] = 3
    copied = fit_trust(evidence + 2 * evidence[:20], np.concatenate([error, error[:20], error[:20]]))
    weighed = fit_trust(evidence, error, weights)
    assert weighed.as_dict() == pytest.approx(copied.as_dict(), abs=1e-6)


@pytest.mark.parametrize("errors", ["split", "all right", "all wrong"])
def test_separable_pairs_stay_finite(errors: str) -> None:
    precision = np.linspace(-2, 2, 40)
    error = {
        "split": np.where(precision > 0, 1.0, 9.0),
        "all right": np.ones(40),
        "all wrong": np.full(40, 9.0),
    }[errors]
    trust = fit_trust([Evidence(p) for p in precision], error)
    assert all(math.isfinite(value) for value in trust.as_dict().values())
    mean = float(np.mean([trust.confidence(Evidence(value)) for value in precision]))
    assert mean == pytest.approx(float((error < RIGHT).mean()), abs=0.05)


def test_pairs_without_an_answer_lower_the_confidence_and_leave_the_expected_error() -> None:
    evidence, error = drawn(200)
    lost = [Evidence(one.precision, lead=one.lead - 4) for one in evidence]
    without = fit_trust(evidence, error)
    trust = fit_trust(evidence + lost, np.concatenate([error, np.full(200, np.inf)]))
    assert trust.confidence(lost[0]) < without.confidence(lost[0])
    for one in evidence:
        assert trust.expected_error(one) == pytest.approx(without.expected_error(one))


def test_where_nothing_has_an_answer_nothing_is_trusted() -> None:
    evidence, _ = drawn(30)
    trust = fit_trust(evidence, np.full(30, np.inf))
    assert max(trust.confidence(one) for one in evidence) < 0.1
    assert trust.expected_error(evidence[0]) > 100


@pytest.mark.parametrize(
    ("count", "errors", "weights"), [(19, 19, None), (20, 21, None), (0, 0, None), (20, 20, 19)]
)
def test_too_few_pairs_or_unequal_lengths_are_refused(count: int, errors: int, weights: int | None) -> None:
    expected = f"got evidence of {count} estimates, errors of shape ({errors},) and weights of shape"
    with pytest.raises(InputError, match=re.escape(expected)):
        fit_trust([Evidence(0.0)] * count, np.zeros(errors), None if weights is None else np.ones(weights))


@pytest.mark.parametrize(
    ("precision", "error", "weight"),
    [
        (math.nan, 1.0, 1.0),
        (math.inf, 1.0, 1.0),
        (0.0, math.nan, 1.0),
        (0.0, 1.0, -1.0),
        (0.0, 1.0, math.nan),
    ],
)
def test_values_that_cannot_be_fitted_are_refused(precision: float, error: float, weight: float) -> None:
    evidence, errors = drawn(30)
    weights = np.ones(30)
    evidence[3], errors[3], weights[3] = Evidence(precision), error, weight
    with pytest.raises(InputError, match="evidence is not finite, an error is NaN or a weight negative; lea"):
        fit_trust(evidence, errors, weights)


def test_what_no_two_cameras_side_by_side_can_have_is_not_believed() -> None:
    trust = Trust()
    fine, strained = (Evidence(9.0, strain=float(np.log1p(px))) for px in (MOST_STRAIN - 1, MOST_STRAIN + 1))
    assert trust.confidence(fine) > 0.9
    assert trust.confidence(strained) == 0


def test_an_answer_that_is_as_good_elsewhere_costs_confidence() -> None:
    trust = Trust()
    confidence = [trust.confidence(Evidence(2.0, rival=rival)) for rival in (0.0, 0.25, 1.0)]
    assert confidence == sorted(confidence, reverse=True)
    assert confidence[0] > confidence[2] + 0.05
    assert trust.expected_error(Evidence(2.0, rival=1.0)) > trust.expected_error(Evidence(2.0))
