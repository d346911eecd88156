"""Training losses: pure functions of tensors. Homographies map template px to search px."""

from __future__ import annotations

from homoreg.losses.corners import corner_loss, per_pair_corner_error
from homoreg.losses.matching import flow_loss, matching_loss
from homoreg.losses.structural import photometric_loss

__all__ = ["corner_loss", "flow_loss", "matching_loss", "per_pair_corner_error", "photometric_loss"]
