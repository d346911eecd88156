"""What a stranger may put into a repository: none of it does more than raise one clear error."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from tests.hub.jobs import Processes, leftovers, step
from tests.hub.server import FakeHub, Fault

Files = dict[str, bytes]
Tensors = dict[str, Tensor]


def with_config(files: Files, **changes: Any) -> Files:
    return {**files, "config.json": json.dumps(json.loads(files["config.json"]) | changes).encode()}


def with_tensors(files: Files, change: Callable[[Tensors], object]) -> Files:
    tensors = load(files["model.safetensors"])
    change(tensors)
    return {**files, "model.safetensors": save(tensors)}


BIAS, WEIGHT = "encoder.up2.bias", "encoder.up2.weight"

CASES: dict[str, tuple[Callable[[Files], Files], str, str]] = {
    "extra_tensor": (
        lambda files: with_tensors(files, lambda t: t.update(extra=torch.zeros(1))),
        "WeightsError", "1 unknown (first ['extra'])",
    ),
    "missing_tensor": (
        lambda files: with_tensors(files, lambda t: t.pop(BIAS)),
        "WeightsError", f"1 tensors missing (first ['{BIAS}'])",
    ),
    "integers": (
        lambda files: with_tensors(files, lambda t: t.update({BIAS: t[BIAS].int()})),
        "WeightsError", f"tensor {BIAS} is torch.int32",
    ),
    "doubles": (
        lambda files: with_tensors(files, lambda t: t.update({BIAS: t[BIAS].double()})),
        "WeightsError", f"tensor {BIAS} is torch.float64",
    ),
    "eight_bits": (
        lambda files: with_tensors(files, lambda t: t.update({BIAS: t[BIAS].to(torch.float8_e4m3fn)})),
        "WeightsError", f"tensor {BIAS} is torch.float8_e4m3fn",
    ),
    "shape": (
        lambda files: with_tensors(files, lambda t: t.update({WEIGHT: t[WEIGHT][:-1].clone()})),
        "WeightsError", f"tensor {WEIGHT} is torch.float16",
    ),
    "nan": (
        lambda files: with_tensors(files, lambda t: t[WEIGHT].view(-1)[3].fill_(float("nan"))),
        "WeightsError", f"tensor {WEIGHT} holds values that are not finite",
    ),
    "infinity": (
        lambda files: with_tensors(files, lambda t: t[BIAS][0].fill_(float("-inf"))),
        "WeightsError", f"tensor {BIAS} holds values that are not finite",
    ),
    "unknown_key": (
        lambda files: with_config(files, auto_map={"AutoModel": "evil.Evil"}),
        "ConfigError", "unknown key 'auto_map'",
    ),
    "unknown_inner_key": (
        lambda files: with_config(files, config={"width3": 5}),
        "ConfigError", "unknown m config key 'width3'",
    ),
    "wrong_type": (
        lambda files: with_config(files, config={"width2": "8"}),
        "ConfigError", "width2 is '8'",
    ),
    "newer_format": (
        lambda files: with_config(files, format_version=2),
        "WeightsError", "format_version 2",
    ),
    "older_than_the_first_format": (
        lambda files: with_config(files, format_version=0),
        "ConfigError", "format_version is 0",
    ),
    "no_format": (
        lambda files: with_config(files, format_version=True),
        "ConfigError", "'format_version' is True",
    ),
    "unknown_architecture": (
        lambda files: with_config(files, architecture="torchvision.models.resnet18"),
        "UnknownNameError", "no architecture is called 'torchvision.models.resnet18'",
    ),
    "huge_network": (
        lambda files: with_config(files, config={"width8": 4096}),
        "WeightsError", "does not fit",
    ),
    "many_layers": (
        lambda files: with_config(files, config={"layers": 4096}),
        "WeightsError", "does not fit",
    ),
    "absurd_number": (
        lambda files: with_config(files, config={"width2": 10**12}),
        "ConfigError", "expected numbers up to",
    ),
    "a_third_party": (
        lambda files: with_config(files, architecture="clkn", config={"starter": "eve/starter"}),
        "ConfigError", "starter is 'eve/starter'; expected a registered model",
    ),
    "calibration": (
        lambda files: with_config(files, calibration={"threshold": "always"}),
        "ConfigError", "calibration threshold is 'always'",
    ),
    "key_given_twice": (
        lambda files: {**files, "config.json": b'{"config": {}, ' + files["config.json"][1:]},
        "WeightsError", "given twice",
    ),
    "deep_json": (
        lambda files: {**files, "config.json": b"[" * 100_000},
        "WeightsError", "cannot be read as JSON",
    ),
    "not_json": (
        lambda files: {**files, "config.json": b"\xff\xfe{"},
        "WeightsError", "cannot be read as JSON",
    ),
    "a_pickle_by_another_name": (
        lambda files: {**files, "model.safetensors": pickle.dumps({"a": 1})},
        "WeightsError", "not a readable safetensors file",
    ),
    "empty_weights": (
        lambda files: {**files, "model.safetensors": b""},
        "WeightsError", "not a readable safetensors file",
    ),
}  # fmt: skip


def test_every_kind_of_wrong_content_is_one_clear_error(
    processes: Processes, hub: FakeHub, home: Path, files: Files
) -> None:
    for name, (change, _, _) in CASES.items():
        hub.commit(f"eve/{name}", change(files))
    steps = [step("load", name=f"eve/{name}") for name in CASES]
    outcomes = processes.run(*steps, endpoint=hub.endpoint, home=home)
    for (name, (_, kind, part)), outcome in zip(CASES.items(), outcomes, strict=True):
        assert outcome.error == kind, f"{name}: {outcome.message or 'it loaded'}"
        assert part in outcome.message, name
        assert "\n" not in outcome.message, name
    assert not hub.requests("eve/starter")
    assert leftovers(home) == []


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", ["bin", "pt", "ckpt"])
def test_pickles_are_never_asked_for(
    processes: Processes, hub: FakeHub, home: Path, tmp_path: Path, files: Files, suffix: str
) -> None:
    triggered = tmp_path / "triggered"
    buffer = io.BytesIO()
    torch.save(Bomb(triggered), buffer)
    names = {"bin": "pytorch_model.bin", "pt": "model.pt", "ckpt": "model.ckpt"}
    code = b"import pathlib; pathlib.Path('%s').touch()" % str(triggered).encode()
    config = {"config.json": files["config.json"]}
    hub.commit("eve/pickle", {**config, names[suffix]: buffer.getvalue(), "modeling.py": code})
    (outcome,) = processes.run(step("load", name="eve/pickle"), endpoint=hub.endpoint, home=home)
    assert outcome.error == "WeightsError"
    assert "safetensors only and never pickles" in outcome.message
    asked = {seen.path.rsplit("/", 1)[-1] for seen in hub.requests("resolve")}
    assert asked == {"config.json", "model.safetensors"}
    assert not triggered.exists()


def test_no_name_of_a_server_leads_out_of_the_cache(
    processes: Processes, hub: FakeHub, home: Path, tmp_path: Path, files: Files
) -> None:
    hub.commit("eve/files", {**files, "../../../escaped": b"!", "/escaped": b"!", "a/../../escaped": b"!"})
    for name in ("eve/etag", "eve/linked", "eve/commit", "eve/other"):
        hub.commit(name, files)
    out = "../../../../escaped"
    hub.faults = [
        Fault("eve/etag", "HEAD", times=99, headers={"ETag": f'"{out}"'}),
        Fault("eve/linked/resolve/main/model", "HEAD", times=99, headers={"X-Linked-Etag": f'"{out}"'}),
        Fault("eve/commit", "HEAD", times=99, headers={"X-Repo-Commit": out}),
        Fault("eve/other", "HEAD", times=99, headers={"X-Repo-Commit": "a" * 40}),
    ]
    commit = hub.repositories["eve/other"].refs["main"]
    fine, *refused = processes.run(
        step("load", name="eve/files"),
        step("load", name="eve/etag"),
        step("load", name="eve/linked"),
        step("load", name="eve/commit"),
        step("load", name=f"eve/other@{commit}"),
        endpoint=hub.endpoint,
        home=home,
    )
    assert fine.good["name"] == "eve/files"
    assert [outcome.error for outcome in refused] == ["HubError"] * 4
    assert all("expected those of the Hub" in outcome.message for outcome in refused)
    assert not list(tmp_path.rglob("*escaped*"))
    assert {path.name for path in home.rglob("snapshots/*/*")} == {"config.json", "model.safetensors"}
    assert [path.name for path in home.rglob("models--*") if path.parent.name == "hub"] == [
        "models--eve--files"
    ]


def test_a_file_that_is_far_too_large_is_not_begun(
    processes: Processes, hub: FakeHub, home: Path, files: Files
) -> None:
    hub.commit("eve/large", files)
    hub.faults = [Fault("/model.safetensors", "HEAD", times=9, headers={"X-Linked-Size": str(2**40)})]
    (outcome,) = processes.run(step("load", name="eve/large"), endpoint=hub.endpoint, home=home)
    assert outcome.error == "WeightsError"
    assert f"{2**40} bytes; expected at most" in outcome.message
    assert not hub.requests("", "GET")
