"""Register every pair of a folder: IR_FOLDER/NAME.* with RGB_FOLDER/NAME.*, in batches.

    python examples/register_folder.py IR_FOLDER RGB_FOLDER OUT_FOLDER

Leaves one folder a pair, with pictures and JSON, under OUT_FOLDER, and marks the pairs not to be trusted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from homoreg import Registrar


def files_by_name(folder: Path) -> dict[str, Path]:
    """Files of a folder by their name without the suffix."""
    return {path.stem: path for path in sorted(folder.iterdir()) if path.is_file()}


def main() -> None:
    """Read the arguments, register, save."""
    parser = argparse.ArgumentParser(description="Register every pair of a folder.")
    parser.add_argument("ir", type=Path)
    parser.add_argument("rgb", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()

    infrared, colour = files_by_name(arguments.ir), files_by_name(arguments.rgb)
    names = sorted(infrared.keys() & colour.keys())
    if not names:
        parser.error(f"no name occurs in both {arguments.ir} and {arguments.rgb}")

    registrar = Registrar.from_pretrained("m120")
    pairs = [(infrared[name], colour[name]) for name in names]
    results = registrar.register_many(pairs, batch_size=arguments.batch_size)
    for name, result in zip(names, results, strict=True):
        result.save(arguments.out / name)
        verdict = "" if result.reliable else "  NOT RELIABLE"
        print(f"{name}: expected error {result.expected_error:.1f} px{verdict}")


if __name__ == "__main__":
    main()
