"""The seed protocol: where the frames of a sample lie, and the sample itself.

A search frame of ``3n/2`` px is cut from the RGB image; the corners of the ``n`` px template are placed at
the centred square of the search frame plus a displacement, in the seed protocol uniform within ``n/4`` px
a coordinate (32 px at n = 128); the infrared image is pulled through that homography.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from homoreg.errors import ConfigError
from homoreg.geometry import (
    compose,
    fill_outside,
    homography_from_corners,
    image_corners,
    is_plausible,
    resize_matrix,
)
from homoreg.synthesis.appearance import (
    AppearanceConfig,
    infrared_appearance,
    pseudo_infrared,
    rgb_appearance,
)
from homoreg.synthesis.random import Draw
from homoreg.synthesis.sources import ImageBank

__all__ = ["GeometryConfig", "SampleBatch", "draw_geometry", "draw_samples", "enlarge"]


@dataclass(frozen=True)
class GeometryConfig:
    """How samples are laid out; lengths are shares of the template's side n."""

    perturbation: float = 0.25  # largest corner displacement: 32 px at n = 128
    integer: bool = False  # whole-pixel corners, as in the seed's files
    near: float = 0.0  # share of samples near the prior, as a second pass sees them
    near_perturbation: float = 0.06  # their largest displacement
    wide: float = 0.0  # share of samples with a large rotation and scale
    wide_rotation: float = 30.0  # degrees
    wide_scale: float = 1.4  # largest factor, either way
    crop_min: float = 0.42  # side of the search frame as a share of the image's shorter side
    crop_max: float = 1.0
    tilt: float = 0.0  # largest rotation of the search frame in the image, degrees
    turn: bool = False  # quarter turns and mirroring of both images together
    overhang: float = 0.0  # share of search frames that reach beyond the image
    pseudo: float = 0.0  # share of infrared images replaced by one made from the RGB

    def __post_init__(self) -> None:
        for name in ("near", "wide", "overhang", "pseudo"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a share between 0 and 1")
        if not 0 < self.crop_min <= self.crop_max:
            raise ConfigError(
                f"crop_min is {self.crop_min} and crop_max is {self.crop_max}; expected 0 < crop_min <= "
                "crop_max"
            )


@dataclass(frozen=True, eq=False)
class SampleBatch:
    """Labelled samples, images in [0, 1].

    ``template`` (B, 3, n, n) is infrared, ``search`` (B, 3, 3n/2, 3n/2) is RGB, and ``homography``
    (B, 3, 3) maps template px to search px.
    """

    template: Tensor
    search: Tensor
    homography: Tensor


def draw_geometry(draw: Draw, sizes: Tensor, n: int, config: GeometryConfig) -> tuple[Tensor, Tensor]:
    """Place the frames of a batch.

    Parameters
    ----------
    draw
        Random numbers for B samples.
    sizes
        Shape (B, 2): width and height in px of each source image.
    n
        Side of the template in px.
    config
        Layout.

    Returns
    -------
    to_image : Tensor
        Shape (B, 3, 3): px of the search frame to px of the source image.
    homography : Tensor
        Shape (B, 3, 3): template px to search px, the label.
    """
    return _place_search(draw, sizes, n, config), _place_template(draw, n, config)


def _place_search(draw: Draw, sizes: Tensor, n: int, config: GeometryConfig) -> Tensor:
    side = 3 * n // 2
    short = sizes.amin(dim=1)
    crop = draw.uniform(config.crop_min, config.crop_max) * short
    over = draw.chance(config.overhang)
    crop = torch.where(over, crop * draw.uniform(1.05, 1.4), crop)
    # A frame wider than the image hangs over both its sides by a random split.
    corner = draw.uniform(0.0, 1.0, 2) * (sizes - crop.unsqueeze(1))
    nudge = draw.uniform(-0.25, 0.25, 2) * crop.unsqueeze(1)
    corner = torch.where(over.unsqueeze(1), corner + nudge, corner)
    angle = torch.deg2rad(draw.uniform(-config.tilt, config.tilt))
    flip = torch.ones_like(angle)
    if config.turn:
        angle = angle + draw.integers(4) * (torch.pi / 2)
        flip = torch.where(draw.chance(0.5), -flip, flip)
    centre = corner + (crop.unsqueeze(1) - 1) / 2
    scale = crop / side
    cos, sin = angle.cos() * scale, angle.sin() * scale
    middle = (side - 1) / 2
    a, b, c, d = cos * flip, -sin, sin * flip, cos
    x = centre[:, 0] - (a + b) * middle
    y = centre[:, 1] - (c + d) * middle
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack([a, b, x, c, d, y, zero, zero, one], dim=-1).view(-1, 3, 3)


def _place_template(draw: Draw, n: int, config: GeometryConfig) -> Tensor:
    square = image_corners(n, n, device=draw.device)
    offset = draw.uniform(-1.0, 1.0, 4, 2)
    kind = draw.uniform(0.0, 1.0)
    reach = torch.full_like(kind, config.perturbation * n)
    reach = torch.where(kind < config.near, config.near_perturbation * n, reach)
    displaced = square + n / 4 + offset * reach[:, None, None]
    if config.integer:
        span = int(config.perturbation * n)
        displaced = square + n // 4 + (draw.integers(2 * span + 1, 4, 2) - span)
    wide = _wide_corners(draw, square, offset, n, config)
    use_wide = (kind >= config.near) & (kind < config.near + config.wide)
    corners = torch.where(use_wide[:, None, None], wide, displaced)
    homography = homography_from_corners(square, corners)
    sound = is_plausible(homography, n)
    fallback = homography_from_corners(square, square + n / 4 + offset * (0.1 * n))
    return torch.where(sound[:, None, None], homography, fallback)


def _wide_corners(draw: Draw, square: Tensor, offset: Tensor, n: int, config: GeometryConfig) -> Tensor:
    angle = torch.deg2rad(draw.uniform(-config.wide_rotation, config.wide_rotation))
    scale = draw.log_uniform(1 / config.wide_scale, config.wide_scale)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rotation = torch.stack([cos, -sin, sin, cos], dim=-1).view(-1, 2, 2)
    centre = (n - 1) / 2
    turned = (square - centre) @ rotation.transpose(1, 2)
    shift = draw.uniform(-0.2, 0.2, 1, 2) * n
    return turned + centre + n / 4 + shift + offset * (0.05 * n)


def draw_samples(
    bank: ImageBank,
    n: int,
    *,
    seed: int,
    batch: int,
    geometry: GeometryConfig,
    appearance: AppearanceConfig | None = None,
    index: Tensor | None = None,
    easy: float = 0.0,
) -> SampleBatch:
    """Draw a batch of labelled samples afresh, on the bank's device.

    Parameters
    ----------
    bank
        Source pairs.
    n
        Side of the template in px, a multiple of 32; the search frame has 3n/2.
    seed
        The same seed gives the same batch.
    batch
        Number of samples.
    geometry, appearance
        What varies; without ``appearance`` the images are taken as they are.
    index
        Shape (B,): which pairs to use; drawn by the bank's weights by default.
    easy
        Share of samples that show the RGB image's own grey values as infrared and no change of appearance.
        A network that starts with them learns to match before it learns to match across modalities. Without
        ``appearance`` there are none.

    Returns
    -------
    SampleBatch
        On the bank's device.
    """
    draw = Draw(seed, batch, bank.device)
    if index is None:
        index = torch.multinomial(bank.weights, batch, replacement=True, generator=draw.generator)
    to_image, homography = draw_geometry(draw, bank.sizes(index), n, geometry)
    side = 3 * n // 2
    pulled, search_inside = bank.pull(index, to_image, (side, side))
    search = pulled[:, :3]
    pulled, inside = bank.pull(index, compose(to_image, homography), (n, n))
    synthetic = ~bank.has_infrared[index] | draw.chance(geometry.pseudo)
    template = pulled[:, 3:]
    if bool(synthetic.any()):
        made = pseudo_infrared(pulled[:, :3], draw)
        template = torch.where(synthetic[:, None, None, None], made, template)
    if appearance is not None:
        plain = pulled[:, :3].mean(1, keepdim=True).expand(-1, 3, -1, -1), search
        template = infrared_appearance(template, draw, appearance)
        search = rgb_appearance(search, draw, appearance)
        spared = draw.chance(easy)[:, None, None, None]
        template, search = torch.where(spared, plain[0], template), torch.where(spared, plain[1], search)
    else:
        template = template.expand(-1, 3, -1, -1)
    return SampleBatch(fill_outside(template, inside), fill_outside(search, search_inside), homography)


def enlarge(batch: SampleBatch, factor: int = 2) -> SampleBatch:
    """The same samples in larger frames: what a finer look sees of pictures that have no more pixels."""
    template, search = (
        F.interpolate(image, scale_factor=factor, mode="bilinear", align_corners=False)
        for image in (batch.template, batch.search)
    )
    there, back = (
        resize_matrix(scale, scale, dtype=torch.float32).to(batch.homography.device, non_blocking=True)
        for scale in (factor, 1 / factor)
    )
    return SampleBatch(template, search, compose(there, batch.homography, back))
