from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from homoreg.errors import OutputError, WeightsError
from homoreg.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.disk import FullDisk, everything_below
from tests.training.runs import identical


def checkpoint(step: int = 7) -> Checkpoint:
    parameter = torch.nn.Parameter(torch.arange(6.0).view(2, 3))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    parameter.sum().backward()
    optimizer.step()
    return Checkpoint(
        step=step,
        seconds=1.5,
        model={"weight": parameter.detach()},
        average={"weight": torch.ones(2, 3)},
        optimizer=optimizer.state_dict(),
        losses=[0.5, 0.25],
        errors=[3.0, 2.0],
        samples=28,
    )


class Evil:
    """Pickled, it would write a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", checkpoint())
    assert identical(vars(load_checkpoint(tmp_path / "c.pt")), vars(checkpoint()))


def test_the_last_one_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path / "c.pt", checkpoint(step))
    assert load_checkpoint(tmp_path / "c.pt").step == 2
    assert list(everything_below(tmp_path)) == ["c.pt"]


def test_one_of_before_samples_and_the_figures_of_the_epoch_were_kept(tmp_path: Path) -> None:
    values = {k: v for k, v in vars(checkpoint()).items() if k not in ("losses", "errors", "samples")}
    torch.save({"format": 1, **values}, tmp_path / "c.pt")
    old = load_checkpoint(tmp_path / "c.pt")
    assert (old.losses, old.errors, old.samples) == ([], [], None)


def test_a_full_disk_keeps_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "c.pt", checkpoint(1))
    before = everything_below(tmp_path)
    with monkeypatch.context() as patch:
        FullDisk(patch, room=500)
        with pytest.raises(OutputError, match="the disk is full; free some space"):
            save_checkpoint(tmp_path / "c.pt", checkpoint(2))
    assert everything_below(tmp_path) == before


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"c\.pt does not exist; expected the checkpoint of a run"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_truncated_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", checkpoint())
    data = (tmp_path / "c.pt").read_bytes()
    for cut in (0, 10, len(data) // 2):
        (tmp_path / "c.pt").write_bytes(data[:cut])
        with pytest.raises(WeightsError, match=r"c\.pt is not a readable checkpoint .*; start afresh"):
            load_checkpoint(tmp_path / "c.pt")


def test_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"format": 1, "step": Evil(tmp_path / "trace")}, tmp_path / "c.pt")
    with pytest.raises(WeightsError, match="is not a readable checkpoint"):
        load_checkpoint(tmp_path / "c.pt")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("content", [[1, 2], {"step": 1}, {"format": 2, "step": 1}])
def test_another_format(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(WeightsError, match=r"is not a checkpoint of format 1; start the run afresh"):
        load_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize("change", [{"step": None}, {"extra": 1}])
def test_other_entries(tmp_path: Path, change: dict[str, object]) -> None:
    values = {"format": 1, **vars(checkpoint()), **change}
    torch.save({k: v for k, v in values.items() if v is not None}, tmp_path / "c.pt")
    with pytest.raises(WeightsError, match="lacks entries of a checkpoint or has others; resume with the"):
        load_checkpoint(tmp_path / "c.pt")
