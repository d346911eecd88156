"""Classical registration, to compare the networks with.

Every baseline is a function ``(ir, rgb, prior) -> BaselineResult`` of two uint8 images and the homography
to start from. When it fails, or its own acceptance test refuses the result, it returns the prior and says
so with ``ok=False``. No acceptance test looks at a ground truth. All of them expect images of about equal
scale, as the seed protocol's frames are, and give the same result in every run.

Examples
--------
>>> import numpy as np
>>> flat = np.zeros((128, 128, 3), np.uint8)
>>> sift(flat, flat, np.eye(3)).ok
False
"""

from __future__ import annotations

from homoreg.baselines.common import Baseline, BaselineResult, Bytes, Floats, attempt
from homoreg.baselines.correlation import ecc
from homoreg.baselines.descent import kornia
from homoreg.baselines.features import sift
from homoreg.baselines.information import mutual_information
from homoreg.errors import UnknownNameError

__all__ = [
    "BASELINES",
    "Baseline",
    "BaselineResult",
    "ecc",
    "get_baseline",
    "kornia",
    "mutual_information",
    "nothing",
    "sift",
]


def nothing(ir: Bytes, rgb: Bytes, prior: Floats) -> BaselineResult:
    """Return the prior: the row that every method has to beat.

    Parameters
    ----------
    ir, rgb
        Images, not looked at beyond their shape.
    prior
        (3, 3) homography, infrared px to RGB px.

    Returns
    -------
    BaselineResult
        The prior, ``ok=True``.

    Raises
    ------
    InputError
        If an image is not uint8 (H, W) or (H, W, 3), or the prior is not a finite 3x3 matrix.
    """
    return BaselineResult(attempt(lambda *_: None, ir, rgb, prior).homography, True)


BASELINES: dict[str, Baseline] = {
    "nothing": nothing,
    "sift": sift,
    "ecc": ecc,
    "mutual_information": mutual_information,
    "kornia": kornia,
}
"""The baselines by name."""


def get_baseline(name: str) -> Baseline:
    """Baseline of a given name.

    Parameters
    ----------
    name
        A key of :data:`BASELINES`.

    Returns
    -------
    callable
        ``(ir, rgb, prior) -> BaselineResult``.

    Raises
    ------
    UnknownNameError
        If there is no such baseline.
    """
    try:
        return BASELINES[name]
    except KeyError:
        raise UnknownNameError(
            f"no baseline is called {name!r}; known baselines: {', '.join(BASELINES)}"
        ) from None
