"""Weights on disk: a folder with config.json and model.safetensors, strict in both."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from homoreg.errors import ConfigError, WeightsError
from homoreg.files import atomic_write_files, atomic_write_text, make_folder
from homoreg.models.base import HomographyModel
from homoreg.models.registry import build

__all__ = ["FORMAT_VERSION", "load_model", "load_state", "read_config", "save_weights", "write_calibration"]

FORMAT_VERSION = 1
_KEYS: dict[str, type] = {
    "format_version": int,
    "architecture": str,
    "config": dict,
    "calibration": dict,
    "training": dict,
}


def save_weights(
    folder: str | Path,
    model: HomographyModel,
    *,
    state: dict[str, Tensor] | None = None,
    calibration: dict[str, float] | None = None,
    training: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a model as ``config.json`` and ``model.safetensors``.

    Parameters
    ----------
    folder
        Made if it does not exist.
    model
        Gives architecture and config.
    state
        Weights to write instead of the model's own, such as averaged ones.
    calibration, training
        Trust calibration and facts about the training, kept in the config.
    dtype
        Of the floating-point tensors on disk.

    Raises
    ------
    OutputError
        If a file cannot be written; then neither is.
    """
    target = make_folder(folder)
    tensors = {
        name: value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype).contiguous()
        for name, value in (state or model.state_dict()).items()
    }
    config = {
        "format_version": FORMAT_VERSION,
        "architecture": model.architecture,
        "config": dataclasses.asdict(model.config),
        "calibration": calibration or {},
        "training": training or {},
    }
    atomic_write_files(
        {
            target / "model.safetensors": save_tensors(tensors),
            target / "config.json": (json.dumps(config, indent=2) + "\n").encode(),
        }
    )


def read_config(folder: str | Path) -> dict[str, Any]:
    """Read and check ``config.json``.

    Returns
    -------
    dict
        With exactly the keys format_version, architecture, config, calibration, training.

    Raises
    ------
    WeightsError
        If the file is missing, is not JSON, or is of a newer format.
    ConfigError
        If a key is unknown, missing or of the wrong type.
    """
    path = Path(folder) / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(
            f"{path} does not exist; expected a folder with config.json and model.safetensors"
        ) from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as JSON ({error}); fetch the weights again") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; expected an object")
    version = values.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise WeightsError(
            f"{path} has format_version {version}; this homoreg reads up to {FORMAT_VERSION}: upgrade homoreg"
        )
    for key in values:
        if key not in _KEYS:
            raise ConfigError(f"{path}: unknown key {key!r}; known keys: {', '.join(_KEYS)}")
    for key, kind in _KEYS.items():
        if key not in values or type(values[key]) is not kind:
            raise ConfigError(f"{path}: key {key!r} is {values.get(key)!r}; expected a {kind.__name__}")
    return values


def load_state(model: HomographyModel, folder: str | Path) -> None:
    """Load ``model.safetensors`` into a model: every tensor, by name and shape, and nothing else.

    Raises
    ------
    WeightsError
        If the file is missing or corrupt, a tensor is missing, extra or of another shape or type, or a value
        is not finite.
    """
    path = Path(folder) / "model.safetensors"
    try:
        tensors = load_tensors(path.read_bytes())
    except FileNotFoundError:
        raise WeightsError(
            f"{path} does not exist; expected a folder with config.json and model.safetensors"
        ) from None
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file ({error}); fetch it again") from error
    own = model.state_dict()
    missing, extra = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    if missing or extra:
        raise WeightsError(
            f"{path} does not fit the {model.architecture} architecture: {len(missing)} tensors missing "
            f"(first {missing[:1]}), {len(extra)} unknown (first {extra[:1]}); use the weights of this "
            "architecture and config"
        )
    for name, value in tensors.items():
        expected = own[name]
        if value.shape != expected.shape or value.is_floating_point() != expected.is_floating_point():
            raise WeightsError(
                f"{path}: tensor {name} is {value.dtype} {tuple(value.shape)}; expected "
                f"{expected.dtype} {tuple(expected.shape)}: use the weights of this config"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise WeightsError(
                f"{path}: tensor {name} holds values that are not finite; fetch the weights again"
            )
    model.load_state_dict({name: value.to(own[name].dtype) for name, value in tensors.items()})


def load_model(folder: str | Path) -> tuple[HomographyModel, dict[str, Any]]:
    """Build a model from a folder and load its weights.

    Returns
    -------
    model : HomographyModel
        In evaluation mode, float32, on the CPU.
    config : dict
        As :func:`read_config` returns it.

    Raises
    ------
    WeightsError, ConfigError, UnknownNameError
        If the folder's files are missing, corrupt, or do not fit each other.
    """
    config = read_config(folder)
    model = build(config["architecture"], config["config"])
    load_state(model, folder)
    return model.eval(), config


def write_calibration(folder: str | Path, calibration: dict[str, float]) -> None:
    """Replace the calibration in a folder's ``config.json`` and leave the rest as it is.

    Raises
    ------
    WeightsError, ConfigError
        If the config cannot be read.
    OutputError
        If it cannot be written.
    """
    config = read_config(folder) | {"calibration": calibration}
    atomic_write_text(Path(folder) / "config.json", json.dumps(config, indent=2) + "\n")
