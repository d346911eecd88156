"""Weights on disk: a folder with config.json and model.safetensors, strict in both."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from homoreg.errors import ConfigError, WeightsError
from homoreg.files import atomic_write_files, atomic_write_text, make_folder
from homoreg.models.base import HomographyModel
from homoreg.models.quantization import dequantized, is_exact, quantized
from homoreg.models.registry import build
from homoreg.pins import PINS
from homoreg.pretrained import locate

__all__ = [
    "FORMAT_VERSION",
    "create",
    "encode_weights",
    "load_model",
    "load_state",
    "read_config",
    "save_weights",
    "write_calibration",
]

FORMAT_VERSION = 1
LARGEST_NUMBER = 4096  # that a config read from a file may hold: a stranger's must not exhaust the memory
SLACK = 10_000_000  # parameters that may be built in vain, so that a small misfit is named tensor by tensor
FLOATS = (torch.float16, torch.bfloat16, torch.float32)
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
        Of the floating-point tensors on disk; ``torch.int8`` stores the large ones as integers with a scale
        a row and the others as float32, see :mod:`homoreg.models.quantization`.

    Raises
    ------
    OutputError
        If a file cannot be written; then neither is.
    """
    files = encode_weights(
        model, state=state, calibration=calibration or {}, training=training or {}, dtype=dtype
    )
    target = make_folder(folder)
    atomic_write_files({target / name: data for name, data in files.items()})


def encode_weights(
    model: HomographyModel,
    *,
    state: dict[str, Tensor] | None = None,
    calibration: dict[str, float],
    training: dict[str, Any],
    dtype: torch.dtype | None = None,
) -> dict[str, bytes]:
    """Return the two files of :func:`save_weights` by name, without writing them.

    Without ``dtype`` the floating-point tensors become int8 or float16 if that loses nothing, else float32.
    """
    tensors = {name: value.detach().cpu() for name, value in (state or model.state_dict()).items()}
    if dtype is None:
        floats = [value for value in tensors.values() if value.is_floating_point()]
        exact = all(torch.equal(value.half().to(value.dtype), value) for value in floats)
        dtype = torch.int8 if is_exact(tensors) else torch.float16 if exact else torch.float32
    if dtype == torch.int8:
        tensors = quantized(tensors)
    else:
        tensors = {
            name: value.to(dtype if value.is_floating_point() else value.dtype)
            for name, value in tensors.items()
        }
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    config = {
        "format_version": FORMAT_VERSION,
        "architecture": model.architecture,
        "config": dataclasses.asdict(model.config),
        "calibration": calibration,
        "training": training,
    }
    return {
        "model.safetensors": save_tensors(tensors),
        "config.json": (json.dumps(config, indent=2) + "\n").encode(),
    }


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
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeats)
    except FileNotFoundError:
        raise WeightsError(
            f"{path} does not exist; expected a folder with config.json and model.safetensors"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
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
    if values["format_version"] < 1:
        raise ConfigError(f"{path}: format_version is {version}; expected 1 to {FORMAT_VERSION}")
    return values


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Object of JSON; a key given twice would let two readers see two different files."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key is given twice")
    return values


def load_state(model: HomographyModel, folder: str | Path, *, growing: bool = False) -> None:
    """Load ``model.safetensors`` into a model: every tensor, by name and shape, and nothing else.

    With ``growing`` the file may lack tensors: parts that are added to a trained network. They begin silent,
    see :meth:`~homoreg.models.HomographyModel.begin_silent`.

    Raises
    ------
    WeightsError
        If the file is missing or corrupt, a tensor is missing, extra or of another shape or type, or a value
        is not finite.
    ConfigError
        If a tensor is missing and the architecture has no parts that can be added.
    """
    path = Path(folder) / "model.safetensors"
    tensors = dequantized(_read_tensors(path), str(path))
    own = model.state_dict()
    added = sorted(set(own) - set(tensors)) if growing else []
    _fill(model, {**{name: own[name] for name in added}, **tensors}, path)
    if added:
        model.begin_silent(added)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_tensors(path.read_bytes())
    except FileNotFoundError:
        raise WeightsError(
            f"{path} does not exist; expected a folder with config.json and model.safetensors"
        ) from None
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file ({error}); fetch it again") from error
    return tensors


def _fill(model: HomographyModel, tensors: dict[str, Tensor], path: Path) -> None:
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
        kinds = FLOATS if expected.is_floating_point() else (expected.dtype,)
        if value.shape != expected.shape or value.dtype not in kinds:
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
    path = Path(folder) / "model.safetensors"
    tensors = _read_tensors(path)
    _check_numbers(config["config"], Path(folder) / "config.json")
    _check_starter(config["config"].get("starter", ""), Path(folder) / "config.json")
    with _stopped_at(2 * sum(value.numel() for value in tensors.values()) + SLACK, path):
        model = build(config["architecture"], config["config"])
    _fill(model, dequantized(tensors, str(path)), path)
    return model.eval(), config


def _check_numbers(value: Any, path: Path) -> None:
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            _check_numbers(one, path)
    elif isinstance(value, int | float) and not abs(value) <= LARGEST_NUMBER:
        raise ConfigError(f"{path}: the config holds {value}; expected numbers up to {LARGEST_NUMBER}")


def _check_starter(starter: Any, path: Path) -> None:
    """A stranger's config must not have a third party's weights fetched, or a folder of this machine read."""
    if starter != "" and starter not in tuple(PINS):
        raise ConfigError(
            f"{path}: the config's starter is {starter!r}; expected a registered model ({', '.join(PINS)})"
        )


@contextlib.contextmanager
def _stopped_at(most: int, path: Path) -> Iterator[None]:
    """Stop building a network that has far more parameters than its weights: it cannot fit them."""
    thread, built = threading.get_ident(), 0

    def count(_module: object, _name: str, parameter: Tensor | None) -> None:
        nonlocal built
        if threading.get_ident() == thread and parameter is not None:
            built += parameter.numel()
            if built > most:
                raise WeightsError(
                    f"{path} does not fit: its config.json describes a network of more than {most} "
                    "parameters; use the two files that belong together"
                )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def create(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> HomographyModel:
    """Load a trained network, without the reading, placing and calibration around it.

    Parameters
    ----------
    name, revision, cache_dir, token, local_files_only, force_download
        As for :meth:`homoreg.Registrar.from_pretrained`.

    Returns
    -------
    HomographyModel
        In evaluation mode, float32, on the CPU.

    Raises
    ------
    UnknownNameError, WeightsError, ConfigError, HubError, OutputError, InputError
        As for :meth:`homoreg.Registrar.from_pretrained`.
    """
    source = locate(
        name,
        revision=revision,
        cache_dir=cache_dir,
        token=token,
        local_files_only=local_files_only,
        force_download=force_download,
    )
    return load_model(source.folder)[0]


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
