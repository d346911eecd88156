"""DLKFM: deep Lucas-Kanade feature maps, one channel a level, with a landscape trained to be a bowl.

Zhao, Huang and Zhang, "Deep Lucas-Kanade Homography for Multimodal Image Alignment", CVPR 2021
(arXiv 2104.11693). Two networks that share nothing, one an image, give features on three levels, each level
computed from the one before. From every 3x3 patch of features, with ``X`` (C, 9) its nine vectors, each free
of its own mean, and the Gram matrix ``V = X^T X``, the map takes one value, which stands in for the share of
the largest eigenvalue:

    F(x) = (max_i sum_j V_ij + min_i sum_j V_ij) / (2 trace V).

Trained by the maps' brightness constancy at the true homography and by hinges that make the Lucas-Kanade
objective rise around it (:func:`homoreg.losses.brightness_constancy`,
:func:`~homoreg.losses.convexity_hinge`), optionally by those of PRISE
(:func:`~homoreg.losses.star_convexity_hinge`; Zhang et al., CVPR 2023). Run coarse
to fine with at most 30 Lucas-Kanade iterations a level, started from MHN.

Deviations from the paper:

- levels at strides 8, 4 and 2 instead of 4, 2 and 1, of images that are reduced to 64 px first (16, 8 and 4
  px of the template's at n = 128): starts that are 10 to 20 px away need the wider basin;
- fewer layers and channels (64, 48 and 24), instance norm instead of batch norm, residual blocks of two
  convolutions, and a convolution of 1x1 that gives the vectors their signs back before the map is made;
- the rows of the Gram matrix are summed without forming it: ``sum_j V_ij = x_i . sum_j x_j``;
- the maps are standardised: with so few steps of training, both constant are otherwise the nearest minimum;
- the solver adds a price on leaving the start (see :class:`homoreg.models.lucas_kanade.Level`), for the
  same reason: eight free parameters find a lower objective somewhere in most landscapes;
- the two networks begin with equal weights; the levels are trained together, not one after the other;
- half of the perturbations in training displace the corners, up to 24 px, instead of the matrix entries,
  whose noise is a fiftieth at least; the margins are 25 times the paper's, as the maps have unit deviation;
- no level's answer is farther from its start than ``reach``;
- patches at the border repeat the outermost vectors instead of zeros, and the outermost cells do not
  count in an alignment;
- the solver is damped, takes a step only where the objective falls, and stops without the truth; the released
  test script stops by the true corner error and keeps the better of start and result by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from homoreg.errors import ConfigError, InputError
from homoreg.models.base import HomographyEstimate, HomographyModel
from homoreg.models.layers import ResidualBlock, standardize
from homoreg.models.lucas_kanade import Level, coarse_to_fine, reduce_pair, sound_start

__all__ = ["DLKFM", "DLKFMConfig", "gram_ratio"]

STRIDES = (8, 4, 2)
Maps = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class DLKFMConfig:
    """Sizes of a DLKFM network, coarse to fine, and settings of its Lucas-Kanade solver."""

    widths: tuple[int, int, int] = (64, 48, 24)  # channels at strides 8, 4 and 2
    blocks: tuple[int, int, int] = (2, 1, 1)  # residual blocks at strides 8, 4 and 2
    vectors: int = 8  # channels of the vectors whose Gram matrix makes the map
    iterations: tuple[int, int, int] = (30, 30, 30)  # at most, a level
    quick_iterations: tuple[int, int, int] = (10, 0, 0)  # the same for a quick answer
    reach: tuple[float, float, float] = (40.0, 20.0, 10.0)  # px at n = 128: farthest from the start
    side: int = 64  # templates are reduced to about this many px first
    sigma: tuple[float, float, float] = (8.0, 4.0, 2.0)  # px at n = 128: expected displacement from the start
    prior: float = 0.2  # share of the start's objective that it costs
    damping: float = 0.1  # of the normal matrix's mean diagonal, at least
    star_convex: bool = False  # train with PRISE's hinges instead of DLKFM's
    starter: str = "mhn"  # registered name of the model that it starts from

    def __post_init__(self) -> None:
        if min(*self.widths, self.vectors, self.side) < 1:
            raise ConfigError(f"{self} has an empty layer; widths, vectors and side must be at least 1")
        if (
            min(*self.blocks, *self.iterations, *self.quick_iterations, *self.reach, self.prior, self.damping)
            < 0
        ):
            raise ConfigError(f"{self} has a negative setting; expected 0 or more")


def gram_ratio(features: Tensor) -> Tensor:
    """Map of how alike the nine feature vectors around each cell are.

    Parameters
    ----------
    features
        Shape (B, C, H, W).

    Returns
    -------
    Tensor
        Shape (B, 1, H, W), float32 or better: 1 where the nine vectors, free of their means, are equal;
        about 1/9 where they have nothing to do with each other; 0 where all are constant over the channels.
    """
    kind = torch.promote_types(features.dtype, torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        vectors = features.to(kind)
        vectors = vectors - vectors.mean(dim=1, keepdim=True)
        height, width = vectors.shape[-2:]
        padded = F.pad(vectors, [1, 1, 1, 1], mode="replicate")
        around = [padded[..., y : y + height, x : x + width] for y in range(3) for x in range(3)]
        total = 9 * F.avg_pool2d(padded, 3, stride=1)
        rows = torch.stack([(vector * total).sum(1) for vector in around], dim=1)
        squares = F.pad(vectors.square().sum(1, keepdim=True), [1, 1, 1, 1], mode="replicate")
        trace = 9 * F.avg_pool2d(squares, 3, stride=1)
        extremes = rows.amax(1, keepdim=True) + rows.amin(1, keepdim=True)
        return extremes / (2 * trace + 1e-6)


class Pyramid(nn.Module):
    """One image's network: features at strides 2, 4 and 8, each from the one before, and their maps."""

    def __init__(self, config: DLKFMConfig) -> None:
        super().__init__()
        self.down, self.heads = nn.ModuleList(), nn.ModuleList()
        inputs = 3
        for width, blocks in zip(reversed(config.widths), reversed(config.blocks), strict=True):
            first = nn.Conv2d(inputs, width, 4, 2, 1, bias=False)  # even: the cells' centres stay in place
            self.down.append(
                nn.Sequential(
                    first,
                    nn.GroupNorm(width, width),
                    nn.ReLU(inplace=True),
                    *(ResidualBlock(width) for _ in range(blocks)),
                )
            )
            self.heads.append(nn.Conv2d(width, config.vectors, 1))
            inputs = width

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map (B, 3, n, n) to maps (B, 1, n/s, n/s), s = 8, 4, 2."""
        features, maps = image, []
        for down, head in zip(self.down, self.heads, strict=True):
            features = down(features)
            maps.append(standardize(gram_ratio(head(features)), floor=1e-3))
        return maps[::-1]


class DLKFM(HomographyModel):
    """Deep Lucas-Kanade feature maps.

    Parameters
    ----------
    config
        Sizes; the default has about 0.5 million parameters.
    """

    architecture = "dlkfm"
    rates_itself = False

    def __init__(self, config: DLKFMConfig | None = None) -> None:
        super().__init__()
        self._config = config or DLKFMConfig()
        self.infrared, self.rgb = Pyramid(self._config), Pyramid(self._config)
        # Nothing is shared, but both begin alike: then the maps of like images are alike from the first step.
        self.rgb.load_state_dict(self.infrared.state_dict())

    @property
    def config(self) -> DLKFMConfig:
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
        iterations: Sequence[int] | None = None,
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
        iterations
            At most so many at strides 8, 4 and 2; the config's by default.

        Returns
        -------
        HomographyEstimate
            ``details`` as of :func:`homoreg.models.lucas_kanade.coarse_to_fine`, and ``maps``: for each of
            the three levels the template's and the search image's, with gradient.

        Raises
        ------
        InputError
            If the shapes or the type do not fit, or ``iterations`` are not three counts with one above 0.
        """
        n = self.check_input(template, search)
        c = self._config
        if iterations is None:
            iterations = c.quick_iterations if quick else c.iterations
        if len(iterations) != 3 or min(iterations) < 0 or not any(iterations):
            raise InputError(f"iterations are {iterations}; expected three counts, one of them above 0")
        self.check_initial(initial, len(template))
        infrared, rgb, factor = reduce_pair(template, search, c.side)
        maps: Maps = list(zip(self.infrared(infrared), self.rgb(rgb), strict=True))
        like = torch.zeros((), dtype=maps[0][0].dtype, device=template.device)
        pyramid = [
            Level(
                *maps[k],
                STRIDES[k] * factor,
                reach=c.reach[k] * n / 128,
                iterations=iterations[k],
                damping=c.damping,
                sigma=c.sigma[k] * n / 128,
                prior=c.prior,
                border=1,
            )
            for k in range(3)
            if iterations[k]
        ]
        estimate = coarse_to_fine(pyramid, sound_start(initial, len(template), n, like))
        estimate.details["maps"] = maps
        return estimate
