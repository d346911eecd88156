"""Many methods on many sets: one table that a cut run continues, and the errors of every pair beside it.

A comparison is a folder with ``comparison.csv``, a row for each method and set, and
``comparison_errors.csv``, the corner error of each pair rounded to 0.01 px. A row says which weights and
which pairs it is about; as long as both are the same it is not measured again.

Examples
--------
>>> table = Comparison("results")  # doctest: +SKIP
>>> compare([find_contender("sift")], [SkyDataSet("data/aerial_nir")], table)  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from homoreg.answers import AnswerLog
from homoreg.baselines import BASELINES, Baseline, get_baseline
from homoreg.errors import ConfigError, DataError, HomoregError, WeightsError
from homoreg.evaluation import Evaluation, RegistersMany, evaluate, weights_digest
from homoreg.files import atomic_write_files, csv_text, make_folder
from homoreg.pretrained import locate
from homoreg.synthesis.dataset import SkyDataSet

__all__ = ["LEARNED", "METHODS", "Comparison", "Contender", "compare", "find_contender"]

Floats: TypeAlias = NDArray[np.float64]

LEARNED = ("dhn", "mhn", "clkn", "dlkfm", "m70", "m120", "m175")
"""The registered models that are compared by default."""

METHODS = (*BASELINES, *LEARNED)
"""Every method that is compared by default, in the order of the table."""

BUDGET = ("samples", "minutes", "hardware", "starter")
"""What the row of a model says about its training; from the ``training`` of its config."""

HASH_DIGITS = 12


@dataclass(frozen=True)
class Contender:
    """A method that can be run, and what its rows say about it.

    Attributes
    ----------
    name
        As in the table.
    weights
        SHA-256 of the weights in hex; empty for a baseline.
    load_as
        Name or folder that loads the model; empty for a baseline.
    budget
        :data:`BUDGET` as text, empty where it does not apply or was not recorded.
    """

    name: str
    weights: str = ""
    load_as: str = ""
    budget: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(BUDGET, ""))

    def load(self, device: str | None = None) -> Baseline | RegistersMany:
        """Return what :func:`homoreg.evaluation.evaluate` runs.

        Raises
        ------
        HomoregError
            If the model, or the one that it starts from, cannot be loaded.
        """
        if not self.load_as:
            return get_baseline(self.name)
        from homoreg.registrar import Registrar

        registrar = Registrar.from_pretrained(self.load_as, device=device)
        if registrar.model.starter and registrar.find_starter() is None:
            raise WeightsError(
                f"{self.name} starts from {registrar.model.starter}, which cannot be loaded; get its "
                "weights first"
            )
        return registrar


def find_contender(name: str) -> Contender:
    """Find a method and make sure that it can be run here.

    Parameters
    ----------
    name
        A key of :data:`homoreg.baselines.BASELINES`, or a model as :func:`homoreg.pretrained.locate` takes
        it: a registered name, a folder, or ``OWNER/NAME``.

    Returns
    -------
    Contender
        The method.

    Raises
    ------
    UnknownNameError, WeightsError, HubError
        If there is no such method, or its weights cannot be had.
    MissingPackageError
        If a baseline needs a package that is not installed.
    ConfigError
        If the config of a model cannot be read.
    """
    if name in BASELINES:
        flat = np.zeros((32, 32), np.uint8)
        get_baseline(name)(flat, flat, np.eye(3))  # answers at once, unless its package is missing
        return Contender(name)
    source = locate(name)
    return Contender(source.name, weights_digest(source.folder), name, _budget(source.folder))


def _budget(folder: Path) -> Mapping[str, str]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        facts = {**config.get("training", {}), "starter": config.get("config", {}).get("starter", "")}
        return MappingProxyType({key: str(facts.get(key, "")) for key in BUDGET})
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error}; expected a model's config") from error


class Comparison:
    """The table and the errors in a folder.

    Parameters
    ----------
    folder
        Holds ``comparison.csv`` and ``comparison_errors.csv``, or will; it is created when they are written.

    Attributes
    ----------
    rows
        By method and set, as text by column.
    errors
        By method and set: error as text by name of the pair.

    Raises
    ------
    DataError
        If a file of the folder is not what this class writes.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._changed: set[tuple[str, str]] = set()
        self._read()

    def _read(self) -> None:
        self.rows: dict[tuple[str, str], dict[str, str]] = {}
        self.errors: dict[tuple[str, str], dict[str, str]] = {}
        for row in _read(self.table_path, ("method", "weights", "set", "n", "mean", "set_hash")):
            self.rows[row["method"], row["set"]] = row
        for row in _read(self.errors_path, ("method", "set", "name", "error")):
            self.errors.setdefault((row["method"], row["set"]), {})[row["name"]] = row["error"]

    @property
    def table_path(self) -> Path:
        """The CSV with a row for each method and set."""
        return self.folder / "comparison.csv"

    @property
    def errors_path(self) -> Path:
        """The CSV with a row for each method, set and pair."""
        return self.folder / "comparison_errors.csv"

    @property
    def partial_folder(self) -> Path:
        """Where the answers of unfinished cells are kept."""
        return self.folder / "partial"

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Method and set of every row: by set, then in the order of :data:`METHODS`, then by name."""
        rank = {name: index for index, name in enumerate(METHODS)}
        return sorted(self.rows, key=lambda key: (key[1], rank.get(key[0], len(rank)), key[0]))

    def has(self, contender: Contender, dataset: SkyDataSet, set_hash: str) -> bool:
        """Whether the row is there, about these weights and these pairs, with the error of each of them."""
        key = contender.name, dataset.name
        row = self.rows.get(key, {})
        about = row.get("weights"), row.get("set_hash")
        named = self.errors.get(key, {}).keys() == set(dataset.names)
        return named and about == (contender.weights[:HASH_DIGITS], set_hash)

    def put(self, contender: Contender, found: Evaluation, set_hash: str) -> None:
        """Add or replace a row and its errors; :meth:`write` writes them."""
        key = contender.name, found.dataset
        self.rows[key] = {**found.csv_row(), **contender.budget, "set_hash": set_hash}
        self.errors[key] = {
            name: f"{error:.2f}" for name, error in zip(found.names, found.errors, strict=True)
        }
        self._changed.add(key)

    def describe(self, contender: Contender, name: str) -> None:
        """Let the row of a method on a set say what is now known of its training."""
        key = contender.name, name
        if not contender.budget.items() <= self.rows[key].items():
            self.rows[key].update(contender.budget)
            self._changed.add(key)

    def take(self, other: Comparison) -> None:
        """Add the cells of another comparison, in the place of those that are here."""
        self.rows.update({key: dict(row) for key, row in other.rows.items()})
        self.errors.update(other.errors)
        self._changed.update(other.rows)

    def write(self) -> None:
        """Write both files, or, if one cannot be written, none.

        What other processes have written since is kept, and then also here: several may fill one comparison.

        Raises
        ------
        DataError
            If a file has become something else.
        OutputError
            If they cannot be written.
        """
        make_folder(self.folder)
        with _lock(self.folder):
            own = [(key, self.rows[key], self.errors[key]) for key in self._changed]
            self._read()
            for key, row, errors in own:
                self.rows[key], self.errors[key] = row, errors
            self._write()
        self._changed.clear()

    def _write(self) -> None:
        columns = dict.fromkeys(column for row in self.rows.values() for column in row)
        table = csv_text(list(columns), (self.rows[key] for key in self.keys))
        lines = (
            {"method": method, "set": name, "name": pair, "error": error}
            for method, name in self.keys
            for pair, error in self.errors.get((method, name), {}).items()
        )
        errors = csv_text(["method", "set", "name", "error"], lines)
        atomic_write_files({self.table_path: table.encode(), self.errors_path: errors.encode()})


def compare(
    contenders: Sequence[Contender],
    sets: Sequence[SkyDataSet],
    table: Comparison,
    *,
    again: bool = False,
    batch_size: int = 8,
    device: str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Fill the cells of a comparison that are not there yet; each is written as soon as it is measured.

    Parameters
    ----------
    contenders, sets
        Every one of the first on every one of the second.
    table
        Where the rows go.
    again
        Whether to measure also what is there.
    batch_size
        Pairs a model gets at a time, and pairs that a cut run loses at most.
    device
        Of the models; the CPU by default.
    report
        Called with a line for each cell.

    Returns
    -------
    list of str
        What could not be measured and why, a line each.

    Raises
    ------
    DataError, ImageReadError
        If a pair cannot be read.
    OutputError
        If the results cannot be written.
    """
    hashes = [dataset.digest()[:HASH_DIGITS] for dataset in sets]
    skipped = []
    for contender in contenders:
        todo = []
        for dataset, set_hash in zip(sets, hashes, strict=True):
            if table.has(contender, dataset, set_hash) and not again:
                report(f"{contender.name} on {dataset.name}: there already")
                table.describe(contender, dataset.name)
            else:
                todo.append((dataset, set_hash))
        if not todo:
            continue
        try:
            runner = contender.load(device)
        except HomoregError as error:
            skipped.append(f"{contender.name} cannot be loaded: {error}")
            continue
        for dataset, set_hash in todo:
            found = _measure(contender, runner, dataset, set_hash, table, batch_size)
            report(f"{contender.name} on {dataset.name}: median {found.summary.median:.2f} px")
    if table.rows:
        table.write()
    return skipped


def _measure(
    contender: Contender,
    runner: Baseline | RegistersMany,
    dataset: SkyDataSet,
    set_hash: str,
    table: Comparison,
    batch_size: int,
) -> Evaluation:
    """One cell, by way of a log that outlives a cut."""
    key = {"method": contender.name, "weights": contender.weights, "set": dataset.name, "pairs": set_hash}
    log = AnswerLog(
        table.partial_folder / f"{contender.name.replace(os.sep, '--')}-{dataset.name}.jsonl", key
    )
    found = evaluate(
        runner,
        dataset,
        name=contender.name,
        weights=contender.weights,
        batch_size=batch_size,
        progress=True,
        log=log,
    )
    table.put(contender, found, set_hash)
    table.write()
    log.path.unlink(missing_ok=True)
    return found


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keep other processes from writing a comparison in between, where the system has such locks."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read(path: Path, needed: Iterable[str]) -> list[dict[str, str]]:
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), set(reader.fieldnames or ())
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read {str(path)!r}: {error}; restore it or name another folder") from error
    torn = any(None in row or None in row.values() for row in rows)
    if torn or not set(needed) <= columns:
        raise DataError(
            f"{str(path)!r} is not a comparison: expected the columns {', '.join(needed)}... and a value for "
            "each in every line; restore it or name another folder"
        )
    return rows
