"""Fit a model's trust on held-out images of its training sources, through the looks a user's call takes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from homoreg.errors import InputError
from homoreg.imaging.reading import read_image
from homoreg.models.storage import write_calibration
from homoreg.priors import given
from homoreg.registrar import Registrar
from homoreg.search import CHUNK, Search
from homoreg.synthesis.sources import ImageBank
from homoreg.training.sources import Source, split_sources
from homoreg.training.trials import Trial, draw_trials
from homoreg.trust import FEWEST, Evidence, Trust, fit_trust
from homoreg.views import PairViews

__all__ = ["Progress", "calibrate"]

Progress = Callable[[int, int], None]
"""Called with the number of pairs done and that of all pairs."""

_SEED = 40_009
_SHARES = {"protocol": 1.0, "whole": 0.25, "mismatched": 0.5}  # pairs of each kind, of the samples asked for
_MISMATCHED_WEIGHT = 0.3  # of a pair that has no answer, beside one that has
_EARLIER_WEIGHT = 0.5  # of an answer that was looked at again, beside the last
_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_FAR, _MOST_FAR, _MOST_ACCEPTED = 10.0, 0.005, 0.01


@dataclass(frozen=True)
class _Row:
    """Evidence of one answer, how far it was off, and whether it was the last of its pair."""

    evidence: Evidence
    error: float
    weight: float
    last: bool


def calibrate(
    folder: str | Path,
    sources: Sequence[Source],
    *,
    share: float = 0.08,
    samples: int = 400,
    threshold: float | None = None,
    progress: Progress | None = None,
) -> Trust:
    """Fit the calibration of the weights in a folder and write it into their config.

    Pairs are drawn from the images that training holds back (see :mod:`homoreg.training.trials`): frames of
    the seed protocol, whole pictures without a prior, and pictures that do not belong together. Half of them,
    those that are shown as they are, take the looks that a user's call takes; the evidence after each look is
    what the calibration is fitted on. The others, which look harder than users' pictures, take fewer looks:
    they serve a first fit, and those of them that do not belong together count in the last one, too.

    Parameters
    ----------
    folder
        Holds ``config.json`` and ``model.safetensors``.
    sources
        The folders of pairs the model was trained on. Their weights, and the root of the number of their
        held-back images, say how often each is drawn.
    share
        Of each folder's images held back: that of the recipe.
    samples
        Frames of the seed protocol to draw; a quarter as many whole pictures, and half as many pairs that do
        not belong together, come on top.
    threshold
        Confidence from which results are to call themselves reliable. By default the lowest from 0.5 up, at
        most 0.95, at which at most 0.5 % of the accepted results are off by more than 10 px and at most 1 %
        of the pairs that do not belong together are accepted.
    progress
        Told how far it is.

    Returns
    -------
    Trust
        As written.

    Raises
    ------
    DataError
        If a folder has no pairs, or nothing is held back.
    WeightsError, ConfigError
        If the weights cannot be loaded.
    InputError
        If fewer than 20 samples are asked for, share or threshold are out of range, or the model does not
        rate itself.
    """
    if samples < FEWEST:
        raise InputError(f"samples is {samples}; expected at least {FEWEST}, so that there is enough to fit")
    if not 0 <= share < 1:
        raise InputError(f"share is {share}; expected at least 0 and less than 1")
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"threshold is {threshold}; expected a confidence, 0 to 1")
    registrar = Registrar.from_pretrained(folder)
    if not registrar.model.rates_itself:
        raise InputError(
            f"{str(folder)!r} holds {registrar.model.architecture}, which does not rate itself: no result of "
            "it is called reliable, and there is nothing to calibrate"
        )
    _, _, held = split_sources(sources, share)
    counts = Counter(pair.source for pair in held)
    wanted = {source.folder.name: source.weight for source in sources}
    bank = ImageBank(held, weights=[wanted[pair.source] / counts[pair.source] ** 0.5 for pair in held])
    rows = _collect(registrar, bank, samples, progress)
    trust = fit_trust([r.evidence for r in rows], [r.error for r in rows], [r.weight for r in rows])
    if threshold is None:
        ends = [row for row in rows if row.last]
        confidence = np.array([trust.confidence(row.evidence) for row in ends])
        threshold = _choose_threshold(confidence, np.array([row.error for row in ends]))
    registrar.trust = Trust(**{**trust.as_dict(), "threshold": threshold})
    write_calibration(folder, registrar.trust.as_dict())
    return registrar.trust


def _collect(registrar: Registrar, bank: ImageBank, samples: int, progress: Progress | None) -> list[_Row]:
    """Rows that are fitted: those of one trial follow one another, the last of them is marked."""
    harder: list[Trial] = []
    plain: list[Trial] = []
    for kind, share in _SHARES.items():
        for trial in draw_trials(bank, kind, round(samples * share), _SEED):
            (plain if trial.plain else harder).append(trial)
    # Pictures as they are take all looks of a user's call. Which of these trials are uncertain, a first fit
    # to the others says, so that nothing depends on an earlier calibration. Of the others only the strangers
    # are fitted in the end: with the rest the confidence is too low for users' pictures (see the log).
    rows: list[_Row] = []
    done, total = 0, len(harder) + len(plain)
    halves: tuple[tuple[list[Trial], Literal["auto", "twice"]], ...] = ((harder, "twice"), (plain, "auto"))
    for chosen, effort in halves:
        search = Search(registrar.model, _fit(rows), registrar.device, registrar.find_starter)
        rows = [dataclasses.replace(row, last=False) for row in rows if np.isinf(row.error)]
        for first in range(0, len(chosen), CHUNK):
            batch = chosen[first : first + CHUNK]
            rows += _rows(search, batch, effort)
            done += len(batch)
            if progress is not None:
                progress(done, total)
    return rows


def _fit(rows: list[_Row]) -> Trust:
    """Trust fitted to rows; the default's where they are too few."""
    if len(rows) < FEWEST:
        return Trust()
    return fit_trust([r.evidence for r in rows], [r.error for r in rows], [r.weight for r in rows])


def _rows(search: Search, trials: Sequence[Trial], effort: Literal["auto", "twice"]) -> Iterator[_Row]:
    views = [PairViews(read_image(one.ir, role="ir"), read_image(one.rgb, role="rgb")) for one in trials]
    guesses = [given(one.prior) for one in trials]
    for trial, finding in zip(trials, search.run(views, guesses, effort), strict=True):
        weight = 1.0 if trial.truth is not None else _MISMATCHED_WEIGHT
        for k, (homography, evidence) in enumerate(finding.history, start=1):
            last = k == len(finding.history)
            error = min(trial.error(homography.numpy()), 100.0) if trial.truth is not None else float("inf")
            yield _Row(evidence, error, weight if last else weight * _EARLIER_WEIGHT, last)
            if not evidence.unmirrored:  # clear answers are judged without it
                blind = dataclasses.replace(
                    evidence, mirrored=0.0, unmirrored=1.0, over_decoys=0.0, beats_decoys=0.0
                )
                yield _Row(blind, error, weight * _EARLIER_WEIGHT, False)


def _choose_threshold(confidence: NDArray[np.float64], errors: NDArray[np.float64]) -> float:
    belongs = np.isfinite(errors)
    for threshold in _THRESHOLDS:
        accepted = confidence >= threshold
        far = (errors[accepted & belongs] > _FAR).sum() / max(1, (accepted & belongs).sum())
        taken_in = accepted[~belongs].mean() if (~belongs).any() else 0.0
        if far <= _MOST_FAR and taken_in <= _MOST_ACCEPTED:
            break
    return round(float(threshold), 2)
