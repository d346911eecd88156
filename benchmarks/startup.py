"""How long a fresh process takes from its first line to its first registration, and what torch's share is.

    python benchmarks/startup.py [--runs 10] [--threads 2] [--csv benchmarks/results/startup.csv]

Each run starts two processes, one after the other, in turn: one that only imports torch, and one that imports
homoreg, loads an embedded model and registers a pair of files without a prior (640x512 infrared, 1920x1080
RGB). Wall time is what a person waits; processor time is that of all threads together, and holds up better on
a machine that does other work. `total / torch` is the ratio of the two processes' own times, run by run: it
compares with the same ratio from another machine, where seconds do not.

One more run goes first and is not counted: it leaves the files in the system's cache and the compiled modules
in a temporary folder, as an installation compiles them.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TypeAlias

import cv2

from homoreg.files import atomic_write_text

SEA_ICE = Path(__file__).resolve().parents[1] / "examples" / "samples" / "sea_ice"
COLUMNS = ("phase", "clock", "min", "median", "max", "runs", "threads", "model")

# Both children print [[phase, wall seconds, processor seconds], ...].
CLOCKS = """
import time
began = time.perf_counter(), time.process_time()
marks = []
def mark(phase):
    marks.append((phase, time.perf_counter(), time.process_time()))
def report():
    import json
    marks.insert(0, ("start", *began))
    steps = zip(marks, marks[1:])
    print(json.dumps([[b[0], b[1] - a[1], b[2] - a[2]] for a, b in steps]))
"""
TORCH = f"{CLOCKS}\nimport torch\nmark('import torch, alone')\nreport()"
WHOLE = f"""{CLOCKS}
import sys
_, ir, rgb, model, threads = sys.argv
import homoreg
mark('import homoreg')
homoreg.Registrar
mark('import Registrar, and torch')
import cv2, torch
torch.set_num_threads(int(threads))
cv2.setNumThreads(int(threads))
registrar = homoreg.Registrar.from_pretrained(model, device='cpu')
mark('load the model')
registrar(ir, rgb)
mark('first registration')
report()
"""
Seconds: TypeAlias = dict[tuple[str, str], list[float]]
"""By phase and clock ("wall", "processor"), one figure a run."""


def write_pair(folder: Path) -> tuple[Path, Path]:
    """Write the bundled pair, its RGB image enlarged to 1920x1080, and return both paths."""
    rgb = cv2.imread(str(SEA_ICE / "rgb.jpg"))
    if rgb is None:
        raise SystemExit(f"a sample image in {SEA_ICE} is missing: restore it from the repository")
    enlarged = folder / "rgb.jpg"
    cv2.imwrite(str(enlarged), cv2.resize(rgb, (1920, 1080)))
    return SEA_ICE / "thermal_16bit.png", enlarged


def run_child(code: str, arguments: list[str], environment: dict[str, str]) -> list[tuple[str, float, float]]:
    """Run a program in a fresh interpreter: phases, wall and processor seconds, and their sum last."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"a measured process failed:\n{done.stderr}")
    phases = [(str(name), float(wall), float(cpu)) for name, wall, cpu in json.loads(done.stdout)]
    return [*phases, ("total", sum(p[1] for p in phases), sum(p[2] for p in phases))]


def measure(runs: int, threads: int, model: str) -> Seconds:
    """Run both processes in turn, and keep the figures of all runs but the first."""
    seconds: Seconds = {}
    with tempfile.TemporaryDirectory(prefix="homoreg-startup-") as name:
        folder = Path(name)
        ir, rgb = write_pair(folder)
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
        for run in range(runs + 1):
            alone = run_child(TORCH, [], environment)[0]
            whole = run_child(WHOLE, [str(ir), str(rgb), model, str(threads)], environment)
            if run == 0:
                continue
            for phase, wall, processor in [alone, *whole]:
                seconds.setdefault((phase, "wall"), []).append(wall)
                seconds.setdefault((phase, "processor"), []).append(processor)
            for index, clock in enumerate(("wall", "processor"), start=1):
                ratio = float(whole[-1][index]) / float(alone[index])
                seconds.setdefault(("total / torch", clock), []).append(ratio)
    return seconds


def main() -> None:
    """Measure, print, and write the figures if a file is named."""
    parser = argparse.ArgumentParser(description="Time from a fresh process to the first registration.")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="m120")
    parser.add_argument("--csv", type=Path, help="file for the figures; printed only, without it")
    arguments = parser.parse_args()
    seconds = measure(arguments.runs, arguments.threads, arguments.model)
    rows = [
        [phase, clock, f"{min(v):.3f}", f"{statistics.median(v):.3f}", f"{max(v):.3f}", len(v)]
        for (phase, clock), v in seconds.items()
    ]
    for phase, clock, least, middle, most, count in rows:
        print(f"{phase:28} {clock:10} min {least}  median {middle}  max {most}  ({count} runs)")
    if arguments.csv:
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerows([COLUMNS, *([*row, arguments.threads, arguments.model] for row in rows)])
        atomic_write_text(arguments.csv, table.getvalue())


if __name__ == "__main__":
    main()
