from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from homoreg.errors import ConfigError, DataError, OutputError, UnknownNameError, WeightsError
from homoreg.models.registry import build
from homoreg.models.storage import load_model, load_state
from homoreg.synthesis.protocol import draw_samples
from homoreg.synthesis.sources import ImageBank, find_pairs
from homoreg.training.loop import TrainingResult, train
from homoreg.training.objectives import m_objective
from homoreg.training.recipe import Recipe, get_recipe
from homoreg.training.sources import Source, names_digest
from tests.disk import FullDisk, everything_below
from tests.scenes import save, scene, write_pairs
from tests.training.runs import (
    ROOT,
    TINY,
    Progress,
    build_tiny,
    checkpoint_of,
    environment,
    identical,
    rows,
    same_state,
    short,
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "park", 4)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network, and no picture of the curve: matplotlib takes longer than the steps."""
    monkeypatch.setattr("homoreg.training.loop.build", build_tiny)
    monkeypatch.setattr("homoreg.training.metrics_log.MetricsLog.plot", lambda self, path: False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, pairs: Path) -> Path:
    """A run of six steps in one go."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("homoreg.training.loop.build", build_tiny)
        assert train(short(), [pairs], out, device="cpu") == TrainingResult(6, 6, finished=True)
    return out


def at_step(step: int, act: Callable[[], None]) -> Progress:
    """A progress callback that acts after a step."""

    def progress(done: int, _total: int, _figures: dict[str, float]) -> None:
        if done == step:
            act()

    return progress


# --- what a run does and leaves -----------------------------------------------------------------------------


def test_the_files_of_a_run(whole: Path, pairs: Path) -> None:
    names = [name for name, data in everything_below(whole).items() if data != b"dir"]
    assert names == [
        "checkpoint.pt", "curve.png", "metrics.csv", "run.json",
        "snapshots/epoch-002/config.json", "snapshots/epoch-002/model.safetensors",
        "snapshots/epoch-003/config.json", "snapshots/epoch-003/model.safetensors",
    ]  # fmt: skip
    record = json.loads((whole / "run.json").read_text())
    assert Recipe.from_dict(record["recipe"]) == short()
    (source,) = record["sources"]
    assert {key: source[key] for key in ("name", "weight", "pairs")} == {
        "name": "park", "weight": 1.0, "pairs": 4,
    }  # fmt: skip
    assert source["names_sha256"] == names_digest(find_pairs(pairs))
    assert record["init"] is None
    assert record["ran_on"] == [{"from_step": 0, "processes": 1, "device": "cpu", "precision": "float32"}]


def test_the_metrics_of_a_run(whole: Path) -> None:
    found = rows(whole)
    assert [(row["step"], row["epoch"], row["samples"]) for row in found] == [
        ("2", "1", "4"), ("4", "2", "8"), ("6", "3", "12"),
    ]  # fmt: skip
    assert all(float(row["loss"]) > 0 and float(row["error"]) > 0 for row in found)
    # Validated every third epoch.
    assert [bool(row["validation_median"]) for row in found] == [False, False, True]


def test_progress_is_reported_after_each_step(tmp_path: Path, pairs: Path) -> None:
    calls: list[tuple[int, int, dict[str, float]]] = []
    train(short(), [pairs], tmp_path / "run", device="cpu", max_steps=3, progress=lambda *a: calls.append(a))
    assert [call[:2] for call in calls] == [(1, 6), (2, 6), (3, 6)]
    assert all(set(call[2]) == {"loss", "error"} for call in calls)


def test_snapshots_hold_the_averaged_weights_and_can_be_loaded(whole: Path) -> None:
    model, config = load_model(whole / "snapshots" / "epoch-003")
    assert config["architecture"] == "m"
    training = config["training"]
    assert training.pop("minutes") >= 0
    assert training == {"recipe": "m", "epochs": 3, "samples": 12, "hardware": "1 x cpu"}
    average = checkpoint_of(whole).average
    half = {name: value.half().float() for name, value in average.items()}
    assert identical(dict(model.state_dict()), half)
    earlier, _ = load_model(whole / "snapshots" / "epoch-002")
    assert not identical(dict(earlier.state_dict()), dict(model.state_dict()))


def test_the_first_epochs_run_at_half_the_size(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def drawn(bank: Any, n: int, **options: Any) -> Any:
        sizes.append(n)
        return draw_samples(bank, n, **options)

    monkeypatch.setattr("homoreg.training.loop.draw_samples", drawn)
    train(short(half_size_share=0.34), [pairs], tmp_path / "run", device="cpu")
    # The second epoch begins before the share is over.
    assert sizes == [32, 32, 32, 32, 64, 64]


def test_finer_steps_show_fewer_samples_in_larger_frames(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some with more of the pictures' pixels, some enlarged."""
    drawn: list[tuple[int, int, float]] = []
    shown: list[tuple[int, ...]] = []
    objective = m_objective

    def draw(bank: Any, n: int, **options: Any) -> Any:
        drawn.append((n, options["batch"], options["geometry"].near))
        return draw_samples(bank, n, **options)

    def watched(model: Any, batch: Any, *rest: Any) -> Any:
        shown.append(tuple(batch.template.shape))
        return objective(model, batch, *rest)

    monkeypatch.setattr("homoreg.training.loop.draw_samples", draw)
    monkeypatch.setattr("homoreg.training.loop.get_objective", lambda model: watched)
    changes = {
        "fine_share": 0.5,
        "half_size_share": 0.0,
        "batch_size": 4,
        "samples_per_epoch": 16,
        "epochs": 2,
    }
    train(short(**changes), [pairs], tmp_path / "run", device="cpu")
    near = get_recipe("m").geometry.near
    assert [n for _, n, _ in drawn] == [4, 1] * 4
    assert [share for _, _, share in drawn] == [near, 1.0] * 4
    assert [shape[-1] for shape in shown] == [64, 128] * 4
    assert {side for side, batch, _ in drawn if batch == 1} == {64, 128}
    assert checkpoint_of(tmp_path / "run").samples == 4 * 4 + 4


def test_a_recipes_network_may_add_to_the_weights_it_starts_from(
    tmp_path: Path, pairs: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homoreg.training.loop.build", lambda name, config: build(name, TINY | config))
    recipe = short(network={"layers": 2, "context": [1, 0, 1]}, peak_rate=1e-12, epochs=1)
    train(recipe, [pairs], tmp_path / "run", init=whole / "snapshots" / "epoch-003", device="cpu")
    model, config = load_model(tmp_path / "run" / "snapshots" / "epoch-001")
    assert (config["config"]["layers"], config["config"]["context"]) == (2, [1, 0, 1])
    before, _ = load_model(whole / "snapshots" / "epoch-003")
    batch = draw_samples(ImageBank(find_pairs(pairs)), 64, seed=0, batch=2, geometry=recipe.geometry)
    with torch.no_grad():
        found, expected = (net(batch.template, batch.search).homography for net in (model, before))
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_recorded_steps_are_the_steps(tmp_path: Path, pairs: Path) -> None:
    """The same loss with and without a CUDA graph, for every kind of step."""
    losses = []
    for graphs in (False, True):
        run = tmp_path / str(graphs)
        train(short(graphs=graphs, fine_share=0.5, precision="float32"), [pairs], run, device="cuda")
        losses.append([float(row["loss"]) for row in rows(run)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_another_seed_is_another_run(tmp_path: Path, pairs: Path, whole: Path) -> None:
    train(short(seed=1), [pairs], tmp_path / "run", device="cpu")
    assert not identical(checkpoint_of(tmp_path / "run").model, checkpoint_of(whole).model)
    assert rows(tmp_path / "run") != rows(whole)


def test_weights_to_start_from(tmp_path: Path, pairs: Path, whole: Path) -> None:
    """At a rate of next to nothing the run ends with the weights it began with."""
    snapshot = whole / "snapshots" / "epoch-003"
    train(short(peak_rate=1e-12, epochs=1), [pairs], tmp_path / "run", init=snapshot, device="cpu")
    expected = build_tiny("m")
    load_state(expected, snapshot)
    found = checkpoint_of(tmp_path / "run").model
    for name, value in expected.state_dict().items():
        assert torch.allclose(found[name], value, atol=1e-9), name
    before = json.loads((tmp_path / "run" / "run.json").read_text())["init"]
    assert before["sha256"] == hashlib.sha256((snapshot / "model.safetensors").read_bytes()).hexdigest()
    assert (before["name"], before["samples"]) == ("epoch-003", 12)
    # What the weights have seen, then and now.
    training = load_model(tmp_path / "run" / "snapshots" / "epoch-001")[1]["training"]
    assert (training["samples"], training["init"]) == (16, before)


def test_outside_the_main_thread(tmp_path: Path, pairs: Path, whole: Path) -> None:
    results: list[TrainingResult] = []
    run = tmp_path / "run"
    thread = threading.Thread(target=lambda: results.append(train(short(), [pairs], run, device="cpu")))
    thread.start()
    thread.join()
    assert results == [TrainingResult(6, 6, finished=True)]
    assert same_state(run, whole)


# --- resuming -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_resumed_run_is_the_run_that_was_never_stopped(
    tmp_path: Path, pairs: Path, whole: Path, step: int
) -> None:
    """At the end of an epoch and in its midst: weights, averages, optimizer, metrics, snapshots."""
    run = tmp_path / "run"
    assert train(short(), [pairs], run, device="cpu", max_steps=step) == TrainingResult(step, 6, False)
    assert checkpoint_of(run).step == step
    torch.manual_seed(1234)  # whatever else the process drew
    assert train(short(), [pairs], run, device="cpu", resume=True) == TrainingResult(6, 6, True)
    assert same_state(run, whole)
    for epoch in (2, 3):
        name = f"snapshots/epoch-{epoch:03d}/model.safetensors"
        assert (run / name).read_bytes() == (whole / name).read_bytes()


def test_a_crash_goes_back_to_the_last_checkpoint(tmp_path: Path, pairs: Path, whole: Path) -> None:
    """Rows that were logged after it are cut, and written again."""

    def crash() -> None:
        raise RuntimeError("power cut")

    run = tmp_path / "run"
    train(short(), [pairs], run, device="cpu", max_steps=1)
    with pytest.raises(RuntimeError, match="power cut"):
        train(short(), [pairs], run, device="cpu", resume=True, progress=at_step(5, crash))
    assert checkpoint_of(run).step == 1
    assert len(rows(run)) == 2
    train(short(), [pairs], run, device="cpu", resume=True)
    assert same_state(run, whole)


def test_a_run_cut_before_its_first_checkpoint_begins_again(tmp_path: Path, pairs: Path, whole: Path) -> None:
    def crash() -> None:
        raise RuntimeError

    run = tmp_path / "run"
    with pytest.raises(RuntimeError):
        train(short(), [pairs], run, device="cpu", progress=at_step(3, crash))
    assert not (run / "checkpoint.pt").exists()
    train(short(), [pairs], run, device="cpu", resume=True)
    assert same_state(run, whole)


def test_resume_begins_a_run_where_there_is_none(tmp_path: Path, pairs: Path, whole: Path) -> None:
    train(short(), [pairs], tmp_path / "run", device="cpu", resume=True)
    assert same_state(tmp_path / "run", whole)


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, pairs: Path) -> None:
    run = tmp_path / "run"
    train(short(epochs=1), [pairs], run, device="cpu")
    before = everything_below(run)
    assert train(short(epochs=1), [pairs], run, device="cpu", resume=True).finished
    assert everything_below(run) == before


def edit_record(run: Path, **changes: Any) -> None:
    """Change entries of run.json, or take away those that become None."""
    path = run / "run.json"
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))


def test_samples_are_counted_and_not_worked_out(tmp_path: Path, pairs: Path) -> None:
    """Somebody who edits run.json to go on with other epochs or batches still gets true figures."""
    run = tmp_path / "run"
    train(short(), [pairs], run, device="cpu", max_steps=3)
    wider = short(samples_per_epoch=8, batch_size=4)
    edit_record(run, recipe=wider.as_dict())
    train(wider, [pairs], run, device="cpu", resume=True)
    assert checkpoint_of(run).samples == 3 * 2 + 3 * 4
    assert [row["samples"] for row in rows(run)] == ["4", "10", "18"]
    assert load_model(run / "snapshots" / "epoch-003")[1]["training"]["samples"] == 18


def test_a_run_of_before_samples_and_machines_were_recorded(tmp_path: Path, pairs: Path, whole: Path) -> None:
    run = tmp_path / "run"
    train(short(), [pairs], run, device="cpu", max_steps=3)
    sources = [{"name": "park", "weight": 1.0}]
    (run / "run.json").write_text(json.dumps({"recipe": short().as_dict(), "sources": sources}))
    old = {key: value for key, value in vars(checkpoint_of(run)).items() if key != "samples"}
    torch.save({"format": 1, **old}, run / "checkpoint.pt")
    train(short(), [pairs], run, device="cpu", resume=True)
    assert same_state(run, whole)
    assert json.loads((run / "run.json").read_text())["ran_on"][0]["from_step"] == 3


def test_a_run_may_go_on_elsewhere_and_says_so(
    tmp_path: Path, pairs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    train(short(), [pairs], run, device="cpu", max_steps=3)
    cpu = {"processes": 1, "device": "cpu", "precision": "float32"}
    elsewhere = {"processes": 8, "device": "Abacus 9", "precision": "bfloat16"}
    edit_record(run, ran_on=[{"from_step": 0, **elsewhere}, {"from_step": 5, **elsewhere}])
    assert train(short(), [pairs], run, device="cpu", resume=True).finished
    assert json.loads((run / "run.json").read_text())["ran_on"] == [
        {"from_step": 0, **elsewhere}, {"from_step": 3, **cpu},
    ]  # fmt: skip
    training = load_model(run / "snapshots" / "epoch-003")[1]["training"]
    assert training["hardware"] == "8 x Abacus 9, then 1 x cpu"
    assert "goes on from step 3 with {'processes': 1" in caplog.text
    assert "before with {'processes': 8" in caplog.text


def test_a_run_goes_on_with_the_weights_it_was_begun_from(tmp_path: Path, pairs: Path, whole: Path) -> None:
    run, snapshot, other = tmp_path / "run", *(whole / "snapshots" / f"epoch-00{k}" for k in (3, 2))
    train(short(), [pairs], run, init=snapshot, device="cpu", max_steps=1)
    train(short(), [pairs], run, device="cpu", max_steps=2, resume=True)
    with pytest.raises(
        ConfigError, match=r"begun from the weights \w{12} \(epoch-003\), not from the weights"
    ):
        train(short(), [pairs], run, init=other, device="cpu", resume=True)
    (run / "checkpoint.pt").unlink()
    with pytest.raises(ConfigError, match="not from random weights; pass the --init of then, or choose"):
        train(short(), [pairs], run, device="cpu", resume=True)
    train(short(), [pairs], run, init=snapshot, device="cpu", max_steps=1, resume=True)


SCRIPT = """
import sys
from homoreg.training import loop
from tests.training.runs import build_tiny, short

loop.build = build_tiny
loop.train(
    short(epochs=100, snapshots=()), [sys.argv[1]], sys.argv[2], device="cpu", checkpoint_minutes=0.0,
    progress=lambda step, total, figures: print(step, flush=True),
)
"""


def test_a_killed_run_resumes(tmp_path: Path, pairs: Path) -> None:
    """SIGKILL at any instant: here while steps are made and a checkpoint is written after each."""
    run, recipe = tmp_path / "run", short(epochs=100, snapshots=())
    command = [sys.executable, "-c", SCRIPT, str(pairs), str(run)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 7:
                break
        process.kill()
    assert process.returncode == -signal.SIGKILL
    reached = checkpoint_of(run).step
    assert 6 <= reached < 200
    train(recipe, [pairs], run, device="cpu", resume=True, max_steps=reached + 3)
    train(recipe, [pairs], tmp_path / "straight", device="cpu", max_steps=reached + 3)
    assert same_state(run, tmp_path / "straight")


# --- stopping -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_run_cleanly(tmp_path: Path, pairs: Path, whole: Path, number: signal.Signals) -> None:
    run, before = tmp_path / "run", signal.getsignal(number)
    stop = at_step(3, lambda: signal.raise_signal(number))
    assert train(short(), [pairs], run, device="cpu", progress=stop) == TrainingResult(3, 6, finished=False)
    assert checkpoint_of(run).step == 3
    assert signal.getsignal(number) is before
    assert train(short(), [pairs], run, device="cpu", resume=True).finished
    assert same_state(run, whole)


def test_checkpoints_in_between(tmp_path: Path, pairs: Path) -> None:
    run = tmp_path / "run"
    steps: list[int] = []

    def look() -> None:
        steps.append(checkpoint_of(run).step)

    train(short(), [pairs], run, device="cpu", checkpoint_minutes=0.0, progress=at_step(4, look))
    assert steps == [3]


def test_a_full_disk_keeps_the_last_checkpoint(
    tmp_path: Path, pairs: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:

        def fill_up() -> None:
            FullDisk(patch, room=10_000)

        with pytest.raises(OutputError, match="the disk is full; free some space"):
            train(short(), [pairs], run, device="cpu", checkpoint_minutes=0.0, progress=at_step(4, fill_up))
    assert checkpoint_of(run).step == 3
    assert not [name for name in everything_below(run) if name.endswith(".tmp")]
    train(short(), [pairs], run, device="cpu", resume=True)
    assert same_state(run, whole)


# --- refusing -----------------------------------------------------------------------------------------------


def test_a_run_is_not_written_over(whole: Path, pairs: Path) -> None:
    before = everything_below(whole)
    with pytest.raises(ConfigError, match="holds a run already; continue it with --resume or choose another"):
        train(short(), [pairs], whole, device="cpu")
    assert everything_below(whole) == before


def test_a_run_is_not_resumed_with_another_recipe(whole: Path, pairs: Path) -> None:
    before = everything_below(whole)
    with pytest.raises(ConfigError, match=r"run\.json differs from the recipe or the sources asked for"):
        train(short(peak_rate=0.5), [pairs], whole, resume=True, device="cpu")
    with pytest.raises(ConfigError, match=r"run\.json differs from the recipe or the sources asked for"):
        train(short(), [Source(pairs, 2.0)], whole, resume=True, device="cpu")
    assert everything_below(whole) == before


def test_a_run_is_not_resumed_with_other_images(tmp_path: Path, pairs: Path) -> None:
    """Which images are held back, and which is drawn, hangs on their names."""
    folder, run = write_pairs(tmp_path / "park", 4), tmp_path / "run"
    train(short(), [folder], run, device="cpu", max_steps=1)
    write_pairs(folder, 5)
    with pytest.raises(ConfigError, match="the images of park were 4 pairs, now 5"):
        train(short(), [folder], run, resume=True, device="cpu")


@pytest.mark.parametrize("content", ["{", "[]", '{"recipe": {}}'])
def test_a_broken_record(tmp_path: Path, pairs: Path, content: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(content)
    with pytest.raises(ConfigError, match=r"run\.json.*; restore it or choose another --out"):
        train(short(), [pairs], tmp_path / "run", resume=True, device="cpu")


def test_a_broken_checkpoint(tmp_path: Path, pairs: Path) -> None:
    run = tmp_path / "run"
    train(short(), [pairs], run, device="cpu", max_steps=1)
    (run / "checkpoint.pt").write_bytes(b"broken")
    with pytest.raises(WeightsError, match="is not a readable checkpoint"):
        train(short(), [pairs], run, device="cpu", resume=True)


def test_a_checkpoint_of_another_network(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    train(short(), [pairs], run, device="cpu", max_steps=1)
    monkeypatch.setattr(
        "homoreg.training.loop.build", lambda name, config: build(name, {**TINY, "width2": 16})
    )
    with pytest.raises(WeightsError, match=r"checkpoint\.pt does not fit the m architecture"):
        train(short(), [pairs], run, device="cpu", resume=True)


def bad_folder(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "bad", 2)
    save(tmp_path / "bad" / "ir" / "00.png", scene(20, 20))
    return tmp_path / "bad"


CANNOT_BEGIN: dict[str, tuple[Callable[[Path], dict[str, Any]], type[Exception], str]] = {
    "no folder": (lambda t: {"sources": [t / "nowhere"]}, DataError, "nowhere is not a folder"),
    "no sources": (lambda t: {"sources": []}, DataError, "no image pairs to train on; .* pass --pairs"),
    "unequal sizes": (lambda t: {"sources": [bad_folder(t)]}, DataError, "aligned pairs must have one size"),
    "no weights": (lambda t: {"init": t / "nowhere"}, WeightsError, r"cannot read .*nowhere/model"),
    "device": (lambda t: {"device": "tpu9"}, ConfigError, "device is 'tpu9'"),
    "architecture": (
        lambda t: {"recipe": Recipe("x", "nn")}, UnknownNameError, "no architecture is called 'nn'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CANNOT_BEGIN)
def test_a_run_that_cannot_begin_leaves_nothing(tmp_path: Path, pairs: Path, name: str) -> None:
    make, error, message = CANNOT_BEGIN[name]
    options = {
        "recipe": short(),
        "sources": [pairs],
        "out": tmp_path / "run",
        "device": "cpu",
        **make(tmp_path),
    }
    with pytest.raises(error, match=message):
        train(**options)
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_way(tmp_path: Path, pairs: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(OutputError, match=r"cannot create the folder .* a file of that name is in the way"):
        train(short(), [pairs], tmp_path / "run", device="cpu")


def test_a_run_without_held_back_images(tmp_path: Path, pairs: Path) -> None:
    train(short(validation_share=0.0, epochs=1), [pairs], tmp_path / "run", device="cpu")
    assert [row["validation_median"] for row in rows(tmp_path / "run")] == [""]
