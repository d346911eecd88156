from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from homoreg.errors import ConfigError, InputError
from homoreg.geometry import (
    cell_centres,
    compose,
    homography_from_corners,
    image_corners,
    pad_matrix,
    square_prior,
    transform_points,
)
from homoreg.models import M, MConfig, build, save_weights
from homoreg.models.m import CONTRAST_WINDOW, STRIDES, FlowStep, FrameContext, Refiner, _mean_around, _prepare
from homoreg.models.storage import load_state
from tests.models.contract import corners_of, pairs, tiny

N = 64


@pytest.fixture(scope="module")
def model() -> M:
    network = tiny("m")
    assert isinstance(network, M)
    return network


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    return pairs(N, 2)[:2]


def prior(x: float = 0.0, y: float = 0.0) -> Tensor:
    """The centred square, shifted, for two pairs."""
    return (square_prior(N) @ pad_matrix(x, y)).float().expand(2, 3, 3)


# --- forward -----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_matching_gives_the_start_unless_there_is_one(model: M, images: tuple[Tensor, Tensor]) -> None:
    matched = model(*images)
    cells = (N // 8) ** 2
    assert matched.details["scores"].shape == (2, cells, cells * 9 // 4)
    begun = model(*images, initial=prior(3, 2).double())
    assert "scores" not in begun.details
    assert torch.equal(begun.stages[0], prior(3, 2))
    again = model(*images, initial=matched.stages[0])
    assert torch.equal(again.homography, matched.homography)


@torch.no_grad()
def test_steps_are_counted_by_level(model: M, images: tuple[Tensor, Tensor]) -> None:
    for steps in ((2, 1, 0), (0, 0, 3), (1, 1, 1)):
        estimate = model(*images, steps=steps)
        flows: list[FlowStep] = estimate.details["flows"]
        assert len(estimate.stages) == 1 + sum(steps)
        cells = [
            (N // stride) ** 2 for stride, count in zip(STRIDES, steps, strict=True) for _ in range(count)
        ]
        assert [len(flow.points) for flow in flows] == cells
    assert model.config.steps == (2, 3, 2)
    default = model(*images)
    assert len(default.stages) == 1 + 2 + 3 + 2
    assert torch.equal(default.homography, model(*images, steps=(2, 3, 2)).homography)


@torch.no_grad()
def test_a_quick_answer_takes_the_quick_steps(model: M, images: tuple[Tensor, Tensor]) -> None:
    assert model.config.quick_steps == (1, 1, 0)
    quick = model(*images, quick=True)
    assert len(quick.stages) == 1 + 1 + 1
    assert torch.equal(quick.homography, model(*images, steps=(1, 1, 0)).homography)
    # What the caller says goes before the config.
    assert len(model(*images, quick=True, steps=(0, 0, 1)).stages) == 2


@torch.no_grad()
def test_without_steps_the_start_is_the_estimate(model: M, images: tuple[Tensor, Tensor]) -> None:
    estimate = model(*images, initial=prior(1, 2), steps=(0, 0, 0))
    assert torch.equal(estimate.homography, prior(1, 2))
    assert estimate.details["flows"] == []
    assert not estimate.diverged.any()


@torch.no_grad()
def test_flow_steps_are_as_documented(model: M, images: tuple[Tensor, Tensor]) -> None:
    estimate = model(*images, steps=(1, 1, 1))
    for flow, stride, radius in zip(estimate.details["flows"], STRIDES, model.config.radius, strict=True):
        side = N // stride
        assert flow.start.shape == (2, 3, 3)
        assert torch.equal(flow.points, cell_centres(side, side, stride, flow.points))
        assert flow.flow.shape == flow.log_scale.shape == (2, side**2, 2)
        assert flow.log_scale.abs().max() < 4
        assert flow.visible.shape == (2, side**2)
        assert flow.visible.dtype == torch.bool
        assert flow.reach == radius * stride
    assert torch.equal(estimate.details["flows"][0].start, estimate.stages[0])


@torch.no_grad()
def test_the_guide_chooses_the_starts_of_the_levels(model: M, images: tuple[Tensor, Tensor]) -> None:
    seen: list[tuple[int, Tensor]] = []

    def guide(homography: Tensor, stride: int) -> Tensor:
        seen.append((stride, homography))
        return prior(stride, 0)

    estimate = model(*images, guide=guide, steps=(2, 1, 1))
    assert [stride for stride, _ in seen] == list(STRIDES)
    assert torch.equal(seen[0][1], estimate.stages[0])
    flows: list[FlowStep] = estimate.details["flows"]
    first = [flows[0], flows[2], flows[3]]  # of each level
    assert all(torch.equal(flow.start, prior(stride)) for flow, stride in zip(first, STRIDES, strict=True))
    assert torch.equal(flows[1].start, estimate.stages[1])


@torch.no_grad()
def test_a_guide_that_agrees_changes_nothing(model: M, images: tuple[Tensor, Tensor]) -> None:
    unaided = model(*images)
    guided = model(*images, guide=lambda homography, stride: homography)
    assert torch.equal(guided.homography, unaided.homography)


@torch.no_grad()
def test_an_estimate_that_leaves_the_frame_diverges_to_the_centred_square(
    images: tuple[Tensor, Tensor],
) -> None:
    model = tiny("m")
    assert isinstance(model, M)
    for refiner in model.refiners:
        assert isinstance(refiner, Refiner)
        last = refiner.net[-1]
        assert isinstance(last, torch.nn.Conv2d)
        last.weight[:2] *= 1e4
    estimate = model(*images)
    assert estimate.diverged.all()
    assert torch.equal(estimate.homography, prior())
    assert (estimate.log_precision == -4).all()
    assert torch.isfinite(estimate.covariance).all()


@torch.no_grad()
def test_cells_that_see_nothing_count_against_the_precision(model: M, images: tuple[Tensor, Tensor]) -> None:
    within = model(*images, initial=prior(), steps=(0, 0, 1))
    half = model(*images, initial=prior(48, 0), steps=(0, 0, 1))
    outside = model(*images, initial=prior(1000, 0), steps=(0, 0, 1))
    visible = [flow.visible.float().mean(1) for e in (within, half, outside) for flow in e.details["flows"]]
    assert (visible[0] > 0.9).all()
    assert ((visible[1] > 0.2) & (visible[1] < 0.6)).all()
    assert (visible[2] == 0).all()
    assert (outside.log_precision == -4).all()
    assert (half.log_precision < within.log_precision - 1).all()
    # With nothing seen there is nothing to move it.
    torch.testing.assert_close(outside.homography, prior(1000, 0))


@torch.no_grad()
def test_what_is_filled_has_no_part_in_the_solve(model: M, images: tuple[Tensor, Tensor]) -> None:
    template, search = images
    valid = torch.ones(2, 1, 3 * N // 2, 3 * N // 2, dtype=torch.bool)
    valid[..., : N // 2] = False  # the left quarter of the centred square
    estimate = model(template, search, initial=prior(), steps=(0, 0, 1), valid=valid)
    without = model(template, search, initial=prior(), steps=(0, 0, 1))
    (flow,), (plain,) = estimate.details["flows"], without.details["flows"]
    assert torch.equal(flow.flow, plain.flow)
    assert torch.equal(flow.visible, plain.visible)
    hidden = (flow.points[:, 0] < N // 4).expand(2, -1)
    assert torch.equal(flow.counted, plain.visible & ~hidden)
    assert not torch.equal(estimate.homography, without.homography)
    # Whatever the flow says there, the solve is that of the others.
    expected, _ = M._solve_flow(dataclasses.replace(flow, flow=flow.flow + 9.0 * hidden.unsqueeze(-1)), N)
    torch.testing.assert_close(estimate.homography, compose(prior(), expected))


@torch.no_grad()
def test_where_nothing_of_the_picture_is_seen_nothing_moves(model: M, images: tuple[Tensor, Tensor]) -> None:
    valid = torch.zeros(2, 1, 3 * N // 2, 3 * N // 2, dtype=torch.bool)
    estimate = model(*images, initial=prior(3, 2), valid=valid)
    torch.testing.assert_close(estimate.homography, prior(3, 2))


@pytest.mark.parametrize("shape", [(96, 96), (1, 1, 96, 96), (2, 3, 96, 96), (2, 1, 64, 64)])
def test_masks_of_another_shape_or_type_are_refused(
    model: M, images: tuple[Tensor, Tensor], shape: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match=re.escape(f"of shape {shape}; expected bool of shape (2, 1, 96")):
        model(*images, valid=torch.ones(shape, dtype=torch.bool))
    with pytest.raises(InputError, match=r"valid is torch\.float32"):
        model(*images, valid=torch.ones(2, 1, 96, 96))


@pytest.mark.parametrize("steps", [(1, 1), (1, 1, 1, 1), (1, -1, 1), ()])
def test_steps_that_are_not_three_counts_are_refused(
    model: M, images: tuple[Tensor, Tensor], steps: tuple[int, ...]
) -> None:
    with pytest.raises(
        InputError, match=re.escape(f"steps are {steps}; expected three counts, for 1/8, 1/4")
    ):
        model(*images, steps=steps)


@pytest.mark.parametrize("shape", [(3, 3), (1, 3, 3), (2, 4, 2)])
def test_a_start_that_is_not_one_matrix_a_pair_is_refused(
    model: M, images: tuple[Tensor, Tensor], shape: tuple[int, ...]
) -> None:
    with pytest.raises(
        InputError, match=re.escape(f"initial has shape {shape}; expected (2, 3, 3), one mat")
    ):
        model(*images, initial=torch.zeros(shape))


# --- the parts ---------------------------------------------------------------------------------------------


def test_perfect_scores_give_the_truth() -> None:
    side, cells = 128, 16
    corners = image_corners(side, side, dtype=torch.float64)
    moved = corners + torch.tensor([[9, -5], [-8, 6], [4, 9], [-6, -7]])
    truth = compose(square_prior(side), homography_from_corners(corners, moved)).float()[None]
    across = 3 * cells // 2
    there = transform_points(truth, cell_centres(cells, cells, 8, truth))
    apart = (there.unsqueeze(2) - cell_centres(across, across, 8, truth)).square().sum(-1)
    start = M(MConfig(layers=0))._solve_matches(-apart / (2 * 8.0**2), side)
    error = transform_points(start, corners.float()) - transform_points(truth, corners.float())
    before = transform_points(square_prior(side).float(), corners.float()) - transform_points(
        truth, corners.float()
    )
    assert error.norm(dim=-1).mean() < 0.15 * before.norm(dim=-1).mean()


def test_scores_that_say_nothing_give_the_prior() -> None:
    # All rows peak at one cell: a map of the frame to a point, which is refused.
    start = M(MConfig(layers=0))._solve_matches(torch.zeros(2, 64, 144), N)
    assert torch.equal(start, prior())


@torch.no_grad()
@pytest.mark.parametrize("offset", [(2, -1), (-3, 0), (0, 0)])
def test_a_refiner_reads_a_shift_off_the_correlation(offset: tuple[int, int]) -> None:
    dx, dy = offset
    stride, side = 4, 16
    refiner = Refiner(channels=32, hidden=8, radius=3, stride=stride)
    last = refiner.net[-1]
    assert isinstance(last, torch.nn.Conv2d)
    last.weight.zero_()
    assert last.bias is not None
    last.bias.zero_()
    refiner.log_sharpness.fill_(4.0)
    features = torch.randn(1, 32, 24, 24, generator=torch.Generator().manual_seed(0))
    # Template cell p holds search cell p + 4 (the centred square) + offset.
    template = features[..., 4 + dy : 20 + dy, 4 + dx : 20 + dx]
    start = pad_matrix(4 * stride, 4 * stride).float()[None]
    flow = refiner(template, features, start)
    assert flow.visible.all()
    assert (flow.log_scale == 0).all()
    inner = flow.flow.view(side, side, 2)[3:-3, 3:-3]
    expected = torch.tensor([dx * stride, dy * stride], dtype=torch.float32).expand_as(inner)
    torch.testing.assert_close(inner, expected, atol=0.2, rtol=0)


def test_stems_are_apart_and_the_trunk_is_shared(model: M, images: tuple[Tensor, Tensor]) -> None:
    network = M(model.config)
    template = images[0]
    with torch.no_grad():
        infrared, rgb = (network.encoder(template, side) for side in ("infrared", "rgb"))
        sizes = [tuple(level.shape) for level in infrared]
        assert sizes == [(2, 16, 8, 8), (2, 12, 16, 16), (2, 8, 32, 32)]
        assert not torch.equal(infrared[0], rgb[0])
        network.encoder.stems["rgb"].load_state_dict(network.encoder.stems["infrared"].state_dict())
        for one, other in zip(infrared, network.encoder(template, "rgb"), strict=True):
            assert torch.equal(one, other)


@torch.no_grad()
def test_brightness_and_contrast_hardly_matter(model: M, images: tuple[Tensor, Tensor]) -> None:
    template, search = images
    plain = model(template, search, initial=prior())
    other = model(0.7 * template + 0.1, search, initial=prior())
    # Not exactly, for the floors under the deviations; but far less than the 16 px that they may differ.
    moved = (corners_of(plain, N) - corners_of(other, N)).norm(dim=-1).mean()
    assert moved < 2.0


def test_local_contrast_does_not_depend_on_the_range() -> None:
    """What lies in a narrow band beside a hot spot looks like what spans the range."""
    texture = torch.rand(1, 1, 96, 96, generator=torch.Generator().manual_seed(1)).expand(-1, 3, -1, -1)
    faint = 0.1 + 0.15 * texture
    faint[..., 80:, 80:] = 1.0
    far = slice(0, 60)  # where no window reaches the hot spot
    plain, hidden = (_prepare(image)[0, :, far, far] for image in (texture, faint))
    assert plain.shape[0] == 4
    assert (plain[3] - hidden[3]).abs().max() < 0.25 * plain[3].abs().max()
    assert plain[0].std() > 3 * hidden[0].std(), "the standardized values do depend on it"
    assert _prepare(torch.full((1, 3, 64, 64), 0.4)).abs().max() < 1e-3


@pytest.mark.parametrize("size", [(8, 8), (40, 23), (9, 70)])
def test_means_are_those_of_the_window_within_the_image(size: tuple[int, int]) -> None:
    x = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    window, pad = (CONTRAST_WINDOW, CONTRAST_WINDOW), CONTRAST_WINDOW // 2
    expected = F.avg_pool2d(x, window, stride=1, padding=pad, count_include_pad=False)
    torch.testing.assert_close(_mean_around(x), expected)


@torch.no_grad()
def test_a_template_for_all_is_encoded_once(
    model: M, images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    template, search = images
    encoded = []
    forward = model.encoder.forward

    def noted(image: Tensor, side: str, levels: int) -> list[Tensor]:
        encoded.append((side, len(image)))
        return forward(image, side, levels)

    monkeypatch.setattr(model.encoder, "forward", noted)
    shared = model(template[:1].expand(2, -1, -1, -1), search)
    repeated = model(template[:1].repeat(2, 1, 1, 1), search)
    assert encoded == [("infrared", 1), ("rgb", 2), ("infrared", 2), ("rgb", 2)]
    torch.testing.assert_close(shared.homography, repeated.homography, atol=1e-3, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("n", "steps"), [(160, "steps"), (192, "fine_steps"), (288, "large_steps")])
def test_large_frames_with_a_start_take_steps_of_their_own(model: M, n: int, steps: str) -> None:
    template, search, _ = pairs(n, 1)
    start = square_prior(n, dtype=torch.float32)[None]
    for given, expected in ((start, getattr(model.config, steps)), (None, model.config.steps)):
        flows = model(template, search, initial=given).details["flows"]
        assert [sum(flow.reach == r * s for flow in flows) for r, s in _reaches(model)] == list(expected)


@torch.no_grad()
@pytest.mark.parametrize(("n", "reached"), [(160, 1.0), (192, 1.5), (288, 1.5)])
def test_flows_reach_further_in_large_frames(model: M, n: int, reached: float) -> None:
    template, search, _ = pairs(n, 1)
    start = square_prior(n, dtype=torch.float32)[None]
    further = M(dataclasses.replace(model.config, overreach=1.5)).eval()
    further.load_state_dict(model.state_dict())
    estimate = further(template, search, initial=start, steps=(0, 0, 1))
    (flow,) = estimate.details["flows"]
    expected, _ = M._solve_flow(dataclasses.replace(flow, flow=reached * flow.flow), n)
    torch.testing.assert_close(estimate.homography, compose(start, expected))
    assert not torch.equal(estimate.homography, start)
    further.train()
    estimate = further(template, search, initial=start, steps=(0, 0, 1))
    (flow,) = estimate.details["flows"]
    expected, _ = M._solve_flow(flow, n)
    torch.testing.assert_close(estimate.homography, compose(start, expected), msg="in training none does")


def _reaches(model: M) -> list[tuple[int, int]]:
    return list(zip(model.config.radius, STRIDES, strict=True))


# --- config ------------------------------------------------------------------------------------------------


def test_the_default_has_about_1_2_million_parameters() -> None:
    assert 1.15e6 < M().count_parameters() < 1.25e6
    assert M().config == MConfig()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width2": 0}, "an empty layer; widths, heads and hidden must be at least 1"),
        ({"heads": 0}, "an empty layer"),
        ({"hidden": (96, 0, 32)}, "an empty layer"),
        ({"layers": -1}, "a negative count; layers, radius, steps and context must be at least 0"),
        ({"steps": (1, -1, 1)}, "a negative count"),
        ({"quick_steps": (-1, 1, 1)}, "a negative count"),
        ({"fine_steps": (1, -1, 1)}, "a negative count"),
        ({"large_steps": (1, 1, -1)}, "a negative count"),
        ({"radius": (4, 4, -1)}, "a negative count"),
        ({"context": (0, -1, 0)}, "a negative count"),
        (
            {"hidden": (96, 66, 32), "context": (0, 1, 0)},
            r"hidden is \(96, 66, 32\) with context \(0, 1, 0\); expected a multiple of 4 channels",
        ),
        ({"width8": 90, "heads": 5}, "width8 is 90 with 5 heads; expected a multiple of 4 and of the heads"),
        ({"heads": 5}, "width8 is 96 with 5 heads"),
        ({"overreach": 0.0}, r"overreach is 0\.0; expected more than 0 and less than 2"),
        ({"overreach": 2.0}, r"overreach is 2\.0; expected more than 0 and less than 2"),
        ({"overreach": float("nan")}, "overreach is nan"),
    ],
)
def test_configs_that_no_network_can_have_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MConfig(**values)


@torch.no_grad()
def test_the_smallest_network_runs(images: tuple[Tensor, Tensor]) -> None:
    config = MConfig(1, 1, 4, layers=0, heads=1, hidden=(1, 1, 1), radius=(0, 0, 0), steps=(1, 1, 1))
    assert torch.isfinite(M(config)(*images).homography).all()


# --- parts that are added to trained weights ----------------------------------------------------------------

ADDED = {"layers": 2, "context": [1, 2, 0]}


@pytest.fixture
def grown(tmp_path: Path, model: M) -> M:
    """The model with more attention in the matching, and refiners that see the frame."""
    save_weights(tmp_path, model, dtype=torch.float32)
    larger = build("m", dataclasses.asdict(model.config) | ADDED)
    load_state(larger, tmp_path, growing=True)
    assert isinstance(larger, M)
    return larger.eval()


@torch.no_grad()
def test_added_parts_are_silent_at_first(grown: M, model: M, images: tuple[Tensor, Tensor]) -> None:
    assert grown.count_parameters() > model.count_parameters()
    assert torch.equal(grown(*images).homography, model(*images).homography)


def test_added_parts_learn(grown: M, images: tuple[Tensor, Tensor]) -> None:
    """What lets them be heard at first, then all of them."""
    own = dict(grown.named_parameters())
    before = {name: value.detach().clone() for name, value in own.items()}
    optimizer = torch.optim.Adam(grown.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        estimate = grown(*images)
        corners = transform_points(torch.stack(estimate.stages), image_corners(N, N))
        (corners.sum() + estimate.details["scores"].log_softmax(2).square().mean()).backward()
        optimizer.step()
    added = [name for name in own if "attention.1" in name or "context" in name]
    assert len(added) > 40
    still = [name for name in added if torch.equal(own[name], before[name])]
    assert not still


def test_context_reaches_the_whole_frame() -> None:
    """A cell in one corner hears of one in the other, which convolutions do not carry there."""
    torch.manual_seed(0)
    context = FrameContext(8, 1, 32)
    x = torch.zeros(1, 8, 32, 32, requires_grad=True)
    context(x)[0, 0, 0, 0].backward()
    assert x.grad is not None
    assert x.grad[0, :, -1, -1].any()


@pytest.mark.parametrize("cells", [4, 12, 16])
def test_context_takes_any_number_of_cells(cells: int) -> None:
    assert FrameContext(8, 1, 32)(torch.rand(2, 8, cells, cells)).shape == (2, 8, cells, cells)


@pytest.mark.parametrize(("cells", "patches"), [(16, 64), (32, 64), (64, 256), (96, 576)])
def test_patches_keep_their_size_in_larger_frames(cells: int, patches: int) -> None:
    context = FrameContext(8, 1, 32)
    seen: list[Tensor] = []
    context.layers[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    context(torch.rand(1, 8, cells, cells))
    assert seen[0].shape == (1, patches, 8)
