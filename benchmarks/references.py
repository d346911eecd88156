"""How well the references of a set fit the pictures, beside a model's answers.

    python benchmarks/references.py --data DIR... [--model m120] [--out DIR]

--data takes sets in SkyData's folder layout. Both pictures of a pair are compared through its reference and
through the model's answer, by two measures that know no network: the mutual information of the intensities
and the correlation of the lengths of the gradients. The folder --out, benchmarks/results by default, gets
references.csv: how many answers each measure prefers to the reference, and how many both do, by corner error.
`python benchmarks/render.py` writes it into the documentation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from homoreg import Registrar
from homoreg.evaluation import evaluate, weights_digest
from homoreg.files import atomic_write_text, csv_text
from homoreg.pretrained import locate
from homoreg.synthesis.dataset import FrozenPair, SkyDataSet

RESULTS = Path(__file__).resolve().parent / "results"
BANDS = (0, 1, 2, 3, 5, 10)  # px: where the bands of corner error begin
EDGE = 6  # px at the frame's border that are left out: gradients and samples from beyond it
BINS = 32

Floats: TypeAlias = NDArray[np.float64]


def mutual_information(one: Floats, other: Floats) -> float:
    """Mutual information of two grey pictures (H, W), in nats, from a joint histogram."""
    joint = np.histogram2d(one.ravel(), other.ravel(), bins=BINS)[0]
    joint /= joint.sum()
    apart = joint.sum(1, keepdims=True) @ joint.sum(0, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / apart[there])).sum())


def gradient_lengths(picture: Floats) -> Floats:
    """Lengths (H, W) of the gradients of a grey picture that was smoothed by one px."""
    smooth = cv2.GaussianBlur(picture, (0, 0), 1.0)
    return np.hypot(cv2.Sobel(smooth, cv2.CV_64F, 1, 0), cv2.Sobel(smooth, cv2.CV_64F, 0, 1))


def agreement(pair: FrozenPair, homography: Floats) -> Floats:
    """Mutual information and gradient correlation (2,) of a pair through a map of template to search px."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpPerspective(pair.search, homography, (pair.size, pair.size), flags=flags)
    ir, rgb = (np.asarray(one, np.float64).mean(2) for one in (pair.template, seen))
    inner = slice(EDGE, -EDGE), slice(EDGE, -EDGE)
    lengths = [gradient_lengths(one)[inner].ravel() for one in (ir, rgb)]
    correlation = np.asarray(np.corrcoef(np.stack(lengths)))[0, 1]
    return np.array([mutual_information(ir[inner], rgb[inner]), correlation])


def compare(registrar: Registrar, pairs: SkyDataSet) -> list[dict[str, Any]]:
    """One row for each band of corner error."""
    found = evaluate(registrar, pairs, progress=True)
    answers = zip(pairs, found.homographies, strict=True)
    preferred = np.array([agreement(p, answer) > agreement(p, p.homography) for p, answer in answers])
    assert found.confidence is not None
    rows = []
    for low, high in pairwise([*BANDS, np.inf]):
        chosen = (found.errors >= low) & (found.errors < high)
        by_each = preferred[chosen]
        rows.append(
            {
                "set": pairs.name,
                "from": low,
                "n": int(chosen.sum()),
                "reliable": int((found.confidence[chosen] >= registrar.trust.threshold).sum()),
                "information": int(by_each[:, 0].sum()),
                "gradients": int(by_each[:, 1].sum()),
                "both": int(by_each.all(1).sum()),
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and write the table."""
    parser = argparse.ArgumentParser(description="How well references fit the pictures, beside answers.")
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", default="m120")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    registrar = Registrar.from_pretrained(chosen.model)
    about = {"model": registrar.name, "weights": weights_digest(locate(chosen.model).folder)[:12]}
    rows = []
    for folder in chosen.data:
        rows += [{**about, **row} for row in compare(registrar, SkyDataSet(folder))]
        print(f"{folder.name} is done", file=sys.stderr, flush=True)
    chosen.out.mkdir(parents=True, exist_ok=True)
    atomic_write_text(chosen.out / "references.csv", csv_text(list(rows[0]), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
