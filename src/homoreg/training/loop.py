"""The training loop.

Everything random is drawn from (seed, step), the learning rate is a function of the step, and metrics are
cut back to the checkpoint on resume: a resumed run is the run that was never stopped, bit for bit on one CPU
with one number of threads and processes. On CUDA schedule and draws are the same, sums may not be.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from homoreg.errors import ConfigError, WeightsError
from homoreg.files import atomic_write_text, make_folder
from homoreg.models.base import HomographyModel
from homoreg.models.registry import build
from homoreg.models.storage import load_state, save_weights
from homoreg.synthesis.protocol import SampleBatch, draw_samples, enlarge
from homoreg.synthesis.random import Draw, mix_seed
from homoreg.synthesis.sources import ImageBank
from homoreg.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from homoreg.training.graphs import GraphedObjective
from homoreg.training.metrics_log import MetricsLog
from homoreg.training.objectives import Objective, Outcome, get_objective, m_objective
from homoreg.training.parallel import Parallel
from homoreg.training.recipe import Recipe
from homoreg.training.record import hardware, new_record, on_this, read_record, require_same
from homoreg.training.schedule import EMA
from homoreg.training.sources import Source, split_sources
from homoreg.training.validation import validate

__all__ = ["Source", "TrainingResult", "split_sources", "train"]

logger = logging.getLogger(__name__)

_DATA, _STARTS = 0, 1  # streams of random numbers that must not meet


@dataclass(frozen=True)
class TrainingResult:
    """Where a run stands: steps done and in all, and whether it ended or was interrupted."""

    step: int
    total: int
    finished: bool


class _Batches:
    """Draws the next batch in a thread, and in a stream of its own, while the current one is trained on."""

    def __init__(self, bank: ImageBank, recipe: Recipe, parallel: Parallel) -> None:
        self.bank, self.recipe, self.parallel = bank, recipe, parallel
        on_cuda = parallel.device.type == "cuda"
        # In the stream of the training every look at a drawn number would wait for the step before.
        self.stream = torch.cuda.Stream(parallel.device, priority=-1) if on_cuda else None
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="synthesis")
        self.drawing = threading.Lock()  # held while the device is used
        self.next: tuple[int, Future[SampleBatch]] | None = None

    def _draw(self, step: int) -> SampleBatch:
        recipe, parallel = self.recipe, self.parallel
        epoch = step // recipe.steps_per_epoch
        half = epoch < recipe.half_size_share * recipe.epochs
        seed = mix_seed(recipe.seed, step, parallel.rank, _DATA)
        size, batch, geometry = recipe.size // 2 if half else recipe.size, recipe.batch_size, recipe.geometry
        fine = not half and recipe.is_fine(step)
        if fine:
            batch, geometry = batch // 4, dataclasses.replace(geometry, near=1.0)
        # Of the pictures that are looked at more finely, half have the pixels for it.
        enlarged = fine and seed % 2 == 0
        with self.drawing, torch.cuda.stream(self.stream):
            samples = draw_samples(
                self.bank,
                2 * size if fine and not enlarged else size,
                seed=seed,
                batch=max(1, batch // parallel.world),
                geometry=geometry,
                appearance=recipe.appearance,
                easy=recipe.easy_share(step),
            )
            samples = enlarge(samples) if enlarged else samples
            if self.stream is not None:
                self.stream.synchronize()
        return samples

    def get(self, step: int, total: int) -> SampleBatch:
        """Return the batch of a step and begin to draw the one after it."""
        ready = self.next[1] if self.next is not None and self.next[0] == step else None
        batch = self._draw(step) if ready is None else ready.result()
        self.next = (step + 1, self.pool.submit(self._draw, step + 1)) if step + 1 < total else None
        return batch

    def close(self) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """Turn SIGINT and SIGTERM into a flag, so that the step in progress ends and is saved."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Run:
    """State of one run and what is done with it at a step, an epoch and the end."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        parallel: Parallel,
        model: HomographyModel,
        record: dict[str, Any],
    ) -> None:
        self.recipe, self.out, self.parallel, self.model = recipe, out, parallel, model
        self.record = record
        self.total = recipe.epochs * recipe.steps_per_epoch
        # Fused: one pass over the weights instead of eight, which networks of 34 million weights feel.
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.peak_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.average = EMA(model, recipe.ema)
        self.objective: Objective = get_objective(model)
        self.graphed: GraphedObjective | None = None
        self.log = MetricsLog(out / "metrics.csv")
        self.step, self.samples, self.seconds = 0, 0, 0.0
        self.losses: list[float] = []  # of the steps since the last whole epoch
        self.errors: list[float] = []
        self.saved_step, self.saved_at = -1, time.monotonic()

    @property
    def checkpoint_path(self) -> Path:
        return self.out / "checkpoint.pt"

    def restore(self) -> None:
        """Continue from the last checkpoint, if there is one."""
        if not self.checkpoint_path.exists():
            self._cut_log(0)
            return
        checkpoint = load_checkpoint(self.checkpoint_path)
        try:
            self.model.load_state_dict(checkpoint.model)
            for name, value in checkpoint.average.items():
                self.average.state[name].copy_(value)
            self.optimizer.load_state_dict(checkpoint.optimizer)
        except (RuntimeError, KeyError, ValueError) as error:
            raise WeightsError(
                f"{self.checkpoint_path} does not fit the {self.recipe.architecture} architecture "
                f"({type(error).__name__}); resume with the homoreg that wrote it, or start afresh"
            ) from error
        self.step, self.seconds = checkpoint.step, checkpoint.seconds
        counted = checkpoint.samples
        self.samples = self.step * self.recipe.batch_size if counted is None else counted
        self.losses, self.errors = list(checkpoint.losses), list(checkpoint.errors)
        self.saved_step = self.step
        self._cut_log(self.step)

    def _cut_log(self, step: int) -> None:
        if self.parallel.rank == 0:
            self.log.cut(step)

    def save(self) -> None:
        """Write a checkpoint, if a step was made since the last."""
        if self.parallel.rank or self.saved_step == self.step:
            return
        save_checkpoint(
            self.checkpoint_path,
            Checkpoint(
                step=self.step,
                samples=self.samples,
                seconds=self.seconds,
                model=self.model.state_dict(),
                average=self.average.state,
                optimizer=self.optimizer.state_dict(),
                losses=self.losses,
                errors=self.errors,
            ),
        )
        self.saved_step, self.saved_at = self.step, time.monotonic()

    def use_graphs(self, quiet: threading.Lock) -> None:
        """Have the steps recorded as CUDA graphs; the lock keeps others off the device meanwhile."""

        def compute(batch: SampleBatch, draw: Draw) -> Outcome:
            with self.parallel.autocast():
                return m_objective(self.model, batch, draw)

        self.graphed = GraphedObjective(compute, self.model.parameters(), quiet)

    def train_step(self, wrapped: nn.Module, batch: SampleBatch) -> tuple[float, float]:
        """One optimizer step; returns the loss and the median corner error (px at n = 128)."""
        rate = self.recipe.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        seed = mix_seed(self.recipe.seed, self.step, self.parallel.rank, _STARTS)
        if self.graphed is not None:
            outcome = self.graphed(batch, seed)
        else:
            self.optimizer.zero_grad(set_to_none=True)
            with self.parallel.autocast():
                outcome = self.objective(wrapped, batch, seed, self.step / self.total)
            self.parallel.backward(outcome.loss)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        # One sample in thousands is degenerate; its step is skipped rather than spread over the weights.
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
            self.average.update(self.model, self.step)
        self.step += 1
        self.samples += len(batch.homography) * self.parallel.world
        return float(outcome.loss.detach()), float(outcome.errors.median())

    def snapshot(self, epoch: int) -> None:
        """Keep the averaged weights of an epoch as a loadable folder."""
        folder = self.out / "snapshots" / f"epoch-{epoch:03d}"
        before = self.record.get("init") or {}
        training = {
            "recipe": self.recipe.name,
            "epochs": epoch,
            "samples": self.samples + (before.get("samples") or 0),
            "minutes": round(self.seconds / 60 + (before.get("minutes") or 0), 1),
            "hardware": hardware(self.record),
        }
        if before:  # included in the two figures above, where it is known
            training["init"] = before
        save_weights(folder, self.model, state=self.average.state, training=training)


def train(
    recipe: Recipe,
    sources: Sequence[Source | str | Path],
    out: str | Path,
    *,
    resume: bool = False,
    init: str | Path | None = None,
    device: str | None = None,
    checkpoint_minutes: float = 3.0,
    max_steps: int | None = None,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> TrainingResult:
    """Train a model; cut at any instant, it resumes from its last checkpoint.

    Parameters
    ----------
    recipe
        Architecture, schedule and synthesis.
    sources
        Folders of aligned pairs.
    out
        Folder of the run: ``run.json``, ``checkpoint.pt``, ``metrics.csv``, ``curve.png``, ``snapshots/``.
    resume
        Continue the run in ``out``, or begin it where there is none; the recipe, the sources and the names of
        their images must be those it was begun with. The number of processes, the device and the precision
        may be others: that is logged, and run.json says what the run ran on from which step.
    init
        Folder with weights to start from instead of random ones, all but those of parts that the recipe's
        ``network`` adds; what they took, if their config says so, is part of the samples and minutes that
        snapshots state. A run that has a checkpoint resumes without it.
    device
        "cpu", "cuda"...; CUDA where there is one by default.
    checkpoint_minutes
        Time between checkpoints; one is also written at the end and on SIGINT or SIGTERM.
    max_steps
        Stop, as if interrupted, after this many steps of the run.
    progress
        Called after every step with the step, the total and moving figures.

    Returns
    -------
    TrainingResult
        Where the run stands.

    Raises
    ------
    ConfigError
        If ``out`` holds another run, or one and ``resume`` is False; if the device is not there, or the
        batch does not divide among the processes; if run.json is broken.
    DataError
        If a folder holds no pairs or unequal ones.
    WeightsError
        If the weights of ``init`` or the checkpoint cannot be read or do not fit the architecture.
    OutputError
        If a file of the run cannot be written.
    """
    folder = Path(out)
    known = [s if isinstance(s, Source) else Source(Path(s)) for s in sources]
    training, weights, held = split_sources(known, recipe.validation_share)
    parallel = Parallel(device, recipe.precision)
    if recipe.batch_size % parallel.world:
        raise ConfigError(f"batch_size {recipe.batch_size} does not divide among {parallel.world} processes")
    asked = new_record(recipe, known, init)
    recorded = read_record(folder / "run.json")
    if recorded is not None:
        if not resume:
            raise ConfigError(f"{out} holds a run already; continue it with --resume or choose another --out")
        begun = (folder / "checkpoint.pt").exists()
        require_same(folder / "run.json", recorded, asked, begun=begun)
    parallel.wait()  # all have looked before one writes
    bank = ImageBank(training, weights=weights, device=parallel.device)
    held_bank = ImageBank(held, device=parallel.device) if held and parallel.rank == 0 else None
    torch.manual_seed(recipe.seed)
    model = build(recipe.architecture, recipe.network).to(parallel.device)
    if init is not None:
        load_state(model, init, growing=bool(recipe.network))
    run = _Run(recipe, folder, parallel, model, recorded or asked)
    if resume:
        run.restore()
    if run.step < run.total:
        run.record = on_this(run.record, run.step, parallel.describe())
    # Written only now: a run that cannot begin leaves no folder that looks like one.
    if parallel.rank == 0:
        _write_record(folder, recorded, run.record)
    wrapped = parallel.prepare(model)
    batches = _Batches(bank, recipe, parallel)
    if recipe.graphs and parallel.device.type == "cuda" and parallel.world == 1:
        run.use_graphs(batches.drawing)
    last = min(run.total, max_steps) if max_steps is not None else run.total
    try:
        with _stop_on_signal() as stop:
            _loop(run, wrapped, batches, held_bank, last, stop, checkpoint_minutes, progress)
            run.save()  # while a second signal is still caught
    finally:
        batches.close()
    parallel.wait()
    return TrainingResult(run.step, run.total, run.step >= run.total)


def _write_record(folder: Path, before: dict[str, Any] | None, record: dict[str, Any]) -> None:
    """Write run.json if it is new or says something new, and log what a run goes on on if that is other."""
    if record == before:
        return
    stretches = record["ran_on"]
    if len(stretches) > 1:
        logger.warning(
            "the run goes on from step %d with %s, before with %s: what is drawn or summed from here on is "
            "not what it would have been",
            stretches[-1]["from_step"],
            *({k: v for k, v in one.items() if k != "from_step"} for one in (stretches[-1], stretches[-2])),
        )
    atomic_write_text(make_folder(folder) / "run.json", json.dumps(record, indent=2) + "\n")


def _loop(
    run: _Run,
    wrapped: nn.Module,
    batches: _Batches,
    held: ImageBank | None,
    last: int,
    stop: threading.Event,
    checkpoint_minutes: float,
    progress: Callable[[int, int, dict[str, float]], None] | None,
) -> None:
    recipe = run.recipe
    moving: dict[str, float] = {}
    wrapped.train()
    while run.step < last and not run.parallel.any(stop.is_set()):
        began = time.monotonic()
        batch = batches.get(run.step, run.total)
        loss, error = run.train_step(wrapped, batch)
        run.seconds += time.monotonic() - began
        run.losses.append(loss)
        run.errors.append(error)
        for name, value in (("loss", loss), ("error", error)):
            moving[name] = value if name not in moving else 0.98 * moving[name] + 0.02 * value
        if progress is not None and run.parallel.rank == 0:
            progress(run.step, run.total, dict(moving))
        if run.step % recipe.steps_per_epoch == 0:
            _end_epoch(run, held)
        if time.monotonic() - run.saved_at > 60 * checkpoint_minutes:
            run.save()


def _end_epoch(run: _Run, held: ImageBank | None) -> None:
    recipe, epoch = run.recipe, run.step // run.recipe.steps_per_epoch
    losses, errors = run.losses, run.errors
    run.losses, run.errors = [], []
    if run.parallel.rank:
        return
    row: dict[str, Any] = {
        "step": run.step,
        "epoch": epoch,
        "samples": run.samples,
        "minutes": round(run.seconds / 60, 2),
        "loss": sum(losses) / max(1, len(losses)),
        "error": sorted(errors)[len(errors) // 2] if errors else float("nan"),
    }
    final = epoch == recipe.epochs
    if held is not None and (epoch % recipe.validate_every == 0 or final):
        row |= validate(run.model, run.average.state, held, recipe)
    run.log.append(row)
    if epoch in recipe.snapshots or final:
        run.snapshot(epoch)
    if epoch % recipe.validate_every == 0 or final:
        run.save()
        run.log.plot(run.out / "curve.png")
