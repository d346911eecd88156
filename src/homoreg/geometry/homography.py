"""Homographies as batched 3x3 tensors: corners, composition, inverse, and weighted least squares."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry.constants import constant

__all__ = [
    "compose",
    "corner_covariance",
    "homography_from_corners",
    "image_corners",
    "invert_homography",
    "is_plausible",
    "map_jacobian",
    "normalize_homography",
    "solve_homography",
    "transform_points",
]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _full_precision(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Keep coordinates in float32 or float64 where the caller has switched autocast on.

    Half precision resolves 128 px to an eighth of a pixel at best.
    """

    @wraps(function)
    def guarded(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        given = (*args, *kwargs.values())
        kind = next((value.device.type for value in given if isinstance(value, Tensor)), "cpu")
        if not torch.is_autocast_enabled(kind):
            return function(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return function(*args, **kwargs)

    return guarded


def image_corners(
    width: float,
    height: float,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Corner pixel centres of an image, clockwise from the top left.

    Parameters
    ----------
    width, height
        Size of the image in pixels.
    dtype, device
        Of the returned tensor.

    Returns
    -------
    Tensor
        Shape (4, 2): ``(0, 0), (w-1, 0), (w-1, h-1), (0, h-1)``.
    """
    right, bottom = width - 1, height - 1
    return constant([[0, 0], [right, 0], [right, bottom], [0, bottom]], dtype, device)


def _check_matrix(homography: Tensor) -> None:
    if homography.shape[-2:] != (3, 3):
        raise InputError(
            f"homography has shape {tuple(homography.shape)}; expected (..., 3, 3): pass one 3x3 matrix or "
            "a batch of them"
        )


def transform_points(homography: Tensor, points: Tensor) -> Tensor:
    """Map points through homographies.

    Parameters
    ----------
    homography
        Shape (..., 3, 3).
    points
        Shape (..., N, 2), px, in the source frame.

    Returns
    -------
    Tensor
        Shape (..., N, 2), px, in the target frame. The coordinates of a point on the horizon line are
        infinite, or NaN where the numerator is 0, too.

    Raises
    ------
    InputError
        If the matrices are not 3x3.
    """
    _check_matrix(homography)
    x, y = (coordinate.unsqueeze(-2) for coordinate in points.unbind(-1))
    a, b, c = (column.unsqueeze(-1) for column in homography.unbind(-1))
    u, v, w = (a * x + b * y + c).unbind(-2)
    return torch.stack([u / w, v / w], dim=-1)


def normalize_homography(homography: Tensor) -> Tensor:
    """Scale homographies so that the last entry is 1.

    Parameters
    ----------
    homography
        Shape (..., 3, 3).

    Returns
    -------
    Tensor
        Same shape; infinite or NaN where the last entry is 0, which is where the origin maps to infinity.

    Raises
    ------
    InputError
        If the matrices are not 3x3.
    """
    _check_matrix(homography)
    return homography / homography[..., 2:, 2:]


@_full_precision
def compose(first: Tensor, *others: Tensor) -> Tensor:
    """Product of homographies, applied from right to left, last entry 1.

    ``compose(A, B)`` maps a point through ``B`` first and then through ``A``.

    Parameters
    ----------
    first, *others
        Shape (..., 3, 3); batch shapes broadcast.

    Returns
    -------
    Tensor
        Shape (..., 3, 3).

    Raises
    ------
    InputError
        If a matrix is not 3x3.
    """
    product = first
    for factor in others:
        _check_matrix(factor)
        product = product @ factor
    return normalize_homography(product)


def invert_homography(homography: Tensor) -> Tensor:
    """Inverse by the adjugate, in closed form, last entry 1.

    Scale does not matter to a homography, so the determinant is never divided by and nearly singular
    matrices do not raise.

    Parameters
    ----------
    homography
        Shape (..., 3, 3).

    Returns
    -------
    Tensor
        Same shape; infinite or NaN where the inverse has last entry 0.

    Raises
    ------
    InputError
        If the matrices are not 3x3.
    """
    _check_matrix(homography)
    rows = homography.unbind(-2)
    columns = [
        torch.linalg.cross(rows[1], rows[2], dim=-1),
        torch.linalg.cross(rows[2], rows[0], dim=-1),
        torch.linalg.cross(rows[0], rows[1], dim=-1),
    ]
    return normalize_homography(torch.stack(columns, dim=-1))


def map_jacobian(homography: Tensor, points: Tensor) -> Tensor:
    """Jacobian of the map at given points.

    Parameters
    ----------
    homography
        Shape (..., 3, 3).
    points
        Shape (..., N, 2), px, in the source frame.

    Returns
    -------
    Tensor
        Shape (..., N, 2, 2): ``d(u, v) / d(x, y)``.

    Raises
    ------
    InputError
        If the matrices are not 3x3.
    """
    mapped = transform_points(homography, points)
    h = homography.unsqueeze(-3)
    w = h[..., 2, 0] * points[..., 0] + h[..., 2, 1] * points[..., 1] + h[..., 2, 2]
    top = h[..., :2, :2] - mapped.unsqueeze(-1) * h[..., 2:, :2]
    jacobian: Tensor = top / w[..., None, None]
    return jacobian


def _to_unit(size: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices between a pixel frame of ``size`` px and the square [-1, 1], both ways."""
    scale, shift = 2.0 / size, -(size - 1.0) / size
    forward = constant([[scale, 0, shift], [0, scale, shift], [0, 0, 1]], like.dtype, like.device)
    back = constant(
        [[1 / scale, 0, -shift / scale], [0, 1 / scale, -shift / scale], [0, 0, 1]], like.dtype, like.device
    )
    return forward, back


def _dlt_rows(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the direct linear transform with h33 = 1: (..., 2N, 8) and (..., 2N, 1)."""
    x, y = source.unbind(-1)
    u, v = target.unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows_u = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=-1)
    rows_v = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=-1)
    return torch.cat([rows_u, rows_v], dim=-2), torch.cat([u, v], dim=-1).unsqueeze(-1)


def _matrix_from_entries(entries: Tensor) -> Tensor:
    last = torch.ones_like(entries[..., :1])
    matrix: Tensor = torch.cat([entries, last], dim=-1).unflatten(-1, (3, 3))
    return matrix


@_full_precision
def homography_from_corners(source: Tensor, target: Tensor) -> Tensor:
    """Exact homography of four point pairs by the direct linear transform.

    Parameters
    ----------
    source, target
        Shape (..., 4, 2), px. No three points of either may be collinear.

    Returns
    -------
    Tensor
        Shape (..., 3, 3) with ``target ~ H @ source``, last entry 1. Degenerate corners give a matrix that
        :func:`is_plausible` refuses (NaN, huge or singular) rather than an exception, so that one bad
        member does not lose a batch.

    Raises
    ------
    InputError
        If either shape is not (..., 4, 2).

    Notes
    -----
    Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 4.1, with h33 = 1 in a frame where the
    source spans [-1, 1], which is what keeps single precision accurate.
    """
    for name, value in (("source", source), ("target", target)):
        if value.shape[-2:] != (4, 2):
            raise InputError(f"{name} corners have shape {tuple(value.shape)}; expected (..., 4, 2)")
    source, target = torch.broadcast_tensors(source, target)
    centre_s, spread_s = _centre_and_spread(source)
    centre_t, spread_t = _centre_and_spread(target)
    rows, right = _dlt_rows((source - centre_s) / spread_s, (target - centre_t) / spread_t)
    entries, _ = torch.linalg.solve_ex(rows, right)
    unit = _matrix_from_entries(entries.squeeze(-1))
    to_unit = _similarity(1 / spread_s, -centre_s / spread_s)
    from_unit = _similarity(spread_t, centre_t)
    return normalize_homography(from_unit @ unit @ to_unit)


def _centre_and_spread(points: Tensor) -> tuple[Tensor, Tensor]:
    centre = points.mean(dim=-2, keepdim=True)
    spread = (points - centre).abs().amax(dim=(-2, -1), keepdim=True).clamp_min(1e-12)
    return centre, spread


def _similarity(scale: Tensor, shift: Tensor) -> Tensor:
    """3x3 scaling then shift; scale (..., 1, 1), shift (..., 1, 2)."""
    s, (x, y) = scale[..., 0, 0], shift[..., 0, :].unbind(-1)
    zero, one = torch.zeros_like(s), torch.ones_like(s)
    matrix: Tensor = torch.stack([s, zero, x, zero, s, y, zero, zero, one], dim=-1).unflatten(-1, (3, 3))
    return matrix


@_full_precision
def solve_homography(
    source: Tensor,
    target: Tensor,
    precision: Tensor,
    *,
    size: float,
    damping: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """Precision-weighted least squares homography, damped towards the identity.

    Minimises ``sum_i precision_i * residual_i ** 2`` over the eight free entries, where the residual is
    the algebraic one of the direct linear transform. For maps near the identity that equals the
    geometric residual, which makes the normal matrix an information matrix in px**-2.

    Parameters
    ----------
    source, target
        Shape (B, N, 2), px, in frames of about ``size`` px.
    precision
        Shape (B, N, 2): inverse variance of the target's x and y, px**-2, not negative.
    size
        Side of the frame in px; coordinates are scaled by it to [-1, 1] for the solve.
    damping
        Strength of the pull to the identity, relative to the mean diagonal of the normal matrix.

    Returns
    -------
    homography : Tensor
        Shape (B, 3, 3), last entry 1.
    information : Tensor
        Shape (B, 8, 8): normal matrix of the entries of the homography **in the unit frame**, with
        residuals in px; feed it to :func:`corner_covariance`.
    """
    forward, back = _to_unit(size, source)
    shift = (size - 1.0) / size
    rows, right = _dlt_rows(source * (2.0 / size) - shift, target * (2.0 / size) - shift)
    weight = torch.cat([precision[..., 0], precision[..., 1]], dim=-1).unsqueeze(-1)
    weighted = (rows * weight).transpose(-1, -2)
    normal = weighted @ rows
    eye = torch.eye(8, dtype=normal.dtype, device=normal.device)
    mean_diagonal = normal.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    pull = (damping * mean_diagonal + torch.finfo(normal.dtype).tiny) * eye
    identity = constant([1, 0, 0, 0, 1, 0, 0, 0], normal.dtype, normal.device).unsqueeze(-1)
    entries, _ = torch.linalg.solve_ex(normal + pull, weighted @ right + pull @ identity)
    homography = back @ _matrix_from_entries(entries.squeeze(-1)) @ forward
    return normalize_homography(homography), (normal + pull) * (size / 2.0) ** 2


@_full_precision
def corner_covariance(information: Tensor, *, size: float) -> Tensor:
    """Covariance of the four corners of a frame from the solver's information matrix.

    Parameters
    ----------
    information
        Shape (B, 8, 8), as returned by :func:`solve_homography` for a map near the identity.
    size
        Side of the frame in px.

    Returns
    -------
    Tensor
        Shape (B, 4, 2, 2), px**2, per corner, clockwise from the top left.
    """
    corners = image_corners(size, size, dtype=information.dtype, device=information.device)
    unit = corners * (2.0 / size) - (size - 1.0) / size
    jacobian, _ = _dlt_rows(unit, unit)
    jacobian = torch.stack([jacobian[:4], jacobian[4:]], dim=1) * (size / 2.0)
    scale = information.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None].clamp_min(1e-12)
    eye = torch.eye(8, dtype=information.dtype, device=information.device)
    covariance, _ = torch.linalg.inv_ex(information / scale + 1e-7 * eye)
    return torch.einsum("kia,bac,kjc->bkij", jacobian, covariance / scale, jacobian)


@_full_precision
def is_plausible(homography: Tensor, size: float, *, max_scale: float = 4.0) -> Tensor:
    """Whether each homography keeps orientation, stays finite and does not fold the frame.

    Parameters
    ----------
    homography
        Shape (B, 3, 3), acting on a frame of ``size`` px.
    size
        Side of the frame in px.
    max_scale
        Largest accepted factor, either way, by which a side may be stretched.

    Returns
    -------
    Tensor
        Shape (B,), bool. True where the corners map to a convex quadrilateral of the same orientation,
        no point of the frame reaches the horizon, and every side keeps its length within ``max_scale``.
    """
    corners = image_corners(size, size, dtype=homography.dtype, device=homography.device)
    ones = torch.ones_like(corners[:, :1])
    depth = (homography @ torch.cat([corners, ones], dim=-1).T)[..., 2, :]
    quad = transform_points(homography, corners)
    side = quad.roll(-1, dims=-2) - quad
    following = side.roll(-1, dims=-2)
    turn = side[..., 0] * following[..., 1] - side[..., 1] * following[..., 0]
    length = side.norm(dim=-1) / (size - 1.0)
    finite = torch.isfinite(quad).all(-1).all(-1)
    upright = (depth > 1e-3).all(-1) & (turn > 0).all(-1)
    bounded = ((length < max_scale) & (length > 1.0 / max_scale)).all(-1)
    plausible: Tensor = finite & upright & bounded
    return plausible
