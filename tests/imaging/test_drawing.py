from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from homoreg.errors import InputError
from homoreg.imaging import drawing
from homoreg.imaging.reading import Picture
from homoreg.imaging.tone import fit_tone
from homoreg.registration import Registration

CYAN, RED = (0, 255, 255), (230, 20, 20)


def registration(
    ir: npt.NDArray[Any],
    rgb: npt.NDArray[Any],
    homography: npt.ArrayLike,
    *,
    reliable: bool = True,
    mask: npt.NDArray[np.bool_] | None = None,
) -> Registration:
    infrared, colour = Picture(ir, mask, "ir.png"), Picture(rgb, None, "rgb.png")
    return Registration.build(
        homography,
        ir=infrared,
        rgb=colour,
        ir_tone=fit_tone(infrared, "ir"),
        rgb_tone=fit_tone(colour, "rgb"),
        expected_error=1.0,
        confidence=0.9 if reliable else 0.12,
        reliable=reliable,
        model="m120",
    )


def inside(**options: Any) -> Registration:
    """Infrared 60 x 40, uniformly bright, at (50, 30) of a dark green RGB image of 200 x 120."""
    rgb = np.zeros((120, 200, 3), np.uint8)
    rgb[..., 1] = 60
    ir = np.full((40, 60), 255, np.uint8)
    return registration(ir, rgb, [[1, 0, 50], [0, 1, 30], [0, 0, 1]], **options)


def is_colour(canvas: npt.NDArray[Any], colour: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    return np.asarray((np.abs(canvas.astype(int) - colour) <= 3).all(axis=-1))


def test_the_scene_holds_both_images_on_one_grid() -> None:
    scene = drawing.Scene.of(inside(), None)
    assert scene.rgb.shape == scene.warped.shape == scene.stretched.shape == (120, 200, 3)
    assert scene.rgb.dtype == scene.warped.dtype == np.uint8
    np.testing.assert_array_equal(np.argwhere(scene.valid)[[0, -1]], [[30, 50], [69, 109]])
    assert scene.warning == ""


def test_the_scene_shrinks_and_the_geometry_with_it() -> None:
    scene = drawing.Scene.of(inside(), 100)
    assert scene.rgb.shape == (60, 100, 3)
    rows, columns = np.nonzero(scene.valid)
    assert (columns.mean(), rows.mean()) == pytest.approx((79.5 / 2 - 0.25, 49.5 / 2 - 0.25), abs=0.3)
    assert scene.valid.sum() == pytest.approx(60 * 40 / 4, rel=0.05)


def test_a_small_image_is_not_enlarged() -> None:
    assert drawing.Scene.of(inside(), 1600).rgb.shape == (120, 200, 3)


def test_an_infrared_image_larger_than_the_picture_is_shrunk_first() -> None:
    fine = np.zeros((1200, 1200), np.uint8)
    fine[:, ::2] = 255  # columns that would alias into stripes or vanish
    rgb = np.zeros((1200, 1200, 3), np.uint8)
    scene = drawing.Scene.of(registration(np.dstack([fine] * 3), rgb, np.eye(3)), 200)
    assert np.abs(scene.warped[5:-5, 5:-5].astype(int) - 128).max() <= 3


def test_a_grey_infrared_image_is_coloured_and_a_coloured_one_is_not() -> None:
    ramp = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))
    rgb = np.zeros((40, 60, 3), np.uint8)
    warped = drawing.Scene.of(registration(ramp, rgb, np.eye(3)), None).warped.astype(int)
    luma = warped @ [0.299, 0.587, 0.114]
    assert (np.diff(luma[20]) > -1).all()  # a perceptual palette keeps the order of brightness
    assert np.ptp(warped, axis=-1).max() > 100
    assert warped[20, 40, 0] > warped[20, 40, 2]  # RGB order: inferno's warm end is red, not blue
    jet = np.dstack([ramp, ramp // 2, 255 - ramp])
    np.testing.assert_array_equal(drawing.Scene.of(registration(jet, rgb, np.eye(3)), None).warped, jet)


def test_transparent_infrared_pixels_are_not_shown() -> None:
    mask = np.ones((40, 60), np.bool_)
    mask[:, :30] = False
    scene = drawing.Scene.of(inside(mask=mask), 100)
    columns = np.nonzero(scene.valid.any(axis=0))[0]
    assert columns.min() >= 39


@pytest.mark.parametrize("max_side", [0, 15, -5])
def test_a_senseless_size_is_refused(max_side: int) -> None:
    with pytest.raises(InputError, match=f"max_side is {max_side}; expected at least 16, or None"):
        drawing.Scene.of(inside(), max_side)


def test_the_overlay_blends_inside_and_leaves_the_rest() -> None:
    scene = drawing.Scene.of(inside(), None)
    canvas = drawing.overlay(scene, 0.25)
    assert canvas.dtype == np.uint8
    np.testing.assert_array_equal(canvas[:25], scene.rgb[:25])
    np.testing.assert_array_equal(canvas[:, 120:], scene.rgb[:, 120:])
    expected = 0.25 * scene.warped[50, 80].astype(float) + 0.75 * scene.rgb[50, 80]
    np.testing.assert_allclose(canvas[50, 80], expected, atol=1)


def test_the_overlay_draws_the_frame_of_the_infrared_image() -> None:
    scene = drawing.Scene.of(inside(), None)
    cyan = is_colour(drawing.overlay(scene, 0), CYAN)
    rows, columns = np.nonzero(cyan)
    assert cyan.any()
    drawn = [rows.min(), rows.max(), columns.min(), columns.max()]
    np.testing.assert_allclose(drawn, [29.5, 69.5, 49.5, 109.5], atol=1.5)  # a line of 2 px
    assert not cyan[35:65, 55:105].any()


def test_a_frame_far_outside_is_drawn_without_overflow() -> None:
    rgb, ir = np.zeros((100, 100, 3), np.uint8), np.zeros((40, 40), np.uint8)
    vast = np.diag([1e7, 1e7, 1.0])
    far = np.array([[1, 0, 1e12], [0, 1, 0], [0, 0, 1]])
    horizon_inside = np.array([[9, 0, 0], [0, 9, 0], [-0.1, 0, 1]])
    for homography in (vast, far, horizon_inside):
        canvas = drawing.overlay(drawing.Scene.of(registration(ir, rgb, homography), None))
        assert canvas.shape == (100, 100, 3)


def test_what_was_drawn_on_stays_as_it_was() -> None:
    scene = drawing.Scene.of(inside(reliable=False), None)
    before = scene.rgb.copy()
    drawing.overlay(scene)
    drawing.checkerboard(scene)
    np.testing.assert_array_equal(scene.rgb, before)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_an_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match=r"expected 0 \(RGB only\) to 1 \(infrared only\)"):
        drawing.overlay(drawing.Scene.of(inside(), None), alpha)


def test_the_checkerboard_alternates_squares() -> None:
    rgb, ir = np.zeros((80, 80, 3), np.uint8), np.full((80, 80, 3), 255, np.uint8)
    canvas = drawing.checkerboard(drawing.Scene.of(registration(ir, rgb, np.eye(3)), None), 8)
    squares = canvas[..., 0].reshape(8, 10, 8, 10)
    assert (squares == squares[:, :1, :, :1]).all()
    np.testing.assert_array_equal(squares[:, 0, :, 0], 255 * (np.indices((8, 8)).sum(axis=0) % 2))


def test_the_checkerboard_shows_rgb_where_there_is_no_infrared() -> None:
    scene = drawing.Scene.of(inside(), None)
    canvas = drawing.checkerboard(scene, 4)
    np.testing.assert_array_equal(canvas[~scene.valid], scene.rgb[~scene.valid])
    assert (canvas[scene.valid] == scene.warped[scene.valid]).all(axis=-1).any()


@pytest.mark.parametrize("tiles", [0, 1, 201])
def test_a_senseless_number_of_tiles_is_refused(tiles: int) -> None:
    with pytest.raises(InputError, match=f"tiles is {tiles}; expected 2 to 200"):
        drawing.checkerboard(drawing.Scene.of(inside(), None), tiles)


def test_the_comparison_is_before_left_and_after_right_under_labels() -> None:
    scene = drawing.Scene.of(inside(), None)
    canvas = drawing.compare(scene, "m120", None)
    labels = canvas.shape[0] - 120
    assert canvas.shape[1] == 400
    assert labels > 10
    assert (canvas[:labels] > 200).any()  # the text
    before = canvas[labels:, :200].astype(float)
    np.testing.assert_allclose(before, (scene.stretched.astype(float) + scene.rgb) / 2, atol=1)
    np.testing.assert_array_equal(canvas[labels:, 200:], drawing.overlay(scene))


def test_the_comparison_as_a_whole_keeps_to_its_size() -> None:
    canvas = drawing.compare(drawing.Scene.of(inside(), 101), "a model with a rather long name", 101)
    assert canvas.shape[1] == 101


@pytest.mark.parametrize("draw", [drawing.overlay, drawing.checkerboard])
def test_an_unreliable_result_is_framed_in_red_and_says_so(draw: Any) -> None:
    reliable = draw(drawing.Scene.of(inside(), None))
    canvas = draw(drawing.Scene.of(inside(reliable=False), None))
    assert drawing.Scene.of(inside(reliable=False), None).warning == "UNRELIABLE (confidence 0.12)"
    for edge in (canvas[0], canvas[-1], canvas[:, 0], canvas[:, -1]):
        assert is_colour(edge, RED).all()
    assert is_colour(canvas[:12], (255, 255, 255)).any()  # the text
    assert not is_colour(reliable, RED).any()


def test_the_warning_fits_a_tiny_picture() -> None:
    rgb, ir = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8)
    scene = drawing.Scene.of(registration(ir, rgb, np.eye(3), reliable=False), None)
    assert drawing.overlay(scene).shape == (16, 16, 3)
    assert drawing.compare(scene, "m120", None).shape[1] == 32
