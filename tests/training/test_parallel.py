from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from homoreg.errors import ConfigError
from homoreg.training.loop import train
from homoreg.training.parallel import Parallel
from tests.scenes import write_pairs
from tests.training.runs import ROOT, build_tiny, checkpoint_of, environment, rows, short


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


# --- one process --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_cuda")
def test_alone() -> None:
    parallel = Parallel(None, "auto")
    assert parallel.device == torch.device("cpu")
    assert (parallel.world, parallel.rank) == (1, 0)
    assert parallel.describe() == {"processes": 1, "device": "cpu", "precision": "float32"}
    model = nn.Linear(2, 1)
    assert parallel.prepare(model) is model
    assert parallel.any(True)
    assert not parallel.any(False)
    parallel.wait()
    loss = model(torch.ones(1, 2)).sum()
    parallel.backward(loss)
    assert model.weight.grad is not None
    assert torch.equal(model.weight.grad, torch.ones(1, 2))


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)],
)
def test_precision_on_a_cpu(precision: str, expected: torch.dtype) -> None:
    x = torch.ones(2, 2)
    parallel = Parallel("cpu", precision)
    assert parallel.describe()["precision"] == str(expected).removeprefix("torch.")
    with parallel.autocast():
        assert (x @ x).dtype == expected
    assert (x @ x).dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_is_taken_where_there_is_one() -> None:
    parallel = Parallel(None, "auto")
    assert parallel.device.type == "cuda"
    assert parallel.describe()["device"] == torch.cuda.get_device_name()
    x = torch.ones(2, 2, device="cuda")
    with parallel.autocast():
        assert (x @ x).dtype == torch.bfloat16


# --- bad input ----------------------------------------------------------------------------------------------


def test_a_device_that_torch_does_not_know() -> None:
    with pytest.raises(ConfigError, match="device is 'tpu9'; expected a torch device such as cpu or cuda"):
        Parallel("tpu9", "auto")


@pytest.mark.usefixtures("no_cuda")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_no_cuda_device(name: str) -> None:
    with pytest.raises(
        ConfigError, match=f"device is '{name}', but torch sees no CUDA device here; pass cpu"
    ):
        Parallel(name, "auto")


@pytest.mark.parametrize("name", ["xpu", "hpu"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device is '{name}', which torch does not see here; pass cpu"):
        Parallel(name, "auto")


def test_several_processes_without_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    message = r"WORLD_SIZE is above 1 but accelerate is not installed; .*pip install 'homoreg\[train\]'"
    with pytest.raises(ConfigError, match=message):
        Parallel("cpu", "auto")


# --- two processes ------------------------------------------------------------------------------------------

SCRIPT = """
import hashlib, json, os, sys
from pathlib import Path
import torch
from homoreg.training import loop, parallel
from tests.training.runs import build_tiny, short

pairs, out = map(Path, sys.argv[1:])
rank = os.environ["RANK"]
loop.build = build_tiny
digests, finish = [], parallel.Parallel.backward

def backward(self, loss):
    finish(self, loss)
    gradients = torch.cat([p.grad.flatten() for p in self.wrapped.parameters()])
    digests.append(hashlib.sha256(gradients.numpy().tobytes()).hexdigest())

def prepare(self, model, before=parallel.Parallel.prepare):
    self.wrapped = before(self, model)
    return self.wrapped

parallel.Parallel.backward, parallel.Parallel.prepare = backward, prepare
recipe = short(epochs=1, samples_per_epoch=12, batch_size=4, snapshots=(), validate_every=1)
losses = []
options = {"device": "cpu", "resume": True, "progress": lambda *a: losses.append(a)}
result = loop.train(recipe, [pairs], out, **options)
(out / f"rank{rank}.json").write_text(
    json.dumps({"step": result.step, "finished": result.finished, "digests": digests, "calls": len(losses)})
)
torch.distributed.destroy_process_group()
"""


def test_two_processes_take_one_step_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under torchrun the gradients are the same in both, and one of them writes the run.

    The run was begun by one process: others may take it over.
    """
    pytest.importorskip("accelerate")
    pairs, run = write_pairs(tmp_path / "pairs", 4), tmp_path / "run"
    monkeypatch.setattr("homoreg.training.loop.build", build_tiny)
    recipe = short(epochs=1, samples_per_epoch=12, batch_size=4, snapshots=(), validate_every=1)
    train(recipe, [pairs], run, device="cpu", max_steps=1)
    (tmp_path / "two.py").write_text(SCRIPT)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        str(tmp_path / "two.py"), str(pairs), str(run),
    ]  # fmt: skip
    variables = environment(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((run / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["step"] == second["step"] == 3
    assert first["finished"]
    assert second["finished"]
    assert first["digests"] == second["digests"]
    assert len(set(first["digests"])) == 2
    assert (first["calls"], second["calls"]) == (2, 0)
    assert (checkpoint_of(run).step, checkpoint_of(run).samples) == (3, 12)
    assert [(row["step"], row["samples"]) for row in rows(run)] == [("3", "12")]
    stretches = json.loads((run / "run.json").read_text())["ran_on"]
    assert [(one["from_step"], one["processes"]) for one in stretches] == [(0, 1), (1, 2)]
    assert "goes on from step 1 with {'processes': 2" in done.stderr
