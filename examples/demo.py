"""Register the bundled sample pairs and leave pictures to look at.

    python examples/demo.py [OUT]

The pictures and a JSON file of each pair go to OUT/NAME (default: out/NAME). `building` and `pier` are
published already aligned, so a known part of their infrared image is cut out, with perspective, and found
again.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from homoreg import Registrar, geometry, imaging, metrics

SAMPLES = Path(__file__).parent / "samples"
PAIRS = json.loads((SAMPLES / "pairs.json").read_text(encoding="utf-8"))
# Corners of the part to cut out, as shares of width and height, clockwise from the top left.
CUT_OUT = {
    "building": [(0.08, 0.05), (0.93, 0.10), (0.97, 0.92), (0.05, 0.95)],
    "pier": [(0.10, 0.12), (0.95, 0.06), (0.90, 0.93), (0.06, 0.90)],
}
Image = npt.NDArray[Any]
Matrix = npt.NDArray[np.float64]


def cut_out(path: Path, shares: list[tuple[float, float]]) -> tuple[Image, Matrix]:
    """Stretch a quadrilateral of an image over a whole frame; also the matrix from new to old pixels."""
    picture = imaging.read_image(path)
    width, height = picture.size
    reach = torch.tensor([width - 1, height - 1], dtype=torch.float64)
    frame = geometry.image_corners(width, height, dtype=torch.float64)
    to_old = geometry.homography_from_corners(
        frame, reach * torch.tensor(shares, dtype=torch.float64)
    ).numpy()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpPerspective(picture.pixels, to_old, picture.size, flags=flags), to_old


def main(out: Path) -> None:
    """Register every pair, save its pictures and print one line about it."""
    begin = time.perf_counter()
    registrar = Registrar.from_pretrained("m120")
    print(f"m120 loaded in {time.perf_counter() - begin:.1f} s")
    print("Mean corner errors in px of the RGB image; 'before' stretches the one image over the other.\n")
    print(f"{'pair':12} {'before':>8} {'after':>8} {'expected':>9} {'confidence':>11} {'time':>8}")
    for name, (ir_name, rgb_name) in PAIRS.items():
        folder = SAMPLES / name
        ir: Path | Image = folder / ir_name
        true: Matrix = np.array(json.loads((folder / "gt.json").read_text(encoding="utf-8"))["H_ir_to_rgb"])
        if name in CUT_OUT:
            ir, to_old = cut_out(folder / ir_name, CUT_OUT[name])
            true = true @ to_old

        start = time.perf_counter()
        result = registrar(ir, folder / rgb_name)
        seconds = time.perf_counter() - start
        result.save(out / name)

        size, truth = result.ir.size, torch.from_numpy(true)
        before = metrics.corner_error(geometry.fit_matrix(size, result.rgb.size), truth, size)
        after = metrics.corner_error(torch.tensor(result.homography), truth, size)
        print(
            f"{name:12} {before:8.1f} {after:8.1f} {result.expected_error:9.1f} {result.confidence:11.0%} "
            f"{1000 * seconds:5.0f} ms{'' if result.reliable else '  NOT RELIABLE'}"
        )
    print(f"\nPictures: {out.resolve()} (start with before_after.png in each folder)")
    print(f"Total time: {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out"))
