"""Register an infrared image to an RGB image: one homography, and how far to trust it.

>>> import homoreg
>>> registrar = homoreg.Registrar.from_pretrained("m120")  # doctest: +SKIP
>>> result = registrar("infrared.png", "rgb.png")  # doctest: +SKIP
>>> result.homography  # infrared pixels to RGB pixels  # doctest: +SKIP

Importing the package loads none of its dependencies: every name below is loaded when it is first used, so
that a command line or a web worker that never registers anything does not wait for torch.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from homoreg import errors
from homoreg.errors import (
    ConfigError,
    DataError,
    HomoregError,
    HubError,
    ImageReadError,
    InputError,
    OutputError,
    UnknownNameError,
    WeightsError,
)

if TYPE_CHECKING:
    from types import ModuleType

    from homoreg import baselines, evaluation, geometry, imaging, losses, metrics, models, synthesis, training
    from homoreg.models.registry import list_models
    from homoreg.registrar import Registrar
    from homoreg.registration import Registration

    __version__: str

__all__ = [
    "ConfigError",
    "DataError",
    "HomoregError",
    "HubError",
    "ImageReadError",
    "InputError",
    "OutputError",
    "Registrar",
    "Registration",
    "UnknownNameError",
    "WeightsError",
    "__version__",
    "baselines",
    "errors",
    "evaluation",
    "geometry",
    "imaging",
    "list_models",
    "losses",
    "metrics",
    "models",
    "synthesis",
    "training",
]

_HOME_OF = {
    "Registrar": "homoreg.registrar",
    "Registration": "homoreg.registration",
    "list_models": "homoreg.models.registry",
}
_SUBMODULES = frozenset(
    {"baselines", "evaluation", "geometry", "imaging", "losses", "metrics", "models", "synthesis", "training"}
)


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562) and keep it."""
    value: Any
    if name in _HOME_OF:
        value = getattr(_load(_HOME_OF[name]), name)
    elif name in _SUBMODULES:
        value = _load(f"homoreg.{name}")
    elif name == "__version__":
        from importlib.metadata import version

        value = version("homoreg")
    else:
        raise AttributeError(f"module 'homoreg' has no attribute {name!r}; see homoreg.__all__")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _load(module: str) -> ModuleType:
    """Import a module; without rounds of garbage collection if this is what brings torch in.

    Importing torch makes a quarter of a million objects, nearly all of them to stay, and going through them
    again and again for garbage takes some 0.1 s. One look at them all remains due, but no one waits for it:
    it comes with the next full collection, at the latest when the process ends (docs/research-log.md).
    """
    if "torch" in sys.modules or not gc.isenabled():
        return import_module(module)
    gc.disable()
    try:
        return import_module(module)
    finally:
        # Into the oldest generation, as if they had survived their rounds: else the next allocation would go
        # through all of them. What the program itself has frozen must stay frozen.
        if gc.get_freeze_count() == 0:
            gc.freeze()
            gc.unfreeze()
        gc.enable()
