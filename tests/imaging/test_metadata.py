from __future__ import annotations

import math

import pytest

from homoreg.imaging.containers import inspect
from homoreg.imaging.metadata import Camera, field_of_view_ratio, pixel_scale, read_camera
from tests.fuzz.seeds import XMP, camera_exif, encoded, flir_jpeg
from tests.imaging.pictures import colour, counts

M3T_THERMAL, M3T_WIDE = Camera(focal_length_35mm=40.0), Camera(focal_length_35mm=24.0)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_exif_of_every_format(kind: str) -> None:
    camera = read_camera(inspect(encoded(colour(), kind, exif=camera_exif(equivalent=24, focal_length=6.72))))
    assert camera is not None
    assert (camera.make, camera.model, camera.focal_length_35mm, camera.width) == ("DJI", "M3T", 24, 640)
    assert camera.focal_length == pytest.approx(6.72)
    assert camera.focal_plane_resolution == pytest.approx(83.0)
    assert camera.is_infrared is None


def test_a_file_without_a_word_about_the_camera() -> None:
    for kind in ("JPEG", "PNG", "TIFF", "WEBP", "BMP"):
        assert read_camera(inspect(encoded(colour(), kind))) is None


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_dji_tells_which_sensor_it_was(kind: str) -> None:
    camera = read_camera(inspect(encoded(colour(), kind, xmp=XMP)))
    assert camera is not None
    assert camera.is_infrared is True
    assert camera.calibrated_focal_length == 712.5, "an element, not an attribute"
    assert camera.dji["GimbalYawDegree"] == "+12.5"


def test_flir_tells_its_field_of_view() -> None:
    data = flir_jpeg(counts(), encoded(colour(), "PNG"))
    camera = read_camera(inspect(data))
    assert camera is not None
    assert (camera.make, camera.model, camera.field_of_view) == ("FLIR", "FLIR E60", 25.0)


def test_focal_lengths_in_pixels() -> None:
    size = (4000, 3000)
    equivalent = Camera(focal_length_35mm=24.0).focal_length_px(size)
    assert equivalent is not None
    # A diagonal of 5000 px, seen at 84 degrees, as the maker says.
    assert 2 * math.degrees(math.atan(2500 / equivalent)) == pytest.approx(84.1, abs=0.1)
    angle = Camera(field_of_view=90.0).focal_length_px(size)
    assert angle == pytest.approx(2000)
    plane = Camera(focal_length=10.0, focal_plane_resolution=200.0, width=8000)
    assert plane.focal_length_px(size) == pytest.approx(1000), "the file was halved after the shot"
    assert Camera(calibrated_focal_length=3000.0).focal_length_px(size) == 3000
    assert Camera(make="x").focal_length_px(size) is None


def test_the_field_of_view_of_a_pair() -> None:
    scale = pixel_scale(M3T_THERMAL, (640, 512), M3T_WIDE, (4000, 3000))
    ratio = field_of_view_ratio(M3T_THERMAL, (640, 512), M3T_WIDE, (4000, 3000))
    assert scale == pytest.approx(24 / 40 * 5000 / math.hypot(640, 512))
    assert ratio is not None
    assert scale is not None
    # The geometric mean of the shares of width and height.
    assert ratio == pytest.approx(math.sqrt(scale * 640 / 4000 * scale * 512 / 3000))
    assert 0.55 < ratio < 0.65


def test_the_ratio_does_not_depend_on_the_size_of_the_files() -> None:
    ratios = [
        field_of_view_ratio(M3T_THERMAL, (64 * k, 48 * k), M3T_WIDE, size)
        for k in (1, 5)
        for size in ((400, 300), (4000, 3000))
    ]
    assert ratios == pytest.approx([0.6] * 4)


@pytest.mark.parametrize(
    ("ir", "rgb"),
    [
        (None, M3T_WIDE),
        (M3T_THERMAL, None),
        (Camera(make="x"), M3T_WIDE),
        (Camera(focal_length_35mm=1e-3), M3T_WIDE),
        (Camera(focal_length_35mm=1e6), M3T_WIDE),
    ],
)
def test_no_ratio_where_the_files_do_not_tell_or_tell_nonsense(ir: Camera | None, rgb: Camera | None) -> None:
    assert field_of_view_ratio(ir, (640, 512), rgb, (4000, 3000)) is None
