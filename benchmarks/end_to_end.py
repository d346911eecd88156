"""Whole images with an unknown field of view: the full road from two files to a homography.

    python benchmarks/end_to_end.py --data DIR [--model m120] [--samples] [--csv FILE]

``DIR`` holds one folder a set with ``NAME_ir.*``, ``NAME_rgb.*`` and ``NAME.json``, whose ``homography`` maps
infrared px to RGB px. The error is the mean distance of the four mapped corners, measured in infrared px and
scaled to an infrared image 128 px wide. ``--samples`` adds the bundled pairs. The truth is read for the
error and for nothing else.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from homoreg import Registrar
from homoreg.evaluation import weights_digest
from homoreg.files import atomic_write_text
from homoreg.geometry import image_corners, invert_homography, transform_points
from homoreg.pretrained import locate

SAMPLES = Path(__file__).resolve().parents[1] / "examples" / "samples"


def find_cases(folder: Path) -> Iterator[tuple[str, Path, Path, Path]]:
    """Yield name, infrared, RGB and truth of every case of a set."""
    for truth in sorted(folder.glob("*.json")):
        ir = next(folder.glob(f"{truth.stem}_ir.*"))
        rgb = next(folder.glob(f"{truth.stem}_rgb.*"))
        yield truth.stem, ir, rgb, truth


def bundled_cases() -> Iterator[tuple[str, Path, Path, Path]]:
    """Yield the same for the bundled samples."""
    for name, (ir, rgb) in json.loads((SAMPLES / "pairs.json").read_text(encoding="utf-8")).items():
        folder = SAMPLES / name
        yield name, folder / ir, folder / rgb, folder / "gt.json"


def infrared_error(found: np.ndarray, truth: np.ndarray, size: tuple[int, int]) -> float:
    """Mean corner error in infrared px: where the RGB points of the truth come back to."""
    corners = image_corners(*size, dtype=torch.float64)
    back = invert_homography(torch.tensor(found, dtype=torch.float64))
    there = transform_points(torch.tensor(truth, dtype=torch.float64), corners)
    return float((transform_points(back, there) - corners).norm(dim=-1).mean())


def main() -> None:
    """Register every case and print a line for each, then one a set."""
    parser = argparse.ArgumentParser(description="Errors on whole images of unknown field of view.")
    parser.add_argument("--data", type=Path, action="append", default=[], help="folder of sets")
    parser.add_argument("--samples", action="store_true", help="add the bundled pairs")
    parser.add_argument("--model", default="m120")
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    registrar = Registrar.from_pretrained(arguments.model)
    sets = {
        folder.name: list(find_cases(folder))
        for data in arguments.data
        for folder in sorted(data.iterdir())
        if folder.is_dir()
    }
    if arguments.samples:
        sets["samples"] = list(bundled_cases())
    digest = weights_digest(locate(arguments.model).folder)[:12]
    lines = ["model,weights,set,case,error_128,error_ir_px,confidence,reliable,seconds"]
    for name, cases in sets.items():
        rows = []
        for case, ir, rgb, truth in cases:
            began = time.perf_counter()
            result = registrar(ir, rgb)
            seconds = time.perf_counter() - began
            facts = json.loads(truth.read_text())
            known = np.array(facts.get("homography", facts.get("H_ir_to_rgb")))
            size = result.ir.size
            error = infrared_error(result.homography, known, size)
            row = (error * 128 / size[0], error, result.confidence, result.reliable, seconds)
            rows.append(row)
            lines.append(
                f"{registrar.name},{digest},{name},{case},{row[0]:.3f},{row[1]:.3f},{row[2]:.4f},{row[3]},{row[4]:.3f}"
            )
            print(lines[-1], flush=True)
        scaled, own = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
        sure = np.array([r[3] for r in rows])
        wrong = int((scaled[sure] > 10).sum())
        middle = f"{np.median(own[sure]):.2f}" if sure.any() else "-"
        print(
            f"{name}: {len(rows)} cases, {np.mean(scaled < 3):.0%} under 3 px at 128, {sure.sum()} reliable, "
            f"of those {wrong} over 10 px, their median in infrared px {middle}"
        )
    if arguments.csv:
        atomic_write_text(arguments.csv, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
