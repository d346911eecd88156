from __future__ import annotations

import pytest
import torch
from torch import Tensor

from homoreg.geometry import image_corners, transform_points
from homoreg.losses import per_pair_corner_error
from homoreg.models.base import HomographyModel
from homoreg.models.layers import OffsetRegressor
from homoreg.models.mhn import MHN
from homoreg.models.registry import build
from homoreg.synthesis.protocol import GeometryConfig, SampleBatch, draw_samples
from homoreg.synthesis.sources import ImageBank, find_pairs
from homoreg.training.objectives import dhn_objective, get_objective, mhn_objective
from homoreg.training.objectives.corners import MHN_PHASES, _displacement
from tests.models.contract import TINY
from tests.scenes import write_pairs
from tests.training.runs import Wrapper

N = 64
OBJECTIVES = {"dhn": dhn_objective, "mhn": mhn_objective}


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> SampleBatch:
    bank = ImageBank(find_pairs(write_pairs(tmp_path_factory.mktemp("pairs"), 2)))
    return draw_samples(bank, N, seed=0, batch=4, geometry=GeometryConfig())


def untrained(architecture: str) -> HomographyModel:
    torch.manual_seed(0)
    return build(architecture, {**TINY[architecture].config, "dropout": 0.0})


def true_offsets(batch: SampleBatch) -> Tensor:
    """Displacements of the corners from the centred square, in units of n/4 px."""
    corners = image_corners(N, N)
    return (transform_points(batch.homography, corners) - corners - N / 4) / (N / 4)


@pytest.mark.parametrize("architecture", OBJECTIVES)
def test_objectives_by_architecture(architecture: str) -> None:
    assert get_objective(untrained(architecture)) is OBJECTIVES[architecture]


def test_dhn_pays_half_the_squared_distance(batch: SampleBatch) -> None:
    outcome = dhn_objective(untrained("dhn"), batch, 0)  # answers that no corner moves
    expected = 0.5 * true_offsets(batch).square().sum(dim=(1, 2)).mean()
    torch.testing.assert_close(outcome.loss, expected, rtol=1e-4, atol=0)


def test_mhn_pays_the_mean_distance(batch: SampleBatch) -> None:
    for progress in (0.0, *MHN_PHASES):
        outcome = mhn_objective(untrained("mhn"), batch, 0, progress)
        expected = true_offsets(batch).norm(dim=-1).mean()
        torch.testing.assert_close(outcome.loss, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("architecture", OBJECTIVES)
def test_errors_are_those_of_the_answer_at_128_px(architecture: str, batch: SampleBatch) -> None:
    outcome = OBJECTIVES[architecture](untrained(architecture), batch, 0)
    expected = true_offsets(batch).norm(dim=-1).mean(1) * 32
    assert not outcome.errors.requires_grad
    torch.testing.assert_close(outcome.errors, expected, rtol=1e-3, atol=0)


def test_what_remains_is_measured_from_the_start(batch: SampleBatch) -> None:
    assert _displacement(batch.homography, batch.homography, N).abs().max() < 1e-3
    start = batch.homography.roll(1, 0)
    corners = image_corners(N, N)
    seen = transform_points(start, corners + _displacement(start, batch.homography, N))
    torch.testing.assert_close(seen, transform_points(batch.homography, corners), atol=1e-2, rtol=0)


@pytest.mark.parametrize("architecture", OBJECTIVES)
@pytest.mark.parametrize("progress", [0.0, 0.85, 0.99])
def test_steps_down_the_gradient_lower_the_loss(
    architecture: str, progress: float, batch: SampleBatch
) -> None:
    model = untrained(architecture).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        outcome = OBJECTIVES[architecture](model, batch, 0, progress)
        optimizer.zero_grad()
        outcome.loss.backward()
        optimizer.step()
        losses.append(float(outcome.loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("progress", [0.0, 0.85, 0.99])
def test_mhn_trains_one_stage_at_a_time(progress: float, batch: SampleBatch) -> None:
    model = untrained("mhn")
    with torch.no_grad():  # away from the zero at which nothing but the last layer has a gradient
        for parameter in model.parameters():
            parameter.add_(0.01)
    mhn_objective(model, batch, 0, progress).loss.backward()
    stage = str(sum(progress >= begin for begin in MHN_PHASES))
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert with_gradient == {name for name, _ in model.named_parameters() if name.split(".")[1] == stage}


def test_every_parameter_has_a_gradient_in_data_parallelism(batch: SampleBatch) -> None:
    model = untrained("mhn")
    outcome = mhn_objective(Wrapper(model), batch, 0, 0.85)
    outcome.loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert torch.equal(outcome.loss, mhn_objective(untrained("mhn"), batch, 0, 0.85).loss)


def test_the_seed_picks_the_look(batch: SampleBatch) -> None:
    model = untrained("mhn").eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, OffsetRegressor):
                module.out.bias[::2].fill_(-0.1)
                module.out.bias[1::2].fill_(0.05)
    losses = [float(mhn_objective(model, batch, seed).loss.detach()) for seed in (0, 2, 1)]
    assert losses[0] == losses[1] != losses[2]
    second = model(batch.template, batch.search, looks=(0, 0)).homography
    errors = mhn_objective(model, batch, 1).errors
    torch.testing.assert_close(
        errors, per_pair_corner_error(second, batch.homography, N) * 2, rtol=1e-4, atol=0
    )


def test_a_stage_begins_as_the_one_before(batch: SampleBatch) -> None:
    model = untrained("mhn")
    assert isinstance(model, MHN)
    first, second = (stage.state_dict()["features.0.weight"] for stage in model.stages[:2])
    assert not torch.equal(first, second)
    mhn_objective(model, batch, 0, MHN_PHASES[0])
    assert torch.equal(first, model.stages[1].state_dict()["features.0.weight"])
