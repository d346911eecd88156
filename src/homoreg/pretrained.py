"""From a name, a folder or a repository to the files of a model: the one door through which weights come in.

In this order: a registered name (in the package, in a checkout's ``weights`` folder, in the cache, on the
Hub), a folder, a repository on the Hub.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from homoreg.errors import InputError, UnknownNameError, WeightsError
from homoreg.hub import Request, checked_revision, download, split_repository
from homoreg.names import suggest
from homoreg.pins import PINS, REQUIRED_FILES, Pin, find_mismatch

__all__ = ["Source", "embedded_folder", "is_embedded", "locate"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where a model's files lie.

    Parameters
    ----------
    folder
        Holds ``config.json`` and ``model.safetensors``.
    name
        What to call the model: the registered name, the folder's name or ``OWNER/NAME``.
    commit
        Full commit, where the files come from the Hub.
    """

    folder: Path
    name: str
    commit: str | None = None


def embedded_folder(name: str) -> Path:
    """Folder in the package where the weights of a registered model lie, if they are embedded."""
    return Path(__file__).parent / "weights" / name


def is_embedded(name: str) -> bool:
    """Whether the weights of a registered model are part of this installation."""
    return _is_complete(embedded_folder(name))


def locate(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Source:
    """Find the files of a model, and download them if they are nowhere else.

    Parameters
    ----------
    name
        A registered name; a folder; or ``"OWNER/NAME"`` or ``"OWNER/NAME@REVISION"`` on the Hub. What is
        registered goes before a folder of that name, and a folder before a repository. The files of a
        registered name are looked for in the package, in the ``weights`` folder of a checkout, in the cache
        and on the Hub; outside the package they have to match their pin.
    revision
        Branch, tag or commit of a repository; its main branch by default.
    cache_dir
        Where downloads are kept; by default that of ``huggingface_hub``, which ``HF_HOME`` moves.
    token
        Access token; True takes the one that is logged in, False none.
    local_files_only
        Use the cache and never the network; so does ``HF_HUB_OFFLINE=1``.
    force_download
        Download again what is in the cache. Embedded weights are not downloaded, and this changes nothing.

    Returns
    -------
    Source
        Folder, name and commit.

    Raises
    ------
    UnknownNameError
        If there is no such name, folder, repository or revision.
    WeightsError
        If a file is missing from the repository, too large, or does not match its pin; it is then deleted.
    HubError
        If the Hub cannot be reached, refuses access or gives no sensible answer, and the cache has no copy.
    OutputError
        If the cache cannot be written.
    InputError
        If the arguments contradict each other, or one cannot be what it is for.
    """
    if local_files_only and force_download:
        raise InputError("local_files_only and force_download are both set; choose one")
    if not isinstance(name, str | os.PathLike):
        raise InputError(f"the model is a {type(name).__name__}; expected a name, a folder or OWNER/NAME")
    if not isinstance(cache_dir, str | os.PathLike | None):
        raise InputError(f"cache_dir is {cache_dir!r}; expected a folder, or None for the client's own")
    options = Request(
        cache_dir=None if cache_dir is None else Path(cache_dir),
        token=token,
        local_files_only=local_files_only,
        force_download=force_download,
    )
    text = os.fspath(name)
    if isinstance(name, str) and name in PINS:
        return _registered(name, revision, options)
    folder = Path(os.path.expanduser(text))
    if text and os.path.isdir(folder):
        if revision is not None:
            raise InputError(f"{text!r} is a folder and has no revision {revision!r}; leave revision out")
        return Source(folder, folder.resolve().name)
    repository, named = split_repository(text) if isinstance(name, str) else (None, None)
    if repository is None:
        raise UnknownNameError(
            f"no model is called {text!r} and there is no such folder; known models: "
            f"{', '.join(sorted(PINS))}: choose one, or pass a folder with config.json and "
            f"model.safetensors, or OWNER/NAME on the Hub{suggest(text, PINS)}"
        )
    if named is not None and revision is not None:
        raise InputError(f"{text!r} names a revision, and so does revision={revision!r}; give one")
    at = checked_revision(named if revision is None else revision)
    files = _pinned_files(repository, at)
    return _downloaded(replace(options, repository=repository, revision=at, files=files), repository)


def _registered(name: str, revision: str | None, options: Request) -> Source:
    pin = PINS[name]
    if revision is not None and revision != pin.commit:
        raise InputError(
            f"{name} is pinned to {pin.commit or 'the files of this installation'} and cannot be had at "
            f"revision {revision!r}; to load another revision, name its repository: OWNER/NAME@REVISION"
        )
    if is_embedded(name):
        return Source(embedded_folder(name), name)
    checkout = _checkout_folder(name)
    if checkout is not None and _is_complete(checkout):
        return Source(_checked(checkout, name, pin), name)
    if pin.commit is None:
        raise WeightsError(
            f"the weights of {name} are not part of this installation, and no copy of them has been "
            "published on the Hub yet; install a homoreg that embeds them, or pass a folder with "
            "config.json and model.safetensors"
        )
    pinned = replace(options, repository=pin.repository, revision=pin.commit, files=pin.files)
    return _downloaded(pinned, name)


def _downloaded(request: Request, name: str) -> Source:
    folder = download(request)
    if not request.files and request.revision != folder.name:
        logger.warning(
            "%s is not pinned: using commit %s. To keep to these weights, load %s@%s",
            *(request.repository, folder.name, request.repository, folder.name),
        )
    return Source(folder, name, folder.name)


def _checked(folder: Path, name: str, pin: Pin) -> Path:
    if not pin.files:
        logger.warning("%s has no pinned files yet: loading %s unchecked", name, folder)
    elif mismatch := find_mismatch(folder, pin.files):
        path, found = mismatch
        raise WeightsError(
            f"{path} has SHA-256 {found}; {name} is pinned to {pin.files[path.name]}: restore the file, or "
            f"pass the folder {str(folder)!r} to load it as it is"
        )
    return folder


def _is_complete(folder: Path) -> bool:
    return all((folder / file).is_file() for file in REQUIRED_FILES)


def _checkout_folder(name: str) -> Path | None:
    """``weights/NAME`` of the checkout that this module runs from, if it runs from one."""
    root = Path(__file__).parents[2]
    return root / "weights" / name if (root / "pyproject.toml").is_file() else None


def _pinned_files(repository: str, revision: str) -> Mapping[str, str]:
    pins = (pin for pin in PINS.values() if (pin.repository, pin.commit) == (repository, revision))
    return next((pin.files for pin in pins), {})
