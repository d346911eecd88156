"""run.json: what a run was begun with, and what it has run on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from homoreg.errors import ConfigError
from homoreg.evaluation import weights_digest
from homoreg.models.storage import read_config
from homoreg.synthesis.sources import find_pairs
from homoreg.training.recipe import Recipe
from homoreg.training.sources import Source, names_digest

__all__ = ["describe_init", "hardware", "new_record", "on_this", "read_record", "require_same"]


def describe_init(folder: str | Path) -> dict[str, Any]:
    """Return which weights a run starts from, and what its config says that they took.

    Returns
    -------
    dict
        ``name``, ``sha256``, and ``samples`` and ``minutes``, None where they were not recorded.

    Raises
    ------
    WeightsError, ConfigError
        If the weights or a config beside them cannot be read.
    """
    path = Path(folder)
    digest = weights_digest(path)
    facts = read_config(path)["training"] if (path / "config.json").is_file() else {}
    spent = {key: facts.get(key) for key in ("samples", "minutes")}
    known = {key: value if isinstance(value, int | float) else None for key, value in spent.items()}
    return {"name": path.name, "sha256": digest, **known}


def new_record(recipe: Recipe, sources: Sequence[Source], init: str | Path | None) -> dict[str, Any]:
    """Return the content of run.json for a run that is to begin, but for what it runs on.

    Raises
    ------
    DataError, WeightsError, ConfigError
        If a folder of pairs, or the weights to start from, cannot be read.
    """
    described = []
    for source in sources:
        pairs = find_pairs(source.folder)
        facts = {"pairs": len(pairs), "names_sha256": names_digest(pairs)}
        described.append({"name": source.folder.name, "weight": source.weight, **facts})
    record = {
        "recipe": recipe.as_dict(),
        "sources": described,
        "init": None if init is None else describe_init(init),
        "ran_on": [],
    }
    plain: dict[str, Any] = json.loads(json.dumps(record))  # as it will be read: lists for tuples
    return plain


def read_record(path: Path) -> dict[str, Any] | None:
    """Read run.json; None if there is none.

    Raises
    ------
    ConfigError
        If it is not what this module writes.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):  # the second is said better when the folder is made
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path} ({error}); restore it or choose another --out") from error
    if not isinstance(record, dict) or not {"recipe", "sources"} <= record.keys():
        raise ConfigError(f"{path} is not the record of a run; restore it or choose another --out")
    return record


def require_same(path: Path, recorded: dict[str, Any], asked: dict[str, Any], *, begun: bool) -> None:
    """Raise unless a run is to go on as it was begun; what an older run.json does not say is let pass.

    Parameters
    ----------
    path
        Of the record, for the message.
    recorded, asked
        From :func:`read_record` and :func:`new_record`.
    begun
        Whether there is a checkpoint, which holds the weights: those to start from may then be left out.

    Raises
    ------
    ConfigError
        If recipe, sources, names of the images or weights to start from differ.
    """
    changes = _changes(recorded["recipe"], asked["recipe"])
    if not changes:
        changes = _source_changes(recorded["sources"], asked["sources"])
    if changes:
        raise ConfigError(
            f"{path} differs from the recipe or the sources asked for ({changes[0]}); a run is resumed as it "
            "was begun: pass the same options, or choose another --out"
        )
    if "init" not in recorded or (begun and asked["init"] is None):
        return
    then, now = recorded["init"], asked["init"]
    if (then or {}).get("sha256") != (now or {}).get("sha256"):
        raise ConfigError(
            f"{path}: the run was begun from {_weights(then)}, not from {_weights(now)}; pass the --init of "
            "then, or choose another --out"
        )


def on_this(record: dict[str, Any], step: int, machine: dict[str, Any]) -> dict[str, Any]:
    """Return the record with what the run goes on on from a step, unless it has not changed.

    Parameters
    ----------
    record
        From :func:`read_record` or :func:`new_record`.
    step
        Steps done.
    machine
        ``processes``, ``device`` and ``precision``.
    """
    # Entries from here on are of steps that were lost, and are made again.
    before = [entry for entry in record.get("ran_on", []) if entry["from_step"] < step]
    if before and before[-1] == {"from_step": before[-1]["from_step"], **machine}:
        return record | {"ran_on": before}
    return record | {"ran_on": [*before, {"from_step": step, **machine}]}


def _weights(init: dict[str, Any] | None) -> str:
    return f"the weights {init['sha256'][:12]} ({init['name']})" if init else "random weights"


def hardware(record: dict[str, Any]) -> str:
    """What a run ran on, in words, such as ``"2 x cpu, then 8 x NVIDIA H200"``: processes and devices."""
    stretches = (f"{one['processes']} x {one['device']}" for one in record["ran_on"])
    return ", then ".join(dict.fromkeys(stretches))


def _changes(then: Any, now: Any, where: str = "") -> list[str]:
    """What differs between two nested dictionaries, in words."""
    if not (isinstance(then, dict) and isinstance(now, dict)):
        return [] if then == now else [f"{where} was {then!r}, now {now!r}"]
    found = []
    for key in {**now, **then}:
        name = f"{where}.{key}" if where else key
        if key in then and key in now:
            found += _changes(then[key], now[key], name)
        else:
            found.append(f"{name} was {then.get(key, 'not there')!r}, now {now.get(key, 'not there')!r}")
    return found


def _source_changes(then: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[str]:
    keys = ("name", "weight")
    plain = [[{key: one.get(key) for key in keys} for one in side] for side in (then, now)]
    if plain[0] != plain[1]:
        shown = (", ".join(f"{one['name']}={one['weight']:g}" for one in side) for side in plain)
        return ["the folders were {}, now {}".format(*shown)]
    return [
        f"the images of {one['name']} were {one['pairs']} pairs, now {other['pairs']} or others"
        for one, other in zip(then, now, strict=True)
        if one.get("names_sha256", other["names_sha256"]) != other["names_sha256"]
    ]
