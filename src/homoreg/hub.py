"""Where weights come from: embedded in the package, or a folder.

The only module that may import ``huggingface_hub``.
"""

from __future__ import annotations

import os
from pathlib import Path

from homoreg.errors import UnknownNameError
from homoreg.models.registry import list_models

__all__ = ["embedded_folder", "fetch"]


def embedded_folder(name: str) -> Path:
    """Folder in the package where the weights of a registered model lie, if they are embedded."""
    return Path(__file__).parent / "weights" / name


def fetch(name: str | os.PathLike[str]) -> Path:
    """Folder with the files of a model.

    Parameters
    ----------
    name
        A registered name or a folder.

    Returns
    -------
    pathlib.Path
        Holds ``config.json`` and ``model.safetensors``.

    Raises
    ------
    UnknownNameError
        If the name is neither registered nor a folder.
    """
    if str(name) in list_models():
        return embedded_folder(str(name))
    folder = Path(name)
    if folder.is_dir():
        return folder
    raise UnknownNameError(
        f"no model is called {str(name)!r} and there is no such folder; known models: "
        f"{', '.join(list_models())}: choose one, or pass a folder with config.json and model.safetensors"
    )
