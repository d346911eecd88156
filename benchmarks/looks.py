"""In frames of what size to look a second time: errors on images that training held back.

    python benchmarks/looks.py --pairs DIR... [--model m120] [--samples N]

DIR holds aligned pairs, ir/NAME.* beside rgb/NAME.*. Frames of 128 px are drawn by the protocol, so that
larger ones show nothing more: what differs is the size of the network's cells. Prints for every size the
errors after a second look through the first answer, and the processor time of that look on one thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from homoreg import Registrar
from homoreg.geometry import (
    compose,
    fill_outside,
    fit_matrix,
    image_corners,
    invert_homography,
    pull,
    square_prior,
    transform_points,
)
from homoreg.models.base import HomographyModel
from homoreg.synthesis.protocol import GeometryConfig, draw_samples
from homoreg.synthesis.sources import ImageBank
from homoreg.training.sources import Source, split_sources
from homoreg.training.validation import HELD_OUT_APPEARANCE

SIZE, BATCH = 128, 8
SIZES = (128, 192, 256, 384)


def errors(found: Tensor, truth: Tensor) -> Tensor:
    """Return the mean corner errors (B,) in px of frames of 128."""
    corners = image_corners(SIZE, SIZE, dtype=torch.float64)
    moved = transform_points(found.double(), corners) - transform_points(truth.double(), corners)
    distance: Tensor = moved.norm(dim=-1)
    return distance.mean(-1)


def look_again(model: HomographyModel, template: Tensor, search: Tensor, found: Tensor, n: int) -> Tensor:
    """Return the answers (B, 3, 3) of a look through the answers so far, in frames of n px."""

    def resize(image: Tensor, side: int) -> Tensor:
        return F.interpolate(image, size=(side, side), mode="bilinear", align_corners=False)

    square, small, large = square_prior(n), (SIZE, SIZE), (n, n)
    to_template = fit_matrix(large, small)
    to_search = fit_matrix((3 * SIZE // 2,) * 2, (3 * n // 2,) * 2)
    view = compose(to_search, found.double(), to_template, invert_homography(square))
    seen = fill_outside(*pull(resize(search, 3 * n // 2), view.float(), (3 * n // 2,) * 2))
    start = square.float().expand(len(found), 3, 3)
    estimate = model(resize(template, n), seen, initial=start)
    better = compose(invert_homography(to_search), view, estimate.homography.double())
    better = compose(better, invert_homography(to_template))
    return torch.where(estimate.diverged[:, None, None], found.double(), better)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a line a size."""
    parser = argparse.ArgumentParser(description="Errors after a second look, by the size of its frames.")
    parser.add_argument("--pairs", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", default="m120")
    parser.add_argument("--share", type=float, default=0.08, help="held-back share of each folder's images")
    parser.add_argument("--samples", type=int, default=64)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model = Registrar.from_pretrained(chosen.model).model
    bank = ImageBank(split_sources([Source(path) for path in chosen.pairs], chosen.share)[2])
    found: dict[str, list[Tensor]] = {}
    seconds = dict.fromkeys(SIZES, 0.0)
    for number in range(max(1, chosen.samples // BATCH)):
        drawn = draw_samples(
            bank,
            SIZE,
            seed=number,
            batch=BATCH,
            geometry=GeometryConfig(crop_min=0.6),
            appearance=HELD_OUT_APPEARANCE if number % 2 else None,
        )
        with torch.inference_mode():
            first = model(drawn.template, drawn.search).homography
            found.setdefault("first", []).append(errors(first, drawn.homography))
            for n in SIZES:
                began = time.process_time()
                answer = look_again(model, drawn.template, drawn.search, first, n)
                seconds[n] += time.process_time() - began
                found.setdefault(str(n), []).append(errors(answer, drawn.homography))
    for name, parts in found.items():
        error = torch.cat(parts)
        quartiles = " / ".join(f"{error.quantile(q):.2f}" for q in (0.25, 0.5, 0.75))
        cost = f", {1e3 * seconds[int(name)] / len(error):.0f} ms" if name.isdigit() else ""
        share = (error < 3).double().mean()
        print(f"{name:>5}: quartiles {quartiles} px, mean {error.mean():.2f}, under 3 px {share:.0%}{cost}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
