"""The trained models by name, and exactly which files each name stands for.

A registered name is a promise: whoever loads ``"m120"`` gets the files whose SHA-256 stand here, from the
package, from a cache or from the Hub. ``homoreg publish`` prints what to write into :data:`PINS`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from homoreg.errors import ConfigError

__all__ = ["PINS", "REQUIRED_FILES", "UNPUBLISHED_OWNER", "Pin", "find_mismatch"]

REQUIRED_FILES = ("config.json", "model.safetensors")
"""What every model consists of; nothing else is ever read from a hub."""

UNPUBLISHED_OWNER = "<owner>"
"""Owner of repositories that do not exist yet. No account can have this name, so it can be nobody else's."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Pin:
    """The exact files that a registered name stands for.

    Parameters
    ----------
    architecture
        Registered name of the architecture.
    repository
        ``OWNER/NAME`` on the Hub.
    commit
        Full commit of the published copy; None as long as there is none.
    files
        SHA-256 in hex of every file, by name. Empty before the weights exist.

    Raises
    ------
    ConfigError
        If a value is not of this form, or a published pin lacks a required file.
    """

    architecture: str
    repository: str
    commit: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, digest in self.files.items():
            if not _FILE_NAME.fullmatch(name) or not _SHA256.fullmatch(digest):
                raise ConfigError(
                    f"pinned file {name!r} has digest {digest!r}; expected a plain file name and a SHA-256"
                )
        missing = [name for name in REQUIRED_FILES if name not in self.files]
        if missing and (self.files or self.commit is not None):
            raise ConfigError(f"the pin of {self.repository} has no {missing[0]}; expected every file")
        if self.commit is not None:
            if not _COMMIT.fullmatch(self.commit):
                raise ConfigError(f"the pin's commit is {self.commit!r}; expected all 40 hex digits")
            if not _REPOSITORY.fullmatch(self.repository):
                raise ConfigError(f"the pin's repository is {self.repository!r}; expected OWNER/NAME")
        object.__setattr__(self, "files", MappingProxyType(dict(self.files)))

    def as_source(self, name: str) -> str:
        """Return the Python lines that stand for this pin in :data:`PINS`."""
        files = "".join(f'            "{file}": "{digest}",\n' for file, digest in sorted(self.files.items()))
        commit = "None" if self.commit is None else f'"{self.commit}"'
        return (
            f'    "{name}": Pin(\n'
            f'        architecture="{self.architecture}",\n'
            f'        repository="{self.repository}",\n'
            f"        commit={commit},\n"
            f"        files={{\n{files}        }},\n"
            "    ),"
        )


PINS: dict[str, Pin] = {
    "dhn": Pin(
        architecture="dhn",
        repository="<owner>/homoreg-dhn",
        commit=None,
        files={
            "config.json": "5b025b9279f178769da2ce6047f5db3c7f973f14a1441bb7d6955bb917ce23de",
            "model.safetensors": "60a136f515c46e2cf7015ee131cd44a7a9b867b4b24e4edcf930b82a85eb13b4",
        },
    ),
    "mhn": Pin(
        architecture="mhn",
        repository="<owner>/homoreg-mhn",
        commit=None,
        files={
            "config.json": "1a31524a3f12ec4fcd9af6094d68f688420ad04d0c8f9130316bd53e1d012a34",
            "model.safetensors": "800f9b9576e88f772429f537c3566813461bff10201f1b79f9c6f2d251000276",
        },
    ),
    "clkn": Pin(
        architecture="clkn",
        repository="<owner>/homoreg-clkn",
        commit=None,
        files={
            "config.json": "71a20356b9b17854d847f433a04a0b458796e9373989965c507b54ec5507efe8",
            "model.safetensors": "0b48302cbef41b97352e3928c95bfbfec67ac5e4b9ebae0add784a31fa580bbc",
        },
    ),
    "dlkfm": Pin(
        architecture="dlkfm",
        repository="<owner>/homoreg-dlkfm",
        commit=None,
        files={
            "config.json": "d06d1dc5d976826303ff8f389a1c9c753ce30135ab3d3d4cd3789d0d85dcdc40",
            "model.safetensors": "04ea304ca72cf7dfc4be1ca21a5ad128a31761bb57a85b5cf29c5bac491bb00d",
        },
    ),
    "m70": Pin(
        architecture="m",
        repository="<owner>/homoreg-m70",
        commit=None,
        files={
            "config.json": "977d0cadb0cce1a8cc5870a684d92570f4ab877b579588fa5079da884a15efe7",
            "model.safetensors": "d2e5ea08516417cb3bf077e8caab651338c0b78a60b99fc5144555e8276bc33b",
        },
    ),
    "m120": Pin(
        architecture="m",
        repository="<owner>/homoreg-m120",
        commit=None,
        files={
            "config.json": "252dba151c0d69134b31553821b54efd40c3c5ad08270a30af83fe9d7bad5555",
            "model.safetensors": "cb867b69434b2d564ba3f2c1f652f90ec73df888ba154062f29452426c330d93",
        },
    ),
    "m175": Pin(
        architecture="m",
        repository="<owner>/homoreg-m175",
        commit=None,
        files={
            "config.json": "2eaf8a067e0c545d31f4d6f7e859814807f6434873a9fcdd186aa2651690d535",
            "model.safetensors": "5beb653528a9a3d579b0515b292926f6d115d05ec0180abeb6b8e659ca78d316",
        },
    ),
}
"""Registered name to its pin."""


def find_mismatch(folder: Path, digests: Mapping[str, str]) -> tuple[Path, str] | None:
    """Compare the files of a folder with their SHA-256.

    Parameters
    ----------
    folder
        Holds the files.
    digests
        SHA-256 in hex by file name; of these, the required files are compared.

    Returns
    -------
    tuple of pathlib.Path and str, or None
        The first file that differs and the SHA-256 it has; None if all agree.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    for file in REQUIRED_FILES:
        if file in digests:
            with open(folder / file, "rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != digests[file]:
                return folder / file, found
    return None
