"""Names, revisions, tokens and caches, when all is well with the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hub.conftest import CALIBRATION, TRAINING
from tests.hub.jobs import Outcome, Processes, leftovers, sha256, step
from tests.hub.server import STRANGER, TOKEN, FakeHub, Fault

Files = dict[str, bytes]


@pytest.fixture(scope="session")
def small(processes: Processes, folder: Path) -> str:
    """Digest of the small model, as its folder gives it."""
    (outcome,) = processes.run(step("create", name=str(folder)), endpoint="http://127.0.0.1:9")
    return str(outcome.good)


@pytest.fixture(scope="session")
def other(processes: Processes, other_files: Files, tmp_path_factory: pytest.TempPathFactory) -> str:
    target = tmp_path_factory.mktemp("other")
    for name, data in other_files.items():
        (target / name).write_bytes(data)
    (outcome,) = processes.run(step("create", name=str(target)), endpoint="http://127.0.0.1:9")
    return str(outcome.good)


def digests(outcomes: list[Outcome]) -> list[str]:
    return [outcome.good["digest"] for outcome in outcomes]


def test_a_repository_loads_equal_and_says_which_commit_it_is(
    processes: Processes, hub: FakeHub, home: Path, files: Files, small: str
) -> None:
    commit = hub.commit("ana/small", files)
    loaded, created = processes.run(
        step("load", name="ana/small"),
        step("create", name="ana/small"),
        endpoint=hub.endpoint,
        home=home,
    )
    assert created.good == small
    assert loaded.good["digest"] == small
    assert loaded.good["name"] == "ana/small"
    assert loaded.good["trust"] | CALIBRATION == loaded.good["trust"]
    assert loaded.good["training"] == TRAINING
    (notice,) = loaded.log
    assert f"load ana/small@{commit}" in notice
    assert Path(loaded.good["folder"]).is_relative_to(home / "hub"), "HF_HOME says where downloads go"
    assert leftovers(home) == []


def test_a_full_commit_is_what_it_was_and_needs_no_server_the_second_time(
    processes: Processes, hub: FakeHub, home: Path, files: Files, other_files: Files, small: str
) -> None:
    commit = hub.commit("ana/small", files)
    hub.commit("ana/small", other_files)
    (first,) = processes.run(step("load", name=f"ana/small@{commit}"), endpoint=hub.endpoint, home=home)
    before = len(hub.requests())
    again = processes.run(
        step("load", name=f"ana/small@{commit}"),
        step("load", name="ana/small", revision=commit),
        endpoint=hub.endpoint,
        home=home,
    )
    assert digests([first, *again]) == [small] * 3
    assert [outcome.log for outcome in (first, *again)] == [[]] * 3, "whoever gives a commit needs no notice"
    assert before > 0
    assert len(hub.requests()) == before


def test_a_moved_tag_is_followed(
    processes: Processes, hub: FakeHub, home: Path, files: Files, other_files: Files, small: str, other: str
) -> None:
    first = hub.commit("ana/small", files, to="v1")
    steps = [step("load", name="ana/small@v1")]
    (before,) = processes.run(*steps, endpoint=hub.endpoint, home=home)
    hub.commit("ana/small", other_files, to="v1")
    after, offline, pinned = processes.run(
        *steps,
        step("load", name="ana/small@v1", local_files_only=True),
        step("load", name=f"ana/small@{first}"),
        endpoint=hub.endpoint,
        home=home,
    )
    assert digests([before, after, offline, pinned]) == [small, other, other, small]


def test_both_files_are_of_one_commit_even_if_the_branch_moves_meanwhile(
    processes: Processes, hub: FakeHub, home: Path, files: Files, other_files: Files, small: str, other: str
) -> None:
    hub.commit("ana/small", files)
    moved = Fault("config.json", "GET", then=lambda: hub.commit("ana/small", other_files))
    hub.faults = [moved]
    steps = [step("load", name="ana/small"), step("load", name="ana/small")]
    outcomes = processes.run(*steps, endpoint=hub.endpoint, home=home)
    assert moved.times == 0
    assert digests(outcomes) == [small, other]
    assert outcomes[0].good["trust"] != outcomes[1].good["trust"], "each with its own config"


def test_branches_with_a_slash_are_quoted(
    processes: Processes, hub: FakeHub, home: Path, files: Files, small: str
) -> None:
    hub.commit("ana/small", files, to="refs/pr/1")
    outcomes = processes.run(
        step("load", name="ana/small@refs/pr/1"),
        step("load", name="ana/small", revision="refs/pr/1", local_files_only=True),
        endpoint=hub.endpoint,
        home=home,
    )
    assert digests(outcomes) == [small] * 2


def test_gated_and_private_repositories_ask_for_a_token(
    processes: Processes, hub: FakeHub, home: Path, files: Files, small: str
) -> None:
    for name in ("ana/gated", "ana/private"):
        hub.commit(name, files)
    hub.repositories["ana/gated"].gated = True
    hub.repositories["ana/private"].private = True
    *refused, gated, private, by_login = processes.run(
        step("load", name="ana/gated", token=False),
        step("load", name="ana/gated", token=STRANGER),
        step("load", name="ana/private", token=False),
        step("load", name="ana/private", token=STRANGER),
        step("load", name="ana/gated", token=TOKEN),
        step("load", name="ana/private", token=TOKEN),
        step("load", name="ana/private", force_download=True),
        endpoint=hub.endpoint,
        home=home,
        HF_TOKEN=TOKEN,
    )
    assert [outcome.error for outcome in refused] == ["HubError"] * 2 + ["UnknownNameError"] * 2
    for outcome in refused[:2]:
        assert f"ana/gated is gated; accept its conditions at {hub.endpoint}/ana/gated" in outcome.message
    for outcome in refused[2:]:
        assert "no repository 'ana/private' that you may see" in outcome.message
    assert all("token=" in outcome.message and TOKEN not in outcome.message for outcome in refused)
    assert digests([gated, private, by_login]) == [small] * 3
    storage = [seen for seen in hub.requests() if seen.storage]
    assert len(storage) == 3
    assert not any("Authorization" in seen.headers for seen in storage), "the token is for the hub only"


def test_token_true_wants_a_login(processes: Processes, hub: FakeHub, files: Files) -> None:
    hub.commit("ana/small", files)
    (outcome,) = processes.run(step("load", name="ana/small", token=True), endpoint=hub.endpoint)
    assert outcome.error == "HubError"
    assert "nobody is logged in" in outcome.message


def test_a_token_that_cannot_be_one_is_refused_and_not_shown(
    processes: Processes, hub: FakeHub, home: Path, folder: Path, files: Files
) -> None:
    hub.commit("ana/small", files)
    tokens = (f"{TOKEN}\n", f"{TOKEN} {TOKEN}", f"{TOKEN}é", "", 5)
    loads = [step("load", name="ana/small", token=token) for token in tokens]
    pushed = step("push", str(folder), "ana/new", token=f"{TOKEN}\n")
    for outcome in processes.run(*loads, pushed, endpoint=hub.endpoint, home=home):
        assert outcome.error == "InputError", outcome.message
        assert "pass the bare token" in outcome.message
        assert TOKEN not in outcome.message
    assert hub.requests() == []


def test_what_is_not_there_is_named(processes: Processes, hub: FakeHub, home: Path, files: Files) -> None:
    hub.commit("ana/small", files)
    hub.commit("ana/no_weights", {"config.json": files["config.json"]})
    hub.commit("ana/no_config", {"model.safetensors": files["model.safetensors"]})
    repository, revision, weights, config = processes.run(
        step("load", name="ana/smal"),
        step("load", name="ana/small@v9"),
        step("load", name="ana/no_weights"),
        step("load", name="ana/no_config"),
        endpoint=hub.endpoint,
        home=home,
    )
    assert repository.error == revision.error == "UnknownNameError"
    assert "no folder and no repository 'ana/smal'" in repository.message
    assert "ana/small has no revision 'v9'" in revision.message
    for outcome in (weights, config):
        assert outcome.error == "WeightsError"
        assert "does not have both config.json and model.safetensors" in outcome.message
    assert not home.joinpath("hub").exists(), "nothing is written before it is known that all is there"


def test_the_cache_without_the_network(
    processes: Processes, hub: FakeHub, home: Path, tmp_path: Path, files: Files, small: str
) -> None:
    hub.commit("ana/small", files)
    own = tmp_path / "own"
    assert (
        digests(
            processes.run(
                step("load", name="ana/small"),
                step("load", name="ana/small", cache_dir=str(own)),
                endpoint=hub.endpoint,
                home=home,
            )
        )
        == [small] * 2
    )
    assert (own / "models--ana--small").is_dir()
    before = len(hub.requests())
    cached, own_cache, uncached, both = processes.run(
        step("load", name="ana/small", local_files_only=True),
        step("load", name="ana/small", local_files_only=True, cache_dir=str(own)),
        step("load", name="ana/other", local_files_only=True),
        step("load", name="ana/small", local_files_only=True, force_download=True),
        endpoint=hub.endpoint,
        home=home,
    )
    offline, offline_uncached, forced = processes.run(
        step("load", name="ana/small"),
        step("load", name="ana/other"),
        step("load", name="ana/small", force_download=True),
        endpoint=hub.endpoint,
        home=home,
        HF_HUB_OFFLINE="1",
    )
    assert len(hub.requests()) == before
    assert digests([cached, own_cache, offline]) == [small] * 3
    for outcome in (uncached, offline_uncached):
        assert outcome.error == "HubError"
        assert "ana/other@main is not in the cache" in outcome.message
        assert "HF_HUB_OFFLINE" in outcome.message
    assert both.error == forced.error == "InputError"


def test_force_download_downloads_again(
    processes: Processes, hub: FakeHub, home: Path, files: Files, small: str
) -> None:
    commit = hub.commit("ana/small", files)
    outcomes = processes.run(
        step("load", name=f"ana/small@{commit}"),
        step("load", name=f"ana/small@{commit}", force_download=True),
        endpoint=hub.endpoint,
        home=home,
    )
    assert digests(outcomes) == [small] * 2
    assert len(hub.requests("model.safetensors", "GET")) == 2
    assert leftovers(home) == []


def test_a_registered_name_is_pinned(
    processes: Processes, hub: FakeHub, home: Path, files: Files, other_files: Files, small: str
) -> None:
    commit = hub.commit("ana/small", files)
    hub.commit("ana/small", other_files)
    values = {
        "architecture": "m",
        "repository": "ana/small",
        "commit": commit,
        "files": {name: sha256(data) for name, data in files.items()},
    }
    first, cached, at_commit, elsewhere = processes.run(
        step("pin", "registered", **values),
        step("load", name="registered"),
        step("load", name="registered", local_files_only=True),
        step("load", name="registered", revision=commit),
        step("load", name="registered", revision="main"),
        endpoint=hub.endpoint,
        home=home,
    )[1:]
    assert digests([first, cached, at_commit]) == [small] * 3
    assert first.good["name"] == "registered"
    assert first.log == []
    assert elsewhere.error == "InputError"
    assert f"registered is pinned to {commit}" in elsewhere.message
    assert all(commit in seen.path for seen in hub.requests("resolve")), "main is never looked at"


def test_a_registered_name_without_a_copy_says_so(processes: Processes, hub: FakeHub) -> None:
    *_, outcome = processes.run(
        step("pin", "registered", architecture="m", repository="<owner>/homoreg-registered"),
        step("load", name="registered"),
        endpoint=hub.endpoint,
    )
    assert outcome.error == "WeightsError"
    assert "no copy of them has been published on the Hub yet" in outcome.message
    assert hub.requests() == []


def test_the_client_is_imported_for_the_hub_only(
    processes: Processes, hub: FakeHub, folder: Path, files: Files
) -> None:
    hub.commit("ana/small", files)
    outcomes = processes.run(
        step("load", name=str(folder)),
        step("command", "models"),
        step("is_loaded", "huggingface_hub"),
        step("load", name="ana/small"),
        step("is_loaded", "huggingface_hub"),
        endpoint=hub.endpoint,
    )
    assert [outcome.good for outcome in outcomes][2::2] == [False, True]


def test_downloads_show_their_progress(processes: Processes, hub: FakeHub, files: Files, small: str) -> None:
    hub.commit("ana/small", files)
    # The client draws bars on terminals; with this setting, tqdm's own for such cases, everywhere.
    job = processes.start([step("load", name="ana/small")], endpoint=hub.endpoint, TQDM_POSITION="-1")
    assert digests(job.outcomes()) == [small]
    assert "model.safetensors: 100%" in job.stderr()


def test_two_processes_may_race_for_one_cache(
    processes: Processes, hub: FakeHub, home: Path, large_files: Files
) -> None:
    hub.commit("ana/large", large_files)
    steps = [step("create", name="ana/large")]
    jobs = [processes.start(steps, endpoint=hub.endpoint, home=home) for _ in range(3)]
    found = {outcome.good for job in jobs for outcome in job.outcomes()}
    (again,) = processes.run(*steps, endpoint=hub.endpoint, home=home)
    assert found == {again.good}
    assert leftovers(home) == []
