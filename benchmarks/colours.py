"""What colours cost: thermal sets as grey, and coloured as displays do, before and after compression.

    python benchmarks/colours.py --data DIR... [--model m120] [--out FILE]

--data takes sets in SkyData's folder layout, whose infrared images are grey. Each is registered as it is, as
a negative, and with each palette, sharp and through a JPEG that halves the resolution of the chroma, as
video does: one pass (``effort="fast"``) of all pairs, so that the pictures differ and the search does not.
--out is benchmarks/results/colours.csv by default; `python benchmarks/render.py` writes it into the
documentation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from homoreg import Registrar
from homoreg.evaluation import weights_digest
from homoreg.files import atomic_write_text, csv_text
from homoreg.geometry import square_prior
from homoreg.imaging.palettes import palette_colours
from homoreg.metrics import summarize
from homoreg.pretrained import locate
from homoreg.synthesis.dataset import SkyDataSet

RESULTS = Path(__file__).resolve().parent / "results"
KEPT = ("mean", "median", "q75", "max", "under_1", "under_3")
PALETTES = ("jet", "iron", "rainbow")
QUALITY = 75

Pixels = NDArray[np.uint8]


def colourings() -> list[tuple[str, bool]]:
    """Names of what the infrared images are turned into, and whether they are compressed then."""
    names = ("grey", "negative", *PALETTES)
    return [(name, compressed) for name in names for compressed in (False, True)]


def coloured(image: Pixels, name: str, *, compressed: bool) -> Pixels:
    """Return a grey image (H, W) or (H, W, 3) otherwise, (H, W, 3)."""
    grey = image if image.ndim == 2 else image[..., 0]
    if name in ("grey", "negative"):
        shown = np.repeat((grey if name == "grey" else 255 - grey)[..., None], 3, axis=2)
    else:
        shown = palette_colours(name)[grey]
    if not compressed:
        return shown
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY, *sampling]
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(shown[..., ::-1]), options)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.asarray(decoded[..., ::-1], np.uint8)


def measure(registrar: Registrar, pairs: SkyDataSet, name: str, *, compressed: bool) -> dict[str, Any]:
    """Return the errors of one colouring on a set."""
    prior = square_prior(pairs[0].size).numpy()
    errors = []
    for pair in (pairs[number] for number in range(len(pairs))):
        template = coloured(pair.template, name, compressed=compressed)
        found = registrar(template, pair.search, prior=prior, effort="fast")
        errors.append(float(np.linalg.norm(found.corners - pair.corners, axis=1).mean()))
    summary = summarize(np.array(errors))
    kept = {key: getattr(summary, key) for key in KEPT}
    return {"colours": name, "compressed": int(compressed), "set": pairs.name, "n": len(pairs), **kept}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description="Errors of grey and coloured thermal images.")
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", default="m120")
    parser.add_argument("--out", type=Path, default=RESULTS / "colours.csv")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    registrar = Registrar.from_pretrained(chosen.model)
    about = {"model": registrar.name, "weights": weights_digest(locate(chosen.model).folder)[:12]}
    rows = []
    for pairs in map(SkyDataSet, chosen.data):
        for name, compressed in colourings():
            rows.append({**about, **measure(registrar, pairs, name, compressed=compressed)})
            print(rows[-1], file=sys.stderr, flush=True)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(chosen.out, csv_text(list(rows[0]), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
