"""A hub, models to put on it, and processes that talk to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from homoreg.models import build, save_weights
from tests.hub.jobs import Processes, files_of
from tests.hub.server import FakeHub

CALIBRATION = {"confidence_precision": 1.5, "confidence_offset": 0.25}
TRAINING = {"recipe": "m", "epochs": 3}
WIDE = {"width2": 8, "width4": 12, "width8": 352, "layers": 1, "heads": 2, "hidden": [16, 12, 8]}


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    started = Processes(tmp_path_factory.mktemp("jobs"))
    yield started
    started.close()


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A fresh HF_HOME."""
    return tmp_path / "home"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model; read only."""
    from tests.models.contract import tiny  # not at the top: tests/models/conftest.py has to come first

    target = tmp_path_factory.mktemp("models") / "small"
    save_weights(target, tiny("m"), calibration=CALIBRATION, training=TRAINING)
    return target


@pytest.fixture(scope="session")
def files(folder: Path) -> dict[str, bytes]:
    """Those of the small model."""
    return files_of(folder)


@pytest.fixture(scope="session")
def other_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Another small model of the same shape."""
    from tests.models.contract import tiny

    target = tmp_path_factory.mktemp("models") / "other"
    model = tiny("m")
    model.load_state_dict({name: value * 0.5 for name, value in model.state_dict().items()})
    save_weights(target, model)
    return files_of(target)


@pytest.fixture(scope="session")
def large_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A model of more bytes than the client takes at a time (10 MiB), so that one can resume."""
    target = tmp_path_factory.mktemp("models") / "large"
    save_weights(target, build("m", WIDE))
    found = files_of(target)
    assert len(found["model.safetensors"]) > 11 * 2**20
    return found
