"""The seed corpus: small whole files of every format the reader takes, made by code, the same each time."""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageCms

from tests.imaging.pictures import HEIGHT, WIDTH, Array, colour, counts, exif, grey

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/" '
    b'drone-dji:ImageSource="InfraredCamera" drone-dji:GimbalYawDegree="+12.5">'
    b"<drone-dji:CalibratedFocalLength>712.5</drone-dji:CalibratedFocalLength>"
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def encoded(pixels: Array, kind: str, **options: Any) -> bytes:
    """File of a picture as Pillow writes it."""
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def camera_exif(**values: float) -> PIL.Image.Exif:
    """Exif of a camera, with its focal lengths in the inner directory."""
    tags = exif(6)
    tags[0x10F], tags[0x110] = "DJI", "M3T"
    inner = {0x920A: values.get("focal_length", 9.1), 0xA405: values.get("equivalent", 40)}
    inner |= {0xA003: values["height"]} if "height" in values else {}
    inner |= {0xA002: values.get("width", 640), 0xA404: 1.0, 0xA20E: 83.0, 0xA210: 4}
    tags.get_ifd(0x8769).update(inner)
    return tags


def segment(code: int, body: bytes) -> bytes:
    return b"\xff" + bytes([code]) + struct.pack(">H", len(body) + 2) + body


def flir_block(raw: Array, visual: bytes, *, png: bool, real_to_ir: float = 1.5) -> bytes:
    """Records of a FLIR camera: counts, visual picture, camera, and how both pictures lie."""
    height, width = raw.shape
    body = encoded(raw.byteswap(), "PNG") if png else raw.astype("<u2").tobytes()
    image = struct.pack("<HHH", 2, width, height) + bytes(26) + body
    embedded = struct.pack("<HHH", 2, WIDTH, HEIGHT) + bytes(26) + visual
    camera = bytearray(1000)
    camera[212:220] = b"FLIR E60"
    struct.pack_into("<f", camera, 436, 25.0)
    overlap = struct.pack("<f6h", real_to_ir, 3, -2, 0, 10, 0, 10) + bytes(4)
    records = [(1, image), (14, embedded), (32, bytes(camera)), (42, overlap)]
    head = b"FFF\0" + b"ATAU\0".ljust(16, b"\0") + struct.pack(">III", 101, 64, len(records)) + bytes(32)
    start = 64 + 32 * len(records)
    directory = b""
    for kind, content in records:
        directory += struct.pack(">HHIIII", kind, 1, 100, 1, start, len(content)) + bytes(12)
        start += len(content)
    return head + directory + b"".join(content for _, content in records)


def flir_jpeg(raw: Array, visual: bytes, *, png: bool = False, part: int = 60_000, **options: Any) -> bytes:
    """Radiometric JPEG: a palette picture with the records in its APP1 segments."""
    shown = encoded(colour(), "JPEG")
    block = flir_block(raw, visual, png=png, **options)
    parts = [block[at : at + part] for at in range(0, len(block), part)]
    segments = [
        segment(0xE1, b"FLIR\0\x01" + bytes([number, len(parts) - 1]) + body)
        for number, body in enumerate(parts)
    ]
    return shown[:2] + b"".join(segments) + shown[2:]


def tiff_chain(count: int, *, loop: bool) -> bytes:
    """TIFF of many directories, all of the same pixels; the last one leads nowhere, or back to the first."""
    width, height = 20, 18
    pixels = np.arange(width * height, dtype=np.uint8).tobytes()
    start = 8 + len(pixels)
    entries = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    entries.append((279, len(pixels)))
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    size = 2 + len(body) + 4
    head = struct.pack("<H", len(entries)) + body
    following = [start + size * number for number in range(1, count)] + [start if loop else 0]
    chain = b"".join(head + struct.pack("<I", position) for position in following)
    return b"II*\0" + struct.pack("<I", start) + pixels + chain


def tiff_pile(count: int) -> bytes:
    """TIFF of directories that lie over each other, each of very many entries."""
    claimed = 2**15 - 1  # entries of each: what is two bytes of its own number is the next one's number
    first, after = 8, 8 + 2 + 12 * claimed
    data = bytearray(after + 4 * count)
    data[:8] = b"II*\0" + struct.pack("<I", first)
    data[8 : 8 + 4 * count] = struct.pack("<H", claimed) * (2 * count)
    data[after:] = b"".join(struct.pack("<I", first + 4 * number) for number in range(1, count + 1))
    return bytes(data)


def _npy(pixels: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, pixels)
    return stream.getvalue()


def _rgba() -> Array:
    alpha = np.where(grey() > 60, 255, 0).astype(np.uint8)
    return np.dstack([colour(), alpha])


def _geotiff(**options: Any) -> bytes:
    import rasterio

    bands = np.moveaxis(colour(), -1, 0)
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            height=bands.shape[1],
            width=bands.shape[2],
            count=3,
            dtype="uint8",
            crs="EPSG:32633",
            transform=rasterio.Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000),
            **options,
        ) as target:
            target.write(bands)
        memory.seek(0)
        return bytes(memory.read())


@lru_cache(maxsize=1)
def seeds() -> dict[str, bytes]:
    """Whole files by name."""
    cmyk = np.dstack([colour(), grey() // 3])
    stream = io.BytesIO()
    PIL.Image.fromarray(cmyk, "CMYK").save(stream, "JPEG")
    frames = [PIL.Image.fromarray(counts() + np.uint16(add)) for add in (0, 10, 20)]
    pages = io.BytesIO()
    frames[0].save(pages, "TIFF", save_all=True, append_images=frames[1:])
    p3 = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("XYZ")).tobytes()
    jpeg = encoded(colour(), "JPEG", exif=camera_exif(), xmp=XMP)
    visual = np.dstack([grey(), grey() // 8 + 118, 138 - grey() // 8])
    files = {
        "grey.png": encoded(grey(), "PNG"),
        "counts.png": encoded(counts(), "PNG"),
        "colour.png": encoded(colour(), "PNG", exif=exif(5)),
        "alpha.png": encoded(_rgba(), "PNG"),
        "bits.png": encoded(grey() > 99, "PNG"),
        "baseline.jpg": jpeg,
        "progressive.jpg": encoded(colour(), "JPEG", progressive=True, icc_profile=p3),
        "grey.jpg": encoded(grey(), "JPEG"),
        "cmyk.jpg": stream.getvalue(),
        "thermal.jpg": flir_jpeg(counts(), encoded(visual, "PNG"), part=900),
        "thermal_png.jpg": flir_jpeg(counts(), encoded(colour(), "JPEG"), png=True),
        "lossy.webp": encoded(colour(), "WEBP", exif=exif(3), xmp=XMP),
        "lossless.webp": encoded(_rgba(), "WEBP", lossless=True),
        "colour.bmp": encoded(colour(), "BMP"),
        "grey.bmp": encoded(grey(), "BMP"),
        "bits.bmp": encoded(grey() > 99, "BMP"),
        "colour.ppm": encoded(colour(), "PPM"),
        "counts.pgm": encoded(counts(), "PPM"),
        "plain.tif": encoded(colour(), "TIFF"),
        "counts.tif": encoded(counts(), "TIFF", compression="tiff_lzw"),
        "kelvin.tif": encoded(counts().astype(np.float32), "TIFF", compression="tiff_adobe_deflate"),
        "alpha.tif": encoded(_rgba(), "TIFF", compression="packbits"),
        "jpeg.tif": encoded(colour(), "TIFF", compression="jpeg"),
        "fax.tif": encoded(grey() > 99, "TIFF", compression="group4"),
        "pages.tif": pages.getvalue(),
        "chain.tif": tiff_chain(40, loop=True),
        "grey.npy": _npy(grey()),
        "kelvin.npy": _npy(counts().astype(np.float64)),
        "colour.npy": _npy(np.asfortranarray(colour())),
    }
    try:
        files["geo.tif"] = _geotiff()
        files["tiled.tif"] = _geotiff(tiled=True, blockxsize=16, blockysize=16, compress="deflate")
        files["planes.tif"] = _geotiff(interleave="band", compress="zstd", BIGTIFF="YES")
    except ImportError:  # the extra is optional, and so are its seeds
        pass
    return files
