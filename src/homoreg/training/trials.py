"""Pairs with a known answer, and pairs without one, on which trust in a model is fitted.

Three kinds of pairs are drawn from images that were not trained on:

- *protocol*: frames of the seed protocol, with the centred square as the prior;
- *whole*: an infrared picture somewhere in a larger RGB picture, without a prior;
- *mismatched*: frames that do not belong together. They have no answer, so no result of theirs is right.

Half the pairs are shown as they are, as users' pictures are; a quarter vary in tone, blur and noise as those
of the validation do, and a quarter as in training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from homoreg.geometry import compose, homography_from_corners, image_corners, is_plausible, square_prior
from homoreg.synthesis.appearance import (
    AppearanceConfig,
    infrared_appearance,
    pseudo_infrared,
    rgb_appearance,
)
from homoreg.synthesis.protocol import GeometryConfig, draw_samples
from homoreg.synthesis.random import Draw, mix_seed
from homoreg.synthesis.sources import ImageBank
from homoreg.training.validation import HELD_OUT_APPEARANCE

__all__ = ["KINDS", "MISMATCHES", "Trial", "draw_trials"]

Pixels = NDArray[np.uint8]
Matrix = NDArray[np.float64]

KINDS = ("protocol", "whole", "mismatched")
MISMATCHES = ("partner", "upside-down", "noise")  # in the order in which they take turns, partners twice

_BATCH = 16  # trials that are drawn together, and look alike
_SIZE = 128
_RGB_SIZE, _IR_SIZE = (384, 288), (160, 128)  # of the pictures of whole pairs: width, height
_PLAIN = GeometryConfig(crop_min=0.6)
_HARD = GeometryConfig(wide=0.1, tilt=10.0, overhang=0.1)
_LOOKS: tuple[tuple[GeometryConfig, AppearanceConfig | None], ...] = (
    (_PLAIN, None),
    (_PLAIN, HELD_OUT_APPEARANCE),
    (_PLAIN, None),
    (_HARD, AppearanceConfig()),
)  # batches take turns


@dataclass(frozen=True, eq=False)
class Trial:
    """One pair, how to call it, and the answer.

    Parameters
    ----------
    ir, rgb
        Shape (H, W, 3), uint8.
    prior
        Shape (3, 3), or None to call without one.
    truth
        Shape (3, 3), infrared px to RGB px; None where the pictures do not belong together.
    kind
        One of :data:`KINDS`; of mismatched pairs, one of :data:`MISMATCHES`.
    source
        Name of the RGB picture's folder.
    plain
        Whether the pictures are shown as they are.
    """

    ir: Pixels
    rgb: Pixels
    prior: Matrix | None
    truth: Matrix | None
    kind: str
    source: str
    plain: bool

    def error(self, homography: Matrix) -> float:
        """Mean corner error in px at n = 128; ``inf`` where there is no right answer."""
        if self.truth is None:
            return float("inf")
        height, width = self.ir.shape[:2]
        corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)
        wanted, found = (_map(matrix, corners) for matrix in (self.truth, homography))
        side = np.linalg.norm(np.roll(wanted, -1, axis=0) - wanted, axis=1).mean()
        return float(np.linalg.norm(found - wanted, axis=1).mean() * (_SIZE - 1) / side)


def _map(homography: Matrix, points: Matrix) -> Matrix:
    lifted = np.column_stack([points, np.ones(len(points))]) @ homography.T
    return np.asarray(lifted[:, :2] / lifted[:, 2:])


def draw_trials(bank: ImageBank, kind: str, count: int, seed: int) -> Iterator[Trial]:
    """Draw trials of one kind; the same seed gives the same trials.

    Parameters
    ----------
    bank
        Pairs that were not trained on; its weights say how often each is drawn.
    kind
        One of :data:`KINDS`.
    count
        How many.
    seed
        Of the draws.

    Yields
    ------
    Trial
        ``count`` of them.
    """
    draw_batch = {"protocol": _protocol, "whole": _whole, "mismatched": _mismatched}[kind]
    for number, first in enumerate(range(0, count, _BATCH)):
        batch = min(_BATCH, count - first)
        yield from draw_batch(bank, batch, mix_seed(seed, KINDS.index(kind), number), number)


def _protocol(bank: ImageBank, batch: int, seed: int, number: int) -> list[Trial]:
    index = _draw_index(bank, batch, seed)
    geometry, appearance = _LOOKS[number % len(_LOOKS)]
    samples = draw_samples(
        bank, _SIZE, seed=seed, batch=batch, geometry=geometry, appearance=appearance, index=index
    )
    infrared, rgb = _eight_bit(samples.template), _eight_bit(samples.search)
    prior = square_prior(_SIZE).numpy()
    truth = samples.homography.double().numpy()
    plain = appearance is None
    return [
        Trial(infrared[k], rgb[k], prior, truth[k], "protocol", _source(bank, i), plain)
        for k, i in enumerate(index.tolist())
    ]


def _mismatched(bank: ImageBank, batch: int, seed: int, number: int) -> list[Trial]:
    matching = _protocol(bank, batch, seed, number)
    index = _draw_index(bank, batch, seed)
    generator = np.random.default_rng(seed)
    trials = []
    for k, trial in enumerate(matching):
        kind = MISMATCHES[(0, 1, 0, 2)[k % 4]]
        ir = trial.ir
        if kind == "partner":
            others = [j for j in range(batch) if not _related(bank, int(index[k]), int(index[j]))]
            ir = matching[others[k % len(others)]].ir if others else _noise(generator)
        elif kind == "upside-down":
            ir = np.ascontiguousarray(ir[::-1, ::-1])
        else:
            ir = _noise(generator)
        trials.append(dataclasses.replace(trial, ir=ir, truth=None, kind=kind))
    return trials


def _related(bank: ImageBank, one: int, other: int) -> bool:
    """Whether two pairs may show the same place: neighbouring files of a folder often do."""
    first, second = bank.pairs[one], bank.pairs[other]
    return first.source == second.source and abs(one - other) < 3


def _noise(generator: np.random.Generator) -> Pixels:
    """Smoothed noise of a random grain; what a lens cap or an interference looks like."""
    grain = int(generator.choice([1, 2, 4, 8]))
    cells = _SIZE // grain
    noise = generator.integers(0, 256, (cells, cells), np.uint8)
    return np.repeat(np.kron(noise, np.ones((grain, grain), np.uint8))[..., None], 3, axis=2)


def _whole(bank: ImageBank, batch: int, seed: int, number: int) -> list[Trial]:
    index = _draw_index(bank, batch, seed)
    draw = Draw(seed, batch, bank.device)
    to_image = _fit_frame(bank.sizes(index))
    truth = _place_infrared(draw)
    pulled, _ = bank.pull(index, to_image, (_RGB_SIZE[1], _RGB_SIZE[0]))
    seen, _ = bank.pull(index, compose(to_image, truth), (_IR_SIZE[1], _IR_SIZE[0]))
    made = pseudo_infrared(seen[:, :3], draw)
    template = torch.where(bank.has_infrared[index][:, None, None, None], seen[:, 3:], made)
    template, search = template.expand(-1, 3, -1, -1), pulled[:, :3]
    _, appearance = _LOOKS[number % len(_LOOKS)]
    plain = appearance is None
    if appearance is not None:
        template = infrared_appearance(template[:, :1], draw, appearance)
        search = rgb_appearance(search, draw, appearance)
    infrared, rgb = _eight_bit(template), _eight_bit(search)
    return [
        Trial(infrared[k], rgb[k], None, truth[k].double().numpy(), "whole", _source(bank, i), plain)
        for k, i in enumerate(index.tolist())
    ]


def _fit_frame(sizes: Tensor) -> Tensor:
    """From px of the RGB picture to px of each image, (B, 3, 3): the largest centred frame of its aspect."""
    frame = torch.tensor(_RGB_SIZE, dtype=sizes.dtype, device=sizes.device)
    scale = (sizes / frame).amin(dim=1)
    corner = (sizes - frame * scale[:, None]) / 2 + 0.5 * scale[:, None] - 0.5
    zero, one = torch.zeros_like(scale), torch.ones_like(scale)
    return torch.stack([scale, zero, corner[:, 0], zero, scale, corner[:, 1], zero, zero, one], dim=-1).view(
        -1, 3, 3
    )


def _place_infrared(draw: Draw) -> Tensor:
    """Infrared px to RGB px, (B, 3, 3): a part of the field, turned a little, with some perspective."""
    width, height = _IR_SIZE
    corners = image_corners(width, height, device=draw.device)
    unit = (corners - corners.mean(0)) / width
    angle = torch.deg2rad(draw.uniform(-6.0, 6.0))
    span = draw.uniform(0.45, 1.0) * _RGB_SIZE[0]
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(-1, 2, 2)
    quad = (unit + draw.uniform(-0.02, 0.02, 4, 2)) @ turn.mT * span[:, None, None]
    frame = torch.tensor(_RGB_SIZE, dtype=quad.dtype, device=quad.device)
    # Rigs are roughly centred: what is left of the field beside the infrared is used up by half.
    room = (frame - torch.stack([span, span * height / width], -1)).clamp_min(0) / 2
    centre = (frame - 1) / 2 + draw.uniform(-0.5, 0.5, 2) * room
    homography = homography_from_corners(corners, quad + centre[:, None])
    assert bool(is_plausible(homography, width).all())
    return homography


def _draw_index(bank: ImageBank, batch: int, seed: int) -> Tensor:
    generator = torch.Generator(device=bank.device).manual_seed(seed)
    return torch.multinomial(bank.weights, batch, replacement=True, generator=generator)


def _source(bank: ImageBank, index: int) -> str:
    return bank.pairs[index].source


def _eight_bit(images: Tensor) -> list[Pixels]:
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8)
    return list(pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy())
