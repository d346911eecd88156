"""How far a registrar's own word can be trusted: its confidence against the truth of frozen sets.

Two questions are put to it. Of the pairs of a set: does the confidence say how often it is right, and does it
rank right above wrong? Of pairs that do not belong together: does it refuse them?
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from homoreg.errors import InputError, MissingPackageError
from homoreg.evaluation import Evaluation
from homoreg.files import atomic_write_bytes
from homoreg.geometry import square_prior
from homoreg.metrics import (
    auroc,
    chance_calibration_error,
    expected_calibration_error,
    reliability_diagram,
    risk_coverage,
)
from homoreg.synthesis.dataset import FrozenPair, SkyDataSet

__all__ = ["MISMATCHES", "Audit", "audit", "format_audits", "plot_audits"]

Bytes: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float64]

MISMATCHES = ("partner", "noise", "constant", "upside-down")
"""Ways in which an infrared image does not belong to an RGB image."""

RIGHT, FAR = 3.0, 10.0
"""Errors in px under which a result is right, and from which it is far off."""


class _Verdict(Protocol):
    @property
    def reliable(self) -> bool: ...


class Registers(Protocol):
    """What is asked of a registrar here: :class:`homoreg.Registrar` does it."""

    def register_many(
        self, pairs: Sequence[tuple[Bytes, Bytes]], *, prior: list[Floats], batch_size: int
    ) -> Sequence[_Verdict]:
        """Register pairs (infrared, RGB), each from its prior; one result a pair, in order."""


@dataclass(frozen=True, eq=False)
class Audit:
    """What a registrar said of itself on one set, beside what came true.

    Attributes
    ----------
    method, dataset
        Names of the registrar and of the set.
    errors
        (N,) float64, corner errors in px.
    confidence
        (N,) float64.
    reliable
        (N,) bool, what it accepted.
    refused
        By kind of mismatch (see :data:`MISMATCHES`), (M,) bool: what it refused.
    """

    method: str
    dataset: str
    errors: Floats
    confidence: Floats
    reliable: NDArray[np.bool_]
    refused: dict[str, NDArray[np.bool_]]

    def row(self) -> dict[str, str | int | float]:
        """Flat record.

        ``auroc`` and ``ece`` are about errors under 3 px; ``ece_by_chance`` is what the latter comes to in
        the mean where confidences are exact, see :func:`homoreg.metrics.chance_calibration_error`. ``aurc``
        and ``far_at_80`` are about errors of 10 px and more: the share among the most confident 80 %;
        ``coverage`` is the largest share of the most confident among which at most 3 % are. ``accepted`` is
        the share called reliable and ``accepted_far`` that of it which is off by 10 px or more; ``refused``
        is the share of the pairs that do not belong together, NaN without such.
        """
        right = self.errors < RIGHT
        curve = risk_coverage(self.confidence, self.errors, FAR)
        far = self.errors[self.reliable] >= FAR
        refused = np.concatenate([*self.refused.values(), np.zeros(0, np.bool_)])
        return {
            "method": self.method,
            "set": self.dataset,
            "n": len(self.errors),
            "right": float(right.mean()),
            "confidence": float(self.confidence.mean()),
            "auroc": auroc(self.confidence, right),
            "ece": expected_calibration_error(self.confidence, right),
            "ece_by_chance": chance_calibration_error(self.confidence),
            "aurc": curve.area,
            "far_at_80": curve.risk_at(0.8),
            "coverage": curve.coverage_at(0.03),
            "accepted": float(self.reliable.mean()),
            "accepted_far": float(far.mean()) if far.size else float("nan"),
            "refused": float(refused.mean()) if refused.size else float("nan"),
        }


def audit(
    registrar: Registers,
    evaluation: Evaluation,
    dataset: SkyDataSet,
    *,
    mismatches: int = 24,
    strangers: SkyDataSet | None = None,
) -> Audit:
    """Compare a registrar's confidence with the errors of an evaluation, and try it on mismatched pairs.

    Parameters
    ----------
    registrar
        What the evaluation is about.
    evaluation
        Of the registrar on the set.
    dataset
        The set.
    mismatches
        Pairs of each kind of mismatch to try, evenly from the set; at most all.
    strangers
        Whose infrared images are the wrong partners. By default those of the set itself, from pairs half of
        it away. A set whose pairs show one place again and again needs another, of the same size n: its
        own infrared images belong to its other RGB images, too.

    Returns
    -------
    Audit
        The figures, pair by pair.

    Raises
    ------
    InputError
        If the evaluation holds no confidences.
    DataError, ImageReadError
        If a pair cannot be read.
    """
    if evaluation.confidence is None:
        raise InputError(f"{evaluation.method} gives no confidence; expected the evaluation of a model")
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(mismatches, len(dataset))).astype(int))
    refused: dict[str, NDArray[np.bool_]] = {}
    for kind in MISMATCHES if mismatches > 0 else ():
        pairs = [dataset[number] for number in chosen.tolist()]
        images = [
            (_mismatched(kind, pair, strangers or dataset, number), pair.search)
            for pair, number in zip(pairs, chosen.tolist(), strict=True)
        ]
        priors = [np.asarray(square_prior(pair.size).numpy(), np.float64) for pair in pairs]
        verdicts = registrar.register_many(images, prior=priors, batch_size=16)
        refused[kind] = np.array([not verdict.reliable for verdict in verdicts], np.bool_)
    return Audit(
        evaluation.method,
        evaluation.dataset,
        evaluation.errors,
        evaluation.confidence,
        evaluation.ok,
        refused,
    )


def _mismatched(kind: str, pair: FrozenPair, strangers: SkyDataSet, number: int) -> Bytes:
    """An infrared image that does not belong to a pair's RGB image."""
    if kind == "upside-down":
        return np.ascontiguousarray(pair.template[::-1, ::-1])
    if kind == "constant":
        return np.full_like(pair.template, int(pair.template.mean()))
    if kind == "noise":
        return np.random.default_rng(number).integers(0, 256, pair.template.shape, np.uint8)
    # Half a set away: neighbouring pairs of a set often show the same place.
    return strangers[(number + len(strangers) // 2) % len(strangers)].template


_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("method", "method", "s"),
    ("set", "set", "s"),
    ("n", "n", "d"),
    ("right", "<3px", ".0%"),
    ("confidence", "conf", ".0%"),
    ("auroc", "AUROC", ".3f"),
    ("ece", "ECE", ".3f"),
    ("ece_by_chance", "by chance", ".3f"),
    ("aurc", "AURC", ".3f"),
    ("far_at_80", ">=10px@80%", ".1%"),
    ("coverage", "cov@3%", ".0%"),
    ("accepted", "accepted", ".0%"),
    ("accepted_far", ">=10px", ".1%"),
    ("refused", "refused", ".1%"),
)


def format_audits(audits: Sequence[Audit]) -> str:
    """Lay audits out as a table of plain text, a header and a line each; see :meth:`Audit.row`."""
    lines = [[label for _, label, _ in _COLUMNS]]
    lines += [[format(one.row()[key], style) for key, _, style in _COLUMNS] for one in audits]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if style == "s" else cell.rjust(width)
            for cell, width, (_, _, style) in zip(line, widths, _COLUMNS, strict=True)
        ).rstrip()
        for line in lines
    )


def plot_audits(audits: Sequence[Audit], path: str | os.PathLike[str]) -> Path:
    """Write a picture with the reliability diagrams and the risk-coverage curves of audits.

    Parameters
    ----------
    audits
        At least one.
    path
        PNG file; its folder must exist.

    Returns
    -------
    pathlib.Path
        ``path``.

    Raises
    ------
    InputError
        If there are no audits.
    MissingPackageError
        If Matplotlib is not installed.
    OutputError
        If the file cannot be written.
    """
    if not audits:
        raise InputError("there are no audits to draw; expected at least one")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(
            "the picture needs matplotlib, which is not installed; install it with: "
            "pip install 'homoreg[benchmark]'"
        ) from error
    figure = Figure(figsize=(10.0, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for one in audits:
        label = f"{one.method}, {one.dataset}"
        diagram = reliability_diagram(one.confidence, one.errors < RIGHT)
        filled = diagram.count > 0
        (line,) = left.plot(
            diagram.stated[filled], diagram.correct[filled], marker="o", markersize=4, label=label
        )
        curve = risk_coverage(one.confidence, one.errors, FAR)
        right.plot(curve.coverage, curve.risk, color=line.get_color(), label=label)
    left.set(xlabel="stated confidence", ylabel=f"share under {RIGHT:g} px", xlim=(0, 1), ylim=(0, 1))
    left.set_title("Reliability")
    right.set(xlabel="coverage: share accepted", ylabel=f"share of it off by {FAR:g} px or more")
    right.set(xlim=(0, 1), ylim=(0, None))
    right.axhline(0.03, color="0.7", linewidth=1)
    right.set_title("Risk and coverage")
    left.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return Path(atomic_write_bytes(path, buffer.getbuffer()))
