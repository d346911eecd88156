"""What each effort costs and reaches, and how far a model's own word can be trusted.

    python benchmarks/efforts.py --data DIR... [--model m120] [--out DIR] [--limit N] [--one-place NAME...]

--data takes sets in SkyData's folder layout. The folder --out, benchmarks/results by default, gets
efforts.csv: errors and processor time a pair of every effort on N pairs of each set, evenly spread; and
trust.csv: confidence against errors on the whole sets, and what was refused of pairs that do not belong
together, with the default effort. One thread. `python benchmarks/render.py` writes both into the
documentation. The wrong partners of a set named by --one-place, all of whose pairs show the same place, come
from the set after it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from homoreg import Registrar
from homoreg.audit import audit
from homoreg.evaluation import evaluate, weights_digest
from homoreg.files import atomic_write_text, csv_text
from homoreg.geometry import square_prior
from homoreg.metrics import summarize
from homoreg.pretrained import locate
from homoreg.search import Effort
from homoreg.synthesis.dataset import SkyDataSet

RESULTS = Path(__file__).resolve().parent / "results"
KEPT = ("mean", "median", "q75", "max", "under_1", "under_3")


def measure(registrar: Registrar, pairs: SkyDataSet, limit: int, effort: Effort) -> dict[str, Any]:
    """Return the errors of one effort on a set, and the mean processor time of a pair in ms."""
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(limit, len(pairs))).astype(int))
    prior = square_prior(pairs[0].size).numpy()
    errors, began = [], time.process_time()
    for pair in (pairs[number] for number in chosen.tolist()):
        found = registrar(pair.template, pair.search, prior=prior, effort=effort)
        errors.append(float(np.linalg.norm(found.corners - pair.corners, axis=1).mean()))
    milliseconds = (time.process_time() - began) * 1e3 / len(chosen)
    summary = summarize(np.array(errors))
    return {
        "effort": effort,
        "set": pairs.name,
        "n": len(chosen),
        **{key: getattr(summary, key) for key in KEPT},
        "ms": milliseconds,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write both tables."""
    parser = argparse.ArgumentParser(description="Costs and errors of the efforts; trust.")
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", default="m120")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--limit", type=int, default=40, help="pairs of each set for the efforts")
    parser.add_argument("--mismatches", type=int, default=24, help="pairs of each kind and set")
    parser.add_argument("--one-place", nargs="+", default=["aerial_nir"], metavar="NAME")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    registrar = Registrar.from_pretrained(chosen.model)
    about = {"model": registrar.name, "weights": weights_digest(locate(chosen.model).folder)[:12]}
    efforts, trusts = [], []
    sets = [SkyDataSet(folder) for folder in chosen.data]
    for pairs, following in zip(sets, [*sets[1:], sets[0]], strict=True):
        for effort in get_args(Effort):
            efforts.append({**about, **measure(registrar, pairs, chosen.limit, effort)})
            print(efforts[-1], file=sys.stderr, flush=True)
        whole = evaluate(registrar, pairs, progress=True)
        strangers = following if pairs.name in chosen.one_place else None
        row = audit(registrar, whole, pairs, mismatches=chosen.mismatches, strangers=strangers).row()
        del row["method"]
        trusts.append({**about, **row})
        print(trusts[-1], file=sys.stderr, flush=True)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("efforts", efforts), ("trust", trusts)):
        atomic_write_text(chosen.out / f"{name}.csv", csv_text(list(rows[0]), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
