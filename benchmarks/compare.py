"""Every method on every set, into one table and one picture.

    python benchmarks/compare.py --data DIR... [--method NAME...] [--out DIR] [--limit N]

--data takes sets in SkyData's folder layout. The folder --out gets the table, comparison.csv, the error of
every pair, comparison_errors.csv, and a box plot, comparison.png. Without --out the two tables are those in
benchmarks/results, which the documentation is rendered from (`python benchmarks/render.py`), and the picture
is docs/images/comparison.png.

A cell of the table that is about the same weights and the same pairs is not measured again, and a run that
was cut continues where it was cut. Several runs may fill one table at a time; --merge adds the tables of
others. A method whose weights or packages are missing is named and left out. Without --data, only the picture
is drawn.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch

from homoreg.comparison import METHODS, Comparison, Contender, compare, find_contender
from homoreg.errors import HomoregError
from homoreg.plotting import box_plot
from homoreg.synthesis.dataset import SkyDataSet

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PICTURE = ROOT / "docs" / "images" / "comparison.png"


def say(line: str) -> None:
    """Print a line at once, beside the progress bars."""
    print(line, file=sys.stderr, flush=True)


def find_all(names: Sequence[str], *, required: bool) -> tuple[list[Contender], list[str]]:
    """Methods that can be run, and why the others cannot; the first of these raises if all are required."""
    found, missing = [], []
    for name in names:
        try:
            found.append(find_contender(name))
        except HomoregError as error:
            if required:
                raise
            missing.append(f"{name} is not available: {error}")
    return found, missing


def draw(table: Comparison, path: Path) -> bool:
    """Draw the errors of a table unless the picture shows them already; say whether it was drawn."""
    source = hashlib.sha256(table.errors_path.read_bytes()).hexdigest()
    if path.exists() and source.encode() in path.read_bytes()[:1024]:
        return False
    errors: dict[str, dict[str, list[float]]] = {}
    for method, name in table.keys:
        errors.setdefault(name, {})[method] = [float(e) for e in table.errors[method, name].values()]
    methods = list(dict.fromkeys(method for method, _ in table.keys))
    methods.sort(key=lambda name: METHODS.index(name) if name in METHODS else len(METHODS))
    path.parent.mkdir(parents=True, exist_ok=True)
    box_plot(errors, path, methods=methods, source=source)
    return True


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description="Compare methods on frozen sets.")
    parser.add_argument("--data", nargs="+", default=[], metavar="DIR", help="sets in SkyData's layout")
    parser.add_argument(
        "--method",
        nargs="+",
        metavar="NAME",
        help=f"some of {', '.join(METHODS)}, or folders of models; all of these names by default",
    )
    parser.add_argument("--split", default="val", help="split of the sets (default: val)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pairs; needs --out")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the results")
    parser.add_argument("--merge", nargs="+", default=[], metavar="DIR", help="results to take over first")
    parser.add_argument("--again", action="store_true", help="measure also what is there")
    parser.add_argument("--device", help="of the models (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    options = parser.parse_args(arguments)
    if options.limit is not None and (options.limit < 1 or options.out is None):
        parser.error("--limit takes at least 1 and needs --out: the committed table is about whole sets")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing; 0 if every method could be run on every set."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    table = Comparison(options.out or RESULTS)
    for folder in options.merge:
        table.take(Comparison(folder))
        table.write()
    missing: list[str] = []
    if options.data:
        sets = [SkyDataSet(folder, options.split) for folder in options.data]
        sets = [one.head(options.limit) for one in sets] if options.limit else sets
        contenders, missing = find_all(options.method or METHODS, required=options.method is not None)
        for line in missing:
            say(line)
        failed = compare(contenders, sets, table, again=options.again, device=options.device, report=say)
        for line in failed:
            say(line)
        missing += failed
    picture = options.out / "comparison.png" if options.out else PICTURE
    if table.rows and draw(Comparison(table.folder), picture):
        say(f"written: {picture}")
    return 1 if missing else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except HomoregError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
