from __future__ import annotations

import pytest
import torch

from homoreg.geometry.constants import constant


def test_numbers_and_rows() -> None:
    assert torch.equal(constant([1, 2.5], torch.float64), torch.tensor([1, 2.5], dtype=torch.float64))
    rows = constant([[1, 0], [0, 2]], torch.float32, "cpu")
    assert torch.equal(rows, torch.tensor([[1.0, 0], [0, 2]]))
    assert rows.dtype == torch.float32


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_changing_one_changes_no_other(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    with torch.inference_mode():
        constant([1, 2], torch.float32, device)
    first = constant([1, 2], torch.float32, device)
    first += 1
    second = constant([1, 2], torch.float32, device)
    assert second.tolist() == [1, 2]
    assert not second.is_inference()
