"""Blocks that several architectures share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CrossAttention", "ResidualBlock", "conv_norm_relu", "local_correlation", "sine_encoding"]


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
    One matrix product a row gives the correlations of a row with a whole padded row; the wanted band of
    it is read off by reshaping with a row length one longer. On a CPU this is several times faster than
    products of shifted maps, and it is exact.
    """
    batch, channels, height, width = query.shape
    side, padded = 2 * radius + 1, width + 2 * radius
    rows = query.permute(0, 2, 3, 1).reshape(batch * height, width, channels)
    around = F.pad(search, [radius] * 4).permute(0, 2, 1, 3)
    bands = []
    for shift in range(side):
        other = around[:, shift : shift + height].reshape(batch * height, channels, padded)
        products = torch.bmm(rows, other).flatten(1)
        skewed = F.pad(products, [0, width]).view(batch * height, width, padded + 1)
        bands.append(skewed[..., :side])
    return torch.stack(bands, 2).view(batch, height, width, side * side).permute(0, 3, 1, 2)
