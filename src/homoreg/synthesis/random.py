"""Random numbers for a batch, from one explicit generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

__all__ = ["Draw", "RepeatedDraw", "mix_seed"]


def mix_seed(*parts: int) -> int:
    """One seed from several whole numbers (such as run, step and purpose), unlike that of any other tuple."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


class Draw:
    """Draws for the members of one batch; the same seed gives the same draws on the same device.

    Parameters
    ----------
    seed
        Of the generator.
    batch
        Number of samples.
    device
        Where the numbers are drawn.
    """

    def __init__(self, seed: int, batch: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.batch = batch
        self.generator = torch.Generator(device=self.device)
        self.generator.manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform in [low, high), shape ``(B, *shape)``."""
        return low + (high - low) * self._unit((self.batch, *shape))

    def _unit(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device)

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Log-uniform in [low, high), shape ``(B, *shape)``."""
        return self.uniform(float(torch.tensor(low).log()), float(torch.tensor(high).log()), *shape).exp()

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, shape ``(B, *shape)``."""
        return torch.randn((self.batch, *shape), generator=self.generator, device=self.device)

    def integers(self, count: int, *shape: int) -> Tensor:
        """Uniform in 0 .. count - 1, shape ``(B, *shape)``."""
        return torch.randint(count, (self.batch, *shape), generator=self.generator, device=self.device)

    def chance(self, probability: float) -> Tensor:
        """Bool, shape (B,), True with the given probability."""
        return self.uniform(0.0, 1.0) < probability

    def simplex(self, count: int) -> Tensor:
        """Uniform on the simplex (a flat Dirichlet draw), shape (B, count)."""
        weights = -self.uniform(1e-6, 1.0, count).log()
        return weights / weights.sum(dim=1, keepdim=True)

    def sometimes(self, probability: float, x: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Apply ``change(members, index)`` to the members of a batch that a coin picks.

        ``change`` gets the picked members and their indices (B',), and is not called where there are none;
        numbers it draws for the whole batch it takes by these indices.
        """
        index = self.chance(probability).nonzero().squeeze(1)
        if not len(index):
            return x
        return x.index_copy(0, index, change(x[index], index))


class RepeatedDraw(Draw):
    """Uniform draws that are asked for in one order again and again, and always lie in the same memory.

    What was recorded with them once, as a CUDA graph, can be replayed with others: :meth:`rewind` fills them
    anew, with the numbers that a new :class:`Draw` of the same seed would give.
    """

    def __init__(self, batch: int, device: torch.device | str = "cpu") -> None:
        super().__init__(0, batch, device)
        self._numbers: list[Tensor] = []
        self._next = 0

    def rewind(self, seed: int) -> None:
        """Begin again, with the numbers of another seed."""
        self.generator.manual_seed(seed)
        self._next = 0
        for numbers in self._numbers:
            numbers.uniform_(generator=self.generator)

    def _unit(self, shape: tuple[int, ...]) -> Tensor:
        if self._next == len(self._numbers):
            self._numbers.append(super()._unit(shape))
        numbers = self._numbers[self._next]
        assert numbers.shape == shape
        self._next += 1
        return numbers
