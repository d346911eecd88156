from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from homoreg.errors import ConfigError, InputError
from homoreg.geometry import compose, pad_matrix, square_prior
from homoreg.models.dlkfm import DLKFM, gram_ratio
from homoreg.models.registry import build
from tests.models.contract import TINY, pairs, tiny

N = 64


@pytest.fixture
def model() -> DLKFM:
    network = tiny("dlkfm")
    assert isinstance(network, DLKFM)
    return network


def prior(x: float = 0.0, y: float = 0.0, batch: int = 1) -> Tensor:
    """The centred square, shifted."""
    return compose(pad_matrix(x, y), square_prior(N)).float().expand(batch, 3, 3)


# --- the map ------------------------------------------------------------------------------------------------


def test_the_map_is_that_of_the_papers_gram_matrix() -> None:
    features = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(0)).double()
    found = gram_ratio(features)
    assert found.shape == (2, 1, 6, 7)
    padded = F.pad(features - features.mean(1, keepdim=True), [1] * 4, mode="replicate")
    for y, x in ((0, 0), (2, 3), (5, 6)):
        vectors = padded[..., y : y + 3, x : x + 3].flatten(2)  # (B, C, 9)
        gram = vectors.transpose(1, 2) @ vectors
        rows, trace = gram.sum(-1), gram.diagonal(dim1=1, dim2=2).sum(-1)
        expected = (rows.amax(-1) + rows.amin(-1)) / (2 * trace)
        torch.testing.assert_close(found[:, 0, y, x], expected, rtol=1e-6, atol=1e-6)


def test_equal_vectors_give_one_and_constant_ones_nothing() -> None:
    equal = torch.tensor([1.0, -1.0, 2.0, -2.0])[None, :, None, None].expand(1, 4, 5, 5)
    torch.testing.assert_close(gram_ratio(equal), torch.ones(1, 1, 5, 5))
    assert not gram_ratio(torch.full((1, 4, 5, 5), 3.0)).any()


def test_the_sign_and_the_size_of_the_features_do_not_matter() -> None:
    features = torch.randn(1, 6, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(gram_ratio(-3 * features + 2), gram_ratio(features), rtol=1e-6, atol=1e-6)


def test_gradient_of_the_map() -> None:
    features = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
    assert torch.autograd.gradcheck(gram_ratio, (features,), atol=1e-4)


# --- the network --------------------------------------------------------------------------------------------


def test_two_networks_that_begin_alike_and_share_nothing() -> None:
    model = DLKFM()
    assert model.starter == "mhn"
    pair = list(zip(model.infrared.parameters(), model.rgb.parameters(), strict=True))
    assert all(torch.equal(one, other) and one.data_ptr() != other.data_ptr() for one, other in pair)


def test_one_channel_a_level_from_coarse_to_fine(model: DLKFM) -> None:
    template, search, _ = pairs(N, 2)
    with torch.no_grad():
        maps = model(template, search).details["maps"]
    assert [one.shape for one, _ in maps] == [(2, 1, 8, 8), (2, 1, 16, 16), (2, 1, 32, 32)]
    assert [other.shape for _, other in maps] == [(2, 1, 12, 12), (2, 1, 24, 24), (2, 1, 48, 48)]


@pytest.mark.parametrize("start", [prior(), prior(5, -3), prior(-12, 8)])
def test_it_starts_where_it_is_told(model: DLKFM, start: Tensor) -> None:
    template, search, _ = pairs(N)
    with torch.no_grad():
        estimate = model(template, search, initial=start)
    assert torch.equal(estimate.stages[0], start)
    if not estimate.details["improved"]:
        assert torch.equal(estimate.homography, start)


def test_where_the_maps_are_not_numbers_the_answer_is_the_start_and_says_so(model: DLKFM) -> None:
    template, search, _ = pairs(N, 2)
    start = prior(3, 2, batch=2)
    with torch.no_grad():
        alone = model(template, search, initial=start)
        template[1] = torch.nan
        estimate = model(template, search, initial=start)
    assert estimate.diverged.tolist() == [False, True]
    assert not estimate.details["improved"][1]
    assert torch.equal(estimate.homography[1], start[1])
    torch.testing.assert_close(estimate.homography[0], alone.homography[0])


def test_levels_without_iterations_are_left_out(model: DLKFM) -> None:
    template, search, _ = pairs(N)
    with torch.no_grad():
        assert len(model(template, search, iterations=(0, 2, 2)).details["alignments"]) == 2
        assert len(model(template, search, quick=True).details["alignments"]) == 1


@pytest.mark.parametrize("iterations", [(0, 0, 0), (1, 1), (1, -1, 1)])
def test_iterations_that_cannot_be_are_refused(model: DLKFM, iterations: tuple[int, ...]) -> None:
    template, search, _ = pairs(N)
    with pytest.raises(InputError, match="expected three counts, one of them above 0"):
        model(template, search, iterations=iterations)


def test_starts_of_another_shape_are_refused(model: DLKFM) -> None:
    template, search, _ = pairs(N, 2)
    with pytest.raises(InputError, match=r"initial has shape \(3, 3\); expected \(2, 3, 3\)"):
        model(template, search, initial=torch.eye(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"widths": [0, 1, 1]}, "an empty layer"), ({"vectors": 0}, "an empty"), ({"damping": -1.0}, "a neg")],
)
def test_a_config_of_no_network_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build("dlkfm", TINY["dlkfm"].config | change)
