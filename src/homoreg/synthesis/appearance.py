"""How the two cameras see: tone, palette, blur, noise, shading and compression, batched in torch.

The infrared side is varied far more than the RGB side: polarity, monotone and non-monotone tone curves,
and colour palettes are what differs between thermal cameras, times of day and near infrared, and random
ones carry over to sensors that no training image shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from homoreg.errors import ConfigError
from homoreg.synthesis.random import Draw

__all__ = ["AppearanceConfig", "infrared_appearance", "palettes", "pseudo_infrared", "rgb_appearance"]


@dataclass(frozen=True)
class AppearanceConfig:
    """Chances of the changes of appearance, each 0 to 1."""

    stretch: float = 0.7  # percentile stretch of the infrared
    gamma: float = 0.5
    polarity: float = 0.3  # white-hot to black-hot
    faint: float = 0.0  # infrared in a narrow band of its range, but for a few hot spots
    curve: float = 0.08  # non-monotone tone curve of the infrared
    patchwork: float = 0.05  # a tone curve that changes over the frame
    palette: float = 0.35  # colour palette on the infrared
    infrared_blur: float = 0.3
    infrared_noise: float = 0.35
    stripes: float = 0.05  # fixed-pattern noise of columns
    vignette: float = 0.15
    rgb_gain: float = 0.6  # gains and gamma of the RGB channels
    rgb_mix: float = 0.08  # random mix of the RGB channels
    rgb_grey: float = 0.15
    rgb_blur: float = 0.15
    rgb_noise: float = 0.2
    night: float = 0.05  # dark, noisy RGB
    jpeg: float = 0.3  # compression, either side

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value}; expected a chance between 0 and 1")


@lru_cache(maxsize=1)
def palettes() -> Tensor:
    """Colour palettes of thermal displays, shape (P, 256, 3), RGB in [0, 1].

    OpenCV's colour maps and an "iron" ramp as thermal cameras use it.
    """
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    names = sorted(name for name in dir(cv2) if name.startswith("COLORMAP_"))
    maps = [cv2.applyColorMap(ramp, int(getattr(cv2, name)))[:, 0, ::-1] for name in names]
    knots = np.array([0.0, 0.2, 0.45, 0.7, 0.9, 1.0])
    iron = np.array(
        [[0, 0, 20], [70, 0, 130], [190, 20, 110], [250, 120, 20], [255, 210, 50], [255, 255, 240]]
    )
    position = np.linspace(0, 1, 256)
    maps.append(np.stack([np.interp(position, knots, iron[:, c]) for c in range(3)], axis=-1))
    return torch.from_numpy(np.stack(maps).astype(np.float32) / 255)


def _column(values: Tensor) -> Tensor:
    """Shape (B,) to (B, 1, 1, 1)."""
    return values[:, None, None, None]


def _stretch(x: Tensor, low: float, high: float) -> Tensor:
    sample = x[..., ::2, ::2].flatten(1)
    ordered = sample.sort(dim=1).values
    count = ordered.shape[1] - 1
    bottom, top = ordered[:, int(low * count)], ordered[:, int(high * count)]
    return ((x - _column(bottom)) / _column(top - bottom + 1e-3)).clamp(0, 1)


def _random_curve(draw: Draw, knots: int) -> Tensor:
    """Piecewise linear tone curves through random values, spanning [0, 1]: shape (B, 256)."""
    values = draw.uniform(0.0, 1.0, 1, knots)
    curve = F.interpolate(values, size=256, mode="linear", align_corners=True).squeeze(1)
    low, high = curve.amin(1, keepdim=True), curve.amax(1, keepdim=True)
    return (curve - low) / (high - low + 1e-3)


def _look_up(x: Tensor, table: Tensor) -> Tensor:
    """Map (B, 1, H, W) in [0, 1] through tables (B, 256)."""
    index = (x.clamp(0, 1) * 255).round().long().flatten(1)
    return table.gather(1, index).view_as(x)


def _smooth_field(draw: Draw, height: int, width: int, cells: int = 4) -> Tensor:
    """Shape (B, 1, H, W), smooth random values of about unit range, in [0, 1]."""
    coarse = draw.uniform(-1.5, 2.5, 1, cells, cells)
    return F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True).clamp(0, 1)


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a deviation (B,) in px for each member."""
    radius = 4
    offset = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offset / sigma.unsqueeze(1).clamp_min(1e-3)) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    batch, channels, height, width = x.shape
    weight = kernel.repeat_interleave(channels, dim=0)
    flat = F.pad(x.reshape(1, batch * channels, height, width), [radius] * 4, mode="replicate")
    flat = F.conv2d(flat, weight[:, None, :, None], groups=batch * channels)
    flat = F.conv2d(flat, weight[:, None, None, :], groups=batch * channels)
    return flat.view_as(x)


def _jpeg(x: Tensor, quality: Tensor) -> Tensor:
    """JPEG artefacts at a quality (B,) for each member; x (B, 3, H, W) with sides a multiple of 16."""
    from kornia.enhance import jpeg_codec_differentiable

    return jpeg_codec_differentiable(x.clamp(0, 1), quality).clamp(0, 1)


def _gamma(x: Tensor, log_range: float, draw: Draw, index: Tensor) -> Tensor:
    exponent = draw.uniform(-log_range, log_range).exp()[index]
    return x.clamp_min(0) ** _column(exponent)


def pseudo_infrared(rgb: Tensor, draw: Draw) -> Tensor:
    """Make an infrared image from RGB: a random channel mix through a random tone curve.

    Half of the images are mixed with one in which surfaces of like colour have one temperature each.

    Parameters
    ----------
    rgb
        Shape (B, 3, H, W), in [0, 1].
    draw
        Random numbers for B samples.

    Returns
    -------
    Tensor
        Shape (B, 1, H, W), in [0, 1].
    """
    mix = draw.simplex(3)
    grey = torch.einsum("bchw,bc->bhw", rgb, mix).unsqueeze(1)
    saturation = rgb.amax(1, keepdim=True) - rgb.amin(1, keepdim=True)
    share = _column(torch.where(draw.chance(0.4), draw.uniform(0.2, 0.7), 0.0))
    grey = _stretch(grey * (1 - share) + saturation * share, 0.01, 0.99)
    height, width = grey.shape[-2:]
    first = _look_up(grey, _random_curve(draw, 4))
    second = _look_up(grey, _random_curve(draw, 6))
    field = _smooth_field(draw, height, width) * _column(draw.chance(0.5).float())
    mixed = torch.lerp(first, second, field)
    surfaces = _surfaces(rgb, draw)
    mixed = torch.lerp(mixed, surfaces, _column(draw.chance(0.5).float() * draw.uniform(0.6, 1.0)))
    return _blur(mixed, torch.where(draw.chance(0.5), draw.uniform(0.4, 1.5), 0.0))


def _surfaces(rgb: Tensor, draw: Draw, count: int = 8) -> Tensor:
    """Give surfaces of like colour one random temperature each, whatever their brightness: (B, 1, H, W).

    Colours are shared out softly between those of ``count`` random pixels.
    """
    height, width = rgb.shape[-2:]
    place = draw.integers(height * width, count)
    flat = rgb.flatten(2)
    centre = flat.gather(2, place[:, None].expand(-1, 3, -1))
    distance = torch.cdist(flat.transpose(1, 2), centre.transpose(1, 2))
    sharpness = draw.log_uniform(10.0, 40.0)[:, None, None]
    share = torch.softmax(-distance * sharpness, dim=2)
    return torch.einsum("bpk,bk->bp", share, draw.uniform(0.0, 1.0, count)).view(-1, 1, height, width)


def infrared_appearance(infrared: Tensor, draw: Draw, config: AppearanceConfig) -> Tensor:
    """Vary the look of infrared frames.

    Parameters
    ----------
    infrared
        Shape (B, 1, H, W), in [0, 1]; sides a multiple of 16.
    draw
        Random numbers for B samples.
    config
        Chances.

    Returns
    -------
    Tensor
        Shape (B, 3, H, W), in [0, 1].
    """
    height, width = infrared.shape[-2:]

    def faint(members: Tensor, index: Tensor) -> Tensor:
        # A few hot spots take most of the range, or all of it is left unused.
        knee = _column(draw.uniform(0.3, 0.9)[index])
        slope = _column(draw.log_uniform(0.1, 0.5)[index])
        rest = _column(draw.chance(0.5).float()[index]) * (1 - slope * knee) / (1 - knee)
        dim = slope * members.minimum(knee) + rest * (members - knee).clamp_min(0)
        return dim + _column(draw.uniform(0.0, 0.2)[index])

    x = draw.sometimes(config.stretch, infrared, lambda m, _: _stretch(m, 0.01, 0.99))
    x = draw.sometimes(config.gamma, x, lambda m, i: _gamma(m, 0.7, draw, i))
    x = draw.sometimes(config.faint, x, faint)
    x = draw.sometimes(config.polarity, x, lambda m, _: 1 - m)
    x = draw.sometimes(config.curve, x, lambda m, i: _look_up(m, _random_curve(draw, 5)[i]))

    def patchwork(members: Tensor, index: Tensor) -> Tensor:
        other = _look_up(members, _random_curve(draw, 4)[index])
        return torch.lerp(members, other, _smooth_field(draw, height, width)[index])

    def vignette(members: Tensor, index: Tensor) -> Tensor:
        field = _smooth_field(draw, height, width, cells=2)[index]
        return members + (field - 0.5) * _column(draw.uniform(0.1, 0.5)[index])

    def stripes(members: Tensor, index: Tensor) -> Tensor:
        return members + draw.normal(1, 1, width)[index] * _column(draw.uniform(0.005, 0.03)[index])

    x = draw.sometimes(config.patchwork, x, patchwork)
    x = draw.sometimes(config.vignette, x, vignette)
    blur = width / 128  # the sensor's resolution is a share of its frame
    x = draw.sometimes(config.infrared_blur, x, lambda m, i: _blur(m, draw.log_uniform(0.4, 2.0)[i] * blur))
    x = draw.sometimes(config.stripes, x, stripes)
    x = draw.sometimes(config.infrared_noise, x, lambda m, i: _noise(m, 0.004, 0.06, draw, i))
    x = x.clamp(0, 1)
    tables = palettes().to(x.device)

    def colour(members: Tensor, index: Tensor) -> Tensor:
        chosen = tables[draw.integers(len(tables))[index]]
        level = (members[:, 0] * 255).round().long().flatten(1).unsqueeze(-1).expand(-1, -1, 3)
        return chosen.gather(1, level).transpose(1, 2).reshape(-1, 3, height, width)

    x = draw.sometimes(config.palette, x.expand(-1, 3, -1, -1), colour)
    return draw.sometimes(config.jpeg, x, lambda m, i: _jpeg(m, draw.uniform(40, 98)[i]))


def _noise(x: Tensor, low: float, high: float, draw: Draw, index: Tensor) -> Tensor:
    strength = _column(draw.log_uniform(low, high)[index])
    return x + torch.randn(x.shape, generator=draw.generator, device=x.device) * strength


def rgb_appearance(rgb: Tensor, draw: Draw, config: AppearanceConfig) -> Tensor:
    """Vary the look of RGB frames.

    Parameters
    ----------
    rgb
        Shape (B, 3, H, W), in [0, 1]; sides a multiple of 16.
    draw
        Random numbers for B samples.
    config
        Chances.

    Returns
    -------
    Tensor
        Shape (B, 3, H, W), in [0, 1].
    """

    def gain(members: Tensor, index: Tensor) -> Tensor:
        gains = draw.uniform(0.7, 1.3, 3)[index][:, :, None, None]
        return _gamma((members * gains).clamp(0, 1), 0.5, draw, index)

    def mix(members: Tensor, index: Tensor) -> Tensor:
        matrix = torch.softmax(2.5 * draw.normal(3, 3), dim=2)[index]
        return torch.einsum("bchw,bdc->bdhw", members, matrix)

    def night(members: Tensor, index: Tensor) -> Tensor:
        dark = members * _column(draw.uniform(0.15, 0.6)[index])
        return _noise(dark, 0.01, 0.05, draw, index)

    x = draw.sometimes(config.rgb_gain, rgb, gain)
    x = draw.sometimes(config.rgb_mix, x, mix)
    x = draw.sometimes(config.rgb_grey, x, lambda m, _: m.mean(1, keepdim=True).expand(-1, 3, -1, -1))
    blur = x.shape[-1] / 192
    x = draw.sometimes(config.rgb_blur, x, lambda m, i: _blur(m, draw.log_uniform(0.3, 1.2)[i] * blur))
    x = draw.sometimes(config.night, x, night)
    x = draw.sometimes(config.rgb_noise, x, lambda m, i: _noise(m, 0.004, 0.04, draw, i)).clamp(0, 1)
    return draw.sometimes(config.jpeg, x, lambda m, i: _jpeg(m, draw.uniform(40, 98)[i]))
