"""Blocks that several architectures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from homoreg.errors import ConfigError

__all__ = [
    "CrossAttention",
    "OffsetRegressor",
    "ResidualBlock",
    "check_regressor",
    "conv_norm_relu",
    "edge_map",
    "local_correlation",
    "resize",
    "sine_encoding",
    "standardize",
    "unit_length",
]

PIECE = 16  # cells of a row that are correlated together


def conv_norm_relu(inputs: int, outputs: int, *, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Convolution, instance norm (as a group norm, whose kernel is faster on a CPU), ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.GroupNorm(outputs, outputs),
        nn.ReLU(inplace=True),
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with instance norm around a skip connection (He et al., CVPR 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_norm_relu(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.GroupNorm(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return F.relu(x + self.second(self.first(x)))


class CrossAttention(nn.Module):
    """One attention layer in the style of LoFTR (Sun et al., CVPR 2021), with full softmax attention.

    With ``context`` equal to ``tokens`` it is self-attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.norm_message = nn.LayerNorm(width)
        self.norm_update = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """Update tokens (B, N, C) from context (B, M, C)."""
        batch, length, width = tokens.shape
        query = self.query(tokens).view(batch, length, self.heads, -1).transpose(1, 2)
        key, value = self.key_value(context).view(batch, -1, 2, self.heads, width // self.heads).unbind(2)
        message = F.scaled_dot_product_attention(query, key.transpose(1, 2), value.transpose(1, 2))
        message = self.norm_message(self.out(message.transpose(1, 2).reshape(batch, length, width)))
        update: Tensor = self.norm_update(self.mlp(torch.cat([tokens, message], dim=-1)))
        return tokens + update


def sine_encoding(points: Tensor, width: int) -> Tensor:
    """Sine position encoding.

    Parameters
    ----------
    points
        Shape (N, 2), in units of the frame's side.
    width
        Number of channels, a multiple of 4.

    Returns
    -------
    Tensor
        Shape (N, width).
    """
    count = width // 4
    frequency = torch.pi * 2 ** torch.linspace(0, 5, count, dtype=points.dtype, device=points.device)
    x, y = points[:, :1] * frequency, points[:, 1:] * frequency
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=-1)


def local_correlation(query: Tensor, search: Tensor, radius: int) -> Tensor:
    """Correlate every cell with the cells around the same place of another map.

    Parameters
    ----------
    query, search
        Shape (B, C, H, W).
    radius
        Of the square window, in cells.

    Returns
    -------
    Tensor
        Shape (B, (2 radius + 1) ** 2, H, W), windows in reading order; zero outside the map.

    Notes
    -----
    One matrix product a piece of a row gives the correlations of its cells with a whole padded piece; the
    wanted band is read off in place, as rows one longer. On a CPU this is several times faster than products
    of shifted maps, and it is exact. Of whole rows it would be most of the work in large maps.
    """
    batch, channels, height, width = query.shape
    side = 2 * radius + 1
    piece = width if width % PIECE else PIECE
    padded, count = piece + 2 * radius, batch * height * width // piece
    rows = query.permute(0, 2, 3, 1).reshape(count, piece, channels)
    around = F.pad(search, [radius] * 4).permute(0, 2, 1, 3).unfold(3, padded, piece)
    around = around.transpose(2, 3).contiguous()  # (B, padded rows, pieces, C, padded)
    bands = []
    for shift in range(side):
        other = around[:, shift : shift + height].reshape(count, channels, padded)
        products = torch.bmm(rows, other)
        bands.append(products.as_strided((count, piece, side), (piece * padded, padded + 1, 1)))
    return torch.cat(bands, 2).view(batch, height, width, side * side).permute(0, 3, 1, 2)


def check_regressor(architecture: str, config: Any, multiple: int) -> None:
    """Raise for sizes of an :class:`OffsetRegressor` that cannot be built.

    Parameters
    ----------
    architecture
        Registered name, for the messages.
    config
        With ``side``, ``widths``, ``hidden`` and ``dropout``.
    multiple
        What the side has to be a multiple of.

    Raises
    ------
    ConfigError
        If one of them is impossible.
    """
    if min(config.side, config.hidden, *config.widths) < 1 or config.side % multiple:
        raise ConfigError(
            f"{config} cannot be built; expected widths and hidden of at least 1 and a side that is a "
            f"multiple of {multiple}"
        )
    if not 0 <= config.dropout < 1:
        raise ConfigError(
            f"{architecture} config dropout is {config.dropout}; expected 0 or more and under 1"
        )


class OffsetRegressor(nn.Module):
    """VGG-like network from a stack of images to the offsets of four corners, as DHN and MHN use it.

    Every block is two 3x3 convolutions, each with batch norm and ReLU; blocks are parted by 2x2 max pooling.
    The last layer starts at zero, so an untrained network answers that no corner moves.

    Parameters
    ----------
    inputs
        Channels of the input.
    side
        Side of the input in px, a multiple of 2 to the number of poolings.
    widths
        Channels of the blocks.
    hidden
        Units of the fully connected layer.
    dropout
        Share of the activations dropped in training, before and after the fully connected layer.
    """

    def __init__(self, inputs: int, side: int, widths: Sequence[int], *, hidden: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, width in enumerate(widths):
            if index:
                layers.append(nn.MaxPool2d(2))
            for channels in (inputs, width):
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
            inputs = width
        self.features = nn.Sequential(*layers)
        cells = side >> (len(widths) - 1)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(inputs * cells * cells, hidden)
        self.out = nn.Linear(hidden, 8)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, side, side) to offsets (B, 4, 2), at least float32."""
        x = self.features(x.contiguous(memory_format=torch.channels_last))
        x = F.relu(self.hidden(self.dropout(x.flatten(1))))
        offsets = self.out(self.dropout(x)).unflatten(1, (4, 2))
        precise: Tensor = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
        return precise


def resize(image: Tensor, side: int) -> Tensor:
    """Resize (B, C, H, H) to a side in px: averaging where it shrinks, bilinear where it grows."""
    if image.shape[-1] == side:
        return image
    if image.shape[-1] % side == 0:
        return F.avg_pool2d(image, image.shape[-1] // side)
    resized: Tensor = F.interpolate(
        image, size=(side, side), mode="bilinear", align_corners=False, antialias=image.shape[-1] > side
    )
    return resized


def edge_map(image: Tensor, middle: int, side: int) -> Tensor:
    """How steep the grey values are, whichever way: near alike in two cameras whose tones are not.

    Parameters
    ----------
    image
        Shape (B, C, H, H).
    middle
        Side in px at which the gradient is taken.
    side
        Side in px of the result.

    Returns
    -------
    Tensor
        Shape (B, 1, side, side): root of the magnitude of the gradient of the mean of the channels,
        standardized. The root keeps a few strong edges from drowning the rest.
    """
    x = F.pad(resize(image.mean(1, keepdim=True), middle), [1] * 4, mode="replicate")
    across, down = x[..., 1:-1, 2:] - x[..., 1:-1, :-2], x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
    return standardize(resize(((across.square() + down.square()) / 4 + 1e-8) ** 0.25, side))


def standardize(image: Tensor, *, floor: float = 0.02) -> Tensor:
    """Give each channel of each image zero mean and unit deviation; a constant one becomes zero.

    Parameters
    ----------
    image
        Shape (B, C, H, W).
    floor
        Added to the deviation, in units of the image.
    """
    mean = image.mean(dim=(-2, -1), keepdim=True)
    # The root's gradient is infinite at zero.
    deviation = ((image - mean).square().mean(dim=(-2, -1), keepdim=True) + 1e-12).sqrt()
    return (image - mean) / (deviation + floor)


def unit_length(x: Tensor) -> Tensor:
    """Scale the channels of each cell of (B, C, H, W) to length 1; of a cell that is zero they stay zero.

    As :func:`torch.nn.functional.normalize` does, whose norm takes many times as long on a CPU where the
    channels are not laid out last.
    """
    least = max(1e-24, torch.finfo(x.dtype).tiny)
    return x * x.square().sum(dim=1, keepdim=True).clamp_min(least).rsqrt()
