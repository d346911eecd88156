from __future__ import annotations

import dataclasses
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from homoreg.errors import ConfigError, OutputError, UnknownNameError, WeightsError
from homoreg.models import HomographyModel, build, load_model, save_weights
from homoreg.models.storage import (
    FORMAT_VERSION,
    encode_weights,
    load_state,
    read_config,
    write_calibration,
)
from tests.disk import FullDisk, everything_below
from tests.models.contract import tiny

CALIBRATION = {"confidence_precision": 1.5, "threshold": 0.4}
TRAINING = {"epochs": 3, "data": ["made up"]}


@pytest.fixture(scope="module")
def model() -> HomographyModel:
    return tiny("m")


@pytest.fixture
def folder(tmp_path: Path, model: HomographyModel) -> Path:
    target = tmp_path / "new" / "weights"
    save_weights(target, model, calibration=CALIBRATION, training=TRAINING, dtype=torch.float32)
    return target


def change_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


# --- saving ------------------------------------------------------------------------------------------------


def test_a_folder_holds_the_config_and_the_weights(folder: Path, model: HomographyModel) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["format_version"] == FORMAT_VERSION
    assert config["architecture"] == "m"
    assert config["config"] == json.loads(json.dumps(dataclasses.asdict(model.config)))
    assert config["calibration"] == CALIBRATION
    assert config["training"] == TRAINING
    assert read_config(folder) == config
    loaded, returned = load_model(folder)
    assert returned == config
    assert loaded.config == model.config


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_tensors_are_stored_in_the_chosen_type(
    tmp_path: Path, model: HomographyModel, dtype: torch.dtype
) -> None:
    save_weights(tmp_path, model, dtype=dtype)
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {dtype}
    loaded, config = load_model(tmp_path)
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    assert config["calibration"] == config["training"] == {}


def test_the_default_type_is_half_precision(tmp_path: Path, model: HomographyModel) -> None:
    save_weights(tmp_path, model)
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}


@pytest.fixture(scope="module")
def wide() -> HomographyModel:
    """A network with matrices large enough to be stored as integers."""
    torch.manual_seed(0)
    model = build("dhn", {"side": 64, "widths": [4, 4, 8, 16], "hidden": 256, "dropout": 0.0})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
    return model.eval()


def test_large_matrices_can_be_stored_as_integers(tmp_path: Path, wide: HomographyModel) -> None:
    save_weights(tmp_path, wide, dtype=torch.int8)
    stored = load_file(tmp_path / "model.safetensors")
    assert stored["net.hidden.weight"].dtype == torch.int8
    assert stored["net.hidden.weight.scale"].shape == (256,)
    assert {value.dtype for name, value in stored.items() if "hidden.weight" not in name} == {
        torch.float32,
        torch.int64,
    }
    loaded, config = load_model(tmp_path)
    assert config["format_version"] == 1
    for name, value in wide.state_dict().items():
        step = value.abs().max() / 127 if name == "net.hidden.weight" else 0.0
        assert (loaded.state_dict()[name] - value).abs().max() <= 0.51 * step


def test_integers_are_kept_where_they_lose_nothing(tmp_path: Path, wide: HomographyModel) -> None:
    first = encode_weights(wide, calibration={}, training={}, dtype=torch.int8)
    for name, data in first.items():
        (tmp_path / name).write_bytes(data)
    loaded, _ = load_model(tmp_path)
    assert encode_weights(loaded, calibration={}, training={}) == first
    again = encode_weights(wide, calibration={}, training={})["model.safetensors"]
    assert len(again) > 3 * len(first["model.safetensors"])  # these would lose: they stay float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("net.hidden.weight.scale"), "net.hidden.weight is int8 without scales"),
        (
            lambda t: t.update({"net.hidden.weight.scale": torch.ones(255)}),
            r"net\.hidden\.weight\.scale is torch\.float32 \(255,\)",
        ),
        (lambda t: t["net.hidden.weight.scale"].fill_(torch.nan), "scales that are negative or not finite"),
        (lambda t: t.update({"net.out.weight.scale": torch.ones(8)}), "1 unknown .*net.out.weight.scale"),
        (
            lambda t: t.update({"net.hidden.weight": t["net.hidden.weight"][:, 1:].contiguous()}),
            "tensor net.hidden.weight is torch.float32 .*; expected",
        ),
    ],
)
def test_integers_that_do_not_fit_are_named(
    tmp_path: Path, wide: HomographyModel, change: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    save_weights(tmp_path, wide, dtype=torch.int8)
    change_tensors(tmp_path, change)
    with pytest.raises(WeightsError, match=message):
        load_model(tmp_path)


def test_another_state_can_be_saved(tmp_path: Path, model: HomographyModel) -> None:
    averaged = {name: 2 * value for name, value in model.state_dict().items()}
    save_weights(tmp_path, model, state=averaged, dtype=torch.float32)
    loaded, _ = load_model(tmp_path)
    assert all(torch.equal(value, averaged[name]) for name, value in loaded.state_dict().items())


def test_saving_replaces_what_was_there(folder: Path, model: HomographyModel) -> None:
    save_weights(folder, model, calibration={"threshold": 0.9})
    assert read_config(folder)["calibration"] == {"threshold": 0.9}
    assert read_config(folder)["training"] == {}


def test_a_full_disk_leaves_what_was_there(
    folder: Path, model: HomographyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything_below(folder)
    size = len(before["model.safetensors"])
    # Enough for the weights in single precision, not for the config as well.
    FullDisk(monkeypatch, room=size + 10)
    with pytest.raises(OutputError, match=r"config\.json"):
        save_weights(folder, model, training={"other": 1}, dtype=torch.float32)
    monkeypatch.undo()
    assert everything_below(folder) == before


def test_a_file_in_the_way_of_the_folder_is_named(tmp_path: Path, model: HomographyModel) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    with pytest.raises(OutputError, match="blocked"):
        save_weights(blocked, model)


def test_the_calibration_can_be_replaced(folder: Path) -> None:
    before = read_config(folder)
    weights = (folder / "model.safetensors").read_bytes()
    write_calibration(folder, {"threshold": 0.7})
    assert read_config(folder) == before | {"calibration": {"threshold": 0.7}}
    assert (folder / "model.safetensors").read_bytes() == weights


def test_the_calibration_of_no_config_cannot_be_replaced(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        write_calibration(tmp_path, {})


# --- config.json -------------------------------------------------------------------------------------------


def test_a_missing_config_is_named(folder: Path) -> None:
    (folder / "config.json").unlink()
    expected = (
        f"{folder}/config.json does not exist; expected a folder with config.json and model.safetensors"
    )
    with pytest.raises(WeightsError, match=re.escape(expected)):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"{", b'{"format_version": 1,}', b"\xff\xfe\x00"])
def test_a_config_that_is_not_json_is_named(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(
        WeightsError, match=r"config\.json cannot be read as JSON \(.*\); fetch the weights ag"
    ):
        read_config(folder)


def test_a_folder_in_place_of_the_config_is_named(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(WeightsError, match=r"config\.json cannot be read as JSON"):
        read_config(folder)


@pytest.mark.parametrize(("content", "kind"), [("[]", "list"), ("null", "NoneType"), ("3", "int")])
def test_a_config_that_is_not_an_object_is_named(folder: Path, content: str, kind: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=rf"config\.json holds a {kind}; expected an object"):
        read_config(folder)


def test_a_newer_format_says_to_upgrade(folder: Path) -> None:
    newer = FORMAT_VERSION + 1
    change_config(folder, format_version=newer, a_key_of_the_future=1)
    expected = f"has format_version {newer}; this homoreg reads up to {FORMAT_VERSION}: upgrade homoreg"
    with pytest.raises(WeightsError, match=expected):
        load_model(folder)


def test_an_unknown_key_is_named(folder: Path) -> None:
    change_config(folder, trainig={})
    expected = (
        "unknown key 'trainig'; known keys: format_version, architecture, config, calibration, training"
    )
    with pytest.raises(ConfigError, match=expected):
        load_model(folder)


@pytest.mark.parametrize("key", ["format_version", "architecture", "config", "calibration", "training"])
def test_a_missing_key_is_named(folder: Path, key: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config[key]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=f"key '{key}' is None; expected a "):
        load_model(folder)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("format_version", "1", "key 'format_version' is '1'; expected a int"),
        ("format_version", True, "key 'format_version' is True; expected a int"),
        ("format_version", 1.0, "key 'format_version' is 1.0; expected a int"),
        ("architecture", 3, "key 'architecture' is 3; expected a str"),
        ("config", [], "key 'config' is []; expected a dict"),
        ("calibration", None, "key 'calibration' is None; expected a dict"),
        ("training", "none", "key 'training' is 'none'; expected a dict"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(folder: Path, key: str, value: Any, expected: str) -> None:
    change_config(folder, **{key: value})
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load_model(folder)


def test_an_unknown_architecture_is_named(folder: Path) -> None:
    change_config(folder, architecture="dhn9")
    with pytest.raises(UnknownNameError, match="no architecture is called 'dhn9'"):
        load_model(folder)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"widht2": 8}, "unknown m config key 'widht2'"),
        ({"width2": "8"}, "m config width2 is '8'"),
        ({"heads": 7}, "width8 is 96 with 7 heads"),
    ],
)
def test_a_config_of_no_network_is_named(folder: Path, config: dict[str, Any], expected: str) -> None:
    change_config(folder, config=config)
    with pytest.raises(ConfigError, match=expected):
        load_model(folder)


@pytest.mark.parametrize("starter", ["eve/starter", "../other", ".", "m121", 7, ["mhn"]])
def test_a_starter_has_to_be_a_registered_model(tmp_path: Path, starter: Any) -> None:
    save_weights(tmp_path, tiny("clkn"))
    config = read_config(tmp_path)["config"]
    change_config(tmp_path, config={**config, "starter": ""})
    load_model(tmp_path)
    change_config(tmp_path, config={**config, "starter": starter})
    with pytest.raises(ConfigError, match=rf"starter is {re.escape(repr(starter))}; expected a registered"):
        load_model(tmp_path)


# --- model.safetensors -------------------------------------------------------------------------------------


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    expected = f"{folder}/model.safetensors does not exist; expected a folder with config.json and model.safe"
    with pytest.raises(WeightsError, match=re.escape(expected)):
        load_model(folder)


def _truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _garbled_header(data: bytes) -> bytes:
    return data[:8] + b"?" * 40 + data[48:]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"PK\x03\x04 not a tensor in sight",
        lambda data: struct.pack("<Q", 2**60) + data[8:],
        _truncated,
        _garbled_header,
    ],
)
def test_corrupt_weights_are_named(folder: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(
        WeightsError, match=r"model\.safetensors is not a readable safetensors file \(.*\); fet"
    ):
        load_model(folder)


def test_missing_and_extra_tensors_are_named(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.pop("encoder.up2.bias"))
    with pytest.raises(WeightsError) as caught:
        load_model(folder)
    assert "does not fit the m architecture: 1 tensors missing (first ['encoder.up2.bias'])" in str(
        caught.value
    )
    assert "0 unknown (first [])" in str(caught.value)
    change_tensors(folder, lambda tensors: tensors.update(zebra=torch.zeros(1), other=torch.zeros(2)))
    with pytest.raises(
        WeightsError, match=r"1 tensors missing .* 2 unknown \(first \['other'\]\); use the we"
    ):
        load_model(folder)


def test_a_tensor_of_another_shape_is_named(folder: Path) -> None:
    def transpose(tensors: dict[str, Tensor]) -> None:
        name = "cross_attention.0.key_value.weight"
        tensors[name] = tensors[name].T.contiguous()

    change_tensors(folder, transpose)
    expected = (
        "tensor cross_attention.0.key_value.weight is torch.float32 (16, 32); expected torch.float32 (32,"
    )
    with pytest.raises(WeightsError, match=re.escape(expected)):
        load_model(folder)


def test_a_tensor_of_integers_is_named(folder: Path) -> None:
    def count(tensors: dict[str, Tensor]) -> None:
        name = min(tensors)
        tensors[name] = tensors[name].int()

    change_tensors(folder, count)
    with pytest.raises(
        WeightsError, match=r"is torch\.int32 .*; expected torch\.float32 .*: use the weights of"
    ):
        load_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_finite_is_named(folder: Path, value: float) -> None:
    def poison(tensors: dict[str, Tensor]) -> None:
        tensors["encoder.head8.weight"].view(-1)[-1] = value

    change_tensors(folder, poison)
    expected = "tensor encoder.head8.weight holds values that are not finite; fetch the weights again"
    with pytest.raises(WeightsError, match=expected):
        load_model(folder)


def test_weights_that_do_not_fit_leave_the_model_as_it_was(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors["encoder.up2.bias"].fill_(float("nan")))
    model = tiny("m")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError):
        load_state(model, folder)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_of_another_config_are_named(folder: Path) -> None:
    change_config(folder, config={})
    with pytest.raises(WeightsError, match=r"does not fit the m architecture|expected torch\.float32"):
        load_model(folder)


def test_only_parts_that_can_begin_silent_may_be_missing(tmp_path: Path) -> None:
    for name in ("m", "dhn"):
        save_weights(tmp_path / name, tiny(name))
        change_tensors(tmp_path / name, lambda tensors: tensors.pop(sorted(tensors)[0]))
    with pytest.raises(
        ConfigError, match=r"dhn cannot begin from weights without 'net\.features\.0\.weight'"
    ):
        load_state(tiny("dhn"), tmp_path / "dhn", growing=True)
    with pytest.raises(ConfigError, match="m cannot begin from weights without 'cross_attention"):
        load_state(tiny("m"), tmp_path / "m", growing=True)
