from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path

import numpy as np
import PIL.PngImagePlugin
import pytest

from homoreg.imaging.containers import inspect
from homoreg.imaging.metadata import (
    Camera,
    field_of_view_ratio,
    field_ratio,
    pixel_scale,
    placement,
    read_camera,
)
from homoreg.imaging.reading import Picture, read_image
from homoreg.imaging.rjpeg import read_rjpeg
from tests.fuzz.seeds import XMP, camera_exif, encoded, flir_jpeg
from tests.imaging.pictures import HEIGHT, WIDTH, colour, counts, exif

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


EXIF_IN_XMP = (
    b'<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:FocalLength="672/100" '
    b"exif:FocalPlaneXResolution='5000/10' exif:FocalPlaneResolutionUnit=\"3\">"
    b"<exif:FocalLengthIn35mmFilm> 24 </exif:FocalLengthIn35mmFilm></rdf:Description>"
)


def test_exif_fields_within_xmp() -> None:
    text = PIL.PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", EXIF_IN_XMP.decode("ascii"))
    for data in (encoded(colour(), "JPEG", xmp=EXIF_IN_XMP), encoded(colour(), "PNG", pnginfo=text)):
        camera = read_camera(inspect(data))
        assert camera is not None
        assert (camera.focal_length, camera.focal_length_35mm) == (6.72, 24)
        assert camera.focal_plane_resolution == 50, "per mm"
    both = read_camera(inspect(encoded(colour(), "JPEG", xmp=EXIF_IN_XMP, exif=camera_exif(equivalent=40))))
    assert both is not None
    assert both.focal_length_35mm == 40, "the block of the camera comes before the packet of an editor"


@pytest.mark.parametrize("value", [b"x", b"0", b"-3", b"1/0", b"nan", b"inf", b"", b"1e99"])
def test_numbers_in_xmp_that_are_none(value: bytes) -> None:
    assert read_camera(inspect(encoded(colour(), "JPEG", xmp=b'exif:FocalLength="' + value + b'"'))) is None


@pytest.mark.parametrize("filler", [b" ", b"drone-dji:A>", b"drone-dji:A ", b"exif:", b"a"])
def test_a_hostile_packet_takes_no_time(filler: bytes) -> None:
    container = dataclasses.replace(inspect(encoded(colour(), "JPEG")), xmp=b"exif:A>" + filler * 300_000)
    start = time.process_time()
    assert read_camera(container) is None
    assert time.process_time() - start < 1.5


def test_a_picture_that_was_cropped_tells_nothing() -> None:
    camera = Camera(focal_length_35mm=24.0, calibrated_focal_length=3000.0, width=4000, height=3000)
    for size in ((4000, 3000), (3000, 4000), (1000, 750), (133, 100), (40, 30)):
        assert camera.focal_length_px(size) == pytest.approx(24 / math.hypot(36, 24) * math.hypot(*size))
    for size in ((3000, 3000), (4000, 2000), (640, 512)):
        assert camera.focal_length_px(size) is None
    turned = Camera(field_of_view=90.0).focal_length_px((300, 400))
    assert turned == pytest.approx(200), "the angle is along the longer side, however it is held"


# --- two files ---------------------------------------------------------------------------------------------


def from_file(path: Path, data: bytes) -> Picture:
    path.write_bytes(data)
    return read_image(path)


def test_two_files_with_focal_lengths(tmp_path: Path) -> None:
    ir = from_file(tmp_path / "t.jpg", encoded(colour(), "JPEG", exif=camera_exif(equivalent=40, width=0)))
    wide = np.ascontiguousarray(np.tile(colour(), (4, 4, 1)))
    rgb = from_file(tmp_path / "v.jpg", encoded(wide, "JPEG", exif=camera_exif(equivalent=24, width=0)))
    assert (ir.size, rgb.size) == ((HEIGHT, WIDTH), (4 * HEIGHT, 4 * WIDTH)), "both held upright"
    assert field_ratio(ir, rgb) == pytest.approx(0.6)
    place = placement(ir, rgb)
    assert place is not None
    np.testing.assert_allclose(place[:2, :2], 2.4 * np.eye(2), atol=1e-6)
    centre = place @ [(ir.width - 1) / 2, (ir.height - 1) / 2, 1]
    np.testing.assert_allclose(centre, [(rgb.width - 1) / 2, (rgb.height - 1) / 2, 1])
    assert placement(rgb, from_file(tmp_path / "x.png", encoded(colour(), "PNG"))) is None


def test_two_files_of_djis_cameras(tmp_path: Path) -> None:
    """Calibrated focal lengths alone, in px."""
    packet = XMP.replace(b"712.5", b"40.0")
    ir = from_file(tmp_path / "t.jpg", encoded(colour(), "JPEG", xmp=packet))
    assert ir.camera is not None
    assert ir.camera.is_infrared
    rgb = from_file(tmp_path / "v.jpg", encoded(colour(), "JPEG", xmp=packet.replace(b"40.0", b"10.0")))
    assert field_ratio(ir, rgb) == pytest.approx(0.25)
    assert field_ratio(rgb, ir) == pytest.approx(4.0)


def test_a_flir_file_and_its_visual_picture(tmp_path: Path) -> None:
    data = flir_jpeg(counts(), encoded(colour(), "PNG"), real_to_ir=2.0)
    shown = from_file(tmp_path / "FLIR0001.jpg", data)
    both = read_rjpeg(tmp_path / "FLIR0001.jpg")
    extracted = from_file(tmp_path / "visual.png", encoded(colour(), "PNG"))
    for ir in (shown, both.thermal):
        for rgb in (both.visual, extracted):
            assert field_ratio(ir, rgb) == pytest.approx(0.5)
            place = placement(ir, rgb)
            assert place is not None
            assert both.prior is not None
            np.testing.assert_allclose(place, both.prior)
            centre = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2, 1])
            np.testing.assert_allclose(place @ centre, centre + np.array([3, -2, 0]))


def test_a_larger_visual_picture_of_the_same_flir_camera(tmp_path: Path) -> None:
    """Many FLIR cameras write one beside the radiometric file, at full size."""
    shown = from_file(
        tmp_path / "FLIR0001.jpg", flir_jpeg(counts(), encoded(colour(), "PNG"), real_to_ir=2.0)
    )
    tags = exif(1)
    tags[0x10F], tags[0x110] = "FLIR Systems AB", "FLIR E60"
    large = np.ascontiguousarray(np.repeat(np.repeat(colour(), 3, 0), 3, 1))
    rgb = from_file(tmp_path / "DC_0002.jpg", encoded(large, "JPEG", exif=tags))
    assert field_ratio(shown, rgb) == pytest.approx(0.5)
    place = placement(shown, rgb)
    assert place is not None
    centre = place @ [(WIDTH - 1) / 2, (HEIGHT - 1) / 2, 1]
    np.testing.assert_allclose(centre, [(3 * WIDTH - 1) / 2 + 9, (3 * HEIGHT - 1) / 2 - 6, 1])
    tags[0x110] = "FLIR E8"
    assert field_ratio(shown, from_file(tmp_path / "o.jpg", encoded(large, "JPEG", exif=tags))) is None
    assert field_ratio(shown, from_file(tmp_path / "p.png", encoded(large, "PNG"))) is None, "of any camera"


def test_flirs_offset_is_left_out_where_it_is_damage() -> None:
    camera = Camera(make="FLIR", real_to_ir=2.0, offset=(30_000, 0), visual_size=(WIDTH, HEIGHT))
    rgb = Picture(colour())
    place = placement(Picture(counts(), camera=camera), rgb)
    assert place is not None
    np.testing.assert_allclose(place @ [(WIDTH - 1) / 2, (HEIGHT - 1) / 2, 1], [(WIDTH - 1) / 2, 11.5, 1])


def test_files_without_a_word_give_no_ratio() -> None:
    assert field_ratio(Picture(counts()), Picture(colour())) is None
    assert placement(Picture(counts()), Picture(colour())) is None
