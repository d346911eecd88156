"""Write the results tables into README, docs and model cards from the committed CSV.

    python benchmarks/compare.py --data DIR...
    python benchmarks/efforts.py --data DIR...
    python benchmarks/end_to_end.py --data DIR --samples --csv benchmarks/results/end_to_end.csv
    python benchmarks/samples.py --data DIR...
    python benchmarks/references.py --data DIR...
    python benchmarks/colours.py --data DIR...
    python benchmarks/render.py [--check]

Every figure between the markers of those pages comes from the CSV files in benchmarks/results, but for what
others published: that is PUBLISHED below. ``--check`` changes nothing, and fails if a page is out of
date. Both forms fail if the CSV is about other weights than those that are here or disagrees with the errors
of the pairs, or the picture does.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

from homoreg.files import atomic_write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS, OTHERS = "results", "published"  # what markers can be about
EFFORTS, TRUST, WHOLE, SEEN = "efforts", "trust", "end_to_end", "samples"  # the same, and names of CSV files
REFERENCES, COLOURS = "references", "colours"
LENGTHS = (
    ("mean", "mean"),
    ("std", "std"),
    ("min", "min"),
    ("q25", "25 %"),
    ("median", "median"),
    ("q75", "75 %"),
    ("max", "max"),
)
SHARES = (("under_1", "< 1 px"), ("under_3", "< 3 px"), ("under_5", "< 5 px"), ("under_10", "< 10 px"))
AREAS = (("auc_3", "AUC 3"), ("auc_5", "AUC 5"), ("auc_10", "AUC 10"))
PUBLISHED = (
    ("DHN", "dhn", "151.2, 143.0", "77.96, 65.95", "163.87, 137.43"),
    ("MHN", "mhn", "169.1, 160.6", "14.5, 11.36", "374.53, 103.68"),
    ("CLKN", "clkn", "54.6, 29.3", "77.31, 47.72", "99.49, 52.29"),
    ("DLKFM", "dlkfm", "48.9, 1.29", "93.4, 40.73", "382.4, 120.09"),
    ("M70", "m70", "145.4, –", "–", "–"),
    ("M120", "m120", "145.8, –", "–", "–"),
    ("M175", "m175", "145.1, –", "–", "–"),
    ("VisIRNet", "", "–", "3.83, 3.46", "24.76, 24.88"),
    ("*doing nothing*", "nothing", "24.49, 24.62", "–", "–"),
)
"""System, its name here, and what others published of it: mean and median, px, not measured here."""
LIKE = ("uav_thermal", "aerial_nir")  # our sets nearest to SkyData (drone, thermal) and VEDAI (aerial, NIR)
LESS = "†"  # marks what was trained on fewer samples than another row

Row: TypeAlias = dict[str, str]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int) -> str:
    """Return a Markdown table whose first columns are text and whose others are figures."""
    rule = ["---"] * text_columns + ["--:"] * (len(header) - text_columns)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def samples_of(row: Row) -> int:
    """Return the samples a row's model was trained on, 0 where there are none or it is not known."""
    return int(float(row["samples"] or 0))


def label(row: Row, most: int) -> str:
    """Return the method's name, marked if another row was trained on more samples."""
    return row["method"] + (f" {LESS}" if 0 < samples_of(row) < most else "")


def budget(row: Row) -> str:
    """Return the samples a row's model was trained on, in words."""
    own = f"{samples_of(row):,}" if samples_of(row) else ("not recorded" if row["weights"] else "–")
    return f"{own}, after {row['starter']}" if row["starter"] else own


def note(rows: Sequence[Row]) -> str:
    """Return the sentence that explains the mark; empty if no row bears it."""
    most = max(map(samples_of, rows))
    if not any(0 < samples_of(row) < most for row in rows):
        return ""
    names = dict.fromkeys(row["method"] for row in rows if samples_of(row) == most)
    return f"\n\n{LESS} trained on fewer samples than {', '.join(names)} ({most:,})."


def compact(rows: Sequence[Row]) -> str:
    """Return methods by sets: mean / median / share under 3 px / maximum."""
    sets = {row["set"]: row["n"] for row in rows}
    most = max(map(samples_of, rows))
    lines: dict[str, list[str]] = {}
    for row in rows:
        lines.setdefault(row["method"], [label(row, most), budget(row), *["–"] * len(sets)])
        place = 2 + list(sets).index(row["set"])
        share = f"{100 * float(row['under_3']):.0f} %"
        lengths = [
            f"{float(row[key]):.{digits}f}" for key, digits in (("mean", 2), ("median", 2), ("max", 1))
        ]
        lines[row["method"]][place] = f"{lengths[0]} / {lengths[1]} / {share} / {lengths[2]}"
    header = ["method", "training samples", *(f"{name} ({n})" for name, n in sets.items())]
    return markdown(header, lines.values(), 1) + note(rows)


def full(rows: Sequence[Row], *, extra: bool = True) -> str:
    """Return every column, grouped by set."""
    most = max(map(samples_of, rows))
    columns = [*LENGTHS, *SHARES, *(AREAS if extra else ())]
    header = ["set (pairs)", "method", *(name for _, name in columns), *(["doubted", "ms"] if extra else [])]
    lines, seen = [], ""
    for row in rows:
        cells = [f"{row['set']} ({row['n']})" if row["set"] != seen else "", label(row, most)]
        seen = row["set"]
        cells += [f"{float(row[key]):.2f}" for key, _ in LENGTHS]
        cells += [f"{100 * float(row[key]):.0f} %" for key, _ in SHARES]
        if extra:
            cells += [f"{float(row[key]):.3f}" for key, _ in AREAS]
            cells += [row["failed"], f"{float(row['ms']):.0f}" if float(row["ms"]) >= 1 else "< 1"]
        lines.append(cells)
    return markdown(header, lines, 2) + note(rows)


def budgets(rows: Sequence[Row]) -> str:
    """Return what the training of every model took; empty if there is none."""
    most = max(map(samples_of, rows))
    models = {row["method"]: row for row in rows if row["weights"]}
    if not models:
        return ""
    lines = []
    for name, row in models.items():
        share = f"{100 * samples_of(row) / most:.0f} %" if samples_of(row) else "–"
        minutes = f"{float(row['minutes']):,.0f}" if row["minutes"] else "not recorded"
        facts = [row["hardware"] or "not recorded", row["starter"] or "–", f"`{row['weights']}`"]
        lines.append(
            [name, *facts, f"{samples_of(row):,}" if samples_of(row) else "not recorded", share, minutes]
        )
    header = ["model", "hardware", "starts from", "weights", "samples", "of the most", "minutes"]
    return "\n\n" + markdown(header, lines, 4)


def card(rows: Sequence[Row], name: str) -> str:
    """Return the table of one model's card: the model and the methods without weights."""
    return full([row for row in rows if row["method"] == name or not row["weights"]], extra=False)


def published(rows: Sequence[Row]) -> str:
    """Return what others published of the seven systems, and ours beside it: mean, median."""
    own = {
        (row["method"], row["set"]): f"{float(row['mean']):.2f}, {float(row['median']):.2f}" for row in rows
    }
    others = ("seed project, SkyData", "VisIRNet paper, SkyData", "VisIRNet paper, VEDAI")
    header = ["system", *(f"published: {one}" for one in others), *(f"measured here: {one}" for one in LIKE)]
    lines = [
        [system, *figures, *(own.get((name, one), "–") for one in LIKE)]
        for system, name, *figures in PUBLISHED
    ]
    return markdown(header, lines, 1)


def efforts(rows: Sequence[Row]) -> str:
    """Return efforts by sets, and what a pair costs."""
    sets = {row["set"]: row["n"] for row in rows}
    lines: dict[str, list[str]] = {}
    costs: dict[str, list[float]] = {}
    for row in rows:
        costs.setdefault(row["effort"], []).append(float(row["ms"]))
        share = f"{100 * float(row['under_3']):.0f} %"
        lines.setdefault(row["effort"], []).append(
            f"{float(row['mean']):.2f} / {float(row['median']):.2f} / {share} / {float(row['max']):.1f}"
        )
    header = ["effort", *(f"{name} ({n})" for name, n in sets.items()), "ms"]
    table = [[name, *cells, f"{sum(costs[name]) / len(costs[name]):.0f}"] for name, cells in lines.items()]
    return markdown(header, table, 1)


def colours(rows: Sequence[Row]) -> str:
    """Return errors by what the infrared images are shown as, sharp and compressed."""
    sets = {row["set"]: row["n"] for row in rows}
    lines: dict[str, list[str]] = {}
    for row in rows:
        shown = f"{row['colours']}, compressed" if row["compressed"] == "1" else row["colours"]
        share = f"{100 * float(row['under_3']):.1f} %"
        lines.setdefault(shown, []).append(f"{float(row['median']):.2f} / {float(row['mean']):.2f} / {share}")
    header = ["shown as", *(f"{name} ({n})" for name, n in sets.items())]
    return markdown(header, [[shown, *cells] for shown, cells in lines.items()], 1)


def trust(rows: Sequence[Row]) -> str:
    """Return what a model said of itself on each set, beside what came true."""
    header = ["set (pairs)", "< 3 px", "confidence", "AUROC", "ECE", "by chance"]
    header += ["> 10 px of the surest 80 %", "surest share with 3 % > 10 px"]
    header += ["reliable", "of these > 10 px", "mismatched refused"]
    measures = ("auroc", "ece", "ece_by_chance")
    shares = ("far_at_80", "coverage", "accepted", "accepted_far", "refused")
    lines = []
    for row in rows:
        cells = [f"{row['set']} ({row['n']})", percent(row["right"]), percent(row["confidence"])]
        cells += [f"{float(row[key]):.3f}" if row[key] != "nan" else "–" for key in measures]
        lines.append(cells + [percent(row[key]) for key in shares])
    return markdown(header, lines, 1)


def percent(value: str) -> str:
    """Return a share as text."""
    return f"{100 * float(value):.1f} %" if value != "nan" else "–"


def whole(rows: Sequence[Row]) -> str:
    """Return a line a set of whole pictures, and one a bundled sample."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["case"] if row["set"] == "samples" else row["set"], []).append(row)
    lines = []
    for name, group in groups.items():
        errors = [float(row["error_128"]) for row in group]
        vouched = [row for row in group if row["reliable"] == "True"]
        own = [float(row["error_ir_px"]) for row in vouched]
        lines.append(
            [
                f"{name} ({len(group)})",
                f"{statistics.median(errors):.2f}",
                percent(str(sum(error < 3 for error in errors) / len(errors))),
                str(len(vouched)),
                str(sum(float(row["error_128"]) > 10 for row in vouched)),
                f"{statistics.median(own):.2f}" if own else "–",
            ]
        )
    header = ["set (pictures)", "median", "< 3 px", "reliable", "of these > 10 px", "median, infrared px"]
    return markdown(header, lines, 1)


def seen(rows: Sequence[Row]) -> str:
    """Return samples seen by sets: median and mean after one pass, and what a power law foretells."""
    sets = {row["set"]: row["n"] for row in rows}
    lines: dict[str, list[str]] = {}
    for row in rows:
        samples = f"{int(row['samples']):,}" if row["commit"] else f"*{int(row['samples']):,}, foretold*"
        lines.setdefault(samples, []).append(f"{float(row['median']):.2f} / {float(row['mean']):.2f}")
    header = ["samples", *(f"{name} ({n})" for name, n in sets.items())]
    return markdown(header, [[name, *cells] for name, cells in lines.items()], 1)


def references(rows: Sequence[Row]) -> str:
    """Return by set and corner error how many answers fit the pictures better than the references do."""
    header = ["set", "corner error", "pairs", "reliable", "information", "gradients", "both"]
    bands = list(dict.fromkeys(row["from"] for row in rows))
    names = [f"{low}–{high} px" for low, high in pairwise(bands)] + [f"{bands[-1]} px and more"]
    lines, before = [], ""
    for row in rows:
        if int(row["n"]) > 0:
            name = "" if row["set"] == before else row["set"]
            before = row["set"]
            lines.append([name, names[bands.index(row["from"])], *(row[key] for key in ("n", *header[3:]))])
    return markdown(header, lines, 2)


def markers(about: str) -> tuple[str, str]:
    """Return the lines between which a page has a table."""
    return f"<!-- {about}:begin -->", f"<!-- {about}:end -->"


def replace(page: str, table: str, about: str = RESULTS) -> str:
    """Return a page with what stands between its markers replaced."""
    begin, end = markers(about)
    head, _, rest = page.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n{table}\n{end}{tail}"


def model_folders(root: Path) -> list[Path]:
    """Return the folders of all models of a checkout, in the package and beside it."""
    found = [*root.glob("src/homoreg/weights/*"), *root.glob("weights/*")]
    return sorted((path for path in found if (path / "model.safetensors").is_file()), key=lambda p: p.name)


def problems(root: Path, rows: Sequence[Row], errors: Sequence[Row]) -> list[str]:
    """Return what the CSV files say that the models and each other do not."""
    found = []
    sets = dict.fromkeys(row["set"] for row in rows)
    for folder in model_folders(root):
        digest = weights_of(folder)
        measured = {row["set"]: row["weights"] for row in rows if row["method"] == folder.name}
        stale = [name for name in sets if measured.get(name) != digest]
        if stale:
            found.append(f"{folder.name} ({digest}) was not measured on {', '.join(stale)}")
    by_row: dict[tuple[str, str], list[float]] = {}
    for error in errors:
        by_row.setdefault((error["method"], error["set"]), []).append(float(error["error"]))
    for row in rows:
        own = by_row.pop((row["method"], row["set"]), [])
        mean = sum(own) / len(own) if own else math.nan
        # Each error is rounded to 0.01, so their mean is right to half of that.
        if str(len(own)) != row["n"] or not (
            abs(mean - float(row["mean"])) < 0.006 or mean == float(row["mean"])
        ):
            found.append(f"{row['method']} on {row['set']}: the errors of the pairs are not those of the row")
    found += [f"{method} on {name}: errors without a row" for method, name in by_row]
    return found


def is_stale(root: Path, rows: Sequence[Row]) -> bool:
    """Return whether rows are about other weights than those that are here."""
    here = {folder.name: weights_of(folder) for folder in model_folders(root)}
    return any(here.get(row["model"]) != row["weights"] for row in rows)


def weights_of(folder: Path) -> str:
    """Return the first digits of the hash of a model's weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]


def read(path: Path) -> list[Row]:
    """Return the lines of a CSV."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Render, or check, all pages."""
    parser = argparse.ArgumentParser(description="Render the results tables from their CSV.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page is out of date")
    check = parser.parse_args(arguments).check
    results = root / "benchmarks" / "results"
    rows, errors = read(results / "comparison.csv"), read(results / "comparison_errors.csv")
    more = {name: read(results / f"{name}.csv") for name in (EFFORTS, TRUST, WHOLE, REFERENCES, COLOURS)}
    wrong = problems(root, rows, errors)
    wrong += [f"{name}.csv is not about the present weights" for name in more if is_stale(root, more[name])]
    history = read(results / f"{SEEN}.csv")
    if weights_of(root / "src/homoreg/weights/m120") not in {row["weights"] for row in history}:
        wrong.append(f"{SEEN}.csv is not about the present weights")
    picture = root / "docs" / "images" / "comparison.png"
    source = hashlib.sha256((results / "comparison_errors.csv").read_bytes()).hexdigest()
    if not picture.is_file() or source.encode() not in picture.read_bytes()[:1024]:
        wrong.append(f"{picture.relative_to(root)} does not show these errors")
    tables = {
        root / "README.md": {RESULTS: compact(rows)},
        root / "docs" / "evaluation.md": {
            RESULTS: full(rows) + budgets(rows),
            OTHERS: published(rows),
            EFFORTS: efforts(more[EFFORTS]),
            TRUST: trust(more[TRUST]),
            WHOLE: whole(more[WHOLE]),
            REFERENCES: references(more[REFERENCES]),
            COLOURS: colours(more[COLOURS]),
            SEEN: seen(history),
        },
        **{folder / "README.md": {RESULTS: card(rows, folder.name)} for folder in model_folders(root)},
    }
    stale = False
    for path, parts in tables.items():
        page = fresh = path.read_text(encoding="utf-8")
        for about, table in parts.items():
            if all(marker in page for marker in markers(about)):
                fresh = replace(fresh, table, about)
            else:
                wrong.append(f"{path.relative_to(root)} has no place for {about}: {' '.join(markers(about))}")
        if fresh != page:
            stale = True
            print(f"{'out of date' if check else 'written'}: {path.relative_to(root)}")
            if not check:
                atomic_write_text(path, fresh)
    if wrong:
        print("\n".join([*wrong, "to measure what is missing: python benchmarks/compare.py --data DIR..."]))
    return 1 if wrong or (check and stale) else 0


if __name__ == "__main__":
    sys.exit(main())
