from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from homoreg.errors import DataError, ImageReadError
from homoreg.geometry import image_corners, transform_points
from homoreg.synthesis.dataset import (
    FrozenPair,
    SkyDataSet,
    corners_to_homography,
    format_label,
    parse_label,
)
from tests.scenes import Floats, cut, save, scene, shifted_square, write_set

LABEL = (
    '{"location": [{"top_left_u": 62, "top_left_v": 5}, {"top_right_u": 157, "top_right_v": 38}, '
    '{"bottom_left_u": 40, "bottom_left_v": 179}, {"bottom_right_u": 146, "bottom_right_v": 152}]}'
)
CORNERS = [[62, 5], [157, 38], [146, 152], [40, 179]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_set(tmp_path / "some_set", 3)


def label_of(folder: Path, stem: str = "01") -> Path:
    return folder / "val_label" / f"{stem}_label.txt"


# --- labels -------------------------------------------------------------------------------------------------


def test_a_label_lists_its_corners_clockwise_from_the_top_left() -> None:
    assert parse_label(LABEL).tolist() == CORNERS


def test_the_order_of_a_labels_entries_does_not_matter() -> None:
    entries = json.loads(LABEL)["location"]
    assert parse_label(json.dumps({"location": entries[::-1]})).tolist() == CORNERS


def test_a_label_is_written_as_it_was_read() -> None:
    assert format_label(parse_label(LABEL)) == LABEL


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.one_of(st.integers(0, 500), st.floats(0, 500)), min_size=8, max_size=8))
def test_any_corners_survive_a_label(values: list[float]) -> None:
    corners = np.array(values, np.float64).reshape(4, 2)
    assert parse_label(format_label(corners)).tolist() == corners.tolist()


# --- pairs --------------------------------------------------------------------------------------------------


def test_reads_the_pairs_in_the_order_of_their_names(folder: Path) -> None:
    pairs = SkyDataSet(folder)
    assert (len(pairs), pairs.name, pairs.split) == (3, "some_set", "val")
    assert pairs.names == ("00", "01", "02") == tuple(pair.name for pair in pairs)


def test_a_pair_holds_what_the_files_hold(folder: Path) -> None:
    pair = SkyDataSet(folder)[1]
    assert isinstance(pair, FrozenPair)
    corners = shifted_square(64, 3, seed=1)
    assert (pair.search == scene(96, 96, seed=101)).all()  # channels in RGB order
    assert (pair.template == cut(scene(96, 96, seed=101), corners, 64)).all()
    assert (pair.corners == corners).all()
    assert (pair.size, str(pair.search.dtype), str(pair.template.dtype)) == (64, "uint8", "uint8")


def test_the_homography_is_exact_at_the_corners(folder: Path) -> None:
    pair = SkyDataSet(folder)[-1]
    assert (str(pair.homography.dtype), pair.homography[2, 2]) == ("float64", 1)
    mapped = transform_points(torch.from_numpy(pair.homography), image_corners(64, 64, dtype=torch.float64))
    assert mapped.numpy() == pytest.approx(pair.corners, abs=1e-9)


def test_the_centred_square_is_a_shift() -> None:
    square = image_corners(128, 128, dtype=torch.float64).numpy() + 32
    expected = np.array([[1, 0, 32], [0, 1, 32], [0, 0, 1]])
    assert corners_to_homography(square, 128) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png"])
def test_reads_other_suffixes_and_ignores_other_files(tmp_path: Path, suffix: str) -> None:
    write_set(tmp_path, 1, suffix=suffix)
    (tmp_path / "val_input" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "val_input" / ".hidden.png").write_bytes(b"x")
    (tmp_path / "val_label" / "notes.txt").write_text("x")
    assert [pair.name for pair in SkyDataSet(tmp_path)] == ["00"]


def test_the_two_images_may_differ_in_format_and_set_in_size(folder: Path) -> None:
    pair = SkyDataSet(folder)[0]
    (folder / "val_template" / "00.png").unlink()
    save(folder / "val_template" / "00.jpg", pair.template)
    write_set(folder, 1, n=32, split="train")
    assert SkyDataSet(folder)[0].size == 64
    assert SkyDataSet(folder, split="train")[0].size == 32


def test_a_grey_16_bit_template_becomes_8_bit_rgb(folder: Path) -> None:
    ramp = np.linspace(7000, 9000, 64 * 64).reshape(64, 64).astype(np.uint16)
    cv2.imwrite(str(folder / "val_template" / "00.png"), ramp)
    template = SkyDataSet(folder)[0].template
    assert (str(template.dtype), template.shape) == ("uint8", (64, 64, 3))
    assert (template.min(), template.max()) == (0, 255)
    assert (template[..., 0] == template[..., 2]).all()


def test_an_index_beyond_the_end_is_an_index_error(folder: Path) -> None:
    with pytest.raises(IndexError):
        SkyDataSet(folder)[3]


# --- bad input ----------------------------------------------------------------------------------------------


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'.*nowhere' is not a folder; give the folder that holds val_input"):
        SkyDataSet(tmp_path / "nowhere")


def test_a_split_that_is_not_there(folder: Path) -> None:
    with pytest.raises(DataError, match="has no folder 'train_input'; expected SkyData's layout"):
        SkyDataSet(folder, split="train")


@pytest.mark.parametrize("kind", ["input", "template", "label"])
def test_a_missing_folder(folder: Path, kind: str) -> None:
    (folder / f"val_{kind}").rename(folder / "elsewhere")
    with pytest.raises(DataError, match=f"has no folder 'val_{kind}'"):
        SkyDataSet(folder)


def test_no_pairs(folder: Path) -> None:
    for path in folder.rglob("*.*"):
        path.unlink()
    with pytest.raises(DataError, match=r"val_input' holds no pairs; expected images \(.jpg .*check the"):
        SkyDataSet(folder)


@pytest.mark.parametrize("name", ["input/01.png", "template/01.png", "label/01_label.txt"])
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / f"val_{name}").unlink()
    with pytest.raises(DataError, match=f"pair '01' in .* has no file in val_{name.split('/')[0]}; every"):
        SkyDataSet(folder)


def test_two_images_of_one_stem(folder: Path) -> None:
    save(folder / "val_input" / "01.jpg", scene(96, 96))
    with pytest.raises(DataError, match=r"'01.jpg' and '01.png' in .* share a stem; keep one"):
        SkyDataSet(folder)


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        ("template", (64, 60), "the template is 60 x 64 px and the input 96 x 96 px; expected a square"),
        ("template", (48, 48), "the template is 48 x 48 px and the input 96 x 96 px"),
        ("input", (96, 100), "the template is 64 x 64 px and the input 100 x 96 px"),
        ("input", (192, 192), "and the input 192 x 192 px; expected a square template of side n"),
    ],
)
def test_sizes_that_do_not_fit(folder: Path, kind: str, shape: tuple[int, int], message: str) -> None:
    save(folder / f"val_{kind}" / "01.png", scene(*shape))
    with pytest.raises(DataError, match=f"pair '01' in .*: .*{message}"):
        SkyDataSet(folder)[1]


def test_an_image_that_is_none(folder: Path) -> None:
    (folder / "val_input" / "01.png").write_bytes(b"not an image")
    with pytest.raises(ImageReadError, match=r"01\.png"):
        SkyDataSet(folder)[1]


def change(key: str, value: Any) -> str:
    """The good label with one coordinate replaced, or dropped."""
    entries = json.loads(LABEL)["location"]
    for entry in entries:
        if key in entry:
            entry[key] = value
            if value is None:
                del entry[key]
    return json.dumps({"location": entries})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[1, 2", "not JSON"),
        ("[1, 2]", "'location' is not a list of objects"),
        ("{}", "'location' is not a list of objects"),
        ('{"location": [1]}', "'location' is not a list of objects"),
        ('{"location": []}', "'top_left_u' is None, not a number of px"),
        (change("bottom_left_v", None), "'bottom_left_v' is None, not a number"),
        (change("top_right_u", "157"), "'top_right_u' is 157, not a number"),
        (change("top_right_u", True), "'top_right_u' is True, not a number"),
        (change("top_right_u", float("nan")), "'top_right_u' is nan, not a number"),
        (change("top_right_u", float("inf")), "'top_right_u' is inf, not a number"),
        (change("top_right_u", 10**400), "'top_right_u' is 1000"),
    ],
)
def test_a_malformed_label(folder: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_label(text)
    label_of(folder).write_text(text)
    expected = f"cannot use the label '.*01_label.txt': {message}.*; expected JSON .*correct it or remove"
    with pytest.raises(DataError, match=expected):
        SkyDataSet(folder)[1]


def test_a_label_that_is_not_text(folder: Path) -> None:
    label_of(folder).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"cannot use the label .*utf-8"):
        SkyDataSet(folder)[1]


def with_corner(row: int, x: float, y: float) -> Floats:
    corners = shifted_square(64, 0, seed=0)
    corners[row] = x, y
    return corners


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        (
            with_corner(0, -1, 10),
            r"corners \[\[-1.0, 10.0\].*; expected coordinates within the input, 0 to 95",
        ),
        (with_corner(2, 96, 50), "expected coordinates within the input"),
        (with_corner(0, 60, 60), "expected a convex quadrilateral, clockwise from the top left"),
        (shifted_square(64, 0, seed=0)[::-1], "expected a convex quadrilateral"),
        (np.full((4, 2), 10.0), "expected a convex quadrilateral"),
    ],
)
def test_corners_that_no_template_can_have(folder: Path, corners: Floats, message: str) -> None:
    label_of(folder).write_text(format_label(corners))
    with pytest.raises(DataError, match=message):
        SkyDataSet(folder)[1]


# --- digest and head ----------------------------------------------------------------------------------------


def test_the_digest_is_about_names_and_files_and_not_about_the_place(tmp_path: Path) -> None:
    first, second = (SkyDataSet(write_set(tmp_path / name, 3)) for name in ("a", "b"))
    assert first.digest() == second.digest()
    assert len(first.digest()) == 64
    for kind in ("input", "template", "label"):
        path = sorted((tmp_path / "b" / f"val_{kind}").iterdir())[1]
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        assert SkyDataSet(tmp_path / "b").digest() != first.digest()
        path.write_bytes(before)
    assert SkyDataSet(tmp_path / "b").digest() == first.digest()
    for path in sorted((tmp_path / "b").glob("*/01*")):
        path.rename(path.with_name(path.name.replace("01", "03")))
    assert SkyDataSet(tmp_path / "b").digest() != first.digest()


def test_the_head_is_a_smaller_set(tmp_path: Path) -> None:
    whole = SkyDataSet(write_set(tmp_path / "a", 3))
    head = whole.head(2)
    assert (len(head), len(whole), head.name) == (2, 3, "a")
    assert [pair.name for pair in head] == list(whole.names[:2])
    assert head.digest() != whole.digest()


def test_a_digest_of_what_is_gone(tmp_path: Path) -> None:
    pairs = SkyDataSet(write_set(tmp_path / "a", 1))
    next((tmp_path / "a" / "val_label").iterdir()).unlink()
    with pytest.raises(DataError, match=r"cannot read .*_label\.txt': No such file"):
        pairs.digest()
