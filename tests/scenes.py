"""Small generated scenes: textured pictures, folders of aligned pairs, frozen sets with known corners."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from homoreg.geometry import homography_from_corners, image_corners
from homoreg.synthesis.dataset import format_label

Bytes: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float64]


def scene(height: int, width: int, seed: int = 0) -> Bytes:
    """Rectangles, discs and grain, large to small: corners and texture at every scale; (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 120, np.uint8)
    longest = max(height, width)
    for step in range(400):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        extent = int(rng.uniform(0.5, 1.5) * (3 + longest / 5 * 0.985**step))
        if rng.random() < 0.6:
            cv2.rectangle(image, (x, y), (x + extent, y + int(extent * rng.uniform(0.4, 1.6))), colour, -1)
        else:
            cv2.circle(image, (x, y), extent // 2 + 1, colour, -1)
    noisy = image + rng.normal(0, 6, image.shape)
    return np.asarray(cv2.GaussianBlur(noisy.clip(0, 255), (0, 0), 0.8).round(), np.uint8)


def infrared_of(rgb: Bytes) -> Bytes:
    """A grey partner of an RGB picture, (H, W, 3): other weights and a little contrast lost."""
    grey = rgb.astype(np.float64) @ np.array([0.6, 0.3, 0.1])
    return np.repeat((0.8 * grey + 20).round().astype(np.uint8)[..., None], 3, axis=2)


def heat(seed: int = 0, height: int = 160, width: int = 200) -> Bytes:
    """Smooth warm and cold areas with a few edges, over the whole range; (H, W)."""
    grey = infrared_of(scene(height, width, seed))[..., 0].astype(np.float64)
    grey = 0.6 * cv2.GaussianBlur(grey, (0, 0), 6) + 0.4 * cv2.GaussianBlur(grey, (0, 0), 1.5)
    low, high = np.percentile(grey, (0.5, 99.5))
    return np.asarray(((grey - low) / (high - low) * 255).clip(0, 255).round(), np.uint8)


def cut(rgb: Bytes, corners: Floats, n: int) -> Bytes:
    """Infrared template (n, n, 3) whose corners lie at the given points of the RGB picture."""
    corner = image_corners(n, n, dtype=torch.float64)
    homography = homography_from_corners(corner, torch.from_numpy(corners)).numpy()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpPerspective(infrared_of(rgb), homography, (n, n), flags=flags), np.uint8)


def shifted_square(n: int, reach: int, seed: int) -> Floats:
    """The centred square with whole-pixel displacements of up to ``reach``, (4, 2)."""
    rng = np.random.default_rng(seed)
    square = image_corners(n, n, dtype=torch.float64).numpy() + n // 4
    return np.asarray(square + rng.integers(-reach, reach + 1, (4, 2)), np.float64)


def save(path: Path, image: Bytes) -> Path:
    """Write an RGB picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(image[..., ::-1]))
    return path


def write_pairs(folder: Path, count: int, *, size: tuple[int, int] = (96, 128), seed: int = 0) -> Path:
    """A folder of aligned pairs, ``ir/NAME.png`` beside ``rgb/NAME.png``; ``size`` is (height, width)."""
    for index in range(count):
        rgb = scene(*size, seed=seed + index)
        save(folder / "rgb" / f"{index:02d}.png", rgb)
        save(folder / "ir" / f"{index:02d}.png", infrared_of(rgb))
    return folder


def write_set(
    folder: Path, count: int, *, n: int = 64, reach: int = 3, split: str = "val", suffix: str = ".png"
) -> Path:
    """A frozen set in SkyData's layout with known corners."""
    for index in range(count):
        rgb = scene(3 * n // 2, 3 * n // 2, seed=100 + index)
        corners = shifted_square(n, reach, seed=index)
        save(folder / f"{split}_input" / f"{index:02d}{suffix}", rgb)
        save(folder / f"{split}_template" / f"{index:02d}{suffix}", cut(rgb, corners, n))
        label = folder / f"{split}_label" / f"{index:02d}_label.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(format_label(corners))
    return folder
