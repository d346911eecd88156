"""Methods times test sets: corner errors, rows, tables and CSV files.

A method sees the two images of a pair and the prior of the seed protocol, never the label; the error is
worked out afterwards. Errors are in px of the set's search images, which is the protocol's scale where
templates have 128 px.

Examples
--------
>>> from homoreg.synthesis.dataset import SkyDataSet
>>> pairs = SkyDataSet("data/aerial_nir")  # doctest: +SKIP
>>> rows = [do_nothing(pairs), evaluate("sift", pairs)]  # doctest: +SKIP
>>> print(format_table(rows))  # doctest: +SKIP
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from homoreg.answers import Answer, AnswerLog
from homoreg.baselines import Baseline, get_baseline
from homoreg.errors import InputError, WeightsError
from homoreg.files import atomic_write_text, csv_text
from homoreg.geometry import square_prior
from homoreg.metrics import Summary, auroc, corner_error, summarize
from homoreg.synthesis.dataset import FrozenPair, SkyDataSet

__all__ = [
    "Evaluation",
    "RegistersMany",
    "do_nothing",
    "evaluate",
    "format_table",
    "weights_digest",
    "write_csv",
]

Bytes: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float64]


class _Result(Protocol):
    """The part of a :class:`homoreg.Registration` that is looked at here."""

    @property
    def homography(self) -> Floats: ...
    @property
    def confidence(self) -> float: ...
    @property
    def status(self) -> str: ...
    @property
    def model(self) -> str: ...


@runtime_checkable
class RegistersMany(Protocol):
    """What is asked of a registrar: :class:`homoreg.Registrar` does it."""

    def register_many(
        self, pairs: Sequence[tuple[Bytes, Bytes]], *, prior: Floats, batch_size: int
    ) -> Sequence[_Result]:
        """Register pairs (infrared, RGB) from one prior; one result a pair, in order."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One method on one set, pair by pair.

    Attributes
    ----------
    method
        Name of the method or model.
    weights
        First 12 hex digits of the weights' SHA-256; empty for a method without weights.
    dataset
        Name of the set.
    names
        Names of the N pairs.
    homographies
        (N, 3, 3) float64: what the method answered, template px to search px.
    errors
        (N,) float64 mean corner errors in px of the search image; ``inf`` for an answer that is not finite.
    confidence
        (N,) float64, or None for a method that gives none.
    ok
        (N,) bool: False where the method itself does not vouch for its answer: a baseline that failed and
        returned its prior, a registration whose status is not ``"ok"``.
    milliseconds
        (N,) float64 wall time; pairs registered in one batch share its time evenly.
    """

    method: str
    weights: str
    dataset: str
    names: tuple[str, ...]
    homographies: Floats
    errors: Floats
    confidence: Floats | None
    ok: NDArray[np.bool_]
    milliseconds: Floats

    @property
    def summary(self) -> Summary:
        """Figures over all N pairs, failures included."""
        return summarize(self.errors)

    @property
    def failed(self) -> int:
        """Number of pairs for whose answer the method itself does not vouch."""
        return int((~self.ok).sum())

    def auroc(self, threshold: float = 3.0) -> float:
        """How well the confidence parts errors below ``threshold`` px from the rest; NaN where it cannot."""
        if self.confidence is None:
            return float("nan")
        return auroc(self.confidence, self.errors < threshold)

    def row(self) -> dict[str, str | int | float]:
        """Flat record for a table or CSV: method, weights, set, every summary column, failed, ms."""
        return {
            "method": self.method,
            "weights": self.weights,
            "set": self.dataset,
            **dataclasses.asdict(self.summary),
            "failed": self.failed,
            "ms": float(np.median(self.milliseconds)),
        }

    def csv_row(self) -> dict[str, str]:
        """:meth:`row` as a CSV holds it: six significant digits."""
        row = self.row()
        return {key: f"{value:.6g}" if isinstance(value, float) else str(value) for key, value in row.items()}


def evaluate(
    method: str | Baseline | RegistersMany,
    dataset: SkyDataSet,
    *,
    name: str | None = None,
    weights: str = "",
    batch_size: int = 16,
    progress: bool = False,
    log: AnswerLog | None = None,
) -> Evaluation:
    """Run a method on every pair of a set, starting from the centred square.

    Parameters
    ----------
    method
        A registrar; or a baseline: its name (a key of :data:`homoreg.baselines.BASELINES`) or a function of
        the same form.
    dataset
        The pairs.
    name
        What to call the method; by default the name of the baseline, function or model.
    weights
        SHA-256 of the model's weights in hex; its first 12 digits are kept.
    batch_size
        Pairs a registrar gets at a time.
    progress
        Whether to show a progress bar on standard error, where that is a terminal.
    log
        Where answers are kept as they come, and taken from instead of asking the method again.

    Returns
    -------
    Evaluation
        Answers, errors and times.

    Raises
    ------
    UnknownNameError
        If ``method`` is a name that no baseline has.
    MissingPackageError
        If a baseline needs a package that is not installed.
    InputError
        If ``method`` or ``batch_size`` is not usable.
    DataError, ImageReadError
        If a pair cannot be read.
    OutputError
        If the log cannot be written.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; expected at least 1")
    runner = get_baseline(method) if isinstance(method, str) else method
    if not isinstance(runner, RegistersMany) and not callable(runner):
        raise InputError(
            f"method is a {type(method).__name__}; expected a Registrar, a baseline's name or a function "
            "(ir, rgb, prior) -> BaselineResult"
        )
    answers: list[Answer] = []
    truth: list[Floats] = []
    sizes: list[int] = []
    for pairs in _batches(dataset, batch_size, progress):
        answers += _logged(runner, pairs, batch_size, log)
        truth += [pair.homography for pair in pairs]
        sizes += [pair.size for pair in pairs]
    found = np.stack([answer.homography for answer in answers])
    confidence = [answer.confidence for answer in answers if answer.confidence is not None]
    default = method if isinstance(method, str) else answers[0].model or getattr(method, "__name__", "method")
    return Evaluation(
        method=name or default,
        weights=weights[:12],
        dataset=dataset.name,
        names=dataset.names,
        homographies=found,
        errors=_errors(found, np.stack(truth), np.array(sizes)),
        confidence=np.array(confidence, np.float64) if len(confidence) == len(answers) else None,
        ok=np.array([answer.ok for answer in answers], np.bool_),
        milliseconds=np.array([answer.milliseconds for answer in answers], np.float64),
    )


def do_nothing(dataset: SkyDataSet) -> Evaluation:
    """The row that every method has to beat: the centred square for every pair.

    Parameters
    ----------
    dataset
        The pairs.

    Returns
    -------
    Evaluation
        Of the method ``"nothing"``.
    """
    return evaluate("nothing", dataset)


def _batches(dataset: SkyDataSet, batch_size: int, progress: bool) -> Iterator[list[FrozenPair]]:
    """Consecutive pairs of one template size, at most ``batch_size`` of them."""
    pairs: Iterator[FrozenPair] = iter(dataset)
    if progress:
        from tqdm import tqdm

        pairs = iter(
            tqdm(pairs, total=len(dataset), desc=dataset.name, unit="pair", leave=False, disable=None)
        )
    for _, group in itertools.groupby(pairs, key=lambda pair: pair.size):
        while batch := list(itertools.islice(group, batch_size)):
            yield batch


def _logged(
    runner: Baseline | RegistersMany, pairs: list[FrozenPair], batch_size: int, log: AnswerLog | None
) -> list[Answer]:
    """Answers, run only for the pairs that the log has none of, and added to it."""
    if log is None:
        return _run(runner, pairs, batch_size)
    missing = [pair for pair in pairs if pair.name not in log.answers]
    if missing:
        log.append([pair.name for pair in missing], _run(runner, missing, batch_size))
    return [log.answers[pair.name] for pair in pairs]


def _run(runner: Baseline | RegistersMany, pairs: list[FrozenPair], batch_size: int) -> list[Answer]:
    """Answers of a method, which gets images and the prior and nothing else of a pair."""
    prior = np.asarray(square_prior(pairs[0].size).numpy(), np.float64)
    images = [(pair.template, pair.search) for pair in pairs]
    if isinstance(runner, RegistersMany):
        began = time.perf_counter()
        results = runner.register_many(images, prior=prior, batch_size=batch_size)
        each = (time.perf_counter() - began) * 1e3 / len(pairs)
        if len(results) != len(pairs):
            raise InputError(f"register_many returned {len(results)} results for {len(pairs)} pairs")
        return [Answer(r.homography, r.confidence, r.status == "ok", r.model, each) for r in results]
    answers = []
    for ir, rgb in images:
        began = time.perf_counter()
        result = runner(ir, rgb, prior)
        each = (time.perf_counter() - began) * 1e3
        answers.append(Answer(result.homography, None, result.ok, "", each))
    return answers


def _errors(found: Floats, truth: Floats, sizes: NDArray[np.int64]) -> Floats:
    errors = np.empty(len(found))
    for size in np.unique(sizes):
        chosen = sizes == size
        error = corner_error(torch.from_numpy(found[chosen]), torch.from_numpy(truth[chosen]), int(size))
        errors[chosen] = error.numpy()
    return errors


def weights_digest(folder: str | os.PathLike[str]) -> str:
    """SHA-256 in hex of the weights in a model's folder, to say which ones a row is about.

    Parameters
    ----------
    folder
        Holds ``model.safetensors``.

    Returns
    -------
    str
        64 hex digits.

    Raises
    ------
    WeightsError
        If the file cannot be read.
    """
    path = Path(folder) / "model.safetensors"
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(
            f"cannot read {str(path)!r}: {error.strerror}; expected a folder with config.json and "
            "model.safetensors"
        ) from error


def write_csv(rows: Sequence[Evaluation], path: str | os.PathLike[str]) -> Path:
    """Write evaluations as CSV with a header, one line each, complete or not at all.

    Shares and AUCs are 0..1, errors px, ``ms`` the median milliseconds a pair; a diverged figure is ``inf``.

    Parameters
    ----------
    rows
        At least one.
    path
        File to write; its folder must exist.

    Returns
    -------
    pathlib.Path
        ``path``.

    Raises
    ------
    InputError
        If there are no rows.
    OutputError
        If the file cannot be written.
    """
    if not rows:
        raise InputError("there are no rows to write; expected at least one Evaluation")
    records = [row.csv_row() for row in rows]
    atomic_write_text(path, csv_text(list(records[0]), records))
    return Path(path)


_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("method", "method", "s"),
    ("set", "set", "s"),
    ("n", "n", "d"),
    ("mean", "mean", ".2f"),
    ("std", "std", ".2f"),
    ("min", "min", ".2f"),
    ("q25", "25%", ".2f"),
    ("median", "50%", ".2f"),
    ("q75", "75%", ".2f"),
    ("max", "max", ".2f"),
    ("under_1", "<1px", ".0%"),
    ("under_3", "<3px", ".0%"),
    ("under_5", "<5px", ".0%"),
    ("under_10", "<10px", ".0%"),
    ("auc_3", "AUC@3", ".3f"),
    ("auc_5", "AUC@5", ".3f"),
    ("auc_10", "AUC@10", ".3f"),
    ("failed", "failed", "d"),
    ("ms", "ms", ".1f"),
)


def format_table(rows: Sequence[Evaluation], *, markdown: bool = False) -> str:
    """Lay evaluations out as a table for people.

    Parameters
    ----------
    rows
        The lines, in order.
    markdown
        Whether to write a Markdown table rather than aligned plain text.

    Returns
    -------
    str
        A header and one line for each row, without a final newline.
    """
    cells = [[label for _, label, _ in _COLUMNS]]
    cells += [[format(row.row()[key], style) for key, _, style in _COLUMNS] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_COLUMNS))]
    text_columns = sum(style == "s" for _, _, style in _COLUMNS)
    padded = [
        [
            cell.ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in cells
    ]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in padded)
    rule = ["-" * w if c < text_columns else "-" * max(1, w - 1) + ":" for c, w in enumerate(widths)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (padded[0], rule, *padded[1:]))
