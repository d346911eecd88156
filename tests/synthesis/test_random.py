from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from homoreg.synthesis.random import Draw, RepeatedDraw

MANY = 20_000


@pytest.fixture
def draw() -> Draw:
    return Draw(0, MANY)


def test_uniform_covers_its_range(draw: Draw) -> None:
    value = draw.uniform(-2.0, 3.0)
    assert value.shape == (MANY,)
    assert -2 <= value.min() < -1.99
    assert 2.99 < value.max() < 3
    assert value.mean() == pytest.approx(0.5, abs=0.05)


def test_log_uniform_is_uniform_in_the_logarithm(draw: Draw) -> None:
    value = draw.log_uniform(0.1, 10.0)
    assert 0.1 * (1 - 1e-5) <= value.min() < 0.101
    assert 9.9 < value.max() <= 10 * (1 + 1e-5)
    assert value.log().mean() == pytest.approx(0, abs=0.05)
    assert (value < 1).float().mean() == pytest.approx(0.5, abs=0.02)


def test_normal(draw: Draw) -> None:
    value = draw.normal(2)
    assert value.shape == (MANY, 2)
    assert value.mean() == pytest.approx(0, abs=0.03)
    assert value.std() == pytest.approx(1, abs=0.03)


def test_integers_reach_every_value_and_no_other(draw: Draw) -> None:
    value = draw.integers(5, 3)
    assert value.shape == (MANY, 3)
    assert not value.is_floating_point()
    counts = torch.bincount(value.flatten(), minlength=5)
    assert len(counts) == 5
    assert (counts / value.numel() - 0.2).abs().max() < 0.02


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_chance(draw: Draw, probability: float) -> None:
    value = draw.chance(probability)
    assert value.dtype == torch.bool
    assert value.shape == (MANY,)
    share = float(value.float().mean())
    assert share == probability if probability in (0, 1) else share == pytest.approx(probability, abs=0.02)


def test_simplex(draw: Draw) -> None:
    weights = draw.simplex(3)
    assert weights.shape == (MANY, 3)
    assert (weights >= 0).all()
    assert torch.allclose(weights.sum(1), torch.ones(MANY))
    # The coordinates of a flat Dirichlet draw of three have mean 1/3 and variance 1/18.
    assert (weights.mean(0) - 1 / 3).abs().max() < 0.01
    assert (weights.var(0) - 1 / 18).abs().max() < 0.005


DRAWS: dict[str, Callable[[Draw], Tensor]] = {
    "uniform": lambda draw: draw.uniform(0, 1, 2, 3),
    "log_uniform": lambda draw: draw.log_uniform(1, 2, 2, 3),
    "normal": lambda draw: draw.normal(2, 3),
    "integers": lambda draw: draw.integers(1000, 2, 3),
}


@pytest.mark.parametrize("name", DRAWS)
def test_seeds(name: str) -> None:
    first, again, other = (DRAWS[name](Draw(seed, 4)) for seed in (1, 1, 2))
    assert first.shape == (4, 2, 3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_generator_of_its_own() -> None:
    expected = Draw(3, 4).uniform(0, 1)
    state = torch.get_rng_state()
    torch.manual_seed(99)
    assert torch.equal(Draw(3, 4).uniform(0, 1), expected)
    torch.manual_seed(99)
    untouched = torch.rand(1)
    torch.manual_seed(99)
    Draw(3, 4).normal(100)
    assert torch.equal(torch.rand(1), untouched)
    torch.set_rng_state(state)


def test_sometimes_changes_the_members_it_picks() -> None:
    x = torch.zeros(MANY, 2)
    seen: list[Tensor] = []

    def change(members: Tensor, index: Tensor) -> Tensor:
        assert len(members) == len(index)
        seen.append(index)
        return members + 1 + index[:, None]

    out = Draw(0, MANY).sometimes(0.25, x, change)
    changed = out[:, 0] > 0
    assert changed.float().mean() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(changed.nonzero().squeeze(1), seen[0])
    assert torch.equal(out[changed], (1.0 + seen[0])[:, None].expand(-1, 2))
    assert torch.equal(x, torch.zeros(MANY, 2))


def test_sometimes_that_is_never() -> None:
    def change(members: Tensor, index: Tensor) -> Tensor:
        raise AssertionError("called for nobody")

    x = torch.ones(8, 1)
    assert torch.equal(Draw(0, 8).sometimes(0.0, x, change), x)


def numbers(draw: Draw) -> list[Tensor]:
    return [draw.chance(0.3), draw.uniform(-1, 1, 4, 2), draw.log_uniform(0.1, 2.0)]


def test_repeated_draws_are_those_of_a_new_draw_with_the_seed() -> None:
    repeated = RepeatedDraw(5)
    for seed in (3, 4, 3):
        repeated.rewind(seed)
        pairs = zip(numbers(repeated), numbers(Draw(seed, 5)), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_repeated_draws_stay_where_they_are() -> None:
    """What was recorded reads them there."""
    repeated = RepeatedDraw(5)
    repeated.rewind(0)
    numbers(repeated)
    places = [value.data_ptr() for value in repeated._numbers]
    repeated.rewind(1)
    numbers(repeated)
    assert [value.data_ptr() for value in repeated._numbers] == places
