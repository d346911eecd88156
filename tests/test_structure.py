from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from homoreg.structure import edge_agreement
from tests.scenes import scene

Floats = NDArray[np.float32]
N = 128


def grey(seed: int, size: int = 3 * N // 2) -> Floats:
    return np.asarray(scene(size, size, seed=seed).mean(-1) / 255, np.float32)


def cut(image: Floats, x: int = 0, y: int = 0) -> Floats:
    """The centred square, or the one so many px beside it."""
    start = N // 4
    return image[start + y : start + y + N, start + x : start + x + N].copy()


def test_aligned_edges_have_their_peak_at_no_shift() -> None:
    image = grey(1)
    height, lead = edge_agreement(cut(image), image)
    assert height > 4
    assert lead == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("change", ["negative", "curve", "noise"])
def test_the_contrast_does_not_matter(change: str) -> None:
    image = grey(1)
    template: Any = cut(image)
    template = {
        "negative": 1 - template,
        "curve": np.sqrt(template),
        "noise": template + np.random.default_rng(0).normal(0, 0.02, template.shape),
    }[change].astype(np.float32)
    height, lead = edge_agreement(template, image)
    assert height > 3
    assert lead > -0.5


def test_shifted_edges_agree_elsewhere() -> None:
    image = grey(1)
    aligned, (height, lead) = edge_agreement(cut(image), image), edge_agreement(cut(image, 6, -4), image)
    assert height < aligned[0] - 2
    assert lead < -2


def test_other_pictures_do_not_agree() -> None:
    heights, leads = zip(
        *(edge_agreement(cut(grey(seed)), grey(seed + 1)) for seed in (1, 3, 5)), strict=True
    )
    assert max(heights) < 2
    assert max(leads) < -0.5


def test_an_even_image_says_nothing() -> None:
    flat = np.full((3 * N // 2, 3 * N // 2), 0.5, np.float32)
    for one, other in ((cut(flat), flat), (cut(grey(1)), flat), (cut(flat), grey(1))):
        assert np.isfinite(edge_agreement(one, other)).all()
        assert edge_agreement(one, other)[0] < 2


def test_the_inputs_are_left_alone() -> None:
    image = grey(1)
    template, before = cut(image), (cut(image), image.copy())
    edge_agreement(template, image)
    assert np.array_equal(template, before[0])
    assert np.array_equal(image, before[1])
