from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from homoreg.models.layers import (
    CrossAttention,
    OffsetRegressor,
    ResidualBlock,
    conv_norm_relu,
    edge_map,
    local_correlation,
    resize,
    sine_encoding,
    standardize,
    unit_length,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# --- local_correlation -------------------------------------------------------------------------------------


def one_at_a_time(query: Tensor, search: Tensor, radius: int) -> Tensor:
    """The definition: loop over cells and shifts."""
    batch, _, height, width = query.shape
    shifts = range(-radius, radius + 1)
    out = torch.zeros(batch, len(shifts) ** 2, height, width, dtype=query.dtype)
    for y in range(height):
        for x in range(width):
            for k, (dy, dx) in enumerate((dy, dx) for dy in shifts for dx in shifts):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    out[:, k, y, x] = (query[:, :, y, x] * search[:, :, y + dy, x + dx]).sum(1)
    return out


@pytest.mark.parametrize(
    ("height", "width", "radius"),
    [(5, 7, 2), (7, 5, 1), (4, 4, 0), (3, 3, 4), (1, 6, 2), (6, 1, 3), (3, 16, 1), (2, 48, 4), (3, 33, 2)],
)
def test_local_correlation_is_exact(height: int, width: int, radius: int) -> None:
    query, search = noise(2, 3, height, width), noise(2, 3, height, width, seed=1)
    actual = local_correlation(query, search, radius)
    torch.testing.assert_close(actual, one_at_a_time(query, search, radius), atol=1e-12, rtol=0)


def test_local_correlation_finds_a_shift() -> None:
    search = F.normalize(noise(1, 16, 12, 12), dim=1)
    query = search.roll((-1, 2), dims=(2, 3))  # query(y, x) = search(y + 1, x - 2)
    best = local_correlation(query, search, 2).argmax(1)[0, 3:-3, 3:-3]
    assert (best == (1 + 2) * 5 + (-2 + 2)).all()


def test_local_correlation_has_its_gradient() -> None:
    query, search = noise(1, 2, 3, 4).requires_grad_(), noise(1, 2, 3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda q, s: local_correlation(q, s, 1), (query, search))


def test_local_correlation_takes_any_memory_layout() -> None:
    query, search = noise(2, 4, 6, 5), noise(2, 4, 6, 5, seed=1)
    last = [value.contiguous(memory_format=torch.channels_last) for value in (query, search)]
    torch.testing.assert_close(local_correlation(last[0], last[1], 2), local_correlation(query, search, 2))


# --- sine_encoding -----------------------------------------------------------------------------------------


def test_the_encoding_is_sines_and_cosines_of_x_then_of_y() -> None:
    x, y = 0.3, 0.47
    code = sine_encoding(torch.tensor([[x, y]], dtype=torch.float64), 8)
    low, high = math.pi, 32 * math.pi
    expected = [
        *(math.sin(low * x), math.sin(high * x), math.cos(low * x), math.cos(high * x)),
        *(math.sin(low * y), math.sin(high * y), math.cos(low * y), math.cos(high * y)),
    ]
    torch.testing.assert_close(code, torch.tensor([expected], dtype=torch.float64))


def test_the_encoding_tells_all_cells_of_a_frame_apart() -> None:
    axis = (torch.arange(24) + 0.5) / 24
    points = torch.cartesian_prod(axis, axis)
    code = sine_encoding(points, 32)
    assert code.shape == (576, 32)
    assert code.dtype == torch.float32
    distance = torch.cdist(code, code) + 10 * torch.eye(576)
    assert distance.min() > 0.1


# --- blocks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (2, 5), (1, 1)])
def test_a_convolution_is_followed_by_instance_norm_and_relu(stride: int, kernel: int) -> None:
    block = conv_norm_relu(3, 6, stride=stride, kernel=kernel).double()
    image = noise(2, 3, 8, 10)
    convolution = block[0]
    assert isinstance(convolution, nn.Conv2d)
    convolved = F.conv2d(image, convolution.weight, stride=stride, padding=kernel // 2)
    assert convolved.shape[-2:] == (8 // stride, 10 // stride)
    torch.testing.assert_close(block(image), F.instance_norm(convolved).relu())


def test_a_residual_block_of_nothing_passes_on_what_it_gets() -> None:
    block = ResidualBlock(4).double()
    image = noise(2, 4, 6, 6)
    assert block(image).shape == image.shape
    assert not torch.equal(block(image), image.relu())
    norm = block.second[1]
    assert isinstance(norm, nn.GroupNorm)
    nn.init.zeros_(norm.weight)
    torch.testing.assert_close(block(image), image.relu())


def test_cross_attention_is_softmax_attention_by_heads() -> None:
    heads, width = 2, 8
    layer = CrossAttention(width, heads).double()
    tokens, context = noise(3, 5, width), noise(3, 7, width, seed=1)
    query = layer.query(tokens).view(3, 5, heads, 4)
    key, value = layer.key_value(context).split(width, dim=-1)
    key, value = key.view(3, 7, heads, 4), value.view(3, 7, heads, 4)
    weight = (torch.einsum("bnhd,bmhd->bhnm", query, key) / 4**0.5).softmax(-1)
    message = layer.norm_message(layer.out(torch.einsum("bhnm,bmhd->bnhd", weight, value).flatten(2)))
    expected = tokens + layer.norm_update(layer.mlp(torch.cat([tokens, message], dim=-1)))
    torch.testing.assert_close(layer(tokens, context), expected)


def test_the_order_of_the_context_does_not_matter_to_attention() -> None:
    layer = CrossAttention(8, 2).double()
    tokens, context = noise(1, 5, 8), noise(1, 7, 8, seed=1)
    torch.testing.assert_close(layer(tokens, context.flip(1)), layer(tokens, context))
    torch.testing.assert_close(layer(tokens.flip(1), context).flip(1), layer(tokens, context))


# --- what DHN and MHN see and answer with ------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(64, 64), (64, 32), (96, 24), (96, 64), (48, 96), (40, 64)])
def test_resizing_keeps_pixels_where_the_frames_say(before: int, after: int) -> None:
    ramp = torch.arange(before, dtype=torch.float64).expand(1, 1, before, before)
    resized = resize(ramp, after)
    assert resized.shape == (1, 1, after, after)
    expected = (torch.arange(after, dtype=torch.float64) + 0.5) * before / after - 0.5
    inner = slice(4, -4)  # at the border there is less to average over
    torch.testing.assert_close(resized[0, 0, 7, inner], expected[inner], atol=0.03, rtol=0)


def test_shrinking_averages() -> None:
    chess = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    for side in (32, 24):
        resized = resize(chess.double().expand(1, 1, 64, 64), side)[..., 2:-2, 2:-2]
        torch.testing.assert_close(resized, torch.full_like(resized, 0.5), atol=0.02, rtol=0)


def test_standardized_channels_have_no_mean_and_unit_deviation() -> None:
    image = noise(2, 3, 32, 32) * 5 + 7
    standard = standardize(image)
    torch.testing.assert_close(standard.mean((-2, -1)), torch.zeros(2, 3, dtype=torch.float64))
    assert ((standard.std((-2, -1)) - 1).abs() < 0.01).all()
    exact = standardize(image, floor=0.0)
    assert exact.std((-2, -1), correction=0).flatten().tolist() == pytest.approx([1] * 6)


def test_a_constant_channel_becomes_zero_and_has_a_finite_gradient() -> None:
    image = noise(2, 3, 8, 8)
    image[1, 1] = 0.25
    image.requires_grad_()
    standard = standardize(image)
    assert not standard[1, 1].any()
    assert standard[1, 0].any()
    standard.square().sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


def test_edges_are_the_same_in_both_polarities_and_follow_a_shift() -> None:
    image = F.avg_pool2d(noise(1, 3, 96, 96), 5, 1, 2)
    edges = edge_map(image, 96, 48)
    assert edges.shape == (1, 1, 48, 48)
    torch.testing.assert_close(edge_map(3 - image, 96, 48), edges)
    moved = edge_map(image.roll(4, 3), 96, 48)[..., 4:-4]
    ratio, offset = (edges.roll(2, 3)[..., 4:-4].std() / moved.std(), edges.roll(2, 3)[..., 4:-4].mean())
    torch.testing.assert_close((moved - moved.mean()) * ratio + offset, edges.roll(2, 3)[..., 4:-4])


def test_edges_are_where_the_image_changes() -> None:
    image = torch.zeros(1, 1, 32, 32)
    image[..., 20:] = 1
    edges = edge_map(image, 32, 32)[0, 0]
    assert set(edges.amax(0).topk(2).indices.tolist()) == {19, 20}
    assert torch.isfinite(edge_map(torch.full((1, 1, 32, 32), 0.5), 32, 32)).all()


def regressor(**changes: Any) -> OffsetRegressor:
    sizes: dict[str, Any] = {"inputs": 2, "side": 32, "widths": (4, 8), "hidden": 16, "dropout": 0.0}
    return OffsetRegressor(**(sizes | changes))


def test_the_regressor_starts_at_no_displacement() -> None:
    net = regressor()
    offsets = net(noise(3, 2, 32, 32).float())
    assert offsets.shape == (3, 4, 2)
    assert not offsets.any()
    assert net.hidden.in_features == 8 * 16 * 16


def test_the_regressor_is_pairs_of_convolutions_parted_by_pooling() -> None:
    kinds = [type(module).__name__ for module in regressor().features]
    block = ["Conv2d", "BatchNorm2d", "ReLU"] * 2
    assert kinds == [*block, "MaxPool2d", *block]


def test_in_evaluation_the_regressor_sees_each_member_alone() -> None:
    net = regressor(dropout=0.5).train()
    with torch.no_grad():
        net.out.weight.normal_()
        net(noise(8, 2, 32, 32).float())
    images = noise(3, 2, 32, 32, seed=1).float()
    assert not torch.allclose(net(images)[0], net(images[:1])[0], atol=1e-4)
    net.eval()
    torch.testing.assert_close(net(images)[0], net(images[:1])[0])


# --- unit_length -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_cell_has_unit_length(layout: torch.memory_format) -> None:
    x = 50 * noise(2, 5, 3, 4)
    actual = unit_length(x.contiguous(memory_format=layout))
    torch.testing.assert_close(actual, F.normalize(x, dim=1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_cells_that_are_zero_stay_zero(dtype: torch.dtype) -> None:
    x = torch.zeros(1, 3, 1, 2, dtype=dtype)
    x[..., 1] = 2
    expected = torch.tensor([0, 3**-0.5], dtype=dtype).expand(1, 3, 1, 2)
    torch.testing.assert_close(unit_length(x), expected)
