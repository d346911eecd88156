"""Training losses: pure functions of tensors. Homographies map template px to search px."""

from __future__ import annotations

from homoreg.losses.corners import corner_loss, entry_loss, per_pair_corner_error
from homoreg.losses.lucas_kanade import (
    brightness_constancy,
    convexity_hinge,
    decrease_hinge,
    star_convexity_hinge,
)
from homoreg.losses.matching import flow_loss, matching_loss
from homoreg.losses.mind import mind_descriptor, mind_loss
from homoreg.losses.structural import ncc_loss, ngf_loss, photometric_loss

__all__ = [
    "brightness_constancy",
    "convexity_hinge",
    "corner_loss",
    "decrease_hinge",
    "entry_loss",
    "flow_loss",
    "matching_loss",
    "mind_descriptor",
    "mind_loss",
    "ncc_loss",
    "ngf_loss",
    "per_pair_corner_error",
    "photometric_loss",
    "star_convexity_hinge",
]
