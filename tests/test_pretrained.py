from __future__ import annotations

import hashlib
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import homoreg
from homoreg import models, pretrained
from homoreg.errors import InputError, UnknownNameError, WeightsError
from homoreg.models import list_models, save_weights
from homoreg.pins import PINS, REQUIRED_FILES, Pin
from homoreg.pretrained import embedded_folder, is_embedded, locate
from tests.models.contract import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small model; read only."""
    folder = tmp_path_factory.mktemp("models") / "small"
    save_weights(folder, tiny("m"))
    return folder


@pytest.mark.parametrize("name", list_models(embedded=True))
def test_an_embedded_name_is_in_the_package(name: str) -> None:
    package = Path(homoreg.__file__).parent
    assert embedded_folder(name) == package / "weights" / name
    source = locate(name)
    assert (source.folder, source.name, source.commit) == (embedded_folder(name), name, None)


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate(tmp_path).folder == tmp_path
    assert locate(str(tmp_path)).folder == tmp_path
    monkeypatch.chdir(tmp_path)
    assert locate(".").name == tmp_path.name
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert locate(f"~/{tmp_path.name}").folder == tmp_path


def test_a_registered_name_goes_before_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "is_embedded", lambda name: True)
    (tmp_path / "m120").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate("m120").folder == embedded_folder("m120")
    assert locate("./m120").folder == Path("m120")
    assert locate(Path("m120")).folder == Path("m120"), "a path is a path"


def test_a_folder_goes_before_a_repository_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ana" / "small").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate("ana/small").folder == Path("ana/small")


@pytest.mark.parametrize(
    "name",
    ["m121", "", "no/such/folder", "/no/such", "./ana/small", "../ana", "ana/", "ana/small@", "ana--x/small",
     "ana/../small", "-ana/small", "ana/small.git", "ana\\small", "ana/small\n", "ana/\0", "a" * 5000],
)  # fmt: skip
def test_an_unknown_name_is_named(name: str) -> None:
    expected = (
        f"no model is called {name!r} and there is no such folder; known models: {', '.join(list_models())}: "
        "choose one, or pass a folder with config.json and model.safetensors, or OWNER/NAME on the Hub"
    )
    with pytest.raises(UnknownNameError, match=re.escape(expected)):
        locate(name)


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(UnknownNameError, match="there is no such folder"):
        locate(file)


@pytest.mark.parametrize("name", [None, 7, b"m120"])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(InputError, match=f"the model is a {type(name).__name__}"):
        locate(name)


@pytest.mark.parametrize(
    "revision",
    [
        "",
        "..",
        "a/../../b",
        "/main",
        "main/",
        "a//b",
        "-x",
        ".hidden",
        "a/.b",
        "x.lock",
        "a b",
        "a\nb",
        "a" * 300,
        5,
    ],
)
def test_a_revision_that_could_lead_astray_is_refused(revision: Any) -> None:
    with pytest.raises(InputError, match="expected a branch, a tag or a commit"):
        locate("ana/small", revision=revision)
    if isinstance(revision, str) and revision and "\n" not in revision:
        with pytest.raises(InputError, match="expected a branch, a tag or a commit"):
            locate(f"ana/small@{revision}")


@pytest.mark.parametrize("name", ["m120", "ana/small"])
def test_a_cache_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="cache_dir is 5; expected a folder"):
        locate(name, cache_dir=5)  # type: ignore[arg-type]


def test_arguments_that_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose one"):
        locate("ana/small", local_files_only=True, force_download=True)
    with pytest.raises(InputError, match="names a revision, and so does revision='v2'; give one"):
        locate("ana/small@v1", revision="v2")
    with pytest.raises(InputError, match="is a folder and has no revision 'v1'"):
        locate(tmp_path, revision="v1")
    with pytest.raises(InputError, match="m120 is pinned to"):
        locate("m120", revision="v1")


@pytest.fixture
def checkout(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with weights/tiny, and tiny registered without being embedded."""
    (tmp_path / "src" / "homoreg").mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    shutil.copytree(model, tmp_path / "weights" / "tiny")
    monkeypatch.setattr(pretrained, "__file__", str(tmp_path / "src" / "homoreg" / "pretrained.py"))
    digests = {name: hashlib.sha256((model / name).read_bytes()).hexdigest() for name in REQUIRED_FILES}
    monkeypatch.setitem(PINS, "tiny", Pin("m", "<owner>/tiny", None, digests))
    return tmp_path


def test_a_checkout_has_the_weights_that_are_not_embedded(checkout: Path) -> None:
    assert locate("tiny").folder == checkout / "weights" / "tiny"
    assert isinstance(models.create("tiny"), models.M)


def test_the_checkout_goes_before_the_hub(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PINS, "tiny", Pin("m", "ana/tiny", "0" * 40, PINS["tiny"].files))
    source = locate("tiny")
    assert (source.folder, source.commit) == (checkout / "weights" / "tiny", None)


def test_the_package_goes_before_the_checkout(checkout: Path, model: Path) -> None:
    embedded = checkout / "src" / "homoreg" / "weights" / "tiny"
    shutil.copytree(model, embedded)
    assert locate("tiny").folder == embedded


def test_weights_of_a_checkout_have_to_match_their_pin(checkout: Path) -> None:
    file = checkout / "weights" / "tiny" / "model.safetensors"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(WeightsError, match=r"model\.safetensors has SHA-256 .*; tiny is pinned to"):
        locate("tiny")
    assert file.exists(), "a checkout is its owner's: nothing is deleted"


def test_weights_of_a_checkout_without_a_pin_are_mentioned(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(PINS, "tiny", Pin("m", "<owner>/tiny"))
    with caplog.at_level(logging.WARNING):
        locate("tiny")
    assert "tiny has no pinned files yet" in caplog.text


def test_without_a_checkout_and_a_published_copy_there_are_no_weights(checkout: Path) -> None:
    (checkout / "pyproject.toml").unlink()
    with pytest.raises(WeightsError, match="no copy of them has been published on the Hub yet"):
        locate("tiny")


def test_list_models_by_place_and_architecture(checkout: Path) -> None:
    assert "tiny" in list_models()
    assert "tiny" in list_models(embedded=False)
    assert list_models("t*", embedded=True) == []
    assert list_models("t*", architecture="m") == ["tiny"]
    assert list_models(embedded=True) == [name for name in list_models() if is_embedded(name)]
    with pytest.raises(UnknownNameError, match="no architecture is called 'n'; known architectures"):
        list_models(architecture="n")


def test_create_gives_the_network(model: Path) -> None:
    network = models.create(model)
    expected = tiny("m").state_dict()
    assert not network.training
    assert all(bool((value == expected[name].half()).all()) for name, value in network.state_dict().items())
