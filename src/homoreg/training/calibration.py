"""Fit a model's trust on held-out images of its training sources, through the public call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from homoreg.geometry import square_prior
from homoreg.losses import per_pair_corner_error
from homoreg.models.storage import write_calibration
from homoreg.registrar import Registrar
from homoreg.synthesis.protocol import GeometryConfig, SampleBatch, draw_samples
from homoreg.synthesis.sources import ImageBank
from homoreg.training.loop import Source, split_sources
from homoreg.training.validation import HELD_OUT_APPEARANCE
from homoreg.trust import Trust, fit_trust

__all__ = ["calibrate"]

_SIZE, _BATCH, _SEED = 128, 16, 40_009


def calibrate(
    folder: str | Path,
    sources: Sequence[Source],
    *,
    share: float = 0.08,
    samples: int = 480,
    rounds: int = 2,
    threshold: float = 0.5,
) -> Trust:
    """Fit the calibration of the weights in a folder and write it into their config.

    Pairs of the seed protocol are drawn from the images that training holds back and go through
    :meth:`homoreg.Registrar.register_many` as a user's would. The passes a registration makes depend on the
    calibration, so the fit is repeated with the calibration just found.

    Parameters
    ----------
    folder
        Holds ``config.json`` and ``model.safetensors``.
    sources
        The folders of pairs the model was trained on.
    share
        Of each folder's images held back: that of the recipe.
    samples
        Pairs to draw.
    rounds
        How often the fit is made.
    threshold
        Confidence from which results are to call themselves reliable.

    Returns
    -------
    Trust
        As written.

    Raises
    ------
    DataError
        If a folder has no pairs.
    WeightsError, ConfigError
        If the weights cannot be loaded.
    InputError
        If fewer than 20 samples are asked for.
    """
    registrar = Registrar.from_pretrained(folder)
    _, _, held = split_sources(sources, share)
    bank = ImageBank(held)
    for _ in range(rounds):
        scores: list[float] = []
        errors: list[float] = []
        for first in range(0, samples, _BATCH):
            index = torch.arange(first, min(first + _BATCH, samples)) % len(bank)
            batch = draw_samples(
                bank,
                _SIZE,
                seed=_SEED + first,
                batch=len(index),
                geometry=GeometryConfig(crop_min=0.6),
                appearance=HELD_OUT_APPEARANCE,
                index=index,
            )
            part = _score(registrar, batch)
            scores += part[0]
            errors += part[1]
        registrar.trust = fit_trust(scores, errors, threshold=threshold)
    write_calibration(folder, registrar.trust.as_dict())
    return registrar.trust


def _score(registrar: Registrar, batch: SampleBatch) -> tuple[list[float], list[float]]:
    """Log precisions, read back from the confidences, and corner errors in px at n = 128."""
    pairs = list(zip(_eight_bit(batch.template), _eight_bit(batch.search), strict=True))
    results = registrar.register_many(pairs, prior=square_prior(_SIZE))
    found = torch.stack([torch.from_numpy(result.homography.copy()) for result in results])
    errors = per_pair_corner_error(found, batch.homography.double(), _SIZE).clamp(max=100.0)
    trust = registrar.trust
    scores = [
        (math.log(result.confidence / (1 - result.confidence)) - trust.confidence_offset)
        / trust.confidence_slope
        if 0 < result.confidence < 1
        else -4.0
        for result in results
    ]
    return scores, errors.tolist()


def _eight_bit(images: torch.Tensor) -> list[NDArray[np.uint8]]:
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8)
    return list(pixels.permute(0, 2, 3, 1).cpu().numpy())
