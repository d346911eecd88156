from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from homoreg.geometry import compose, fill_outside, pixel_grid, pull, square_prior, transform_points
from homoreg.imaging.palettes import palette_colours
from homoreg.imaging.reading import read_image
from homoreg.imaging.tone import Tone
from homoreg.views import PairViews
from tests.scenes import heat, infrared_of, scene

PROTOCOL = torch.tensor([[1, 0, 32], [0, 1, 32], [0, 0, 1]], dtype=torch.float64)


def views(ir: Any, rgb: Any) -> PairViews:
    return PairViews(read_image(ir, role="ir"), read_image(rgb, role="rgb"))


def channels_first(image: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def placement(scale: float, x: float, y: float, turn: float = 0.0) -> Tensor:
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    return torch.tensor([[c, -s, x], [s, c, y], [0, 0, 1]], dtype=torch.float64)


def ramp(width: int, height: int) -> NDArray[np.float32]:
    """RGB image whose red is the column and whose green is the row, over the sizes."""
    x, y = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    return np.stack([x, y, 0.5 + 0 * x], axis=-1).astype(np.float32)


def stripes(width: int, height: int) -> NDArray[np.uint8]:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, ::2] = 255
    return image


# --- the seed protocol --------------------------------------------------------------------------------------


def test_the_protocols_frames_are_the_images_exactly() -> None:
    rng = np.random.default_rng(0)
    ir = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    rgb = rng.integers(0, 256, (192, 192, 3), dtype=np.uint8)
    view = views(ir, rgb)
    template, search = view.template(128), view.search(PROTOCOL, 128)
    assert template.dtype == search.dtype == torch.float32
    assert torch.equal(template, channels_first(ir) / 255)
    assert torch.equal(search, channels_first(rgb) / 255)
    assert torch.equal(view.to_rgb(PROTOCOL, 128), torch.eye(3, dtype=torch.float64))


def test_a_grey_image_is_repeated() -> None:
    ir = np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8)
    template = views(ir, scene(192, 192)).template(128)
    assert torch.equal(template, (torch.from_numpy(ir) / 255).expand(1, 3, 128, 128))


def test_whole_pixels_are_cut_out_as_they_are() -> None:
    rgb = scene(300, 400)
    view = views(scene(128, 128), rgb)
    seen = view.search(placement(1, 132, 52), 128)
    assert torch.equal(seen, channels_first(rgb[20:212, 100:292]) / 255)


@pytest.mark.parametrize("shift", [(132.25, 52), (132, 52.5), (20, 52), (132, 251)])
def test_other_windows_are_interpolated_alike(shift: tuple[float, float]) -> None:
    """Fractions of a pixel, and frames that reach beyond the image."""
    rgb = scene(300, 400)
    seen = views(scene(128, 128), rgb).search(placement(1, *shift), 128)
    matrix = np.array([[1, 0, shift[0] - 32], [0, 1, shift[1] - 32]], np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpAffine(rgb.astype(np.float32), matrix, (192, 192), flags=flags, borderValue=(-1,) * 3)
    difference = (seen - channels_first(expected) / 255).abs()[channels_first(expected) >= 0]
    assert difference.max() < 0.01


# --- composition --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [64, 128])
@pytest.mark.parametrize("size", [(128, 128), (640, 512), (81, 203)])
def test_frames_by_their_edges(n: int, size: tuple[int, int]) -> None:
    """The picture's outer edges, half a pixel beyond the centres, are the frame's."""
    view = views(np.zeros(size[::-1], np.uint8), scene(100, 100))
    edges = torch.tensor([[-0.5, -0.5], [size[0] - 0.5, size[1] - 0.5]], dtype=torch.float64)
    expected = torch.tensor([[-0.5, -0.5], [n - 0.5, n - 0.5]], dtype=torch.float64)
    assert torch.allclose(transform_points(view.to_template(n), edges), expected, atol=1e-9)


@pytest.mark.parametrize("n", [64, 128])
def test_an_estimate_is_followed_point_by_point(n: int) -> None:
    view = views(scene(120, 160), scene(300, 400))
    start = torch.tensor([[2.0, 0.1, 30], [-0.2, 1.9, 20], [1e-4, -2e-4, 1]], dtype=torch.float64)
    estimate = torch.tensor([[1.1, 0.05, n / 4], [-0.1, 0.9, n / 3], [5e-4, 1e-4, 1]])
    found = view.compose(start, estimate, n)
    assert found.dtype == torch.float64
    assert found[2, 2] == 1
    points = torch.tensor([[0, 0], [159, 0], [31.5, 77.25]], dtype=torch.float64)
    in_template = (points + 0.5) * torch.tensor([n / 160, n / 120]) - 0.5
    in_search = transform_points(estimate.double(), in_template)
    # The search frame shows the picture through the placement: its middle square is the template's frame.
    in_ir = (in_search - n / 4 + 0.5) * torch.tensor([160 / n, 120 / n]) - 0.5
    assert torch.allclose(transform_points(found, points), transform_points(start, in_ir), atol=1e-9)
    assert torch.allclose(
        transform_points(view.to_rgb(start, n), in_search), transform_points(start, in_ir), atol=1e-9
    )


def test_the_centred_square_leaves_the_placement() -> None:
    view = views(scene(120, 160), scene(300, 400))
    start = placement(1.7, 30, 20, turn=0.2)
    assert torch.allclose(view.compose(start, square_prior(128), 128), start, atol=1e-9)


# --- what the search frame shows ----------------------------------------------------------------------------

PLACEMENTS = {
    "enlarged": ((90, 70), (200, 150), placement(0.6, 70.2, 50.6)),
    "as it is": ((128, 128), (300, 250), placement(1.0, 90.5, 66.25)),
    "turned": ((128, 128), (300, 250), placement(1.0, 120.5, 46.25, turn=0.3)),
    "halved": ((128, 128), (701, 505), placement(2.1, 200, 120)),
    "far reduced": ((640, 512), (1501, 1201), placement(1.2, 380.4, 300)),
    "perspective": (
        (128, 128),
        (300, 250),
        compose(placement(1.0, 90, 66), torch.tensor([[1, 0, 0], [0, 1, 0], [5e-4, 3e-4, 1]]).double()),
    ),
}


@pytest.mark.parametrize("n", [64, 128])
@pytest.mark.parametrize("name", PLACEMENTS)
def test_every_pixel_shows_the_place_it_says(name: str, n: int) -> None:
    """On ramps, at every reduction, an offset between the copies of the picture would show."""
    ir_size, rgb_size, start = PLACEMENTS[name]
    view = views(np.zeros(ir_size[::-1], np.uint8), ramp(*rgb_size))
    seen = view.search(start, n)
    side = 3 * n // 2
    assert seen.shape == (1, 3, side, side)
    places = transform_points(view.to_rgb(start, n), pixel_grid(side, side, torch.zeros(1).double()))
    scale = torch.tensor(rgb_size)
    found = seen[0, :2].flatten(1).T * scale
    # The reduced copies have no pixel centres on the outermost pixels.
    within = ((places > 8) & (places < scale - 9)).all(1)
    assert within.float().mean() > 0.5
    assert (found - places)[within].abs().max() < 0.02


def test_what_shrinks_does_not_alias() -> None:
    view = views(stripes(768, 768), stripes(1024, 1024))
    assert (view.template(128) - 0.5).abs().max() < 0.03
    assert (view.search(placement(0.9, 150.3, 150.3), 128) - 0.5).abs().max() < 0.1


@pytest.mark.parametrize("height", [64, 128])
def test_a_picture_that_shrinks_in_one_direction_only_does_not_alias(height: int) -> None:
    assert (views(stripes(768, height), scene(100, 100)).template(128) - 0.5).abs().max() < 0.03


def test_small_pictures_are_enlarged_edge_to_edge() -> None:
    """Each pixel becomes a square of eight, about the middle of which lies its value."""
    ir = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    template = views(ir, scene(100, 100)).template(128)[0, 0]
    middles = template.view(16, 8, 16, 8)[:, 3:5, :, 3:5].mean((1, 3))
    assert (middles * 255 - torch.from_numpy(ir)).abs().mean() < 12
    assert (template[:4, :4] * 255).round().unique().tolist() == [ir[0, 0]]
    assert (template[-4:, -4:] * 255).round().unique().tolist() == [ir[-1, -1]]


# --- beyond the picture, and masks --------------------------------------------------------------------------


def test_beyond_the_picture_lies_its_mean() -> None:
    seen = views(scene(128, 128), scene(192, 192)).search(placement(1, -68, 32), 128)[0]
    inside = seen[:, :, 100:]
    assert torch.allclose(inside, channels_first(scene(192, 192))[0, :, :, :92] / 255, atol=1e-4)
    for channel in range(3):
        assert torch.allclose(seen[channel, :, :100], inside[channel].mean(), atol=1e-4)


@pytest.mark.parametrize("start", [PROTOCOL, placement(0.8, 40.3, 45.6)], ids=["whole pixels", "resampled"])
def test_what_the_picture_shows_whole_needs_no_mask(start: Tensor) -> None:
    seen, valid = views(scene(128, 128), scene(192, 192)).search_and_valid(start, 128)
    assert valid is None
    assert seen.shape == (1, 3, 192, 192)


def test_the_mask_is_what_lies_in_the_picture() -> None:
    view = views(scene(128, 128), scene(192, 192))
    seen, valid = view.search_and_valid(placement(1, -68, 52.5), 128)
    assert valid is not None
    assert (valid.shape, valid.dtype) == ((1, 1, 192, 192), torch.bool)
    expected = torch.zeros(192, 192, dtype=torch.bool)
    expected[:171, 100:] = True
    assert torch.equal(valid[0, 0], expected)
    assert torch.equal(seen, view.search(placement(1, -68, 52.5), 128))


@pytest.mark.parametrize("start", [PROTOCOL, placement(1, 32.25, 32.25)], ids=["whole pixels", "resampled"])
def test_the_mask_leaves_out_what_is_transparent(start: Tensor) -> None:
    rgba = np.dstack([scene(192, 192), np.full((192, 192), 255, np.uint8)])
    rgba[:, :96, 3] = 0
    _, valid = views(scene(128, 128), rgba).search_and_valid(start, 128)
    assert valid is not None
    assert not valid[..., :94].any()
    assert valid[..., :-2, 97:-2].all()
    opaque = np.dstack([scene(192, 192), np.full((192, 192), 255, np.uint8)])
    assert views(scene(128, 128), opaque).search_and_valid(PROTOCOL, 128)[1] is None


@pytest.mark.parametrize(
    "start",
    [
        placement(1, 5000, 5000),
        torch.tensor([[1, 0, 32], [0, 1, 32], [-1 / 64, 0, 1]]).double(),
        placement(1e6, 0, 0),
    ],
    ids=["far outside", "horizon in the frame", "vast"],
)
def test_any_placement_gives_a_finite_frame(start: Tensor) -> None:
    seen = views(scene(128, 128), scene(192, 192)).search(start, 128)
    assert seen.shape == (1, 3, 192, 192)
    assert seen.isfinite().all()
    assert seen.min() >= 0
    assert seen.max() <= 1


def test_transparent_infrared_takes_the_mean_of_the_opaque() -> None:
    rgba = np.dstack([infrared_of(scene(256, 256)), np.full((256, 256), 255, np.uint8)])
    rgba[:, 128:, 3] = 0
    rgba[:, 128:, :3] = 255
    template = views(rgba, scene(192, 192)).template(128)[0]
    opaque = template[:, :, :62]
    whole = views(rgba[..., :3].copy(), scene(192, 192)).template(128)[0]
    assert torch.equal(opaque, whole[:, :, :62])
    assert (template[:, :, 66:] - whole[:, :, :64].mean((1, 2))[:, None, None]).abs().max() < 0.01


@pytest.mark.parametrize("start", [PROTOCOL, placement(1, 32.25, 32.25)], ids=["whole pixels", "resampled"])
def test_transparent_rgb_takes_the_mean_of_the_opaque(start: Tensor) -> None:
    rgba = np.dstack([scene(192, 192), np.full((192, 192), 255, np.uint8)])
    rgba[:, :96, 3] = 0
    rgba[:, :96, :3] = 255
    seen = views(scene(128, 128), rgba).search(start, 128)[0]
    means = seen[:, 2:-2, 97:-2].mean((1, 2))
    assert (seen[:, 2:-2, :94] - means[:, None, None]).abs().max() < 0.01
    assert means.max() < 0.9


# --- tone and content ---------------------------------------------------------------------------------------


def test_counts_are_stretched_and_colours_are_not() -> None:
    counts = 30_000 + 4 * infrared_of(scene(128, 128))[..., 0].astype(np.uint16)
    rgb = scene(192, 192).astype(np.uint16) * 257
    view = views(counts, rgb)
    assert view.template(128).min() == 0
    assert view.template(128).max() == 1
    assert torch.allclose(view.search(PROTOCOL, 128), channels_first(scene(192, 192)) / 255, atol=1e-6)


FLAT = np.full((200, 300, 3), 90, np.uint8)


@pytest.mark.parametrize(
    ("ir", "rgb", "expected"),
    [
        (scene(200, 300), scene(200, 300), False),
        (FLAT, scene(200, 300), True),
        (scene(200, 300), FLAT, True),
        (np.full((64, 64), 30_000, np.uint16), scene(200, 300), True),
        (np.full((64, 64), 290.0, np.float32), scene(200, 300), True),
        (scene(200, 300), scene(2000, 3000), False),
        (scene(200, 300), np.tile(FLAT, (10, 10, 1)), True),
    ],
)
def test_featureless(ir: NDArray[Any], rgb: NDArray[Any], expected: bool) -> None:
    assert views(ir, rgb).is_featureless is expected


def test_frames_are_made_once() -> None:
    view = views(scene(200, 300), scene(200, 300))
    assert view.template(64) is view.template(64)
    assert view.template(64) is not view.template(128)


# --- large pictures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start",
    [
        placement(1.3, 40.5, 20.25, turn=0.3),
        placement(0.83, -60.37, 150.23),
        torch.tensor([[1.1, 0.1, 30], [-0.2, 1.2, 60], [4e-4, -3e-4, 1]]).double(),
        torch.tensor([[1, 0, 32], [0, 1, 32], [-1 / 64, 0, 1]]).double(),
        placement(1, 5000, 5000),
    ],
    ids=["turned", "over the edge", "perspective", "horizon", "far outside"],
)
def test_the_part_that_is_seen_gives_the_frame_of_the_whole_picture(start: Tensor) -> None:
    rgb = scene(260, 340)
    view = views(scene(128, 128), rgb)
    whole, inside = pull(channels_first(rgb) / 255, view.to_rgb(start, 128)[None].float(), (192, 192))
    expected = fill_outside(whole, inside)
    # The horizon is seen in a reduced copy in pictures larger than this one.
    assert (view.search(start, 128) - expected).abs().max() < 2e-3


def test_a_large_picture_is_never_converted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[int] = []
    apply = Tone.apply

    def counting(self: Tone, pixels: NDArray[Any]) -> NDArray[np.float32]:
        converted.append(pixels.shape[0] * pixels.shape[1])
        return apply(self, pixels)

    monkeypatch.setattr(Tone, "apply", counting)
    rgb = np.tile(scene(256, 256), (12, 12, 1))
    rgba = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    rgba[:500, :, 3] = 0
    horizon = torch.tensor([[1, 0, 32], [0, 1, 32], [-1 / 64, 0, 1]]).double()
    for picture in (rgb, rgba):
        view = views(scene(128, 128), picture)
        for start in (
            placement(1, 900, 900),
            placement(1, 900.5, 900),
            placement(12, 300, 300, 0.4),
            horizon,
        ):
            assert view.search(start, 128).isfinite().all()
        assert view.is_featureless is False
    # At most 1.84 px a frame px, twice the area where the frame lies askew; 1024 px a side at the horizon.
    assert max(converted) <= 1024**2
    assert sorted(converted)[len(converted) // 2] < 400**2


def test_every_level_shows_the_same_place() -> None:
    rgb = cv2.resize(scene(200, 300), (2400, 1600), interpolation=cv2.INTER_CUBIC)
    whole, small = views(scene(128, 128), rgb), views(scene(128, 128), scene(200, 300))
    start = placement(1.2, 30, 20)
    enlarged = torch.tensor([[8, 0, 3.5], [0, 8, 3.5], [0, 0, 1]]).double() @ start
    difference = (whole.search(enlarged, 128) - small.search(start, 128)).abs()
    assert difference.mean() < 0.01


# --- transparency ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [PROTOCOL, placement(1, 32.25, 32.25), placement(3.3, 10, 10)])
def test_the_colour_of_what_is_transparent_does_not_matter(start: Tensor) -> None:
    rgba = np.dstack([scene(480, 500), np.full((480, 500), 255, np.uint8)])
    rgba[100:170, 90:140, 3] = 0
    frames = []
    for colour in ((0, 0, 0), (255, 0, 255)):
        rgba[100:170, 90:140, :3] = colour
        view = views(rgba[:256, :250].copy(), rgba)
        frames.append((view.template(128), view.search(start, 128)))
    for one, other in zip(*frames, strict=True):
        assert torch.equal(one, other)


# --- equivariance ------------------------------------------------------------------------------------------

SHIFTED = placement(1.1, 70.4, 45.3, turn=0.1)


def crop(pixels: NDArray[Any], left: int, top: int) -> NDArray[Any]:
    return np.ascontiguousarray(pixels[top:, left:])


def moved(x: float, y: float) -> Tensor:
    return torch.tensor([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=torch.float64)


def test_padding_and_cropping_the_rgb_picture_with_the_placement() -> None:
    rgb = scene(280, 320)
    expected = views(scene(128, 128), rgb).search(SHIFTED, 128)
    padded = np.pad(rgb, ((30, 17), (25, 11), (0, 0)))
    assert (views(scene(128, 128), padded).search(moved(25, 30) @ SHIFTED, 128) - expected).abs().max() < 1e-4
    # What the frame sees begins at (38, 26).
    away = moved(20, 20) @ SHIFTED
    expected = views(scene(128, 128), rgb).search(away, 128)
    cropped = views(scene(128, 128), crop(rgb, 17, 23)).search(moved(-17, -23) @ away, 128)
    assert (cropped - expected).abs().max() < 1e-4


def test_padding_with_transparent_pixels_changes_nothing() -> None:
    rgb = scene(200, 200)
    start = placement(1.05, 10.3, 12.7)
    rgba = np.dstack([rgb, np.full((200, 200), 255, np.uint8)])
    padded = np.pad(rgba, ((40, 0), (40, 40), (0, 0)))
    one = views(scene(128, 128), rgb).search(start, 128)
    other = views(scene(128, 128), padded).search(moved(40, 40) @ start, 128)
    # The outermost half pixel: it fades into nothing there, and into what is transparent here.
    assert ((one - other).abs() > 0.01).float().mean() < 0.01


def test_flipping_the_rgb_picture_with_the_placement() -> None:
    rgb = scene(280, 320)
    mirror = torch.tensor([[-1, 0, 319], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    expected = views(scene(128, 128), rgb).search(SHIFTED, 128)
    flipped = views(scene(128, 128), np.ascontiguousarray(rgb[:, ::-1])).search(mirror @ SHIFTED, 128)
    assert (flipped - expected).abs().max() < 1e-4


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_resizing_either_picture_with_the_placement(factor: int) -> None:
    ir, rgb = scene(150, 200, 1), scene(280, 320)
    expected = views(ir, rgb)
    larger = views(
        np.kron(ir, np.ones((factor, factor, 1), np.uint8)),
        np.kron(rgb, np.ones((factor, factor, 1), np.uint8)),
    )
    half = (factor - 1) / 2
    grow = torch.tensor([[factor, 0, half], [0, factor, half], [0, 0, 1]], dtype=torch.float64)
    start = placement(0.7, 30.4, 22.3)
    assert (larger.template(96) - expected.template(96)).abs().max() < 1.5 / 255
    placed = grow @ start @ torch.linalg.inv(grow)
    # Blocks are averaged to copies of another size than the picture's, so the two are not sampled alike.
    assert (larger.search(placed, 128) - expected.search(start, 128)).abs().mean() < 0.03


def test_polarity_turns_the_frame_over() -> None:
    ir = infrared_of(scene(200, 300))
    counts = 7300 + 2 * ir[..., 0].astype(np.uint16)
    for one, other in ((ir, 255 - ir), (counts, 20_000 - counts)):
        white = views(one, scene(192, 192)).template(128)
        black = views(other, scene(192, 192)).template(128)
        # The percentiles that bound counts are counts themselves: one of 500 either way.
        assert (white + black - 1).abs().max() < 1.5 / 255


def test_bit_depth_changes_nothing() -> None:
    ir, rgb = infrared_of(scene(200, 300))[..., 0], scene(280, 320)
    shown = views(ir, rgb).search(SHIFTED, 128)
    for other in (rgb.astype(np.uint16) * 257, (rgb / 255).astype(np.float32)):
        assert (views(ir, other).search(SHIFTED, 128) - shown).abs().max() < 1.5 / 255
    stretched = views(7000 + ir.astype(np.uint16), rgb).template(128)
    for other in (29_000 + 4 * ir.astype(np.uint16), (280 + ir / 25).astype(np.float32)):
        assert (views(other, rgb).template(128) - stretched).abs().max() < 3 / 255


@pytest.mark.parametrize("name", ["iron", "lava", "arctic", "jet", "rainbow hc", "medical"])
def test_a_palette_changes_the_infrared_frame_by_little(name: str) -> None:
    ir = heat(height=256, width=320)
    grey = views(ir, scene(192, 192)).template(128)
    view = views(palette_colours(name)[ir], scene(192, 192))
    assert view.ir_tone.palette
    assert (view.template(128) - grey).abs().mean() < 2 / 255
    if view.ir_tone.palette == name:
        assert (view.template(128) - grey).abs().max() < 6 / 255
