"""Ways in which a file goes wrong, drawn from a seed and a number."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from tests.fuzz.seeds import seeds, tiff_chain, tiff_pile

SUFFIXES = (".png", ".jpg", ".tif", ".webp", ".bmp", ".npy", ".ppm", ".txt", "")
# What arithmetic on sizes trips over.
AWKWARD = (0, 1, 2, 15, 255, 256, 4095, 16383, 32767, 32768, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def case(seed: int, index: int) -> tuple[str, bytes]:
    """Name and content of a damaged file; the same for the same seed and index.

    One in thirty is whole, so that the harness is seen to read files, and not only to refuse them.
    """
    rng = np.random.default_rng([seed, index])
    files = seeds()
    name = str(rng.choice(list(files)))
    data = files[name]
    if index % 30 == 0:
        return name, data
    if rng.random() < 0.02:
        return "chain.tif", tiff_chain(int(rng.choice([1, 100, 5000, 70_000])), loop=bool(rng.random() < 0.5))
    if rng.random() < 0.004:
        return "pile.tif", tiff_pile(int(rng.choice([1, 100, 5000, 70_000])))
    if rng.random() < 0.01:
        return name, b""
    for _ in range(int(rng.integers(1, 4))):
        data = _mutate(rng, data)
    if data.startswith(b"\x89PNG") and rng.random() < 0.7:
        data = with_checksums(data)  # else hardly a damaged PNG would get past its first part
    if rng.random() < 0.15:
        name = f"{name.split('.')[0]}{rng.choice(SUFFIXES)}"
    return name, data


def _mutate(rng: np.random.Generator, data: bytes) -> bytes:
    kind = rng.choice(
        ["cut", "bits", "bytes", "number", "number", "drop", "repeat", "splice", "zeros", "huge"]
    )
    content = bytearray(data)
    # Headers decide most, so half of the damage is done in them.
    reach = len(data) if rng.random() < 0.5 else min(len(data), 256)
    at = int(rng.integers(0, max(1, reach)))
    length = int(rng.integers(1, 65))
    if kind == "cut":
        return data[: int(rng.integers(0, len(data) + 1))]
    if kind == "bits":
        for _ in range(int(rng.integers(1, 9))):
            place = int(rng.integers(0, max(1, reach)))
            if place < len(content):
                content[place] ^= 1 << int(rng.integers(0, 8))
    elif kind == "bytes":
        content[at : at + length] = rng.bytes(length)
    elif kind == "number":
        layout = str(rng.choice(["<H", ">H", "<I", ">I"]))
        limit = 2 ** (8 * struct.calcsize(layout)) - 1
        new = struct.pack(layout, min(limit, int(rng.choice(AWKWARD))))
        content[at : at + len(new)] = new
    elif kind == "drop":
        del content[at : at + length]
    elif kind == "repeat":
        content[at:at] = content[at : at + length] * int(rng.integers(1, 50))
    elif kind == "splice":
        other = seeds()[str(rng.choice(list(seeds())))]
        content = content[:at] + bytearray(other[int(rng.integers(0, len(other))) :])
    elif kind == "zeros":
        content[at : at + length] = bytes(length)
    else:
        content = bytearray(with_huge_size(rng, data))
    return bytes(content)


def with_huge_size(rng: np.random.Generator, data: bytes) -> bytes:
    """The file with another declared width or height, if its place is known."""
    content = bytearray(data)
    size = int(rng.choice([0, 1, 5000, 16_384, 20_000, 65_535, 2**20, 2**31 - 1, 2**32 - 1]))
    if data.startswith(b"\x89PNG") and len(data) > 24:
        struct.pack_into(">I", content, int(rng.choice([16, 20])), size)
    elif data.startswith(b"\xff\xd8"):
        for code in (b"\xff\xc0", b"\xff\xc2"):
            frame = data.find(code)
            if 0 <= frame < len(data) - 9:
                struct.pack_into(">H", content, frame + int(rng.choice([5, 7])), min(size, 65_535))
    elif data.startswith(b"BM") and len(data) > 26:
        struct.pack_into("<I", content, int(rng.choice([18, 22])), size)
    elif data[:2] in (b"II", b"MM"):
        order = "<" if data[:2] == b"II" else ">"
        for tag in (256, 257, 322, 323, 278):
            for kind, layout in ((3, "H"), (4, "I")):
                entry = data.find(struct.pack(f"{order}HHI", tag, kind, 1))
                if 0 <= entry < len(data) - 12 and rng.random() < 0.5:
                    value = min(size, 2 ** (8 * struct.calcsize(layout)) - 1)
                    struct.pack_into(order + layout, content, entry + 8, value)
    elif data[:4] == b"RIFF" and len(data) > 30:
        struct.pack_into("<I", content, int(rng.choice([21, 24, 26])), size & 0xFFFFFF)
    return bytes(content)


def with_checksums(data: bytes) -> bytes:
    """A PNG with the checksums of its parts made right, as far as its parts can be told."""
    content = bytearray(data)
    position = 8
    while position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        end = position + 8 + length
        if end + 4 > len(content):
            break
        struct.pack_into(">I", content, end, zlib.crc32(bytes(content[position + 4 : end])))
        position = end + 4
    return bytes(content)
