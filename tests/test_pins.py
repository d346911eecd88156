from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from homoreg.errors import ConfigError
from homoreg.models import ARCHITECTURES
from homoreg.models.storage import read_config
from homoreg.pins import PINS, REQUIRED_FILES, UNPUBLISHED_OWNER, Pin, find_mismatch
from homoreg.pretrained import embedded_folder, is_embedded
from tests.scenes import infrared_of, save, scene

DIGESTS = {name: hashlib.sha256(name.encode()).hexdigest() for name in REQUIRED_FILES}
COMMIT = "0123456789abcdef" * 2 + "01234567"
README = Path(__file__).resolve().parents[1] / "README.md"
WEIGHTS = README.parent / "weights"
LARGEST = {
    "embedded": 8_000_000,
    "beside": 80_000_000,
}  # bytes: of each in the package, of all others together


@pytest.mark.parametrize("name", PINS)
def test_every_name_is_of_a_known_architecture(name: str) -> None:
    assert PINS[name].architecture in ARCHITECTURES


def folder_of(name: str) -> Path:
    """Where the files of a name lie: in the package, or beside it in a checkout."""
    return embedded_folder(name) if is_embedded(name) else WEIGHTS / name


@pytest.mark.parametrize("name", [name for name in PINS if folder_of(name).is_dir()])
def test_the_files_at_hand_are_the_pinned_ones(name: str) -> None:
    folder, pin = folder_of(name), PINS[name]
    assert set(REQUIRED_FILES) <= set(pin.files), f"pin {name}: homoreg publish {name} --dry-run"
    mismatch = find_mismatch(folder, pin.files)
    assert mismatch is None, f"{mismatch} differs; pin {name} again: homoreg publish {name} --dry-run"
    assert read_config(folder)["architecture"] == pin.architecture


@pytest.mark.parametrize("name", [name for name in PINS if folder_of(name).is_dir()])
def test_the_card_of_a_registered_model_is_complete_and_its_usage_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (folder_of(name) / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: homoreg\nlicense: apache-2.0\n")
    results = card.partition("<!-- results:begin -->")[2].partition("<!-- results:end -->")[0]
    assert f"| {name} |" in results
    for part in ("| licence stated |", "\n## Training\n", "\n## Limits\n"):
        assert part in card
    (usage,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    save(tmp_path / "rgb.jpg", scene(96, 120))
    save(tmp_path / "infrared.tiff", infrared_of(scene(96, 120))[16:80, 20:100])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(usage, f"{name}/README.md", "exec"), names)
    assert names["result"].homography.shape == (3, 3)


def test_weights_are_small_enough_to_carry() -> None:
    sizes = {
        name: (folder_of(name) / "model.safetensors").stat().st_size for name in PINS if is_embedded(name)
    }
    assert all(size <= LARGEST["embedded"] for size in sizes.values()), sizes
    beside = sum(path.stat().st_size for path in WEIGHTS.glob("*/*"))
    assert beside <= LARGEST["beside"]


@pytest.mark.parametrize("name", PINS)
def test_a_published_model_has_a_real_owner_and_the_others_have_none(name: str) -> None:
    pin = PINS[name]
    assert (pin.commit is None) == pin.repository.startswith(f"{UNPUBLISHED_OWNER}/")


def test_the_readme_says_which_weights_are_where() -> None:
    text = README.read_text(encoding="utf-8")
    for name in PINS:
        assert f"`{name}`" in text
    if any(pin.commit is None for pin in PINS.values()):
        assert re.search(r"Hugging\s+Face\s+Hub\s+await\s+publication", text)


def test_a_pin_cannot_be_changed() -> None:
    files = dict(DIGESTS)
    pin = Pin("m", "ana/m", COMMIT, files)
    files["config.json"] = "0" * 64
    assert pin.files == DIGESTS
    with pytest.raises(TypeError):
        pin.files["config.json"] = "0" * 64  # type: ignore[index]
    with pytest.raises(AttributeError):
        pin.commit = None  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"commit": "0123456"}, "commit is '0123456'; expected all 40 hex digits"),
        ({"commit": COMMIT.upper()}, "expected all 40 hex digits"),
        ({"files": {"config.json": DIGESTS["config.json"]}}, r"has no model\.safetensors"),
        ({"files": {}}, r"has no config\.json"),
        ({"files": {**DIGESTS, "README.md": "abc"}}, r"'README\.md' has digest 'abc'"),
        ({"files": {**DIGESTS, "../x": "0" * 64}}, r"pinned file '\.\./x'"),
        ({"files": {**DIGESTS, ".hidden": "0" * 64}}, r"pinned file '\.hidden'"),
        ({"repository": f"{UNPUBLISHED_OWNER}/m"}, "expected OWNER/NAME"),
        ({"repository": "m"}, "expected OWNER/NAME"),
    ],
)
def test_a_loose_pin_is_refused(changes: dict[str, Any], message: str) -> None:
    values = {"architecture": "m", "repository": "ana/m", "commit": COMMIT, "files": DIGESTS}
    with pytest.raises(ConfigError, match=message):
        Pin(**(values | changes))


@pytest.mark.parametrize("commit", [None, COMMIT])
def test_a_pin_reads_back_from_its_source(commit: str | None) -> None:
    pin = Pin("m", "ana/m", commit, {**DIGESTS, "README.md": "0" * 64})
    assert eval("{" + pin.as_source("m7") + "}") == {"m7": pin}


def test_a_mismatch_is_found(tmp_path: Path) -> None:
    for name in REQUIRED_FILES:
        (tmp_path / name).write_bytes(name.encode())
    assert find_mismatch(tmp_path, DIGESTS) is None
    (tmp_path / "model.safetensors").write_bytes(b"other")
    found = hashlib.sha256(b"other").hexdigest()
    assert find_mismatch(tmp_path, DIGESTS) == (tmp_path / "model.safetensors", found)
    assert find_mismatch(tmp_path, {"config.json": DIGESTS["config.json"]}) is None
