"""The structure of TIFF files and of Exif blocks, read without trusting a single number in it.

Source: TIFF 6.0, sections 2 and 8; the BigTIFF extension; Exif 2.3, section 4.6.2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["MAX_PAGES", "Directory", "Tiff"]

MAX_PAGES = 65536
"""A chain of directories is followed no further than this."""

_MAX_ENTRIES = 4096  # pictures have some twenty; more are damage, and take their time
_MAX_VALUES = 65536  # a longer list is pixels' business (strip offsets), which nothing here reads
# Type number to struct code: BYTE, ASCII, SHORT, LONG, RATIONAL, SBYTE, UNDEFINED, SSHORT, SLONG, SRATIONAL,
# FLOAT, DOUBLE, IFD; LONG8, SLONG8, IFD8 of BigTIFF.
_CODES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i", 10: "ii"}
_CODES |= {11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_RATIONALS, _STRINGS = (5, 10), (2, 7)


@dataclass(frozen=True)
class Directory:
    """Entries of one image file directory, decoded when asked for.

    Parameters
    ----------
    data
        The whole structure.
    order
        "<" or ">".
    entries
        By tag: type, number of values, position of the first one.
    following
        Position of the next directory; 0 if this is the last.
    """

    data: bytes
    order: str
    entries: dict[int, tuple[int, int, int]]
    following: int = 0

    def numbers(self, tag: int) -> tuple[float, ...]:
        """Values of a tag, whole numbers as `int`; empty if it is missing, too long or no number."""
        kind, count, start = self.entries.get(tag, (0, 0, 0))
        code = _CODES.get(kind, "")
        if not code or kind in _STRINGS or not 0 < count <= _MAX_VALUES:
            return ()
        layout = f"{self.order}{code * count}"
        if start + struct.calcsize(layout) > len(self.data):
            return ()
        values = struct.unpack_from(layout, self.data, start)
        if kind in _RATIONALS:
            return tuple(a / b if b else 0.0 for a, b in zip(values[::2], values[1::2], strict=True))
        return values

    def number(self, tag: int, default: float = 0) -> float:
        """First value of a tag, or the default."""
        values = self.numbers(tag)
        return values[0] if values else default

    def whole(self, tag: int, default: int = 0) -> int:
        """First value of a tag if it is a whole number, or the default."""
        value = self.number(tag, default)
        return value if isinstance(value, int) else default

    def text(self, tag: int) -> str:
        """ASCII value of a tag, without what follows a zero; empty if it is missing."""
        return self.bytes_of(tag).split(b"\0")[0].decode("ascii", "replace").strip()

    def bytes_of(self, tag: int) -> bytes:
        """Bytes of an ASCII, BYTE or UNDEFINED value; empty if it is missing or cut off."""
        kind, count, start = self.entries.get(tag, (0, 0, 0))
        if kind not in (1, *_STRINGS) or start + count > len(self.data):
            return b""
        return self.data[start : start + count]


@dataclass(frozen=True)
class Tiff:
    """A TIFF structure: its byte order, its width of pointers and where its directories are.

    Parameters
    ----------
    data
        The whole structure; `parse` finds out the rest.
    order
        "<" or ">".
    big
        Whether pointers have 8 bytes (BigTIFF).
    """

    data: bytes
    order: str
    big: bool

    @classmethod
    def parse(cls, data: bytes) -> Tiff | None:
        """Structure of some bytes; None if they do not begin one."""
        order = {b"II": "<", b"MM": ">"}.get(data[:2])
        if order is None or len(data) < 8:
            return None
        (magic,) = struct.unpack_from(f"{order}H", data, 2)
        if magic == 43 and len(data) >= 16 and struct.unpack_from(f"{order}HH", data, 4) == (8, 0):
            return cls(data, order, True)
        return cls(data, order, False) if magic == 42 else None

    @property
    def first(self) -> int:
        """Position of the first directory."""
        code, position = ("Q", 8) if self.big else ("I", 4)
        (start,) = struct.unpack_from(self.order + code, self.data, position)
        return int(start)

    def pages(self) -> list[int]:
        """Positions of the directories of the chain, up to one seen twice, cut off or beyond the limit."""
        # A chain may be long, and most of its entries are of no interest: only the pointers are read.
        head, entry, pointer = self._layout()
        head_size, entry_size = struct.calcsize(head), struct.calcsize(entry)
        read_count, read_pointer = struct.Struct(head).unpack_from, struct.Struct(pointer).unpack_from
        data, length, room = self.data, len(self.data), struct.calcsize(pointer)
        found: dict[int, None] = {}
        position = self.first
        while position and position not in found and len(found) < MAX_PAGES:
            start = position + head_size
            if start > length:
                break
            count = read_count(data, position)[0]
            end = start + entry_size * count
            if count > _MAX_ENTRIES or end > length:
                break
            found[position] = None
            position = read_pointer(data, end)[0] if end + room <= length else 0
        return list(found)

    def _layout(self) -> tuple[str, str, str]:
        """Struct formats of a directory's number of entries, of an entry and of a pointer."""
        head, entry, pointer = ("Q", "HHQQ", "Q") if self.big else ("H", "HHII", "I")
        return self.order + head, self.order + entry, self.order + pointer

    def directory(self, position: int) -> Directory | None:
        """Directory at a position; None if it is cut off or senselessly long."""
        head, entry, pointer = self._layout()
        size, data = struct.calcsize(entry), self.data
        if not 0 < position <= len(data) - struct.calcsize(head):
            return None
        (count,) = struct.unpack_from(head, data, position)
        start = position + struct.calcsize(head)
        if count > min(_MAX_ENTRIES, (len(data) - start) // size):
            return None
        entries: dict[int, tuple[int, int, int]] = {}
        room = struct.calcsize(pointer)
        for at in range(start, start + size * count, size):
            tag, kind, values, _ = struct.unpack_from(entry, data, at)
            place = at + size - room
            if struct.calcsize(self.order + _CODES.get(kind, "")) * values > room:
                (place,) = struct.unpack_from(pointer, data, place)
            entries[tag] = (kind, values, place)
        end = start + size * count
        following = struct.unpack_from(pointer, data, end)[0] if end + room <= len(data) else 0
        return Directory(data, self.order, entries, following)

    def with_first(self, position: int) -> bytes:
        """The structure with another directory in first place, which is how a decoder is given a page."""
        code, at = ("Q", 8) if self.big else ("I", 4)
        pointer = struct.pack(self.order + code, position)
        return self.data[:at] + pointer + self.data[at + len(pointer) :]
