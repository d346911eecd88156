"""Saving, pushing and publishing: what goes up comes back equal, with a card that tells the truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from homoreg.pins import PINS, UNPUBLISHED_OWNER, Pin
from homoreg.registrar import Registrar
from tests.hub.jobs import Processes, files_of, leftovers, sha256, step
from tests.hub.server import STRANGER, TOKEN, FakeHub, Fault
from tests.scenes import infrared_of, save, scene

# The server does not speak the storage protocol of hf_xet, a native library; the client has another.
PLAIN = {"HF_HUB_DISABLE_XET": "1"}


def test_what_is_pushed_loads_back_equal(
    processes: Processes, hub: FakeHub, folder: Path, files: dict[str, bytes], tmp_path: Path
) -> None:
    pushed, again, source, loaded = processes.run(
        step("push", str(folder), "ana/new", token=TOKEN, private=True),
        step("push", str(folder), "ana/new", token=TOKEN),
        step("load", name=str(folder)),
        step("load", name="ana/new", token=TOKEN),
        endpoint=hub.endpoint,
        **PLAIN,
    )
    commit = pushed.good
    assert again.good == commit, "nothing has changed, nothing is committed"
    assert hub.repositories["ana/new"].private
    tree = hub.repositories["ana/new"].commits[commit]
    assert {name: tree[name] for name in files} == files, "not a byte differs where nothing was changed"
    assert loaded.good["digest"] == source.good["digest"]
    assert loaded.good["trust"] == source.good["trust"]
    assert loaded.good["training"] == source.good["training"]
    assert Path(loaded.good["folder"]).name == commit
    card = tree["README.md"].decode()
    assert 'Registrar.from_pretrained("ana/new")' in card


def test_a_branch_is_made_and_main_left_alone(processes: Processes, hub: FakeHub, folder: Path) -> None:
    pushed, loaded, main = processes.run(
        step("push", str(folder), "ana/new", token=TOKEN, revision="try/1"),
        step("load", name="ana/new@try/1"),
        step("load", name="ana/new"),
        endpoint=hub.endpoint,
        **PLAIN,
    )
    repository = hub.repositories["ana/new"]
    assert repository.refs["try/1"] == pushed.good
    assert Path(loaded.good["folder"]).name == pushed.good
    assert main.error == "WeightsError"
    assert set(repository.commits[repository.refs["main"]]) == {".gitattributes"}
    assert b'from_pretrained("ana/new@try/1")' in repository.commits[pushed.good]["README.md"]


def test_a_push_that_is_refused_changes_nothing(processes: Processes, hub: FakeHub, folder: Path) -> None:
    hub.faults = [Fault("/upload/", "PUT", times=99, status=403)]
    nobody, stranger, no_login, storage = processes.run(
        step("push", str(folder), "ana/new", token=False),
        step("push", str(folder), "ana/new", token=STRANGER),
        step("push", str(folder), "ana/new", token=True),
        step("push", str(folder), "ana/new", token=TOKEN),
        endpoint=hub.endpoint,
        **PLAIN,
    )
    for outcome in (nobody, stranger, no_login, storage):
        assert outcome.error == "HubError", outcome.message
        assert "\n" not in outcome.message
        assert TOKEN not in outcome.message
    assert "access to ana/new@main was refused (status 401)" in nobody.message
    assert "access to ana/new@main was refused (status 403)" in stranger.message
    (commit,) = hub.repositories["ana/new"].commits.values()
    assert set(commit) == {".gitattributes"}


def test_a_push_is_refused_where_the_network_or_the_name_is(
    processes: Processes, hub: FakeHub, folder: Path
) -> None:
    offline, *names = processes.run(
        step("push", str(folder), "ana/new", token=TOKEN),
        step("push", str(folder), "ana/new@v1", token=TOKEN),
        step("push", str(folder), "ana", token=TOKEN),
        step("push", str(folder), 5, token=TOKEN),
        endpoint=hub.endpoint,
        HF_HUB_OFFLINE="1",
        **PLAIN,
    )
    assert offline.error == "HubError"
    assert "HF_HUB_OFFLINE forbids the network" in offline.message
    for outcome in names:
        assert outcome.error == "InputError"
        assert "expected OWNER/NAME" in outcome.message
    assert hub.requests() == []


def test_a_push_without_a_server_is_one_error(processes: Processes, folder: Path) -> None:
    (outcome,) = processes.run(
        step("push", str(folder), "ana/new", token=TOKEN), endpoint="http://127.0.0.1:9", **PLAIN
    )
    assert outcome.error == "HubError"
    assert "http://127.0.0.1:9 cannot be reached" in outcome.message


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Folder with the two pictures that a card speaks of."""
    rgb = scene(120, 160)
    save(tmp_path / "pair" / "rgb.png", rgb)
    save(tmp_path / "pair" / "infrared.png", infrared_of(rgb)[20:100, 30:130])
    return tmp_path / "pair"


def test_the_usage_on_a_card_runs(
    processes: Processes, hub: FakeHub, folder: Path, pair: Path, tmp_path: Path
) -> None:
    Registrar.from_pretrained(folder).save_pretrained(pair)
    (saved,) = processes.run(
        step("run_card", str(pair / "README.md"), str(pair)), endpoint="http://127.0.0.1:9"
    )
    assert "[[" in saved.good
    assert (pair / "out" / "warped.png").is_file()
    (pushed,) = processes.run(
        step("push", str(folder), "ana/new", token=TOKEN), endpoint=hub.endpoint, **PLAIN
    )
    card = tmp_path / "README.md"
    card.write_bytes(hub.repositories["ana/new"].commits[pushed.good]["README.md"])
    (online,) = processes.run(step("run_card", str(card), str(pair)), endpoint=hub.endpoint)
    assert online.good == saved.good


def test_publishing_in_one_command(
    processes: Processes, hub: FakeHub, home: Path, folder: Path, tmp_path: Path
) -> None:
    files = files_of(folder)
    stale = tmp_path / "staged" / "homoreg-tiny" / "of_an_earlier_try.jpg"
    stale.parent.mkdir(parents=True)
    stale.touch()
    first = hub.commit("old/tiny", files)
    pin = {
        "architecture": "m",
        "repository": "old/tiny",
        "commit": first,
        "files": {name: sha256(data) for name, data in files.items()},
    }
    arguments = ["publish", "tiny", "--owner", "ana", "--out", str(tmp_path / "staged")]
    _, dry, real, before = processes.run(
        step("pin", "tiny", **pin),
        step("command", *arguments, "--dry-run"),
        step("command", *arguments),
        step("load", name="tiny"),
        endpoint=hub.endpoint,
        home=home,
        HF_TOKEN=TOKEN,
        **PLAIN,
    )
    assert dry.good["code"] == real.good["code"] == 0, dry.good["stderr"] + real.good["stderr"]
    (dry_pin,), (new_pin,) = (pins_in(outcome.good["stdout"]).values() for outcome in (dry, real))
    assert dry_pin.commit is None
    assert new_pin == Pin(
        "m", "ana/homoreg-tiny", hub.repositories["ana/homoreg-tiny"].refs["main"], dry_pin.files
    )
    tree = hub.repositories["ana/homoreg-tiny"].commits[new_pin.commit or ""]
    assert {name: sha256(tree[name]) for name in new_pin.files} == new_pin.files
    stale.unlink()
    assert stale.name not in tree
    assert files_of(stale.parent) == {name: tree[name] for name in new_pin.files}
    assert {"config.json", "model.safetensors", "README.md", "example-1.jpg"} <= set(new_pin.files)
    values = {**vars(new_pin), "files": dict(new_pin.files)}
    _, after = processes.run(
        step("pin", "tiny", **values), step("load", name="tiny"), endpoint=hub.endpoint, home=home
    )
    assert after.good["digest"] == before.good["digest"]
    assert leftovers(home) == []


def test_what_was_published_before_a_failure_is_printed(
    processes: Processes, hub: FakeHub, home: Path, files: dict[str, bytes], tmp_path: Path
) -> None:
    pin = {
        "architecture": "m",
        "repository": "old/tiny",
        "commit": hub.commit("old/tiny", files),
        "files": {name: sha256(data) for name, data in files.items()},
    }
    hub.faults = [Fault("homoreg-second", "POST", times=99, status=403)]
    *_, outcome = processes.run(
        step("pin", "first", **pin),
        step("pin", "second", **pin),
        step("command", "publish", "first", "second", "--owner", "ana", "--out", str(tmp_path)),
        endpoint=hub.endpoint,
        home=home,
        HF_TOKEN=TOKEN,
        **PLAIN,
    )
    assert outcome.good["code"] == 2
    assert "access to ana/homoreg-second@main was refused" in outcome.good["stderr"]
    ((name, printed),) = pins_in(outcome.good["stdout"]).items()
    assert (name, printed.commit) == ("first", hub.repositories["ana/homoreg-first"].refs["main"])


def pins_in(output: str) -> dict[str, Pin]:
    """The printed lines, read as the Python they are."""
    found: dict[str, Pin] = eval("{" + output + "}", {"Pin": Pin})
    return found


def test_all_means_all_and_nothing_means_nothing(processes: Processes, tmp_path: Path) -> None:
    whole, neither, both, no_owner, owner, name = processes.run(
        step("command", "publish", "--all", "--out", str(tmp_path), "--dry-run"),
        step("command", "publish", "--owner", "ana"),
        step("command", "publish", "m120", "--all", "--owner", "ana"),
        step("command", "publish", "--all"),
        step("command", "publish", "--all", "--owner", "an/a", "--out", str(tmp_path)),
        step("command", "publish", "m121", "--owner", "ana", "--out", str(tmp_path)),
        endpoint="http://127.0.0.1:9",
    )
    pins = pins_in(whole.good["stdout"])
    assert list(pins) == sorted(PINS)
    assert all(pins[name].files.items() >= PINS[name].files.items() for name in PINS), "nothing was converted"
    assert {pin.repository.split("/")[0] for pin in pins.values()} == {UNPUBLISHED_OWNER}
    assert {path.name for path in tmp_path.iterdir()} == {f"homoreg-{name}" for name in PINS}
    assert [outcome.good["code"] for outcome in (neither, both, no_owner, owner, name)] == [2] * 5
    assert "owner is 'an/a'" in owner.good["stderr"]
    assert "no model is called 'm121'" in name.good["stderr"]
