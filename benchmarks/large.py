"""How long one registration with a very large RGB image takes, and how much memory.

    python benchmarks/large.py [--side 8192] [--threads 2] [--file]

The RGB image is generated: enlarged random rectangles; the infrared image (640x512) is a part of it. With
``--file`` both are read from files (JPEG and 16-bit PNG), else from arrays. Figures are printed as they were
measured, on this machine, in this run. The peak is that of the whole process, libraries and images included.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

UNIT = 2**20 if sys.platform == "darwin" else 2**10  # getrusage counts in bytes there, in KiB on Linux


def peak() -> float:
    """Largest memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNIT


def make(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Infrared (512, 640) uint16 and RGB (side, side, 3) uint8 of one scene."""
    rng = np.random.default_rng(0)
    small = np.full((1024, 1024, 3), 110, np.uint8)
    for step in range(600):
        x, y = (int(value) for value in rng.integers(0, 1024, 2))
        extent = int(4 + 200 * 0.99**step)
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.rectangle(small, (x, y), (x + extent, y + int(extent * rng.uniform(0.4, 1.6))), colour, -1)
    part = cv2.resize(small[200:760, 150:850].mean(axis=2).astype(np.float32), (640, 512))
    return (7300 + 2 * part).astype(np.uint16), cv2.resize(small, (side, side))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time and memory of one registration with a large image.")
    parser.add_argument("--model", default="m120")
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--file", action="store_true", help="read both images from files")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)

    from homoreg import Registrar

    registrar = Registrar.from_pretrained(arguments.model, device="cpu")
    ir, rgb = make(arguments.side)
    print(f"{arguments.side} x {arguments.side} px, {arguments.threads} threads, {arguments.model}")
    print(f"before, with images   {peak():8.0f} MiB")
    with tempfile.TemporaryDirectory() as folder:
        pair: tuple[object, object] = (ir, rgb)
        if arguments.file:
            pair = (Path(folder) / "ir.png", Path(folder) / "rgb.jpg")
            cv2.imwrite(str(pair[0]), ir)
            cv2.imwrite(str(pair[1]), rgb[..., ::-1])
            del rgb
        for name in ("first", "second"):
            start, busy = time.perf_counter(), time.process_time()
            result = registrar(*pair)  # type: ignore[arg-type]
            wall, work = time.perf_counter() - start, time.process_time() - busy
            print(f"{name:6} registration   {wall:8.2f} s ({work:.2f} s of processor time, {result.status})")
    print(f"peak memory           {peak():8.0f} MiB")


if __name__ == "__main__":
    main()
