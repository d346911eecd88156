"""Read damaged files in a child process with limits on memory and time, and tell what went wrong.

The child reads; the parent watches. A crash of the child, a case that takes too long by the clock or too much
memory, and any error but the reader's own, are failures. After a crash the child is started again behind the
case. What libjpeg and libpng write to the terminal from C is no failure: it cannot be kept off it without
taking the terminal from other threads.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.mutations import case

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 2 * 2**30  # bytes: resident in all, and address space beyond what the libraries take
SECONDS = 2.0  # of the clock
STUCK = 300.0  # seconds without a sign of life, on a machine that may be busy


@dataclass
class Report:
    """What came of a run: seconds of the clock of the slowest case, bytes resident at the most."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    peak: int = 0


def run(count: int, seed: int, first: int = 0) -> Report:
    """Read `count` damaged files from case `first` on."""
    report = Report()
    index = first
    while index < first + count:
        index = _run_child(report, index, first + count, seed)
    return report


def _run_child(report: Report, first: int, last: int, seed: int) -> int:
    """Run a child; returns the case to go on with."""
    command = [sys.executable, "-m", "tests.fuzz", "--child", f"{first}:{last}", "--seed", str(seed)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    index = first
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as noise,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=noise, text=True
        ) as child,
    ):
        assert child.stdout is not None
        alive = [time.monotonic()]
        threading.Thread(target=_kill_if_stuck, args=(child, alive), daemon=True).start()
        for line in child.stdout:
            alive[0] = time.monotonic()
            record = json.loads(line)
            index = record["index"] + 1
            report.outcomes[record["outcome"]] += 1
            report.slowest = max(report.slowest, record["seconds"])
            report.peak = max(report.peak, record["peak"])
            where = f"case {record['index']} ({record['name']})"
            report.failures += [f"{where}: {text}" for text in record["failed"]]
        if child.wait() != 0:
            noise.seek(0)
            where = f"case {index} ({case(seed, index)[0]})"
            report.failures.append(f"{where}: the child died with {child.returncode}: {noise.read()[-400:]}")
            report.outcomes["crash"] += 1
            index += 1
    return index


def _kill_if_stuck(child: subprocess.Popen[str], alive: list[float]) -> None:
    while child.poll() is None:
        time.sleep(0.5)
        if time.monotonic() - alive[0] > STUCK:
            child.kill()


def child(first: int, last: int, seed: int) -> None:
    """Read the cases and write a line of JSON for each."""
    import cv2
    import numpy as np

    from homoreg.imaging.reading import read_image

    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "warm.npy"
        np.save(path, np.zeros((20, 20), np.uint8))
        read_image(path)
        _limit_memory()
        for index in range(first, last):
            name, data = case(seed, index)
            path = Path(folder) / name
            path.write_bytes(data)
            seconds, (outcome, failed) = _timed(path, index)
            if seconds > SECONDS:  # another process may have had the processor
                seconds = min(seconds, _timed(path, index)[0])
                failed += [f"took {seconds:.1f} s, twice"] if seconds > SECONDS else []
            peak = _peak()
            if peak > MEMORY:
                failed.append(f"{peak / 2**20:.0f} MiB are resident")
            path.unlink()
            record = {
                "index": index,
                "name": name,
                "outcome": outcome,
                "failed": failed,
                "seconds": seconds,
                "peak": peak,
            }
            sys.stdout.write(json.dumps(record) + "\n")
            sys.stdout.flush()


def _timed(path: Path, index: int) -> tuple[float, tuple[str, list[str]]]:
    start = time.monotonic()
    came = _read(path, index)
    return time.monotonic() - start, came


def _limit_memory() -> None:
    """Let allocations fail where a case asks for more than it may; the reader then says so."""
    if not sys.platform.startswith("linux"):
        return
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _peak() -> int:
    """Bytes that were resident in this process at the most.

    On Linux from its own record: that of getrusage begins with what the process that started it had.
    """
    own = Path("/proc/self/status")
    if own.exists():
        return 1024 * int(own.read_text(encoding="ascii", errors="replace").partition("VmHWM:")[2].split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _read(path: Path, index: int) -> tuple[str, list[str]]:
    """What came of a file, and what was wrong with that."""
    import numpy as np

    from homoreg.errors import ImageReadError
    from homoreg.imaging.reading import read_image
    from homoreg.imaging.rjpeg import read_rjpeg

    try:
        if path.name.startswith("thermal") and index % 2:
            both = read_rjpeg(path)
            pictures = [both.thermal, both.visual]
            prior = both.prior
            if prior is not None and not np.isfinite(prior).all():
                return "picture", [f"prior {prior.tolist()}"]
        else:
            role, page = ("image", "ir", "rgb")[index % 3], 1 if index % 7 == 1 else 0
            pictures = [read_image(path, role=role, page=page)]  # type: ignore[arg-type]
    except ImageReadError as error:
        text = str(error)
        failed = [] if repr(os.fspath(path)) in text and len(text) < 600 + len(str(path)) else [text[:400]]
        memory = "not enough memory" in text
        return "refused", failed + (["ran out of memory"] if memory else [])
    except BaseException as error:
        return "error", [f"{type(error).__name__}: {str(error)[:300]}"]
    fine = all(np.isfinite(p.pixels).all() and min(p.size) >= 16 for p in pictures)
    return "picture", [] if fine else ["pixels that are not finite, or too few"]
