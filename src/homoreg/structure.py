"""Whether the edges of two images coincide: evidence that owes nothing to a network.

The measure is that of normalised gradient fields (Haber and Modersitzki, MICCAI 2006): with ``u`` and ``v``
the softly normalised gradients of both images, ``sum_x <u(x), v(x + d)>**2`` says how well the directions of
their edges agree at the shift ``d``, whatever the sign of the contrast. Where two images are registered, it
has its peak at no shift in every part of the frame.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["edge_agreement"]

Floats = NDArray[np.float32]

_BLUR = 1.5  # deviation in px before the gradients: the grain of the noise has no part in them
_REACH = 10  # px: largest shift that is compared
_TILES = 3  # parts along each side of the frame
_SLACK = 1  # px: shifts up to this count as none


def edge_agreement(template: Floats, search: Floats) -> tuple[float, float]:
    """Compare the edges of a template with those of the centred square of a search frame.

    Parameters
    ----------
    template
        Shape (n, n), grey.
    search
        Shape (3n/2, 3n/2), grey, seen so that the template lies at the centred square.

    Returns
    -------
    height : float
        By how many standard deviations the agreement at no shift is above that of all shifts, in the mean
        over the parts of the frame.
    lead : float
        The same against the best shift: 0 where it is best without a shift, else negative.
    """
    n = template.shape[0]
    size, middle = n // _TILES, n // 4
    side = size + 2 * _REACH
    inner, outer = _direction_products(template), _direction_products(search)
    parts = []
    for y in range(0, size * _TILES, size):
        for x in range(0, size * _TILES, size):
            top, left = y + middle - _REACH, x + middle - _REACH
            around = outer[top : top + side, left : left + side]
            parts.append(cv2.matchTemplate(around, inner[y : y + size, x : x + size], cv2.TM_CCORR))
    agreement = np.stack(parts)
    mean = agreement.mean(axis=(1, 2), keepdims=True)
    deviation = agreement.std(axis=(1, 2), keepdims=True)
    score = (agreement - mean) / (deviation + 1e-6)
    near = slice(_REACH - _SLACK, _REACH + _SLACK + 1)
    centre, best = score[:, near, near].max(axis=(1, 2)), score.max(axis=(1, 2))
    return float(centre.mean()), float((centre - best).mean())


def _direction_products(image: Floats) -> Floats:
    """Three products of the soft unit gradient; their scalar product is that of gradients, squared.

    Shape (H, W, 3).
    """
    smooth = cv2.GaussianBlur(image, (0, 0), _BLUR)
    x, y = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    softness = float(np.median(np.hypot(x, y))) + 1e-4
    square = x * x + y * y + softness * softness
    products = np.stack([x * x, y * y, np.float32(2**0.5) * x * y], axis=-1) / square[..., None]
    return np.asarray(products, np.float32)
