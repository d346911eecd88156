"""The public surface, name by name, and what importing the package costs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

import homoreg

ERRORS = {
    "ConfigError", "DataError", "HomoregError", "HubError", "ImageReadError",
    "InputError", "OutputError", "UnknownNameError", "WeightsError",
}  # fmt: skip
SUBMODULES = {
    "baselines", "errors", "evaluation", "geometry", "imaging", "losses", "metrics", "models", "synthesis",
    "training",
}  # fmt: skip
OBJECTS = {"Registrar", "Registration", "__version__", "list_models"}


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_surface() -> None:
    assert set(homoreg.__all__) == ERRORS | SUBMODULES | OBJECTS


def test_dir_lists_every_public_name() -> None:
    assert set(homoreg.__all__) <= set(dir(homoreg))


@pytest.mark.parametrize("name", sorted(homoreg.__all__))
def test_every_public_name_loads(name: str) -> None:
    assert getattr(homoreg, name) is not None


@pytest.mark.parametrize("name", sorted(SUBMODULES))
def test_submodules_are_modules_with_a_checked_surface(name: str) -> None:
    module = getattr(homoreg, name)
    assert isinstance(module, ModuleType)
    assert module.__doc__
    missing = [public for public in module.__all__ if not hasattr(module, public)]
    assert not missing


def test_names_are_the_objects_of_their_home_modules() -> None:
    assert homoreg.Registrar is importlib.import_module("homoreg.registrar").Registrar
    assert homoreg.Registration is importlib.import_module("homoreg.registration").Registration
    assert homoreg.list_models is importlib.import_module("homoreg.models.registry").list_models


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_errors_share_one_base(name: str) -> None:
    error = getattr(homoreg, name)
    assert issubclass(error, homoreg.HomoregError)
    assert error is getattr(homoreg.errors, name)


def test_unknown_name() -> None:
    name = "Registrer"
    with pytest.raises(AttributeError, match="'Registrer'"):
        getattr(homoreg, name)


def test_import_loads_no_dependency() -> None:
    loaded = {name.split(".")[0] for name in run_python("import sys, homoreg; print(*sys.modules)").split()}
    assert "homoreg" in loaded
    heavy = {"torch", "kornia", "cv2", "numpy", "huggingface_hub", "safetensors", "PIL", "click", "tqdm"}
    assert loaded.isdisjoint(heavy)


def test_import_takes_under_300_ms() -> None:
    code = "import time; t = time.perf_counter(); import homoreg; print(time.perf_counter() - t)"
    # The best of three: the first may have to compile, and other processes may be busy.
    assert min(float(run_python(code)) for _ in range(3)) < 0.3


def test_lazy_names_work_from_a_fresh_interpreter() -> None:
    assert run_python("from homoreg import geometry; print(geometry.__name__)").strip() == "homoreg.geometry"
    assert run_python("import homoreg; print(homoreg.__version__)").strip() == homoreg.__version__
