"""The project's own files agree with each other and with the package."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import homoreg

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SAMPLES = sorted(path.parent for path in (ROOT / "examples" / "samples").glob("*/gt.json"))
PIN = re.compile(r"^([\w.-]+)==", flags=re.MULTILINE)

# Paths that exist on one machine only, and folders outside the repository.
ELSEWHERE = re.compile(r"(?<![\w.~-])/(?:work|root|home|Users|workspace|mnt)/|(?<![\w-])shared/|/tmp/\w")


def project_files() -> list[Path]:
    """Every file that is, or is about to be, part of the project."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None  # a picture or weights


def python_blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL)


def canonical(name: str) -> str:
    """Package name as the package index writes it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def project_table() -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def test_the_path_detector_finds_a_planted_path() -> None:
    for planted in ("open('/" + "home/me/data')", "../" + "shared/data/x", "cp /" + "tmp/x ."):
        assert ELSEWHERE.search(planted)
    assert not ELSEWHERE.search("docs/images/overview.png and https://example.org/homepage")


def test_no_file_names_a_path_of_one_machine() -> None:
    found = []
    for path in project_files():
        if path != Path(__file__).resolve():
            lines = (text_of(path) or "").splitlines()
            found += [f"{path.relative_to(ROOT)}: {line}" for line in lines if ELSEWHERE.search(line)]
    assert not found


def test_no_large_files() -> None:
    # The networks with fully connected heads are large; they lie beside the package, not in it.
    heavy = {ROOT / "weights" / name / "model.safetensors" for name in ("dhn", "mhn")}
    files = project_files()
    assert not [str(path) for path in files if path.stat().st_size > 8 * 2**20 and path not in heavy]
    assert sum(path.stat().st_size for path in files if path in heavy) < 80 * 2**20


def test_readme_python_is_the_quickstart_example() -> None:
    (block,) = python_blocks("README.md")
    compile(block, "README.md", "exec")
    quickstart = (ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8")
    missing = [line for line in block.splitlines() if line and line not in quickstart]
    assert not missing, "examples/quickstart.py is what proves that the README's lines run"


def test_documentation_python_compiles() -> None:
    pages = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))]
    blocks = [(page, block) for page in pages for block in python_blocks(page)]
    assert blocks
    for page, block in blocks:
        compile(block, page, "exec")


def test_readme_links_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", readme)
    missing = [t for t in targets if not t.startswith("http") and not (ROOT / t).exists()]
    assert not missing


def test_versions_agree() -> None:
    version = project_table()["version"]
    assert homoreg.__version__ == version, "reinstall: pip install -e ."
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, flags=re.MULTILINE).group(1) == version  # type: ignore[union-attr]
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_dependency_has_a_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    bounds = re.findall(r'^ +"[a-z_-]+>=[^"]+",(.*)$', section, flags=re.MULTILINE)
    assert len(bounds) >= 8
    assert all(comment.strip().startswith("#") for comment in bounds)


def test_every_dependency_is_pinned_for_testing() -> None:
    table = project_table()
    extras = table["optional-dependencies"]
    assert isinstance(extras, dict)
    assert isinstance(table["dependencies"], list)
    wanted = [*table["dependencies"], *(entry for extra in extras.values() for entry in extra)]
    names = {re.split(r"[>=\[ ]", entry)[0] for entry in wanted} - {"homoreg"}
    pins = PIN.findall((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert {canonical(name) for name in names} <= {canonical(name) for name in pins}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_open_with_their_command(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring is not None
    assert f"python examples/{path.name}" in docstring


@pytest.mark.parametrize("folder", SAMPLES, ids=lambda path: path.name)
def test_every_sample_names_its_source_and_licence(folder: Path) -> None:
    assert (folder / "LICENSE_SOURCE.txt").stat().st_size > 0
    assert re.fullmatch(r"[0-9a-f]{40}", (folder / "SOURCE_COMMIT.txt").read_text(encoding="utf-8").strip())
    assert f"`{folder.name}`" in (folder.parent / "README.md").read_text(encoding="utf-8")


def test_the_results_on_every_page_are_those_of_the_csv() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "render.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
