"""A training step as a CUDA graph: thousands of small kernels, recorded once and started together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from homoreg.synthesis.protocol import SampleBatch
from homoreg.synthesis.random import Draw, RepeatedDraw
from homoreg.training.objectives.base import Outcome

__all__ = ["GraphedObjective"]

_WARM_UPS = 3  # runs before the recording, in which libraries choose and load their kernels


@dataclass(frozen=True, eq=False)
class _Record:
    """One recorded step: where its inputs, its random numbers and its results lie."""

    graph: torch.cuda.CUDAGraph
    batch: SampleBatch
    draw: RepeatedDraw
    outcome: Outcome
    gradients: list[Tensor | None]


class GraphedObjective:
    """Loss and gradients of an objective, recorded as one CUDA graph for each shape of batch.

    A graph repeats what it recorded: the objective must not depend on the progress of the run, nor decide
    anything by the values of a tensor. The weights may change in place.

    Parameters
    ----------
    compute
        Maps a batch and random numbers to the outcome; called a few times for each new shape.
    parameters
        Those whose gradients are wanted.
    quiet
        Held during a recording: whoever else uses the device has to hold it, too.
    """

    def __init__(
        self,
        compute: Callable[[SampleBatch, Draw], Outcome],
        parameters: Iterable[nn.Parameter],
        quiet: threading.Lock,
    ) -> None:
        self.compute, self.parameters, self.quiet = compute, list(parameters), quiet
        self._records: dict[tuple[int, ...], _Record] = {}

    def __call__(self, batch: SampleBatch, seed: int) -> Outcome:
        """Set the gradients of the parameters and return the outcome, which the next call overwrites."""
        shape = tuple(batch.template.shape)
        if shape not in self._records:
            with self.quiet:
                self._records[shape] = self._record(batch)
        record = self._records[shape]
        for name, value in vars(batch).items():
            vars(record.batch)[name].copy_(value)
        record.draw.rewind(seed)
        record.graph.replay()
        for parameter, gradient in zip(self.parameters, record.gradients, strict=True):
            parameter.grad = gradient
        return record.outcome

    def _record(self, batch: SampleBatch) -> _Record:
        kept = SampleBatch(**{name: value.clone() for name, value in vars(batch).items()})
        draw = RepeatedDraw(len(kept.homography), kept.homography.device)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                self._clear()
                draw.rewind(0)
                self.compute(kept, draw).loss.backward()
        torch.cuda.current_stream().wait_stream(aside)
        self._clear()
        draw.rewind(0)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outcome = self.compute(kept, draw)
            outcome.loss.backward()
        outcome = Outcome(outcome.loss.detach(), outcome.errors)
        return _Record(graph, kept, draw, outcome, [parameter.grad for parameter in self.parameters])

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
