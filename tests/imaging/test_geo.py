from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from homoreg.errors import ImageReadError, InputError
from homoreg.imaging.containers import inspect
from homoreg.imaging.geo import GeoReference, encode_geotiff, is_georeferenced, read_georeference
from homoreg.imaging.reading import read_image
from homoreg.imaging.tiff import Tiff
from homoreg.imaging.tone import fit_tone
from homoreg.registration import Registration
from tests.fuzz.seeds import encoded
from tests.imaging.pictures import HEIGHT, WIDTH, Array, colour, counts

rasterio = pytest.importorskip("rasterio")

TRANSFORM = (0.5, 0.1, 400_000.0, 0.05, -0.5, 5_000_000.0)


def geotiff(bands: Array, **options: Any) -> bytes:
    """File of bands (B, H, W) as rasterio writes it; georeferenced unless told otherwise."""
    given = {"crs": "EPSG:32633", "transform": rasterio.Affine(*TRANSFORM)} | options
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff", height=HEIGHT, width=WIDTH, count=len(bands), dtype=bands.dtype.name, **given
        ) as target:
            target.write(bands)
        memory.seek(0)
        return bytes(memory.read())


def planes() -> Array:
    return np.moveaxis(colour(), -1, 0)


def test_a_georeference_comes_with_the_picture(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(geotiff(planes()))
    picture = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.pixels, colour())
    assert picture.geo is not None
    assert picture.geo.transform == TRANSFORM
    assert rasterio.CRS.from_wkt(picture.geo.crs).to_epsg() == 32633


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_lies_where_the_reference_says(tmp_path: Path, dtype: Any, channels: int) -> None:
    pixels = counts().astype(dtype) if channels == 1 else colour().astype(dtype)
    reference = read_georeference(geotiff(planes()))
    assert reference is not None
    path = tmp_path / "a.tif"
    path.write_bytes(encode_geotiff(pixels, reference, nodata=0))
    with rasterio.open(path) as source:
        assert tuple(source.transform)[:6] == TRANSFORM
        assert source.crs.to_epsg() == 32633
        assert source.nodata == 0
        bands = source.read()
    assert bands.dtype == dtype
    np.testing.assert_array_equal(
        bands if channels == 3 else bands[0], np.moveaxis(pixels, -1, 0) if channels == 3 else pixels
    )
    again = read_image(path)
    assert again.geo == reference
    np.testing.assert_array_equal(again.pixels, pixels)


def test_the_mask_is_written(tmp_path: Path) -> None:
    valid = np.ones((HEIGHT, WIDTH), np.bool_)
    valid[:, :5] = False
    (tmp_path / "a.tif").write_bytes(encode_geotiff(counts(), GeoReference(transform=TRANSFORM), valid=valid))
    with rasterio.open(tmp_path / "a.tif") as source:
        np.testing.assert_array_equal(source.dataset_mask() > 0, valid)


def test_ground_control_points(tmp_path: Path) -> None:
    points = [
        rasterio.control.GroundControlPoint(row, col, 10.0 + col, 50.0 - row, 2.0)
        for row, col in [(0, 0), (0, 39), (23, 0)]
    ]
    data = geotiff(planes(), transform=None, crs="EPSG:4326", gcps=points)
    reference = read_georeference(data)
    assert reference is not None
    assert (reference.transform, reference.points[1]) == (None, (39, 0, 49.0, 50.0, 2.0))
    with rasterio.MemoryFile(encode_geotiff(counts(), reference)) as memory, memory.open() as source:
        written, crs = source.gcps
        assert [(p.row, p.col, p.x, p.y) for p in written] == [(p.row, p.col, p.x, p.y) for p in points]
        assert crs.to_epsg() == 4326


def test_pixels_without_data_are_masked(tmp_path: Path) -> None:
    kelvin = counts().astype(np.float32) / 25
    kelvin[:4] = np.nan
    (tmp_path / "nan.tif").write_bytes(geotiff(kelvin[None], nodata=float("nan")))
    picture = read_image(tmp_path / "nan.tif", role="ir")
    assert picture.mask is not None
    np.testing.assert_array_equal(picture.mask, np.arange(HEIGHT)[:, None] >= np.full((1, WIDTH), 4))
    assert np.isfinite(picture.pixels).all()
    np.testing.assert_array_equal(picture.pixels[4:], kelvin[4:])
    rgb = planes().copy()
    rgb[:, :3] = 0
    (tmp_path / "zero.tif").write_bytes(geotiff(rgb, nodata=0))
    masked = read_image(tmp_path / "zero.tif").mask
    assert masked is not None
    assert not masked[:3].any()
    assert masked[3:].all()


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_no_data_may_be_a_value_that_counts_cannot_have(tmp_path: Path, dtype: Any) -> None:
    stored = counts().astype(dtype)
    stored[:4] = -9999
    (tmp_path / "a.tif").write_bytes(geotiff(stored[None], nodata=-9999))
    picture = read_image(tmp_path / "a.tif", role="ir")
    assert picture.pixels.dtype == np.uint16
    np.testing.assert_array_equal(picture.pixels[4:], counts()[4:])
    assert picture.mask is not None
    np.testing.assert_array_equal(picture.mask.all(axis=1), np.arange(HEIGHT) >= 4)


def test_of_five_bands_three_are_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.tif").write_bytes(geotiff(np.concatenate([planes(), planes()[:2]])))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, colour())
    assert "a TIFF has 5 bands; the first 3 are taken" in caplog.text
    caplog.clear()
    (tmp_path / "a.tif").write_bytes(geotiff(planes()))
    read_image(tmp_path / "a.tif")
    assert not caplog.text


@pytest.mark.parametrize(
    "options",
    [
        {"interleave": "band"},
        {"compress": "zstd"},
        {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "lzw"},
        {"BIGTIFF": "YES"},
    ],
    ids=["band after band", "zstd", "tiles", "BigTIFF"],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_kinds_of_tiff_that_opencv_refuses_or_mixes_up(tmp_path: Path, options: Any, dtype: Any) -> None:
    bands = planes().astype(dtype)
    (tmp_path / "a.tif").write_bytes(geotiff(bands, **options))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, np.moveaxis(bands, 0, -1))


def test_of_more_bands_the_first_three_and_alpha_count(tmp_path: Path) -> None:
    five = np.concatenate([planes(), planes()[:2] // 2])
    (tmp_path / "five.tif").write_bytes(geotiff(five))
    picture = read_image(tmp_path / "five.tif")
    np.testing.assert_array_equal(picture.pixels, colour())
    assert picture.mask is None
    four = np.concatenate([planes(), planes()[:1] // 2])
    (tmp_path / "infrared.tif").write_bytes(geotiff(four, photometric="RGB", alpha="unspecified"))
    assert read_image(tmp_path / "infrared.tif").mask is None, "a fourth band that does not call itself alpha"
    alpha = np.where(planes()[:1] > 90, 255, 0).astype(np.uint8)
    (tmp_path / "alpha.tif").write_bytes(
        geotiff(np.concatenate([planes(), alpha]), photometric="RGB", alpha="yes")
    )
    masked = read_image(tmp_path / "alpha.tif").mask
    np.testing.assert_array_equal(masked, alpha[0] > 0)


@pytest.mark.parametrize("bits", [2, 4, 10, 12, 14])
def test_few_bits_a_sample(tmp_path: Path, bits: int) -> None:
    """Sensors' counts stay counts; what is under 8 bits is a picture, and fills them."""
    dtype = np.uint8 if bits < 8 else np.uint16
    values = (counts() % 2**bits).astype(dtype)
    (tmp_path / "a.tif").write_bytes(geotiff(values[None], nbits=bits))
    scale = 255 // (2**bits - 1) if bits < 8 else 1
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, values * dtype(scale))


def test_half_floats(tmp_path: Path) -> None:
    kelvin = (counts() / 32).astype(np.float16).astype(np.float32)
    (tmp_path / "a.tif").write_bytes(geotiff(kelvin[None], nbits=16))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", role="ir").pixels, kelvin)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_mask_within_a_file_is_read(tmp_path: Path, dtype: Any) -> None:
    valid = np.ones((HEIGHT, WIDTH), np.bool_)
    valid[:5, :7] = False
    data = encode_geotiff(colour().astype(dtype), GeoReference(transform=TRANSFORM), valid=valid)
    (tmp_path / "a.tif").write_bytes(data)
    picture = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.pixels, colour())
    np.testing.assert_array_equal(picture.mask, valid)
    assert inspect(data).mask_page == 1
    assert inspect(geotiff(planes())).mask_page == 0


def test_a_damaged_mask_does_not_cost_the_picture(tmp_path: Path) -> None:
    valid = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 3 > 0
    data = bytearray(encode_geotiff(colour(), GeoReference(transform=TRANSFORM), valid=valid))
    tiff = Tiff.parse(bytes(data))
    assert tiff is not None
    directory = tiff.directory(tiff.pages()[1])
    assert directory is not None
    start = directory.whole(324) or directory.whole(273)
    data[start : start + 20] = b"\xff" * 20
    (tmp_path / "a.tif").write_bytes(bytes(data))
    picture = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.pixels, colour())
    assert picture.mask is None


def test_a_file_that_lies_nowhere(tmp_path: Path) -> None:
    data = encoded(colour(), "TIFF")
    assert not is_georeferenced(data)
    assert read_georeference(data) is None
    (tmp_path / "a.tif").write_bytes(data)
    assert read_image(tmp_path / "a.tif").geo is None


def without_rasterio(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def refuse(name: str, *rest: Any, **named: Any) -> Any:
        if name.split(".")[0] == "rasterio":
            raise ImportError(name)
        return load(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_without_rasterio_pictures_are_read_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tif").write_bytes(geotiff(planes()))
    (tmp_path / "b.tif").write_bytes(geotiff(planes(), interleave="band"))
    without_rasterio(monkeypatch)
    picture = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.pixels, colour())
    assert picture.geo is None
    with pytest.raises(ImageReadError, match=r"is read with rasterio; .*homoreg\[geo\]"):
        read_image(tmp_path / "b.tif")
    with pytest.raises(InputError, match=r"needs rasterio; .*homoreg\[geo\]"):
        encode_geotiff(counts(), GeoReference(transform=TRANSFORM))


def test_damaged_files_of_gdals_kinds_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = geotiff(planes(), interleave="band", compress="zstd")
    path = tmp_path / "a.tif"
    for keep in (0.3, 0.6, 0.9):
        path.write_bytes(data[: int(keep * len(data))])
        with pytest.raises(ImageReadError, match="truncated or damaged"):
            read_image(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("pixels", "valid", "crs", "message"),
    [
        (np.zeros((4, 5, 2), np.uint8), None, "", r"shape \(4, 5, 2\)"),
        (np.zeros((0, 5), np.uint8), None, "", "no side 0"),
        (counts(), np.ones((3, 3), np.bool_), "", r"mask has shape \(3, 3\)"),
        (counts(), None, "no such system", "cannot write a GeoTIFF"),
    ],
)
def test_what_cannot_be_written(pixels: Array, valid: Any, crs: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode_geotiff(pixels, GeoReference(crs, TRANSFORM), valid=valid)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_what_a_registration_saves_lies_where_the_rgb_image_lies(tmp_path: Path, dtype: Any) -> None:
    (tmp_path / "rgb.tif").write_bytes(geotiff(planes()))
    ir, rgb = read_image(counts().astype(dtype), role="ir"), read_image(tmp_path / "rgb.tif", role="rgb")
    registration = Registration.build(
        [[1, 0, 5], [0, 1, 3], [0, 0, 1]],
        ir=ir,
        rgb=rgb,
        ir_tone=fit_tone(ir, "ir"),
        rgb_tone=fit_tone(rgb, "rgb"),
        expected_error=1.0,
        confidence=0.9,
        reliable=True,
        model="test",
    )
    path = registration.save(tmp_path / "out")["warped"]
    assert path.name == "warped.tif"
    with rasterio.open(path) as source:
        assert tuple(source.transform)[:6] == TRANSFORM
        assert source.crs.to_epsg() == 32633
        np.testing.assert_array_equal(source.dataset_mask() > 0, registration.valid_mask())
        band = source.read(1)
    assert band.dtype == dtype
    np.testing.assert_array_equal(band[3:, 5:], ir.pixels[:-3, :-5])
