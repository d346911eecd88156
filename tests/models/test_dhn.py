from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from homoreg.errors import ConfigError
from homoreg.geometry import image_corners, square_prior, transform_points
from homoreg.models.dhn import DHN, DHNConfig
from homoreg.models.registry import build
from tests.geometry.maps import double
from tests.models.contract import corners_of, pairs, tiny

SIDE = 64  # of the tiny network


@pytest.fixture
def model() -> DHN:
    network = tiny("dhn")
    assert isinstance(network, DHN)
    return network


def answering(model: DHN, offsets: Tensor) -> DHN:
    """Let a network answer given offsets (4, 2), in px of its own images, whatever it sees."""
    with torch.no_grad():
        model.net.out.weight.zero_()
        model.net.out.bias.copy_(offsets.flatten() / (SIDE / 4))
    return model


def test_the_paper_counts_34_million_parameters() -> None:
    with torch.device("meta"):
        model = DHN()
    assert model.count_parameters() == pytest.approx(34.2e6, rel=1e-3)
    assert sum(isinstance(module, torch.nn.Conv2d) for module in model.modules()) == 8
    assert sum(isinstance(module, torch.nn.MaxPool2d) for module in model.modules()) == 3


def test_an_untrained_network_answers_the_centred_square() -> None:
    template, search, _ = pairs(64)
    model = build("dhn", {"side": SIDE, "widths": [4, 4, 4, 4], "hidden": 8}).eval()
    assert torch.equal(model(template, search).homography[0], square_prior(64).float())


@pytest.mark.parametrize("n", [64, 96, 128])
def test_offsets_are_taken_back_to_the_pixels_of_the_images(model: DHN, n: int) -> None:
    offsets = double([[3, -2], [5, 1], [-4, 2], [0, 6]])
    template, search, _ = pairs(n)
    estimate = answering(model, offsets)(template, search)
    torch.testing.assert_close(estimate.details["offsets"][0].double(), offsets, atol=1e-5, rtol=0)
    scale = n / SIDE
    corners = image_corners(SIDE, SIDE, dtype=torch.float64)
    found = transform_points(estimate.homography[0].double(), scale * (corners + 0.5) - 0.5)
    torch.testing.assert_close(found, scale * (corners + offsets + 0.5) - 0.5 + n / 4, atol=2e-3, rtol=0)


def test_only_the_centred_square_is_seen(model: DHN) -> None:
    template, search, _ = pairs(64)
    other = torch.zeros_like(search)
    other[..., 16:80, 16:80] = search[..., 16:80, 16:80]
    assert torch.equal(model(template, other).homography, model(template, search).homography)
    other[..., 40:50, 40:50] = 0
    assert not torch.equal(model(template, other).homography, model(template, search).homography)


def test_the_polarity_of_the_infrared_does_not_matter(model: DHN) -> None:
    template, search, _ = pairs(64)
    torch.testing.assert_close(
        corners_of(model(1 - template, search), 64),
        corners_of(model(template, search), 64),
        atol=1e-3,
        rtol=0,
    )


def test_there_is_nothing_to_refine_and_no_cheaper_answer(model: DHN) -> None:
    template, search, _ = pairs(64)
    expected = model(template, search).homography
    assert torch.equal(model(template, search, initial=torch.eye(3)[None], quick=True).homography, expected)


def test_a_folded_answer_is_replaced_and_said_to_be(model: DHN) -> None:
    template, search, _ = pairs(64, 2)
    folded = double([[60, 0], [-60, 0], [0, 0], [0, 0]])
    estimate = answering(model, folded)(template, search)
    assert estimate.diverged.tolist() == [True, True]
    assert torch.equal(estimate.homography[0], square_prior(64).float())
    assert not torch.equal(estimate.stages[-1][0], estimate.homography[0])


def test_it_does_not_rate_itself(model: DHN) -> None:
    one, other = (model(*pairs(64, 2)[:2]), model(*pairs(96, 1)[:2]))
    assert not model.rates_itself
    assert model.starter == ""
    assert torch.equal(one.covariance[0], one.covariance[1])
    torch.testing.assert_close(other.covariance[0], one.covariance[0] * (96 / 64) ** 2)
    assert not one.log_precision.any()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"side": 100}, "multiple of 8"),
        ({"side": 0}, "cannot be built"),
        ({"widths": (4, 0, 4, 4)}, "cannot be built"),
        ({"hidden": 0}, "cannot be built"),
        ({"dropout": 1.0}, "dropout is 1.0; expected 0 or more and under 1"),
    ],
)
def test_a_config_of_no_network_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DHNConfig(**config)
