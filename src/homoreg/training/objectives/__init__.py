"""What each architecture is trained to minimise."""

from __future__ import annotations

from homoreg.errors import UnknownNameError
from homoreg.models.base import HomographyModel
from homoreg.models.clkn import CLKN
from homoreg.models.dhn import DHN
from homoreg.models.dlkfm import DLKFM
from homoreg.models.m import M
from homoreg.models.mhn import MHN
from homoreg.training.objectives.base import Objective, Outcome
from homoreg.training.objectives.corners import dhn_objective, mhn_objective
from homoreg.training.objectives.lucas_kanade import clkn_objective, dlkfm_objective
from homoreg.training.objectives.m import m_objective

__all__ = [
    "Objective",
    "Outcome",
    "clkn_objective",
    "dhn_objective",
    "dlkfm_objective",
    "get_objective",
    "m_objective",
    "mhn_objective",
]

_OBJECTIVES: dict[str, Objective] = {
    DHN.architecture: dhn_objective,
    CLKN.architecture: clkn_objective,
    DLKFM.architecture: dlkfm_objective,
    M.architecture: m_objective,
    MHN.architecture: mhn_objective,
}


def get_objective(model: HomographyModel) -> Objective:
    """Return the objective of a model's architecture.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    if model.architecture not in _OBJECTIVES:
        raise UnknownNameError(
            f"no training objective is known for the architecture {model.architecture!r}; architectures that "
            f"can be trained: {', '.join(sorted(_OBJECTIVES))}"
        )
    return _OBJECTIVES[model.architecture]
