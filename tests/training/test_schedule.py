from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from homoreg.training.schedule import EMA, one_cycle


def test_one_cycle_rises_then_falls() -> None:
    rates = [one_cycle(step, 1000, peak=0.5, warm_up=0.1) for step in range(1000)]
    assert rates[0] == pytest.approx(0.5 / 100)
    assert rates[49] == pytest.approx(0.25)
    assert rates[99] == rates[100] == max(rates) == 0.5
    assert all(a < b for a, b in pairwise(rates[:100]))
    assert all(a > b for a, b in pairwise(rates[100:]))
    # Half a cosine: half way down at the middle of the fall, flat at its ends.
    assert rates[550] == pytest.approx(0.5 * (0.01 + 0.99 / 2))
    assert rates[-1] == pytest.approx(0.5 * 0.01, rel=0.01)


@pytest.mark.parametrize("total", [1, 2, 5])
def test_one_cycle_of_few_steps(total: int) -> None:
    rates = [one_cycle(step, total, peak=1.0, warm_up=0.05) for step in range(total)]
    assert rates[0] == 1
    assert all(0 < rate <= 1 for rate in rates)


def test_one_cycle_without_a_fall() -> None:
    assert one_cycle(9, 10, peak=1.0, warm_up=1.0) == 1


def test_one_cycle_beyond_its_end_stays_at_the_floor() -> None:
    assert one_cycle(20, 10, peak=2.0, warm_up=0.1, floor=0.1) == pytest.approx(0.2)


class Module(nn.Module):
    counter: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([4.0]))
        self.register_buffer("counter", torch.tensor(0))


def test_average_begins_at_the_values_and_keeps_its_own_copy() -> None:
    module = Module()
    average = EMA(module, 0.9)
    assert {name: value.item() for name, value in average.state.items()} == {"weight": 4.0, "counter": 0}
    module.weight.data.fill_(8.0)
    assert average.state["weight"].item() == 4.0
    assert not average.state["weight"].requires_grad


@pytest.mark.parametrize(("step", "decay"), [(0, 0.1), (8, 0.5), (79, 80 / 89), (1000, 0.9)])
def test_average_moves_by_a_decay_that_grows_to_its_limit(step: int, decay: float) -> None:
    module = Module()
    average = EMA(module, 0.9)
    module.weight.data.fill_(8.0)
    module.counter.fill_(5)
    average.update(module, step)
    assert average.state["weight"].item() == pytest.approx(4.0 * decay + 8.0 * (1 - decay))
    assert average.state["counter"].item() == 5
