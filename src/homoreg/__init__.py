"""Register an infrared image to an RGB image: one homography, and how far to trust it.

>>> import homoreg
>>> registrar = homoreg.Registrar.from_pretrained("m120")  # doctest: +SKIP
>>> result = registrar("infrared.png", "rgb.png")  # doctest: +SKIP
>>> result.homography  # infrared pixels to RGB pixels  # doctest: +SKIP

Importing the package loads none of its dependencies: every name below is loaded when it is first used, so
that a command line or a web worker that never registers anything does not wait for torch.
"""

from __future__ import annotations

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
        value = getattr(import_module(_HOME_OF[name]), name)
    elif name in _SUBMODULES:
        value = import_module(f"homoreg.{name}")
    elif name == "__version__":
        from importlib.metadata import version

        value = version("homoreg")
    else:
        raise AttributeError(f"module 'homoreg' has no attribute {name!r}; see homoreg.__all__")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
