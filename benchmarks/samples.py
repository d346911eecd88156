"""Error against samples seen: the m120 of this repository's history, one pass of the network each.

    python benchmarks/samples.py --data DIR... [--csv benchmarks/results/samples.csv]

--data takes sets in SkyData's folder layout. Every commit that changed the weights of m120 is checked out
into a temporary folder, and its own code runs its own weights once over every pair: no second look, no
other starts, nothing that the versions do differently around the network. The last rows, without a commit,
are a power law through the medians and means of all versions, at ten times the samples of the latest. One
thread.
`python benchmarks/render.py` writes the table into the documentation.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from homoreg.files import atomic_write_text, csv_text

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = "src/homoreg/weights/m120"
COLUMNS = ("commit", "weights", "samples", "set", "n", "median", "mean", "under_3")

# Prints the corner error of each pair, px; reads the files itself, since the versions' readers differ.
CHILD = """
import json, sys
from pathlib import Path
import cv2, numpy as np, torch
from homoreg import Registrar
torch.set_num_threads(1)
weights, folder = map(Path, sys.argv[1:])
model = Registrar.from_pretrained(weights).model
errors = []
for label in sorted((folder / "val_label").glob("*_label.txt")):
    stem = label.name[: -len("_label.txt")]
    pair = []
    for kind in ("template", "input"):
        pixels = cv2.imread(str(next((folder / f"val_{kind}").glob(f"{stem}.*"))))[..., ::-1]
        pair.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255)
    n = pair[0].shape[-1]
    place = {k: v for one in json.loads(label.read_text())["location"] for k, v in one.items()}
    names = ("top_left", "top_right", "bottom_right", "bottom_left")
    wanted = np.array([[place[f"{name}_{axis}"] for axis in "uv"] for name in names], float)
    with torch.inference_mode():
        found = model(*pair).homography[0].double().numpy()
    corners = np.array([[0, 0, 1], [n - 1, 0, 1], [n - 1, n - 1, 1], [0, n - 1, 1]]) @ found.T
    errors.append(float(np.linalg.norm(corners[:, :2] / corners[:, 2:] - wanted, axis=1).mean()))
print(json.dumps(errors))
"""


def git(*arguments: str) -> str:
    """Run git in the repository and return what it prints."""
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def measure(commit: str, folders: list[Path]) -> list[dict[str, object]]:
    """Rows of the version at a commit."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        git("worktree", "add", "--detach", str(tree), commit)
        try:
            config = json.loads((tree / WEIGHTS / "config.json").read_text(encoding="utf-8"))
            digest = hashlib.sha256((tree / WEIGHTS / "model.safetensors").read_bytes()).hexdigest()
            for folder in folders:
                child = subprocess.run(
                    [sys.executable, "-c", CHILD, str(tree / WEIGHTS), str(folder)],
                    check=True,
                    capture_output=True,
                    text=True,
                    env={**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"},
                )
                errors = np.array(json.loads(child.stdout))
                rows.append(
                    {
                        "commit": commit,
                        "weights": digest[:12],
                        "samples": config["training"]["samples"],
                        "set": folder.name,
                        "n": len(errors),
                        "median": float(np.median(errors)),
                        "mean": float(errors.mean()),
                        "under_3": float((errors < 3).mean()),
                    }
                )
                print(rows[-1], file=sys.stderr, flush=True)
        finally:
            git("worktree", "remove", "--force", str(tree))
    return rows


def foretell(rows: list[dict[str, object]], name: str) -> dict[str, object]:
    """Row of a power law at ten times the samples of the latest version, for one set."""
    chosen = [row for row in rows if row["set"] == name]
    samples = np.log([float(str(row["samples"])) for row in chosen])
    ahead = float(samples.max()) + np.log(10)
    told = {
        key: float(
            np.exp(np.polyval(np.polyfit(samples, np.log([float(str(r[key])) for r in chosen]), 1), ahead))
        )
        for key in ("median", "mean")
    }
    return {"commit": "", "samples": round(float(np.exp(ahead))), "set": name, "n": chosen[0]["n"], **told}


def main() -> int:
    """Measure every version and write the table."""
    parser = argparse.ArgumentParser(description="Error of m120 against the samples it had seen.")
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--csv", type=Path, default=ROOT / "benchmarks" / "results" / "samples.csv")
    chosen = parser.parse_args()
    commits = git("log", "--reverse", "--format=%h", "--", f"{WEIGHTS}/model.safetensors").split()
    rows = [row for commit in commits for row in measure(commit, [one.resolve() for one in chosen.data])]
    rows += [foretell(rows, folder.resolve().name) for folder in chosen.data]
    atomic_write_text(chosen.csv, csv_text(COLUMNS, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
