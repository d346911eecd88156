"""MHN: a cascade of networks on an image pyramid, each correcting the homography so far.

Le, Liu, Zhang and Agarwala, Deep Homography Estimation for Dynamic Scenes, CVPR 2020, arXiv 2004.02132 (the
network without dynamics masks). ``H_0`` is the centred square, or the caller's ``initial``. For the stages
k = 1, 2, 3, at a quarter, half and the full size:

    d_k = f_k(A', B o (H_{k-1} E^-1)) in R^(4x2),    H_k = H_{k-1} H4(c, c + d_k)

``B o G`` is the RGB image pulled through ``G``, here onto the template's frame widened by n/4 px on every
side (``E`` shifts the template into it); ``A'`` is the infrared template in the middle of it, zero around;
``c`` are the template's corners and ``H4`` the homography of four point pairs. ``f_k`` is blocks of two 3x3
convolutions with batch norm and ReLU, parted by 2x2 max pooling: of 32, 64, 64, 128 channels at a quarter of
the size, with another block of 128 at half and another of 256 at the full size. Fully connected layers of
1024 and 8 units follow; every stage ends at 6 x 6 cells. No gradient passes between stages.

Deviations from the paper:

- Fully connected layers in place of global average pooling, and inputs of 192 px, as in the comparison of
  DLKFM (Zhao et al., arXiv 2104.11693), whose full-size network of twelve convolutions is the last stage.
- The RGB image is the one that is warped, and onto the whole widened frame, so that what lies outside the
  current square stays visible.
- The two images are of two cameras. In place of grey values the network sees the root of the magnitude of
  their gradients (taken at 96 px for the first two stages), at zero mean and unit deviation.
- A stage may look more than once, at its own answer: ``repeats``, by default 2, 2, 1.
- The loss of a stage is on the residual it has to predict, ``|d_k - (H_{k-1}^-1 H c - c)|``, not on the sum,
  and is at most n px for a pair: a start far astray would drown the others.
  Stages are trained one after another, as the authors' code offers, each beginning with the weights of the
  one before as far as the layers agree.
- The last layer is in units of n/4 px and starts at zero. No dropout: samples are drawn afresh, so none is
  seen twice. AdamW, one cycle of the learning rate a stage.
- An implausible ``H_k`` is replaced by ``H_{k-1}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from homoreg.errors import ConfigError, InputError
from homoreg.geometry import (
    compose,
    fit_matrix,
    homography_from_corners,
    image_corners,
    invert_homography,
    is_plausible,
    pull,
    square_prior,
)
from homoreg.models.base import HomographyEstimate, HomographyModel
from homoreg.models.layers import OffsetRegressor, check_regressor, edge_map

__all__ = ["MHN", "MHNConfig"]

STAGES = 3


@dataclass(frozen=True)
class MHNConfig:
    """Sizes of an MHN; the defaults have 21 million parameters."""

    side: int = 192  # px of the search image at the last stage; half and a quarter of it before
    widths: tuple[int, int, int, int, int, int] = (32, 64, 64, 128, 128, 256)  # channels of the blocks
    hidden: int = 1024  # units of the fully connected layers
    dropout: float = 0.0
    repeats: tuple[int, int, int] = (2, 2, 1)  # how often each stage looks

    def __post_init__(self) -> None:
        if min(self.repeats) < 1:
            raise ConfigError(f"mhn config repeats is {self.repeats}; expected at least 1 look a stage")
        check_regressor("mhn", self, multiple=96)


class MHN(HomographyModel):
    """Multi-scale homography network of Le et al.

    Parameters
    ----------
    config
        Sizes; the default has 21 million parameters.
    """

    architecture = "mhn"
    rates_itself = False

    def __init__(self, config: MHNConfig | None = None) -> None:
        super().__init__()
        self._config = config or MHNConfig()
        c = self._config
        self.stages = nn.ModuleList(
            OffsetRegressor(
                2,
                c.side >> (STAGES - 1 - stage),
                c.widths[: len(c.widths) - (STAGES - 1 - stage)],
                hidden=c.hidden,
                dropout=c.dropout,
            )
            for stage in range(STAGES)
        )

    @property
    def config(self) -> MHNConfig:
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
        looks: Sequence[int] | None = None,
        train_last: bool = False,
    ) -> HomographyEstimate:
        """Estimate the homography from template pixels to search pixels.

        Parameters
        ----------
        template
            Shape (B, 3, n, n), in [0, 1], infrared.
        search
            Shape (B, 3, 3n/2, 3n/2), in [0, 1], RGB.
        initial
            Shape (B, 3, 3): where the first stage starts; the centred square by default, and in place of
            what is implausible.
        quick
            Leave out the last stage, which takes most of the time.
        valid
            Ignored: its networks take whole images.
        looks
            Which stage looks when, such as ``(0, 0, 1, 1, 2)``; by default each as often as the config's
            ``repeats`` says.
        train_last
            Training only: all looks but the last are made without gradient and as in evaluation.

        Returns
        -------
        HomographyEstimate
            Covariance and log precision are constants. ``stages`` and two lists in ``details`` have one entry
            a look: ``starts`` (B, 3, 3), the homography it began with, and ``offsets`` (B, 4, 2), its
            answer: displacements of the template's corners in template px.

        Raises
        ------
        InputError
            If the shapes or the type do not fit, or ``looks`` names no stage.
        """
        n = self.check_input(template, search)
        prior = square_prior(
            n, dtype=torch.promote_types(template.dtype, torch.float32), device=template.device
        )
        self.check_initial(initial, len(template))
        if looks is None:
            stages = range(STAGES - quick)
            looks = [stage for stage in stages for _ in range(self._config.repeats[stage])]
        if not looks or not set(looks) <= set(range(STAGES)):
            raise InputError(f"looks are {list(looks)}; expected at least one, each of 0 to {STAGES - 1}")
        start = (prior if initial is None else initial.detach().to(prior)).expand(len(template), 3, 3)
        start = torch.where(is_plausible(start, n)[:, None, None], start, prior)
        found, starts, offsets = [], [], []
        sound = torch.ones(len(template), dtype=torch.bool, device=template.device)
        for position, index in enumerate(looks):
            offset = self._look(index, template, search, start, train_last and position < len(looks) - 1)
            corners = image_corners(n, n, dtype=offset.dtype, device=offset.device)
            following = compose(start, homography_from_corners(corners, corners + offset))
            starts.append(start)
            offsets.append(offset)
            sound = is_plausible(following.detach(), n)
            found.append(following)
            start = torch.where(sound[:, None, None], following.detach(), start)
        return HomographyEstimate(
            homography=torch.where(sound[:, None, None], found[-1], start),
            stages=found,
            diverged=~sound,
            details={"starts": starts, "offsets": offsets},
            **self.constant_rating(start, n),
        )

    @torch.no_grad()
    def inherit(self, stage: int) -> None:
        """Let a stage that was never trained begin as the one before, where their layers have one shape."""
        heir, giver = self.stages[stage], self.stages[stage - 1]
        assert isinstance(heir, OffsetRegressor)
        if stage == 0 or heir.out.weight.any():
            return
        given = giver.state_dict()
        own = heir.state_dict()
        heir.load_state_dict(
            {
                name: given[name] if name in given and given[name].shape == value.shape else value
                for name, value in own.items()
                if not name.startswith("out.")
            },
            strict=False,
        )

    def _look(self, index: int, template: Tensor, search: Tensor, start: Tensor, frozen: bool) -> Tensor:
        """Offsets (B, 4, 2) in template px that a stage answers from a start (B, 3, 3)."""
        stage = self.stages[index]
        assert isinstance(stage, OffsetRegressor)
        pair = self._pair(template, search, start, self._config.side >> (STAGES - 1 - index))
        if not frozen:
            offsets: Tensor = stage(pair)
        else:
            training = stage.training
            with torch.no_grad():
                offsets = stage.eval()(pair)
            stage.train(training)
        return offsets * (template.shape[-1] / 4)

    def _pair(self, template: Tensor, search: Tensor, start: Tensor, side: int) -> Tensor:
        """The two images in the widened frame of the template, (B, 2, side, side)."""
        n, wide = template.shape[-1], search.shape[-1]
        middle = max(side, self._config.side // 2)
        enlarge = fit_matrix((side, side), (wide, wide), dtype=start.dtype).to(start.device)
        widen = square_prior(n, dtype=start.dtype, device=start.device)
        through = compose(invert_homography(enlarge), start, invert_homography(widen), enlarge)
        pulled, _ = pull(edge_map(search, middle, side), through, (side, side))
        shown = edge_map(template, middle * 2 // 3, side * 2 // 3)
        return torch.cat([F.pad(shown, [side // 6] * 4), pulled], dim=1)
