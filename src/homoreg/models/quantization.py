"""Large matrices as 8-bit integers: a quarter of the size on disk, with one scale a row.

A tensor ``w`` whose first index is the row is stored as ``q = round(w / s)`` with ``-127 <= q <= 127``, and
beside it, as ``NAME.scale``, the scale ``s`` of each row: its largest magnitude over 127, rounded up to 16
significant bits. ``q * s`` is then exact in float32, so that weights read from such a file and written
again give the same file. The error is at most half a scale, 0.4 % of the row's largest weight.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from homoreg.errors import WeightsError

__all__ = ["SCALE", "dequantized", "is_exact", "quantized"]

SCALE = ".scale"
"""What is added to a tensor's name to name its scales."""

LARGE = 65_536  # numbers from which a matrix is worth it; what is smaller stays float32
_DROPPED_BITS = 8  # of float32's 24: with the 7 bits of an integer up to 127 a product needs 23


def _is_large(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dim() >= 2 and tensor.numel() >= LARGE


def _rows(scale: Tensor, like: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (like.dim() - 1))


def _quantize(tensor: Tensor) -> tuple[Tensor, Tensor]:
    tensor = tensor.float()
    largest = tensor.abs().flatten(1).amax(dim=1)
    step = 1 << _DROPPED_BITS
    bits = (largest / 127).view(torch.int32)
    scale = ((bits + (step - 1)) // step * step).view(torch.float32)
    safe = torch.where(scale > 0, scale, 1.0)
    return (tensor / _rows(safe, tensor)).round().clamp(-127, 127).to(torch.int8), scale


def quantized(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by name with the large ones as int8 and their scales, the other floats as float32."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _is_large(tensor):
            out[name], out[name + SCALE] = _quantize(tensor)
        else:
            out[name] = tensor.float() if tensor.is_floating_point() else tensor
    return out


def is_exact(tensors: Mapping[str, Tensor]) -> bool:
    """Whether :func:`quantized` loses nothing and there is something to gain: true of what it once wrote."""
    large = [tensor for tensor in tensors.values() if _is_large(tensor)]
    for tensor in large:
        values, scale = _quantize(tensor)
        if not torch.equal(values.float() * _rows(scale, values), tensor.float()):
            return False
    return bool(large)


def dequantized(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return tensors by name with the int8 ones as float32 and their scales left out.

    Parameters
    ----------
    tensors
        As read from a file.
    where
        The file, for messages.

    Raises
    ------
    WeightsError
        If an int8 tensor has no scales, or scales of another shape or type, or ones that are negative or not
        finite.
    """
    out = dict(tensors)
    for name, values in tensors.items():
        if values.dtype != torch.int8:
            continue
        scale = out.pop(name + SCALE, None)
        rows = tuple(values.shape[:1])
        if scale is None:
            raise WeightsError(
                f"{where}: tensor {name} is int8 without scales; expected a tensor {name + SCALE} of float32 "
                f"{rows}: fetch the weights again"
            )
        if scale.dtype != torch.float32 or tuple(scale.shape) != rows or not rows:
            raise WeightsError(
                f"{where}: tensor {name + SCALE} is {scale.dtype} {tuple(scale.shape)}; expected float32 "
                f"{rows}, one scale a row of {name}: fetch the weights again"
            )
        if not bool((torch.isfinite(scale) & (scale >= 0)).all()):
            raise WeightsError(
                f"{where}: tensor {name + SCALE} holds scales that are negative or not finite; fetch the "
                "weights again"
            )
        out[name] = values.float() * _rows(scale, values)
    return out
