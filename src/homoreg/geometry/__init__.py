"""Plane geometry on tensors: homographies, pixel frames and warps.

Pixel centres sit at integer coordinates and the centre of the top left pixel is ``(0, 0)``. A homography
``H`` maps homogeneous column vectors, ``y ~ H @ [x, y, 1]``, and has last entry 1. Corners are listed
clockwise from the top left. Everything is batched, differentiable and free of side effects.
"""

from homoreg.geometry.frames import crop_matrix, fit_matrix, pad_matrix, resize_matrix, square_prior
from homoreg.geometry.homography import (
    compose,
    corner_covariance,
    homography_from_corners,
    image_corners,
    invert_homography,
    is_plausible,
    map_jacobian,
    normalize_homography,
    solve_homography,
    transform_points,
)
from homoreg.geometry.warp import cell_centres, fill_outside, pixel_grid, pull

__all__ = [
    "cell_centres",
    "compose",
    "corner_covariance",
    "crop_matrix",
    "fill_outside",
    "fit_matrix",
    "homography_from_corners",
    "image_corners",
    "invert_homography",
    "is_plausible",
    "map_jacobian",
    "normalize_homography",
    "pad_matrix",
    "pixel_grid",
    "pull",
    "resize_matrix",
    "solve_homography",
    "square_prior",
    "transform_points",
]
