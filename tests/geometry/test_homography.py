from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry import (
    compose,
    corner_covariance,
    homography_from_corners,
    image_corners,
    invert_homography,
    is_plausible,
    map_jacobian,
    normalize_homography,
    solve_homography,
    transform_points,
)
from tests.geometry.maps import (
    SIDE,
    displaced,
    double,
    map_of,
    offsets,
    points,
    quick,
    random_maps,
    shift,
    square,
)

PROJECTIVE = double([[1.1, 0.1, 5.0], [-0.05, 0.9, -3.0], [1e-3, -5e-4, 1.0]])


def close(actual: Tensor, expected: Tensor, atol: float = 1e-9, rtol: float = 0.0) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=rtol)


def cells(step: int = 8, side: int = 64) -> Tensor:
    """A grid of points: (N, 2) float64."""
    axis = torch.arange(step / 2, side, step, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis)


# --- corners and points ------------------------------------------------------------------------------------


def test_corners_run_clockwise_from_the_top_left_pixel_centre() -> None:
    corners = image_corners(640, 512)
    assert corners.tolist() == [[0, 0], [639, 0], [639, 511], [0, 511]]
    assert corners.dtype == torch.float32
    assert image_corners(2, 2, dtype=torch.float64, device="cpu").dtype == torch.float64


def test_points_map_by_the_projective_formula() -> None:
    x, y = 30.0, 70.0
    depth = 1e-3 * x - 5e-4 * y + 1
    expected = [(1.1 * x + 0.1 * y + 5) / depth, (-0.05 * x + 0.9 * y - 3) / depth]
    close(transform_points(PROJECTIVE, double([[x, y]])), double([expected]))


def test_points_and_maps_broadcast() -> None:
    maps, many = random_maps(6).view(2, 3, 3, 3), cells()
    mapped = transform_points(maps, many)
    assert mapped.shape == (2, 3, 64, 2)
    close(mapped[1, 2], transform_points(maps[1, 2], many))
    own = many.expand(2, 3, -1, -1) + torch.arange(6.0).view(2, 3, 1, 1)
    close(transform_points(maps, own)[1, 0], transform_points(maps[1, 0], own[1, 0]))


def test_a_point_on_the_horizon_maps_to_infinity() -> None:
    horizon = double([[1, 0, 0], [0, 1, 0], [-0.1, 0, 1]])
    mapped = transform_points(horizon, double([[10, 5], [10, 0]]))
    assert torch.isinf(mapped[0]).all()
    assert mapped[1, 0].isinf()
    assert mapped[1, 1].isnan()


# --- normalize, compose, invert ----------------------------------------------------------------------------


@quick
@given(offsets)
def test_scale_does_not_matter(offset: list[float]) -> None:
    homography = map_of(offset)
    close(normalize_homography(-3.7 * homography), homography, rtol=1e-12)
    close(invert_homography(-3.7 * homography), invert_homography(homography), rtol=1e-9)


def test_a_last_entry_of_zero_cannot_be_normalized() -> None:
    swapped = double([[0, 0, 1], [0, 1, 0], [1, 0, 0]])
    assert not torch.isfinite(normalize_homography(swapped)).all()


@quick
@given(offsets, offsets, points)
def test_composing_applies_the_right_hand_map_first(
    one: list[float], other: list[float], where: list[tuple[float, float]]
) -> None:
    first, second, there = map_of(one), map_of(other), double(where)
    both = compose(second, first)
    assert both[2, 2] == 1
    close(transform_points(both, there), transform_points(second, transform_points(first, there)), rtol=1e-9)


def test_composing_broadcasts_and_takes_any_number() -> None:
    maps = random_maps(4)
    assert compose(shift(1, 2), maps, shift(3, 4)).shape == (4, 3, 3)
    close(compose(2 * maps), maps)
    close(compose(shift(1, 2), shift(3, 4), shift(5, 6)), shift(9, 12))


@quick
@given(offsets, points)
def test_the_inverse_undoes_the_map(offset: list[float], where: list[tuple[float, float]]) -> None:
    homography, there = map_of(offset), double(where)
    back = invert_homography(homography)
    close(transform_points(back, transform_points(homography, there)), there)
    close(compose(back, homography), torch.eye(3, dtype=torch.float64))
    close(back, normalize_homography(torch.linalg.inv(homography)))


def test_the_inverse_in_single_precision_is_good_to_a_thousandth_of_a_pixel() -> None:
    maps = random_maps(64).float()
    corners = image_corners(SIDE, SIDE)
    back = transform_points(invert_homography(maps), transform_points(maps, corners))
    close(back, corners.expand_as(back), atol=1e-3)


def test_inverting_a_singular_matrix_does_not_raise() -> None:
    flat = double([[1, 2, 3], [2, 4, 6], [0, 0, 1]])
    inverse = invert_homography(torch.stack([flat, shift(4, 5)]))
    assert not torch.isfinite(inverse[0]).all()
    close(inverse[1], shift(-4, -5))


# --- four points -------------------------------------------------------------------------------------------


@quick
@given(offsets)
def test_four_points_are_met_exactly(offset: list[float]) -> None:
    target = displaced(offset)
    homography = homography_from_corners(square(), target)
    assert homography[2, 2] == 1
    close(transform_points(homography, square()), target)
    single = homography_from_corners(square().float(), target.float())
    close(transform_points(single.double(), square()), target, atol=2e-3)


@quick
@given(offsets)
def test_four_points_of_a_known_map_give_the_map(offset: list[float]) -> None:
    homography = map_of(offset)
    quad = displaced([3, -2, 5, 1, -4, 2, 0, 6])
    close(homography_from_corners(quad, transform_points(homography, quad)), homography, rtol=1e-7)


def test_corners_broadcast() -> None:
    target = square() + torch.arange(5.0).view(5, 1, 1)
    close(homography_from_corners(square(), target), torch.stack([shift(k, k) for k in range(5)]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "degenerate",
    [
        [[0, 0], [0, 0], [0, 0], [0, 0]],
        [[0, 0], [0, 0], [127, 127], [0, 127]],
        [[0, 0], [50, 50], [127, 127], [0, 127]],
        [[0, 0], [1, 0], [2, 0], [3, 0]],
    ],
)
def test_degenerate_corners_are_refused_by_is_plausible_and_spare_the_batch(
    degenerate: list[list[float]], dtype: torch.dtype
) -> None:
    quads = torch.stack([double(degenerate), square() + 2]).to(dtype)
    base = square().to(dtype)
    for homography in (homography_from_corners(base, quads), homography_from_corners(quads, base)):
        assert is_plausible(homography, SIDE).tolist() == [False, True]


# --- jacobian ----------------------------------------------------------------------------------------------


@quick
@given(offsets, points)
def test_the_jacobian_is_the_limit_of_differences(
    offset: list[float], where: list[tuple[float, float]]
) -> None:
    homography, there, step = map_of(offset), double(where), 1e-4
    columns = []
    for axis in range(2):
        side = torch.zeros(2, dtype=torch.float64)
        side[axis] = step
        ahead, behind = (transform_points(homography, there + sign * side) for sign in (1, -1))
        columns.append((ahead - behind) / (2 * step))
    close(map_jacobian(homography, there), torch.stack(columns, dim=-1), atol=1e-6)


def test_the_jacobian_broadcasts() -> None:
    jacobian = map_jacobian(random_maps(3), cells())
    assert jacobian.shape == (3, 64, 2, 2)
    close(jacobian[2], map_jacobian(random_maps(3)[2], cells()))


# --- weighted least squares --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_solver_recovers_a_known_map(dtype: torch.dtype) -> None:
    maps = random_maps(8, side=64).to(dtype)
    source = cells().to(dtype).expand(8, -1, -1)
    solved, _ = solve_homography(
        source, transform_points(maps, source), torch.ones_like(source), size=64, damping=0.0
    )
    corners = image_corners(64, 64, dtype=dtype)
    # The source is exact, so only rounding is left; the entries of the normal matrix are squares.
    atol = 0.02 if dtype == torch.float32 else 1e-8
    close(transform_points(solved, corners), transform_points(maps, corners), atol=atol)


def test_the_default_damping_costs_a_hundredth_of_a_pixel_at_most() -> None:
    maps = random_maps(8, side=64, reach=0.05)
    source = cells().expand(8, -1, -1)
    solved, _ = solve_homography(source, transform_points(maps, source), torch.ones_like(source), size=64)
    close(transform_points(solved, square(64)), transform_points(maps, square(64)), atol=0.01)


def test_outliers_of_little_precision_count_for_nothing() -> None:
    homography = random_maps(1, side=64)
    source = cells()[None]
    target = transform_points(homography, source)
    precision = torch.ones_like(target)
    target[:, ::3] += 40
    misled, _ = solve_homography(source, target, precision, size=64, damping=0.0)
    precision[:, ::3] = 1e-12
    solved, _ = solve_homography(source, target, precision, size=64, damping=0.0)
    expected = transform_points(homography, square(64))
    assert (transform_points(misled, square(64)) - expected).norm(dim=-1).max() > 5
    close(transform_points(solved, square(64)), expected, atol=1e-5)


def test_the_two_coordinates_are_weighted_apart() -> None:
    source = cells()[None]
    target = source + double([3.0, 4.0])
    precision = torch.ones_like(target)
    precision[..., 0] = 0
    solved, _ = solve_homography(source, target, precision, size=64)
    # Nothing is known of x, so it stays; y is shifted.
    close(transform_points(solved, double([[32, 32]])), double([[[32, 36]]]), atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_evidence_gives_the_identity(dtype: torch.dtype) -> None:
    source = cells().to(dtype)[None]
    solved, information = solve_homography(source, source + 9, torch.zeros_like(source), size=64)
    close(solved, torch.eye(3, dtype=dtype)[None], atol=1e-6)
    assert torch.isfinite(corner_covariance(information, size=64)).all()


def test_damping_pulls_to_the_identity() -> None:
    source = cells()[None]
    found = [
        solve_homography(source, source + 8, torch.ones_like(source), size=64, damping=damping)[0]
        for damping in (0.0, 0.1, 1.0, 1e6)
    ]
    moved = [float((transform_points(h, square(64)) - square(64)).norm(dim=-1).mean()) for h in found]
    assert moved == sorted(moved, reverse=True)
    assert moved[0] == pytest.approx(8 * 2**0.5)
    assert moved[-1] < 1e-3


def test_members_of_a_batch_do_not_touch_each_other() -> None:
    maps = random_maps(3, side=64)
    source = cells().expand(3, -1, -1)
    target = transform_points(maps, source)
    precision = torch.rand(source.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    together = solve_homography(source, target, precision, size=64)
    alone = solve_homography(source[1:2], target[1:2], precision[1:2], size=64)
    close(together[0][1:2], alone[0])
    close(together[1][1:2], alone[1], rtol=1e-12)


# --- covariance --------------------------------------------------------------------------------------------


def test_the_corner_covariance_is_that_of_repeated_noisy_solves() -> None:
    draw = torch.Generator().manual_seed(0)
    trials, source = 4000, cells()
    # Unequal in x and y and over the frame, so that a transposed or mirrored covariance would show.
    deviation = torch.stack([0.2 + source[:, 0] / 64, 0.1 + source[:, 1] / 128], dim=-1)
    noise = torch.randn(trials, *source.shape, generator=draw, dtype=torch.float64) * deviation
    precision = deviation.pow(-2).expand_as(noise)
    solved, information = solve_homography(
        source.expand_as(noise), source + noise, precision, size=64, damping=0.0
    )
    corners = transform_points(solved, square(64))
    centred = corners - corners.mean(dim=0)
    measured = torch.einsum("tki,tkj->kij", centred, centred) / (trials - 1)
    predicted = corner_covariance(information[:1], size=64)[0]
    # Relative standard error of a variance from 4000 draws is 2.2 %; the map is not quite linear in them.
    torch.testing.assert_close(predicted, measured, rtol=0.12, atol=0.05 * float(measured.max()))
    diagonal = predicted.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(diagonal, measured.diagonal(dim1=-2, dim2=-1), rtol=0.12, atol=0)


def test_ten_times_the_precision_is_a_tenth_of_the_covariance() -> None:
    source = cells()[None]
    one, ten = (
        corner_covariance(
            solve_homography(source, source, torch.full_like(source, value), size=64)[1], size=64
        )
        for value in (1.0, 10.0)
    )
    assert one.shape == (1, 4, 2, 2)
    close(ten, one / 10, rtol=1e-9)
    close(one, one.transpose(-1, -2))
    assert (torch.linalg.eigvalsh(one) > 0).all()


# --- plausibility ------------------------------------------------------------------------------------------


def quad_map(*corners: tuple[float, float]) -> Tensor:
    return homography_from_corners(square(), double(corners))


@pytest.mark.parametrize(
    ("name", "homography", "expected"),
    [
        ("identity", torch.eye(3).double(), True),
        ("far shift", shift(9000, -9000), True),
        ("half a turn", quad_map((127, 127), (0, 127), (0, 0), (127, 0)), True),
        ("three times as large", double([[3, 0, 0], [0, 3, 0], [0, 0, 1]]), True),
        ("mirrored", quad_map((127, 0), (0, 0), (0, 127), (127, 127)), False),
        ("folded", quad_map((0, 0), (127, 0), (0, 127), (127, 127)), False),
        ("not convex", quad_map((0, 0), (127, 0), (40, 40), (0, 127)), False),
        ("huge", double([[5, 0, 0], [0, 5, 0], [0, 0, 1]]), False),
        ("tiny", double([[0.2, 0, 0], [0, 0.2, 0], [0, 0, 1]]), False),
        ("one side huge", quad_map((0, 0), (600, 0), (600, 127), (0, 127)), False),
        ("horizon in the frame", double([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1]]), False),
        ("horizon through a corner", double([[1, 0, 0], [0, 1, 0], [-1 / 127, 0, 1]]), False),
        ("not a number", torch.full((3, 3), torch.nan, dtype=torch.float64), False),
        ("infinite", torch.full((3, 3), torch.inf, dtype=torch.float64), False),
        ("zero", torch.zeros(3, 3, dtype=torch.float64), False),
    ],
)
def test_plausibility(name: str, homography: Tensor, expected: bool) -> None:
    assert is_plausible(homography[None], SIDE).tolist() == [expected], name
    assert is_plausible(homography[None].float(), SIDE).tolist() == [expected], name


def test_the_accepted_scale_can_be_chosen() -> None:
    larger = double([[5, 0, 0], [0, 5, 0], [0, 0, 1]])[None]
    assert is_plausible(larger, SIDE, max_scale=6.0).item()
    assert not is_plausible(invert_homography(larger), SIDE).item()
    assert is_plausible(invert_homography(larger), SIDE, max_scale=6.0).item()


@quick
@given(offsets)
def test_every_map_of_the_protocol_is_plausible(offset: list[float]) -> None:
    assert is_plausible(map_of(offset)[None], SIDE).item()


# --- gradients and precision -------------------------------------------------------------------------------


def solve_maps(target: Tensor, precision: Tensor) -> Tensor:
    return solve_homography(cells(32)[None], target, precision, size=64)[0]


def covariance_of(precision: Tensor) -> Tensor:
    source = cells(32)[None]
    return corner_covariance(solve_homography(source, source, precision, size=64)[1], size=64)


SOME = cells(32)[None] + 0.3
ONES = torch.linspace(0.5, 1.5, 8, dtype=torch.float64).view(1, 4, 2)
MAPS = random_maps(2)

GRADIENTS: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "transform_points": (transform_points, (MAPS, cells(32))),
    "normalize_homography": (normalize_homography, (2 * MAPS,)),
    "compose": (compose, (MAPS, shift(1, 2), MAPS)),
    "invert_homography": (invert_homography, (MAPS,)),
    "map_jacobian": (map_jacobian, (MAPS, cells(32))),
    "homography_from_corners": (homography_from_corners, (square(), displaced([1, 2, 3, 4, 5, 6, 7, 8]))),
    "solve_homography": (solve_maps, (SOME, ONES)),
    "corner_covariance": (covariance_of, (ONES,)),
}


@pytest.mark.parametrize("name", sorted(GRADIENTS))
def test_gradients(name: str) -> None:
    function, given_values = GRADIENTS[name]
    inputs = tuple(value.detach().clone().requires_grad_() for value in given_values)
    assert torch.autograd.gradcheck(function, inputs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", sorted(GRADIENTS.keys() - {"solve_homography", "corner_covariance"}))
def test_autocast_leaves_single_precision_alone(name: str) -> None:
    function, given_values = GRADIENTS[name]
    inputs = tuple(value.float() for value in given_values)
    expected = function(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        cast = function(*inputs)
    assert cast.dtype == torch.float32
    assert torch.equal(cast, expected)


def test_autocast_leaves_the_solver_alone_however_it_is_called() -> None:
    source = cells().float()[None]
    target, precision = source + 3, torch.ones_like(source)
    expected = solve_homography(source, target, precision, size=64)
    with torch.autocast("cpu", torch.bfloat16):
        solved, information = solve_homography(source=source, target=target, precision=precision, size=64)
        covariance = corner_covariance(information=information, size=64)
        assert is_plausible(homography=solved, size=64).item()
        corners = homography_from_corners(source=square().float(), target=square().float() + 3)
    assert torch.equal(solved, expected[0])
    assert torch.equal(covariance, corner_covariance(expected[1], size=64))
    assert corners.dtype == torch.float32


# --- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda bad: transform_points(bad, cells()),
        normalize_homography,
        compose,
        lambda bad: compose(shift(1, 2), bad),
        invert_homography,
        lambda bad: map_jacobian(bad, cells()),
    ],
)
def test_a_matrix_that_is_not_3x3_is_named(call: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(InputError, match=r"homography has shape \(2, 3, 2\); expected \(\.\.\., 3, 3\)"):
        call(torch.ones(2, 3, 2, dtype=torch.float64))


def test_corners_that_are_not_four_points_are_named() -> None:
    three = square()[:3]
    with pytest.raises(InputError, match=r"source corners have shape \(3, 2\); expected \(\.\.\., 4, 2\)"):
        homography_from_corners(three, square())
    with pytest.raises(InputError, match=r"target corners have shape \(3, 2\)"):
        homography_from_corners(square(), three)
