"""How long importing, loading and one registration take, and how much memory.

    python benchmarks/speed.py [--threads 2] [--repeat 10]

The pair is a bundled one: 640x512 infrared, and its RGB image enlarged to 1920x1080. Figures are printed as
they were measured, on this machine, in this run.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import cv2
import torch

SEA_ICE = Path(__file__).resolve().parents[1] / "examples" / "samples" / "sea_ice"


def import_seconds(module: str) -> float:
    """Seconds a fresh interpreter needs to import a module: the least of five."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    return min(float(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(5))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time and memory of one registration.")
    parser.add_argument("--model", default="m120")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.model}")
    print(f"import homoreg        {1000 * import_seconds('homoreg'):8.0f} ms")

    from homoreg import Registrar

    start = time.perf_counter()
    registrar = Registrar.from_pretrained(arguments.model, device="cpu")
    print(f"from_pretrained       {1000 * (time.perf_counter() - start):8.0f} ms (with the imports it needs)")

    ir = cv2.imread(str(SEA_ICE / "thermal_16bit.png"), cv2.IMREAD_UNCHANGED)
    rgb = cv2.imread(str(SEA_ICE / "rgb.jpg"))
    if ir is None or rgb is None:
        raise SystemExit(f"a sample image in {SEA_ICE} is missing: restore it from the repository")
    rgb = cv2.resize(rgb[..., ::-1], (1920, 1080))
    seconds = []
    for _ in range(arguments.repeat + 1):
        start = time.perf_counter()
        registrar(ir, rgb)
        seconds.append(time.perf_counter() - start)
    first, rest = seconds[0], seconds[1:]
    print(f"first registration    {1000 * first:8.0f} ms")
    print(f"registration          {1000 * statistics.median(rest):8.0f} ms (median of {len(rest)})")
    # Linux counts in KiB, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory           {peak / unit:8.0f} MiB")


if __name__ == "__main__":
    main()
