"""What every architecture must do: one class of tests, run for each registered name.

`test_contract.py` runs it. A new architecture needs an entry in `TINY` and golden numbers:

    python -m tests.models.contract        # from the root of the project; rewrites golden.json

Do that only where the outputs are meant to change, and say so in the change log: trained weights of before
then give other results, too.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry import (
    compose,
    homography_from_corners,
    image_corners,
    is_plausible,
    pixel_grid,
    pull,
    square_prior,
    transform_points,
)
from homoreg.models import (
    ARCHITECTURES,
    HomographyEstimate,
    HomographyModel,
    M,
    build,
    load_model,
    save_weights,
)
from homoreg.models.layers import CrossAttention, OffsetRegressor
from homoreg.models.m import Refiner

GOLDEN = Path(__file__).with_name("golden.json")


def _calm_m(model: HomographyModel) -> None:
    """Let both sides see alike, matching rule over position, and the refiners move little."""
    assert isinstance(model, M)
    encoder = model.encoder
    encoder.stems["rgb"].load_state_dict(encoder.stems["infrared"].state_dict())
    encoder.head8.weight.mul_(30)
    model.side[1] = model.side[0]
    for attention in (*model.self_attention, *model.cross_attention):
        assert isinstance(attention, CrossAttention)
        for parameter in attention.norm_update.parameters():
            parameter.mul_(0.3)
    model.log_sharpness.fill_(4.0)
    for refiner in model.refiners:
        assert isinstance(refiner, Refiner)
        refiner.log_sharpness.zero_()
        for parameter in refiner.net[-1].parameters():
            parameter[:2] *= 0.02


def _calm_offsets(model: HomographyModel) -> None:
    """Let the networks that regress offsets move the corners by some pixels only."""
    for module in model.modules():
        if isinstance(module, OffsetRegressor):
            module.out.weight.mul_(0.1)
            module.out.bias.mul_(0.3)


@dataclass(frozen=True)
class Tiny:
    """A config that runs in milliseconds, and what keeps its random weights from diverging."""

    config: dict[str, Any]
    calm: Callable[[HomographyModel], None] = lambda model: None
    batch_norm: bool = False  # a batch is then seen differently in training


# Everything is said, so that the golden numbers do not follow the defaults.
TINY = {
    "clkn": Tiny(
        {
            **{"widths": [16, 12, 8, 8], "channels": 2, "side": 64, "starter": "mhn"},
            **{"iterations": [12, 10, 8, 8], "quick_iterations": [4, 2, 0, 0], "damping": 0.3},
            **{"reach": [40.0, 20.0, 10.0, 5.0], "sigma": [8.0, 4.0, 2.0, 1.0], "prior": 0.2},
        }
    ),
    "dhn": Tiny(
        {"side": 64, "widths": [4, 4, 8, 8], "hidden": 16, "dropout": 0.1}, _calm_offsets, batch_norm=True
    ),
    "dlkfm": Tiny(
        {
            **{"widths": [12, 8, 8], "blocks": [1, 1, 1], "vectors": 4, "side": 64, "starter": "mhn"},
            **{"iterations": [12, 10, 8], "quick_iterations": [4, 0, 0], "damping": 0.3},
            **{"reach": [40.0, 20.0, 10.0], "sigma": [8.0, 4.0, 2.0], "prior": 0.2, "star_convex": False},
        }
    ),
    "m": Tiny(
        {
            **{"width2": 8, "width4": 12, "width8": 16, "layers": 1, "heads": 2, "hidden": [16, 12, 8]},
            **{"radius": [4, 4, 2], "steps": [2, 3, 2], "quick_steps": [1, 1, 0]},
        },
        _calm_m,
    ),
    "mhn": Tiny(
        {
            **{"side": 96, "widths": [4, 4, 4, 8, 8, 8], "hidden": 16, "dropout": 0.1},
            **{"repeats": [2, 2, 1]},
        },
        _calm_offsets,
        batch_norm=True,
    ),
}


def tiny(architecture: str) -> HomographyModel:
    """A small network with the same weights on every machine and with every version of torch.

    They come from NumPy's legacy generator, whose numbers never change.
    """
    model = build(architecture, TINY[architecture].config)
    draw = np.random.RandomState(9)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.from_numpy(np.asarray(draw.standard_normal(tuple(parameter.shape))))
            if parameter.dim() > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(1 + 0.1 * noise)
        TINY[architecture].calm(model)
    return model.eval()


def _pair(n: int, index: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = np.random.RandomState(index)
    side = 3 * n // 2
    grid = pixel_grid(side, side, torch.zeros((), dtype=torch.float64)) / side
    scene = torch.zeros(3, side * side, dtype=torch.float64)
    for frequency in (2.0, 4.0, 8.0, 16.0):
        for _ in range(4):
            direction = torch.from_numpy(draw.uniform(-1, 1, (3, 2))) * frequency * 2 * torch.pi
            phase = torch.from_numpy(draw.uniform(0, 6.3, (3, 1)))
            scene += (direction @ grid.T + phase).sin() / frequency**0.5
    search = (0.5 + 0.1 * scene).clamp(0, 1).view(1, 3, side, side)
    corners = image_corners(n, n, dtype=torch.float64)
    offset = torch.from_numpy(draw.uniform(-0.05, 0.05, (4, 2))) * n
    truth = compose(square_prior(n), homography_from_corners(corners, corners + offset))[None]
    return pull(search, truth, (n, n))[0].float(), search.float(), truth


def pairs(n: int, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Template (B, 3, n, n), search (B, 3, 3n/2, 3n/2) and truth (B, 3, 3) of smooth generated scenes."""
    template, search, truth = zip(*(_pair(n, index) for index in range(batch)), strict=True)
    return torch.cat(template), torch.cat(search), torch.cat(truth)


def corners_of(estimate: HomographyEstimate, n: int) -> Tensor:
    """Mapped corners, (B, 4, 2) float64, search px."""
    return transform_points(estimate.homography.detach().double(), image_corners(n, n, dtype=torch.float64))


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested lists, dicts and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_of(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_of(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from tensors_of([getattr(value, field.name) for field in dataclasses.fields(value)])


def golden_outputs(architecture: str) -> dict[str, Any]:
    """What `golden.json` holds: the estimate of the tiny network for two pairs at n = 64."""
    template, search, _ = pairs(64, 2)
    with torch.no_grad():
        estimate = tiny(architecture)(template, search)
    return {
        "corners": corners_of(estimate, 64).tolist(),
        "covariance": estimate.covariance.tolist(),
        "log_precision": estimate.log_precision.tolist(),
        "diverged": estimate.diverged.tolist(),
    }


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
class ModelContract:
    """Subclass it in a test module under a name that pytest collects."""

    @pytest.mark.parametrize(("n", "batch"), [(64, 3), (96, 1), (128, 2)])
    @pytest.mark.parametrize("options", [{}, {"quick": True}, {"initial": True}])
    def test_the_estimate_is_as_documented(
        self, architecture: str, n: int, batch: int, options: dict[str, Any]
    ) -> None:
        template, search, _ = pairs(n, batch)
        if "initial" in options:
            options = {"initial": square_prior(n).expand(batch, 3, 3)}
        with torch.no_grad():
            estimate = tiny(architecture)(template, search, **options)
        assert estimate.homography.shape == (batch, 3, 3)
        assert estimate.homography.dtype in (torch.float32, torch.float64)
        assert (estimate.homography[:, 2, 2] == 1).all()
        assert is_plausible(estimate.homography, n).all()
        assert estimate.stages
        assert all(stage.shape == (batch, 3, 3) for stage in estimate.stages)
        sound = ~estimate.diverged
        assert torch.equal(estimate.stages[-1][sound], estimate.homography[sound])
        assert estimate.covariance.shape == (batch, 4, 2, 2)
        assert (torch.linalg.eigvalsh(estimate.covariance) > 0).all()
        assert estimate.log_precision.shape == (batch,)
        assert torch.isfinite(estimate.log_precision).all()
        assert estimate.diverged.shape == (batch,)
        assert estimate.diverged.dtype == torch.bool
        assert isinstance(estimate.details, dict)

    def test_every_parameter_gets_a_finite_gradient(self, architecture: str) -> None:
        model = tiny(architecture).train()
        template, search, _ = pairs(64, 2)
        estimate = model(template, search)
        trained = [value for value in tensors_of(estimate) if value.requires_grad]
        torch.stack([value.double().square().mean() for value in trained]).sum().backward()
        without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert without == []
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)

    def test_constant_images_give_finite_gradients(self, architecture: str) -> None:
        model = tiny(architecture).train()
        estimate = model(torch.full((1, 3, 64, 64), 0.5), torch.full((1, 3, 96, 96), 0.5))
        trained = [value for value in tensors_of(estimate) if value.requires_grad]
        torch.stack([value.double().square().mean() for value in trained]).sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)

    def test_a_batch_is_its_members(self, architecture: str) -> None:
        model = tiny(architecture)
        for n in (64, 96):
            template, search, _ = pairs(n, 3)
            with torch.no_grad():
                together = model(template, search)
                alone = [model(template[k : k + 1], search[k : k + 1]) for k in range(3)]
            corners = torch.cat([corners_of(estimate, n) for estimate in alone])
            torch.testing.assert_close(corners_of(together, n), corners, atol=0.01, rtol=0)
            precision = torch.cat([estimate.log_precision for estimate in alone])
            torch.testing.assert_close(together.log_precision, precision, atol=1e-3, rtol=0)

    def test_the_order_of_a_batch_does_not_matter(self, architecture: str) -> None:
        template, search, _ = pairs(64, 3)
        model = tiny(architecture)
        with torch.no_grad():
            forth, back = model(template, search), model(template.flip(0), search.flip(0))
        torch.testing.assert_close(corners_of(back, 64).flip(0), corners_of(forth, 64), atol=0.01, rtol=0)

    def test_the_same_input_gives_the_same_bits(self, architecture: str) -> None:
        template, search, _ = pairs(64, 2)
        before = template.clone(), search.clone()
        model = tiny(architecture)
        with torch.inference_mode():
            first, second = model(template, search), model(template, search)
        for one, other in zip(tensors_of(first), tensors_of(second), strict=True):
            assert torch.equal(one, other)
        assert torch.equal(template, before[0])
        assert torch.equal(search, before[1])

    def test_training_mode_and_memory_layout_change_nothing(self, architecture: str) -> None:
        template, search, _ = pairs(64, 2)
        with torch.no_grad():
            expected = tiny(architecture)(template, search)
            training = tiny(architecture).train(not TINY[architecture].batch_norm)(template, search)
            flipped = tiny(architecture)(
                *(i.to(memory_format=torch.channels_last) for i in (template, search))
            )
        for other in (training, flipped):
            torch.testing.assert_close(corners_of(other, 64), corners_of(expected, 64), atol=0.01, rtol=0)

    def test_saved_single_precision_weights_are_the_same_model(
        self, architecture: str, tmp_path: Path
    ) -> None:
        model = tiny(architecture)
        save_weights(tmp_path, model, dtype=torch.float32)
        loaded, config = load_model(tmp_path)
        assert type(loaded) is type(model)
        assert loaded.config == model.config
        assert config["architecture"] == architecture == loaded.architecture
        assert not loaded.training
        state = loaded.state_dict()
        assert state.keys() == model.state_dict().keys()
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        template, search, _ = pairs(64)
        with torch.no_grad():
            one, other = model(template, search), loaded(template, search)
        assert torch.equal(one.homography, other.homography)
        assert torch.equal(one.log_precision, other.log_precision)

    def test_saved_half_precision_weights_are_nearly_the_same_model(
        self, architecture: str, tmp_path: Path
    ) -> None:
        model = tiny(architecture)
        save_weights(tmp_path, model, dtype=torch.float16)
        loaded, _ = load_model(tmp_path)
        state = loaded.state_dict()
        for name, value in model.state_dict().items():
            assert state[name].dtype == value.dtype
            torch.testing.assert_close(state[name], value, rtol=1e-3, atol=1e-6)
        template, search, _ = pairs(64, 2)
        with torch.no_grad():
            one, other = model(template, search), loaded(template, search)
        torch.testing.assert_close(corners_of(one, 64), corners_of(other, 64), atol=0.25, rtol=0)

    def test_double_precision_agrees_with_single(self, architecture: str) -> None:
        template, search, _ = pairs(64, 2)
        with torch.no_grad():
            single = tiny(architecture)(template, search)
            precise = tiny(architecture).double()(template.double(), search.double())
        torch.testing.assert_close(corners_of(precise, 64), corners_of(single, 64), atol=0.01, rtol=0)
        torch.testing.assert_close(
            precise.log_precision.double(), single.log_precision.double(), atol=1e-3, rtol=0
        )

    def test_autocast_keeps_the_estimate_in_single_precision(self, architecture: str) -> None:
        template, search, _ = pairs(64, 2)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            estimate = tiny(architecture)(template, search)
        kept = (estimate.homography, *estimate.stages, estimate.covariance, estimate.log_precision)
        assert {value.dtype for value in kept} == {torch.float32}
        assert is_plausible(estimate.homography, 64).all()

    def test_a_mask_that_hides_nothing_changes_no_bit(self, architecture: str) -> None:
        template, search, _ = pairs(64, 2)
        model = tiny(architecture)
        with torch.no_grad():
            without = model(template, search)
            shown = model(template, search, valid=torch.ones(2, 1, 96, 96, dtype=torch.bool))
        for one, other in zip(tensors_of(without), tensors_of(shown), strict=True):
            assert torch.equal(one, other)

    def test_a_mask_is_of_its_own_member_only(self, architecture: str) -> None:
        template, search, _ = pairs(64, 2)
        valid = torch.ones(2, 1, 96, 96, dtype=torch.bool)
        valid[0] = False
        with torch.no_grad():
            without = tiny(architecture)(template, search)
            estimate = tiny(architecture)(template, search, valid=valid)
        assert torch.equal(estimate.homography[1], without.homography[1])
        assert torch.equal(estimate.log_precision[1], without.log_precision[1])
        assert is_plausible(estimate.homography, 64).all()
        assert torch.isfinite(estimate.covariance).all()
        assert torch.isfinite(estimate.log_precision).all()

    @pytest.mark.parametrize(
        ("template", "search"),
        [
            ((3, 64, 64), (3, 96, 96)),
            ((), (1, 3, 96, 96)),
            ((1, 1, 64, 64), (1, 1, 96, 96)),
            ((1, 3, 64, 64), (1, 3, 64, 64)),
            ((1, 3, 64, 96), (1, 3, 96, 144)),
            ((1, 3, 80, 80), (1, 3, 120, 120)),
            ((2, 3, 64, 64), (1, 3, 96, 96)),
            ((0, 3, 64, 64), (0, 3, 96, 96)),
            ((1, 3, 0, 0), (1, 3, 0, 0)),
            ((1, 64, 64, 3), (1, 96, 96, 3)),
        ],
    )
    def test_other_shapes_are_refused(
        self, architecture: str, template: tuple[int, ...], search: tuple[int, ...]
    ) -> None:
        with pytest.raises(InputError) as caught:
            tiny(architecture)(torch.zeros(template), torch.zeros(search))
        message = str(caught.value)
        assert message.startswith(f"{architecture} got a template of shape {template} and a search image of ")
        assert f"shape {search}; expected (B, 3, n, n) and (B, 3, 3n/2, 3n/2) with n a multiple" in message

    def test_integers_are_refused(self, architecture: str) -> None:
        images = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 96, 96)
        for template, search in ((images[0].byte(), images[1]), (images[0], images[1].byte())):
            with pytest.raises(InputError, match=r"expected floats in \[0, 1\]: divide 8-bit images by 255"):
                tiny(architecture)(template, search)

    def test_images_of_another_type_than_the_weights_are_refused(self, architecture: str) -> None:
        images = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 96, 96)
        for template, search in ((images[0].double(), images[1]), (images[0], images[1].half())):
            with pytest.raises(
                InputError, match=r"has torch.float32 weights; .* with \.to\(torch\.float32\)"
            ):
                tiny(architecture)(template, search)

    @pytest.mark.parametrize("levels", [(0.0, 0.0), (0.0, 1.0), (0.5, None), (None, 0.5)])
    def test_featureless_images_give_a_plausible_estimate(
        self, architecture: str, levels: tuple[float | None, float | None]
    ) -> None:
        images = [
            image if level is None else torch.full_like(image, level)
            for image, level in zip(pairs(64)[:2], levels, strict=True)
        ]
        with torch.no_grad():
            estimate = tiny(architecture)(*images)
        assert is_plausible(estimate.homography, 64).all()
        assert torch.isfinite(estimate.covariance).all()
        assert torch.isfinite(estimate.log_precision).all()

    def test_images_that_are_not_numbers_diverge_to_the_centred_square(self, architecture: str) -> None:
        template, search, _ = pairs(64, 2)
        template[0] = torch.nan
        with torch.no_grad():
            estimate = tiny(architecture)(template, search)
        assert estimate.diverged.tolist() == [True, False]
        torch.testing.assert_close(estimate.homography[0].double(), square_prior(64))
        assert torch.isfinite(estimate.log_precision).all()

    def test_the_config_builds_an_equal_model(self, architecture: str) -> None:
        model = tiny(architecture)
        again = build(architecture, json.loads(json.dumps(dataclasses.asdict(model.config))))
        assert again.config == model.config
        assert again.count_parameters() == model.count_parameters()
        assert model.count_parameters() == sum(p.numel() for p in model.parameters())
        next(model.parameters()).requires_grad_(False)
        assert model.count_parameters() < again.count_parameters()

    def test_outputs_are_those_of_the_golden_file(self, architecture: str) -> None:
        expected = json.loads(GOLDEN.read_text(encoding="utf-8"))[architecture]
        actual = golden_outputs(architecture)
        assert actual["diverged"] == expected["diverged"] == [False, False]
        np.testing.assert_allclose(actual["corners"], expected["corners"], atol=0.01, rtol=0)
        np.testing.assert_allclose(actual["log_precision"], expected["log_precision"], atol=1e-3)
        np.testing.assert_allclose(actual["covariance"], expected["covariance"], rtol=0.01, atol=1e-5)


if __name__ == "__main__":
    outputs = {name: golden_outputs(name) for name in sorted(ARCHITECTURES)}
    GOLDEN.write_text(json.dumps(outputs, indent=1) + "\n", encoding="utf-8")
