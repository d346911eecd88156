"""Every error the library raises on purpose.

Each message has three parts: the value that was given, what is accepted, and what to do about it. All
classes derive from :class:`HomoregError`, and each also derives from the built-in a caller would expect,
so ``except ValueError`` and ``except OSError`` keep working.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ConfigError",
    "DataError",
    "HomoregError",
    "HubError",
    "ImageReadError",
    "InputError",
    "MissingPackageError",
    "OutputError",
    "UnknownNameError",
    "UnreliableError",
    "UnreliableWarning",
    "WeightsError",
]


class HomoregError(Exception):
    """Base class of every error raised on purpose by homoreg."""


class InputError(HomoregError, ValueError):
    """An argument has a value, type, shape or dtype that is not accepted."""


class ImageReadError(InputError):
    """An image cannot be read: missing, a directory, empty, truncated, or not an image."""


class DataError(HomoregError, ValueError):
    """A folder of pairs or a frozen data set is missing, empty or inconsistent."""


class ConfigError(HomoregError, ValueError):
    """A configuration has an unknown key, a missing key or a value of the wrong type."""


class UnknownNameError(HomoregError, LookupError):
    """A model, recipe or method name is not registered."""


class WeightsError(HomoregError, ValueError):
    """Weights are corrupt, incomplete, or do not fit the architecture they are loaded into."""


class HubError(HomoregError, OSError):
    """A hub cannot be reached, refuses access, or gives no sensible answer."""


class MissingPackageError(HomoregError, ImportError):
    """A function needs an optional package that is not installed."""


class OutputError(HomoregError, OSError):
    """A result cannot be written (no permission, disk full, not a folder)."""


class UnreliableError(HomoregError, RuntimeError):
    """A registration is not reliable, and the caller asked for an error then.

    Parameters
    ----------
    message
        What is wrong.
    registration
        The result all the same, a :class:`homoreg.Registration`.
    """

    def __init__(self, message: str, registration: Any) -> None:
        super().__init__(message)
        self.registration = registration

    def __reduce__(self) -> tuple[type[UnreliableError], tuple[str, Any]]:
        return type(self), (str(self), self.registration)  # so that it comes back from other processes


class UnreliableWarning(UserWarning):
    """A registration is not reliable, and the caller asked for a warning then."""
