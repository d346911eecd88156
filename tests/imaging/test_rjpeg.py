from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from homoreg.errors import ImageReadError, InputError
from homoreg.imaging.colour import is_luma_chroma, ycbcr_to_rgb
from homoreg.imaging.containers import inspect
from homoreg.imaging.flir import parse_flir
from homoreg.imaging.metadata import placement
from homoreg.imaging.reading import read_image
from homoreg.imaging.rjpeg import read_rjpeg
from homoreg.imaging.tone import fit_tone
from homoreg.registrar import Registrar
from homoreg.registration import Registration
from tests.fuzz.seeds import encoded, flir_block, flir_jpeg
from tests.imaging.pictures import HEIGHT, WIDTH, Array, colour, counts

TOWER = Path(__file__).resolve().parents[2] / "examples" / "samples" / "tower_rjpeg"


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("png", [True, False])
@pytest.mark.parametrize("part", [60_000, 700])
def test_counts_and_visual_picture(tmp_path: Path, png: bool, part: int) -> None:
    data = flir_jpeg(counts(), encoded(colour(), "PNG"), png=png, part=part)
    both = read_rjpeg(written(tmp_path / "FLIR0001.jpg", data))
    np.testing.assert_array_equal(both.thermal.pixels, counts())
    np.testing.assert_array_equal(both.visual.pixels, colour())
    assert both.thermal.name == "FLIR0001.jpg (thermal)"
    assert both.visual.name == "FLIR0001.jpg (visual)"
    assert both.camera is not None
    assert both.camera.field_of_view == 25


def test_the_shown_picture_is_read_as_any_jpeg(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jpg", flir_jpeg(counts(), encoded(colour(), "PNG")))
    shown = read_image(path)
    assert shown.size == (WIDTH, HEIGHT)
    plain = read_image(written(tmp_path / "plain.jpg", encoded(colour(), "JPEG")))
    np.testing.assert_array_equal(shown.pixels, plain.pixels)
    assert shown.camera is not None
    assert shown.camera.model == "FLIR E60"


def test_the_cameras_own_prior(tmp_path: Path) -> None:
    data = flir_jpeg(counts(), encoded(colour(), "PNG"), real_to_ir=2.0)
    prior = read_rjpeg(written(tmp_path / "a.jpg", data)).prior
    assert prior is not None
    centre = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2, 1])
    # Both pictures have one size here, so half the field of view is half the scale; the offset is (3, -2).
    np.testing.assert_allclose(prior @ centre, centre + np.array([3, -2, 0]))
    assert prior[0, 0] == prior[1, 1] == 0.5


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf"), 100.0])
def test_no_prior_of_a_ratio_that_makes_no_sense(tmp_path: Path, ratio: float) -> None:
    data = flir_jpeg(counts(), encoded(colour(), "PNG"), real_to_ir=ratio)
    assert read_rjpeg(written(tmp_path / "a.jpg", data)).prior is None


def as_luma_and_chroma(rgb: Array) -> Array:
    red, green, blue = np.moveaxis(rgb.astype(np.float64), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    stacked = np.stack([luma, 128 + (blue - luma) / 1.772, 128 + (red - luma) / 1.402], axis=-1)
    return np.asarray(stacked.round().clip(0, 255), np.uint8)


def natural(height: int = 40, width: int = 60) -> Array:
    """Greys with a weak tint, as most of what cameras see."""
    rng = np.random.default_rng(0)
    base = rng.integers(20, 220, (height, width, 1))
    return np.asarray(base + rng.integers(0, 25, (height, width, 3)), np.uint8)


def test_a_visual_picture_of_luma_and_chroma(tmp_path: Path) -> None:
    data = flir_jpeg(counts(), encoded(as_luma_and_chroma(natural()), "PNG"))
    visual = read_rjpeg(written(tmp_path / "a.jpg", data)).visual.pixels
    assert abs(visual.astype(int) - natural()).max() <= 2


def test_red_green_and_blue_are_told_from_luma_and_chroma() -> None:
    assert not is_luma_chroma(natural())
    assert is_luma_chroma(as_luma_and_chroma(natural()))
    assert not is_luma_chroma(natural()[..., 0])
    assert not is_luma_chroma(natural().astype(np.uint16))
    assert abs(ycbcr_to_rgb(as_luma_and_chroma(natural())).astype(int) - natural()).max() <= 2


def refused(path: Path) -> str:
    with pytest.raises(ImageReadError) as caught:
        read_rjpeg(path)
    message = str(caught.value)
    assert message.startswith(f"cannot read the radiometric JPEG {str(path)!r}: ")
    return message


def test_what_is_no_radiometric_jpeg(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "no.jpg")
    assert "it holds no FLIR records" in refused(written(tmp_path / "a.jpg", encoded(colour(), "JPEG")))
    assert "it holds no FLIR records" in refused(written(tmp_path / "a.png", encoded(colour(), "PNG")))
    whole = flir_jpeg(counts(), encoded(colour(), "PNG"))
    assert "truncated" in refused(written(tmp_path / "b.jpg", whole[:2000]))


def test_damaged_records(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    assert "no visual picture" in refused(written(path, flir_jpeg(counts(), b"")))
    assert "visual picture is damaged" in refused(written(path, flir_jpeg(counts(), b"not an image at all")))
    deep = encoded(counts(), "PNG")
    assert "visual picture is uint16" in refused(written(path, flir_jpeg(counts(), deep)))
    tiny = flir_jpeg(counts()[:8], encoded(colour(), "PNG"))
    assert "at least 16 x 16" in refused(written(path, tiny))


def test_records_are_checked_before_anything_is_read() -> None:
    block = flir_block(counts(), encoded(colour(), "PNG"), png=False)
    assert parse_flir(block) is not None
    assert parse_flir(block[:60]) is None
    assert parse_flir(b"XXX\0" + block[4:]) is None
    many = bytearray(block)
    many[28:32] = b"\xff\xff\xff\xff"  # records
    assert parse_flir(bytes(many)) is None
    cut = parse_flir(block[: len(block) // 2])
    assert cut is not None
    assert cut.visual == b"", "a record that runs over the end is left out"


@pytest.mark.parametrize("png", [True, False])
def test_counts_that_are_cut_off_or_declare_too_much(tmp_path: Path, png: bool) -> None:
    whole = flir_jpeg(counts(), encoded(colour(), "PNG"), png=png)
    record = inspect(whole).flir.index(counts().astype("<u2").tobytes()[:64]) - 32 if not png else None
    data = bytearray(whole)
    if record is not None:
        at = whole.index(inspect(whole).flir[record : record + 40])
        data[at + 2 : at + 6] = b"\xff\xff\xff\xff"
        assert "declare 65535 x 65535 pixels" in refused(written(tmp_path / "a.jpg", bytes(data)))
        data[at + 2 : at + 6] = b"\x90\x01\x90\x01"
        assert "cut off" in refused(written(tmp_path / "a.jpg", bytes(data)))
    else:
        at = whole.index(b"IDAT")
        data[at + 10] ^= 0xFF
        assert "radiometric data are damaged" in refused(written(tmp_path / "a.jpg", bytes(data)))


# --- a real one --------------------------------------------------------------------------------------------


def test_a_real_camera_s_file() -> None:
    both = read_rjpeg(TOWER / "original_radiometric.jpg")
    np.testing.assert_array_equal(both.thermal.pixels, read_image(TOWER / "thermal_raw.tiff").pixels)
    assert abs(both.visual.pixels.astype(int) - read_image(TOWER / "rgb.png").pixels).max() <= 1
    assert both.camera is not None
    assert both.camera.model == "Flir b60"
    assert both.camera.field_of_view == pytest.approx(23.1, abs=0.1)
    truth = np.array(json.loads((TOWER / "gt.json").read_text(encoding="utf-8"))["H_ir_to_rgb"])
    corners = np.array([[0, 0, 1], [179, 0, 1], [179, 179, 1], [0, 179, 1]], np.float64)
    assert both.prior is not None
    # The camera knows neither the distance nor that its visual camera is turned by a degree.
    errors = np.linalg.norm((corners @ (both.prior - truth).T)[:, :2], axis=1)
    assert errors.mean() < 5


def test_temperatures_of_a_real_camera_s_file() -> None:
    pytest.importorskip("flyr")
    both = read_rjpeg(TOWER / "original_radiometric.jpg")
    kelvin = both.temperatures()
    assert kelvin.dtype == np.float32
    assert kelvin.shape == both.thermal.pixels.shape
    assert 255 < np.median(kelvin) < 275, "a winter's day"
    # Hotter pixels have more counts.
    order = np.argsort(both.thermal.pixels, axis=None, kind="stable")
    assert (np.diff(kelvin.reshape(-1)[order]) >= -1e-3).all()


def test_warped_temperatures_are_right() -> None:
    """Temperatures and counts go the same way, so that those of a warped picture can be looked up."""
    pytest.importorskip("flyr")
    both = read_rjpeg(TOWER / "original_radiometric.jpg")
    assert both.prior is not None
    registration = Registration.build(
        both.prior,
        ir=both.thermal,
        rgb=both.visual,
        ir_tone=fit_tone(both.thermal, "ir"),
        rgb_tone=fit_tone(both.visual, "rgb"),
        expected_error=1.0,
        confidence=0.9,
        reliable=True,
        model="test",
    )
    kelvin = both.temperatures()
    counts, valid = registration.warp(interpolation="nearest", return_mask=True)
    warped = registration.warp(kelvin, interpolation="nearest", fill=np.nan)
    assert counts.dtype == np.uint16
    assert warped.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(warped), ~valid)
    known = dict(zip(both.thermal.pixels.ravel().tolist(), kelvin.ravel().tolist(), strict=True))
    expected = [known[count] for count in counts[valid].tolist()]
    np.testing.assert_allclose(warped[valid], expected, atol=1e-4)


def test_the_shown_picture_of_a_real_camera_lies_where_its_counts_do() -> None:
    shown, visual = read_image(TOWER / "original_radiometric.jpg"), read_image(TOWER / "rgb.png")
    both = read_rjpeg(TOWER / "original_radiometric.jpg")
    place = placement(shown, visual)
    assert place is not None
    assert both.prior is not None
    resize = np.diag([180 / 240, 180 / 240, 1.0])
    resize[:2, 2] = (180 / 240 - 1) / 2
    np.testing.assert_allclose(place, both.prior @ resize, atol=1e-9)


def test_the_registrar_gets_both_pictures_and_where_the_camera_says_that_they_lie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(Registrar, "__call__", lambda self, *pair, **options: seen.append((pair, options)))
    registrar = object.__new__(Registrar)
    registrar.register_rjpeg(TOWER / "original_radiometric.jpg")
    registrar.register_rjpeg(TOWER / "original_radiometric.jpg", prior=np.eye(3), effort="fast")
    (thermal, visual), options = seen[0]
    assert (thermal.pixels.dtype, thermal.size, visual.size) == (np.uint16, (180, 180), (480, 480))
    assert options["prior"] == "auto"
    told, expected = placement(thermal, visual), read_rjpeg(TOWER / "original_radiometric.jpg").prior
    assert told is not None
    assert expected is not None
    np.testing.assert_array_equal(told, expected)
    np.testing.assert_array_equal(seen[1][1]["prior"], np.eye(3))
    assert seen[1][1]["effort"] == "fast"


# --- temperatures ------------------------------------------------------------------------------------------


def test_temperatures_need_flyr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = read_rjpeg(written(tmp_path / "a.jpg", flir_jpeg(counts(), encoded(colour(), "PNG"))))
    load = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "flyr":
            raise ImportError(name)
        return load(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'homoreg\[thermal\]'"):
        both.temperatures()


def test_constants_that_give_no_temperatures(tmp_path: Path) -> None:
    pytest.importorskip("flyr")
    both = read_rjpeg(written(tmp_path / "a.jpg", flir_jpeg(counts(), encoded(colour(), "PNG"))))
    with pytest.raises(InputError, match="use the counts"):
        both.temperatures()
