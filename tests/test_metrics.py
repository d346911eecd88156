from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry import homography_from_corners, image_corners
from homoreg.metrics import (
    RiskCoverage,
    Summary,
    auc,
    auroc,
    chance_calibration_error,
    corner_error,
    expected_calibration_error,
    reliability_diagram,
    risk_coverage,
    success_rate,
    summarize,
)

INF = math.inf
quick = settings(max_examples=60, deadline=None, derandomize=True)

px = st.one_of(st.floats(0, 60), st.sampled_from([0.0, 1.0, 3.0, 5.0, 10.0, INF]))
errors_px = st.lists(px, min_size=1, max_size=40)
shares = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]))
judged = st.lists(st.tuples(shares, st.booleans()), min_size=1, max_size=40)
offsets = st.lists(st.integers(-32, 32), min_size=8, max_size=8)


def shift(x: float, y: float) -> Tensor:
    return torch.tensor([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=torch.float64)


def displaced(offset: list[int], n: int = 128) -> Tensor:
    """Homography that moves the corners of the centred square by whole px."""
    corners = image_corners(n, n, dtype=torch.float64)
    moved = corners + n / 4 + torch.tensor(offset, dtype=torch.float64).view(4, 2)
    return homography_from_corners(corners, moved)


# --- corner error -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 128, (640, 512)])
def test_a_shift_of_3_and_4_px_is_an_error_of_5(size: int | tuple[int, int]) -> None:
    error = corner_error(shift(3, 4), shift(0, 0), size)
    assert error.dtype == torch.float64
    assert error.shape == ()
    assert float(error) == pytest.approx(5, rel=1e-14)


def test_doubling_moves_each_corner_by_its_distance_from_the_origin() -> None:
    double = torch.diag(torch.tensor([2.0, 2.0, 1.0]))
    expected = (0 + 2 + math.hypot(2, 4) + 4) / 4
    assert float(corner_error(double, torch.eye(3), (3, 5))) == pytest.approx(expected, rel=1e-12)


def test_one_corner_off_by_8_px_is_an_error_of_2() -> None:
    error = corner_error(displaced([0, 0, 8, 0, 0, 0, 0, 0]), displaced([0] * 8), 128)
    assert float(error) == pytest.approx(2, abs=1e-9)


@quick
@given(offsets, offsets)
def test_equals_the_mean_distance_of_the_displacements(first: list[int], second: list[int]) -> None:
    apart = np.array(first).reshape(4, 2) - np.array(second).reshape(4, 2)
    expected = float(np.linalg.norm(apart, axis=1).mean())
    found = float(corner_error(displaced(first), displaced(second), 128))
    assert found == pytest.approx(expected, abs=1e-7)
    assert found == float(corner_error(displaced(second), displaced(first), 128))


@quick
@given(offsets, st.sampled_from([-1.0, 1e-300, -3e-150, 1e150, 7.0]))
def test_the_scale_and_sign_of_a_matrix_do_not_matter(offset: list[int], scale: float) -> None:
    homography, true = displaced(offset), shift(32, 32)
    error = corner_error(homography * scale, true, 128)
    assert float(error) == pytest.approx(float(corner_error(homography, true, 128)), abs=1e-9)


def test_a_batch_keeps_its_order_and_takes_mixed_types() -> None:
    predicted = torch.stack([shift(1, 0), shift(0, 2), shift(0, 0)]).float()
    error = corner_error(predicted, torch.eye(3, dtype=torch.float64).expand(3, 3, 3), 10)
    assert error.tolist() == [1, 2, 0]


def test_an_empty_batch_gives_no_errors() -> None:
    assert corner_error(torch.zeros(0, 3, 3), torch.zeros(0, 3, 3), 128).shape == (0,)


def test_a_corner_sent_to_infinity_is_an_infinite_error() -> None:
    # The third coordinate at (49, 0) is 1 - 49/49: zero but for rounding.
    horizon = torch.tensor([[1, 0, 0], [0, 1, 0], [-1 / 49, 0, 1]], dtype=torch.float64)
    assert float(corner_error(horizon, torch.eye(3, dtype=torch.float64), 50)) == INF


@pytest.mark.parametrize("value", [math.nan, INF, -INF])
@pytest.mark.parametrize("place", [(0, 0), (1, 2), (2, 1), (2, 2)])
def test_an_entry_that_is_not_finite_is_an_infinite_error(value: float, place: tuple[int, int]) -> None:
    broken = torch.eye(3)
    broken[place] = value
    errors = corner_error(torch.stack([broken, torch.eye(3)]), torch.eye(3).expand(2, 3, 3), 128)
    assert errors.tolist() == [INF, 0]


def test_the_zero_matrix_is_an_infinite_error() -> None:
    assert float(corner_error(torch.zeros(3, 3), torch.eye(3), 128)) == INF


@quick
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=9, max_size=9))
def test_is_never_nan_or_negative(entries: list[float]) -> None:
    matrix = torch.tensor(entries, dtype=torch.float64).view(3, 3)
    assert float(corner_error(matrix, shift(32, 32), 128)) >= 0


def test_records_no_gradient() -> None:
    homography = torch.eye(3).requires_grad_()
    assert not corner_error(homography, torch.eye(3), 8).requires_grad


@pytest.mark.parametrize(
    ("predicted", "true", "size", "message"),
    [
        (torch.eye(3), torch.eye(3)[None], 8, r"shape \(3, 3\) and true \(1, 3, 3\).*same shape \(B, 3, 3\)"),
        (torch.zeros(2, 2), torch.zeros(2, 2), 8, r"shape \(2, 2\)"),
        (torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3), 8, r"shape \(1, 1, 3, 3\)"),
        (torch.eye(3), torch.eye(3), 1, "size 1 is too small; give at least 2 px"),
        (torch.eye(3), torch.eye(3), (8, 0), r"size \(8, 0\) is too small"),
    ],
)
def test_corner_error_refuses(
    predicted: Tensor, true: Tensor, size: int | tuple[int, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        corner_error(predicted, true, size)


# --- success rate and AUC -----------------------------------------------------------------------------------


def test_success_is_strictly_below_the_threshold() -> None:
    assert success_rate([0.5, 1.0, 2.0, INF], [1, 3, 1000]).tolist() == [0.25, 0.75, 0.75]


def test_one_threshold_gives_one_rate() -> None:
    assert success_rate(torch.tensor([0.5, 4.0]), 3).tolist() == [0.5]


@quick
@given(errors_px, st.floats(0.1, 50), st.floats(0.1, 50))
def test_success_rises_with_the_threshold(errors: list[float], a: float, b: float) -> None:
    low, high = success_rate(errors, sorted((a, b)))
    assert 0 <= low <= high <= 1


@pytest.mark.parametrize(
    ("errors", "threshold", "expected"),
    [
        ([0.0, 0.0], 3, 1.0),
        ([3.0, 4.0, INF], 3, 0.0),
        # From (0, 0) to (1, 1/2) to (2, 1), level to 4: 0.25 + 0.75 + 2.
        ([1.0, 2.0], 4, 3 / 4),
        # The diverged pair holds the curve at 1/2.
        ([1.0, INF], 4, (0.25 + 1.5) / 4),
        ([2.0, 0.0, 2.0, 2.0], 4, (2 * (0.25 + 0.5) / 2 + 2 * 1) / 4),
    ],
)
def test_auc_of_known_curves(errors: list[float], threshold: float, expected: float) -> None:
    assert auc(errors, threshold) == pytest.approx(expected, rel=1e-12)


@quick
@given(errors_px, st.sampled_from([1.0, 3.0, 5.0, 10.0, 0.7]))
def test_auc_exceeds_the_step_area_by_at_most_half_a_pair(errors: list[float], threshold: float) -> None:
    step = float(np.maximum(0, 1 - np.array(errors) / threshold).mean())
    assert step - 1e-12 <= auc(errors, threshold) <= step + 0.5 / len(errors) + 1e-12


@quick
@given(errors_px, st.integers(0, 39), st.floats(0, 1), st.randoms(use_true_random=False))
def test_auc_ignores_order_and_rewards_a_smaller_error(
    errors: list[float], which: int, factor: float, random: Any
) -> None:
    before = auc(errors, 5)
    mixed = list(errors)
    random.shuffle(mixed)
    assert auc(mixed, 5) == pytest.approx(before, abs=1e-12)
    place = which % len(errors)
    errors[place] = errors[place] * factor if errors[place] < INF else 20 * factor
    assert 0 <= before <= auc(errors, 5) + 1e-12 <= 1 + 1e-12


# --- summary ------------------------------------------------------------------------------------------------


@quick
@given(st.lists(st.floats(0, 500), min_size=1, max_size=50))
def test_a_summary_of_finite_errors_is_numpys(errors: list[float]) -> None:
    row = summarize(errors)
    values = np.array(errors)
    assert (row.n, row.diverged) == (len(errors), 0)
    found = [row.mean, row.std, row.min, row.q25, row.median, row.q75, row.max]
    expected = [values.mean(), values.std(), *np.quantile(values, [0, 0.25, 0.5, 0.75, 1])]
    assert found == pytest.approx([float(value) for value in expected], abs=1e-9)
    rates = [row.under_1, row.under_3, row.under_5, row.under_10]
    assert rates == [float((values < limit).mean()) for limit in (1, 3, 5, 10)]
    assert [row.auc_3, row.auc_5, row.auc_10] == [auc(errors, limit) for limit in (3, 5, 10)]


def test_a_diverged_pair_counts_everywhere() -> None:
    row = summarize([0.5, 2.0, 4.0, INF])
    assert (row.n, row.diverged) == (4, 1)
    assert (row.mean, row.std, row.max) == (INF, INF, INF)
    assert (row.min, row.q25, row.median) == (0.5, 1.625, 3.0)
    assert row.q75 == INF  # it lies between 4 and infinity
    assert (row.under_1, row.under_3, row.under_5, row.under_10) == (0.25, 0.5, 0.75, 0.75)


def test_a_quartile_that_meets_a_finite_error_exactly_stays_finite() -> None:
    assert summarize([1.0, 2.0, 3.0, 4.0, INF]).q75 == 4.0


def test_all_diverged() -> None:
    row = summarize([INF, INF])
    assert {row.mean, row.std, row.min, row.q25, row.median, row.q75, row.max} == {INF}
    assert {row.under_10, row.auc_10} == {0.0}


@quick
@given(errors_px)
def test_a_summary_is_in_order_and_never_nan(errors: list[float]) -> None:
    row = summarize(errors)
    assert not any(math.isnan(value) for value in dataclasses.astuple(row))
    assert row.min <= row.q25 <= row.median <= row.q75 <= row.max
    assert row.under_1 <= row.under_3 <= row.under_5 <= row.under_10
    assert row.auc_3 <= row.auc_5 + 0.5 / row.n


def test_a_summary_is_frozen() -> None:
    row = summarize([1.0])
    assert isinstance(row, Summary)
    assert row.std == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.mean = 0.0  # type: ignore[misc]


# --- calibration --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "correct", "expected"),
    [
        ([0.1, 0.2, 0.8, 0.9], [False, False, True, True], 1.0),
        ([0.9, 0.8, 0.2, 0.1], [False, False, True, True], 0.0),
        ([0.5, 0.5, 0.5], [False, True, True], 0.5),
        ([0.1, 0.4, 0.35, 0.8], [False, False, True, True], 0.75),
        ([-INF, 0.0, INF], [False, True, True], 1.0),
        ([1.0, 1.0, 2.0], [True, False, True], 0.75),
    ],
)
def test_auroc_of_known_rankings(scores: list[float], correct: list[bool], expected: float) -> None:
    assert auroc(scores, correct) == pytest.approx(expected, abs=1e-12)


@quick
@given(judged)
def test_auroc_is_the_chance_of_ranking_a_right_result_above_a_wrong_one(
    pairs: list[tuple[float, bool]],
) -> None:
    scores = [score for score, _ in pairs]
    correct = [right for _, right in pairs]
    right = [score for score, good in pairs if good]
    wrong = [score for score, good in pairs if not good]
    found = auroc(scores, correct)
    if not right or not wrong:
        assert math.isnan(found)
        return
    wins = sum((a > b) + 0.5 * (a == b) for a in right for b in wrong)
    assert found == pytest.approx(wins / (len(right) * len(wrong)), abs=1e-12)


def test_auroc_of_nothing_is_nan() -> None:
    assert math.isnan(auroc([], []))


def test_a_confidence_that_holds_has_no_calibration_error() -> None:
    assert expected_calibration_error([0.8] * 5, [True] * 4 + [False]) == pytest.approx(0, abs=1e-12)


def test_certain_and_wrong_is_the_largest_calibration_error() -> None:
    assert expected_calibration_error([1.0, 1.0, 0.0], [False, False, True]) == 1.0


def test_calibration_error_of_two_bins() -> None:
    # Lower bin: mean confidence 0.3, none correct; upper bin: 0.75, all correct.
    found = expected_calibration_error([0.2, 0.4, 0.5, 1.0], [False, False, True, True], bins=2)
    assert found == pytest.approx(0.5 * 0.3 + 0.5 * 0.25, abs=1e-12)


def test_opposite_errors_cancel_within_a_bin_only() -> None:
    confidence, correct = [0.1, 0.9], [True, False]
    assert expected_calibration_error(confidence, correct, bins=1) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(0.9, abs=1e-12)


@quick
@given(judged, st.integers(1, 20))
def test_calibration_error_equals_its_definition(pairs: list[tuple[float, bool]], bins: int) -> None:
    confidence = np.array([score for score, _ in pairs])
    correct = np.array([right for _, right in pairs])
    expected = 0.0
    for b in range(bins):
        inside = (confidence * bins >= b) & ((confidence * bins < b + 1) | (b == bins - 1))
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(expected, abs=1e-9)


def test_exact_confidences_have_a_calibration_error_by_chance() -> None:
    assert chance_calibration_error([0.5]) == pytest.approx(0.5)  # the one result is 0 or 1
    assert chance_calibration_error([0.5, 0.5]) == pytest.approx(0.25)  # none, one or both of two
    assert chance_calibration_error([0.5, 0.2], bins=2) == pytest.approx((0.5 + 2 * 0.2 * 0.8) / 2)
    assert chance_calibration_error([0.0, 1.0, 1.0]) == 0


def test_the_error_by_chance_is_the_mean_of_the_calibration_error() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.random(60)
    drawn = [expected_calibration_error(confidence, generator.random(60) < confidence) for _ in range(2000)]
    spread = np.std(drawn) / len(drawn) ** 0.5
    assert chance_calibration_error(confidence) == pytest.approx(np.mean(drawn), abs=4 * spread)


def test_the_error_by_chance_of_many_results_is_that_of_a_normal_distribution() -> None:
    few, many = (chance_calibration_error(np.full(count, 0.5)) for count in (1500, 6000))
    assert many == pytest.approx(few / 2, rel=1e-3)  # falls with the root of their number


def test_the_reliability_diagram_of_two_bins() -> None:
    diagram = reliability_diagram([0.2, 0.4, 0.5, 1.0, 0.9], [False, True, True, True, False], bins=2)
    assert diagram.count.tolist() == [2, 3]
    assert diagram.stated.tolist() == pytest.approx([0.3, 0.8])
    assert diagram.correct.tolist() == pytest.approx([1 / 2, 2 / 3])
    assert diagram.expected_error == pytest.approx((2 * 0.2 + 3 * (0.8 - 2 / 3)) / 5)


def test_an_empty_bin_of_the_reliability_diagram_says_nothing() -> None:
    diagram = reliability_diagram([0.1, 0.9], [False, True], bins=4)
    assert diagram.count.tolist() == [1, 0, 0, 1]
    assert (
        np.isnan(diagram.stated).tolist() == np.isnan(diagram.correct).tolist() == [False, True, True, False]
    )
    assert diagram.expected_error == pytest.approx(0.1)


def test_risk_and_coverage_of_a_known_ranking() -> None:
    curve = risk_coverage([0.9, 0.8, 0.7, 0.2], [0.5, INF, 1.0, 9.0], 3)
    assert isinstance(curve, RiskCoverage)
    assert curve.confidence.tolist() == [0.9, 0.8, 0.7, 0.2]
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert curve.risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert curve.area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_equal_confidences_are_accepted_together() -> None:
    curve = risk_coverage([0.5, 0.9, 0.5], [9.0, 1.0, 1.0], 3)
    assert curve.confidence.tolist() == [0.9, 0.5]
    assert curve.coverage.tolist() == pytest.approx([1 / 3, 1])
    assert curve.risk.tolist() == pytest.approx([0, 1 / 3])


@quick
@given(st.lists(st.tuples(shares, px), min_size=1, max_size=40))
def test_at_full_coverage_the_risk_is_the_failure_rate(pairs: list[tuple[float, float]]) -> None:
    confidence, errors = [c for c, _ in pairs], [e for _, e in pairs]
    curve = risk_coverage(confidence, errors, 3)
    assert curve.coverage[-1] == 1
    assert curve.risk[-1] == pytest.approx(1 - success_rate(errors, 3)[0], abs=1e-12)
    assert (np.diff(curve.coverage) > 0).all()
    assert (np.diff(curve.confidence) < 0).all()
    assert 0 <= curve.area <= 1 + 1e-12


def test_risk_at_a_coverage_and_coverage_at_a_risk() -> None:
    curve = risk_coverage([0.9, 0.8, 0.7, 0.2], [0.5, INF, 1.0, 9.0], 3)
    assert curve.risk_at(0.25) == 0
    assert curve.risk_at(0.26) == pytest.approx(1 / 2)
    assert curve.risk_at(0.75) == pytest.approx(1 / 3)
    assert curve.risk_at(1) == pytest.approx(1 / 2)
    assert curve.coverage_at(0) == 0.25
    assert curve.coverage_at(0.4) == 0.75
    assert curve.coverage_at(0.5) == 1
    assert risk_coverage([0.5], [9.0], 3).coverage_at(0.5) == 0


# --- bad input ----------------------------------------------------------------------------------------------

BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: summarize([]), "errors is empty; give at least one"),
    (lambda: summarize([1.0, math.nan]), r"errors\[1\] is NaN; give numbers \(inf for a diverged pair\)"),
    (lambda: summarize([1.0, -0.5]), r"errors\[1\] is -0.5; an error in px is 0 or more"),
    (lambda: summarize([[1.0], [2.0]]), r"errors has shape \(2, 1\); give N numbers"),
    (lambda: summarize(["a"]), "errors is list; give N numbers"),
    (lambda: success_rate([1.0], [0.0]), "threshold is 0.0; give a positive number of px"),
    (lambda: auc([1.0], -1), "threshold is -1; give a positive number"),
    (lambda: auc([1.0], INF), "threshold is inf"),
    (lambda: auc([1.0], math.nan), "threshold is nan"),
    (lambda: auroc([math.nan], [True]), r"scores\[0\] is NaN"),
    (lambda: auroc([0.5], [1]), r"correct has dtype int64 and shape \(1,\); give N booleans"),
    (lambda: auroc([0.5, 0.6], [True]), "correct has 1 entries beside 2 scores; give one entry for each"),
    (lambda: expected_calibration_error([], []), "confidence is empty"),
    (lambda: expected_calibration_error([1.5], [True]), r"confidence\[0\] is 1.5.* between 0 and 1"),
    (lambda: expected_calibration_error([0.5], [True], bins=0), "bins is 0; give at least 1"),
    (lambda: chance_calibration_error([]), "confidence is empty"),
    (lambda: chance_calibration_error([0.5], bins=0), "bins is 0; give at least 1"),
    (lambda: risk_coverage([0.5], [1.0, 2.0], 3), "errors has 2 entries beside 1 scores"),
    (lambda: risk_coverage([-0.1], [1.0], 3), r"confidence\[0\] is -0.1"),
    (lambda: risk_coverage([0.1], [1.0], 0), "threshold is 0"),
    (lambda: reliability_diagram([0.5], [True], bins=0), "bins is 0; give at least 1"),
    (lambda: risk_coverage([0.1], [1.0], 3).risk_at(0), "coverage is 0; give a share above 0"),
    (lambda: risk_coverage([0.1], [1.0], 3).coverage_at(1.1), "risk is 1.1; give a share between"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
