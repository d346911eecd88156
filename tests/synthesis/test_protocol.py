from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from homoreg.errors import ConfigError
from homoreg.geometry import image_corners, is_plausible, pull, transform_points
from homoreg.synthesis.appearance import AppearanceConfig
from homoreg.synthesis.protocol import (
    GeometryConfig,
    SampleBatch,
    draw_geometry,
    draw_samples,
    enlarge,
)
from homoreg.synthesis.random import Draw
from homoreg.synthesis.sources import ImageBank, find_pairs
from homoreg.training.recipe import M_GEOMETRY
from tests.scenes import save, scene, write_pairs

N = 64
SIDE = 96


def ramps(folder: Path, axis: int) -> ImageBank:
    """One image, infrared and RGB alike, whose value at a pixel is its column (axis 0) or row (axis 1)."""
    position = np.arange(250, dtype=np.uint8)
    image = np.repeat((position[None] if axis == 0 else position[:, None])[..., None], 3, axis=2)
    image = np.ascontiguousarray(np.broadcast_to(image, (250, 250, 3)))
    save(folder / "rgb" / "a.png", image)
    save(folder / "ir" / "a.png", image)
    return ImageBank(find_pairs(folder))


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> ImageBank:
    return ImageBank(find_pairs(write_pairs(tmp_path_factory.mktemp("pairs"), 3, size=(120, 160))))


def corners_of(homography: Tensor, n: int = N) -> Tensor:
    """Displacements of the corners from the centred square, (B, 4, 2)."""
    square = image_corners(n, n)
    return transform_points(homography, square) - square - n / 4


def geometry(batch: int, config: GeometryConfig, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Frames of a batch in images of 200 x 100 px."""
    sizes = torch.tensor([200.0, 100.0]).expand(batch, 2)
    return draw_geometry(Draw(seed, batch), sizes, N, config)


def same(first: SampleBatch, second: SampleBatch) -> bool:
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# --- the template's place -----------------------------------------------------------------------------------


def test_corners_are_uniform_within_a_quarter_of_the_side() -> None:
    _, homography = geometry(2000, GeometryConfig())
    offsets = corners_of(homography)
    assert offsets.abs().max() <= N / 4 + 1e-3
    # Of 16,000 coordinates the extremes lie close to the ends; the deviation of U(-16, 16) is 9.24.
    assert offsets.min() < -0.99 * N / 4
    assert offsets.max() > 0.99 * N / 4
    assert offsets.std() == pytest.approx(9.24, abs=0.2)
    assert offsets.mean() == pytest.approx(0, abs=0.3)


def test_whole_pixel_corners() -> None:
    _, homography = geometry(500, GeometryConfig(integer=True))
    offsets = corners_of(homography)
    assert (offsets - offsets.round()).abs().max() < 1e-3
    assert offsets.min() == pytest.approx(-16, abs=1e-3)
    assert offsets.max() == pytest.approx(16, abs=1e-3)
    assert len(offsets.round().unique()) == 33


def test_shares_of_near_and_wide_samples() -> None:
    """Without other displacement the three kinds can be told apart."""
    config = GeometryConfig(perturbation=0.0, near=0.3, near_perturbation=0.06, wide=0.2)
    reach = corners_of(geometry(4000, config)[1]).abs().amax(dim=(1, 2))
    at_prior, near = reach < 1e-3, (reach >= 1e-3) & (reach <= 0.06 * N + 1e-3)
    assert at_prior.float().mean() == pytest.approx(0.5, abs=0.03)
    # A few of the wide ones happen to move little.
    assert near.float().mean() == pytest.approx(0.3, abs=0.03)
    assert reach.max() > 0.3 * N


def test_wide_samples_turn_and_scale() -> None:
    config = GeometryConfig(wide=1.0, wide_rotation=40.0, wide_scale=1.5)
    _, homography = geometry(2000, config)
    quad = transform_points(homography, image_corners(N, N))
    across = (quad[:, 1] + quad[:, 2] - quad[:, 0] - quad[:, 3]) / 2
    angle = torch.rad2deg(torch.atan2(across[:, 1], across[:, 0]))
    scale = across.norm(dim=1) / (N - 1)
    # The corners' own displacement of 0.05 n adds up to some 6 degrees and 10 %.
    assert 38 < angle.max() < 47
    assert -47 < angle.min() < -38
    assert 1.45 < scale.max() < 1.65
    assert 1 / 1.65 < scale.min() < 1 / 1.4
    assert (scale > 1).float().mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    "config", [M_GEOMETRY, GeometryConfig(perturbation=0.6), GeometryConfig(perturbation=0.6, integer=True)]
)
def test_every_label_is_a_sound_homography(config: GeometryConfig) -> None:
    _, homography = geometry(2000, config)
    assert is_plausible(homography, N).all()
    assert (homography[:, 2, 2] == 1).all()


def test_within_the_protocol_folds_are_rare() -> None:
    """What replaces a folded draw stays within a tenth of the side, so it can be counted from above."""
    offsets = corners_of(geometry(4000, GeometryConfig())[1])
    small = (offsets.abs().amax(dim=(1, 2)) <= 0.1 * N + 1e-3).float().mean()
    assert small < 0.01


# --- the search frame's place -------------------------------------------------------------------------------


def test_search_frames_lie_within_the_image() -> None:
    to_image, _ = geometry(2000, GeometryConfig(crop_min=0.42))
    edges = image_corners(SIDE + 1, SIDE + 1) - 0.5
    quad = transform_points(to_image, edges) + 0.5
    assert quad.min() >= -1e-3
    assert quad[..., 0].max() <= 200 + 1e-3
    assert quad[..., 1].max() <= 100 + 1e-3
    side = quad[:, 1, 0] - quad[:, 0, 0]
    assert side.min() == pytest.approx(42, abs=0.5)
    assert side.max() == pytest.approx(100, abs=0.5)
    # All of the longer side is used.
    assert quad[..., 0].max() > 198


def test_share_of_frames_that_hang_over() -> None:
    config = GeometryConfig(crop_min=0.8, overhang=0.4)
    quad = transform_points(geometry(4000, config)[0], image_corners(SIDE, SIDE))
    out = (quad < -0.6).any(-1).any(-1) | (quad > torch.tensor([199.6, 99.6])).any(-1).any(-1)
    # Those that hang over in name only, shifted back by chance, are a few per cent.
    assert 0.33 < out.float().mean() <= 0.42


def test_tilt() -> None:
    to_image, _ = geometry(2000, GeometryConfig(tilt=10.0))
    angle = torch.rad2deg(torch.atan2(to_image[:, 1, 0], to_image[:, 0, 0]))
    assert 9.9 < angle.max() <= 10 + 1e-3
    assert -10 - 1e-3 <= angle.min() < -9.9
    assert (torch.linalg.det(to_image) > 0).all()


def test_turns_and_mirrors() -> None:
    to_image, _ = geometry(2000, GeometryConfig(turn=True))
    mirrored = torch.linalg.det(to_image) < 0
    assert mirrored.float().mean() == pytest.approx(0.5, abs=0.04)
    # The second column is not mirrored, so it shows the turn.
    turn = torch.rad2deg(torch.atan2(-to_image[:, 0, 1], to_image[:, 1, 1])).round() % 360
    assert sorted(turn.unique().tolist()) == [0, 90, 180, 270]
    # A turn goes about the frame's own centre and takes it nowhere.
    quad = transform_points(to_image, image_corners(SIDE, SIDE))
    assert quad.min() >= -0.5
    assert (quad <= torch.tensor([199.5, 99.5])).all()


# --- samples ------------------------------------------------------------------------------------------------

LAYOUTS: dict[str, dict[str, Any]] = {
    "protocol": {},
    "whole pixels": {"integer": True},
    "near and wide": {"near": 0.4, "wide": 0.6},
    "turned": {"turn": True, "tilt": 10.0},
    "reduced": {"crop_min": 0.9},
}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_label_says_where_the_template_lies(tmp_path: Path, axis: int, layout: str) -> None:
    """On ramps of one grey value a pixel, sampling is exact: values are places in the source image."""
    config = GeometryConfig(**{"crop_min": 0.5, "crop_max": 0.95, **LAYOUTS[layout]})
    batch = draw_samples(ramps(tmp_path, axis), N, seed=3, batch=8, geometry=config)
    assert batch.template.shape == (8, 3, N, N)
    assert batch.search.shape == (8, 3, SIDE, SIDE)
    again, inside = pull(batch.search, batch.homography, (N, N))
    seen = inside.expand_as(again)
    # Half a grey value: what the reduced copies of the image round to.
    assert seen.float().mean() > 0.8
    assert ((again - batch.template) * 255)[seen].abs().max() < 0.6
    # And another homography would not do.
    shift = torch.tensor([[1.0, 0, 2], [0, 1, 2], [0, 0, 1]])
    moved, inside = pull(batch.search, shift @ batch.homography, (N, N))
    assert ((moved - batch.template) * 255)[inside.expand_as(moved)].abs().mean() > 1


def test_the_search_frame_is_cut_from_the_rgb_image(tmp_path: Path) -> None:
    image = scene(SIDE, SIDE)
    save(tmp_path / "rgb" / "a.png", image)
    save(tmp_path / "ir" / "a.png", 255 - image[..., :1].repeat(3, axis=2))
    config = GeometryConfig(perturbation=0.0, crop_min=1.0, crop_max=1.0)
    batch = draw_samples(ImageBank(find_pairs(tmp_path)), N, seed=0, batch=1, geometry=config)
    pixels = torch.from_numpy(image).permute(2, 0, 1) / 255
    assert (batch.search[0] - pixels).abs().max() < 1e-3
    middle = slice(N // 4, N // 4 + N)
    assert (batch.template[0] - (1 - pixels[:1, middle, middle])).abs().max() < 1e-3


def test_seeds(bank: ImageBank) -> None:
    options: dict[str, Any] = {"batch": 4, "geometry": M_GEOMETRY, "appearance": AppearanceConfig()}
    first = draw_samples(bank, N, seed=5, **options)
    torch.manual_seed(1234)
    assert same(first, draw_samples(bank, N, seed=5, **options))
    other = draw_samples(bank, N, seed=6, **options)
    assert not torch.equal(first.homography, other.homography)
    assert not torch.equal(first.template, other.template)
    assert not torch.equal(first.search, other.search)


def test_everything_lies_in_range(bank: ImageBank) -> None:
    changed = AppearanceConfig(**{field.name: 1.0 for field in dataclasses.fields(AppearanceConfig)})
    batch = draw_samples(bank, N, seed=0, batch=8, geometry=M_GEOMETRY, appearance=changed)
    for images in (batch.template, batch.search):
        assert images.dtype == torch.float32
        assert images.min() >= 0
        assert images.max() <= 1
        assert images.isfinite().all()


@pytest.mark.parametrize("easy", [0.0, 0.3, 1.0])
def test_share_of_easy_samples(bank: ImageBank, easy: float) -> None:
    options: dict[str, Any] = {"batch": 200, "geometry": GeometryConfig()}
    noisy = AppearanceConfig(infrared_noise=1.0, rgb_noise=1.0)
    batch = draw_samples(bank, 32, seed=2, appearance=noisy, easy=easy, **options)
    plain = draw_samples(bank, 32, seed=2, **options)
    spared = (batch.search == plain.search).flatten(1).all(1)
    assert spared.float().mean() == pytest.approx(easy, abs=0.1 if 0 < easy < 1 else 0)
    # Theirs is the grey of the same place of the RGB image, not the infrared image.
    again, _ = pull(batch.search.mean(1, keepdim=True), batch.homography, (32, 32))
    difference = (again - batch.template).abs().flatten(1).mean(1)
    if easy > 0:
        assert difference[spared].max() < 0.08
        assert torch.equal(batch.template[spared][:, 0], batch.template[spared][:, 2])


def test_the_index_says_which_images(tmp_path: Path) -> None:
    for value in (10, 90, 200):
        image = np.full((SIDE, SIDE, 3), value, np.uint8)
        save(tmp_path / "rgb" / f"{value}.png", image)
        save(tmp_path / "ir" / f"{value}.png", image)
    pairs = sorted(find_pairs(tmp_path), key=lambda pair: int(pair.rgb.stem))
    bank = ImageBank(pairs, weights=[1.0, 0.0, 3.0])
    options: dict[str, Any] = {"geometry": GeometryConfig()}
    chosen = draw_samples(bank, 32, seed=0, batch=3, index=torch.tensor([2, 1, 0]), **options)
    assert (chosen.search.mean((1, 2, 3)) * 255).round().tolist() == [200, 90, 10]
    drawn = (draw_samples(bank, 32, seed=0, batch=300, **options).search[:, 0, 0, 0] * 255).round()
    assert set(drawn.tolist()) == {10, 200}
    assert (drawn == 200).float().mean() == pytest.approx(0.75, abs=0.08)


def test_infrared_made_from_rgb(tmp_path: Path) -> None:
    """A black infrared image tells the samples with a synthetic one from the others."""
    save(tmp_path / "paired" / "rgb" / "a.png", scene(SIDE, SIDE))
    save(tmp_path / "paired" / "ir" / "a.png", np.zeros((SIDE, SIDE, 3), np.uint8))
    save(tmp_path / "alone" / "b.png", scene(SIDE, SIDE))
    real, alone = (ImageBank(find_pairs(tmp_path / name)) for name in ("paired", "alone"))

    def share(bank: ImageBank, pseudo: float) -> float:
        batch = draw_samples(bank, 32, seed=1, batch=200, geometry=GeometryConfig(pseudo=pseudo))
        return float((batch.template.flatten(1).std(1) > 0.01).float().mean())

    assert share(real, 0.0) == 0
    assert share(real, 0.4) == pytest.approx(0.4, abs=0.1)
    assert share(alone, 0.0) > 0.95


def test_beyond_the_image_lies_its_mean(tmp_path: Path) -> None:
    image = np.full((SIDE, SIDE, 3), 100, np.uint8)
    cv2.rectangle(image, (0, 0), (SIDE - 1, SIDE - 1), (255, 255, 255), 1)
    save(tmp_path / "rgb" / "a.png", image)
    save(tmp_path / "ir" / "a.png", image)
    bank = ImageBank(find_pairs(tmp_path))
    config = GeometryConfig(crop_min=1.0, overhang=1.0)
    index = torch.zeros(16, dtype=torch.long)
    batch = draw_samples(bank, N, seed=0, batch=16, geometry=config, index=index)
    to_image, homography = draw_geometry(Draw(0, 16), bank.sizes(index), N, config)
    assert torch.equal(homography, batch.homography)
    pulled, inside = bank.pull(index, to_image, (SIDE, SIDE))
    assert (~inside).float().mean() > 0.1
    for k in range(16):
        shown, lies_in = batch.search[k, 0], inside[k, 0]
        assert torch.equal(shown[lies_in], pulled[k, 0][lies_in])
        assert torch.allclose(shown[~lies_in], shown[lies_in].mean(), atol=1e-5)


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"near": -0.1}, "near is -0.1; expected a share between 0 and 1"),
        ({"wide": 1.1}, "wide is 1.1; expected a share"),
        ({"overhang": float("nan")}, "overhang is nan; expected a share"),
        ({"pseudo": 2}, "pseudo is 2; expected a share"),
        ({"crop_min": 0.0}, "crop_min is 0.0 and crop_max is 1.0; expected 0 < crop_min <= crop_max"),
        ({"crop_min": 0.9, "crop_max": 0.5}, "crop_min is 0.9 and crop_max is 0.5"),
    ],
)
def test_values_out_of_range(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GeometryConfig(**values)  # type: ignore[arg-type]


# --- larger frames ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1])
def test_an_enlarged_sample_keeps_its_label(tmp_path: Path, axis: int) -> None:
    """The template's value at a point is the search image's where the label maps it."""
    batch = draw_samples(ramps(tmp_path, axis), N, seed=1, batch=4, geometry=GeometryConfig())
    larger = enlarge(batch)
    assert larger.template.shape == (4, 3, 2 * N, 2 * N)
    assert larger.search.shape == (4, 3, 3 * N, 3 * N)
    pulled, inside = pull(larger.search, larger.homography, (2 * N, 2 * N))
    inner = inside.clone()
    inner[..., :4, :], inner[..., -4:, :], inner[..., :4], inner[..., -4:] = False, False, False, False
    difference = (pulled - larger.template).abs().mean(1, keepdim=True)[inner]
    assert len(difference) > 1000
    assert difference.mean() < 0.004  # one grey level
    square = image_corners(2 * N, 2 * N)
    there = transform_points(larger.homography, square)
    centre = transform_points(batch.homography, (square + 0.5) / 2 - 0.5)
    assert torch.allclose(there, (centre + 0.5) * 2 - 0.5, atol=1e-3)
