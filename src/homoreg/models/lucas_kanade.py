"""Inverse compositional Lucas-Kanade on feature maps: batched, damped, differentiable, and without the truth.

With ``F`` the template's map, ``G`` the search image's and ``W(x; d)`` a homography near the identity, the
solver lowers ``E(H) = mean_x |G(H x) - F(x)|**2`` over the cells that ``H`` maps into the search image. Each
iteration linearises the template's side (Baker and Matthews, IJCV 56(3), 2004, section 3.2), so that the
gradients are those of one fixed map:

- ``J(x) = grad F(x) dW/dd (x; 0)``, ``N = sum_x J^T J``, ``d = (N + m I)**-1 sum_x J^T (G(H x) - F(x))``
- ``H <- H W(d)**-1``

The eight entries ``d`` are those of a homography in the frame where the template spans [-1, 1], in which all
of them have one scale; it is the frame of :func:`homoreg.geometry.solve_homography`. The damping ``m`` is
relative to the mean diagonal of ``N``. With ``monotone`` it follows Levenberg: a step that does not lower the
objective is taken back and the damping raised; else it is constant and every sound step is taken.

Nothing here looks at a label. A member of a batch stops by itself, once its corners move less than a
tolerance, and is then left as it is: a batch gives what its members give alone. A step that folds the frame,
is not finite, leaves the search image or strays too far from the start is never taken; an alignment that
does not lower the objective over the cells seen both before and after is given up, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from homoreg.geometry import (
    cell_centres,
    compose,
    corner_covariance,
    image_corners,
    invert_homography,
    is_plausible,
    map_jacobian,
    pull,
    square_prior,
    transform_points,
)
from homoreg.models.base import HomographyEstimate
from homoreg.models.layers import standardize

__all__ = ["Alignment", "Level", "align", "coarse_to_fine", "reduce_pair", "sound_start"]

LEAST_SEEN = 0.25  # share of the template's cells that must lie in the search image
FLOOR = 1e-3  # added to the normal matrix of standardised maps: without any gradient the step is zero
HIGHEST_DAMPING = 1e4  # of Levenberg's: a member that needs more is stuck
WORST, BEST = -3.9, 4.0  # range of log precision of an answer


@dataclass(frozen=True, eq=False)
class Level:
    """One level of a pyramid, and how to align on it.

    ``template`` (B, C, n/s, n/s) and ``search`` (B, C, 3n/2s, 3n/2s) are maps whose cells are ``stride`` = s
    px apart; ``reach`` is how far, in px, the corners may move from the start on average.
    """

    template: Tensor
    search: Tensor
    stride: int
    reach: float
    iterations: int = 30
    damping: float = 1e-2  # least, relative to the mean diagonal of the normal matrix
    tolerance: float = 2e-3  # px: a member whose corners move less has converged
    monotone: bool = True  # Levenberg: only steps that lower the objective
    sigma: float = 8.0  # px: expected displacement of a corner coordinate from the start ...
    prior: float = 0.0  # ... and the share of the start's objective that a displacement by it costs
    border: int = 0  # outermost rings of template cells that do not count: their features saw the padding


@dataclass(frozen=True, eq=False)
class Alignment:
    """What an alignment found, for B members.

    Parameters
    ----------
    homography
        Shape (B, 3, 3), template px to search px; the start where ``improved`` is False.
    steps
        The homography after every iteration, the start first.
    improved
        Shape (B,), bool: the objective is lower than at the start, over the cells seen at both.
    converged
        Shape (B,), bool: stopped by itself before the iterations ran out.
    finite
        Shape (B,), bool: the objective could be worked out at the start.
    iterations
        Shape (B,), int64: iterations used.
    cost, start_cost
        Shape (B,): mean squared difference of the maps over the cells seen at both, after and before.
    information
        Shape (B, 8, 8): Gauss-Newton normal matrix over the residual variance, in the frame and units that
        :func:`homoreg.geometry.corner_covariance` takes.
    """

    homography: Tensor
    steps: list[Tensor]
    improved: Tensor
    converged: Tensor
    finite: Tensor
    iterations: Tensor
    cost: Tensor
    start_cost: Tensor
    information: Tensor


def reduce_pair(template: Tensor, search: Tensor, side: int) -> tuple[Tensor, Tensor, int]:
    """Standardise a pair, reduced by a whole factor so that the template has about ``side`` px.

    Parameters
    ----------
    template, search
        Shape (B, 3, n, n) and (B, 3, 3n/2, 3n/2).
    side
        Wanted side; the template keeps at least it.

    Returns
    -------
    template, search : Tensor
        Reduced by averaging, standardised.
    factor : int
        A power of two.
    """
    factor = 1
    while (
        factor < 8 and template.shape[-1] // (2 * factor) >= side and template.shape[-1] % (16 * factor) == 0
    ):
        factor *= 2
    if factor > 1:
        template, search = F.avg_pool2d(template, factor), F.avg_pool2d(search, factor)
    return standardize(template), standardize(search), factor


def sound_start(initial: Tensor | None, batch: int, n: int, like: Tensor) -> Tensor:
    """Return the starts (B, 3, 3) without gradient; the centred square for none and for folded ones."""
    square = square_prior(n, dtype=like.dtype, device=like.device).expand(batch, 3, 3)
    if initial is None:
        return square
    start = initial.detach().to(like)
    return torch.where(is_plausible(start, n)[:, None, None], start, square)


@dataclass(frozen=True, eq=False)
class _State:
    """The objective at a homography and its linearisation there."""

    homography: Tensor  # (B, 3, 3)
    cost: Tensor  # (B,), prior included
    normal: Tensor  # (B, 8, 8), mean over the cells seen
    right: Tensor  # (B, 8)
    squared: Tensor  # (B, N) squared difference, mean over the channels
    mask: Tensor  # (B, N), 1 where seen
    seen: Tensor = field(repr=False)  # (B,) share of cells

    def where(self, chosen: Tensor, other: _State) -> _State:
        """Members of this state where chosen (B,), of the other elsewhere."""

        def pick(mine: Tensor, its: Tensor) -> Tensor:
            return torch.where(chosen.view(-1, *[1] * (mine.dim() - 1)), mine, its)

        return _State(
            *(pick(getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__)
        )


class _Objective:
    """The template's side, prepared once: gradients, and the products they are contracted with."""

    def __init__(self, template: Tensor, search: Tensor, stride: int, border: int = 0) -> None:
        self.template, self.search, self.stride = template.flatten(2), search, stride
        height, width = self.size = (template.shape[-2], template.shape[-1])
        self.n = height * stride
        self.counted = F.pad(
            template.new_ones(height - 2 * border, width - 2 * border), [border] * 4
        ).flatten()
        padded = F.pad(template, [1, 1, 1, 1], mode="replicate")
        self.gx = ((padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / (2 * stride)).flatten(2)
        self.gy = ((padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / (2 * stride)).flatten(2)
        self.products = [
            (a * b).mean(1) for a, b in ((self.gx, self.gx), (self.gx, self.gy), (self.gy, self.gy))
        ]
        points = cell_centres(height, width, stride, template)
        self.rows = self._warp_rows(points * (2.0 / self.n) - (self.n - 1.0) / self.n)
        x, y = self.rows
        self.tables = [(a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(1) for a, b in ((x, x), (x, y), (y, y))]
        self.tables[1] = self.tables[1] + (y.unsqueeze(-1) * x.unsqueeze(-2)).flatten(1)
        self.corners = image_corners(self.n, self.n, dtype=template.dtype, device=template.device)
        self.corner_rows = torch.stack(
            self._warp_rows(self.corners * (2.0 / self.n) - (self.n - 1.0) / self.n), dim=1
        ).flatten(0, 1)
        self.prior: tuple[Tensor, Tensor] | None = None

    def set_prior(self, start: Tensor, weight: Tensor) -> None:
        """Add ``weight`` (B,) times the mean squared displacement of the corners from a start, px**2."""
        self.prior = invert_homography(start), weight

    def _displacement(self, homography: Tensor) -> tuple[Tensor, Tensor]:
        """The prior's weight, and how far (B, 8) the corners are from the start."""
        assert self.prior is not None
        back, weight = self.prior
        moved = transform_points(compose(back, homography), self.corners) - self.corners
        return weight, moved.flatten(1)

    def _warp_rows(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives (N, 8) of x and y, px, by the entries of the homography in the unit frame."""
        x, y = unit.unbind(-1)
        one, zero = torch.ones_like(x), torch.zeros_like(x)
        half = self.n / 2.0
        return (
            half * torch.stack([x, y, one, zero, zero, zero, -x * x, -x * y], dim=-1),
            half * torch.stack([zero, zero, zero, x, y, one, -x * y, -y * y], dim=-1),
        )

    def at(self, homography: Tensor) -> _State:
        """Evaluate at homographies (B, 3, 3)."""
        pulled, inside = pull(self.search, homography, self.size, stride=self.stride)
        mask = inside.flatten(1).to(pulled.dtype) * self.counted
        residual = pulled.flatten(2) - self.template
        squared = residual.square().mean(1)
        count = mask.sum(1).clamp_min(1.0)
        normal = sum((mask * p) @ t for p, t in zip(self.products, self.tables, strict=True))
        assert isinstance(normal, Tensor)
        sides = (
            (mask * (g * residual).mean(1)) @ r for g, r in zip((self.gx, self.gy), self.rows, strict=True)
        )
        right = sum(sides)
        assert isinstance(right, Tensor)
        cost = (mask * squared).sum(1) / count
        normal = (normal / count.unsqueeze(1)).unflatten(1, (8, 8))
        right = right / count.unsqueeze(1)
        if self.prior is not None:
            weight, moved = self._displacement(homography)
            cost = cost + weight * moved.square().mean(1)
            normal = normal + weight[:, None, None] / 8 * (self.corner_rows.T @ self.corner_rows)
            right = right + weight[:, None] / 8 * (moved @ self.corner_rows)
        return _State(
            homography,
            cost,
            normal,
            right,
            squared,
            mask,
            mask.sum(1) / self.counted.sum(),
        )

    def step(self, state: _State, damping: Tensor) -> Tensor:
        """Entries (B, 8) of the next increment."""
        eye = torch.eye(8, dtype=state.normal.dtype, device=state.normal.device)
        mean_diagonal = state.normal.diagonal(dim1=-2, dim2=-1).mean(-1)
        pull_back = (damping * mean_diagonal + FLOOR)[:, None, None] * eye
        solution, _ = torch.linalg.solve_ex(state.normal + pull_back, state.right.unsqueeze(-1))
        entries: Tensor = solution.squeeze(-1)
        return entries

    def move(self, homography: Tensor, entries: Tensor) -> Tensor:
        """``H W(d)**-1`` in px."""
        scale, shift = 2.0 / self.n, -(self.n - 1.0) / self.n
        unit = entries.new_tensor([[scale, 0, shift], [0, scale, shift], [0, 0, 1]])
        back = entries.new_tensor([[1 / scale, 0, -shift / scale], [0, 1 / scale, -shift / scale], [0, 0, 1]])
        eye = torch.eye(3, dtype=entries.dtype, device=entries.device)
        warp = eye + F.pad(entries, [0, 1]).unflatten(-1, (3, 3))
        return compose(homography, back, invert_homography(warp), unit)


def _corner_motion(first: Tensor, second: Tensor, n: int) -> Tensor:
    """Distances (B, 4), px, between where two homographies put the corners."""
    corners = image_corners(n, n, dtype=first.dtype, device=first.device)
    motion: Tensor = (transform_points(first, corners) - transform_points(second, corners)).norm(dim=-1)
    return motion


def _common_costs(start: _State, end: _State) -> tuple[Tensor, Tensor]:
    """Objective of both states over the cells that both see, (B,) each."""
    mask = start.mask * end.mask
    count = mask.sum(1).clamp_min(1.0)
    return (mask * start.squared).sum(1) / count, (mask * end.squared).sum(1) / count


def align(level: Level, initial: Tensor) -> Alignment:
    """Align a batch on one level.

    Parameters
    ----------
    level
        Maps and settings.
    initial
        Shape (B, 3, 3): the starts, each plausible.

    Returns
    -------
    Alignment
        Differentiable by the maps and the starts.
    """
    kind = torch.promote_types(level.template.dtype, torch.float32)
    with torch.autocast(initial.device.type, enabled=False):
        objective = _Objective(level.template.to(kind), level.search.to(kind), level.stride, level.border)
        return _Descent(objective, level, initial.to(kind)).run()


class _Descent:
    """The iterations of one batch."""

    def __init__(self, objective: _Objective, level: Level, initial: Tensor) -> None:
        self.objective, self.level = objective, level
        self.start = self.state = objective.at(initial)
        if level.prior:
            objective.set_prior(initial, level.prior * self.start.cost.detach() / level.sigma**2)
        batch = len(initial)
        self.damping = initial.new_full((batch,), level.damping)
        self.finite = torch.isfinite(self.start.cost.detach())
        self.active = self.finite & (self.start.seen >= LEAST_SEEN)
        self.iterations = torch.zeros(batch, dtype=torch.int64, device=initial.device)
        self.steps = [initial]

    def run(self) -> Alignment:
        for _ in range(self.level.iterations):
            if not bool(self.active.any()):
                break
            self._iterate()
            self.steps.append(self.state.homography)
        before, after = _common_costs(self.start, self.state)
        improved = ((after < before) & self.finite).detach()
        homography = torch.where(improved[:, None, None], self.state.homography, self.start.homography)
        return Alignment(
            homography=homography,
            steps=self.steps,
            improved=improved,
            converged=~self.active & self.finite,
            finite=self.finite,
            iterations=self.iterations,
            cost=torch.where(improved, after, before),
            start_cost=before,
            information=self._information(improved),
        )

    def _iterate(self) -> None:
        level, state = self.level, self.state
        entries = self.objective.step(state, self.damping)
        with torch.no_grad():
            tried = self.objective.move(state.homography, entries)
            sound = self._sound(tried)
        # An unsound step becomes none before it is differentiated: its gradient would not be finite.
        entries = torch.where((sound & self.active).unsqueeze(-1), entries, torch.zeros_like(entries))
        candidate = self.objective.at(self.objective.move(state.homography, entries))
        taken = self.active & sound & (candidate.seen >= LEAST_SEEN)
        if level.monotone:
            taken = taken & (candidate.cost.detach() < state.cost.detach())
        with torch.no_grad():
            motion = _corner_motion(candidate.homography, state.homography, self.objective.n).amax(-1)
            stuck = ~taken & (torch.zeros_like(taken) if level.monotone else torch.ones_like(taken))
            stuck = stuck | (~taken & (self.damping >= HIGHEST_DAMPING))
        self.iterations = self.iterations + self.active.long()
        self.state = candidate.where(taken, state)
        if level.monotone:
            factor = torch.where(taken, 0.3, 8.0).to(self.damping)
            damping = (self.damping * factor).clamp(level.damping, HIGHEST_DAMPING)
            self.damping = torch.where(self.active, damping, self.damping)
        self.active = self.active & ~stuck & ~(sound & (motion < level.tolerance))

    def _sound(self, tried: Tensor) -> Tensor:
        """Whether steps lead to a plausible map within reach of the start."""
        motion = _corner_motion(tried, self.start.homography, self.objective.n).mean(-1)
        return is_plausible(tried, self.objective.n) & (motion <= self.level.reach)

    def _information(self, improved: Tensor) -> Tensor:
        """Normal matrix over the residual variance, without gradient; a broad prior keeps it regular."""
        with torch.no_grad():
            state = self.state.where(improved, self.start)
            count = state.mask.sum(1) * self.objective.template.shape[1]
            variance = state.cost.clamp_min(1e-6)
            information = state.normal * (count / variance)[:, None, None]
            information = torch.nan_to_num(information, nan=0.0, posinf=0.0, neginf=0.0)
            # One unit of deviation an entry: half the frame.
            return information + torch.eye(8, dtype=information.dtype, device=information.device)


def coarse_to_fine(levels: Sequence[Level], initial: Tensor, *, judge: bool = True) -> HomographyEstimate:
    """Align on one level after the other, and keep the result only where it lowered the objective.

    The last, truth-free test: the logarithm of the objective, over the cells seen at both, must have fallen
    from the first start to the last answer on the average of all levels.

    Parameters
    ----------
    levels
        Coarse to fine.
    initial
        Shape (B, 3, 3): plausible starts.
    judge
        Whether to make that last test.

    Returns
    -------
    HomographyEstimate
        ``stages`` holds the start and the answer of every level, and last what is returned. ``details`` has
        ``improved`` (B,), False where the answer is the start; ``alignments``, an :class:`Alignment` a level;
        and ``gain`` (B,), the mean fall of the log objective. ``diverged`` marks members whose maps are not
        finite. The covariance is that of independent residuals of equal variance, so it is too small by the
        number of cells that share an error; the log precision is minus half the log of the mean corner
        variance, px**2 in the template.
    """
    homography, alignments = initial, []
    stages = [initial]
    for level in levels:
        alignment = align(level, homography.detach())
        homography = alignment.homography
        alignments.append(alignment)
        stages.append(homography)
    finite = torch.stack([a.finite for a in alignments]).all(0)
    gain = _gain(levels, initial, homography.detach()) if judge else torch.ones_like(alignments[-1].cost)
    improved = finite & (gain > 0)
    final = torch.where(improved[:, None, None], homography, initial)
    stages.append(final)
    n = levels[-1].template.shape[-1] * levels[-1].stride
    covariance, log_precision = _spread(alignments[-1].information, final, n)
    details = {"improved": improved, "alignments": alignments, "gain": gain}
    return HomographyEstimate(final, stages, covariance, log_precision, ~finite, details)


@torch.no_grad()
def _gain(levels: Sequence[Level], start: Tensor, end: Tensor) -> Tensor:
    """Mean over the levels of the fall of the log objective, (B,)."""
    falls = []
    for level in levels:
        kind = torch.promote_types(level.template.dtype, torch.float32)
        with torch.autocast(start.device.type, enabled=False):
            objective = _Objective(level.template.to(kind), level.search.to(kind), level.stride, level.border)
            before, after = _common_costs(objective.at(start.to(kind)), objective.at(end.to(kind)))
        falls.append((before + 1e-9).log() - (after + 1e-9).log())
    return torch.stack(falls).mean(0)


@torch.no_grad()
def _spread(information: Tensor, homography: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Corner covariance (B, 4, 2, 2), search px**2, and log precision (B,) in template px."""
    with torch.autocast(homography.device.type, enabled=False):
        covariance = corner_covariance(information, size=n)
        variance = covariance.diagonal(dim1=-2, dim2=-1).mean(dim=(-2, -1))
        corners = image_corners(n, n, dtype=homography.dtype, device=homography.device)
        jacobian = map_jacobian(homography, corners)
        mapped = jacobian @ covariance @ jacobian.transpose(-1, -2)
    return mapped, (-0.5 * variance.log()).clamp(WORST, BEST)
