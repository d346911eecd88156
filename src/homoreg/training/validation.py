"""Error on held-out images of the training sources, the same frozen draws each time."""

from __future__ import annotations

import torch
from torch import Tensor

from homoreg.losses import per_pair_corner_error
from homoreg.models.base import HomographyModel
from homoreg.synthesis.appearance import AppearanceConfig
from homoreg.synthesis.protocol import GeometryConfig, draw_samples
from homoreg.synthesis.sources import ImageBank
from homoreg.training.recipe import Recipe

__all__ = ["HELD_OUT_APPEARANCE", "validate"]

_SEED = 20_011
HELD_OUT_APPEARANCE = AppearanceConfig(
    polarity=0.0, curve=0.0, patchwork=0.0, rgb_mix=0.0, night=0.0, palette=0.3
)


@torch.no_grad()
def validate(
    model: HomographyModel, average: dict[str, Tensor], held: ImageBank, recipe: Recipe
) -> dict[str, float]:
    """Median corner error and share under 3 px of the averaged weights, at the full size.

    Parameters
    ----------
    model
        Its own weights are put back afterwards.
    average
        Averaged weights.
    held
        Held-out pairs.
    recipe
        Gives the size and the number of samples, which is rounded up to whole batches of 16.

    Returns
    -------
    dict
        ``validation_median`` (px at n = 128) and ``validation_under_3`` (share).
    """
    own = {name: value.detach().clone() for name, value in model.state_dict().items()}
    model.load_state_dict(average)
    model.eval()
    errors: list[Tensor] = []
    batch = min(16, recipe.validation_samples)
    try:
        for first in range(0, recipe.validation_samples, batch):
            seed = _SEED + first
            index = (torch.arange(first, first + batch) % len(held)).to(held.device)
            samples = draw_samples(
                held,
                recipe.size,
                seed=seed,
                batch=batch,
                geometry=GeometryConfig(crop_min=0.6),
                appearance=HELD_OUT_APPEARANCE,
                index=index,
            )
            estimate = model(samples.template, samples.search)
            errors.append(per_pair_corner_error(estimate.homography, samples.homography, recipe.size))
    finally:
        model.load_state_dict(own)
        model.train()
    scaled = torch.cat(errors).cpu() * (128 / recipe.size)
    return {
        "validation_median": float(scaled.median()),
        "validation_under_3": float((scaled < 3).float().mean()),
    }
