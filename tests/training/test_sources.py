"""Which images are trained on and which are held back."""

from __future__ import annotations

from pathlib import Path

import pytest

from homoreg.synthesis.sources import find_pairs
from homoreg.training.sources import Source, names_digest, split_sources
from tests.scenes import write_pairs


def test_the_last_images_of_each_folder_are_held_back(tmp_path: Path) -> None:
    first, second = write_pairs(tmp_path / "a", 4, size=(8, 8)), write_pairs(tmp_path / "b", 9, size=(8, 8))
    training, weights, held = split_sources([Source(first), Source(second, 2.0)], 0.3)
    assert [(p.source, p.rgb.stem) for p in held] == [("a", "03"), ("b", "06"), ("b", "07"), ("b", "08")]
    assert [(p.source, p.rgb.stem) for p in training] == [
        *(("a", f"0{k}") for k in range(3)),
        *(("b", f"0{k}") for k in range(6)),
    ]
    # A folder counts by its weight and the root of its number.
    assert sum(weights[:3]) == pytest.approx(3**0.5)
    assert sum(weights[3:]) == pytest.approx(2 * 6**0.5)
    assert len(set(weights)) == 2


@pytest.mark.parametrize(("count", "share", "held"), [(1, 0.5, 0), (2, 0.01, 1), (2, 0.99, 1), (5, 0.0, 0)])
def test_a_folder_keeps_an_image_to_train_on(tmp_path: Path, count: int, share: float, held: int) -> None:
    folder = write_pairs(tmp_path / "a", count, size=(8, 8))
    training, _, back = split_sources([Source(folder)], share)
    assert (len(training), len(back)) == (count - held, held)


def test_the_digest_follows_the_names_and_nothing_else(tmp_path: Path) -> None:
    one, two = (
        write_pairs(tmp_path / name, 3, size=(8, 8), seed=seed) for name, seed in (("a", 0), ("b", 5))
    )
    digest = names_digest(find_pairs(one))
    assert digest == names_digest(find_pairs(two))
    (two / "ir" / "02.png").rename(two / "ir" / "02.webp")
    assert digest != names_digest(find_pairs(two))
    assert digest != names_digest(find_pairs(one)[:2])
