from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from homoreg.errors import DataError, ImageReadError, InputError, OutputError
from homoreg.synthesis import freezing
from homoreg.synthesis.appearance import AppearanceConfig
from homoreg.synthesis.dataset import SkyDataSet
from homoreg.synthesis.freezing import FrozenSet, write_skydata
from homoreg.synthesis.protocol import draw_samples
from tests.disk import FullDisk, everything_below
from tests.scenes import cut, save, scene, write_pairs

SMALL: dict[str, Any] = {"train": 5, "val": 3, "size": 32}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "park", 4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, pairs: Path) -> dict[str, bytes]:
    """Content of a set written in one go."""
    folder = tmp_path_factory.mktemp("whole")
    write_skydata(folder, [pairs], **SMALL)
    return everything_below(folder)


class CutShortError(Exception):
    pass


def cut_after(count: int) -> freezing.Progress:
    """A progress callback that interrupts the run after so many samples."""

    def progress(done: int, total: int) -> None:
        if done == count:
            raise CutShortError

    return progress


# --- what is written ----------------------------------------------------------------------------------------


def test_writes_skydatas_layout(tmp_path: Path, pairs: Path) -> None:
    calls: list[tuple[int, int]] = []
    result = write_skydata(
        tmp_path / "set", [pairs], **SMALL, progress=lambda done, total: calls.append((done, total))
    )
    assert result == FrozenSet(tmp_path / "set", written=8, kept=0)
    assert calls == [(done, 8) for done in range(1, 9)]
    for split, count in (("train", 5), ("val", 3)):
        data = SkyDataSet(tmp_path / "set", split)
        assert len(data) == count
        assert data.names[0] == "000000"
    assert {path.name for path in (tmp_path / "set").iterdir()} == {
        "manifest.json", "train_input", "train_label", "train_template",
        "val_input", "val_label", "val_template",
    }  # fmt: skip


def test_the_seed_protocol_by_default(tmp_path: Path, pairs: Path) -> None:
    write_skydata(tmp_path, [pairs], train=30, val=0)
    corners = []
    for pair in SkyDataSet(tmp_path, "train"):
        assert pair.template.shape == (128, 128, 3)
        assert pair.search.shape == (192, 192, 3)
        corners.append(pair.corners)
    square = np.array([[32, 32], [159, 32], [159, 159], [32, 159]])
    offsets = np.array(corners) - square
    assert (offsets == offsets.round()).all()
    assert np.abs(offsets).max() <= 32
    # 240 coordinates, uniform on -32..32: the extremes and the spread (32.5 / sqrt 3 = 18.8) are reached.
    assert offsets.min() <= -30
    assert offsets.max() >= 30
    assert offsets.std() == pytest.approx(18.8, abs=2.5)
    assert not (tmp_path / "val_input").exists()


def test_the_label_says_where_the_template_lies(tmp_path: Path, pairs: Path) -> None:
    """The infrared scenes are a function of the RGB ones, so the template can be cut from the input again."""
    write_skydata(tmp_path, [pairs], train=6, val=0, size=64, image_format="png")
    for pair in SkyDataSet(tmp_path, "train"):
        again = cut(pair.search, pair.corners, pair.size).astype(float)
        difference = np.abs(again - pair.template)[4:-4, 4:-4]
        moved = np.abs(again[:-8, :-8] - pair.template[8:, 8:])
        assert difference.mean() < 5
        assert difference.mean() < 0.4 * moved.mean()


def test_splits_share_no_image(pairs: Path, whole: dict[str, bytes]) -> None:
    sources = json.loads(whole["manifest.json"])["sources"]
    # 3 of 8 samples: a share of 3/8 of four images, the last by name.
    assert sources["train"]["names"] == ["park/00", "park/01"]
    assert sources["val"]["names"] == ["park/02", "park/03"]


def test_each_folder_gives_its_last_images_and_every_split_gets_one(tmp_path: Path, pairs: Path) -> None:
    other = write_pairs(tmp_path / "city", 2, seed=50)
    write_skydata(tmp_path / "a", [pairs, other], train=3, val=3, size=32)
    sources = json.loads((tmp_path / "a" / "manifest.json").read_text())["sources"]
    assert sources["train"]["names"] == ["park/00", "park/01", "city/00"]
    assert sources["val"]["names"] == ["park/02", "park/03", "city/01"]
    for train, val in ((50, 1), (1, 50)):
        splits = freezing._divide([pairs, other], train, val)
        assert len(splits["train"]) >= 1
        assert len(splits["val"]) >= 1
        assert not {p.rgb for p in splits["train"]} & {p.rgb for p in splits["val"]}


def test_a_single_image_serves_both_splits(tmp_path: Path) -> None:
    write_skydata(tmp_path / "set", [write_pairs(tmp_path / "one", 1)], train=1, val=1, size=32)
    sources = json.loads((tmp_path / "set" / "manifest.json").read_text())["sources"]
    assert sources["train"]["names"] == sources["val"]["names"] == ["one/00"]


def test_the_manifest_holds_every_option(whole: dict[str, bytes]) -> None:
    manifest = json.loads(whole["manifest.json"])
    del manifest["sources"]
    assert manifest == {
        "format": 1, "train": 5, "val": 3, "seed": 0, "size": 32, "image_format": "jpg", "max_side": 640,
        "appearance": None,
    }  # fmt: skip


# --- determinism and resuming -------------------------------------------------------------------------------


def test_the_same_call_gives_the_same_bytes(tmp_path: Path, pairs: Path, whole: dict[str, bytes]) -> None:
    write_skydata(tmp_path, [pairs], **SMALL)
    assert everything_below(tmp_path) == whole


def test_another_seed_gives_other_samples(tmp_path: Path, pairs: Path, whole: dict[str, bytes]) -> None:
    write_skydata(tmp_path, [pairs], **SMALL, seed=1)
    found = everything_below(tmp_path)
    same = [name for name in whole if whole[name] != b"dir" and found[name] == whole[name]]
    assert same == []


def test_samples_and_splits_differ(whole: dict[str, bytes]) -> None:
    labels = [data for name, data in whole.items() if name.endswith("_label.txt")]
    assert len(labels) == len(set(labels)) == 8


@pytest.mark.parametrize("count", [1, 5, 7])
def test_a_run_that_was_cut_continues(
    tmp_path: Path, pairs: Path, whole: dict[str, bytes], count: int
) -> None:
    with pytest.raises(CutShortError):
        write_skydata(tmp_path, [pairs], **SMALL, progress=cut_after(count))
    assert len(list(tmp_path.glob("*_label/*"))) == count
    result = write_skydata(tmp_path, [pairs], **SMALL)
    assert (result.written, result.kept) == (8 - count, count)
    assert everything_below(tmp_path) == whole


def test_a_complete_set_is_left_alone(tmp_path: Path, pairs: Path) -> None:
    write_skydata(tmp_path, [pairs], **SMALL)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    result = write_skydata(tmp_path, [pairs], **SMALL)
    assert (result.written, result.kept) == (0, 8)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    "name", ["train_input/000002.jpg", "val_template/000000.jpg", "val_label/000001_label.txt"]
)
@pytest.mark.parametrize("empty", [True, False])
def test_an_incomplete_sample_is_made_again(
    tmp_path: Path, pairs: Path, whole: dict[str, bytes], name: str, empty: bool
) -> None:
    write_skydata(tmp_path, [pairs], **SMALL)
    if empty:
        (tmp_path / name).write_bytes(b"")
    else:
        (tmp_path / name).unlink()
    assert write_skydata(tmp_path, [pairs], **SMALL).written == 1
    assert everything_below(tmp_path) == whole


def test_a_full_disk_leaves_complete_samples_only(
    tmp_path: Path, pairs: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        FullDisk(patch, room=9_000)
        with pytest.raises(OutputError, match="the disk is full; free some space"):
            write_skydata(tmp_path, [pairs], **SMALL)
    stems = {path.name[:6] for path in tmp_path.glob("*_label/*")}
    assert 1 <= len(stems) < 8
    assert sorted(path.name[:6] for path in tmp_path.glob("*_*/*")) == sorted(3 * list(stems))
    assert write_skydata(tmp_path, [pairs], **SMALL).kept == len(stems)
    assert everything_below(tmp_path) == whole


def test_png_and_appearance(tmp_path: Path, pairs: Path) -> None:
    look = AppearanceConfig(**{field.name: 0.0 for field in dataclasses.fields(AppearanceConfig)})
    inverted = dataclasses.replace(look, polarity=1.0)
    write_skydata(tmp_path / "a", [pairs], train=1, val=0, size=32, image_format="png", appearance=look)
    write_skydata(tmp_path / "b", [pairs], train=1, val=0, size=32, image_format="png", appearance=inverted)
    write_skydata(tmp_path / "c", [pairs], train=1, val=0, size=32, image_format="png")
    plain, flipped, none = (SkyDataSet(tmp_path / name, "train")[0] for name in "abc")
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["appearance"]["polarity"] == 1.0
    assert (plain.corners == none.corners).all()
    assert (plain.search == none.search).all()
    correlation = np.corrcoef(plain.template.ravel(), flipped.template.ravel())[0, 1]
    assert correlation < -0.9


def test_a_folded_draw_is_drawn_again(tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def folded_once(*args: Any, seed: int, **options: Any) -> Any:
        seeds.append(seed)
        sample = draw_samples(*args, seed=seed, **options)
        if len(seeds) > 1:
            return sample
        shift = torch.tensor([[[1, 0, 0.3], [0, 1, 0], [0, 0, 1]]])
        return dataclasses.replace(sample, homography=shift @ sample.homography)

    monkeypatch.setattr("homoreg.synthesis.freezing.draw_samples", folded_once)
    write_skydata(tmp_path, [pairs], train=1, val=0, size=32)
    assert len(seeds) == 2
    assert seeds[0] != seeds[1]
    corners = SkyDataSet(tmp_path, "train")[0].corners
    assert (corners == corners.round()).all()


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": -1}, "train is -1 and val is 3; expected counts of 0 or more, not both 0"),
        ({"train": 0, "val": 0}, "train is 0 and val is 0"),
        ({"seed": -1}, r"seed is -1; expected a whole number from 0 to 2\*\*63 - 1"),
        ({"size": 0}, "size is 0; expected a multiple of 32, such as 128"),
        ({"size": 100}, "size is 100; expected a multiple of 32"),
        ({"image_format": "gif"}, "image_format is 'gif'; expected 'jpg' or 'png'"),
    ],
)
def test_options_out_of_range(tmp_path: Path, pairs: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_skydata(tmp_path / "set", [pairs], **{**SMALL, **options})
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("given", [[], "folder"])
def test_pairs_is_a_list_of_folders(tmp_path: Path, given: Any) -> None:
    with pytest.raises(InputError, match="expected a list of at least one folder of aligned pairs"):
        write_skydata(tmp_path, given)


def test_a_folder_without_pairs(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image pairs"):
        write_skydata(tmp_path / "set", [tmp_path / "empty"], **SMALL)
    assert not (tmp_path / "set").exists()


def test_pairs_of_unequal_size(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "pairs", 1)
    save(folder / "ir" / "00.png", scene(80, 80))
    with pytest.raises(DataError, match=r"00\.png is 80x80 px and .* is 128x96 px"):
        write_skydata(tmp_path / "set", [folder], **SMALL)


def test_an_image_that_cannot_be_opened(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "pairs", 1)
    (folder / "ir" / "00.png").unlink()
    (folder / "ir" / "00.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ImageReadError, match=r"cannot read '.*00\.png': No such file.*remove the pair"):
        write_skydata(tmp_path / "set", [folder], **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 7}, "holds a set made with seed = 0, not 7; continue it with the options in its manifest"),
        ({"train": 6}, "made with train = 5, not 6"),
        ({"image_format": "png"}, 'made with image_format = "jpg", not "png"'),
        ({"max_side": 100}, "made with max_side = 640, not 100"),
        ({"appearance": AppearanceConfig()}, "made with appearance = null, not {"),
    ],
)
def test_a_set_is_not_continued_with_other_options(
    tmp_path: Path, pairs: Path, options: dict[str, Any], message: str
) -> None:
    write_skydata(tmp_path, [pairs], **SMALL)
    before = everything_below(tmp_path)
    with pytest.raises(DataError, match=message):
        write_skydata(tmp_path, [pairs], **{**SMALL, **options})
    assert everything_below(tmp_path) == before


def test_a_set_is_not_continued_with_other_images(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "pairs", 2)
    write_skydata(tmp_path / "set", [folder], **SMALL)
    save(folder / "rgb" / "01.png", scene(96, 128, seed=9))
    with pytest.raises(DataError, match="holds a set made from other source images; continue it with"):
        write_skydata(tmp_path / "set", [folder], **SMALL)


@pytest.mark.parametrize(
    ("text", "message"), [("{", r"cannot read '.*manifest.json' \("), ("[]", "is not a manifest; choose")]
)
def test_a_broken_manifest(tmp_path: Path, pairs: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=message):
        write_skydata(tmp_path, [pairs], **SMALL)


def test_a_foreign_set_is_not_written_into(tmp_path: Path, pairs: Path) -> None:
    save(tmp_path / "val_input" / "a.png", scene(32, 32))
    with pytest.raises(DataError, match=r"val_input' holds files but .* has no manifest\.json"):
        write_skydata(tmp_path, [pairs], **SMALL)
    assert set(everything_below(tmp_path)) == {"val_input", "val_input/a.png"}


def test_a_file_in_the_way(tmp_path: Path, pairs: Path) -> None:
    (tmp_path / "set").write_text("x")
    with pytest.raises(OutputError, match="cannot create the folder"):
        write_skydata(tmp_path / "set", [pairs], **SMALL)
