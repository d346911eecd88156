from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from homoreg.geometry import is_plausible
from homoreg.losses import per_pair_corner_error
from homoreg.models.base import HomographyModel
from homoreg.models.clkn import CLKN
from homoreg.models.dlkfm import DLKFM
from homoreg.models.registry import build
from homoreg.synthesis.protocol import GeometryConfig, SampleBatch, draw_samples
from homoreg.synthesis.random import Draw
from homoreg.synthesis.sources import ImageBank, find_pairs
from homoreg.training.objectives import clkn_objective, dlkfm_objective, get_objective
from homoreg.training.objectives.base import Objective, displaced
from homoreg.training.objectives.lucas_kanade import (
    CLKN_REACH,
    CLKN_SHARES,
    COPIES,
    LEAST_RELATIVE,
    MARGIN_SCALE,
    RELATIVE,
    WIDE_MARGIN,
    _clkn_starts,
    _clkn_turn,
    _rays,
)
from homoreg.training.recipe import get_recipe
from tests.models.contract import TINY
from tests.scenes import write_pairs
from tests.training.runs import Wrapper

N = 64
OBJECTIVES: dict[str, Objective] = {"clkn": clkn_objective, "dlkfm": dlkfm_objective}


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> SampleBatch:
    bank = ImageBank(find_pairs(write_pairs(tmp_path_factory.mktemp("pairs"), 2)))
    return draw_samples(bank, N, seed=0, batch=3, geometry=GeometryConfig(perturbation=0.1))


def untrained(architecture: str, **changes: Any) -> HomographyModel:
    torch.manual_seed(0)
    return build(architecture, {**TINY[architecture].config, **changes})


def losses_of(objective: Objective, model: nn.Module, batch: SampleBatch, progress: float) -> list[float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        outcome = objective(model, batch, 0, progress)
        optimizer.zero_grad()
        outcome.loss.backward()
        optimizer.step()
        losses.append(float(outcome.loss.detach()))
    return losses


@pytest.mark.parametrize("architecture", OBJECTIVES)
def test_objectives_by_architecture(architecture: str) -> None:
    assert get_objective(untrained(architecture)) is OBJECTIVES[architecture]


@pytest.mark.parametrize("architecture", OBJECTIVES)
def test_steps_down_the_gradient_lower_the_loss(architecture: str, batch: SampleBatch) -> None:
    losses = losses_of(OBJECTIVES[architecture], untrained(architecture), batch, 0.0)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("architecture", OBJECTIVES)
def test_every_parameter_gets_a_gradient(architecture: str, batch: SampleBatch) -> None:
    """Data parallelism waits for every gradient, so none may be left out."""
    model = untrained(architecture)
    OBJECTIVES[architecture](model, batch, 0, 0.0).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("architecture", OBJECTIVES)
def test_a_wrapped_model_has_the_same_objective(architecture: str, batch: SampleBatch) -> None:
    model, objective = untrained(architecture), OBJECTIVES[architecture]
    assert torch.equal(objective(Wrapper(model), batch, 0, 0.6).loss, objective(model, batch, 0, 0.6).loss)


@pytest.mark.parametrize("architecture", OBJECTIVES)
def test_the_seed_picks_the_perturbations(architecture: str, batch: SampleBatch) -> None:
    model, objective = untrained(architecture), OBJECTIVES[architecture]
    losses = [float(objective(model, batch, seed, 0.0).loss.detach()) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


# --- CLKN ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", range(4))
def test_one_level_learns_at_a_time(level: int, batch: SampleBatch) -> None:
    model = untrained("clkn")
    assert isinstance(model, CLKN)
    progress = (0.0, *CLKN_SHARES)[level]
    outcome = clkn_objective(model, batch, 0, progress)
    outcome.loss.backward()
    learning = [
        any(p.grad is not None and bool(p.grad.any()) for p in one.parameters()) for one in model.levels
    ]
    assert learning == [k == level for k in range(4)]
    assert outcome.errors.shape == (3 * COPIES[level],)


def test_the_recipe_restarts_where_a_level_begins() -> None:
    recipe = get_recipe("clkn")
    assert [epoch / recipe.epochs for epoch in recipe.restarts] == list(CLKN_SHARES)
    for epoch in recipe.restarts:
        before, at = (_clkn_turn(e / recipe.epochs) for e in (epoch - 1, epoch))
        assert at[0] == before[0] + 1
        assert at[1] == 0 < before[1] < 1


@pytest.mark.parametrize("level", range(4))
def test_starts_lie_within_reach(level: int) -> None:
    model, reach = untrained("clkn"), CLKN_REACH[level] / 2
    assert isinstance(model, CLKN)
    truth = torch.eye(3).expand(200, 3, 3)
    starts = _clkn_starts(truth, N, reach, Draw(0, 200))
    errors = per_pair_corner_error(starts, truth, N)
    assert is_plausible(starts, N).all()
    assert errors.max() < 1.2 * 2**0.5 * reach
    assert errors.max() < model.config.reach[level]  # what the solver could undo
    assert errors.median() > 0.1 * reach


# --- DLKFM --------------------------------------------------------------------------------------------------


def test_rays_lie_on_both_sides_and_their_middles_halfway() -> None:
    truth = torch.eye(3).expand(50, 3, 3).clone()
    truth[:, 0, 2] = truth[:, 1, 2] = 16.0
    rays = _rays(truth, 8.0, N, Draw(0, 50), 2)
    assert len(rays) == 8
    for (_, _, margin), (_, _, other) in zip(rays[::4] + rays[1::4], rays[2::4] + rays[3::4], strict=True):
        torch.testing.assert_close(margin, other)
    relative = (rays[0][1] - truth) / truth
    entries = relative[:, [0, 0, 1, 1], [0, 2, 1, 2]].abs()
    assert entries.max() <= RELATIVE + 1e-5
    assert entries.min() >= LEAST_RELATIVE - 1e-5
    torch.testing.assert_close((rays[0][1] + rays[2][1]) / 2, truth)
    torch.testing.assert_close(rays[0][0], (rays[0][1] + truth) / 2)
    assert (per_pair_corner_error(rays[1][1], truth, N) <= 8 * 2**0.5 + 1e-3).all()
    assert (rays[1][2] <= MARGIN_SCALE * WIDE_MARGIN).all()


def test_a_displacement_that_folds_is_not_made() -> None:
    truth = torch.eye(3).expand(2, 3, 3)
    offset = torch.zeros(2, 4, 2)
    offset[0, 0] = 3.0
    offset[1, 0] = 200.0  # the top left corner beyond the bottom right one
    found = displaced(truth, offset, N)
    assert torch.equal(found[1], truth[1])
    assert per_pair_corner_error(found, truth, N)[0].item() == pytest.approx(3 * 2**0.5 / 4, abs=1e-3)


def test_prise_asks_for_more() -> None:
    """With few samples on each ray, star convexity adds to what the far ends ask for."""
    plain, star = (cast("DLKFM", untrained("dlkfm", star_convex=value)) for value in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), star.parameters(), strict=True))
    n = 64
    draw = torch.Generator().manual_seed(0)
    template: Tensor = torch.rand(2, 3, n, n, generator=draw)
    search: Tensor = torch.rand(2, 3, 96, 96, generator=draw)
    truth = torch.eye(3).expand(2, 3, 3).clone()
    truth[:, 0, 2] = truth[:, 1, 2] = 16.0
    losses = [dlkfm_objective(m, SampleBatch(template, search, truth), 0).loss for m in (plain, star)]
    assert losses[1] > losses[0]
