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
    "m120": Pin(
        architecture="m",
        repository="<owner>/homoreg-m120",
        commit=None,
        files={
            "config.json": "e30ad47eae11746a8549cabc4462bb1b9be034e554e5d9688f69dccbb2b38522",
            "model.safetensors": "9859f6a17e929924c8b69b06344e323fbc7f90c098ec0255a8eb6959d9b2b3ff",
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
