"""CLKN: a cascade of Lucas-Kanade layers on learnt features, coarse to fine.

Chang, Chou and Chang, "CLKN: Cascaded Lucas-Kanade Networks for Image Alignment", CVPR 2017. On each of the
levels with strides 8, 4, 2 and 1 one network ``f_s`` turns both images into maps of four channels (six
convolutions of 3x3 and one of 1x1), and an inverse compositional Lucas-Kanade layer aligns them:

    H_s = argmin_H sum_x |f_s(search)(H x) - f_s(template)(x)|**2,  started from the level before.

The layer is differentiable, and the levels are trained one after the other, coarse to fine, each to lower
the corner error of its start (:func:`homoreg.losses.decrease_hinge`). The solver is
:mod:`homoreg.models.lucas_kanade`.

Deviations from the paper:

- the first convolutions of a level, those that halve the map, have kernels of 4x4 instead of 3x3: the cells'
  centres then lie where the homography's frame takes them to be;
- instance norm instead of batch norm, and standardised outputs: a batch is what its members are;
- 64 channels at stride 8 only, 48, 24 and 12 at strides 4, 2 and 1, and fewer where a level's maps are still
  larger, so that each level costs about the same on a CPU; the images are standardised first;
- the pyramid lies an octave coarser at n = 128, for starts that are 10 to 20 px away: the images are reduced
  to 64 px first, whose strides of 8, 4, 2 and 1 are 16, 8, 4 and 2 px of the template's;
- the Lucas-Kanade layer is damped, and outside training it takes a step only where the objective falls;
  an answer that lowers the objective on the average of the levels replaces the start, any other does not;
- leaving the start has a price (see :class:`homoreg.models.lucas_kanade.Level`): eight free parameters find a
  lower objective somewhere in most landscapes; the outermost cells, which saw the padding, do not count;
- in training a pair is aligned from several displaced starts, every one of the unrolled steps pays the hinge,
  and the hinge is relative to the start's error, and at most 4; the levels' shares of a run are in the
  objective;
- no level's answer is farther from its start than ``reach``;
- started from the answer of another model (``starter``), as DLKFM is; the paper starts from the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from homoreg.errors import ConfigError, InputError
from homoreg.models.base import HomographyEstimate, HomographyModel
from homoreg.models.layers import standardize
from homoreg.models.lucas_kanade import Level, coarse_to_fine, reduce_pair, sound_start

__all__ = ["CLKN", "CLKNConfig"]

STRIDES = (8, 4, 2, 1)
CONVOLUTIONS = 6


@dataclass(frozen=True)
class CLKNConfig:
    """Sizes of a CLKN network, coarse to fine, and settings of its Lucas-Kanade layers."""

    widths: tuple[int, int, int, int] = (64, 48, 24, 12)  # channels within the levels
    channels: int = 4  # of the maps that are aligned
    iterations: tuple[int, int, int, int] = (20, 15, 10, 8)  # at most, a level
    quick_iterations: tuple[int, int, int, int] = (10, 5, 0, 0)  # the same for a quick answer
    reach: tuple[float, float, float, float] = (
        40.0,
        20.0,
        10.0,
        5.0,
    )  # px at n = 128: farthest from the start
    side: int = 64  # templates are reduced to about this many px first
    sigma: tuple[float, float, float, float] = (
        8.0,
        4.0,
        2.0,
        1.0,
    )  # px at n = 128: expected displacement ...
    prior: float = 0.2  # ... from the start, and the share of the start's objective that it costs
    damping: float = 0.3  # of the normal matrix's mean diagonal
    starter: str = "mhn"  # registered name of the model that it starts from

    def __post_init__(self) -> None:
        if min(*self.widths, self.channels, self.side) < 1:
            raise ConfigError(f"{self} has an empty layer; widths, channels and side must be at least 1")
        if min(*self.iterations, *self.quick_iterations, *self.reach, self.prior, self.damping) < 0:
            raise ConfigError(f"{self} has a negative setting; expected 0 or more")


class Features(nn.Sequential):
    """Six convolutions, the first of which halve the map, and one of 1x1."""

    def __init__(self, width: int, channels: int, stride: int) -> None:
        layers: list[nn.Module] = []
        inputs, left = 3, stride
        for _ in range(CONVOLUTIONS):
            kernel, step = (4, 2) if left > 1 else (3, 1)
            left = max(1, left // 2)
            outputs = max(1, width // left)
            layers.append(nn.Conv2d(inputs, outputs, kernel, step, 1, bias=False))
            layers += [nn.GroupNorm(outputs, outputs), nn.ReLU(inplace=True)]
            inputs = outputs
        super().__init__(*layers, nn.Conv2d(width, channels, 1, bias=False))

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 3, n, n) to standardised maps (B, channels, n/stride, n/stride)."""
        maps: Tensor = image
        for layer in self:
            maps = layer(maps)
        return standardize(maps)


class CLKN(HomographyModel):
    """Cascaded Lucas-Kanade networks.

    Parameters
    ----------
    config
        Sizes; the default has about 0.3 million parameters.
    """

    architecture = "clkn"
    rates_itself = False

    def __init__(self, config: CLKNConfig | None = None) -> None:
        super().__init__()
        self._config = config or CLKNConfig()
        c = self._config
        self.levels = nn.ModuleList(
            Features(width, c.channels, stride) for width, stride in zip(c.widths, STRIDES, strict=True)
        )

    @property
    def config(self) -> CLKNConfig:
        """The frozen dataclass this model was built from."""
        return self._config

    def forward(
        self,
        template: Tensor,
        search: Tensor,
        *,
        initial: Tensor | None = None,
        quick: bool = False,
        valid: Tensor | None = None,
        levels: Sequence[int] | None = None,
        unrolled: int | None = None,
        copies: int = 1,
    ) -> HomographyEstimate:
        """Estimate the homography from template pixels to search pixels.

        Parameters
        ----------
        template
            Shape (B, 3, n, n), in [0, 1], infrared.
        search
            Shape (B, 3, 3n/2, 3n/2), in [0, 1], RGB.
        initial
            Shape (B, 3, 3): where to start; the centred square by default, and for a folded one.
        quick
            Take the config's ``quick_iterations``.
        valid
            Ignored: its objective takes the search image as it is.
        levels
            Indices of the levels to run, coarse to fine; by default all that have iterations.
        unrolled
            Training only: take this many steps a level, each of them whether or not the objective falls.
        copies
            Training only: starts a pair; ``initial`` then has shape (copies * B, 3, 3), those of a pair
            ``B`` apart, and so has everything that is returned.

        Returns
        -------
        HomographyEstimate
            ``details`` as of :func:`homoreg.models.lucas_kanade.coarse_to_fine`.

        Raises
        ------
        InputError
            If the shapes or the type do not fit, or ``levels`` names no level.
        """
        n = self.check_input(template, search)
        c = self._config
        iterations = c.quick_iterations if quick else c.iterations
        if unrolled is not None:
            iterations = (unrolled,) * 4
        chosen = [k for k in range(4) if iterations[k]] if levels is None else list(levels)
        if not chosen or not set(chosen) <= set(range(4)):
            raise InputError(f"levels are {levels}; expected some of 0, 1, 2 and 3, with iterations")
        batch = copies * len(template)
        self.check_initial(initial, batch)
        infrared, rgb, factor = reduce_pair(template, search, c.side)
        pyramid = [
            Level(
                cast("Features", self.levels[k])(infrared).repeat(copies, 1, 1, 1),
                cast("Features", self.levels[k])(rgb).repeat(copies, 1, 1, 1),
                STRIDES[k] * factor,
                reach=c.reach[k] * n / 128,
                iterations=iterations[k],
                damping=c.damping,
                sigma=c.sigma[k] * n / 128,
                prior=c.prior,
                monotone=unrolled is None,
                border=1,
            )
            for k in chosen
        ]
        kind = torch.promote_types(pyramid[0].template.dtype, torch.float32)
        like = torch.zeros((), dtype=kind, device=template.device)
        return coarse_to_fine(pyramid, sound_start(initial, batch, n, like), judge=unrolled is None)
