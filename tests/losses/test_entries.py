from __future__ import annotations

import pytest
import torch
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry import compose, square_prior
from homoreg.losses import entry_loss
from tests.geometry.maps import double, random_maps, shift

N = 64
PRIOR = square_prior(N)[None]
TRUTH = compose(PRIOR, random_maps(3, side=float(N)))


def test_the_unit_of_a_shift_is_half_the_side() -> None:
    moved = compose(shift(N / 2, 0), PRIOR)
    assert float(entry_loss(moved, PRIOR, N)) == pytest.approx(1 / 8)
    assert float(entry_loss(moved, PRIOR, N, norm=1)) == pytest.approx(1 / 8)
    assert float(entry_loss(compose(shift(N, 0), PRIOR), PRIOR, N)) == pytest.approx(4 / 8)


def test_a_stretch_about_the_middle_is_one_entry() -> None:
    middle = (N - 1) / 2
    stretch = compose(shift(middle, middle), torch.diag(double([1.5, 1, 1])), shift(-middle, -middle))
    assert float(entry_loss(compose(PRIOR, stretch), PRIOR, N)) == pytest.approx(0.25 / 8)


def test_entries_are_of_the_normalised_matrix() -> None:
    assert float(entry_loss(-3.0 * TRUTH, TRUTH, N)) == pytest.approx(0, abs=1e-20)


def test_the_size_of_the_template_does_not_matter() -> None:
    other = random_maps(3, seed=5, side=float(N))
    shrink = double([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]])
    grow = double([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]])
    small = TRUTH, compose(PRIOR, other)
    large = [compose(grow, homography, shrink) for homography in small]
    expected = float(entry_loss(small[0], small[1], N))
    assert float(entry_loss(large[0], large[1], 2 * N)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("norm", [1, 2])
def test_gradients(norm: int) -> None:
    noise = 1e-3 * torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = (TRUTH + noise).requires_grad_()

    def loss(predicted: Tensor) -> Tensor:
        return entry_loss(predicted, TRUTH, N, norm=norm)

    assert torch.autograd.gradcheck(loss, (start,), eps=1e-7, atol=1e-4)
    loss(start).backward()
    assert start.grad is not None
    assert (start.grad.flatten(1)[:, :8] != 0).all()


def test_at_the_truth_the_gradient_is_zero() -> None:
    predicted = TRUTH.clone().requires_grad_()
    entry_loss(predicted, TRUTH, N).backward()
    assert predicted.grad is not None
    assert not predicted.grad.any()


def test_other_norms_are_refused() -> None:
    with pytest.raises(InputError, match="norm is 3; expected 1 or 2"):
        entry_loss(TRUTH, TRUTH, N, norm=3)
