from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import torch

from homoreg.errors import InputError, OutputError
from homoreg.imaging.reading import Picture, read_image
from homoreg.imaging.tone import Tone
from homoreg.registration import Registration
from tests.disk import FullDisk, everything_below

Array = npt.NDArray[Any]
IR, RGB = (64, 48), (160, 120)
HOMOGRAPHY = np.array([[1.5, 0.1, 30], [-0.1, 1.6, 25], [2e-4, -1e-4, 1]])
FILES = {
    "warped.png",
    "mask.png",
    "overlay.png",
    "checkerboard.png",
    "before_after.png",
    "registration.json",
}


def counts() -> Array:
    ramp = 7300 + (np.arange(IR[0] * IR[1]) * 7) % 601
    return ramp.reshape(IR[1], IR[0]).astype(np.uint16)


def colour() -> Array:
    return np.random.default_rng(0).integers(0, 256, (RGB[1], RGB[0], 3), np.uint8)


def result(
    homography: npt.ArrayLike = HOMOGRAPHY,
    *,
    ir: Array | None = None,
    mask: Array | None = None,
    **values: Any,
) -> Registration:
    options: dict[str, Any] = {
        "expected_error": 1.25,
        "confidence": 0.93,
        "reliable": True,
        "model": "m120",
        "ir_tone": Tone("ir", 7300, 7900),
        "rgb_tone": Tone("rgb", 0, 255),
    }
    infrared = Picture(counts() if ir is None else ir, mask, "flight/ir.png")
    return Registration.build(
        homography, ir=infrared, rgb=Picture(colour(), None, "rgb.jpg"), **(options | values)
    )


def fields(**changes: Any) -> dict[str, Any]:
    whole = result()
    return {field.name: getattr(whole, field.name) for field in dataclasses.fields(whole)} | changes


# --- the record --------------------------------------------------------------------------------------------


def test_build_scales_the_homography_and_maps_the_corners() -> None:
    registration = result(HOMOGRAPHY * -4)
    np.testing.assert_allclose(registration.homography, HOMOGRAPHY)
    assert registration.homography.dtype == np.float64
    assert registration.homography[2, 2] == 1
    frame = np.array([[0, 0, 1], [63, 0, 1], [63, 47, 1], [0, 47, 1]], float)
    mapped = (HOMOGRAPHY @ frame.T).T
    np.testing.assert_allclose(registration.corners, mapped[:, :2] / mapped[:, 2:])
    assert registration.corners.dtype == np.float64


@pytest.mark.parametrize(
    ("homography", "overlap"),
    [
        (HOMOGRAPHY, 1.0),
        ([[1, 0, 128], [0, 1, 0], [0, 0, 1]], 0.5),
        ([[1, 0, 500], [0, 1, 0], [0, 0, 1]], 0.0),
    ],
)
def test_build_measures_the_overlap(homography: npt.ArrayLike, overlap: float) -> None:
    assert result(homography).overlap == pytest.approx(overlap)


def test_build_takes_tensors_lists_and_float32() -> None:
    for given in (HOMOGRAPHY.tolist(), torch.from_numpy(HOMOGRAPHY), HOMOGRAPHY.astype(np.float32)):
        np.testing.assert_allclose(result(given).homography, HOMOGRAPHY, rtol=1e-6)


def test_it_is_frozen_and_its_arrays_are_read_only_copies() -> None:
    given = HOMOGRAPHY.copy()
    registration = result(given)
    given[:] = 0
    np.testing.assert_allclose(registration.homography, HOMOGRAPHY)
    with pytest.raises(dataclasses.FrozenInstanceError):
        registration.confidence = 1.0  # type: ignore[misc]
    for array in (registration.homography, registration.corners):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 5


@pytest.mark.parametrize(
    ("homography", "message"),
    [
        (np.eye(2), r"homography is .* expected finite numbers of shape \(3, 3\)"),
        (np.ones((3, 4)), r"of shape \(3, 3\)"),
        (np.full((3, 3), np.nan), r"expected finite numbers of shape \(3, 3\)"),
        (np.diag([1, np.inf, 1]), "expected finite numbers"),
        ([[1, 0], [0, 1, 0]], "homography is .* expected finite numbers"),
        ("identity", "homography is 'identity'; expected finite numbers"),
        (np.diag([1.0, 1.0, 0.0]), "expected a last entry other than 0"),
        (np.diag([1.0, 0.0, 1.0]), "is singular; expected an invertible matrix"),
        (np.ones((3, 3)), "is singular"),
        ([[1, 0, 0], [0, 1, 0], [-1 / 63, 0, 1]], "corners is .* expected finite numbers"),
    ],
)
def test_build_refuses_matrices_that_are_no_homography(homography: npt.ArrayLike, message: str) -> None:
    with pytest.raises(InputError, match=message):
        result(homography)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"homography": np.eye(3) * 2}, "homography ends in 2; divide it by its last entry"),
        ({"homography": np.diag([1.0, 0.0, 1.0])}, "is singular"),
        ({"corners": np.zeros((3, 2))}, r"corners is .* expected finite numbers of shape \(4, 2\)"),
        ({"corners": np.full((4, 2), np.inf)}, "expected finite numbers"),
        ({"expected_error": -1.0}, "expected_error is -1.0; expected 0 or more, or infinity"),
        ({"expected_error": float("nan")}, "expected_error is nan"),
        ({"confidence": 1.5}, "confidence is 1.5; expected 0 to 1"),
        ({"confidence": float("nan")}, "confidence is nan"),
        ({"overlap": -0.1}, "overlap is -0.1; expected 0 to 1"),
    ],
)
def test_the_class_itself_checks_its_values(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Registration(**fields(**change))


def test_the_repr_is_short_and_says_what_matters() -> None:
    text = repr(result())
    assert text == (
        "Registration(reliable, status='ok', model='m120', expected_error=1.25 px, confidence=0.93, "
        "overlap=1.00, homography=[[1.5, 0.1, 30], [-0.1, 1.6, 25], [0.0002, -0.0001, 1]])"
    )
    doubtful = result(reliable=False, status="featureless", expected_error=float("inf"))
    assert repr(doubtful).startswith(
        "Registration(UNRELIABLE, status='featureless', model='m120', expected_error=inf"
    )


def test_to_dict_is_json_and_holds_everything_but_the_pixels() -> None:
    registration = result(confidence=np.float32(0.5), reliable=np.True_)
    values = json.loads(json.dumps(registration.to_dict(), allow_nan=False))
    np.testing.assert_array_equal(values["homography"], registration.homography)
    np.testing.assert_array_equal(values["corners"], registration.corners)
    assert values["expected_error"] == 1.25
    assert values["confidence"] == 0.5
    assert values["reliable"] is True
    assert values["overlap"] == 1.0
    assert values["model"] == "m120"
    assert values["status"] == "ok"
    assert values["ir"] == {
        "name": "flight/ir.png",
        "width": 64,
        "height": 48,
        "dtype": "uint16",
        "tone": {"modality": "ir", "low": 7300, "high": 7900},
    }
    assert values["rgb"]["width"] == 160
    assert Tone.from_dict(values["rgb"]["tone"]) == registration.rgb_tone
    assert set(values) == {field.name for field in dataclasses.fields(registration)} - {
        "ir_tone",
        "rgb_tone",
    } | {"convention"}


def test_an_unknown_error_is_null_in_json() -> None:
    assert result(expected_error=float("inf")).to_dict()["expected_error"] is None


# --- warping -----------------------------------------------------------------------------------------------


def test_warp_brings_the_infrared_image_onto_the_rgb_grid_in_16_bits() -> None:
    warped, mask = result().warp(interpolation="nearest", return_mask=True)
    assert warped.shape == mask.shape == (120, 160)
    assert warped.dtype == np.uint16
    assert mask.dtype == np.bool_
    assert mask.any()
    assert (warped[~mask] == 0).all()
    rows, columns = np.nonzero(mask)
    back = np.linalg.inv(HOMOGRAPHY) @ np.stack([columns, rows, np.ones(len(rows))])
    x, y = np.clip(np.round(back[:2] / back[2]), 0, [[63], [47]]).astype(int)
    same = warped[rows, columns] == counts()[y, x]
    assert same.mean() > 0.99  # but where the position is a half, within rounding


def test_nearest_keeps_every_count_through_an_enlargement() -> None:
    homography = np.array([[2, 0, 10.5], [0, 2, 10.5], [0, 0, 1]])
    warped, mask = result(homography).warp(interpolation="nearest", return_mask=True)
    np.testing.assert_array_equal(warped[10:106:2, 10:138:2], counts())
    assert mask.sum() == 64 * 48 * 4
    assert warped[mask].min() == 7300
    assert warped[mask].max() == 7900


def test_linear_stays_between_the_counts() -> None:
    warped, mask = result().warp(return_mask=True)
    assert warped[mask].min() >= 7300
    assert warped[mask].max() <= 7900


def test_without_the_mask_it_is_one_array() -> None:
    np.testing.assert_array_equal(result().warp(), result().warp(return_mask=True)[0])


def test_the_other_direction() -> None:
    registration = result([[1, 0, 20], [0, 1, 10], [0, 0, 1]])
    warped, mask = registration.warp(direction="rgb_to_ir", return_mask=True)
    np.testing.assert_array_equal(warped, colour()[10:58, 20:84])
    assert mask.shape == (48, 64)
    assert mask.all()


def test_there_and_back_is_where_it_was() -> None:
    registration = result()
    smooth = np.fromfunction(lambda y, x: 7300 + 5 * x + 3 * y, (48, 64)).astype(np.uint16)
    there = registration.warp(smooth)
    back, mask = registration.warp(there, direction="rgb_to_ir", return_mask=True)
    inner = np.abs(back[2:-2, 2:-2].astype(int) - smooth[2:-2, 2:-2])
    assert mask.all()
    assert inner.max() <= 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_image_of_the_source_side_can_be_warped(tmp_path: Path, dtype: Any) -> None:
    labels = (np.arange(64 * 48).reshape(48, 64) % 5).astype(dtype)
    homography = [[1, 0, 40], [0, 1, 30], [0, 0, 1]]
    expected = np.full((120, 160), 7, dtype)
    expected[30:78, 40:104] = labels
    sources: list[Any] = [labels, torch.from_numpy(labels), labels[..., None]]
    if dtype == np.uint8:
        PIL.Image.fromarray(labels).save(tmp_path / "labels.png")
        sources += [tmp_path / "labels.png", str(tmp_path / "labels.png"), PIL.Image.fromarray(labels)]
    for source in sources:
        warped = result(homography).warp(source, interpolation="nearest", fill=7)
        assert warped.dtype == dtype
        np.testing.assert_array_equal(warped, expected)


def test_the_alpha_of_the_image_is_in_the_mask() -> None:
    alpha = np.ones((48, 64), np.bool_)
    alpha[:, :32] = False
    registration = result([[1, 0, 40], [0, 1, 30], [0, 0, 1]], mask=alpha)
    _, mask = registration.warp(return_mask=True)
    np.testing.assert_array_equal(mask, registration.valid_mask())
    assert mask[30:78, 72:104].all()
    assert mask.sum() == 48 * 32
    _, mask = registration.warp(counts(), return_mask=True)
    assert mask.sum() == 48 * 64


def test_valid_mask_of_both_directions() -> None:
    registration = result([[1, 0, 128], [0, 1, 0], [0, 0, 1]])
    assert registration.valid_mask().sum() == 32 * 48
    assert registration.valid_mask(direction="rgb_to_ir")[:, :32].all()
    assert not registration.valid_mask(direction="rgb_to_ir")[:, 32:].any()


def test_an_image_of_another_size_is_refused_with_both_sizes() -> None:
    with pytest.raises(
        InputError, match=r"'array 160x120' has 160 x 120 pixels and the infrared image .* 64 x 48"
    ):
        result().warp(colour())
    with pytest.raises(
        InputError, match=r"'array 64x48' has 64 x 48 pixels and the RGB image 'rgb.jpg' has 160 x 120"
    ):
        result().warp(counts(), direction="rgb_to_ir")


def test_wrong_options_are_refused() -> None:
    for change in ("sideways", None):
        with pytest.raises(InputError, match="expected one of 'ir_to_rgb', 'rgb_to_ir'"):
            result().warp(direction=change)  # type: ignore[call-overload]
        with pytest.raises(InputError, match="expected one of 'ir_to_rgb', 'rgb_to_ir'"):
            result().valid_mask(direction=change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="interpolation is 'cubic'"):
        result().warp(interpolation="cubic")  # type: ignore[call-overload]
    with pytest.raises(InputError, match="expected an integer from 0 to 65535"):
        result().warp(fill=-1)


# --- pictures and files ------------------------------------------------------------------------------------


def test_the_pictures_have_the_size_of_the_rgb_image_or_less() -> None:
    registration = result()
    for picture in (
        registration.overlay(),
        registration.checkerboard(),
        registration.overlay(0.9, max_side=None),
    ):
        assert picture.shape == (120, 160, 3)
        assert picture.dtype == np.uint8
    assert registration.overlay(max_side=80).shape == (60, 80, 3)
    assert registration.checkerboard(5, max_side=80).shape == (60, 80, 3)
    assert registration.before_after(max_side=80).shape[1] == 80
    assert registration.before_after().shape[1] == 320


def test_a_large_image_gives_a_picture_of_limited_size() -> None:
    large = Picture(np.zeros((1000, 3200, 3), np.uint8), None, "large")
    registration = dataclasses.replace(result(), rgb=large)
    assert registration.overlay().shape == (500, 1600, 3)
    assert registration.overlay(max_side=None).shape == (1000, 3200, 3)


def test_an_unreliable_result_shows_it_in_every_picture() -> None:
    good, doubtful = result(), result(reliable=False, confidence=0.2)
    for draw in ("overlay", "checkerboard", "before_after"):
        corner = getattr(doubtful, draw)()[-1, -1].astype(int)
        assert corner[0] > 200
        assert corner[1:].max() < 60
        assert not np.array_equal(getattr(good, draw)(), getattr(doubtful, draw)())


def test_save_writes_every_file_at_full_depth(tmp_path: Path) -> None:
    registration = result()
    paths = registration.save(tmp_path / "deep" / "out")
    assert set(everything_below(tmp_path / "deep" / "out")) == FILES
    assert {path.name for path in paths.values()} == FILES
    assert set(paths) == {"warped", "mask", "overlay", "checkerboard", "before_after", "json"}
    warped, mask = registration.warp(return_mask=True)
    saved = read_image(paths["warped"]).pixels
    assert saved.dtype == np.uint16
    np.testing.assert_array_equal(saved, warped)
    np.testing.assert_array_equal(read_image(paths["mask"]).pixels, np.where(mask, 255, 0))
    for name in ("overlay", "checkerboard", "before_after"):
        np.testing.assert_array_equal(read_image(paths[name]).pixels, getattr(registration, name)())
    assert json.loads(paths["json"].read_text(encoding="utf-8")) == registration.to_dict()


def test_save_takes_over_counts_by_argument(tmp_path: Path) -> None:
    registration = result(homography=np.diag([2.5, 2.5, 1.0]))
    nearest = read_image(registration.save(tmp_path, interpolation="nearest")["warped"]).pixels
    np.testing.assert_array_equal(nearest, registration.warp(interpolation="nearest"))
    assert set(np.unique(nearest)) <= {0, *np.unique(registration.ir.pixels)}
    assert not np.array_equal(nearest, read_image(registration.save(tmp_path)["warped"]).pixels)
    with pytest.raises(InputError, match="interpolation is 'cubic'"):
        registration.save(tmp_path / "none", interpolation="cubic")  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()


def test_save_keeps_floats_as_tiff(tmp_path: Path) -> None:
    kelvin = counts().astype(np.float32) / 25
    registration = result(ir=kelvin, ir_tone=Tone("ir", 292, 316))
    paths = registration.save(str(tmp_path))
    assert paths["warped"].name == "warped.tiff"
    np.testing.assert_array_equal(read_image(paths["warped"]).pixels, registration.warp())


def test_save_replaces_an_earlier_result_and_leaves_other_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result().save(tmp_path)
    paths = result(expected_error=9.0).save(tmp_path)
    assert json.loads(paths["json"].read_text())["expected_error"] == 9.0
    assert set(everything_below(tmp_path)) == FILES | {"notes.txt"}


@pytest.mark.parametrize("room", [0, 1000, 50_000])
def test_a_full_disk_leaves_nothing_not_even_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    FullDisk(monkeypatch, room)
    with pytest.raises(OutputError, match="the disk is full; free some space"):
        result().save(tmp_path / "deep" / "out")
    assert everything_below(tmp_path) == {}


def test_a_full_disk_leaves_an_earlier_result_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result().save(tmp_path)
    before = everything_below(tmp_path)
    FullDisk(monkeypatch, room=10_000)
    with pytest.raises(OutputError, match="the disk is full"):
        result(np.eye(3)).save(tmp_path)
    assert everything_below(tmp_path) == before


def test_a_rename_that_fails_removes_what_this_call_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_replace = os.replace
    calls: list[object] = []

    def fail_on_the_third(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real_replace(source, target)

    monkeypatch.setattr(os, "replace", fail_on_the_third)
    with pytest.raises(OutputError, match="the disk is full"):
        result().save(tmp_path / "out")
    assert len(calls) == 3
    assert everything_below(tmp_path) == {}


def test_a_file_in_the_place_of_the_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(OutputError, match="a file of that name is in the way"):
        result().save(tmp_path / "out")
    assert everything_below(tmp_path) == {"out": b"mine"}


def test_non_ascii_names_stay_readable_in_json(tmp_path: Path) -> None:
    registration = dataclasses.replace(result(), ir=Picture(counts(), None, "Wärmebild.png"))
    text = registration.save(tmp_path)["json"].read_bytes()
    assert "Wärmebild.png".encode() in text


def test_names_that_are_no_unicode_are_saved(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")  # Latin-1, as an old archive may hold it
    registration = dataclasses.replace(result(), ir=Picture(counts(), None, name))
    text = registration.save(tmp_path)["json"].read_text(encoding="utf-8")
    assert json.loads(text)["ir"]["name"] == name


def test_a_folder_that_no_path_can_name(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot create the folder .*null"):
        result().save(f"{tmp_path}/a\0b")
    with pytest.raises(OutputError, match="cannot create the folder"):
        result().save(tmp_path / ("a" * 300))
    assert everything_below(tmp_path) == {}
