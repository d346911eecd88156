from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from homoreg.errors import ConfigError, InputError
from homoreg.geometry import compose, pad_matrix, square_prior
from homoreg.models.clkn import CLKN
from homoreg.models.registry import build
from tests.models.contract import TINY, pairs, tiny

N = 64


@pytest.fixture
def model() -> CLKN:
    network = tiny("clkn")
    assert isinstance(network, CLKN)
    return network


def prior(x: float = 0.0, y: float = 0.0, batch: int = 1) -> Tensor:
    """The centred square, shifted."""
    return compose(pad_matrix(x, y), square_prior(N)).float().expand(batch, 3, 3)


def test_a_level_is_six_convolutions_and_one_of_a_cell() -> None:
    model = CLKN()
    assert model.starter == "mhn"
    for level, stride in zip(model.levels, (8, 4, 2, 1), strict=True):
        convolutions = [module for module in level.modules() if isinstance(module, torch.nn.Conv2d)]
        assert [one.kernel_size for one in convolutions[-1:]] == [(1, 1)]
        assert len(convolutions) == 7
        assert torch.tensor([one.stride[0] for one in convolutions]).prod() == stride
        assert convolutions[-1].out_channels == 4


@pytest.mark.parametrize("start", [prior(), prior(5, -3), prior(-12, 8)])
def test_it_starts_where_it_is_told_and_stays_within_reach(model: CLKN, start: Tensor) -> None:
    template, search, _ = pairs(N)
    with torch.no_grad():
        estimate = model(template, search, initial=start)
    assert torch.equal(estimate.stages[0], start)
    moved = (estimate.homography @ torch.tensor([32.0, 32.0, 1.0])) - start @ torch.tensor([32.0, 32.0, 1.0])
    assert moved[:, :2].norm() < sum(model.config.reach)


def test_what_is_not_improved_is_the_start_and_says_so(model: CLKN) -> None:
    template, search, _ = pairs(N, 2)
    search[0] = 0.5  # nothing to align with
    start = prior(3, 2, batch=2)
    with torch.no_grad():
        estimate = model(template, search, initial=start)
    assert not estimate.details["improved"][0]
    assert torch.equal(estimate.homography[0], start[0])
    template[1] = torch.nan
    with torch.no_grad():
        estimate = model(template, search, initial=start)
    assert estimate.diverged.tolist() == [False, True]
    assert torch.equal(estimate.homography[1], start[1])


def test_a_quick_answer_takes_the_coarse_levels_only(model: CLKN) -> None:
    template, search, _ = pairs(N)
    with torch.no_grad():
        assert len(model(template, search, quick=True).details["alignments"]) == 2
        assert len(model(template, search).details["alignments"]) == 4


def test_copies_are_pairs_that_share_their_maps(model: CLKN) -> None:
    template, search, _ = pairs(N, 2)
    starts = torch.cat([prior(2, 1, batch=2), prior(-4, 3, batch=2)])
    options: dict[str, Any] = {"levels": (1,), "unrolled": 2}
    with torch.no_grad():
        both = model(template, search, initial=starts, copies=2, **options).homography
        for first in (0, 2):
            one = model(template, search, initial=starts[first : first + 2], **options).homography
            torch.testing.assert_close(both[first : first + 2], one)


def test_levels_that_are_not_there_are_refused(model: CLKN) -> None:
    template, search, _ = pairs(N)
    for levels in ((), (4,), (-1, 0)):
        with pytest.raises(InputError, match="expected some of 0, 1, 2 and 3, with iterations"):
            model(template, search, levels=levels)


def test_starts_of_another_shape_are_refused(model: CLKN) -> None:
    template, search, _ = pairs(N, 2)
    with pytest.raises(InputError, match=r"initial has shape \(1, 3, 3\); expected \(2, 3, 3\)"):
        model(template, search, initial=prior())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"widths": [0, 1, 1, 1]}, "an empty layer"), ({"channels": 0}, "an empty"), ({"prior": -1.0}, "a neg")],
)
def test_a_config_of_no_network_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build("clkn", TINY["clkn"].config | change)
