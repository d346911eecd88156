"""Register every pair of a folder: IR_FOLDER/NAME.* with RGB_FOLDER/NAME.*, in batches.

    python examples/register_folder.py IR_FOLDER RGB_FOLDER OUT_FOLDER

Leaves one folder a pair, with pictures and JSON, under OUT_FOLDER, and marks the pairs not to be trusted.
Each batch is saved before the next one is read: a run that was stopped has kept what it had done.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from homoreg import Registrar
from homoreg.synthesis.sources import IMAGE_SUFFIXES


def images_by_name(folder: Path) -> dict[str, Path]:
    """Images of a folder by their name without the suffix."""
    if not folder.is_dir():
        raise SystemExit(f"{folder} is no folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise SystemExit(f"{found[path.stem]} and {path} have one name; keep one of them")
            found[path.stem] = path
    return found


def main() -> None:
    """Read the arguments, register, save."""
    parser = argparse.ArgumentParser(description="Register every pair of a folder.")
    parser.add_argument("ir", type=Path)
    parser.add_argument("rgb", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    if arguments.batch_size < 1:
        parser.error(f"--batch-size is {arguments.batch_size}; expected at least 1")

    infrared, colour = images_by_name(arguments.ir), images_by_name(arguments.rgb)
    for name in sorted(infrared.keys() ^ colour.keys()):
        print(f"{infrared.get(name) or colour[name]}: has no partner, left out")
    names = sorted(infrared.keys() & colour.keys())
    if not names:
        parser.error(f"no name occurs in both {arguments.ir} and {arguments.rgb}")

    registrar = Registrar.from_pretrained("m120")
    for first in range(0, len(names), arguments.batch_size):
        batch = names[first : first + arguments.batch_size]
        pairs = [(infrared[name], colour[name]) for name in batch]
        results = registrar.register_many(pairs, batch_size=arguments.batch_size)
        for name, result in zip(batch, results, strict=True):
            result.save(arguments.out / name)
            verdict = "" if result.reliable else "  NOT RELIABLE"
            print(f"{name}: expected error {result.expected_error:.1f} px{verdict}", flush=True)


if __name__ == "__main__":
    main()
