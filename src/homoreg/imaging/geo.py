"""GeoTIFF: where on earth a picture lies, read with it and written with what is warped onto it.

Needs rasterio (``pip install homoreg[geo]``), which is imported only for files that are georeferenced.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from homoreg.errors import InputError
from homoreg.imaging.arrays import UnfitError
from homoreg.imaging.tiff import Tiff

__all__ = [
    "GeoReference",
    "decode_tiff",
    "encode_geotiff",
    "encode_warped",
    "is_georeferenced",
    "read_georeference",
]

logger = logging.getLogger(__name__)

_GEO_KEYS, _TRANSFORM, _TIE_POINTS, _ORIENTATION = 34735, 34264, 33922, 0x112
_EXTRA = "install it with: pip install 'homoreg[geo]'"


@dataclass(frozen=True)
class GeoReference:
    """Where the pixels of a picture lie.

    Parameters
    ----------
    crs
        Coordinate reference system as WKT; empty if it is not told.
    transform
        (a, b, c, d, e, f): ``X = a x + b y + c`` and ``Y = d x + e y + f``, with x and y counted from the
        outer corner of the first pixel, as GDAL does, so that its centre is at (0.5, 0.5). None if there are
        `points` only.
    points
        Ground control points: column, row, X, Y, Z of each, with columns and rows counted likewise.
    points_crs
        Coordinate reference system of the points.
    """

    crs: str = ""
    transform: tuple[float, float, float, float, float, float] | None = None
    points: tuple[tuple[float, float, float, float, float], ...] = field(default=(), repr=False)
    points_crs: str = field(default="", repr=False)


def is_georeferenced(data: bytes, page: int = 0) -> bool:
    """Whether a TIFF page says where it lies, and has its rows and columns in the usual order.

    Parameters
    ----------
    data
        The file.
    page
        Position of the page's directory; 0 for the first.
    """
    tiff = Tiff.parse(data)
    directory = None if tiff is None else tiff.directory(page or tiff.first)
    if directory is None or directory.whole(_ORIENTATION, 1) != 1:
        return False
    return any(tag in directory.entries for tag in (_GEO_KEYS, _TRANSFORM, _TIE_POINTS))


def read_georeference(data: bytes, page: int = 0) -> GeoReference | None:
    """Georeference of a GeoTIFF.

    Parameters
    ----------
    data
        The file.
    page
        Number of its page.

    Returns
    -------
    GeoReference or None
        None if it has none, it makes no sense, or rasterio is not installed.
    """
    try:
        import rasterio
    except ImportError:
        return None
    try:
        with _opened(rasterio, data, page) as source:
            points, points_crs = source.gcps
            transform = None if source.transform.is_identity else tuple(source.transform)[:6]
            if transform is None and not points:
                return None
            return GeoReference(
                crs=source.crs.to_wkt() if source.crs else "",
                transform=transform,
                points=tuple((p.col, p.row, p.x, p.y, p.z or 0.0) for p in points),
                points_crs=points_crs.to_wkt() if points_crs else "",
            )
    except Exception:  # GDAL's errors come in many classes; a picture without its place is still a picture
        return None


def decode_tiff(data: bytes, page: int = 0) -> npt.NDArray[Any]:
    """Decode a TIFF that OpenCV does not: other compressions, band after band, more than four bands.

    Parameters
    ----------
    data
        The file.
    page
        Number of its page.

    Returns
    -------
    numpy.ndarray
        Shape (H, W), (H, W, 3), or (H, W, 4) with alpha last; of more bands, the first three, with
        a warning in the log.

    Raises
    ------
    UnfitError
        If rasterio is not installed, or cannot decode it.
    """
    try:
        import rasterio
        from rasterio.enums import ColorInterp
    except ImportError:
        raise UnfitError(f"this kind of TIFF is read with rasterio; {_EXTRA}") from None
    try:
        with _opened(rasterio, data, page) as source:
            colours = 3 if source.count >= 3 else 1
            bands = list(range(1, colours + 1))
            if ColorInterp.alpha in source.colorinterp[colours:]:
                bands.append(source.colorinterp.index(ColorInterp.alpha) + 1)
            if source.count > len(bands):
                logger.warning(
                    "a TIFF has %d bands; the first %d are taken: give an array if others are meant",
                    *(source.count, colours),
                )
            pixels = source.read(bands)
    except Exception as error:  # see above
        raise UnfitError("the TIFF is truncated or damaged; copy or export it again") from error
    if len(bands) == 2:  # grey with alpha
        pixels = pixels[[0, 0, 0, 1]]
    return pixels[0] if len(pixels) == 1 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1))


def encode_geotiff(
    pixels: npt.NDArray[Any],
    reference: GeoReference,
    *,
    valid: npt.NDArray[np.bool_] | None = None,
    nodata: float | None = None,
) -> bytes:
    """Encode pixels as a GeoTIFF.

    Parameters
    ----------
    pixels
        Shape (H, W) or (H, W, 3); uint8, uint16 or float32. On the pixel grid of the picture that the
        reference came with.
    reference
        Where that grid lies.
    valid
        Shape (H, W), False where there is no data: written as the file's mask.
    nodata
        Value that stands for no data, told in the file.

    Returns
    -------
    bytes
        What the file shall hold: deflated without loss, in tiles.

    Raises
    ------
    InputError
        If rasterio is not installed, the shapes do not fit, or the reference makes no sense.
    """
    try:
        import rasterio
        from rasterio.control import GroundControlPoint
    except ImportError:
        raise InputError(f"writing a GeoTIFF needs rasterio; {_EXTRA}") from None
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)) or pixels.size == 0:
        raise InputError(f"the picture has shape {pixels.shape}; expected (H, W) or (H, W, 3), no side 0")
    if valid is not None and valid.shape != pixels.shape[:2]:
        raise InputError(f"the mask has shape {valid.shape}; expected {pixels.shape[:2]}")
    bands = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    options: dict[str, Any] = {"crs": reference.crs or None, "nodata": nodata}
    if reference.transform is not None:
        options["transform"] = rasterio.Affine(*reference.transform)
    elif reference.points:
        options["gcps"] = [GroundControlPoint(row, col, x, y, z) for col, row, x, y, z in reference.points]
        options["crs"] = reference.points_crs or None
    try:
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.MemoryFile() as memory,
        ):
            with memory.open(
                driver="GTiff",
                height=pixels.shape[0],
                width=pixels.shape[1],
                count=len(bands),
                dtype=bands.dtype.name,
                photometric="RGB" if len(bands) == 3 else "MINISBLACK",
                tiled=True,
                compress="deflate",
                predictor=3 if bands.dtype == np.float32 else 2,
                bigtiff="IF_SAFER",
                **options,
            ) as target:
                target.write(bands)
                if valid is not None and nodata is None:
                    target.write_mask(valid)
            memory.seek(0)
            return bytes(memory.read())
    except (rasterio.errors.RasterioError, ValueError) as error:
        raise InputError(
            f"cannot write a GeoTIFF: {error}; check the georeference of the RGB image"
        ) from error


def encode_warped(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_], reference: GeoReference) -> bytes:
    """Encode what was warped onto a georeferenced grid, so that other programs see where it has no data.

    Parameters
    ----------
    pixels, reference
        As for `encode_geotiff`.
    valid
        Shape (H, W), False where there is no data.

    Returns
    -------
    bytes
        Counts have 0 and floats NaN for no data; 8-bit pixels, which use all values, a mask.

    Raises
    ------
    InputError
        As `encode_geotiff`.
    """
    if pixels.dtype == np.uint8:
        return encode_geotiff(pixels, reference, valid=valid)
    nodata = 0.0 if pixels.dtype == np.uint16 else float("nan")
    shown = valid if pixels.ndim == 2 else valid[..., None]
    return encode_geotiff(np.where(shown, pixels, pixels.dtype.type(nodata)), reference, nodata=nodata)


@contextmanager
def _opened(rasterio: Any, data: bytes, page: int) -> Iterator[Any]:
    """Open a TIFF in memory, with no other driver and no neighbouring files."""
    name = f"GTIFF_DIR:{page + 1}:" if page else ""
    with (
        warnings.catch_warnings(
            action="ignore"
        ),  # a TIFF that is not georeferenced is none of GDAL's business
        rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_NUM_THREADS="1"),
        rasterio.MemoryFile(data) as memory,
        rasterio.open(f"{name}{memory.name}", driver="GTiff") as source,
    ):
        yield source
