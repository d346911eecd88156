"""The way from a fresh process to the first registration: what is imported on it, and how."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SEA_ICE = ROOT / "examples" / "samples" / "sea_ice"
NEEDED = {"cv2", "homoreg", "numpy", "safetensors"}  # beside torch, and what torch imports itself
REGISTER = f"""
import sys, torch
before = set(sys.modules)
from homoreg import Registrar
registrar = Registrar.from_pretrained("m120")
result = registrar({str(SEA_ICE / "thermal_16bit.png")!r}, {str(SEA_ICE / "rgb.jpg")!r})
assert result.homography.shape == (3, 3)
print(*sorted(set(sys.modules) - before))
"""


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """Modules that a registration imports beyond those of torch."""
    return set(run_python(REGISTER).split())


def test_a_registration_imports_no_package_it_does_not_need(imported: set[str]) -> None:
    packages = {name.partition(".")[0] for name in imported}
    assert packages >= {"cv2", "homoreg", "safetensors"}
    assert packages - NEEDED - set(sys.stdlib_module_names) == set()


def test_a_registration_imports_no_part_of_torch_that_torch_leaves_out(imported: set[str]) -> None:
    # Compilers, exporters and symbolic shapes take longer to import than the registration takes to run.
    assert {name for name in imported if name.startswith("torch")} == set()


def test_a_registration_imports_nothing_of_training_and_publishing(imported: set[str]) -> None:
    parts = {name.split(".")[1] for name in imported if name.startswith("homoreg.")}
    assert parts.isdisjoint({"baselines", "card", "cli", "evaluation", "publish", "synthesis", "training"})


def collector_after(setup: str, name: str = "Registrar") -> list[str]:
    """Import lazily after some setup: collections on the way, whether the collector runs, what is frozen."""
    code = f"""
import gc, homoreg
rounds = []
gc.callbacks.append(lambda phase, info: rounds.append(info["generation"]))
{setup}
try:
    homoreg.{name}
except ImportError:
    print("ImportError", end=" ")
print(len(rounds), gc.isenabled(), gc.get_freeze_count() > 0, gc.get_count()[0] < gc.get_threshold()[0])
"""
    return run_python(code).split()


@pytest.mark.parametrize("name", ["Registrar", "geometry"])
def test_no_garbage_is_collected_while_torch_is_imported(name: str) -> None:
    assert collector_after("", name) == ["0", "True", "False", "True"]


def test_the_collector_works_after_an_import_that_failed() -> None:
    failing = "import sys; sys.modules['cv2'] = None"
    assert collector_after(failing) == ["ImportError", "0", "True", "False", "True"]


def test_a_collector_that_is_off_stays_off() -> None:
    assert collector_after("gc.disable()")[:3] == ["0", "False", "False"]


def test_what_the_program_has_frozen_stays_frozen() -> None:
    assert collector_after("gc.freeze()")[1:3] == ["True", "True"]


def test_with_torch_there_already_collection_goes_on() -> None:
    rounds = collector_after("import torch; rounds.clear()")[0]
    assert int(rounds) > 0
