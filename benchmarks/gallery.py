"""Make the documentation's pictures of the bundled sample pairs.

    python benchmarks/gallery.py [--model m120] [--out docs/images]

Each pair is registered as it is, with nothing known. OUT/gallery_NAME.jpg shows the infrared image over the
RGB image, on the left merely stretched, on the right registered.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2

from homoreg import Registrar, Registration
from homoreg.files import atomic_write_bytes

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "examples" / "samples"
PAIRS: dict[str, tuple[str, str]] = json.loads((SAMPLES / "pairs.json").read_text(encoding="utf-8"))
WIDTH, QUALITY = 1280, 88


def draw(result: Registration) -> bytes:
    """Return the pictures of a result, at most 1280 px wide, as JPEG."""
    picture = result.before_after()
    scale = min(1.0, WIDTH / picture.shape[1])
    size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", resized[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return encoded.tobytes()


def main(arguments: Sequence[str] | None = None) -> int:
    """Register every pair and write its picture."""
    parser = argparse.ArgumentParser(description="Pictures of the bundled sample pairs.")
    parser.add_argument("--model", default="m120")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    chosen = parser.parse_args(arguments)
    registrar = Registrar.from_pretrained(chosen.model)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name, (ir, rgb) in PAIRS.items():
        folder = SAMPLES / name
        result = registrar(folder / ir, folder / rgb)
        atomic_write_bytes(chosen.out / f"gallery_{name}.jpg", draw(result))
        print(f"{name}: confidence {result.confidence:.2f}, {result.status}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
