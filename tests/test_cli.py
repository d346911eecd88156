from __future__ import annotations

import codecs
import csv
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import homoreg
from homoreg import cli
from homoreg.models import build, save_weights
from homoreg.synthesis.dataset import SkyDataSet
from tests.disk import everything_below
from tests.scenes import infrared_of, save, scene, write_pairs, write_set

TINY = {"width2": 8, "width4": 8, "width8": 16, "layers": 1, "hidden": (8, 8, 8), "steps": (1, 1, 0)}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def refusal(*arguments: object) -> str:
    """The one line that a command refuses with."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    return result.stderr.removeprefix("Error: ").rstrip("\n")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model, a picture of each kind, two frozen sets and a folder of pairs; read only."""
    folder = tmp_path_factory.mktemp("home")
    save_weights(folder / "tiny", build("m", TINY))
    rgb = scene(120, 160)
    save(folder / "rgb.png", rgb)
    save(folder / "ir.png", infrared_of(rgb)[20:100, 30:130])
    write_set(folder / "park", 2)
    write_set(folder / "city", 1)
    write_pairs(folder / "pairs", 3)
    return folder


# --- the group ----------------------------------------------------------------------------------------------


def test_help_lists_the_commands() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in ("register", "eval", "synth", "train", "calibrate", "models", "publish"):
        assert f"\n  {command} " in result.output


@pytest.mark.parametrize("command", ["register", "eval", "synth", "train", "calibrate", "models", "publish"])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_explains_itself(command: str, flag: str) -> None:
    result = run(command, flag)
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: main {command} [OPTIONS]")


def test_version() -> None:
    assert run("--version").output == f"homoreg {homoreg.__version__}\n"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from homoreg.cli import main\n"
        "try: main(['eval', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'cv2', 'tqdm', 'kornia'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "No such command 'fly'"),
        (["register"], "Missing argument 'IR'"),
        (["eval"], "Missing option '--data'."),
        (["eval", "park"], "Got unexpected argument 'park'; did you mean --data park?"),
        (["eval", "--data", "park", "--batch-size", "0"], "Invalid value for '--batch-size'"),
        (["synth", "--out", "x"], "Missing option '--pairs'."),
        (["synth", "--pairs", "x"], "Missing option '--out'."),
        (["synth", "--pairs", "x", "--out", "y", "--train", "-1"], "Invalid value for '--train'"),
        (["synth", "--pairs", "x", "--out", "y", "--format", "gif"], "Invalid value for '--format'"),
        (["train", "--out", "x"], "Missing option '--pairs'."),
        (["train", "--pairs", "x", "--out", "y", "--epochs", "0"], "Invalid value for '--epochs'"),
        (["register", "x", "y", "-o", ""], "--out is empty"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (homoreg.DataError("first line\nsecond line"), 2, "Error: first line second line\n"),
        (PermissionError(13, "Permission denied", "run.json"), 2, "Error: run.json: Permission denied\n"),
        (OSError("no more room"), 2, "Error: no more room\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
    ],
)
def test_errors_become_a_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("homoreg.models.registry.list_models", fail)
    result = run("models")
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", message)


def test_a_bug_is_not_disguised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("homoreg.models.registry.list_models", fail)
    assert isinstance(run("models").exception, ZeroDivisionError)


# --- register -----------------------------------------------------------------------------------------------


def test_register_prints_the_result(home: Path) -> None:
    result = run("register", home / "ir.png", home / "rgb.png", "--model", home / "tiny")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in (lines[0], *lines[3:])] == [
        "homography", "expected", "confidence", "overlap", "model"
    ]  # fmt: skip
    assert all(len(line.split()) == 3 for line in lines[1:3])
    assert "model          tiny, " in lines[-1]


def test_register_writes_and_prints_the_same_json(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "here"
    result = run("register", home / "ir.png", home / "rgb.png", "-o", out, "--model", home / "tiny", "--json")
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert printed == json.loads((out / "registration.json").read_text())
    assert np.array(printed["homography"]).shape == (3, 3)
    assert (out / "overlay.png").stat().st_size > 0


def test_register_says_where_it_wrote(home: Path, tmp_path: Path) -> None:
    result = run("register", home / "ir.png", home / "rgb.png", "-o", tmp_path, "--model", home / "tiny")
    assert result.stdout.splitlines()[-1] == f"written to     {tmp_path}"


@pytest.mark.parametrize(
    "wrap", [lambda m: m, lambda m: {"homography": m, "model": "m120"}, lambda m: {"H_ir_to_rgb": m}]
)
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["plain", "as Windows writes it"])
def test_register_starts_at_a_prior(
    home: Path, tmp_path: Path, wrap: Callable[[Any], Any], mark: bytes
) -> None:
    """A featureless picture is answered with its prior."""
    prior = [[1, 0, 30], [0, 1, 20.5], [0, 0, 1]]
    (tmp_path / "prior.json").write_bytes(mark + json.dumps(wrap(prior)).encode())
    save(tmp_path / "flat.png", np.full((80, 100, 3), 9, np.uint8))
    result = run(
        "register", tmp_path / "flat.png", home / "rgb.png", "--prior", tmp_path / "prior.json",
        "--model", home / "tiny", "--json",
    )  # fmt: skip
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert printed["homography"] == prior
    assert not printed["reliable"]


@pytest.mark.parametrize(("prior", "scale"), [("0.5", 1.25), ("1", 2.5)])
def test_register_takes_a_share_of_the_width_as_a_prior(
    home: Path, tmp_path: Path, prior: str, scale: float
) -> None:
    save(tmp_path / "flat.png", np.full((80, 100, 3), 9, np.uint8))
    save(tmp_path / "rgb.png", np.full((200, 250, 3), 9, np.uint8))
    result = run(
        "register", tmp_path / "flat.png", tmp_path / "rgb.png", "--prior", prior,
        "--model", home / "tiny", "--json",
    )  # fmt: skip
    homography = np.array(json.loads(result.stdout)["homography"])
    assert homography[0, 0] == pytest.approx(scale)
    assert homography @ [49.5, 39.5, 1] == pytest.approx([124.5, 99.5, 1])


def test_register_takes_a_radiometric_jpeg_alone(home: Path, tmp_path: Path) -> None:
    tower = Path(__file__).parents[1] / "examples" / "samples" / "tower_rjpeg" / "original_radiometric.jpg"
    result = run(
        "register", tower, "--model", home / "tiny", "--orientation", "any", "--interpolation", "nearest",
        "-o", tmp_path / "out", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert [(printed[side]["width"], printed[side]["height"]) for side in ("ir", "rgb")] == [
        (180, 180),
        (480, 480),
    ]
    said = refusal("register", home / "ir.png", "--model", home / "tiny")
    assert "FLIR" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read the prior '.*prior.json': it is not JSON; expected JSON with a 3x3 matrix"),
        ("[" * 100_000, "cannot read the prior '.*prior.json': it is not JSON"),
        ("{}", "holds no matrix of numbers; expected"),
        ('"auto"', "holds no matrix of numbers; expected"),
        ("null", "holds no matrix of numbers; expected|has shape"),
        ("[[1, 0, 0], [0, 1], [0, 0, 1]]", "holds no matrix of numbers"),
        ("[[1, 0], [0, 1]]", r"has shape \(2, 2\); expected JSON with a 3x3 matrix"),
        ("[[1, 0, 0], [1, 0, 0], [0, 0, 1]]", "prior .* is singular or not finite"),
        ("[[NaN, 0, 0], [0, 1, 0], [0, 0, 1]]", "prior .* is singular or not finite"),
    ],
)
def test_register_refuses_a_prior(home: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "prior.json").write_text(text)
    said = refusal(
        "register", home / "ir.png", home / "rgb.png", "--prior", tmp_path / "prior.json",
        "--model", home / "tiny", "-o", tmp_path / "out",
    )  # fmt: skip
    assert re.search(message, said), said
    assert not (tmp_path / "out").exists()


def test_register_needs_files_that_are_there(home: Path, tmp_path: Path) -> None:
    said = refusal(
        "register", tmp_path / "no.png", home / "rgb.png", "--model", home / "tiny", "-o", tmp_path / "o"
    )
    assert "no.png" in said
    assert "no such file" in said
    assert not (tmp_path / "o").exists()
    said = refusal(
        "register",
        home / "ir.png",
        home / "rgb.png",
        "--prior",
        tmp_path / "no.json",
        "--model",
        home / "tiny",
    )
    assert "no.json': No such file or directory; expected JSON with a 3x3 matrix" in said


def test_register_needs_a_known_model(home: Path) -> None:
    said = refusal("register", home / "ir.png", home / "rgb.png", "--model", "m999")
    assert "no model is called 'm999'" in said


def test_register_does_not_write_over_a_file(home: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    said = refusal(
        "register", home / "ir.png", home / "rgb.png", "--model", home / "tiny", "-o", tmp_path / "out"
    )
    assert "cannot create the folder" in said
    assert everything_below(tmp_path) == {"out": b"mine"}


def test_register_fails_on_request_where_the_result_is_not_reliable(home: Path, tmp_path: Path) -> None:
    arguments = ("register", home / "ir.png", home / "rgb.png", "--model", home / "tiny", "--effort", "fast")
    loose, strict = run(*arguments), run(*arguments, "--strict", "-o", tmp_path / "out")
    assert "NOT RELIABLE (" in loose.stdout
    assert (loose.exit_code, strict.exit_code) == (0, 1)
    assert strict.stdout.splitlines()[:3] == loose.stdout.splitlines()[:3]
    assert (tmp_path / "out" / "registration.json").is_file()


# --- eval ---------------------------------------------------------------------------------------------------


def test_eval_compares_with_doing_nothing(home: Path, tmp_path: Path) -> None:
    result = run(
        "eval", "--model", home / "tiny", "--method", "ecc", "--csv", tmp_path / "rows.csv",
        "--data", home / "park", home / "city",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    header, *lines = [line.split() for line in result.stdout.splitlines()]
    assert header[3:10] == ["mean", "std", "min", "25%", "50%", "75%", "max"]
    assert [line[:3] for line in lines] == [
        ["nothing", "park", "2"], ["tiny", "park", "2"], ["ecc", "park", "2"],
        ["nothing", "city", "1"], ["tiny", "city", "1"], ["ecc", "city", "1"],
    ]  # fmt: skip
    with (tmp_path / "rows.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["method"] for row in rows] == ["nothing", "tiny", "ecc"] * 2
    assert [len(row["weights"]) for row in rows] == [0, 12, 0] * 2
    assert result.stderr == f"written to {tmp_path / 'rows.csv'}\n"


def test_eval_of_another_effort_says_so(home: Path) -> None:
    result = run("eval", "--model", home / "tiny", "--effort", "fast", "--data", home / "city")
    assert result.exit_code == 0, result.output
    nothing, tiny = result.stdout.splitlines()[1:]
    assert nothing.split()[:3] == ["nothing", "city", "1"]
    assert tiny.split()[:4] == ["tiny", "fast", "city", "1"]


def test_eval_audits_the_confidence(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = run(
        "eval", "--model", home / "tiny", "--effort", "fast", "--calibration", "--mismatches", "1",
        "--plot", tmp_path / "trust.png", "--strangers", home / "city", "--data", home / "park",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    errors, audits = result.stdout.split("\n\n")
    assert errors.splitlines()[-1].startswith("tiny fast")
    header, line = audits.splitlines()
    assert header.split()[-1] == "refused"
    assert line.startswith("tiny fast  park  2")
    assert line.endswith("%")
    assert (tmp_path / "trust.png").read_bytes().startswith(b"\x89PNG")
    assert f"written to {tmp_path / 'trust.png'}" in result.stderr


@pytest.mark.parametrize("option", [("--plot", "trust.png"), ("--strangers", "city")])
def test_eval_draws_only_what_it_measured(home: Path, option: tuple[str, str]) -> None:
    result = run("eval", "--data", home / "park", option[0], home / option[1])
    assert result.exit_code == 2
    assert "give both" in result.stderr


def test_eval_of_a_baseline_needs_no_model(home: Path) -> None:
    result = run("eval", "--data", home / "park", "--method", "nothing", "--markdown")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| nothing | park |")


def test_eval_takes_m120_by_default(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def load(name: object, *, device: str | None) -> None:
        asked.append((name, device))
        raise homoreg.WeightsError("stop here")

    monkeypatch.setattr("homoreg.registrar.Registrar.from_pretrained", load)
    assert refusal("eval", "--data", home / "park", "--device", "cpu") == "stop here"
    assert asked == [("m120", "cpu")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "'nowhere' is not a folder; give the folder that holds val_input"),
        (["--data", "park", "--split", "train"], "has no folder 'train_input'"),
        (
            ["--data", "park", "--method", "surf"],
            "no baseline is called 'surf'; known baselines: nothing, sift",
        ),
        (["--data", "park", "--model", "m999"], "no model is called 'm999'"),
    ],
)
def test_eval_refuses(
    home: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(home)
    assert message in refusal("eval", *arguments)


def test_eval_prints_its_table_even_where_the_csv_cannot_be_written(home: Path, tmp_path: Path) -> None:
    result = run("eval", "--data", home / "city", "--method", "nothing", "--csv", tmp_path)
    assert result.exit_code == 2
    assert "nothing" in result.stdout
    assert result.stderr.startswith("Error: cannot write")


@pytest.mark.parametrize("option", ["--csv", "--plot"])
def test_eval_measures_nothing_where_its_files_have_no_folder(
    home: Path, tmp_path: Path, option: str
) -> None:
    target = tmp_path / "no" / "file"
    said = refusal("eval", "--data", home / "city", "--method", "nothing", option, target)
    assert f"{option} is '{target}'; its folder does not exist" in said


# --- synth --------------------------------------------------------------------------------------------------


def test_synth_writes_a_set_and_continues_it(home: Path, tmp_path: Path) -> None:
    arguments = [
        "synth", "--pairs", home / "pairs", "--out", tmp_path / "set",
        "--train", "2", "--val", "1", "--size", "32", "--seed", "5", "--format", "png",
    ]  # fmt: skip
    assert run(*arguments).stdout == f"3 samples written to {tmp_path / 'set'}\n"
    assert [len(SkyDataSet(tmp_path / "set", split)) for split in ("train", "val")] == [2, 1]
    next((tmp_path / "set" / "val_label").iterdir()).unlink()
    assert run(*arguments).stdout == f"1 samples written to {tmp_path / 'set'}, 2 were there\n"
    assert "with seed = 5, not 6" in refusal(*arguments[:9], "--size", "32", "--seed", "6", "--format", "png")


def test_synth_takes_several_folders_and_appearance(home: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "more", 1, seed=9)
    result = run(
        "synth", "--pairs", home / "pairs", tmp_path / "more", "--out", tmp_path / "set",
        "--train", "1", "--val", "0", "--size", "32", "--appearance",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert manifest["sources"]["train"]["names"] == ["pairs/00", "pairs/01", "pairs/02", "more/00"]
    assert manifest["appearance"]["polarity"] > 0


def test_synth_refuses(tmp_path: Path) -> None:
    (tmp_path / "ir").mkdir()
    said = refusal("synth", "--pairs", tmp_path, "--out", tmp_path / "set")
    assert "has no folder rgb/; expected ir/NAME.* beside rgb/NAME.*" in said
    assert "size is 50; expected a multiple of 32" in refusal(
        "synth", "--pairs", tmp_path, "--out", tmp_path / "set", "--size", "50"
    )
    assert not (tmp_path / "set").exists()


# --- models -------------------------------------------------------------------------------------------------


def test_models_lists_names() -> None:
    assert run("models").stdout.splitlines() == homoreg.list_models()
    assert run("models", "m1*").stdout.splitlines() == homoreg.list_models("m1*")


def test_models_by_place_and_architecture() -> None:
    for flag, embedded in (("--embedded", True), ("--not-embedded", False)):
        names = homoreg.list_models(embedded=embedded)
        if names:
            assert run("models", flag).stdout.splitlines() == names
        else:
            result = run("models", flag)
            assert (result.exit_code, result.stdout) == (0, "")
            assert result.stderr == f"none of {', '.join(homoreg.list_models())}\n"
    assert run("models", "--architecture", "m").stdout.splitlines() == homoreg.list_models(architecture="m")
    assert refusal("models", "--architecture", "x").startswith("no architecture is called 'x'")


def test_models_says_when_none_matches() -> None:
    assert refusal("models", "x*").startswith("no model matches 'x*'; known models: ")
    assert refusal("models", "m12").endswith("Did you mean 'm120'?")


# --- calibrate ----------------------------------------------------------------------------------------------


def test_calibrate_writes_and_prints_the_fit(tmp_path: Path) -> None:
    save_weights(tmp_path / "tiny", build("m", TINY))
    write_pairs(tmp_path / "pairs", 4)
    result = run(
        "calibrate", tmp_path / "tiny", "--pairs", f"{tmp_path / 'pairs'}=2", "--share", "0.5",
        "--samples", "20", "--threshold", "0.7", "--threads", "1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "tiny" / "config.json").read_text())["calibration"]
    assert written["threshold"] == 0.7
    assert result.stdout.splitlines() == [f"{name}: {value:.4f}" for name, value in written.items()]


def test_calibrate_refuses(tmp_path: Path) -> None:
    assert "does not exist" in refusal("calibrate", tmp_path, "--pairs", tmp_path)
    for option, value, message in (
        ("--share", "nan", "share is nan; expected at least 0 and less than 1"),
        ("--share", "2", "share is 2.0; expected"),
        ("--threshold", "nan", "threshold is nan; expected a confidence, 0 to 1"),
    ):
        assert message in refusal("calibrate", tmp_path, "--pairs", tmp_path, option, value)


# --- train --------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command hands to the trainer, which is not run; "result" is what it shall return."""
    from homoreg import training

    seen: dict[str, Any] = {"result": training.TrainingResult(10, 10, True)}

    def fake(recipe: Any, sources: Any, out: Any, **options: Any) -> training.TrainingResult:
        seen.update(recipe=recipe, sources=sources, out=out, options=options)
        options["progress"](1, recipe.epochs * recipe.steps_per_epoch, {"loss": 1.0})
        result: training.TrainingResult = seen["result"]
        return result

    monkeypatch.setattr(training, "train", fake)
    return seen


def test_train_hands_its_options_on(trained: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "odd=2").mkdir()
    result = run(
        "train", "--recipe", "m", "--pairs", "a", "--pairs", "b=3", tmp_path / "odd=2", "c=d", "--out", "run",
        "--resume", "--epochs", "5", "--samples-per-epoch", "64", "--batch-size", "4", "--seed", "9",
        "--device", "cpu", "--init", "weights", "--max-steps", "10", "--checkpoint-minutes", "1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout == "10 of 10 steps in run: finished\n"
    recipe = trained["recipe"]
    assert (recipe.name, recipe.epochs, recipe.samples_per_epoch) == ("m", 5, 64)
    assert (recipe.batch_size, recipe.seed) == (4, 9)
    assert [(str(source.folder), source.weight) for source in trained["sources"]] == [
        ("a", 1.0), ("b", 3.0), (str(tmp_path / "odd=2"), 1.0), ("c=d", 1.0)
    ]  # fmt: skip
    options = dict(trained["options"])
    del options["progress"]
    assert options == {
        "resume": True, "init": "weights", "device": "cpu", "checkpoint_minutes": 1.0, "max_steps": 10
    }  # fmt: skip


def test_train_leaves_the_recipe_alone_by_default(trained: dict[str, Any]) -> None:
    from homoreg.training import get_recipe

    run("train", "--pairs", "a", "--out", "run")
    assert trained["recipe"] == get_recipe("m")
    assert not trained["options"]["resume"]


@pytest.mark.parametrize(
    ("options", "step", "code"), [([], 4, 130), (["--max-steps", "4"], 4, 0), (["--max-steps", "5"], 4, 130)]
)
def test_a_run_that_was_interrupted_says_so(
    trained: dict[str, Any], options: list[str], step: int, code: int
) -> None:
    from homoreg.training import TrainingResult

    trained["result"] = TrainingResult(step, 10, False)
    result = run("train", "--pairs", "a", "--out", "run", *options)
    assert result.exit_code == code
    assert result.stdout == "4 of 10 steps in run: stopped; continue it with --resume\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "x", "--pairs", "a"], "no recipe is called 'x'"),
        (["--pairs", "a=0"], "'a=0' gives the weight 0; expected a positive number"),
        (["--pairs", "a=inf"], "'a=inf' gives the weight inf; expected a positive number"),
        (["--pairs", "a", "--samples-per-epoch", "2"], "samples_per_epoch is 2"),
        (["--pairs", "a", "--seed", "9" * 20], f"seed is {'9' * 20}; expected a whole number from 0 to"),
    ],
)
def test_train_refuses(trained: dict[str, Any], arguments: list[str], message: str) -> None:
    assert message in refusal("train", *arguments, "--out", "run")
    assert "recipe" not in trained


def test_train_sets_the_threads(trained: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    run("train", "--pairs", "a", "--out", "run", "--threads", "3")
    assert asked == [3]


# --- as a program -------------------------------------------------------------------------------------------


def test_bad_input_ends_a_process_with_2_and_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "homoreg.cli", "eval", "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


def test_an_interrupted_process_ends_with_130_and_can_be_continued(home: Path, tmp_path: Path) -> None:
    arguments = [
        "synth",
        "--pairs",
        str(home / "pairs"),
        "--out",
        str(tmp_path / "set"),
        "--val",
        "0",
        "--size",
        "32",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "homoreg.cli", *arguments, "--train", "100000"],
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "set" / "train_label" / "000002_label.txt").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, said) == (130, "Interrupted.\n")
    found = sorted(path.name[:6] for path in (tmp_path / "set").glob("train_*/*"))
    assert found == sorted(3 * sorted(set(found)))  # whole samples, no temporary files
    assert "train = 100000, not 3" in refusal(*arguments, "--train", "3")
