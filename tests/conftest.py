"""The suite stays on this machine, in every process; see tests/guard."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

GUARD = Path(__file__).parent / "guard"


def pytest_configure() -> None:
    """Set up this process and those that will inherit from it, before any test module is imported."""
    scratch = Path(tempfile.mkdtemp(prefix="homoreg-suite-"))
    os.environ["HOMOREG_TEST_NETWORK_LOG"] = str(scratch / "network.log")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(GUARD), os.environ.get("PYTHONPATH")]))
    os.environ["HF_HOME"] = str(scratch / "huggingface")  # never the developer's own cache or token
    os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # the discard port: for native code, which has no hooks
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        os.environ.pop(name, None)
    # By path: a distribution may have a sitecustomize of its own, which this process has imported already.
    spec = importlib.util.spec_from_file_location("homoreg_test_guard", GUARD / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def pytest_unconfigure() -> None:
    """Remove what the first function made."""
    shutil.rmtree(Path(os.environ["HOMOREG_TEST_NETWORK_LOG"]).parent, ignore_errors=True)


def _attempts() -> list[str]:
    log = Path(os.environ["HOMOREG_TEST_NETWORK_LOG"])
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


@pytest.fixture
def take_attempts() -> Callable[[], list[str]]:
    """For tests of the guard itself: what was refused since the last call, which is then forgiven."""
    return _attempts


@pytest.fixture(autouse=True)
def _nothing_leaves_this_machine() -> Iterator[None]:
    yield
    attempts = _attempts()
    assert not attempts, f"this test reached beyond loopback: {attempts}"
