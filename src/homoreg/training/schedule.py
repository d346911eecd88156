"""Learning rate as a pure function of the step, and the running average of the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["EMA", "one_cycle"]


def one_cycle(step: int, total: int, *, peak: float, warm_up: float, floor: float = 0.01) -> float:
    """Linear rise over the first share of the steps, then a half cosine down to a share of the peak.

    Parameters
    ----------
    step, total
        Index of the step, from 0, and number of steps.
    peak
        Largest rate.
    warm_up
        Share of the steps in which it rises.
    floor
        Final rate as a share of the peak.

    Returns
    -------
    float
        The rate for this step.
    """
    rising = max(1, round(warm_up * total))
    if step < rising:
        return peak * (step + 1) / rising
    progress = min(1.0, (step - rising) / max(1, total - rising))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


class EMA:
    """Exponential moving average of a module's parameters and buffers.

    The decay starts low, ``(1 + step) / (10 + step)``, so that the first average is not the random start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state: dict[str, Tensor] = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move the average towards the module's values after the given step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, values = [], []
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                averages.append(self.state[name])
                values.append(value.detach())
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)  # one kernel for all of them
