from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from homoreg.errors import ConfigError, InputError
from homoreg.geometry import compose, image_corners, pad_matrix, square_prior, transform_points
from homoreg.models.layers import OffsetRegressor
from homoreg.models.mhn import MHN, STAGES, MHNConfig
from homoreg.models.registry import build
from tests.geometry.maps import double
from tests.models.contract import pairs, tiny

N = 64
FOLDED = double([[90, 0], [-90, 0], [0, 0], [0, 0]])


@pytest.fixture
def model() -> MHN:
    network = tiny("mhn")
    assert isinstance(network, MHN)
    return network


def stage_of(model: MHN, index: int) -> OffsetRegressor:
    stage = model.stages[index]
    assert isinstance(stage, OffsetRegressor)
    return stage


@torch.no_grad()
def answering(model: MHN, *offsets: Tensor) -> MHN:
    """Let each stage answer given offsets (4, 2), in px at n = 64, whatever it sees."""
    for index, offset in enumerate(offsets):
        stage_of(model, index).out.weight.zero_()
        stage_of(model, index).out.bias.copy_(offset.flatten() / (N / 4))
    return model


def moved(x: float, y: float) -> Tensor:
    """Offsets that shift all corners."""
    return double([[x, y]]).expand(4, 2)


def prior(x: float = 0.0, y: float = 0.0, batch: int = 1) -> Tensor:
    """The centred square, shifted."""
    return compose(pad_matrix(x, y), square_prior(N)).float().expand(batch, 3, 3)


def test_the_default_network() -> None:
    with torch.device("meta"):
        model = MHN()
    assert model.count_parameters() == 21_462_104
    sizes = [sum(p.numel() for p in stage.parameters()) for stage in model.stages]
    assert sizes[2] == pytest.approx(11e6, rel=0.01)  # as in DLKFM's comparison
    layers = [sum(isinstance(m, torch.nn.Conv2d) for m in stage.modules()) for stage in model.stages]
    assert layers == [8, 10, 12]


def test_an_untrained_network_answers_its_start() -> None:
    template, search, _ = pairs(N)
    model = build("mhn", {"side": 96, "widths": [4] * 6, "hidden": 8}).eval()
    assert torch.equal(model(template, search).homography, prior())
    start = prior(5, -3)
    torch.testing.assert_close(model(template, search, initial=start).homography, start)


@pytest.mark.parametrize("n", [64, 96, 128])
def test_every_look_corrects_the_one_before(model: MHN, n: int) -> None:
    template, search, _ = pairs(n)
    answering(model, moved(2, 1), moved(-1, 3), moved(0.5, 0))
    estimate = model(template, search)
    shifts = [(2, 1), (4, 2), (3, 5), (2, 8), (2.5, 8)]  # two looks, two looks, one
    assert len(estimate.stages) == len(shifts)
    for stage, (x, y) in zip(estimate.stages, shifts, strict=True):
        expected = compose(pad_matrix(x * n / N, y * n / N), square_prior(n)).float()
        torch.testing.assert_close(stage[0], expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(estimate.details["starts"][1:], estimate.stages[:-1])


def test_a_quick_answer_leaves_out_the_last_stage(model: MHN) -> None:
    template, search, _ = pairs(N)
    whole, quick = model(template, search), model(template, search, quick=True)
    assert len(quick.stages) == len(whole.stages) - 1
    assert torch.equal(quick.stages[-1], whole.stages[-2])


@pytest.mark.parametrize("n", [64, 128])
@pytest.mark.parametrize("side", [24, 48, 96])
def test_through_the_true_homography_the_two_images_agree(model: MHN, n: int, side: int) -> None:
    template, search, truth = pairs(n)

    def likeness(start: Tensor) -> float:
        pair = model._pair(template, search, start.float(), side)
        margin = side // 6 + 2
        one, other = (pair[0, k, margin:-margin, margin:-margin] for k in (0, 1))
        return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])

    assert likeness(truth) > 0.9
    assert likeness(compose(pad_matrix(n / 16, -n / 16), truth)) < 0.8


def test_the_template_lies_in_the_middle_with_nothing_around(model: MHN) -> None:
    template, search, _ = pairs(N)
    shown = model._pair(template, search, prior(), 96)[0, 0]
    assert shown[16:-16, 16:-16].std() > 0.5
    shown[16:-16, 16:-16] = 0
    assert not shown.any()


def test_an_implausible_stage_is_passed_over(model: MHN) -> None:
    template, search, _ = pairs(N, 2)
    estimate = answering(model, moved(2, 1), FOLDED, moved(0.5, 0))(template, search)
    assert estimate.diverged.tolist() == [False, False]
    torch.testing.assert_close(estimate.homography, prior(4.5, 2, batch=2), atol=1e-3, rtol=0)


def test_where_the_last_look_folds_the_look_before_is_the_answer(model: MHN) -> None:
    template, search, _ = pairs(N, 2)
    estimate = answering(model, moved(2, 1), moved(0, 0), FOLDED)(template, search)
    assert estimate.diverged.tolist() == [True, True]
    torch.testing.assert_close(estimate.homography, prior(4, 2, batch=2), atol=1e-3, rtol=0)


def test_an_implausible_start_is_replaced_by_the_centred_square(model: MHN) -> None:
    template, search, _ = pairs(N, 2)
    start = torch.stack([torch.diag(torch.tensor([-1.0, 1, 1])), torch.full((3, 3), torch.nan)])
    expected = model(template, search).homography
    assert torch.equal(model(template, search, initial=start).homography, expected)


def test_a_start_of_another_shape_is_refused(model: MHN) -> None:
    template, search, _ = pairs(N, 2)
    with pytest.raises(InputError, match=r"initial has shape \(3, 3\); expected \(2, 3, 3\)"):
        model(template, search, initial=torch.eye(3))


@pytest.mark.parametrize("looks", [[], [3], [0, -1]])
def test_looks_at_no_stage_are_refused(model: MHN, looks: list[int]) -> None:
    with pytest.raises(InputError, match="expected at least one, each of 0 to 2"):
        model(*pairs(N)[:2], looks=looks)


def test_only_the_last_look_trains(model: MHN) -> None:
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    estimate = model(*pairs(N, 2)[:2], looks=(0, 0, 1, 1), train_last=True)
    assert [offset.requires_grad for offset in estimate.details["offsets"]] == [False] * 3 + [True]
    assert model.training
    assert all(module.training for module in model.modules())
    estimate.details["offsets"][-1].square().sum().backward()
    assert {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None} == {"1"}
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed  # the running statistics of the stage that trains ...
    assert {name.split(".")[1] for name in changed} == {"1"}  # ... and of no other


def test_an_untrained_stage_inherits(model: MHN) -> None:
    heir, giver = stage_of(model, 1), stage_of(model, 0)
    with torch.no_grad():
        heir.out.weight.zero_()
    before = {name: value.clone() for name, value in heir.state_dict().items()}
    model.inherit(1)
    given, now = giver.state_dict(), heir.state_dict()
    for name in ("features.0.weight", "features.1.running_var", "features.24.weight", "hidden.weight"):
        assert torch.equal(now[name], given[name])
    for name in ("features.28.weight", "out.weight", "out.bias"):  # a block of its own, and the answer
        assert torch.equal(now[name], before[name])


@pytest.mark.parametrize("stage", range(STAGES))
def test_a_trained_stage_keeps_what_it_has(model: MHN, stage: int) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.inherit(stage)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_it_does_not_rate_itself(model: MHN) -> None:
    estimate = model(*pairs(N, 2)[:2])
    assert not model.rates_itself
    assert model.starter == ""
    assert torch.equal(estimate.covariance[0], estimate.covariance[1])
    assert not estimate.log_precision.any()


def test_corners_are_displaced_in_the_pixels_of_the_template(model: MHN) -> None:
    offsets = double([[3, -2], [5, 1], [-4, 2], [0, 6]])
    answering(model, offsets, moved(0, 0), moved(0, 0))
    estimate = model(*pairs(N)[:2], looks=(0,))
    corners = image_corners(N, N, dtype=torch.float64)
    found = transform_points(estimate.homography[0].double(), corners)
    torch.testing.assert_close(found, corners + offsets + N / 4, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"side": 128}, "multiple of 96"),
        ({"side": 0}, "cannot be built"),
        ({"widths": (4, 4, 4, 4, 4, 0)}, "cannot be built"),
        ({"hidden": 0}, "cannot be built"),
        ({"dropout": -0.1}, "dropout is -0.1; expected 0 or more and under 1"),
        ({"repeats": (1, 0, 1)}, r"repeats is \(1, 0, 1\); expected at least 1 look a stage"),
    ],
)
def test_a_config_of_no_network_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MHNConfig(**config)
