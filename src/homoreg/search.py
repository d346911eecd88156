"""The looks that a registration takes: through which placements, how many, and which answer is kept.

A *look* shows the model the infrared frame and the RGB picture seen through a placement. The answer of one
look is the placement of the next. After each look the evidence (see :mod:`homoreg.trust`) decides whether
another is worth its time:

1. without a prior, quick looks in small frames compare fields of view;
2. a first look in full frames;
3. a second look through the first answer, which also says how far both agree;
4. where confidence is low, quick looks from other starts, of which the most certain are followed up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry import image_corners, square_prior, transform_points
from homoreg.imaging.resampling import share_inside
from homoreg.models.base import HomographyModel
from homoreg.priors import beside, fields_of_view, same_view, scattered_fields
from homoreg.structure import edge_agreement
from homoreg.trust import Evidence, Trust
from homoreg.views import PairViews

__all__ = ["SIZE", "Effort", "Finding", "Search", "check_effort"]

Effort: TypeAlias = Literal["fast", "auto", "best"]

SIZE = 128  # side of the template frame in px
SCOUT_SIZE = 64  # of the frames in which placements are compared
SLACK = 0.1  # log precision that a further look may lose and still be preferred
CHUNK = 16  # pairs that go through the network together


@dataclass(frozen=True)
class _Plan:
    """When a look is worth its time."""

    good_error: float  # px at n = 128: a first answer that expects less error is not looked at again
    sure: float  # confidence from which no other starts are tried
    followed: int  # other starts that are followed up
    last_look: bool = False  # whether the answer is looked at once more in any case


_PLANS: dict[str, _Plan] = {
    "fast": _Plan(good_error=float("inf"), sure=0.0, followed=0),
    "auto": _Plan(good_error=0.25, sure=0.8, followed=3),
    "best": _Plan(good_error=0.0, sure=2.0, followed=6, last_look=True),
    "twice": _Plan(good_error=0.0, sure=0.0, followed=0),  # for the calibration
}


def check_effort(effort: object) -> None:
    """Raise :class:`InputError` if there is no such effort."""
    if effort not in get_args(Effort):
        raise InputError(f"effort is {effort!r}; expected one of {', '.join(map(repr, get_args(Effort)))}")


@dataclass(frozen=True, eq=False)
class _Candidate:
    """An answer: a homography (3, 3) float64, infrared px to RGB px, and what its last look says of it."""

    view: PairViews
    homography: Tensor
    precision: float = float("-inf")
    spread: float = 0.0
    agreement: float | None = None

    @property
    def answered(self) -> bool:
        """Whether this is an answer in full frames rather than a start."""
        return self.precision > float("-inf")

    @cached_property
    def frame(self) -> Tensor:
        """The RGB picture seen through it, for the next look and for the edges."""
        return self.view.search(self.homography, SIZE)

    @cached_property
    def evidence(self) -> Evidence:
        """All that speaks for it."""
        height, lead = edge_agreement(
            self.view.template(SIZE)[0].mean(0).numpy(), self.frame[0].mean(0).numpy()
        )
        return Evidence(
            precision=self.precision,
            spread=self.spread,
            agreement=self.agreement or 0.0,
            single=float(self.agreement is None),
            height=height,
            lead=lead,
        )


@dataclass(eq=False)
class Finding:
    """What came of one pair.

    Parameters
    ----------
    homography
        Shape (3, 3), float64, infrared px to RGB px: the answer, or the start where there is none.
    evidence
        What speaks for it; None where there is no answer.
    status
        "" for an answer, else why there is none: "featureless", "outside" or "diverged".
    history
        Homography and evidence of the first look, of the second and of the end, where they were taken.
    """

    homography: Tensor
    evidence: Evidence | None
    status: str = ""
    history: list[tuple[Tensor, Evidence]] = field(default_factory=list)


class _Pair:
    """One pair on its way."""

    def __init__(self, view: PairViews, prior: Tensor | None) -> None:
        self.view = view
        self.free = prior is None
        self.start = same_view(view.ir.size, view.rgb.size) if prior is None else prior
        self.best = _Candidate(view, self.start)
        self.history: list[_Candidate] = []
        self.status = ""
        if view.is_featureless:
            self.status = "featureless"
        elif share_inside(view.to_rgb(self.start, SIZE).numpy(), (3 * SIZE // 2,) * 2, view.rgb.size) == 0:
            self.status = "outside"

    def keep(self, candidate: _Candidate | None) -> None:
        """Take a further look's answer, unless it is less certain."""
        if candidate is not None and candidate.precision > self.best.precision - SLACK:
            self.best = candidate

    def note(self) -> None:
        """Keep the present answer for the record."""
        if self.best.answered and (not self.history or self.history[-1] is not self.best):
            self.history.append(self.best)

    def finish(self) -> Finding:
        self.note()
        if not self.status and not self.best.answered:
            self.status = "diverged"
        if self.status:
            return Finding(self.start, None, self.status)
        record = [(one.homography, one.evidence) for one in self.history]
        return Finding(self.best.homography, self.best.evidence, "", record)


class Search:
    """Finds where infrared pictures lie in RGB pictures.

    Parameters
    ----------
    model
        In evaluation mode, on its device.
    trust
        Decides whether further looks are needed.
    device
        Of the model.
    find_starter
        Gives the model that this one starts from, or None for the centred square; asked only where the
        model has a starter.
    """

    def __init__(
        self,
        model: HomographyModel,
        trust: Trust,
        device: torch.device,
        find_starter: Callable[[], HomographyModel | None],
    ) -> None:
        self.model, self.trust, self.device, self.find_starter = model, trust, device, find_starter

    def run(
        self,
        views: Sequence[PairViews],
        priors: Sequence[Tensor | None],
        effort: Effort | Literal["twice"] = "auto",
    ) -> list[Finding]:
        """Search each pair; ``priors`` are placements (3, 3), None to look for the field of view."""
        pairs = [_Pair(view, prior) for view, prior in zip(views, priors, strict=True)]
        active = [pair for pair in pairs if not pair.status]
        if not self.model.rates_itself:  # nothing to rank by: the first answer is the answer
            self._look(active)
            return [pair.finish() for pair in pairs]
        plan = _PLANS[effort]
        free = [pair for pair in active if pair.free]
        self._scout(free, [fields_of_view(pair.view.ir.size, pair.view.rgb.size) for pair in free])
        self._look([pair for pair in active if not pair.free])
        self._look(free, refine=True, compare=False)
        self._look([pair for pair in active if self._wants_second(pair, plan)], refine=True)
        unsure = [pair for pair in active if self._confidence(pair) < plan.sure]
        self._try_others(unsure, plan)
        if plan.last_look:
            self._look(active, refine=True)
        return [pair.finish() for pair in pairs]

    def _confidence(self, pair: _Pair) -> float:
        return self.trust.confidence(pair.best.evidence) if pair.best.answered else 0.0

    def _wants_second(self, pair: _Pair, plan: _Plan) -> bool:
        if plan.good_error in (0.0, float("inf")):
            return plan.good_error == 0.0
        return not pair.best.answered or self.trust.expected_error(pair.best.evidence) >= plan.good_error

    def _scout(self, pairs: list[_Pair], placements: list[list[Tensor]]) -> None:
        """Compare placements of each pair in small frames and start from the answer to the best."""
        for pair, found in zip(pairs, self._compare(pairs, placements), strict=True):
            if found:
                pair.best = _Candidate(pair.view, found[0].homography)

    def _compare(self, pairs: list[_Pair], placements: list[list[Tensor]]) -> list[list[_Candidate]]:
        """Quick answers of each pair through its placements, the most certain first."""
        jobs = [
            _Candidate(pair.view, placement)
            for pair, tried in zip(pairs, placements, strict=True)
            for placement in tried
        ]
        answers = iter(self._estimate(jobs, SCOUT_SIZE, quick=True))
        found = [[answer for _ in tried if (answer := next(answers))] for tried in placements]
        return [sorted(one, key=lambda c: c.precision, reverse=True) for one in found]

    def _look(self, pairs: list[_Pair], *, refine: bool = False, compare: bool = True) -> None:
        """Look through the best placement so far, from where the model starts or from the placement."""
        found = self._estimate([pair.best for pair in pairs], SIZE, refine=refine, compare=compare)
        for pair, candidate in zip(pairs, found, strict=True):
            pair.keep(candidate)
            pair.note()

    def _try_others(self, pairs: list[_Pair], plan: _Plan) -> None:
        """Quick looks from other starts; the most certain answers are followed up."""
        placements = []
        for pair in pairs:
            # Without a prior, what the scouts chose is the best guess there is.
            tried = beside(pair.best.homography if pair.free else pair.start, pair.view.ir.size)
            if pair.free:
                tried += scattered_fields(pair.view.ir.size, pair.view.rgb.size)
            placements.append(tried)
        rivals = self._compare(pairs, placements)
        jobs = [_Candidate(c.view, c.homography) for tried in rivals for c in tried[: plan.followed]]
        answers = iter(self._estimate(jobs, SIZE, refine=True, compare=False))
        changed = []
        for pair, ranked in zip(pairs, rivals, strict=True):
            found = [answer for _ in ranked[: plan.followed] if (answer := next(answers))]
            best = max(found, key=lambda c: c.precision, default=None)
            if best is not None and best.precision > pair.best.precision:
                pair.best = best
                changed.append(pair)
        again = self._estimate([pair.best for pair in changed], SIZE, refine=True)
        for pair, candidate in zip(changed, again, strict=True):
            pair.keep(candidate)

    @torch.inference_mode()
    def _estimate(
        self,
        jobs: list[_Candidate],
        n: int,
        *,
        refine: bool = False,
        quick: bool = False,
        compare: bool = True,
    ) -> list[_Candidate | None]:
        """Run the model through the candidates' homographies, at template size n; None where it is lost.

        ``refine`` starts from the placement itself; ``compare`` then keeps how far the answer went from it.
        """
        found: list[_Candidate | None] = []
        for first in range(0, len(jobs), CHUNK):
            part = jobs[first : first + CHUNK]
            template = torch.cat([job.view.template(n) for job in part]).to(self.device)
            search = torch.cat(
                [job.frame if n == SIZE else job.view.search(job.homography, n) for job in part]
            ).to(self.device)
            initial = self._initial(template, search, refine=refine)
            estimate = self.model(template, search, initial=initial, quick=quick)
            homographies = estimate.homography.cpu().double()
            moved = _corner_distance(homographies, n).tolist()
            variance = estimate.covariance.diagonal(dim1=-2, dim2=-1).cpu().double().mean((1, 2)).tolist()
            precisions = estimate.log_precision.cpu().double().tolist()
            diverged = estimate.diverged.cpu().tolist()
            for k, job in enumerate(part):
                homography = job.view.compose(job.homography, homographies[k], n)
                if diverged[k] or not bool(torch.isfinite(homography).all()):
                    found.append(None)
                    continue
                agreement = float(np.log(0.1 + moved[k])) if refine and compare else None
                spread = 0.5 * float(np.log(max(variance[k], 1e-12))) + float(np.log(SIZE / n))
                found.append(_Candidate(job.view, homography, precisions[k], spread, agreement))
        return found

    def _initial(self, template: Tensor, search: Tensor, *, refine: bool) -> Tensor | None:
        """Where to start: the centred square, the starter's answer, or None for the model's own start."""
        if not refine and not self.model.starter:
            return None
        n = template.shape[-1]
        square = square_prior(n, dtype=torch.float32).to(self.device).expand(len(template), 3, 3)
        starter = None if refine else self.find_starter()
        return square if starter is None else starter(template, search).homography.float()


def _corner_distance(homographies: Tensor, n: int) -> Tensor:
    """Mean distance (B,) of the corners from those of the centred square, px at n = 128."""
    corners = image_corners(n, n, dtype=homographies.dtype)
    moved = transform_points(homographies, corners) - corners - n / 4
    distance: Tensor = moved.norm(dim=-1).mean(-1) * (SIZE / n)
    return distance
