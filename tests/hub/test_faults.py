"""A server on its bad days: each ends in equality or in one clear error, and nothing partial is left."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.hub.jobs import Outcome, Processes, leftovers, sha256, step
from tests.hub.server import FakeHub, Fault

Files = dict[str, bytes]


def one_clear_error(outcome: Outcome, kind: str, *parts: str) -> None:
    """Of the right class, on one line, with what it has to say."""
    assert outcome.error == kind, outcome.message
    assert "\n" not in outcome.message
    for part in parts:
        assert part in outcome.message


def test_a_busy_server_is_asked_again(processes: Processes, hub: FakeHub, home: Path, files: Files) -> None:
    for name in ("ana/soon", "ana/later", "ana/ill", "ana/storage"):
        hub.commit(name, files)
    hub.faults = [
        Fault("ana/soon/resolve/main/config.json", "HEAD", status=429, headers={"Retry-After": "1"}),
        Fault("ana/soon/resolve/main/config.json", "GET", status=429, headers={"Retry-After": "1"}),
        Fault("ana/later", "HEAD", status=429, headers={"Retry-After": "3600"}),
        Fault("ana/ill", "HEAD", times=2, status=503),
        Fault("ana/storage/", "GET", status=500),
    ]
    soon, later, ill, storage = processes.run(
        step("load", name="ana/soon"),
        step("load", name="ana/later"),
        step("load", name="ana/ill"),
        step("load", name="ana/storage"),
        endpoint=hub.endpoint,
        home=home,
    )
    assert soon.good["digest"] == ill.good["digest"] == storage.good["digest"]
    assert soon.seconds > 2, "the server asked for a second, twice"
    one_clear_error(later, "HubError", "limits how often", "429")
    assert later.seconds < 15
    assert leftovers(home) == []


def test_a_server_that_stays_ill_is_given_up_on_unless_there_is_a_cached_copy(
    processes: Processes, hub: FakeHub, home: Path, files: Files
) -> None:
    hub.commit("ana/small", files)
    hub.commit("ana/other", files)
    (before,) = processes.run(step("load", name="ana/small"), endpoint=hub.endpoint, home=home)
    hub.faults = [Fault("resolve", "HEAD", times=1000, status=500)]
    cached, uncached = processes.run(
        step("load", name="ana/small"), step("load", name="ana/other"), endpoint=hub.endpoint, home=home
    )
    assert cached.good["digest"] == before.good["digest"]
    assert any("using the cached copy" in line for line in cached.log)
    one_clear_error(uncached, "HubError", "ana/other@main with status 500")
    assert uncached.seconds < 15
    assert leftovers(home) == []


def test_a_cut_download_goes_on_where_it_stopped(
    processes: Processes, hub: FakeHub, home: Path, large_files: Files
) -> None:
    hub.commit("ana/large", large_files)
    hub.commit("ana/whole", large_files)
    size = len(large_files["model.safetensors"])
    hub.faults = [Fault("ana/large/", "GET", cut=size - 1000)]
    hub.faults[0].part = f"ana/large/{sha256(large_files['model.safetensors'])}"
    resumed, whole = processes.run(
        step("create", name="ana/large"), step("create", name="ana/whole"), endpoint=hub.endpoint, home=home
    )
    assert resumed.good == whole.good
    ranges = [seen.headers.get("Range", "") for seen in hub.requests("ana/large/") if seen.storage]
    assert ranges[0] == ""
    assert int(ranges[1].removeprefix("bytes=").removesuffix("-")) > 10 * 2**20 - 1
    assert leftovers(home) == []


def test_a_connection_that_is_always_cut(
    processes: Processes, hub: FakeHub, home: Path, files: Files
) -> None:
    hub.commit("ana/small", files)
    hub.faults = [Fault("/model.safetensors", "GET", times=1000, cut=1000)]
    (outcome,) = processes.run(step("load", name="ana/small"), endpoint=hub.endpoint, home=home)
    one_clear_error(outcome, "HubError", hub.endpoint, "broke off")
    assert leftovers(home) == []


def test_a_truncated_file_is_refused_and_the_next_download_heals(
    processes: Processes, hub: FakeHub, home: Path, files: Files
) -> None:
    hub.commit("ana/small", files)
    hub.faults = [Fault("/model.safetensors", "GET", body=files["model.safetensors"][:-1000])]
    truncated, healed = processes.run(
        step("load", name="ana/small"), step("load", name="ana/small"), endpoint=hub.endpoint, home=home
    )
    one_clear_error(truncated, "HubError", "ana/small@main did not come over whole")
    assert healed.good["name"] == "ana/small"
    assert leftovers(home) == []


def test_a_download_with_another_hash_is_deleted_and_refused(
    processes: Processes, hub: FakeHub, home: Path, files: Files, other_files: Files
) -> None:
    weights = files["model.safetensors"]
    swapped = other_files["model.safetensors"]
    assert len(weights) == len(swapped)
    hub.commit("ana/small", files)
    hub.faults = [Fault("/model.safetensors", "GET", body=swapped)]
    refused, healed = processes.run(
        step("load", name="ana/small"), step("load", name="ana/small"), endpoint=hub.endpoint, home=home
    )
    one_clear_error(refused, "WeightsError", sha256(swapped), f"expected {sha256(weights)}", "was deleted")
    assert healed.good["name"] == "ana/small"
    assert leftovers(home) == []


@pytest.mark.parametrize("changed", ["config.json", "model.safetensors"])
def test_a_pinned_file_that_differs_is_deleted_and_refused(
    processes: Processes, hub: FakeHub, home: Path, files: Files, other_files: Files, changed: str
) -> None:
    commit = hub.commit("ana/small", {**files, changed: other_files[changed]})
    pin = step(
        "pin",
        "registered",
        architecture="m",
        repository="ana/small",
        commit=commit,
        files={name: sha256(data) for name, data in files.items()},
    )
    *_, registered, by_commit = processes.run(
        pin,
        step("load", name="registered"),
        step("load", name=f"ana/small@{commit}"),
        endpoint=hub.endpoint,
        home=home,
    )
    for outcome in (registered, by_commit):
        one_clear_error(outcome, "WeightsError", changed, sha256(files[changed]), "was deleted")
    kept = {path.name for path in home.rglob("*.*") if path.parent.name == commit}
    assert kept == {"config.json", "model.safetensors"} - {changed}
    assert sha256(other_files[changed]) not in {sha256(p.read_bytes()) for p in home.rglob("blobs/*")}


def test_a_cache_that_was_damaged_is_noticed_and_heals(
    processes: Processes, hub: FakeHub, home: Path, files: Files
) -> None:
    commit = hub.commit("ana/small", files)
    steps = [step("load", name=f"ana/small@{commit}")]
    (before,) = processes.run(*steps, endpoint=hub.endpoint, home=home)
    (blob,) = home.rglob(sha256(files["model.safetensors"]))
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    noticed, healed = processes.run(*steps * 2, endpoint=hub.endpoint, home=home)
    one_clear_error(noticed, "WeightsError", "was deleted")
    assert healed.good["digest"] == before.good["digest"]
    assert leftovers(home) == []


def test_a_server_that_is_gone(processes: Processes, home: Path, files: Files) -> None:
    with FakeHub() as hub:
        commit = hub.commit("ana/small", files)
        hub.commit("ana/small", files, to="v1")
        load = [step("load", name="ana/small"), step("load", name="ana/small@v1")]
        online = processes.run(*load, endpoint=hub.endpoint, home=home)
    *offline, uncached, uncached_commit, forced = processes.run(
        *load,
        step("load", name="ana/other"),
        step("load", name=f"ana/other@{commit}"),
        step("load", name="ana/small", force_download=True),
        endpoint=hub.endpoint,
        home=home,
    )
    assert [one.good["digest"] for one in offline] == [one.good["digest"] for one in online]
    for outcome in (uncached, uncached_commit, forced):
        one_clear_error(outcome, "HubError", hub.endpoint, "cannot be reached")
        assert outcome.seconds < 15
    assert leftovers(home) == []


def test_a_server_that_never_answers(processes: Processes, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        (outcome,) = processes.run(step("load", name="ana/small"), endpoint=endpoint, home=home)
    one_clear_error(outcome, "HubError", endpoint, "cannot be reached")
    assert outcome.seconds < 15
    assert not list(home.rglob("models--*"))


def test_a_server_that_is_no_hub(processes: Processes, hub: FakeHub, home: Path, files: Files) -> None:
    hub.commit("ana/small", files)
    hub.faults = [Fault("resolve", "HEAD", headers={"X-Repo-Commit": "", "ETag": '"1"'})]
    (outcome,) = processes.run(step("load", name="ana/small"), endpoint=hub.endpoint, home=home)
    one_clear_error(outcome, "HubError", "check HF_ENDPOINT")
    assert not list(home.rglob("models--*"))


def test_a_read_only_cache(processes: Processes, hub: FakeHub, home: Path, files: Files) -> None:
    hub.commit("ana/small", files)
    hub.commit("ana/other", files)
    (before,) = processes.run(step("load", name="ana/small"), endpoint=hub.endpoint, home=home)
    folders = [home, *(path for path in home.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        cached, offline, uncached = processes.run(
            step("load", name="ana/small"),
            step("load", name="ana/small", local_files_only=True),
            step("load", name="ana/other"),
            endpoint=hub.endpoint,
            home=home,
            obeys_permissions=True,
        )
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert cached.good["digest"] == offline.good["digest"] == before.good["digest"]
    one_clear_error(uncached, "OutputError", "cannot write the cache", str(home), "cache_dir")
    assert not list(home.rglob("models--ana--other"))
