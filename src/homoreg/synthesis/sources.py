"""Folders of aligned pairs, decoded once and kept as 8-bit pixels on the device that samples them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from homoreg.errors import DataError
from homoreg.geometry import pixel_grid, transform_points
from homoreg.imaging.reading import read_image
from homoreg.imaging.tone import fit_tone

__all__ = ["IMAGE_SUFFIXES", "ImageBank", "SourcePair", "find_pairs"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".npy"})
LEVELS = 3  # full, half and quarter resolution


@dataclass(frozen=True)
class SourcePair:
    """Files of one aligned pair; ``infrared`` is None for an RGB image without a partner."""

    source: str
    rgb: Path
    infrared: Path | None


def _images(folder: Path) -> dict[str, Path]:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    found: dict[str, Path] = {}
    for path in files:
        if path.stem in found:
            raise DataError(
                f"{folder} holds {found[path.stem].name} and {path.name}; expected one image a name: "
                "remove one"
            )
        found[path.stem] = path
    return found


def find_pairs(folder: str | Path) -> list[SourcePair]:
    """List the aligned pairs of a folder.

    Parameters
    ----------
    folder
        Holds ``ir/NAME.*`` beside ``rgb/NAME.*``, or only RGB images, whose infrared partners are then
        synthesised.

    Returns
    -------
    list of SourcePair
        Sorted by name.

    Raises
    ------
    DataError
        If the folder is missing or holds no pair, two images of a folder have one name, or an image has no
        partner of the same name.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected one with ir/NAME.* beside rgb/NAME.*")
    rgb_folder, ir_folder = root / "rgb", root / "ir"
    if not rgb_folder.is_dir() and not ir_folder.is_dir():
        pairs = [SourcePair(root.name, path, None) for path in _images(root).values()]
    elif not (rgb_folder.is_dir() and ir_folder.is_dir()):
        missing = "rgb" if ir_folder.is_dir() else "ir"
        raise DataError(f"{root} has no folder {missing}/; expected ir/NAME.* beside rgb/NAME.*")
    else:
        rgb, infrared = _images(rgb_folder), _images(ir_folder)
        unpaired = sorted(set(rgb) ^ set(infrared))
        if unpaired:
            raise DataError(
                f"{root}: {len(unpaired)} images have no partner of the same name, first {unpaired[0]!r}; "
                "expected ir/NAME.* beside rgb/NAME.*: remove or add the partners"
            )
        pairs = [SourcePair(root.name, rgb[name], infrared[name]) for name in rgb]
    if not pairs:
        raise DataError(f"{root} holds no image pairs; expected ir/NAME.* beside rgb/NAME.*")
    return pairs


def _load(pair: SourcePair, max_side: int) -> tuple[NDArray[np.uint8], bool]:
    """Decode one pair to (H, W, 4): R, G, B, infrared; say whether the infrared is real."""
    rgb = _to_eight_bit(pair.rgb, "rgb")
    if pair.infrared is None:
        infrared = np.zeros(rgb.shape[:2], np.uint8)
    else:
        infrared = _to_eight_bit(pair.infrared, "ir").mean(axis=-1).round().astype(np.uint8)
        if infrared.shape != rgb.shape[:2]:
            raise DataError(
                f"{pair.infrared} is {infrared.shape[1]}x{infrared.shape[0]} px and {pair.rgb} is "
                f"{rgb.shape[1]}x{rgb.shape[0]} px; aligned pairs must have one size: resample one onto the "
                "other"
            )
    packed = np.dstack([rgb, infrared])
    longest = max(packed.shape[:2])
    if longest > max_side:
        factor = max_side / longest
        size = (max(1, round(packed.shape[1] * factor)), max(1, round(packed.shape[0] * factor)))
        packed = np.asarray(cv2.resize(packed, size, interpolation=cv2.INTER_AREA), np.uint8)
    return packed, pair.infrared is not None


def _to_eight_bit(path: Path, modality: Literal["ir", "rgb"]) -> NDArray[np.uint8]:
    picture = read_image(path, role=modality)
    unit = fit_tone(picture, modality).apply(picture.pixels)
    return np.asarray(np.rint(unit * 255), np.uint8)


class ImageBank:
    """Decoded pairs as one flat array of 4-byte pixels, with half and quarter resolutions.

    Images of any sizes lie behind one another, so a batch is gathered from images of different sizes
    without padding, on the CPU and on a CUDA device alike.

    Parameters
    ----------
    pairs
        What to load.
    weights
        Relative chance of each pair; equal by default.
    max_side
        Longer images are reduced to this many px.
    device
        Where the pixels are kept.

    Raises
    ------
    DataError
        If there are no pairs, the images of a pair differ in size, or the weights are not one a pair, none
        of them negative and not all zero.
    ImageReadError
        If an image cannot be read.
    """

    def __init__(
        self,
        pairs: Sequence[SourcePair],
        *,
        weights: Sequence[float] | None = None,
        max_side: int = 640,
        device: torch.device | str = "cpu",
    ) -> None:
        if not pairs:
            raise DataError("no image pairs were given; expected at least one: check the folders")
        self.pairs = list(pairs)
        with ThreadPoolExecutor(4) as pool:
            loaded = list(pool.map(lambda pair: _load(pair, max_side), self.pairs))
        chunks: list[NDArray[np.uint8]] = []
        table = np.zeros((len(loaded), LEVELS, 3), np.int64)  # offset, width, height
        offset = 0
        for index, (packed, _) in enumerate(loaded):
            for level in range(LEVELS):
                height, width = packed.shape[:2]
                table[index, level] = offset, width, height
                chunks.append(packed.reshape(-1, 4))
                offset += height * width
                half = (max(1, width // 2), max(1, height // 2))
                packed = np.asarray(cv2.resize(packed, half, interpolation=cv2.INTER_AREA), np.uint8)
        pixels = torch.from_numpy(np.concatenate(chunks)).view(torch.int32).squeeze(1)
        self.device = torch.device(device)
        self._pixels = pixels.to(self.device)
        self._table = torch.from_numpy(table).to(self.device)
        self.has_infrared = torch.tensor([real for _, real in loaded], device=self.device)
        chance = torch.ones(len(loaded)) if weights is None else torch.tensor(list(weights)).float()
        if len(chance) != len(loaded) or not bool((chance >= 0).all()) or float(chance.sum()) <= 0:
            raise DataError(
                f"got {len(chance)} weights for {len(loaded)} pairs; expected one for each, none negative "
                "and not all zero"
            )
        self.weights = (chance / chance.sum()).to(self.device)

    def __len__(self) -> int:
        return len(self.pairs)

    def sizes(self, index: Tensor) -> Tensor:
        """Width and height in px of the given pairs, float, shape (B, 2)."""
        return self._table[index, 0, 1:].float()

    def pull(self, index: Tensor, homography: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Sample pairs through homographies, bilinear, from the resolution that avoids aliasing.

        Parameters
        ----------
        index
            Shape (B,), which pair.
        homography
            Shape (B, 3, 3): px of the output frame to px of the pair.
        size
            (height, width) of the output.

        Returns
        -------
        pulled : Tensor
            Shape (B, 4, height, width), float32 in [0, 1]: R, G, B, infrared; edge pixels continue outside.
        mask : Tensor
            Shape (B, 1, height, width), bool, True inside the image.
        """
        height, width = size
        points = transform_points(homography, pixel_grid(height, width, homography))
        points = torch.nan_to_num(points, nan=-1e4, posinf=1e4, neginf=-1e4).clamp(-1e4, 1e4)
        # Pixels of the pair per output pixel, from the area the output frame covers.
        corner = points.view(-1, height, width, 2)[:, [0, 0, -1], [0, -1, 0]]
        sides = (corner[:, 1] - corner[:, 0]).norm(dim=-1) * (corner[:, 2] - corner[:, 0]).norm(dim=-1)
        reduction = (sides / ((height - 1) * (width - 1))).sqrt().clamp_min(1e-3)
        level = (reduction.log2() + 0.3).floor().clamp(0, LEVELS - 1).long()
        offset, columns, rows = self._table[index, level].unbind(-1)
        full = self._table[index, 0, 1:].to(points.dtype)
        inside = ((points >= -0.5) & (points <= full.unsqueeze(1) - 0.5)).all(-1)
        factor = torch.stack([columns, rows], -1) / full
        points = (points + 0.5) * factor.unsqueeze(1) - 0.5
        limit = torch.stack([columns, rows], -1).unsqueeze(1) - 1
        first = points.floor()
        weight = (points - first).unsqueeze(-2)
        low = first.long().clamp_min(0).minimum(limit)
        high = (first.long() + 1).clamp_min(0).minimum(limit)
        base, stride = offset.unsqueeze(1), columns.unsqueeze(1)
        taps = [
            self._gather(base + y[..., 1] * stride + x[..., 0])
            for y, x in ((low, low), (low, high), (high, low), (high, high))
        ]
        wx, wy = weight[..., 0], weight[..., 1]
        top, bottom = torch.lerp(taps[0], taps[1], wx), torch.lerp(taps[2], taps[3], wx)
        pulled = torch.lerp(top, bottom, wy) / 255
        pulled = pulled.transpose(1, 2).reshape(len(index), 4, height, width)
        return pulled, inside.view(-1, 1, height, width)

    def _gather(self, where: Tensor) -> Tensor:
        packed = self._pixels[where.flatten()].view(torch.uint8)
        return packed.view(*where.shape, 4).float()
