from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from homoreg.geometry import (
    cell_centres,
    fill_outside,
    pad_matrix,
    pixel_grid,
    pull,
    transform_points,
)
from homoreg.geometry.warp import _kept_centres
from tests.geometry.maps import double, quick, random_maps, shift

EYE = torch.eye(3, dtype=torch.float64)
DOUBLE = torch.zeros((), dtype=torch.float64)


def ramp(height: int, width: int, *, stride: int = 1) -> Tensor:
    """x + 100 y at the cell centres, in px: (1, 1, height, width). Bilinear sampling is exact on it."""
    x, y = cell_centres(height, width, stride, DOUBLE).unbind(-1)
    return (x + 100 * y).view(1, 1, height, width)


def waves(height: int, width: int) -> Tensor:
    x, y = pixel_grid(height, width, DOUBLE).unbind(-1)
    channels = [(x / 5).sin() + (y / 7).cos(), (x / 9 + y / 6).sin(), ((x - y) / 11).cos()]
    return torch.stack(channels).view(1, 3, height, width)


# --- grids -------------------------------------------------------------------------------------------------


def test_pixels_are_listed_in_reading_order() -> None:
    assert pixel_grid(2, 3, DOUBLE).tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]
    assert pixel_grid(2, 3, DOUBLE).dtype == torch.float64
    assert pixel_grid(2, 3, torch.zeros(1)).dtype == torch.float32


def test_cells_are_centred_between_their_pixels() -> None:
    assert cell_centres(1, 2, 8, DOUBLE).tolist() == [[3.5, 3.5], [11.5, 3.5]]
    # The centre of a cell is the mean of the pixels it averages.
    pixels = pixel_grid(8, 8, DOUBLE).T.reshape(1, 2, 8, 8)
    means = F.avg_pool2d(pixels, 4).flatten(2)[0].T
    torch.testing.assert_close(cell_centres(2, 2, 4, DOUBLE), means)


def test_a_grid_that_the_caller_changes_is_his_own() -> None:
    cell_centres(4, 4, 2, DOUBLE).zero_()
    assert cell_centres(4, 4, 2, DOUBLE)[-1].tolist() == [6.5, 6.5]


def test_grids_of_whole_pictures_are_not_kept() -> None:
    before = _kept_centres.cache_info()
    assert cell_centres(480, 640, 1, DOUBLE)[-1].tolist() == [639, 479]
    assert _kept_centres.cache_info() == before


# --- pull --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 8])
def test_the_identity_changes_nothing(stride: int) -> None:
    image = waves(12, 15)
    pulled, mask = pull(image, EYE[None], (12, 15), stride=stride)
    torch.testing.assert_close(pulled, image)
    assert mask.dtype == torch.bool
    assert mask.shape == (1, 1, 12, 15)
    assert mask.all()


def test_the_centred_square_is_a_crop() -> None:
    image = waves(24, 24).float()
    pulled, mask = pull(image, pad_matrix(4, 4, dtype=torch.float32)[None], (16, 16))
    torch.testing.assert_close(pulled, image[..., 4:20, 4:20])
    assert mask.all()


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_every_pixel_looks_up_where_its_homography_sends_it(stride: int) -> None:
    height, width = 12, 16
    maps = random_maps(4, side=16.0 * stride)
    pulled, mask = pull(
        ramp(20, 24, stride=stride).expand(4, -1, -1, -1), maps, (height, width), stride=stride
    )
    x, y = transform_points(maps, cell_centres(height, width, stride, DOUBLE)).unbind(-1)
    expected = (x + 100 * y).view(4, 1, height, width)
    assert 0.5 < mask.double().mean() < 1
    torch.testing.assert_close(pulled[mask], expected[mask], atol=1e-8, rtol=0)


def test_pulling_agrees_with_opencv() -> None:
    image = waves(60, 80)
    homography = random_maps(1, side=64.0, seed=3) + shift(9, 2) - EYE
    pulled, mask = pull(image, homography, (50, 64))
    warped = cv2.warpPerspective(
        np.ascontiguousarray(image[0].permute(1, 2, 0).numpy()),
        homography[0].numpy(),
        (64, 50),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
    expected = torch.from_numpy(warped).permute(2, 0, 1)[None]
    inside = mask.expand_as(pulled)
    # Some versions of OpenCV look up at 1/32 px; the waves change by at most 0.35 a pixel.
    torch.testing.assert_close(pulled[inside], expected[inside], atol=0.02, rtol=0)


def test_the_mask_ends_at_the_outermost_cell_centres() -> None:
    for stride in (1, 4):
        image = torch.ones(1, 1, 6, 6, dtype=torch.float64)
        for offset, count in ((0.0, 6), (0.01, 5), (1.0, 5), (1.01, 4), (-2.0, 4), (5.0, 1), (5.01, 0)):
            _, mask = pull(image, shift(offset * stride, 0)[None], (6, 6), stride=stride)
            assert int(mask[0, 0, 0].sum()) == count, (stride, offset)


def test_the_edge_fades_to_zero_within_one_cell() -> None:
    for stride in (1, 4):
        image = torch.ones(1, 2, 6, 6, dtype=torch.float64)
        pulled, _ = pull(image, shift(3.75 * stride, 0)[None], (6, 6), stride=stride)
        row = double([1, 1, 0.25, 0, 0, 0]).expand(1, 2, 6, 6)
        torch.testing.assert_close(pulled, row)


def test_points_at_infinity_are_outside_and_keep_the_gradient_finite() -> None:
    # The column x = 4 lies on the horizon; the whole of the second map is not a number.
    horizon = double([[1, 0, 0], [0, 1, 0], [-0.25, 0, 1]])
    maps = torch.stack([horizon, torch.full_like(horizon, torch.nan)]).requires_grad_()
    image = torch.rand(2, 1, 8, 8, dtype=torch.float64).requires_grad_()
    pulled, mask = pull(image, maps, (8, 8))
    assert torch.isfinite(pulled).all()
    assert not mask[0, 0, :, 4].any()
    assert not mask[1].any()
    (gradient,) = torch.autograd.grad(pulled.sum(), image)
    assert torch.isfinite(gradient).all()


def test_panoramas_wider_than_ten_thousand_pixels_are_reached_to_their_end() -> None:
    image = ramp(1, 12_000)
    pulled, mask = pull(image, shift(11_990, 0)[None], (1, 10))
    assert mask.all()
    torch.testing.assert_close(pulled, image[..., 11_990:])
    assert not pull(image, shift(12_000, 0)[None], (1, 10))[1].any()


def test_half_precision_features_are_sampled_at_full_precision_points() -> None:
    features = ramp(8, 192).bfloat16()
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            pulled, mask = pull(features, shift(96, 0).float()[None], (8, 96))
        assert pulled.dtype == torch.bfloat16
        assert mask.all()
        assert torch.equal(pulled, features[..., 96:])


def test_autocast_leaves_the_warp_of_an_image_alone() -> None:
    image, homography = waves(16, 16).float(), random_maps(1, side=16.0).float()
    expected = pull(image, homography, (16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        pulled, mask = pull(image, homography, (16, 16))
    assert pulled.dtype == torch.float32
    assert torch.equal(pulled, expected[0])
    assert torch.equal(mask, expected[1])


def test_members_of_a_batch_have_their_own_image_and_map() -> None:
    images, maps = torch.cat([waves(16, 16), waves(16, 16).flip(-1)]), random_maps(2, side=16.0)
    together = pull(images, maps, (12, 12))[0]
    for k in range(2):
        torch.testing.assert_close(together[k : k + 1], pull(images[k : k + 1], maps[k : k + 1], (12, 12))[0])


def test_gradients() -> None:
    image = waves(6, 6)[:, :1].requires_grad_()
    # Sampling points well off the cell centres, where bilinear interpolation has a kink.
    homography = (shift(0.37, 0.41) @ double([[0.98, 0.01, 0], [0.005, 1.0, 0], [1e-3, 1e-3, 1]]))[None]
    homography.requires_grad_()
    assert torch.autograd.gradcheck(lambda i, h: pull(i, h, (4, 4))[0], (image, homography))


# --- fill_outside ------------------------------------------------------------------------------------------


def test_filling_takes_the_mean_of_each_channel_and_member() -> None:
    image = torch.arange(16.0).view(2, 2, 2, 2)
    inside = torch.tensor([[[[True, True], [False, False]]], [[[False, False], [False, True]]]])
    filled = fill_outside(image, inside)
    assert filled[0].tolist() == [[[0, 1], [0.5, 0.5]], [[4, 5], [4.5, 4.5]]]
    assert filled[1].tolist() == [[[11, 11], [11, 11]], [[15, 15], [15, 15]]]


def test_filling_from_nothing_gives_zero_and_from_everything_changes_nothing() -> None:
    image = torch.rand(1, 3, 4, 4)
    assert (fill_outside(image, torch.zeros(1, 1, 4, 4, dtype=torch.bool)) == 0).all()
    assert torch.equal(fill_outside(image, torch.ones(1, 1, 4, 4, dtype=torch.bool)), image)


@quick
@given(st.lists(st.booleans(), min_size=16, max_size=16).filter(any))
def test_filling_keeps_the_mean_of_the_inside(chosen: list[bool]) -> None:
    image, inside = waves(4, 4), torch.tensor(chosen).view(1, 1, 4, 4)
    filled = fill_outside(image, inside)
    assert torch.equal(filled[inside.expand_as(image)], image[inside.expand_as(image)])
    mean = torch.stack([channel[inside[0, 0]].mean() for channel in image[0]])
    torch.testing.assert_close(filled.mean(dim=(0, 2, 3)), mean)
