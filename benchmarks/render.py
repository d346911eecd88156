"""Write the results table into README, docs and model cards from the committed CSV.

    homoreg eval --model m120 --method sift ecc --data DIR... --csv benchmarks/results/m120.csv
    python benchmarks/render.py [--check]

Every figure between the result markers of those pages comes from that CSV and from nowhere else; ``--check``
changes nothing and fails if a page is out of date.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "m120.csv"
WEIGHTS = ROOT / "src" / "homoreg" / "weights" / "m120" / "model.safetensors"
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "evaluation.md",
    ROOT / "src" / "homoreg" / "weights" / "m120" / "README.md",
)
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
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


def render(rows: list[dict[str, str]]) -> str:
    """Return the table as Markdown, grouped by test set."""
    labels = [label for _, label in LENGTHS + SHARES]
    lines = ["| set (pairs) | method | " + " | ".join(labels) + " |"]
    lines.append("|---|---|" + "--:|" * len(labels))
    seen = ""
    for row in sorted(rows, key=lambda r: [r["set"] for r in rows].index(r["set"])):
        name = f"{row['set']} ({row['n']})" if row["set"] != seen else ""
        seen = row["set"]
        cells = [f"{float(row[key]):.2f}" for key, _ in LENGTHS]
        cells += [f"{100 * float(row[key]):.0f} %" for key, _ in SHARES]
        lines.append(f"| {name} | {row['method']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def replace(page: str, table: str) -> str:
    """Return a page with what stands between its markers replaced."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table}\n{END}{tail}"


def main() -> int:
    """Render, or check, all pages."""
    parser = argparse.ArgumentParser(description="Render the results table from its CSV.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page is out of date")
    arguments = parser.parse_args()
    with RESULTS.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    digest = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    measured = {row["weights"] for row in rows if row["method"] == "m120"}
    if not all(digest.startswith(one) and one for one in measured) or not measured:
        print(f"{RESULTS.name} is about weights {sorted(measured)}, not {digest[:12]}: evaluate again")
        return 1
    stale = []
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        fresh = replace(page, render(rows))
        if fresh != page:
            stale.append(path)
            if not arguments.check:
                path.write_text(fresh, encoding="utf-8")
    for path in stale:
        print(f"{'out of date' if arguments.check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if stale and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
