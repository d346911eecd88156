from __future__ import annotations

import struct
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homoreg.imaging.tiff import MAX_PAGES, Directory, Tiff
from tests.fuzz.seeds import encoded, tiff_chain, tiff_pile
from tests.imaging.pictures import HEIGHT, WIDTH, counts


def structure(order: str, entries: list[tuple[int, int, int, bytes]], tail: bytes = b"") -> bytes:
    """TIFF with one directory, whose entries are (tag, type, count, four bytes)."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    body = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count) + value for tag, kind, count, value in entries
    )
    return mark + struct.pack(f"{order}IH", 8, len(entries)) + body + bytes(4) + tail


def only(data: bytes) -> Directory:
    tiff = Tiff.parse(data)
    assert tiff is not None
    directory = tiff.directory(tiff.first)
    assert directory is not None
    return directory


@pytest.mark.parametrize("order", ["<", ">"])
def test_values_of_every_type(order: str) -> None:
    start = 8 + 2 + 12 * 5 + 4
    tail = (
        struct.pack(f"{order}II", 91, 10)
        + struct.pack(f"{order}ii", -5, 0)
        + struct.pack(f"{order}2d", 1.5, -2)
    )
    directory = only(
        structure(
            order,
            [
                (1, 3, 1, struct.pack(f"{order}HH", 6, 0)),
                (2, 2, 4, b"DJI\0"),
                (3, 5, 1, struct.pack(f"{order}I", start)),
                (4, 10, 1, struct.pack(f"{order}I", start + 8)),
                (5, 12, 2, struct.pack(f"{order}I", start + 16)),
            ],
            tail,
        )
    )
    assert directory.whole(1) == 6
    assert directory.text(2) == "DJI"
    assert directory.number(3) == 9.1
    assert directory.numbers(4) == (0.0,), "a ratio over zero is no reason to fail"
    assert directory.numbers(5) == (1.5, -2.0)
    assert directory.whole(3, 7) == 7, "a fraction is no whole number"
    assert (directory.number(9, 2.5), directory.text(9), directory.numbers(2)) == (2.5, "", ())


def test_values_beyond_the_end_are_missing() -> None:
    directory = only(
        structure("<", [(1, 4, 2, struct.pack("<I", 10_000)), (2, 2, 99, struct.pack("<I", 20))])
    )
    assert directory.numbers(1) == ()
    assert directory.text(2) == ""


def test_what_is_no_tiff() -> None:
    for data in (b"", b"II", b"II*\0", b"IX*\0\0\0\0\0", b"II+\0\0\0\0\0", b"PNG     "):
        assert Tiff.parse(data) is None


def test_a_directory_that_is_cut_off() -> None:
    data = structure("<", [(256, 3, 1, bytes(4))] * 5)
    tiff = Tiff.parse(data[:40])
    assert tiff is not None
    assert tiff.directory(8) is None
    assert tiff.directory(0) is None
    assert tiff.directory(10_000) is None
    assert tiff.pages() == []


def test_pages_are_found_and_a_loop_ends() -> None:
    for loop in (True, False):
        tiff = Tiff.parse(tiff_chain(7, loop=loop))
        assert tiff is not None
        assert len(tiff.pages()) == 7


def test_a_chain_is_followed_no_further_than_the_limit() -> None:
    tiff = Tiff.parse(tiff_chain(MAX_PAGES + 10, loop=False))
    assert tiff is not None
    assert len(tiff.pages()) == MAX_PAGES


def test_another_page_in_first_place() -> None:
    tiff = Tiff.parse(tiff_chain(3, loop=False))
    assert tiff is not None
    pages = tiff.pages()
    turned = Tiff.parse(tiff.with_first(pages[2]))
    assert turned is not None
    assert turned.pages() == pages[2:]
    assert len(turned.data) == len(tiff.data)


def test_a_big_tiff() -> None:
    rasterio = pytest.importorskip("rasterio")
    with rasterio.MemoryFile() as memory:
        options = {"driver": "GTiff", "width": WIDTH, "height": HEIGHT, "count": 1, "dtype": "uint16"}
        with (
            pytest.warns(rasterio.errors.NotGeoreferencedWarning),
            memory.open(BIGTIFF="YES", **options) as target,
        ):
            target.write(counts()[None])
        memory.seek(0)
        data = memory.read()
    tiff = Tiff.parse(data)
    assert tiff is not None
    assert tiff.big
    assert only(data).numbers(256) == (WIDTH,)
    assert tiff.with_first(tiff.first) == data


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    place=st.integers(0, 250),
    value=st.binary(min_size=1, max_size=8),
    cut=st.integers(0, 3000),
)
def test_damage_is_never_an_exception(place: int, value: bytes, cut: int) -> None:
    data = bytearray(encoded(np.asarray(counts()), "TIFF"))
    data[place : place + len(value)] = value
    tiff = Tiff.parse(bytes(data[: len(data) - cut]))
    if tiff is None:
        return
    for page in tiff.pages():
        directory = tiff.directory(page)
        assert directory is not None
        for tag in directory.entries:
            directory.numbers(tag)
            directory.text(tag)


@pytest.mark.parametrize("make", [lambda: tiff_chain(70_000, loop=True), lambda: tiff_pile(80_000)])
def test_a_deep_chain_takes_no_time(make: Callable[[], bytes]) -> None:
    tiff = Tiff.parse(make())
    assert tiff is not None
    start = time.process_time()
    pages = tiff.pages()
    tiff.directory(tiff.first)
    assert time.process_time() - start < 1
    assert len(pages) in (0, MAX_PAGES)


def test_more_entries_than_a_picture_has_are_damage() -> None:
    entry = (1, 3, 1, b"\1\0\0\0")
    for count, known in ((4096, True), (4097, False)):
        tiff = Tiff.parse(structure("<", [entry] * count))
        assert tiff is not None
        assert bool(tiff.pages()) is known
        assert (tiff.directory(tiff.first) is not None) is known
