"""Writing frozen sets: labelled pairs drawn once by the seed protocol, in SkyData's folder layout.

A set is determined by its options and its source images: every sample is drawn from (seed, split, index)
alone, so the same call gives the same bytes on one machine and version of the libraries, in one go or in
many. A run that was cut continues where it stopped. ``manifest.json`` holds the options and what the images
were; a run with others is refused rather than mixed in.

Training and validation samples come from different images: of every folder, sorted by name, the last images
are kept for validation, so that neighbouring frames of a video stay on one side.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from homoreg.errors import DataError, ImageReadError, InputError
from homoreg.files import atomic_write_files, atomic_write_text, make_folder
from homoreg.geometry import image_corners, transform_points
from homoreg.imaging.writing import encode_image
from homoreg.synthesis.appearance import AppearanceConfig
from homoreg.synthesis.dataset import LABEL_SUFFIX, format_label
from homoreg.synthesis.protocol import GeometryConfig, SampleBatch, draw_samples
from homoreg.synthesis.sources import ImageBank, SourcePair, find_pairs

__all__ = ["MANIFEST", "FrozenSet", "write_skydata"]

MANIFEST = "manifest.json"

_SPLITS = ("train", "val")
_KINDS = ("input", "template", "label")
_FORMAT = 1
# Corners are drawn as integers; what the label's matrix gives back differs by rounding only.
_TOLERANCE = 0.02

Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True)
class FrozenSet:
    """What a run of :func:`write_skydata` did.

    Attributes
    ----------
    folder
        The set's folder.
    written
        Number of samples this run drew.
    kept
        Number of samples that were complete before.
    """

    folder: Path
    written: int
    kept: int


def write_skydata(
    out: str | os.PathLike[str],
    pairs: Sequence[str | os.PathLike[str]],
    *,
    train: int = 28_000,
    val: int = 8_000,
    seed: int = 0,
    size: int = 128,
    image_format: str = "jpg",
    appearance: AppearanceConfig | None = None,
    max_side: int = 640,
    progress: Progress | None = None,
) -> FrozenSet:
    """Write a frozen set in SkyData's layout: ``{train,val}_{input,template,label}`` and ``manifest.json``.

    Parameters
    ----------
    out
        Folder of the set; made if it does not exist. One with a part of this very set is continued.
    pairs
        Folders of aligned pairs, ``ir/NAME.*`` beside ``rgb/NAME.*`` of the same size. All images are
        equally likely.
    train, val
        Number of samples of each split; the images are divided in proportion.
    seed
        Of all that is random, 0 or more.
    size
        Side ``n`` of the templates in px, a multiple of 32; inputs have 3n/2, corners are whole px within
        ``n/4`` of the centred square (128, 192 and 32 px in the seed protocol).
    image_format
        ``"jpg"`` (quality 95, as the seed project) or ``"png"`` (lossless).
    appearance
        Random changes of appearance; none by default: the images as they are.
    max_side
        Source images with a longer side are reduced to it, px.
    progress
        Called after every sample with the number of samples done and in all.

    Returns
    -------
    FrozenSet
        What was written and what was there.

    Raises
    ------
    InputError
        If an option is out of range.
    DataError
        If a folder holds no usable pairs, or ``out`` holds files of another set.
    ImageReadError
        If a source image cannot be read.
    OutputError
        If a file cannot be written. What was written before stays, complete, and the run can be continued.
    """
    _check_options(pairs, train, val, seed, size, image_format)
    folder = Path(out)
    splits = _divide(pairs, train, val)
    options: dict[str, Any] = {
        "train": train,
        "val": val,
        "seed": seed,
        "size": size,
        "image_format": image_format,
        "max_side": max_side,
        "appearance": dataclasses.asdict(appearance) if appearance else None,
    }
    geometry = GeometryConfig(integer=True)
    _claim(folder, {"format": _FORMAT, **options, "sources": {k: _describe(v) for k, v in splits.items()}})
    total, written, done = train + val, 0, 0
    for split, count in (("train", train), ("val", val)):
        writer = _SplitWriter(folder, split, count, image_format)
        missing = writer.missing()
        done += count - len(missing)
        bank = ImageBank(splits[split], max_side=max_side) if missing else None
        for index in missing:
            assert bank is not None
            writer.write(index, _draw(bank, size, (seed, _SPLITS.index(split), index), geometry, appearance))
            written, done = written + 1, done + 1
            if progress is not None:
                progress(done, total)
    return FrozenSet(folder, written, total - written)


def _check_options(
    pairs: Sequence[str | os.PathLike[str]], train: int, val: int, seed: int, size: int, image_format: str
) -> None:
    if isinstance(pairs, str | os.PathLike) or not pairs:
        raise InputError(f"pairs is {pairs!r}; expected a list of at least one folder of aligned pairs")
    if train < 0 or val < 0 or train + val == 0:
        raise InputError(f"train is {train} and val is {val}; expected counts of 0 or more, not both 0")
    if not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed}; expected a whole number from 0 to 2**63 - 1")
    if size < 32 or size % 32:
        raise InputError(f"size is {size}; expected a multiple of 32, such as 128")
    if image_format not in ("jpg", "png"):
        raise InputError(f"image_format is {image_format!r}; expected 'jpg' or 'png'")


def _divide(folders: Sequence[str | os.PathLike[str]], train: int, val: int) -> dict[str, list[SourcePair]]:
    """Source images of each split, disjoint where there are at least two and both splits are wanted."""
    groups = [find_pairs(Path(folder)) for folder in folders]
    everything = [pair for group in groups for pair in group]
    if train == 0 or val == 0 or len(everything) == 1:
        return {"train": everything if train else [], "val": everything if val else []}
    share = val / (train + val)
    kept = [round(share * len(group)) for group in groups]
    largest = max(range(len(groups)), key=lambda i: len(groups[i]))
    if sum(kept) == 0:
        kept[largest] = 1
    if sum(kept) == len(everything):
        kept[largest] -= 1
    return {
        "train": [pair for group, n in zip(groups, kept, strict=True) for pair in group[: len(group) - n]],
        "val": [pair for group, n in zip(groups, kept, strict=True) for pair in group[len(group) - n :]],
    }


def _describe(pairs: Sequence[SourcePair]) -> dict[str, Any]:
    """Names of the pairs, to be read by people, and a digest of their files, to notice any change."""
    digest = hashlib.sha256()
    for pair in pairs:
        for path in (pair.infrared, pair.rgb):
            if path is not None:
                try:
                    digest.update(hashlib.sha256(path.read_bytes()).digest())
                except OSError as error:
                    raise ImageReadError(
                        f"cannot read {str(path)!r}: {error.strerror}; check its permissions or remove the "
                        "pair"
                    ) from error
    return {"sha256": digest.hexdigest(), "names": [f"{pair.source}/{pair.rgb.stem}" for pair in pairs]}


def _claim(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, or check that the folder holds a part of the same set."""
    path = folder / MANIFEST
    if path.exists():
        _compare(path, manifest)
    else:
        for split in _SPLITS:
            for kind in _KINDS:
                place = folder / f"{split}_{kind}"
                if place.is_dir() and any(place.iterdir()):
                    raise DataError(
                        f"{str(place)!r} holds files but {str(folder)!r} has no {MANIFEST}; they are of "
                        "another set: choose another folder or remove them"
                    )
    make_folder(folder)
    for split in _SPLITS:
        if manifest[split]:
            for kind in _KINDS:
                make_folder(folder / f"{split}_{kind}")
    if not path.exists():
        atomic_write_text(path, json.dumps(manifest, indent=1) + "\n")


def _compare(path: Path, manifest: dict[str, Any]) -> None:
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {str(path)!r} ({error}); choose another folder for the set") from error
    if not isinstance(before, dict):
        raise DataError(f"{str(path)!r} is not a manifest; choose another folder for the set")
    for key in [*manifest, *(before.keys() - manifest.keys())]:
        old, new = before.get(key), manifest.get(key)
        if old != new:
            if key == "sources":
                differs = "from other source images"
            else:
                differs = f"with {key} = {json.dumps(old)}, not {json.dumps(new)}"
            raise DataError(
                f"{str(path.parent)!r} holds a set made {differs}; continue it with the options in its "
                f"{MANIFEST}, or choose another folder"
            )


class _SplitWriter:
    """Files of one split."""

    def __init__(self, folder: Path, split: str, count: int, image_format: str) -> None:
        self.count, self.suffix = count, f".{image_format}"
        self.folders = {kind: folder / f"{split}_{kind}" for kind in _KINDS}

    def paths(self, index: int) -> dict[str, Path]:
        """The three files of a sample; the label last, since it is written last."""
        stem = f"{index:06d}"
        return {
            "input": self.folders["input"] / f"{stem}{self.suffix}",
            "template": self.folders["template"] / f"{stem}{self.suffix}",
            "label": self.folders["label"] / f"{stem}{LABEL_SUFFIX}",
        }

    def missing(self) -> list[int]:
        """Samples of which a file is missing, or empty after a power cut."""
        present = {
            kind: {entry.name for entry in os.scandir(place) if entry.stat().st_size > 0}
            for kind, place in self.folders.items()
            if self.count
        }
        return [
            index
            for index in range(self.count)
            if not all(path.name in present[kind] for kind, path in self.paths(index).items())
        ]

    def write(self, index: int, sample: tuple[SampleBatch, NDArray[np.float64]]) -> None:
        """Write the three files of a sample, all or none."""
        batch, corners = sample
        paths = self.paths(index)
        atomic_write_files(
            {
                paths["input"]: encode_image(self.suffix, _pixels(batch.search)),
                paths["template"]: encode_image(self.suffix, _pixels(batch.template)),
                paths["label"]: format_label(corners).encode(),
            },
            sync=False,  # tens of thousands of files, each of which can be made again
        )


def _draw(
    bank: ImageBank,
    size: int,
    key: tuple[int, int, int],
    geometry: GeometryConfig,
    appearance: AppearanceConfig | None,
) -> tuple[SampleBatch, NDArray[np.float64]]:
    """Draw one sample and its integer corners from (seed, split, index)."""
    source = image_corners(size, size, dtype=torch.float64)
    for state in np.random.SeedSequence(key).generate_state(16, np.uint64):
        # A batch of one: in a larger batch a sample would depend on its neighbours.
        sample = draw_samples(
            bank, size, seed=int(state >> np.uint64(1)), batch=1, geometry=geometry, appearance=appearance
        )
        corners = transform_points(sample.homography[0].double(), source).numpy()
        # None of some millions of draws is a folded quadrilateral, for which the protocol substitutes another
        # shape, but one is possible.
        if np.abs(corners - corners.round()).max() < _TOLERANCE:
            return sample, corners.round()
    raise DataError(f"no sample with whole-pixel corners was drawn for {key}; choose another seed")


def _pixels(image: torch.Tensor) -> NDArray[np.uint8]:
    """(1, 3, H, W) in [0, 1] to (H, W, 3) uint8."""
    return (image[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
