from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from homoreg.geometry import square_prior
from homoreg.models.base import HomographyEstimate, HomographyModel
from homoreg.synthesis.sources import ImageBank, find_pairs
from homoreg.training.validation import validate
from tests.scenes import write_pairs
from tests.training.runs import short


class Prior(HomographyModel):
    """Answers with the prior, shifted by its one weight; counts its calls."""

    architecture: ClassVar[str] = "prior"

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(500.0))
        self.modes: list[bool] = []
        self.count = 0

    @property
    def config(self) -> None:
        return None

    def forward(
        self,
        template: Tensor,
        search: Tensor,
        *,
        initial: Tensor | None = None,
        quick: bool = False,
        valid: Tensor | None = None,
    ) -> HomographyEstimate:
        n = self.check_input(template, search)
        self.modes.append(self.training)
        self.count += len(template)
        h = square_prior(n, dtype=torch.float32).repeat(len(template), 1, 1)
        h[:, 0, 2] += self.shift * n / 128
        zero = torch.zeros(len(h))
        return HomographyEstimate(h, [h], torch.zeros(len(h), 4, 2, 2), zero, zero > 0)


AT_PRIOR = {"shift": torch.tensor(0.0)}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> ImageBank:
    folder: Path = write_pairs(tmp_path_factory.mktemp("pairs"), 3)
    return ImageBank(find_pairs(folder))


@pytest.mark.parametrize("size", [64, 128])
def test_error_of_the_prior_at_128_px(held: ImageBank, size: int) -> None:
    found = validate(Prior(), AT_PRIOR, held, short(size=size, validation_samples=64))
    # A displacement uniform in a square of half-side 32 px is 24.5 px long on average.
    assert found["validation_median"] == pytest.approx(24.5, abs=1.5)
    assert found["validation_under_3"] == 0


def test_the_averaged_weights_are_judged_and_the_models_own_put_back(held: ImageBank) -> None:
    model = Prior()
    near = validate(model, AT_PRIOR, held, short())
    assert model.shift.item() == 500
    assert model.training
    assert model.modes == [False]
    far = validate(model, {"shift": torch.tensor(300.0)}, held, short())
    assert far["validation_median"] > 250 > near["validation_median"]


def test_the_same_draws_each_time(held: ImageBank) -> None:
    first = validate(Prior(), AT_PRIOR, held, short(validation_samples=8))
    torch.manual_seed(5)
    assert validate(Prior(), AT_PRIOR, held, short(validation_samples=8, seed=9)) == first


@pytest.mark.parametrize(("samples", "count"), [(2, 2), (16, 16), (20, 32)])
def test_whole_batches(held: ImageBank, samples: int, count: int) -> None:
    model = Prior()
    validate(model, AT_PRIOR, held, short(validation_samples=samples))
    assert model.count == count


def test_own_weights_also_after_a_failure(held: ImageBank, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Prior()

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("homoreg.training.validation.draw_samples", fail)
    with pytest.raises(KeyboardInterrupt):
        validate(model, AT_PRIOR, held, short())
    assert model.shift.item() == 500
    assert model.training
