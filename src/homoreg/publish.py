"""A model's folder as others get it: saved, pushed, or staged and published with its pin."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from homoreg import hub
from homoreg.card import loaded_as, model_card, pictures_in, with_pictures, with_results
from homoreg.errors import HomoregError, InputError, UnknownNameError
from homoreg.files import atomic_write_files, make_folder
from homoreg.models.storage import encode_weights, load_model
from homoreg.pins import PINS, REQUIRED_FILES, UNPUBLISHED_OWNER, Pin
from homoreg.trust import Trust

if TYPE_CHECKING:
    from homoreg.evaluation import Evaluation
    from homoreg.registrar import Registrar
    from homoreg.registration import Registration

__all__ = ["Staged", "folder_contents", "publish", "push", "save", "stage"]

PICTURE_SIDE = 1000  # longer side of a card's pictures, px
SAMPLES = {
    "Sea ice, thermal and RGB (microsoft/arcticseals, MIT)": ("sea_ice", "thermal_16bit.png", "rgb.jpg"),
    "A park, near infrared and RGB (OpenDroneMap, CC0)": ("park_nir", "nir_undistorted.png", "rgb.jpg"),
}
"""Caption with source and licence to folder below examples/samples, infrared file and RGB file."""


@dataclass(frozen=True)
class Staged:
    """A Hub-ready folder of a registered model, and the pin that stands for it."""

    name: str
    folder: Path
    pin: Pin


def save(
    registrar: Registrar,
    folder: str | os.PathLike[str],
    *,
    results: Sequence[Evaluation] = (),
    pictures: Mapping[str, Registration] | None = None,
) -> Path:
    """Write a model's folder, all of it or nothing; see :meth:`homoreg.Registrar.save_pretrained`."""
    contents = folder_contents(registrar, ".", results=results, pictures=pictures)
    target = make_folder(folder)
    atomic_write_files({target / name: data for name, data in contents.items()})
    return target


def push(
    registrar: Registrar,
    repository: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    results: Sequence[Evaluation] = (),
    pictures: Mapping[str, Registration] | None = None,
) -> str:
    """Upload a model's folder; see :meth:`homoreg.Registrar.push_to_hub`."""
    load_as = repository if revision is None else f"{repository}@{revision}"
    contents = folder_contents(registrar, load_as, results=results, pictures=pictures)
    message = f"Upload {registrar.name} with homoreg"
    return hub.push(contents, repository, private=private, revision=revision, token=token, message=message)


def folder_contents(
    registrar: Registrar,
    load_as: str,
    *,
    results: Sequence[Evaluation] = (),
    pictures: Mapping[str, Registration] | None = None,
) -> dict[str, bytes]:
    """Return the files of a model's folder by name.

    Parameters
    ----------
    registrar
        Its network, calibration and facts about the training.
    load_as
        What the card tells its reader to load; a registered name stays what it is.
    results
        Rows of the results table.
    pictures
        Registrations to show, by caption.

    Returns
    -------
    dict of str to bytes
        config.json, model.safetensors, README.md and pictures. Where the weights are still those of the
        folder they came from, its files are taken as they are, so that hashes and a written card survive.
    """
    from homoreg.evaluation import format_table
    from homoreg.imaging.writing import encode_image

    files = _unchanged(registrar) or encode_weights(
        registrar.model, calibration=registrar.trust.as_dict(), training=dict(registrar.training)
    )
    shown = {}
    for index, (caption, result) in enumerate((pictures or {}).items(), start=1):
        shown[f"example-{index}.jpg"] = caption
        files[f"example-{index}.jpg"] = encode_image(".jpg", result.before_after(max_side=PICTURE_SIDE))
    if "README.md" in files:
        card = loaded_as(files["README.md"].decode("utf-8"), load_as)
    else:
        card = model_card(
            registrar.name,
            architecture=registrar.model.architecture,
            parameters=registrar.model.count_parameters(),
            training=registrar.training,
            load_as=load_as,
            digests={file: hashlib.sha256(files[file]).hexdigest() for file in REQUIRED_FILES},
        )
    table = format_table(results, markdown=True) if results else None
    return files | {"README.md": with_pictures(with_results(card, table), shown).encode("utf-8")}


def _unchanged(registrar: Registrar) -> dict[str, bytes] | None:
    """Files of the folder that the registrar came from, if it still says the same."""
    folder = registrar.folder
    if folder is None:
        return None
    try:
        model, config = load_model(folder)
        files = {name: (folder / name).read_bytes() for name in REQUIRED_FILES}
        if (folder / "README.md").is_file():
            files["README.md"] = (folder / "README.md").read_bytes()
            shown = pictures_in(files["README.md"].decode("utf-8"))
            files |= {name: (folder / name).read_bytes() for name in shown if (folder / name).is_file()}
    except (HomoregError, OSError, ValueError):
        return None  # gone or replaced since: what is in memory counts
    now = (registrar.model.config, registrar.trust, registrar.training)
    then = (model.config, Trust.from_dict(config["calibration"]), config["training"])
    own = registrar.model.state_dict()
    same = now == then and all(
        own[name].dtype == value.dtype and torch.equal(own[name].cpu(), value)
        for name, value in model.state_dict().items()
    )
    return files if same else None


def stage(name: str, owner: str, out: str | os.PathLike[str]) -> Staged:
    """Write the Hub-ready folder of a registered model.

    Parameters
    ----------
    name
        Registered name.
    owner
        Account or organisation on the Hub, or the placeholder for none yet.
    out
        The folder ``OUT/homoreg-NAME`` is made.

    Returns
    -------
    Staged
        With a pin that has no commit yet.

    Raises
    ------
    UnknownNameError, WeightsError, ConfigError
        If there are no sound weights of this name.
    InputError
        If the owner cannot be one.
    OutputError
        If the folder cannot be written.
    """
    from homoreg.registrar import Registrar

    repository = f"{owner}/homoreg-{name}"
    if name not in PINS:
        raise UnknownNameError(f"no model is called {name!r}; known models: {', '.join(sorted(PINS))}")
    if owner != UNPUBLISHED_OWNER and hub.split_repository(repository) != (repository, None):
        raise InputError(f"owner is {owner!r}; expected the name of an account on the Hub")
    registrar = Registrar.from_pretrained(name)
    contents = folder_contents(registrar, name, pictures=dict(_sample_pictures(registrar)))
    folder = make_folder(Path(out) / f"homoreg-{name}")
    atomic_write_files({folder / file: data for file, data in contents.items()})
    digests = {file: hashlib.sha256(data).hexdigest() for file, data in contents.items()}
    return Staged(name, folder, Pin(registrar.model.architecture, repository, None, digests))


def _sample_pictures(registrar: Registrar) -> Iterator[tuple[str, Registration]]:
    """Registrations of sample pairs, where this runs from a checkout that has them."""
    root = Path(__file__).parents[2] / "examples" / "samples"
    for caption, (folder, ir, rgb) in SAMPLES.items():
        if (root / folder / ir).is_file() and (root / folder / rgb).is_file():
            yield caption, registrar(root / folder / ir, root / folder / rgb)


def publish(
    names: Iterable[str],
    owner: str,
    out: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    private: bool | None = None,
    token: str | bool | None = None,
) -> Iterator[Staged]:
    """Stage registered models, all of them before the first is uploaded, and upload each unless told not to.

    Parameters
    ----------
    names
        Registered names.
    owner
        Account or organisation on the Hub.
    out
        Folder for the staged folders.
    dry_run
        Stage only.
    private, token
        As for :func:`homoreg.hub.push`.

    Yields
    ------
    Staged
        Each model as soon as it is published; its pin then has the commit.

    Raises
    ------
    HomoregError
        As for :func:`stage` and :func:`homoreg.hub.push`.
    """
    for one in [stage(name, owner, out) for name in names]:
        if dry_run:
            yield one
            continue
        files = {file: (one.folder / file).read_bytes() for file in one.pin.files}
        message = f"Publish {one.name}"
        commit = hub.push(files, one.pin.repository, private=private, token=token, message=message)
        pin = Pin(one.pin.architecture, one.pin.repository, commit, one.pin.files)
        yield Staged(one.name, one.folder, pin)
