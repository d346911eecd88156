"""The command line: ``homoreg register | eval | synth | train | calibrate | models | publish``.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 a result that is not
reliable with ``register --strict``, 2 bad input (one line ``Error: ...``, no traceback) or usage, 130
interrupted. torch and the rest are imported inside the commands, so that ``homoreg --help`` answers at once.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from homoreg.errors import HomoregError, InputError
from homoreg.names import suggest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from homoreg.audit import Audit
    from homoreg.evaluation import Evaluation
    from homoreg.imaging.resampling import Interpolation
    from homoreg.priors import Orientation
    from homoreg.registrar import Effort, Registrar
    from homoreg.registration import Registration
    from homoreg.synthesis.dataset import SkyDataSet

__all__ = ["main"]

UNRELIABLE = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class _Failure(click.ClickException):
    """Bad input: one line on standard error."""

    exit_code = 2


class _Commands(click.Group):
    """Turns the library's errors and an interrupt into a line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of our output left; click ends quietly
        except HomoregError as error:
            raise _Failure(_one_line(str(error))) from error
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            raise _Failure(_one_line(f"{place}{error.strerror or error}")) from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


_effort = click.option(
    "--effort",
    type=click.Choice(["fast", "auto", "best"]),
    default="auto",
    show_default=True,
    help="One look; more where they are needed; all of them.",
)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="homoreg", message="%(package)s %(version)s")
def main() -> None:
    """Register infrared images to RGB images."""


@main.command()
@click.argument("ir")
@click.argument("rgb", required=False)
@click.option("-o", "--out", metavar="DIR", help="Write pictures and JSON into this folder.")
@click.option("--model", default="m120", show_default=True, help="Name, folder or OWNER/NAME.")
@click.option(
    "--prior",
    default="auto",
    show_default=True,
    metavar="auto|same-view|SHARE|FILE",
    help="Where to start: SHARE of the RGB's width that the infrared covers, or a JSON FILE with a 3x3 "
    "matrix, infrared px to RGB px.",
)
@click.option(
    "--orientation",
    type=click.Choice(["upright", "any"]),
    default="upright",
    show_default=True,
    help="Whether to try quarter turns and mirror images too.",
)
@_effort
@click.option(
    "--interpolation",
    type=click.Choice(["linear", "nearest"]),
    default="linear",
    show_default=True,
    help="Of the warped infrared image in --out; nearest keeps its values as they are.",
)
@click.option("--strict", is_flag=True, help="Exit with code 1 if the result is not reliable.")
@click.option("--device", help="cpu or cuda.  [default: cpu]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def register(
    ir: str,
    rgb: str | None,
    out: str | None,
    model: str,
    prior: str,
    orientation: Orientation,
    effort: Effort,
    interpolation: Interpolation,
    strict: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Register the infrared image IR to the RGB image RGB.

    A radiometric JPEG of a FLIR camera holds both: give it alone. Without --out, only the result is printed.
    """
    from homoreg.registrar import Registrar

    if out == "":
        raise click.UsageError("--out is empty; name a folder.")
    start = _read_prior(prior)
    registrar = Registrar.from_pretrained(model, device=device)
    began = time.perf_counter()
    if rgb is None:
        result = registrar.register_rjpeg(ir, prior=start, orientation=orientation, effort=effort)
    else:
        result = registrar(ir, rgb, prior=start, orientation=orientation, effort=effort)
    milliseconds = (time.perf_counter() - began) * 1e3
    if out is not None:
        result.save(out, interpolation=interpolation)
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        click.echo(_describe(result, milliseconds))
        if out is not None:
            click.echo(f"written to     {out}")
    if strict and not result.reliable:
        click.get_current_context().exit(UNRELIABLE)


def _read_prior(prior: str) -> NDArray[np.float64] | float | Literal["auto", "same-view"]:
    """A word, a number, or a matrix from a JSON file: a 3x3 list, or an object that holds one.

    Its key is "homography", as --json writes it, or "H_ir_to_rgb", as the samples' files have it.
    """
    import numpy as np

    if prior == "auto":
        return "auto"
    if prior == "same-view":
        return "same-view"
    try:
        return float(prior)
    except ValueError:
        pass
    expected = (
        "expected JSON with a 3x3 matrix, or an object with 'homography' or 'H_ir_to_rgb' (or auto, "
        "same-view or a number in place of a file)"
    )
    try:
        value = json.loads(Path(prior).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise InputError(f"cannot read the prior {prior!r}: {reason}; {expected}") from error
    try:
        if isinstance(value, dict):
            value = value["homography"] if "homography" in value else value["H_ir_to_rgb"]
        matrix = np.array(value, np.float64)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InputError(f"the prior {prior!r} holds no matrix of numbers; {expected}") from None
    if matrix.shape != (3, 3):
        raise InputError(f"the prior {prior!r} has shape {matrix.shape}; {expected}")
    return matrix


def _describe(result: Registration, milliseconds: float) -> str:
    rows = [" ".join(f"{entry:12.6g}" for entry in row) for row in result.homography]
    error = (
        f"{result.expected_error:.2f} px of the RGB image"
        if math.isfinite(result.expected_error)
        else "unknown"
    )
    verdict = "reliable" if result.reliable else f"NOT RELIABLE ({result.status})"
    return "\n".join(
        [
            f"homography     {rows[0]}",
            *(f"               {row}" for row in rows[1:]),
            f"expected error {error}",
            f"confidence     {result.confidence:.2f}, {verdict}",
            f"overlap        {result.overlap:.0%} of the infrared image",
            f"model          {result.model}, {milliseconds:.0f} ms",
        ]
    )


@main.command("eval")
@click.option("--data", "folders", multiple=True, metavar="DIR...", help="Set in SkyData's layout.")
@click.argument("more", nargs=-1, metavar="")
@click.option("--model", "models", multiple=True, help="Name or folder of a model; repeatable.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help="nothing, sift, ecc, mutual_information or kornia; repeatable.",
)
@click.option("--split", default="val", show_default=True, help="Split of the sets.")
@click.option("--csv", "csv_path", metavar="FILE", help="Also write the rows as CSV.")
@click.option("--batch-size", default=16, show_default=True, type=click.IntRange(min=1))
@click.option("--device", help="cpu or cuda.  [default: cpu]")
@_effort
@click.option("--calibration", is_flag=True, help="Also ask whether the models' confidence can be trusted.")
@click.option(
    "--mismatches",
    default=24,
    show_default=True,
    type=click.IntRange(min=0),
    help="With --calibration: pairs of each kind that do not belong together, a set.",
)
@click.option(
    "--strangers",
    metavar="DIR",
    help="With --calibration: a set whose infrared images belong to none of the others', where all pairs of "
    "one show the same place.",
)
@click.option("--plot", "plot_path", metavar="FILE", help="With --calibration: draw its curves, as PNG.")
@click.option("--markdown", is_flag=True, help="Print a Markdown table.")
def evaluate(
    folders: tuple[str, ...],
    more: tuple[str, ...],
    models: tuple[str, ...],
    methods: tuple[str, ...],
    split: str,
    csv_path: str | None,
    batch_size: int,
    device: str | None,
    effort: Effort,
    calibration: bool,
    mismatches: int,
    strangers: str | None,
    plot_path: str | None,
    markdown: bool,
) -> None:
    """Measure models and baselines on frozen sets.

    Prints corner errors in px, beside the row of doing nothing. The method is m120 unless --model or
    --method says otherwise.
    """
    from homoreg.audit import audit, format_audits, plot_audits
    from homoreg.baselines import get_baseline
    from homoreg.evaluation import format_table, write_csv
    from homoreg.registrar import Registrar
    from homoreg.synthesis.dataset import SkyDataSet

    places = _all_of(folders, more, "--data")
    if not models and not methods:
        models = ("m120",)
    for method in methods:
        get_baseline(method)  # a misspelt name should not surface after minutes of work
    sets = [SkyDataSet(place, split) for place in places]
    for option, target in (("--csv", csv_path), ("--plot", plot_path)):
        if target is not None and not Path(target).absolute().parent.is_dir():
            raise InputError(f"{option} is {target!r}; its folder does not exist: create it first")
    for option, value in (("--plot draws what", plot_path), ("--strangers is for what", strangers)):
        if value is not None and not calibration:
            raise click.UsageError(f"{option} --calibration finds; give both.")
    registrars = {model: Registrar.from_pretrained(model, device=device) for model in models}
    paced = {model: _Paced(registrar, effort) for model, registrar in registrars.items()}
    ask = None
    if calibration:
        others = None if strangers is None else SkyDataSet(strangers, split)
        ask = partial(audit, mismatches=mismatches, strangers=others)
    rows, audits = _evaluate_all(sets, paced, methods, batch_size, ask)
    click.echo(format_table(rows, markdown=markdown))
    if audits:
        click.echo("\n" + format_audits(audits))
        if plot_path is not None:
            click.echo(f"written to {plot_audits(audits, plot_path)}", err=True)
    if csv_path is not None:
        write_csv(rows, csv_path)
        click.echo(f"written to {csv_path}", err=True)


class _Paced:
    """A registrar that always takes one effort."""

    def __init__(self, registrar: Registrar, effort: Effort) -> None:
        self.registrar, self.effort = registrar, effort
        self.name = registrar.name if effort == "auto" else f"{registrar.name} {effort}"

    def register_many(
        self, pairs: Sequence[tuple[Any, Any]], *, prior: Any, batch_size: int
    ) -> list[Registration]:
        return self.registrar.register_many(pairs, prior=prior, batch_size=batch_size, effort=self.effort)


def _evaluate_all(
    sets: Sequence[SkyDataSet],
    models: Mapping[str, _Paced],
    methods: Sequence[str],
    batch_size: int,
    ask: Callable[..., Audit] | None,
) -> tuple[list[Evaluation], list[Audit]]:
    """Rows set by set, doing nothing first; and audits of the models where ``ask`` makes them."""
    from homoreg.evaluation import do_nothing, evaluate, weights_digest
    from homoreg.pretrained import locate

    rows, audits = [], []
    for pairs in sets:
        rows.append(do_nothing(pairs))
        for model, paced in models.items():
            digest = weights_digest(locate(model).folder)
            rows.append(
                evaluate(paced, pairs, name=paced.name, weights=digest, batch_size=batch_size, progress=True)
            )
            if ask is not None:
                audits.append(ask(paced, rows[-1], pairs))
        rows += [evaluate(method, pairs, progress=True) for method in methods if method != "nothing"]
    return rows, audits


def _all_of(given: tuple[str, ...], more: tuple[str, ...], option: str) -> list[str]:
    """Values of an option that is repeated, or followed by several as a shell pattern expands to them."""
    if more and not given:
        raise click.UsageError(f"Got unexpected argument {more[0]!r}; did you mean {option} {more[0]}?")
    if not given:
        raise click.UsageError(f"Missing option '{option}'.")
    return [*given, *more]


@main.command()
@click.option(
    "--pairs", multiple=True, metavar="DIR...", help="ir/NAME.* beside rgb/NAME.*, or RGB images only."
)
@click.argument("more", nargs=-1, metavar="")
@click.option("--out", required=True, metavar="DIR", help="Folder of the set; a cut run is continued.")
@click.option("--train", default=28_000, show_default=True, type=click.IntRange(min=0), help="Samples.")
@click.option("--val", default=8_000, show_default=True, type=click.IntRange(min=0), help="Samples.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--size", default=128, show_default=True, help="Side of the templates, px.")
@click.option("--format", "image_format", default="jpg", show_default=True, type=click.Choice(["jpg", "png"]))
@click.option("--appearance", is_flag=True, help="Vary tone, palette, blur and noise as in training.")
def synth(
    pairs: tuple[str, ...],
    more: tuple[str, ...],
    out: str,
    train: int,
    val: int,
    seed: int,
    size: int,
    image_format: str,
    appearance: bool,
) -> None:
    """Write a frozen set of labelled samples in SkyData's layout."""
    import torch
    from tqdm import tqdm

    from homoreg.synthesis.appearance import AppearanceConfig
    from homoreg.synthesis.freezing import write_skydata

    folders = _all_of(pairs, more, "--pairs")
    # A sample at a time gains nothing from threads, and sums do not depend on how they were split among them.
    torch.set_num_threads(1)
    with tqdm(total=train + val, unit="sample", leave=False, disable=None) as bar:
        result = write_skydata(
            out,
            folders,
            train=train,
            val=val,
            seed=seed,
            size=size,
            image_format=image_format,
            appearance=AppearanceConfig() if appearance else None,
            progress=lambda done, _: bar.update(done - bar.n),
        )
    kept = f", {result.kept} were there" if result.kept else ""
    click.echo(f"{result.written} samples written to {result.folder}{kept}")


@main.command()
@click.argument("pattern", default="*")
@click.option("--embedded/--not-embedded", default=None, help="Whether the weights are in this installation.")
@click.option("--architecture", metavar="NAME", help="Only models of this architecture.")
def models(pattern: str, embedded: bool | None, architecture: str | None) -> None:
    """List the trained models.

    PATTERN restricts the list to matching names, such as "m*".
    """
    from homoreg.models.registry import list_models

    names = list_models(pattern, embedded=embedded, architecture=architecture)
    if not names and not list_models(pattern):
        known = ", ".join(list_models())
        raise InputError(
            f"no model matches {pattern!r}; known models: {known}{suggest(pattern, list_models())}"
        )
    for name in names:
        click.echo(name)
    if not names:
        click.echo(f"none of {', '.join(list_models(pattern))}", err=True)


@main.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every registered model.")
@click.option("--owner", metavar="NAME", help="Your account or organisation on the Hub.")
@click.option("--out", default="dist/hub", show_default=True, metavar="DIR", help="For the staged folders.")
@click.option("--private", is_flag=True, help="Make new repositories private.")
@click.option("--dry-run", is_flag=True, help="Stage only; upload nothing.")
def publish(
    names: tuple[str, ...], everything: bool, owner: str | None, out: str, private: bool, dry_run: bool
) -> None:
    """Publish registered models on the Hugging Face Hub.

    Stages each as a folder, uploads it to OWNER/homoreg-NAME, and prints the pin to commit in
    src/homoreg/pins.py. Log in first with `hf auth login`.
    """
    from homoreg.models.registry import list_models
    from homoreg.pins import UNPUBLISHED_OWNER
    from homoreg.publish import publish as publish_models

    if bool(names) == everything:
        raise click.UsageError("Name the models to publish, or give --all.")
    if owner is None and not dry_run:
        raise click.UsageError("Missing option '--owner'; only a --dry-run does without.")
    owner = owner or UNPUBLISHED_OWNER
    chosen = list_models() if everything else names
    for done in publish_models(chosen, owner, out, dry_run=dry_run, private=private or None):
        place = "not uploaded" if done.pin.commit is None else done.pin.repository
        click.echo(f"{done.name}: {done.folder}, {place}", err=True)
        click.echo(done.pin.as_source(done.name))


@main.command()
@click.option("--recipe", default="m", show_default=True, help="Name of the recipe.")
@click.option(
    "--pairs",
    multiple=True,
    metavar="DIR[=WEIGHT]...",
    help="Aligned pairs, ir/NAME.* beside rgb/NAME.*; WEIGHT says how much the folder counts.",
)
@click.argument("more", nargs=-1, metavar="")
@click.option("--out", required=True, metavar="DIR", help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Continue the run in --out, with the options it began with.")
@click.option("--init", metavar="DIR", help="Folder with weights to start from.")
@click.option("--epochs", type=click.IntRange(min=1))
@click.option("--samples-per-epoch", type=click.IntRange(min=1))
@click.option("--batch-size", type=click.IntRange(min=1))
@click.option(
    "--half-size-share", type=click.FloatRange(0, 1), help="First share of the epochs at half size."
)
@click.option("--seed", type=click.IntRange(min=0))
@click.option("--device", help="cpu or cuda.  [default: cuda where there is one]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of torch.")
@click.option("--max-steps", type=click.IntRange(min=1), help="Stop after this many steps of the run.")
@click.option("--checkpoint-minutes", default=3.0, show_default=True, type=click.FloatRange(min=0))
def train(
    recipe: str,
    pairs: tuple[str, ...],
    more: tuple[str, ...],
    out: str,
    resume: bool,
    init: str | None,
    device: str | None,
    threads: int | None,
    max_steps: int | None,
    checkpoint_minutes: float,
    **changes: float | None,
) -> None:
    """Train a model. Ctrl-C saves a checkpoint; --resume continues from it."""
    import torch
    from tqdm import tqdm

    from homoreg import training

    folders = _all_of(pairs, more, "--pairs")
    chosen = training.get_recipe(recipe, **{k: v for k, v in changes.items() if v is not None})
    if threads is not None:
        torch.set_num_threads(threads)
    speaks = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts, the first
    total = chosen.epochs * chosen.steps_per_epoch
    with tqdm(total=total, unit="step", disable=None if speaks else True) as bar:

        def show(step: int, _total: int, figures: dict[str, float]) -> None:
            if bar.n == 0:
                bar.initial = bar.n = step - 1  # a resumed run's rate counts its own steps only
            bar.set_postfix({name: f"{value:.2f}" for name, value in figures.items()}, refresh=False)
            bar.update(step - bar.n)

        result = training.train(
            chosen,
            [training.Source(*_split_weight(folder)) for folder in folders],
            out,
            resume=resume,
            init=init,
            device=device,
            checkpoint_minutes=checkpoint_minutes,
            max_steps=max_steps,
            progress=show,
        )
    if not speaks:
        return
    state = "finished" if result.finished else "stopped; continue it with --resume"
    click.echo(f"{result.step} of {result.total} steps in {out}: {state}")
    if not result.finished and (max_steps is None or result.step < max_steps):
        click.get_current_context().exit(INTERRUPTED)


@main.command()
@click.argument("weights", metavar="FOLDER")
@click.option(
    "--pairs",
    multiple=True,
    metavar="DIR[=WEIGHT]...",
    help="Folders the model was trained on, with the weights of then.",
)
@click.argument("more", nargs=-1, metavar="")
@click.option("--samples", default=400, show_default=True, type=click.IntRange(min=20))
@click.option("--share", default=0.08, show_default=True, help="Held-back share of each folder's images.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Confidence that counts as reliable.  [default: from 0.5 up, by the mistakes it lets pass]",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of torch.")
def calibrate(
    weights: str,
    pairs: tuple[str, ...],
    more: tuple[str, ...],
    samples: int,
    share: float,
    threshold: float | None,
    threads: int | None,
) -> None:
    """Fit confidence and expected error of the weights in FOLDER on held-back images.

    The fit is written into FOLDER/config.json.
    """
    import torch
    from tqdm import tqdm

    from homoreg import training

    if threads is not None:
        torch.set_num_threads(threads)
    sources = [training.Source(*_split_weight(folder)) for folder in _all_of(pairs, more, "--pairs")]
    with tqdm(unit="pair", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        trust = training.calibrate(
            weights, sources, share=share, samples=samples, threshold=threshold, progress=show
        )
    for name, value in trust.as_dict().items():
        click.echo(f"{name}: {value:.4f}")


def _split_weight(text: str) -> tuple[Path, float]:
    """``DIR=3`` as folder and weight; a folder whose own name looks like that wins."""
    folder, separator, weight = text.rpartition("=")
    if not separator or Path(text).is_dir():
        return Path(text), 1.0
    try:
        value = float(weight)
    except ValueError:
        return Path(text), 1.0
    if not 0 < value < float("inf"):
        raise InputError(f"{text!r} gives the weight {weight}; expected a positive number")
    return Path(folder), value


if __name__ == "__main__":
    main()
