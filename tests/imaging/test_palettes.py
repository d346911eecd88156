from __future__ import annotations

import cv2
import numpy as np
import pytest

from homoreg.imaging.palettes import palette_colours, palette_intensity, palette_names, recognise_palette
from tests.imaging.pictures import Array
from tests.scenes import heat, scene

THERMAL = (
    "iron",
    "ironbow",
    "rainbow hc",
    "lava",
    "arctic",
    "glow",
    "medical",
    "fusion",
    "jet",
    "rainbow",
    "hot",
)


def jpeg(pixels: Array, quality: int) -> Array:
    """Through a JPEG with halved chroma."""
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling]
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), options)
    assert done
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.ascontiguousarray(decoded[..., ::-1])


def with_text(pixels: Array) -> Array:
    """A temperature and a scale burnt in, as cameras do."""
    marked = np.ascontiguousarray(pixels)
    cv2.putText(marked, "24.6 C", (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
    cv2.putText(marked, "FLIR", (150, 152), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 2)
    return marked


def looks_like(found: str, name: str, intensity: Array) -> bool:
    """Whether two palettes have the same colours in the range that a picture uses, in either direction."""
    used = palette_colours(name)[np.unique(intensity)].astype(int)
    near = np.abs(used[:, None] - palette_colours(found).astype(int)[None]).max(axis=2).min(axis=1)
    return bool(np.percentile(near, 90) < 24)


@pytest.mark.parametrize("name", palette_names())
def test_every_palette_is_recognised_and_undone(name: str) -> None:
    intensity = heat()
    coloured = palette_colours(name)[intensity]
    found = recognise_palette(coloured)
    assert found
    assert looks_like(found, name, intensity)
    undone = palette_intensity(coloured, name)
    # Some levels share a colour, and a cyclic palette ends where it began.
    far = abs(palette_colours(name)[undone].astype(int) - coloured).max(axis=2)
    assert far.max() == 0


@pytest.mark.parametrize("name", THERMAL)
@pytest.mark.parametrize("quality", [90, 70])
def test_compression_and_text_are_no_obstacle(name: str, quality: int) -> None:
    intensity = heat(seed=3)
    shown = jpeg(with_text(palette_colours(name)[intensity]), quality)
    found = recognise_palette(shown)
    assert looks_like(found, name, intensity)
    error = abs(palette_intensity(shown, name).astype(int) - intensity)[30:130]  # between the texts
    assert np.median(error) <= 5
    assert error.mean() < 12


@pytest.mark.parametrize("name", ["jet", "iron", "rainbow hc", "medical", "turbo", "inferno"])
def test_fine_texture_survives_coarse_chroma(name: str) -> None:
    y, x = np.mgrid[:160, :200]
    panels = 45 * ((x // 4 + y // 6) % 2)
    intensity = (0.6 * heat() + panels + 20).clip(0, 255).astype(np.uint8)
    shown = jpeg(palette_colours(name)[intensity], 75)
    assert recognise_palette(shown) == name
    error = palette_intensity(shown, name).astype(float) - intensity
    # With chroma in full, 7.8 (iron) to 10 (turbo).
    assert np.sqrt((error**2).mean()) < (6 if name in ("iron", "inferno") else 9)


def test_text_takes_the_value_of_what_is_around_it() -> None:
    intensity = np.full((80, 120), 100, np.uint8)
    intensity[:, 60:] = 150
    marked = with_text(palette_colours("jet")[intensity])
    undone = palette_intensity(marked, "jet")
    assert abs(undone[:, :50].astype(int) - 100).max() <= 25
    assert abs(undone[:, 110:].astype(int) - 150).max() <= 25


@pytest.mark.parametrize("seed", range(6))
def test_a_natural_picture_has_no_palette(seed: int) -> None:
    photo = scene(160, 200, seed)  # colours of every kind
    assert recognise_palette(photo) == ""
    rng = np.random.default_rng(seed)
    earthy = heat(seed)[..., None] * rng.uniform(0.5, 1.0, 3) + rng.normal(0, 12, (160, 200, 3))
    assert recognise_palette(np.asarray(earthy.clip(0, 255), np.uint8)) == "", "a tinted grey, with noise"


def test_grey_has_no_palette() -> None:
    grey = heat()
    assert recognise_palette(grey) == ""
    assert recognise_palette(np.repeat(grey[..., None], 3, axis=2)) == ""
    assert recognise_palette(jpeg(np.repeat(grey[..., None], 3, axis=2), 60)) == ""
    assert recognise_palette(palette_colours("iron")[grey].astype(np.uint16)) == ""


def test_one_colour_is_no_palette() -> None:
    assert recognise_palette(np.tile(palette_colours("jet")[130], (40, 40, 1))) == ""


def test_what_is_masked_does_not_count() -> None:
    coloured = palette_colours("iron")[heat()]
    coloured[:, :80] = (0, 255, 0)
    mask = np.ones(coloured.shape[:2], np.bool_)
    assert recognise_palette(coloured, mask) == ""
    mask[:, :80] = False
    assert recognise_palette(coloured, mask) == "iron"
    assert recognise_palette(coloured, np.zeros_like(mask)) == ""


def test_colours_cannot_be_changed_by_accident() -> None:
    with pytest.raises(ValueError, match="read-only"):
        palette_colours("iron")[0] = 1
    assert palette_colours("iron").shape == (256, 3)
