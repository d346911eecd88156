"""Reading frozen sets of labelled pairs in SkyData's folder layout.

A set is a folder with, for each split (``train``, ``val``), three sub-folders::

    val_input/STEM.jpg           RGB search image, 3n/2 x 3n/2 px (192 x 192 in the seed protocol)
    val_template/STEM.jpg        infrared template, n x n px (128 x 128)
    val_label/STEM_label.txt     where the template's corners lie in the input

A label is JSON: ``{"location": [{"top_left_u": 62, "top_left_v": 5}, {"top_right_u": ...},
{"bottom_left_u": ...}, {"bottom_right_u": ...}]}``, with u = x and v = y in px of the input image.

Examples
--------
>>> pairs = SkyDataSet("data/aerial_nir")  # doctest: +SKIP
>>> pairs[0].homography.shape  # doctest: +SKIP
(3, 3)
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from homoreg.errors import DataError
from homoreg.geometry import homography_from_corners, image_corners, is_plausible
from homoreg.imaging.reading import read_image
from homoreg.imaging.tone import Modality, fit_tone

__all__ = ["CORNER_NAMES", "SUFFIXES", "FrozenPair", "SkyDataSet", "format_label", "parse_label"]

Bytes: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float64]

CORNER_NAMES = ("top_left", "top_right", "bottom_right", "bottom_left")
"""The label's corner names in this library's order: clockwise from the top left."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""Image suffixes looked for, in lower or upper case; other files in the folders are ignored."""

LABEL_SUFFIX = "_label.txt"

# Orientation, folding and the horizon matter here; a label may stretch the template by any sensible factor.
_MAX_STRETCH = 100.0
_HUGE = 1e9


@dataclass(frozen=True, eq=False)
class FrozenPair:
    """One labelled pair of a frozen set.

    Attributes
    ----------
    name
        Stem of its files.
    search
        (3n/2, 3n/2, 3) uint8, the RGB image.
    template
        (n, n, 3) uint8, the infrared image as stored, channels in RGB order.
    corners
        (4, 2) float64: where the template's corners lie in the search image, px, clockwise from the top left.
    """

    name: str
    search: Bytes
    template: Bytes
    corners: Floats

    @property
    def size(self) -> int:
        """Side ``n`` of the template in px."""
        return int(self.template.shape[0])

    @property
    def homography(self) -> Floats:
        """The true homography, template px to search px: (3, 3) float64, last entry 1."""
        return corners_to_homography(self.corners, self.size)


class SkyDataSet:
    """The pairs of one split of a set in SkyData's layout, in the order of their names.

    The folders are listed at once, so that a pair with a missing file is reported before any work is done;
    images and labels are read when a pair is asked for.

    Parameters
    ----------
    root
        The folder that holds ``{split}_input``, ``{split}_template`` and ``{split}_label``.
    split
        ``"val"`` or ``"train"``.

    Raises
    ------
    DataError
        If a folder is missing, there are no pairs, a pair lacks one of its three files, or two images share
        a stem.
    """

    def __init__(self, root: str | os.PathLike[str], split: str = "val") -> None:
        self.root = Path(root)
        self.split = split
        if not self.root.is_dir():
            raise DataError(
                f"{str(self.root)!r} is not a folder; give the folder that holds {split}_input, "
                f"{split}_template and {split}_label"
            )
        self._inputs = self._images("input")
        self._templates = self._images("template")
        self._labels = self._label_files()
        self.names: tuple[str, ...] = tuple(sorted(self._inputs))
        self._check_complete()

    @property
    def name(self) -> str:
        """Name of the set's folder."""
        return self.root.resolve().name

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.names)

    def __getitem__(self, index: int) -> FrozenPair:
        """Read one pair; ``index`` as in a list.

        Raises
        ------
        IndexError
            If there is no such pair.
        ImageReadError
            If an image is not readable.
        DataError
            If the label is malformed or the sizes do not fit each other.
        """
        name = self.names[index]
        search, template = _eight_bit(self._inputs[name], "rgb"), _eight_bit(self._templates[name], "ir")
        n = template.shape[0]
        if template.shape[1] != n or 2 * search.shape[0] != 3 * n or search.shape[1] != search.shape[0]:
            raise DataError(
                f"pair {name!r} in {str(self.root)!r}: the template is {_size(template)} px and the input "
                f"{_size(search)} px; expected a square template of side n and a square input of side 3n/2, "
                "such as 128 and 192: resize the images or remove the pair"
            )
        return FrozenPair(name, search, template, _read_label(self._labels[name], n, search.shape[0]))

    def __iter__(self) -> Iterator[FrozenPair]:
        """Read the pairs one after the other."""
        return (self[index] for index in range(len(self)))

    def head(self, count: int) -> SkyDataSet:
        """Return the set of the first `count` pairs."""
        fewer = copy.copy(self)
        fewer.names = self.names[:count]
        return fewer

    def digest(self) -> str:
        """SHA-256 in hex of the pairs' names and files: equal for equal pairs, wherever they lie.

        Raises
        ------
        DataError
            If a file cannot be read.
        """
        total = hashlib.sha256()
        for name in self.names:
            total.update(name.encode())
            for files in (self._inputs, self._templates, self._labels):
                try:
                    total.update(hashlib.sha256(files[name].read_bytes()).digest())
                except OSError as error:
                    raise DataError(f"cannot read {str(files[name])!r}: {error.strerror}") from error
        return total.hexdigest()

    def _folder(self, kind: str) -> Path:
        folder = self.root / f"{self.split}_{kind}"
        if not folder.is_dir():
            raise DataError(
                f"{str(self.root)!r} has no folder {folder.name!r}; expected SkyData's layout: "
                f"{self.split}_input, {self.split}_template and {self.split}_label"
            )
        return folder

    def _images(self, kind: str) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in sorted(self._folder(kind).iterdir()):
            if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
                continue
            if path.stem in found:
                raise DataError(
                    f"{found[path.stem].name!r} and {path.name!r} in {str(path.parent)!r} share a stem; "
                    "keep one image a stem"
                )
            found[path.stem] = path
        return found

    def _label_files(self) -> dict[str, Path]:
        paths = sorted(self._folder("label").iterdir())
        return {
            path.name[: -len(LABEL_SUFFIX)]: path
            for path in paths
            if path.name.endswith(LABEL_SUFFIX) and not path.name.startswith(".")
        }

    def _check_complete(self) -> None:
        kinds = {"input": self._inputs, "template": self._templates, "label": self._labels}
        stems = sorted(set().union(*kinds.values()))
        if not stems:
            raise DataError(
                f"{str(self.root / f'{self.split}_input')!r} holds no pairs; expected images "
                f"({' '.join(SUFFIXES)}): check the folder and the split"
            )
        for stem in stems:
            for kind, files in kinds.items():
                if stem not in files:
                    raise DataError(
                        f"pair {stem!r} in {str(self.root)!r} has no file in {self.split}_{kind}; every "
                        "pair needs an input, a template and a label: restore it or remove the others"
                    )


def corners_to_homography(corners: Floats, size: int) -> Floats:
    """Exact homography that sends a template's corners to given points.

    Parameters
    ----------
    corners
        (4, 2) px in the search image, clockwise from the top left.
    size
        Side of the template in px.

    Returns
    -------
    ndarray
        (3, 3) float64, template px to search px, last entry 1.
    """
    source = image_corners(size, size, dtype=torch.float64)
    matrix = homography_from_corners(source, torch.from_numpy(np.asarray(corners, dtype=np.float64)))
    return np.asarray(matrix.numpy(), dtype=np.float64)


def format_label(corners: Floats) -> str:
    """Label text of SkyData's layout; the inverse of :func:`parse_label`.

    Parameters
    ----------
    corners
        (4, 2) px, clockwise from the top left. Whole numbers are written as integers.

    Returns
    -------
    str
        One line of JSON, the corners in SkyData's order: top left, top right, bottom left, bottom right.
    """
    entries = {
        name: {f"{name}_u": _number(corner[0]), f"{name}_v": _number(corner[1])}
        for name, corner in zip(CORNER_NAMES, np.asarray(corners, dtype=np.float64), strict=True)
    }
    order = ("top_left", "top_right", "bottom_left", "bottom_right")
    return json.dumps({"location": [entries[name] for name in order]})


def parse_label(text: str) -> Floats:
    """Corners of a label in SkyData's layout.

    Parameters
    ----------
    text
        The JSON described at the top of this module; the order of the four entries does not matter.

    Returns
    -------
    ndarray
        (4, 2) float64 px, clockwise from the top left.

    Raises
    ------
    DataError
        If it is not JSON, or lacks ``location`` or one of the eight coordinates, or one is not a finite
        number.
    """
    try:
        label = json.loads(text)
    except ValueError as error:
        raise DataError(f"not JSON ({error})") from error
    entries = label.get("location") if isinstance(label, Mapping) else None
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise DataError("'location' is not a list of objects")
    merged = {key: value for entry in entries for key, value in entry.items()}
    corners = np.empty((4, 2))
    for row, name in enumerate(CORNER_NAMES):
        for column, axis in enumerate("uv"):
            key = f"{name}_{axis}"
            value = merged.get(key)
            # JSON knows no limit to integers; "abs" also turns away NaN, which Python's parser lets through.
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _HUGE:
                raise DataError(f"{key!r} is {str(value)[:40]}, not a number of px")
            corners[row, column] = value
    return corners


def _read_label(path: Path, size: int, side: int) -> Floats:
    """Read one label; its corners must lie in an input of ``side`` px and keep the orientation."""
    try:
        corners = parse_label(path.read_text(encoding="utf-8"))
    except (DataError, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot use the label {str(path)!r}: {error}; expected JSON with 'location', a list of four "
            "objects that hold top_left_u, top_left_v, top_right_u... in px: correct it or remove the pair"
        ) from error
    if (corners < 0).any() or (corners > side - 1).any():
        raise DataError(
            f"the label {str(path)!r} has corners {corners.tolist()}; expected coordinates within the "
            f"input, 0 to {side - 1} px: correct it or remove the pair"
        )
    matrix = torch.from_numpy(corners_to_homography(corners, size))
    if not bool(is_plausible(matrix[None], size, max_scale=_MAX_STRETCH)[0]):
        raise DataError(
            f"the label {str(path)!r} has corners {corners.tolist()}; expected a convex quadrilateral, "
            "clockwise from the top left: correct it or remove the pair"
        )
    return corners


def _eight_bit(path: Path, modality: Modality) -> Bytes:
    """Read an image as (H, W, 3) uint8 in RGB order; 8-bit values stay as stored, grey is repeated."""
    picture = read_image(path, role=modality)
    unit = fit_tone(picture, modality).apply(picture.pixels)
    return np.rint(unit * 255).astype(np.uint8)


def _size(image: Bytes) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"


def _number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(value)
