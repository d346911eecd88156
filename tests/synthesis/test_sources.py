from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from homoreg.errors import DataError, ImageReadError
from homoreg.geometry import crop_matrix, resize_matrix
from homoreg.synthesis.sources import ImageBank, SourcePair, find_pairs
from tests.scenes import infrared_of, save, scene, write_pairs

Pixels = NDArray[np.uint8]


def packed(pair: SourcePair) -> Pixels:
    """R, G, B, infrared, as the files hold them."""
    rgb = cv2.imread(str(pair.rgb), cv2.IMREAD_COLOR)
    infrared = cv2.imread(str(pair.infrared), cv2.IMREAD_GRAYSCALE)
    assert rgb is not None
    assert infrared is not None
    return np.asarray(np.dstack([rgb[..., ::-1], infrared]), np.uint8)


def pulled_by_opencv(image: Pixels, homography: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """(height, width, 4) in [0, 1]; edges continue outside."""
    height, width = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    points = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    u, v, w = homography.double().numpy() @ points
    maps = [(value / w).reshape(height, width).astype(np.float32) for value in (u, v)]
    warped = cv2.remap(
        image.astype(np.float32), maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped / 255, np.float32)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[SourcePair]:
    """Three pairs of unlike sizes, one of them odd."""
    folder = tmp_path_factory.mktemp("pairs") / "park"
    for index, size in enumerate([(96, 128), (75, 61), (64, 64)]):
        write_pairs(folder / f"{index}", 1, size=size, seed=index)
    return [find_pairs(folder / f"{index}")[0] for index in range(3)]


@pytest.fixture(scope="module")
def bank(pairs: list[SourcePair]) -> ImageBank:
    return ImageBank(pairs)


# --- finding ------------------------------------------------------------------------------------------------


def test_pairs_by_name_whatever_the_format(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        save(tmp_path / "park" / "rgb" / f"{name}.jpg", scene(16, 16))
        save(tmp_path / "park" / "ir" / f"{name}.png", scene(16, 16))
    (tmp_path / "park" / "ir" / "notes.txt").write_text("not an image")
    found = find_pairs(tmp_path / "park")
    assert [(p.source, p.rgb.name, p.infrared and p.infrared.name) for p in found] == [
        ("park", f"{name}.jpg", f"{name}.png") for name in "abc"
    ]


def test_a_folder_of_rgb_images_alone(tmp_path: Path) -> None:
    save(tmp_path / "b.png", scene(16, 16))
    save(tmp_path / "a.JPG", scene(16, 16))
    assert find_pairs(tmp_path) == [
        SourcePair(tmp_path.name, tmp_path / "a.JPG", None),
        SourcePair(tmp_path.name, tmp_path / "b.png", None),
    ]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is not a folder; expected one with ir/NAME\.\* beside rgb"):
        find_pairs(tmp_path / "nowhere")


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png is not a folder"):
        find_pairs(save(tmp_path / "a.png", scene(16, 16)))


@pytest.mark.parametrize("folders", [(), ("ir", "rgb")])
def test_no_pairs(tmp_path: Path, folders: tuple[str, ...]) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir()
    with pytest.raises(DataError, match=r"holds no image pairs; expected ir/NAME\.\*"):
        find_pairs(tmp_path)


@pytest.mark.parametrize(("present", "missing"), [("ir", "rgb"), ("rgb", "ir")])
def test_one_side_missing(tmp_path: Path, present: str, missing: str) -> None:
    save(tmp_path / present / "a.png", scene(16, 16))
    with pytest.raises(DataError, match=f"has no folder {missing}/; expected"):
        find_pairs(tmp_path)


@pytest.mark.parametrize("side", ["ir", "rgb"])
def test_images_without_a_partner(tmp_path: Path, side: str) -> None:
    write_pairs(tmp_path, 2, size=(16, 16))
    for name in ("y", "x"):
        save(tmp_path / side / f"{name}.png", scene(16, 16))
    with pytest.raises(
        DataError, match=r"2 images have no partner of the same name, first 'x'.*add the part"
    ):
        find_pairs(tmp_path)


# --- loading ------------------------------------------------------------------------------------------------


def test_pairs_of_unequal_size(tmp_path: Path) -> None:
    write_pairs(tmp_path, 1, size=(16, 24))
    save(tmp_path / "ir" / "00.png", scene(24, 16))
    message = r"00\.png is 16x24 px and .*00\.png is 24x16 px; aligned pairs must have one size: resample"
    with pytest.raises(DataError, match=message):
        ImageBank(find_pairs(tmp_path))


def test_no_pairs_to_load() -> None:
    with pytest.raises(DataError, match="no image pairs were given; expected at least one"):
        ImageBank([])


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    write_pairs(tmp_path, 1, size=(16, 16))
    (tmp_path / "rgb" / "00.png").write_bytes(b"not an image")
    with pytest.raises(ImageReadError, match="cannot read the RGB image"):
        ImageBank(find_pairs(tmp_path))


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [1.0, float("nan"), 1.0]])
def test_weights_that_do_not_fit(pairs: list[SourcePair], weights: list[float]) -> None:
    with pytest.raises(DataError, match=f"got {len(weights)} weights for 3 pairs; expected one for each"):
        ImageBank(pairs, weights=weights)


def test_weights_are_shares(pairs: list[SourcePair], bank: ImageBank) -> None:
    assert torch.allclose(bank.weights, torch.full((3,), 1 / 3))
    assert torch.allclose(ImageBank(pairs, weights=[1, 0, 3]).weights, torch.tensor([0.25, 0, 0.75]))


def test_sizes(bank: ImageBank) -> None:
    assert len(bank) == 3
    assert bank.sizes(torch.tensor([2, 0, 1])).tolist() == [[64, 64], [128, 96], [61, 75]]


def test_long_images_are_reduced(pairs: list[SourcePair]) -> None:
    bank = ImageBank(pairs, max_side=64)
    assert bank.sizes(torch.arange(3)).tolist() == [[64, 48], [52, 64], [64, 64]]
    whole, _ = bank.pull(torch.tensor([0]), torch.eye(3)[None], (48, 64))
    expected = cv2.resize(packed(pairs[0]), (64, 48), interpolation=cv2.INTER_AREA) / 255
    assert np.abs(whole[0].permute(1, 2, 0).numpy() - expected).max() < 1e-6


def test_sixteen_bit_infrared_is_stretched(tmp_path: Path) -> None:
    write_pairs(tmp_path, 1, size=(32, 32))
    counts = (29_000 + 1000 * np.linspace(0, 1, 1024)).reshape(32, 32).astype(np.uint16)
    assert cv2.imwrite(str(tmp_path / "ir" / "00.png"), counts)
    pulled, _ = ImageBank(find_pairs(tmp_path)).pull(torch.tensor([0]), torch.eye(3)[None], (32, 32))
    ramp = torch.linspace(0, 1, 1024).view(32, 32)
    assert (pulled[0, 3] - ramp).abs().max() < 0.02


def test_rgb_images_alone(tmp_path: Path, pairs: list[SourcePair]) -> None:
    rgb = scene(32, 40)
    save(tmp_path / "a.png", rgb)
    bank = ImageBank([*find_pairs(tmp_path), pairs[0]])
    assert bank.has_infrared.tolist() == [False, True]
    pulled, _ = bank.pull(torch.tensor([0]), torch.eye(3)[None], (32, 40))
    assert torch.equal(pulled[0, :3], torch.from_numpy(rgb).permute(2, 0, 1) / 255)
    assert not pulled[0, 3].any()


# --- pulling ------------------------------------------------------------------------------------------------


def test_the_identity_gives_the_pixels(pairs: list[SourcePair], bank: ImageBank) -> None:
    for index, (height, width) in enumerate([(96, 128), (75, 61), (64, 64)]):
        pulled, mask = bank.pull(torch.tensor([index]), torch.eye(3)[None], (height, width))
        assert pulled.shape == (1, 4, height, width)
        assert pulled.dtype == torch.float32
        assert torch.equal(pulled[0], torch.from_numpy(packed(pairs[index])).permute(2, 0, 1) / 255)
        assert mask.shape == (1, 1, height, width)
        assert mask.all()


MAPS = {
    "shift": [[1, 0, 10.25], [0, 1, -7.5], [0, 0, 1]],
    "turn": [[0.7, -0.6, 30], [0.6, 0.7, 5], [0, 0, 1]],
    "enlarge": [[0.2, 0.01, 20], [0, 0.25, 20], [0, 0, 1]],
    "perspective": [[1.1, 0.1, -4], [-0.1, 0.9, 6], [1e-3, -8e-4, 1]],
}


@pytest.mark.parametrize("name", MAPS)
def test_other_maps_as_opencv_samples_them(pairs: list[SourcePair], bank: ImageBank, name: str) -> None:
    homography = torch.tensor(MAPS[name])
    pulled, _ = bank.pull(torch.tensor([0]), homography[None], (48, 56))
    expected = pulled_by_opencv(packed(pairs[0]), homography, (48, 56))
    # OpenCV places its samples on a grid of 1/32 px, so differences grow with the gradient.
    difference = np.abs(pulled[0].permute(1, 2, 0).numpy() - expected)
    assert difference.max() < 0.05
    assert difference.mean() < 2e-3


def test_a_batch_of_unlike_sizes(bank: ImageBank) -> None:
    index = torch.tensor([2, 0, 1, 0])
    homography = torch.stack([torch.tensor(m) for m in MAPS.values()])
    together, masks = bank.pull(index, homography, (40, 40))
    for k in range(4):
        alone, mask = bank.pull(index[k : k + 1], homography[k : k + 1], (40, 40))
        assert torch.allclose(together[k], alone[0], atol=1e-6)
        assert torch.equal(masks[k], mask[0])


@pytest.mark.parametrize(("factor", "level"), [(1.0, 0), (1.5, 0), (2.0, 1), (3.0, 1), (4.0, 2), (6.0, 2)])
def test_the_resolution_follows_the_reduction(
    pairs: list[SourcePair], bank: ImageBank, factor: float, level: int
) -> None:
    """A sample comes from the copy reduced by 2**level, at the place that this copy gives the same point."""
    size = (12, 16)
    homography = resize_matrix(factor, factor, dtype=torch.float32) @ crop_matrix(-1, -1, dtype=torch.float32)
    pulled, _ = bank.pull(torch.tensor([0]), homography[None], size)
    reduced = packed(pairs[0])
    for _ in range(level):
        half = (reduced.shape[1] // 2, reduced.shape[0] // 2)
        reduced = np.asarray(cv2.resize(reduced, half, interpolation=cv2.INTER_AREA), np.uint8)
    to_level = resize_matrix(2.0**-level, 2.0**-level, dtype=torch.float32)
    expected = pulled_by_opencv(reduced, to_level @ homography, size)
    difference = np.abs(pulled[0].permute(1, 2, 0).numpy() - expected)
    assert difference.max() < 0.05
    assert difference.mean() < 2e-3


def test_fine_stripes_do_not_alias(tmp_path: Path) -> None:
    """Stripes of one pixel, reduced threefold, are grey; sampled from the full resolution they beat."""
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::2] = 255
    save(tmp_path / "a.png", stripes)
    bank = ImageBank(find_pairs(tmp_path))
    homography = resize_matrix(3.1, 3.1, dtype=torch.float32)
    pulled, mask = bank.pull(torch.tensor([0]), homography[None], (30, 30))
    assert mask.all()
    assert (pulled[0, :3] - 0.5).abs().max() < 0.02


def test_the_levels_of_an_odd_image_share_one_frame(tmp_path: Path) -> None:
    """61 px halve to 30: were that ignored, the far edge of the quarter resolution would be a pixel off."""
    ramp = np.linspace(0, 240, 61).astype(np.uint8)
    image = np.repeat(np.repeat(ramp[None, :, None], 75, 0), 3, 2)
    save(tmp_path / "a.png", image)
    bank = ImageBank(find_pairs(tmp_path))
    homography = resize_matrix(4.0, 4.0, dtype=torch.float32)
    pulled, _ = bank.pull(torch.tensor([0]), homography[None], (18, 15))
    position = 4 * (torch.arange(15) + 0.5) - 0.5
    assert (pulled[0, 0, 9, 1:-1] * 255 - 4 * position[1:-1]).abs().max() < 1.5


def test_the_mask_is_the_image_and_its_edges_continue(pairs: list[SourcePair], bank: ImageBank) -> None:
    homography = torch.tensor([[[1, 0, -10.0], [0, 1, -20.0], [0, 0, 1]]])
    pulled, mask = bank.pull(torch.tensor([2]), homography, (100, 100))
    expected = torch.zeros(100, 100, dtype=torch.bool)
    expected[20:84, 10:74] = True
    assert torch.equal(mask[0, 0], expected)
    image = torch.from_numpy(packed(pairs[2])).permute(2, 0, 1) / 255
    assert torch.equal(pulled[0, :, :20, 10:74], image[:, :1].expand(-1, 20, -1))
    assert torch.equal(pulled[0, :, 20:84, 74:], image[:, :, -1:].expand(-1, -1, 26))


def test_points_at_infinity_are_outside(bank: ImageBank) -> None:
    homography = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [-0.125, 0, 1]]])
    pulled, mask = bank.pull(torch.tensor([0]), homography, (16, 16))
    assert pulled.isfinite().all()
    assert not mask[0, 0, :, 8].any()


def test_the_infrared_is_the_fourth_channel(tmp_path: Path) -> None:
    rgb = scene(32, 32)
    save(tmp_path / "rgb" / "a.png", rgb)
    save(tmp_path / "ir" / "a.png", infrared_of(rgb))
    pulled, _ = ImageBank(find_pairs(tmp_path)).pull(torch.tensor([0]), torch.eye(3)[None], (32, 32))
    assert torch.equal(pulled[0, 3], torch.from_numpy(infrared_of(rgb)[..., 0]) / 255)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    for suffix in ("png", "jpg"):
        cv2.imwrite(str(tmp_path / f"a.{suffix}"), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(DataError, match=r"holds a\.jpg and a\.png; expected one image a name"):
        find_pairs(tmp_path)
