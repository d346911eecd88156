"""The rings of docs/architecture.md: imports point inwards, and heavy packages stay where they belong."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "homoreg"
MODULES = sorted(PACKAGE.rglob("*.py"))
INNER = [path for path in MODULES if path != PACKAGE / "__init__.py"]

# First component below `homoreg` -> ring. What is not listed is in the outermost ring, 3.
RING = {
    "errors": 0, "files": 0, "names": 0, "pins": 0,
    "geometry": 1, "losses": 1, "metrics": 1,
    "hub": 2, "models": 2, "pretrained": 2,
}  # fmt: skip
RING_1_MAY_USE = {"torch", "kornia", "numpy"}
RING_2_MAY_USE = {"torch", "numpy", "safetensors", "huggingface_hub"}  # the last in hub.py alone, see below
ON_THE_INFERENCE_PATH = {
    "registrar", "registration", "search", "priors", "structure", "views", "trust",
    "models", "geometry", "imaging",
}  # fmt: skip


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Every imported name, as "torch.nn" or "homoreg.models.registry.create"; also those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def imported_at_load(node: ast.AST) -> Iterator[str]:
    """The names imported while the module itself loads: not inside functions, not for the type checker."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield from imported_names(child)
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imported_at_load(child)


def ring_of(name: str) -> int:
    """Ring of "homoreg.models.m" or of a name taken from the package itself, such as "homoreg.Registrar"."""
    parts = name.split(".")
    if parts[:2] == ["homoreg", "__version__"]:
        return 0
    return RING.get(parts[1], 3) if len(parts) > 1 else 3


def upward_imports(ring: int, source: str) -> list[str]:
    """What a module of the given ring imports although it may not."""
    names = list(imported_names(ast.parse(source)))
    relative = [name for name in names if name.startswith(".")]  # absolute imports only: they can be checked
    own = [name for name in names if name.split(".")[0] == "homoreg" and ring_of(name) > ring]
    allowed = {0: set[str](), 1: RING_1_MAY_USE, 2: RING_2_MAY_USE}.get(ring)
    if allowed is None:
        return relative + own
    known = allowed | sys.stdlib_module_names | {"homoreg"}
    return (
        relative + own + [name for name in names if name.split(".")[0] not in known and name not in relative]
    )


def component(path: Path) -> str:
    """First component below `homoreg`: "models" for models/m.py, "errors" for errors.py."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def identity(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize(
    ("ring", "line"),
    [
        (1, "from homoreg.models.registry import create"),
        (1, "def f():\n    import homoreg.registrar"),
        (1, "from homoreg import Registrar"),
        (1, "import cv2"),
        (1, "from ..models import m"),
        (2, "from homoreg import imaging"),
        (2, "import kornia"),
        (0, "import numpy"),
    ],
)
def test_the_detector_finds_a_planted_violation(ring: int, line: str) -> None:
    assert len(upward_imports(ring, line)) == 1


def test_the_detector_passes_inward_imports() -> None:
    source = "import math\nimport torch\nfrom homoreg import geometry\nfrom homoreg.errors import InputError"
    assert upward_imports(2, source) == []


def test_the_detector_tells_loading_from_use() -> None:
    source = """
import torch
if TYPE_CHECKING:
    import PIL
class C:
    import numpy
    def f(self):
        import kornia
"""
    assert list(imported_at_load(ast.parse(source))) == ["torch", "numpy"]


@pytest.mark.parametrize("path", INNER, ids=identity)
def test_imports_point_inwards(path: Path) -> None:
    ring = RING.get(component(path), 3)
    found = upward_imports(ring, path.read_text(encoding="utf-8"))
    assert not found, f"{identity(path)} is in ring {ring} and may not import {found}"


@pytest.mark.parametrize("path", MODULES, ids=identity)
def test_heavy_packages_stay_where_they_belong(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    everywhere = {name.split(".")[0] for name in imported_names(tree)}
    at_load = {name.split(".")[0] for name in imported_at_load(tree)}
    if path.name != "hub.py":
        assert "huggingface_hub" not in everywhere, "only hub.py talks to the hub"
    if component(path) in ON_THE_INFERENCE_PATH:
        assert "kornia" not in at_load, "kornia costs a second to import and inference does not need it"
    # The optional packages, which may be missing: only inside the function that needs them.
    assert at_load.isdisjoint({"accelerate", "matplotlib", "PIL", "SimpleITK"})


@pytest.mark.parametrize("path", MODULES, ids=identity)
def test_nothing_imports_the_command_line(path: Path) -> None:
    names = imported_names(ast.parse(path.read_text(encoding="utf-8")))
    assert not [name for name in names if name.startswith("homoreg.cli")]


def test_the_listed_modules_exist() -> None:
    found = {component(path) for path in MODULES}
    assert found >= RING.keys()
