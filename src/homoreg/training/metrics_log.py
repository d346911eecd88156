"""The metrics of a run as a CSV that a resumed run continues, and their curve."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from homoreg.files import atomic_write_bytes, atomic_write_text, csv_text

__all__ = ["MetricsLog"]

COLUMNS = (
    "step",
    "epoch",
    "samples",
    "minutes",
    "loss",
    "error",
    "validation_median",
    "validation_under_3",
)


class MetricsLog:
    """Rows of one run, rewritten whole at each append so that no row is ever half-written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def cut(self, step: int) -> None:
        """Read the file and drop the rows after a step: those the resumed run will write again."""
        if not self.path.exists():
            return
        with self.path.open(newline="", encoding="utf-8") as file:
            self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        self._write()

    def append(self, row: dict[str, Any]) -> None:
        """Add a row; columns it lacks stay empty."""
        self.rows.append({name: _short(row.get(name, "")) for name in COLUMNS})
        self._write()

    def _write(self) -> None:
        atomic_write_text(self.path, csv_text(COLUMNS, self.rows))

    def plot(self, path: Path) -> bool:
        """Draw the errors against the samples seen; False where matplotlib is not installed."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            return False
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        for column, label in (
            ("error", "training (moving start)"),
            ("validation_median", "held out, median"),
        ):
            points = [(float(r["samples"]), float(r[column])) for r in self.rows if r[column] != ""]
            if points:
                axes.plot(*zip(*points, strict=True), label=label)
        axes.set(xlabel="samples seen", ylabel="corner error, px at n = 128", yscale="log")
        if self.rows:
            axes.legend()
        axes.grid(visible=True, alpha=0.3)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
        atomic_write_bytes(path, buffer.getbuffer())
        return True


def _short(value: Any) -> Any:
    return f"{value:.5g}" if isinstance(value, float) else value
