"""One process or several: device, precision and gradients, with accelerate where there are several."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from homoreg.errors import ConfigError

__all__ = ["Parallel"]


class Parallel:
    """What a training process knows of its device and of its peers.

    A single process needs torch alone. Under ``torchrun`` (WORLD_SIZE above 1) the peers are joined by
    accelerate's data parallelism.

    Parameters
    ----------
    device
        "cpu", "cuda", "cuda:1"...; None takes CUDA where there is one.
    precision
        "float32", "bfloat16", or "auto": bfloat16 on CUDA, float32 on a CPU, where it brings nothing.

    Raises
    ------
    ConfigError
        If the device is unknown or absent, or accelerate is needed and not installed.
    """

    def __init__(self, device: str | None, precision: str) -> None:
        name = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            chosen = torch.device(name)
        except RuntimeError:
            raise ConfigError(f"device is {name!r}; expected a torch device such as cpu or cuda") from None
        if chosen.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(f"device is {name!r}, but torch sees no CUDA device here; pass cpu")
        try:
            torch.empty(1, device=chosen).item()  # "meta" holds no numbers
        except (RuntimeError, AssertionError, ImportError):
            raise ConfigError(
                f"device is {name!r}, which torch does not see here; pass cpu or cuda"
            ) from None
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self._accelerator: Any = None
        if self.world > 1:
            self._accelerator = _make_accelerator(cpu=chosen.type == "cpu")
            chosen = torch.device(self._accelerator.device)
        self.device = chosen
        self.rank = int(self._accelerator.process_index) if self._accelerator is not None else 0
        self._bfloat16 = precision == "bfloat16" or (precision == "auto" and chosen.type == "cuda")

    def describe(self) -> dict[str, Any]:
        """Return ``processes``, ``device`` (of CUDA devices their name) and ``precision``."""
        cuda = self.device.type == "cuda"
        return {
            "processes": self.world,
            "device": torch.cuda.get_device_name(self.device) if cuda else str(self.device),
            "precision": "bfloat16" if self._bfloat16 else "float32",
        }

    def prepare(self, model: nn.Module) -> nn.Module:
        """Wrap the model for the peers; its parameters, and so the optimizer's, stay the same tensors."""
        if self._accelerator is None:
            return model
        wrapped: nn.Module = self._accelerator.prepare_model(model)
        return wrapped

    def autocast(self) -> AbstractContextManager[Any]:
        """Precision of the forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16)

    def backward(self, loss: Tensor) -> None:
        """Gradients, averaged over the peers."""
        loss.backward()

    def any(self, flag: bool) -> bool:
        """Whether any peer raises the flag, so that all stop at one step."""
        if self._accelerator is None:
            return flag
        count = torch.tensor([int(flag)], device=self.device)
        return bool(self._accelerator.reduce(count, reduction="sum").item() > 0)

    def wait(self) -> None:
        """Wait for all peers."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()


def _make_accelerator(*, cpu: bool) -> Any:
    try:
        from accelerate import Accelerator
    except ImportError:
        raise ConfigError(
            "WORLD_SIZE is above 1 but accelerate is not installed; expected the train extra: "
            "pip install 'homoreg[train]'"
        ) from None
    return Accelerator(cpu=cpu)
