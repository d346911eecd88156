"""Names of architectures and of trained models."""

from __future__ import annotations

import dataclasses
import fnmatch
from typing import Any

from homoreg.errors import ConfigError, UnknownNameError
from homoreg.models.base import HomographyModel
from homoreg.models.clkn import CLKN, CLKNConfig
from homoreg.models.dhn import DHN, DHNConfig
from homoreg.models.dlkfm import DLKFM, DLKFMConfig
from homoreg.models.m import M, MConfig
from homoreg.models.mhn import MHN, MHNConfig
from homoreg.names import suggest
from homoreg.pins import PINS
from homoreg.pretrained import is_embedded

__all__ = ["ARCHITECTURES", "build", "list_architectures", "list_models"]

ARCHITECTURES: dict[str, tuple[type[HomographyModel], type[Any]]] = {
    "dhn": (DHN, DHNConfig),
    "clkn": (CLKN, CLKNConfig),
    "dlkfm": (DLKFM, DLKFMConfig),
    "m": (M, MConfig),
    "mhn": (MHN, MHNConfig),
}
"""Architecture name to its class and its config."""


def list_architectures() -> list[str]:
    """Names of the registered architectures."""
    return sorted(ARCHITECTURES)


def list_models(
    pattern: str = "*", *, embedded: bool | None = None, architecture: str | None = None
) -> list[str]:
    """Names of the trained models.

    Parameters
    ----------
    pattern
        Shell-style, such as ``"m*"``.
    embedded
        True for those whose weights are part of this installation, False for the others.
    architecture
        Only those of this architecture.

    Returns
    -------
    list of str
        Sorted.

    Raises
    ------
    UnknownNameError
        If the architecture is not registered.
    """
    if architecture is not None:
        _check_architecture(architecture)
    return sorted(
        name
        for name, pin in PINS.items()
        if fnmatch.fnmatchcase(name, pattern)
        and architecture in (None, pin.architecture)
        and embedded in (None, is_embedded(name))
    )


def build(architecture: str, config: dict[str, Any] | None = None) -> HomographyModel:
    """Build an untrained model.

    Parameters
    ----------
    architecture
        Registered name.
    config
        Values of its config dataclass; the defaults for those left out.

    Returns
    -------
    HomographyModel
        With random weights.

    Raises
    ------
    UnknownNameError
        If the architecture is not registered.
    ConfigError
        If the config has an unknown key or a value of the wrong type, or one that no network can have.
    """
    _check_architecture(architecture)
    model_class, config_class = ARCHITECTURES[architecture]
    values = dict(config or {})
    defaults = {f.name: f.default for f in dataclasses.fields(config_class)}
    for name, value in values.items():
        if name not in defaults:
            raise ConfigError(
                f"unknown {architecture} config key {name!r}; known keys: {', '.join(sorted(defaults))}"
            )
        values[name] = _like(value, defaults[name], f"{architecture} config {name}")
    return model_class(config_class(**values))


def _check_architecture(architecture: str) -> None:
    if architecture not in ARCHITECTURES:
        raise UnknownNameError(
            f"no architecture is called {architecture!r}; known architectures: "
            f"{', '.join(list_architectures())}{suggest(architecture, ARCHITECTURES)}"
        )


def _like(value: Any, default: Any, what: str) -> Any:
    """Check a value against the type of its default; JSON's lists become tuples."""
    if isinstance(default, tuple):
        if isinstance(value, list | tuple) and len(value) == len(default):
            return tuple(_like(v, d, what) for v, d in zip(value, default, strict=True))
        raise ConfigError(f"{what} is {value!r}; expected {len(default)} values like {list(default)}")
    if type(value) is not type(default) or (isinstance(value, int) and value < 0):
        raise ConfigError(f"{what} is {value!r}; expected a value like {default!r}")
    return value
