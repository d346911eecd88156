"""The m family: correlation, coarse to fine, with a precision-weighted solver in the loop.

The design draws on published work: global matching by dual softmax (LoFTR, Sun et al., CVPR 2021),
local correlation around the homography so far (IHN, Cao et al., CVPR 2022; RHWF, Cao et al., CVPR 2023),
and a least squares solve with learnt weights in place of a fully connected head (as in the weighted
direct linear transform of Koguciuk et al., arXiv 2108.07189). With ``p`` the cells of the template:

1. ``S = <a(p), b(q)> * tau`` over all cells at 1/8; ``P = softmax_q(S)``; the expectation of ``q`` around the
   peak of each row and the dual-softmax confidence give ``H0`` by robust weighted least squares.
2. For each level (1/8, 1/4, 1/2) and step: the search features are pulled through ``H``; every template
   cell is correlated with its neighbourhood; convolutions, and attention between patches of the frame,
   predict a residual flow ``d(p)`` and the scale ``b(p)`` of a Laplace density.
   ``dH = argmin sum_p b(p)**-2 |dH p - (p + d(p))|**2`` and ``H <- H dH``.
3. The normal matrix of the last solve is an information matrix; its inverse, pushed to the corners, is
   the (uncalibrated) covariance of the estimate.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from homoreg.errors import ConfigError, InputError
from homoreg.geometry import (
    cell_centres,
    compose,
    corner_covariance,
    image_corners,
    is_plausible,
    map_jacobian,
    pull,
    solve_homography,
    square_prior,
    transform_points,
)
from homoreg.models.base import HomographyEstimate, HomographyModel
from homoreg.models.layers import (
    CrossAttention,
    ResidualBlock,
    conv_norm_relu,
    local_correlation,
    sine_encoding,
    standardize,
    unit_length,
)

__all__ = ["FlowStep", "Guide", "M", "MConfig"]

STRIDES = (8, 4, 2)
CONTRAST_WINDOW = 17  # px: side of the neighbourhood that sets the local contrast; 1 and a power of two
CONTRAST_FLOOR = 0.01  # deviation, in images of [0, 1], under which contrast counts as noise
CONTEXT_GRID = 8  # patches a side between which the refiners' attention goes
CONTEXT_HEADS = 4
LARGEST = 256  # side in px of the largest frames of the training
FINE = 192  # side in px from which a frame shows a given start in more detail than the training did
_ADDABLE = re.compile(r"((self|cross)_attention\.\d+|refiners\.\d+\.context)\.")
Guide = Callable[[Tensor, int], Tensor]
"""Training only: maps the homography at the entry of a level of given stride to the one to start from."""


@dataclass(frozen=True)
class MConfig:
    """Sizes of an m network."""

    width2: int = 24  # channels at 1/2
    width4: int = 48  # channels at 1/4
    width8: int = 96  # channels at 1/8
    layers: int = 2  # pairs of self- and cross-attention at 1/8
    heads: int = 4  # attention heads
    hidden: tuple[int, int, int] = (96, 64, 32)  # channels of the refiners at 1/8, 1/4, 1/2
    radius: tuple[int, int, int] = (4, 4, 2)  # correlation radius in cells at 1/8, 1/4, 1/2
    steps: tuple[int, int, int] = (2, 4, 3)  # refinement steps at 1/8, 1/4, 1/2 unless the caller says
    quick_steps: tuple[int, int, int] = (1, 1, 0)  # the same for a quick answer
    fine_steps: tuple[int, int, int] = (1, 3, 2)  # the same from a given start in frames of n >= 192
    large_steps: tuple[int, int, int] = (1, 8, 2)  # the same in frames of n > 256
    context: tuple[int, int, int] = (0, 0, 0)  # layers of attention over the frame in the refiners
    overreach: float = 1.0  # factor of the flows in the solves in frames of n >= 192, where they fall short

    def __post_init__(self) -> None:
        if min(self.width2, self.width4, self.width8, self.heads, *self.hidden) < 1:
            raise ConfigError(f"{self} has an empty layer; widths, heads and hidden must be at least 1")
        steps = (*self.steps, *self.quick_steps, *self.fine_steps, *self.large_steps)
        counts = (*self.radius, *steps, *self.context)
        if min(self.layers, *counts) < 0:
            raise ConfigError(
                f"{self} has a negative count; layers, radius, steps and context must be at least 0"
            )
        for hidden, layers in zip(self.hidden, self.context, strict=True):
            if layers and hidden % CONTEXT_HEADS:
                raise ConfigError(
                    f"m config hidden is {self.hidden} with context {self.context}; expected a multiple of "
                    f"{CONTEXT_HEADS} channels where there is context"
                )
        if not 0 < self.overreach < 2:
            raise ConfigError(f"m config overreach is {self.overreach}; expected more than 0 and less than 2")
        if self.width8 % 4 or self.width8 % self.heads:
            raise ConfigError(
                f"m config width8 is {self.width8} with {self.heads} heads; expected a multiple of 4 and of "
                "the heads"
            )


@dataclass(frozen=True, eq=False)
class FlowStep:
    """One refinement step, kept for the losses.

    ``start`` (B, 3, 3) is the homography the step began with, ``points`` (N, 2) the template's cell
    centres in px, ``flow`` (B, N, 2) the predicted residual in template px, ``log_scale`` (B, N, 2) the log
    of its Laplace scale, ``visible`` (B, N) whether the cell's place is in the search frame, ``counted`` (B,
    N) whether there also is something of the picture there, ``reach`` the window's radius in px.
    """

    start: Tensor
    points: Tensor
    flow: Tensor
    log_scale: Tensor
    visible: Tensor
    counted: Tensor
    reach: float


class Encoder(nn.Module):
    """Two stems (infrared, RGB) and one shared trunk; feature maps at 1/2, 1/4 and 1/8."""

    def __init__(self, config: MConfig) -> None:
        super().__init__()
        w2, w4, w8 = config.width2, config.width4, config.width8
        self.stems = nn.ModuleDict(
            {
                side: nn.Sequential(conv_norm_relu(4, w2, stride=2, kernel=5), ResidualBlock(w2))
                for side in ("infrared", "rgb")
            }
        )
        self.down4 = nn.Sequential(conv_norm_relu(w2, w4, stride=2), ResidualBlock(w4), ResidualBlock(w4))
        self.down8 = nn.Sequential(conv_norm_relu(w4, w8, stride=2), ResidualBlock(w8), ResidualBlock(w8))
        self.head8 = nn.Conv2d(w8, w8, 1)
        self.head4 = nn.Conv2d(w4, w4, 1)
        self.head2 = nn.Conv2d(w2, w2, 3, padding=1)
        self.up4 = nn.Conv2d(w8, w4, 1)
        self.up2 = nn.Conv2d(w4, w2, 1)

    def forward(self, image: Tensor, side: str, levels: int = len(STRIDES)) -> list[Tensor]:
        """Map (B, 3, n, n) to feature maps at 1/8, 1/4 and 1/2, or at the first so many of these."""
        f2 = self.stems[side](_prepare(image))
        f4 = self.down4(f2)
        f8 = self.down8(f4)
        maps = [self.head8(f8)]
        if levels > 1:
            f4 = self.head4(f4) + _double(self.up4(f8))
            maps.append(f4)
        if levels > 2:
            maps.append(self.head2(f2 + _double(self.up2(f4))))
        return maps


def _prepare(image: Tensor) -> Tensor:
    """Four channels: the standardized image, and its grey values by local contrast.

    Much of a thermal picture may lie in a narrow band of its range, far below a few hot spots. Divided by
    the deviation around each pixel (local contrast normalisation: Jarrett et al., ICCV 2009), what lies
    there weighs as much as the rest.
    """
    grey = image.mean(dim=1, keepdim=True)
    grey = grey - _mean_around(grey)
    local = 0.5 * grey / (_mean_around(grey.square()).sqrt() + CONTRAST_FLOOR)
    return torch.cat([standardize(image), local], dim=1).contiguous(memory_format=torch.channels_last)


def _mean_around(x: Tensor) -> Tensor:
    """Mean over the window around each pixel of (B, 1, H, W), as far as it lies in the image."""
    radius = CONTRAST_WINDOW // 2
    for axis in (-1, -2):
        side = x.shape[axis]
        padded = F.pad(x, (radius, radius, 0, 0) if axis == -1 else (0, 0, radius, radius))
        total, width = padded, 1
        while width < 2 * radius:  # sums over windows twice as wide, by one addition
            places = total.shape[axis] - width
            total = total.narrow(axis, 0, places) + total.narrow(axis, width, places)
            width *= 2
        total = total.narrow(axis, 0, side) + padded.narrow(axis, 2 * radius, side)
        place = torch.arange(side, dtype=x.dtype, device=x.device)
        count = (place + radius).clamp(max=side - 1) - (place - radius).clamp(min=0) + 1
        x = total / (count if axis == -1 else count.unsqueeze(1))
    return x


def _no_autocast(like: Tensor) -> torch.autocast:
    """Context in which products of coordinates keep their precision; features may go without."""
    return torch.autocast(like.device.type, enabled=False)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class FrameContext(nn.Module):
    """Tells every cell what the cells of the whole frame see, by attention between patches of them.

    A cell on an even surface, or on one post of a fence, cannot know its flow. Others of its frame can: the
    homography that moves them moves it too. There are 8 x 8 patches, and in frames larger than those of the
    training as many more as keep their size in cells.

    Parameters
    ----------
    channels
        Of the refiner, a multiple of 4.
    layers
        Of attention.
    cells
        A side of the largest frames of the training.
    """

    def __init__(self, channels: int, layers: int, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.layers = nn.ModuleList(CrossAttention(channels, CONTEXT_HEADS) for _ in range(layers))
        self.spread = nn.Conv2d(channels, channels, 1)
        self.mix = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        batch, channels, height, width = x.shape
        side = CONTEXT_GRID * max(1, round(width / self.cells))
        tokens = F.adaptive_avg_pool2d(x, side).flatten(2).transpose(1, 2)
        tokens = tokens + _patch_code(side, channels, tokens.dtype, tokens.device)
        for layer in self.layers:
            tokens = layer(tokens, tokens)
        grid = tokens.transpose(1, 2).reshape(batch, channels, side, side)
        # Channels last before it grows: that is how x lies, and on a CPU it grows ten times as fast.
        spread = self.spread(grid).contiguous(memory_format=torch.channels_last)
        x = x + F.interpolate(spread, size=(height, width), mode="bilinear", align_corners=False)
        mixed: Tensor = x + self.mix(x)
        return mixed


@lru_cache(maxsize=64)
def _patch_code(side: int, channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Position encoding of ``side`` x ``side`` patches, (N, C)."""
    with torch.inference_mode(mode=False), torch.no_grad():
        places = cell_centres(side, side, 1, torch.empty(0, device=device)) / side
        return sine_encoding(places, channels).to(dtype)


class Refiner(nn.Module):
    """From local correlations to a residual flow and its Laplace scale, per cell."""

    def __init__(self, channels: int, hidden: int, radius: int, stride: int, context: int = 0) -> None:
        super().__init__()
        self.radius, self.stride = radius, stride
        window = (2 * radius + 1) ** 2
        self.log_sharpness = nn.Parameter(torch.tensor(10.0).log())
        self.net = nn.Sequential(
            nn.Conv2d(window + channels, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=2, dilation=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, 4, 1),
        )
        self.context = FrameContext(hidden, context, LARGEST // stride) if context else nn.Identity()

    def forward(
        self, template: Tensor, search: Tensor, homography: Tensor, share: Tensor | None = None
    ) -> FlowStep:
        """Look around the homography (B, 3, 3) so far; features (B, C, h, h) and (B, C, 3h/2, 3h/2).

        ``share`` (B, 1, 3h/2, 3h/2) says how much of each search cell shows the picture; None for all.
        """
        height, width = template.shape[-2:]
        pulled, mask = pull(search, homography, (height, width), stride=self.stride)
        counted = mask
        if share is not None:
            counted = mask & (pull(share, homography, (height, width), stride=self.stride)[0] > 0.5)
        correlation = local_correlation(unit_length(template), unit_length(pulled), self.radius).contiguous(
            memory_format=torch.channels_last
        )
        seen = torch.cat([3 * correlation, template], dim=1)
        *layers, last = self.net
        for layer in layers:
            seen = layer(seen)
        out = last(self.context(seen)).float()
        shift = cell_centres(2 * self.radius + 1, 2 * self.radius + 1, 1, out) - self.radius
        weights = torch.softmax(correlation.float() * self.log_sharpness.exp(), dim=1)
        with _no_autocast(out):
            expected = torch.einsum("bkhw,kc->bchw", weights, shift)
        flow = (expected + out[:, :2]) * self.stride
        log_scale = 4 * torch.tanh(out[:, 2:] / 4)
        return FlowStep(
            start=homography,
            points=cell_centres(height, width, self.stride, out),
            flow=flow.flatten(2).transpose(1, 2),
            log_scale=log_scale.flatten(2).transpose(1, 2),
            visible=mask.flatten(1),
            counted=counted.flatten(1),
            reach=float(self.radius * self.stride),
        )


class M(HomographyModel):
    """The flagship network; m70, m120 and m175 are snapshots along one training of it.

    Parameters
    ----------
    config
        Sizes; the default has about 1.2 million parameters.
    """

    architecture = "m"

    def __init__(self, config: MConfig | None = None) -> None:
        super().__init__()
        self._config = config or MConfig()
        c = self._config
        self.encoder = Encoder(c)
        self.side = nn.Parameter(0.02 * torch.randn(2, c.width8))
        self.self_attention = nn.ModuleList(CrossAttention(c.width8, c.heads) for _ in range(c.layers))
        self.cross_attention = nn.ModuleList(CrossAttention(c.width8, c.heads) for _ in range(c.layers))
        self.log_sharpness = nn.Parameter(torch.tensor(20.0).log())
        self.refiners = nn.ModuleList(
            Refiner(channels, hidden, radius, stride, context)
            for channels, hidden, radius, stride, context in zip(
                (c.width8, c.width4, c.width2), c.hidden, c.radius, STRIDES, c.context, strict=True
            )
        )
        self._to_channels_last()

    @torch.no_grad()
    def _to_channels_last(self) -> None:
        """Lay the convolutions out for the kernels that are fastest on a CPU and on a GPU."""
        for parameter in self.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def begin_silent(self, added: Sequence[str]) -> None:
        """Have parts that were added to trained weights change nothing at first.

        Parameters
        ----------
        added
            Names of the parameters that the weights do not hold: of attention layers, or of a refiner's
            context.

        Raises
        ------
        ConfigError
            If others are among them, or some of a part only.
        """
        parameters = dict(self.named_parameters())
        for name in added:
            part = _ADDABLE.match(name)
            if part is None or not all(other in added for other in parameters if other.startswith(part[0])):
                super().begin_silent([name])
            matching = name.startswith(("self_attention.", "cross_attention.")) and ".norm_update." in name
            if matching or ".context.spread." in name or ".context.mix.2." in name:
                parameters[name].zero_()

    @property
    def config(self) -> MConfig:
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
        steps: Sequence[int] | None = None,
        guide: Guide | None = None,
    ) -> HomographyEstimate:
        """Estimate the homography from template pixels to search pixels.

        Parameters
        ----------
        template
            Shape (B, 3, n, n), in [0, 1], infrared. One that is expanded over the batch is encoded once.
        search
            Shape (B, 3, 3n/2, 3n/2), in [0, 1], RGB.
        initial
            Shape (B, 3, 3): start of the refinement. Without it, global matching gives the start.
        quick
            Take the config's ``quick_steps``.
        valid
            Shape (B, 1, 3n/2, 3n/2), bool: which pixels of the search image show the picture; by default all.
            What is filled has no part in the solves of the refinement. The matching sees it: it has learnt to
            carry on beyond the picture, see the research log.
        steps
            Refinement steps at 1/8, 1/4 and 1/2; the config's by default: ``steps``, or from an ``initial``
            ``fine_steps`` in large frames, which need fewer since they show more, and ``large_steps`` in
            frames larger than those of the training. Without any step there is no prediction of precision:
            covariance and log precision then say nothing.
        guide
            Training only, see :data:`Guide`.

        Returns
        -------
        HomographyEstimate
            ``details`` holds ``scores`` (B, N, M) of the global matching, where it ran, and ``flows``, a list
            of :class:`FlowStep`.

        Raises
        ------
        InputError
            If the shapes or the type do not fit, or ``steps`` are not three counts.
        """
        n = self.check_input(template, search)
        if steps is None:
            c = self._config
            given = c.large_steps if n > LARGEST else c.fine_steps
            steps = c.quick_steps if quick else given if initial is not None and n >= FINE else c.steps
        if len(steps) != 3 or min(steps) < 0:
            raise InputError(f"steps are {steps}; expected three counts, for 1/8, 1/4 and 1/2")
        self.check_initial(initial, len(template))
        self.check_valid(valid, len(template), n)
        different = template[:1] if template.stride(0) == 0 else template
        levels = max((level for level, count in enumerate(steps, 1) if count), default=1)
        maps = self.encoder(different, "infrared", levels)
        infrared = [one.expand(len(template), -1, -1, -1) for one in maps]
        rgb = self.encoder(search, "rgb", levels)
        details: dict[str, object] = {}
        if initial is None:
            scores = self._match(infrared[0], rgb[0])
            initial = self._solve_matches(scores, n)
            details["scores"] = scores
        homography = initial.detach().float()
        prior = square_prior(n, dtype=torch.float32, device=homography.device).expand_as(homography)
        factor = self._config.overreach if n >= FINE and not self.training else 1.0
        stages, flows = [homography], []
        information = torch.eye(8, device=homography.device).expand(len(homography), 8, 8)
        for level, module in enumerate(self.refiners):
            refiner = cast("Refiner", module)
            if guide is not None:
                homography = guide(homography, refiner.stride)
            share = None if valid is None else F.avg_pool2d(valid.to(homography.dtype), refiner.stride)
            for _ in range(steps[level]):
                flow = refiner(infrared[level], rgb[level], homography, share)
                delta, information = self._solve_flow(flow, n, factor)
                following = compose(homography, delta)
                stages.append(following)
                flows.append(flow)
                sound = is_plausible(following.detach(), n)
                homography = torch.where(sound[:, None, None], following.detach(), homography)
        details["flows"] = flows
        return self._finish(stages, flows, information, prior, n, details)

    def _match(self, infrared: Tensor, rgb: Tensor) -> Tensor:
        """Scores of all template cells (N) against all search cells (M): (B, N, M)."""
        x, y = (f.flatten(2).transpose(1, 2) for f in (infrared, rgb))
        frame = rgb.shape[-1] * STRIDES[0]
        for index, feature in enumerate((infrared, rgb)):
            height, width = feature.shape[-2:]
            points = cell_centres(height, width, STRIDES[0], feature.float()) / frame
            code = (sine_encoding(points, self._config.width8) + self.side[index]).to(x.dtype)
            x, y = (x + code, y) if index == 0 else (x, y + code)
        for within, across in zip(self.self_attention, self.cross_attention, strict=True):
            x, y = within(x, x), within(y, y)
            x, y = across(x, y), across(y, x)
        x, y = F.normalize(x.float(), dim=-1), F.normalize(y.float(), dim=-1)
        return (x @ y.transpose(1, 2)).float() * self.log_sharpness.exp()

    @torch.no_grad()
    def _solve_matches(self, scores: Tensor, n: int) -> Tensor:
        """Robust weighted least squares on the expectation around each row's peak."""
        cells = n // STRIDES[0]
        source = cell_centres(cells, cells, STRIDES[0], scores)
        target = cell_centres(3 * cells // 2, 3 * cells // 2, STRIDES[0], scores)
        rows = scores.softmax(dim=2)
        confidence = (rows * scores.softmax(dim=1)).amax(dim=2).clamp_min(1e-6)
        peak = target[rows.argmax(dim=2)]
        near = (target - peak.unsqueeze(2)).abs().amax(-1) <= 1.5 * STRIDES[0]
        rows = rows * near
        total = rows.sum(dim=2, keepdim=True).clamp_min(1e-6)
        with _no_autocast(rows):
            expected = torch.einsum("bnm,mc->bnc", rows, target) / total
        # In the frame of the centred square the map is near the identity, which is what the solver's
        # damping pulls to: where the evidence is weak the start stays near the prior.
        expected = expected - n / 4
        source = source.expand(len(scores), -1, -1)
        weight = confidence
        start = torch.eye(3, device=scores.device).expand(len(scores), 3, 3)
        for scale in (32.0, 16.0, 10.0, 8.0, 6.0):
            start, _ = solve_homography(
                source, expected, weight.unsqueeze(-1).expand(-1, -1, 2), size=n, damping=1e-3
            )
            distance = (transform_points(start, source) - expected).square().sum(-1)
            softness = (scale * n / 128) ** 2
            weight = confidence * (softness / (softness + distance)) ** 2
        prior = square_prior(n, dtype=start.dtype, device=start.device)
        start = compose(prior, start)
        sound = is_plausible(start, n)
        return torch.where(sound[:, None, None], start, prior.expand_as(start))

    @staticmethod
    def _solve_flow(flow: FlowStep, n: int, factor: float = 1.0) -> tuple[Tensor, Tensor]:
        precision = torch.exp(-2 * flow.log_scale) * flow.counted.unsqueeze(-1)
        source = flow.points.expand_as(flow.flow)
        return solve_homography(source, source + factor * flow.flow, precision, size=n)

    @staticmethod
    def _finish(
        stages: list[Tensor],
        flows: list[FlowStep],
        information: Tensor,
        prior: Tensor,
        n: int,
        details: dict[str, object],
    ) -> HomographyEstimate:
        sound = is_plausible(stages[-1].detach(), n)
        final = torch.where(sound[:, None, None], stages[-1], prior)
        covariance = corner_covariance(information.detach(), size=n)
        jacobian = map_jacobian(final.detach(), image_corners(n, n, device=final.device))
        with _no_autocast(final):
            covariance = jacobian @ covariance @ jacobian.transpose(-1, -2)
        log_precision = torch.zeros(len(final), device=final.device)
        if flows:
            seen = flows[-1].visible.float()
            log_precision = -(flows[-1].log_scale.detach().mean(-1) * seen).sum(1) / seen.sum(1).clamp_min(1)
            # An unseen cell supports nothing: it counts as the widest scale the refiner can express.
            log_precision = log_precision * seen.mean(1) - 4 * (1 - seen.mean(1))
        log_precision = torch.where(sound, log_precision, torch.full_like(log_precision, -4.0))
        return HomographyEstimate(final, stages, covariance, log_precision, ~sound, details)
