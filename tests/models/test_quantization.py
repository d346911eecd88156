from __future__ import annotations

import pytest
import torch
from torch import Tensor

from homoreg.errors import WeightsError
from homoreg.models.quantization import LARGE, SCALE, dequantized, is_exact, quantized

SHAPE = (64, LARGE // 64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [SHAPE, (128, 64, 3, 3), (8, LARGE)])
def test_large_matrices_become_integers_with_a_scale_a_row(shape: tuple[int, ...]) -> None:
    tensors = {"w": normal(*shape) * torch.logspace(-6, 3, shape[0]).view(-1, *[1] * (len(shape) - 1))}
    stored = quantized(tensors)
    assert set(stored) == {"w", "w" + SCALE}
    assert stored["w"].dtype == torch.int8
    assert stored["w"].shape == shape
    assert stored["w"].abs().flatten(1).amax(1).eq(127).all()  # every row uses the whole range
    assert stored["w" + SCALE].shape == shape[:1]
    error = (dequantized(stored, "f")["w"] - tensors["w"]).abs().flatten(1).amax(1)
    assert (error <= 0.5001 * stored["w" + SCALE]).all()


def test_what_is_small_or_no_matrix_stays_as_precise_as_it_was() -> None:
    tensors = {"small": normal(8, 8).half(), "vector": normal(LARGE), "count": torch.tensor(3)}
    stored = quantized(tensors)
    assert {name: value.dtype for name, value in stored.items()} == {
        "small": torch.float32,
        "vector": torch.float32,
        "count": torch.int64,
    }
    assert all(torch.equal(stored[name], value.to(stored[name].dtype)) for name, value in tensors.items())


@pytest.mark.parametrize("seed", range(5))
def test_what_was_read_is_written_the_same_again(seed: int) -> None:
    first = quantized({"w": normal(*SHAPE, seed=seed) * 10.0 ** (seed - 2)})
    weights = dequantized(first, "f")
    second = quantized(weights)
    assert is_exact(weights)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_rows_of_zeros_stay_zero() -> None:
    weight = normal(*SHAPE)
    weight[3] = 0
    stored = quantized({"w": weight})
    assert stored["w" + SCALE][3] == 0
    assert not dequantized(stored, "f")["w"][3].any()
    assert is_exact(dequantized(stored, "f"))


def test_other_weights_would_lose_and_small_ones_have_nothing_to_gain() -> None:
    assert not is_exact({"w": normal(*SHAPE)})
    assert not is_exact({"w": torch.zeros(4, 4), "b": torch.zeros(LARGE)})


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (None, r"f: tensor w is int8 without scales; expected a tensor w\.scale of float32 \(64,\)"),
        (
            torch.ones(63),
            r"w\.scale is torch\.float32 \(63,\); expected float32 \(64,\), one scale a row of w",
        ),
        (torch.ones(64, 1), r"w\.scale is torch\.float32 \(64, 1\)"),
        (torch.ones(()), r"w\.scale is torch\.float32 \(\)"),
        (torch.ones(64).double(), r"w\.scale is torch\.float64"),
        (torch.full((64,), torch.nan), r"w\.scale holds scales that are negative or not finite"),
        (torch.full((64,), torch.inf), r"w\.scale holds scales that are negative or not finite"),
        (-torch.ones(64), r"w\.scale holds scales that are negative or not finite"),
    ],
)
def test_scales_that_do_not_fit_are_named(scale: Tensor | None, message: str) -> None:
    tensors = {"w": torch.zeros(64, 4, dtype=torch.int8)}
    with pytest.raises(WeightsError, match=message):
        dequantized(tensors if scale is None else {**tensors, "w" + SCALE: scale}, "f")


def test_an_integer_without_rows_is_named() -> None:
    with pytest.raises(WeightsError, match=r"w\.scale is torch\.float32 \(\)"):
        dequantized({"w": torch.zeros((), dtype=torch.int8), "w" + SCALE: torch.ones(())}, "f")
