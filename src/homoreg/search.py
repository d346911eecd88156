"""The looks that a registration takes: through which placements, how many, and which answer is kept.

A *look* shows the model the infrared frame and the RGB picture seen through a placement. The answer of one
look is the placement of the next. After each look the evidence (see :mod:`homoreg.trust`) decides whether
another is worth its time:

1. without a prior, quick looks in small frames compare fields of view;
2. a first look in frames of the size that the model was trained with, and where it leaves doubt another
   through the second best field of view;
3. where that leaves doubt, the same look at both pictures mirrored, upside down and turned: to a network they
   are other pictures, in which right answers come back and guesses seldom do; and at the infrared picture
   alone shown so, a decoy that belongs nowhere: an answer hardly more precise than that of a decoy says that
   the scene takes in strangers, as repeating texture does;
4. where that still leaves doubt, quick looks from beside the answer, where repeating texture has its
   like; and where it is not certain, and only one of the first led there, from other starts; the most certain
   of both are followed up;
5. a look through the answer in frames twice as large, which refines it; where there are several answers,
   through the best few of them, which decides between them; and since a refinement stops short, further ones
   through what came of it while they move it: how far the last one goes says how far to trust it;
6. looks in ever larger frames, up to three quarters of the infrared picture's own resolution; all of it where
   asked for.

Where a start was given, answers whose corners are further from it than the model was trained to look (see
:func:`homoreg.priors.beyond_reach`) have to be more precise than others to be followed up and kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry import image_corners, square_prior, transform_points
from homoreg.imaging.resampling import share_inside
from homoreg.models.base import HomographyModel
from homoreg.priors import Guess, beyond_reach, same_view, strain
from homoreg.structure import edge_agreement
from homoreg.trust import MOST_STRAIN, Evidence, Trust
from homoreg.views import PairViews

__all__ = ["SIZE", "Effort", "Finding", "Search", "check_effort"]

Effort: TypeAlias = Literal["fast", "auto", "best"]

SIZE = 128  # side of the template frame in px
SCOUT_SIZE = 64  # of the frames in which placements are compared
FINE_SIZE = 256  # of the frames in which an answer is refined
FINER_SIZES = (512, 768, 1024)  # of those in which it is sharpened
ALIKE = 4.0  # px at n = 128: quick answers nearer to each other lead to one place
APART = 8.0  # px at n = 128: answers further from each other are rivals
FREE_SURE = 0.5  # the confidence from which no other starts are tried where several were already
EASY_STRAIN = 4.0  # px at n = 128: without a start, answers further from a similarity are not taken alone
CLOSE = 0.25  # log precision by which quick answers differ that are about as good
CLEAR = 0.98  # confidence from which neither the second best start nor mirrored pictures are looked at
ASIDE = (14.0, 26.0)  # px at n = 128: how far beside an answer others are looked for
FLIPS = (1, 2, 3)  # left and right swapped, top and bottom, both
CLEAR_OF_DECOYS = 0.25  # log precision by which an answer exceeds that of a decoy that is as good as none
BEATEN = 0.05  # log precision by which an answer has to exceed that of a decoy to be told from chance
BEYOND = 0.05  # log precision that an answer has to make up for each px beyond the reach of a given start,
MOST_BEYOND = 0.25  # and at most: a start may be worse than its caller knows
MIRRORED = 0.05  # log precision that is one unit of mirrored evidence worth
LOST = float(SIZE)  # px at n = 128: answers further apart are as good as none
CONTENDERS = 3  # answers that are compared in frames of FINE_SIZE too
FLOOR = 0.1  # px at n = 128 that are added to how far an answer moved, for the logarithm
CHUNK = 16  # pairs that go through the network together, of frames of SIZE


@dataclass(frozen=True)
class _Plan:
    """When a look is worth its time."""

    good_error: float | None  # px at n = 128: an answer that expects less is not refined; None: no answer is
    sure: float  # confidence of the first answer from which no other starts are tried
    followed: int  # other starts that are followed up
    aside: int = 0  # answers found from beside that are followed up
    clear: float = CLEAR  # confidence from which mirrored pictures are not looked at
    further: int = 0  # times at most that a refined answer is refined once more in frames of the same size
    still: float = 0.5  # px at n = 128: an answer that moved less in its last look is not
    finest: float = 0.0  # frames grow while one of their px covers more than this squared of the infrared's


_PLANS: dict[str, _Plan] = {
    "fast": _Plan(good_error=None, sure=0.0, followed=0, clear=0.0),
    "auto": _Plan(good_error=0.1, sure=0.95, followed=3, aside=4, further=3, finest=1.3),
    "best": _Plan(
        good_error=0.0, sure=2.0, followed=6, aside=6, clear=2.0, further=3, still=0.1, finest=0.65
    ),
    "twice": _Plan(good_error=0.0, sure=0.0, followed=0, clear=2.0, further=3),  # for the calibration
}


def check_effort(effort: object) -> None:
    """Raise :class:`InputError` if there is no such effort."""
    if effort not in get_args(Effort):
        raise InputError(f"effort is {effort!r}; expected one of {', '.join(map(repr, get_args(Effort)))}")


@dataclass(frozen=True, eq=False)
class _Candidate:
    """An answer: a homography (3, 3) float64, infrared px to RGB px, and what its last look says of it.

    Precision and spread are in px at n = 128, whatever the size of the frames. ``given`` holds the placements
    that the caller gave to start from, ``through`` is the one that frames of SIZE were last seen through,
    ``coarse`` the precision there, and ``flip`` how both pictures are shown: 0 as they are, else one of
    FLIPS. Of a decoy only the infrared is shown so, and its homography is about the infrared as shown.
    """

    view: PairViews
    given: Sequence[Tensor]
    homography: Tensor
    precision: float = float("-inf")
    spread: float = 0.0
    agreement: float | None = None
    mirrored: float | None = None
    rival: float = 0.0
    over_decoys: float = 0.0
    through: Tensor | None = None
    coarse: float = float("-inf")
    flip: int = 0
    decoy: bool = False

    def having(self, **changes: Any) -> _Candidate:
        """The same placement with something else changed; what was seen through it is not pulled again."""
        one = dataclasses.replace(self, **changes)
        one.__dict__.update({name: vars(self)[name] for name in ("seen", "edges") if name in vars(self)})
        return one

    @property
    def rank(self) -> float:
        """Precision, less where it is further from what was given than that is taken to be off."""
        return self.precision - self.toll

    @property
    def worth(self) -> float:
        """Rank, less where it does not come back in mirrored pictures."""
        return self.rank - MIRRORED * (self.mirrored or 0.0)

    @property
    def answered(self) -> bool:
        """Whether this is an answer in full frames rather than a start."""
        return self.precision > float("-inf")

    @property
    def turned(self) -> int:
        """How the RGB picture is shown."""
        return 0 if self.decoy else self.flip

    @property
    def moved(self) -> float:
        """How far the last look went, px at n = 128; 0 where there was no look before it."""
        return 0.0 if self.agreement is None else float(np.exp(self.agreement)) - FLOOR

    @cached_property
    def strain(self) -> float:
        """How far it is from a similarity, px at n = 128; 0 where a start was given."""
        return 0.0 if self.given else strain(self.homography, self.view.ir.size, self.view.rgb.size)

    @cached_property
    def beyond(self) -> float:
        """How far it is beyond the reach of each start that was given, px at n = 128; 0 without one."""
        size = self.view.ir.size
        beyond = [beyond_reach(self.homography, start, size) for start in self.given]
        return min(*beyond, LOST) if beyond else 0.0

    @property
    def toll(self) -> float:
        """Log precision that it has to make up for that."""
        return min(BEYOND * self.beyond, MOST_BEYOND)

    @cached_property
    def seen(self) -> tuple[Tensor, Tensor | None]:
        """The RGB picture seen through it and what of that is valid, for the next look and for the edges."""
        return self.view.search_and_valid(self.homography, SIZE)

    def beside(self) -> list[_Candidate]:
        """Starts around it, shown as it is."""
        width, height = self.view.ir.size
        moves = torch.eye(3, dtype=torch.float64).repeat(8 * len(ASIDE), 1, 1)
        steps = [(x * r, y * r) for r in ASIDE for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y]
        moves[:, :2, 2] = torch.tensor(steps, dtype=torch.float64) * torch.tensor([width, height]) / SIZE
        return [
            _Candidate(self.view, self.given, self.homography @ move, flip=self.flip, decoy=self.decoy)
            for move in moves
        ]

    def frames(self, n: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Template, search frame and what of that is valid, at size n and the way they are shown."""
        search, valid = self.seen if n == SIZE else self.view.search_and_valid(self.homography, n)
        mask = None if valid is None else _shown(valid, self.turned)
        return _shown(self.view.template(n), self.flip), _shown(search, self.turned), mask

    @cached_property
    def edges(self) -> tuple[float, float]:
        """How far the edges of both pictures coincide: height and lead."""
        return edge_agreement(self.view.template(SIZE)[0].mean(0).numpy(), self.seen[0][0].mean(0).numpy())

    @cached_property
    def evidence(self) -> Evidence:
        """All that speaks for it."""
        height, lead = self.edges
        return Evidence(
            precision=self.precision,
            spread=self.spread,
            agreement=self.agreement or 0.0,
            single=float(self.agreement is None),
            mirrored=self.mirrored or 0.0,
            unmirrored=float(self.mirrored is None),
            height=height,
            lead=lead,
            strain=float(np.log1p(self.strain)),
            beyond=float(np.log1p(self.beyond)),
            rival=self.rival,
            over_decoys=self.over_decoys,
            beats_decoys=0.0 if self.mirrored is None else float(np.tanh(self.over_decoys / BEATEN - 1)),
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
        Homography and evidence after each kind of look that changed either, in their order.
    """

    homography: Tensor
    evidence: Evidence | None
    status: str = ""
    history: list[tuple[Tensor, Evidence]] = field(default_factory=list)


class _Pair:
    """One pair on its way."""

    def __init__(self, view: PairViews, guess: Guess) -> None:
        self.view = view
        self.guess = guess
        self.starts = guess.starts(view.ir, view.rgb)
        self.start = self.starts[0] if guess.place else same_view(view.ir.size, view.rgb.size)
        self.best = self.candidate(self.start)
        self.settled = False
        self.witnesses: list[_Candidate] = []
        self.decoy: _Candidate | None = None  # the most precise
        self.history: list[_Candidate] = []
        self.status = ""
        if view.is_featureless:
            self.status = "featureless"
        elif share_inside(view.to_rgb(self.start, SIZE).numpy(), (3 * SIZE // 2,) * 2, view.rgb.size) == 0:
            self.status = "outside"

    def candidate(self, placement: Tensor) -> _Candidate:
        """A start."""
        return _Candidate(self.view, self.starts if self.guess.place else (), placement)

    def others(self) -> list[Tensor]:
        """Placements to try where the best answer is not certain."""
        return self.guess.others(self.best.homography, self.view.ir, self.view.rgb)

    def turned_over(self) -> list[_Candidate]:
        """The start of the last look at frames of SIZE, with both pictures shown otherwise."""
        assert self.best.through is not None
        start = self.candidate(self.best.through)
        _ = start.seen  # pulled once for all of them
        return [start.having(flip=flip, decoy=decoy) for decoy in (False, True) for flip in FLIPS]

    def take_decoys(self, found: list[_Candidate]) -> None:
        """Keep the most precise decoy."""
        known = [] if self.decoy is None else [self.decoy]
        self.decoy = max([*known, *found], key=lambda one: one.coarse, default=None)

    def weigh(self, candidate: _Candidate) -> _Candidate:
        """Add how far the answer is from those in pictures that were shown otherwise, and from decoys."""
        others = [one for one in self.witnesses if one.flip != candidate.flip]
        if not others:
            return candidate
        distances = [min(_distance(candidate, one), LOST) if one.answered else LOST for one in others]
        over = CLEAR_OF_DECOYS if self.decoy is None else candidate.coarse - self.decoy.coarse
        over = float(np.clip(over, -CLEAR_OF_DECOYS, CLEAR_OF_DECOYS))
        return candidate.having(mirrored=float(np.log(1 + np.median(distances))), over_decoys=over)

    def keep(self, candidate: _Candidate | None) -> None:
        """Take a further look's answer, unless it is less certain."""
        if candidate is not None and candidate.precision >= self.best.precision:
            self.best = self.weigh(candidate)

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
        guesses: Sequence[Guess],
        effort: Effort | Literal["twice"] = "auto",
    ) -> list[Finding]:
        """Search each pair from where its guess says."""
        pairs = [_Pair(view, guess) for view, guess in zip(views, guesses, strict=True)]
        active = [pair for pair in pairs if not pair.status]
        if not self.model.rates_itself:  # nothing to rank by: the first answer is the answer
            self._look(active)
            return [pair.finish() for pair in pairs]
        plan = _PLANS[effort]
        choosing = [pair for pair in active if len(pair.starts) > 1]
        self._scout(choosing)
        self._look([pair for pair in active if len(pair.starts) == 1])
        self._mirror([pair for pair in active if self._leaves_doubt(pair, plan)])
        aside = self._look_beside([pair for pair in active if self._leaves_doubt(pair, plan)], plan)
        others = self._look_elsewhere([pair for pair in active if self._wants_others(pair, plan)], plan)
        chosen = self._choose({pair: [*aside.get(pair, ()), *others.get(pair, ())] for pair in active})
        blurred = [pair for pair in active if pair not in chosen and self._wants_fine(pair, plan)]
        self._look(blurred, FINE_SIZE, refine=True)
        going = [pair for pair in active if self._wants_fine(pair, plan)]
        for _ in range(plan.further):
            going = [pair for pair in going if pair.best.moved >= plan.still]
            seen = {pair: pair.best for pair in going}
            self._look(going, FINE_SIZE, refine=True)
            going = [pair for pair in going if pair.best is not seen[pair]]
        self._search_decoys([pair for pair in chosen if self._found_by_search(pair)], plan)
        if plan.finest:
            self._sharpen(active, plan.finest)
        return [pair.finish() for pair in pairs]

    def _confidence(self, pair: _Pair) -> float:
        return self.trust.confidence(pair.best.evidence) if pair.best.answered else 0.0

    def _leaves_doubt(self, pair: _Pair, plan: _Plan) -> bool:
        # Where two starts led to one place, it was found twice already.
        settled = pair.settled and pair.best.strain <= EASY_STRAIN and plan.clear <= 1
        return self._confidence(pair) < plan.clear and not settled

    def _found_by_search(self, pair: _Pair) -> bool:
        # The best of many answers exceeds one look's decoys by chance.
        return pair.best.coarse > pair.history[0].coarse and self._confidence(pair) >= self.trust.threshold

    def _wants_others(self, pair: _Pair, plan: _Plan) -> bool:
        confidence = self._confidence(pair)
        if pair.guess.place is None and 0 < plan.sure <= 1:
            # A narrow field beside the centre has its like in none of the first starts. What the best of them
            # finds then may look right, and is seldom what two cameras side by side can see.
            if pair.best.strain > EASY_STRAIN:
                return True
            # Where two starts led to one place, little doubt is left.
            return confidence < min(plan.sure, FREE_SURE) and not pair.settled
        return confidence < plan.sure

    def _wants_fine(self, pair: _Pair, plan: _Plan) -> bool:
        if plan.good_error is None:
            return False
        return not pair.best.answered or self.trust.expected_error(pair.best.evidence) >= plan.good_error

    def _scout(self, pairs: list[_Pair]) -> None:
        """Compare the starts of each pair in small frames, and look through the answers to the best two.

        The second one only where it leads elsewhere, is about as precise, and the first leaves doubt.
        """
        scouted = self._compare(pairs, [pair.starts for pair in pairs])
        for pair, found in zip(pairs, scouted, strict=True):
            if found:
                pair.best = pair.candidate(found[0].homography)
                pair.settled = any(_distance(one, found[0]) < APART for one in found[1:])
        self._look(pairs, refine=True, compare=False)
        doubtful = [
            (pair, pair.candidate(found[1].homography))
            for pair, found in zip(pairs, scouted, strict=True)
            if len(found) > 1
            and _distance(found[1], found[0]) > ALIKE
            and found[1].precision > found[0].precision - CLOSE
            and self._confidence(pair) < CLEAR
        ]
        seconds = self._estimate([second for _, second in doubtful], SIZE, refine=True, compare=False)
        for (pair, _), second in zip(doubtful, seconds, strict=True):
            if second is not None and self.trust.confidence(second.evidence) > self._confidence(pair):
                pair.best = second
                pair.note()

    def _compare(self, pairs: list[_Pair], placements: list[list[Tensor]]) -> list[list[_Candidate]]:
        """Quick answers of each pair through its placements, the most certain first, the strained last."""
        jobs = [
            pair.candidate(placement)
            for pair, tried in zip(pairs, placements, strict=True)
            for placement in tried
        ]
        answers = iter(self._estimate(jobs, SCOUT_SIZE, quick=True))
        found = [[answer for _ in tried if (answer := next(answers))] for tried in placements]
        return [sorted(one, key=lambda c: (c.strain > MOST_STRAIN, -c.rank)) for one in found]

    def _look(self, pairs: list[_Pair], n: int = SIZE, *, refine: bool = False, compare: bool = True) -> None:
        """Look through the best placement so far, from where the model starts or from the placement."""
        found = self._estimate([pair.best for pair in pairs], n, refine=refine, compare=compare)
        for pair, candidate in zip(pairs, found, strict=True):
            pair.keep(candidate)
            pair.note()

    def _mirror(self, pairs: list[_Pair]) -> None:
        """Take the first look at both pictures shown otherwise, and at decoys."""
        pairs = [pair for pair in pairs if pair.best.through is not None]
        jobs = [job for pair in pairs for job in pair.turned_over()]
        answers = iter(zip(jobs, self._estimate(jobs, SIZE), strict=True))
        for pair in pairs:
            pair.witnesses = [pair.best] + [answer or job for job, answer in islice(answers, len(FLIPS))]
            pair.take_decoys([answer for _, answer in islice(answers, len(FLIPS)) if answer is not None])
            pair.best = pair.weigh(pair.best)
            pair.note()

    def _look_beside(self, pairs: list[_Pair], plan: _Plan) -> dict[_Pair, list[_Candidate]]:
        """Other answers than the best that quick looks from beside it lead to, followed up."""
        pairs = [pair for pair in pairs if plan.aside and pair.best.answered]
        return dict(zip(pairs, self._around([pair.best for pair in pairs], plan), strict=True))

    def _search_decoys(self, pairs: list[_Pair], plan: _Plan) -> None:
        """Look beside the best decoy, too, where the answer was found so: the best of many is better."""
        known = {pair: pair.decoy for pair in pairs if pair.decoy is not None}
        for pair, decoys in zip(known, self._around(list(known.values()), plan), strict=True):
            pair.take_decoys(decoys)
            pair.best = pair.weigh(pair.best)
            pair.note()

    def _around(self, places: list[_Candidate], plan: _Plan) -> list[list[_Candidate]]:
        """Answers that quick looks from beside others lead to, followed up."""
        starts = [place.beside() for place in places]
        answers = iter(self._estimate([one for tried in starts for one in tried], SCOUT_SIZE, refine=True))
        leads = []
        for place, tried in zip(places, starts, strict=True):
            apart = [place]
            for one in sorted(filter(None, islice(answers, len(tried))), key=lambda c: -c.rank):
                if all(_distance(other, one) > ALIKE for other in apart):
                    apart.append(one)
            leads.append(apart[1 : plan.aside + 1])
        return self._follow(leads)

    def _look_elsewhere(self, pairs: list[_Pair], plan: _Plan) -> dict[_Pair, list[_Candidate]]:
        """Answers that quick looks from other starts lead to, followed up; those in mirrored pictures too."""
        leads = [found[: plan.followed] for found in self._compare(pairs, [pair.others() for pair in pairs])]
        found = dict(zip(pairs, self._follow(leads), strict=True))
        for pair in pairs:
            found[pair] += [one for one in pair.witnesses if one.answered and one.flip]
        return found

    def _follow(self, leads: list[list[_Candidate]]) -> list[list[_Candidate]]:
        """Look through quick answers in frames of the size that answers are compared in."""
        jobs = [one for tried in leads for one in tried]
        answers = iter(self._estimate(jobs, SIZE, refine=True, compare=False))
        return [[one for one in islice(answers, len(tried)) if one is not None] for tried in leads]

    def _choose(self, found: dict[_Pair, list[_Candidate]]) -> list[_Pair]:
        """Keep the best of each pair's answers, and how good the best elsewhere is beside it.

        Where texture repeats itself, an answer one period off looks good by itself, the more so in larger
        frames alone, and comes back in mirrored pictures: what tells it is that another is more precise in
        frames of the same size. Of the best few the precision in frames of both sizes decides. Mirrored
        pictures only decide between the about equally precise.

        Returns the pairs that had several answers; theirs was looked through in larger frames.
        """
        contests = []
        for pair, others in found.items():
            if others:
                answers = [pair.weigh(one) for one in others] + ([pair.best] if pair.best.answered else [])
                answers.sort(key=lambda one: (one.strain > MOST_STRAIN, -one.worth))
                contests.append((pair, answers))
        jobs = [one for _, answers in contests for one in answers[:CONTENDERS]]
        finer = iter(self._estimate(jobs, FINE_SIZE, refine=True))
        for pair, answers in contests:
            rated = [(one, next(finer) or one) for one in answers[:CONTENDERS]]
            best, fine = max(
                rated, key=lambda two: (two[0].strain <= MOST_STRAIN, two[0].worth + two[1].precision)
            )
            confidence = [self.trust.confidence(one.evidence) for one in answers]
            elsewhere = [
                c for c, one in zip(confidence, answers, strict=True) if _distance(one, best) > APART
            ]
            rival = max(elsewhere, default=0.0) / max(*confidence, 1e-9)
            pair.best = best.having(rival=rival)
            pair.note()
            pair.keep(None if fine is best else dataclasses.replace(fine, rival=rival))
            pair.note()
        return [pair for pair, _ in contests]

    def _sharpen(self, pairs: list[_Pair], finest: float) -> None:
        """Refine in ever larger frames, while a px of theirs covers over ``finest`` squared infrared px.

        Pixels are counted over both directions, since a picture that was stretched in one shows no more.
        The evidence stays that of the frames for which trust was fitted.
        """
        for n in FINER_SIZES:
            chosen = [
                pair
                for pair in pairs
                if float(np.prod(pair.view.ir.size)) > (finest * n) ** 2
                and self._confidence(pair) >= self.trust.threshold
            ]
            found = self._estimate([pair.best for pair in chosen], n, refine=True)
            for pair, finer in zip(chosen, found, strict=True):
                if finer is not None and finer.precision >= pair.best.precision:
                    pair.best = dataclasses.replace(pair.best, homography=finer.homography)

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
        chunk = max(1, CHUNK * SIZE**2 // max(n, SIZE) ** 2)
        for first in range(0, len(jobs), chunk):
            part = jobs[first : first + chunk]
            shown = [job.frames(n) for job in part]
            if all((job.view, job.flip) == (part[0].view, part[0].flip) for job in part):
                template = shown[0][0].to(self.device).expand(len(part), -1, -1, -1)
            else:
                template = torch.cat([one for one, _, _ in shown]).to(self.device)
            search = torch.cat([one for _, one, _ in shown]).to(self.device)
            valid = _joined([one for _, _, one in shown], n, self.device)
            initial = self._initial(template, search, refine=refine)
            estimate = self.model(template, search, initial=initial, quick=quick, valid=valid)
            homographies = estimate.homography.cpu().double()
            moved = _corner_distance(homographies, n).tolist()
            variance = estimate.covariance.diagonal(dim1=-2, dim2=-1).cpu().double().mean((1, 2)).tolist()
            precisions = estimate.log_precision.cpu().double().tolist()
            diverged = estimate.diverged.cpu().tolist()
            for k, job in enumerate(part):
                answer = _flip(job.turned, 3 * n // 2) @ homographies[k] @ _flip(job.turned, n)
                homography = job.view.compose(job.homography, answer, n)
                if diverged[k] or not bool(torch.isfinite(homography).all()):
                    found.append(None)
                    continue
                agreement = float(np.log(FLOOR + moved[k])) if refine and compare else None
                unit = float(np.log(n / SIZE))  # log of px of this frame per px at n = 128
                spread = 0.5 * float(np.log(max(variance[k], 1e-12))) - unit
                found.append(
                    dataclasses.replace(
                        job,
                        homography=homography,
                        precision=precisions[k] + unit,
                        spread=spread,
                        agreement=agreement,
                        through=job.homography if n == SIZE else job.through,
                        coarse=precisions[k] if n == SIZE else job.coarse,
                    )
                )
        return found

    def _initial(self, template: Tensor, search: Tensor, *, refine: bool) -> Tensor | None:
        """Where to start: the centred square, the starter's answer, or None for the model's own start."""
        if not refine and not self.model.starter:
            return None
        n = template.shape[-1]
        square = square_prior(n, dtype=torch.float32, device=self.device).expand(len(template), 3, 3)
        starter = None if refine else self.find_starter()
        return square if starter is None else starter(template, search).homography.float()


def _shown(frames: Tensor, flip: int) -> Tensor:
    """Frames (B, 3, H, W) as they are, or turned over."""
    axes = [axis for bit, axis in ((1, -1), (2, -2)) if flip & bit]
    return frames.flip(axes) if axes else frames


def _flip(flip: int, side: int) -> Tensor:
    """The map of a frame onto itself that turns it over, (3, 3) float64; its own inverse."""
    x, y = (-1 if flip & bit else 1 for bit in (1, 2))
    last = side - 1
    return torch.tensor([[x, 0, last * (x < 0)], [0, y, last * (y < 0)], [0, 0, 1]], dtype=torch.float64)


def _joined(masks: list[Tensor | None], n: int, device: torch.device) -> Tensor | None:
    """Masks of a batch (B, 1, 3n/2, 3n/2); None where none hides anything."""
    if all(mask is None for mask in masks):
        return None
    whole = torch.ones(1, 1, 3 * n // 2, 3 * n // 2, dtype=torch.bool)
    return torch.cat([whole if mask is None else mask for mask in masks]).to(device)


def _distance(one: _Candidate, other: _Candidate) -> float:
    """Mean distance of the corners that two answers for one pair map, px at n = 128 of the one."""
    size = one.view.ir.size
    corners = image_corners(*size, dtype=torch.float64)
    here, there = transform_points(one.homography, corners), transform_points(other.homography, corners)
    side = (here.roll(-1, 0) - here).norm(dim=-1).mean().clamp_min(1e-9)
    return float((here - there).norm(dim=-1).mean() / side * SIZE)


def _corner_distance(homographies: Tensor, n: int) -> Tensor:
    """Mean distance (B,) of the corners from those of the centred square, px at n = 128."""
    corners = image_corners(n, n, dtype=homographies.dtype)
    moved = transform_points(homographies, corners) - corners - n / 4
    distance: Tensor = moved.norm(dim=-1).mean(-1) * (SIZE / n)
    return distance
