"""Gradient descent on the difference of gradient images, with kornia."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from homoreg.baselines.common import BaselineResult, Bytes, Floats, attempt
from homoreg.baselines.correlation import correlation, gradient_image

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["kornia"]

# At most so many steps of Adam a level; the rate is in units of the frame, whose half side is 1.
_LEVELS, _ITERATIONS, _RATE, _TOLERANCE = 4, 100, 5e-3, 1e-5


def kornia(ir: Bytes, rgb: Bytes, prior: Floats) -> BaselineResult:
    """Minimise the difference of gradient images by gradient descent over homographies, coarse to fine.

    ``kornia.geometry.transform.ImageRegistrator`` with its homography model and Adam, on the gradient images
    of :func:`ecc`. It knows images of one size only and starts at the identity: so the template is drawn
    into the frame of the RGB through the prior, with a second channel that says where it is, and only there
    differences count. Accepted when the gradient images correlate better than under the prior, and the
    homography neither folds nor mirrors the image.

    Parameters
    ----------
    ir, rgb
        uint8 images, (H, W) or (H, W, 3) in RGB order, of any two sizes.
    prior
        (3, 3) homography, infrared px to RGB px, to start from.

    Returns
    -------
    BaselineResult
        The homography, or the prior with ``ok=False``.

    Raises
    ------
    InputError
        As :func:`nothing`.
    """
    return attempt(_search, ir, rgb, prior)


def _search(ir: Bytes, rgb: Bytes, prior: Floats) -> Floats | None:
    import torch
    from kornia.geometry import denormalize_homography
    from kornia.geometry.transform import ImageRegistrator

    pair = gradient_image(ir, 1.0), gradient_image(rgb, 1.0)
    height, width = rgb.shape
    drawn = [
        cv2.warpPerspective(image, prior, (width, height), flags=cv2.INTER_LINEAR)
        for image in (pair[0][0], np.ones(ir.shape, np.float32))
    ]
    template = torch.from_numpy(np.stack(drawn))[None]
    search = torch.from_numpy(np.stack([pair[1][0], np.ones_like(pair[1][0])]))[None]
    registrator = ImageRegistrator(
        "homography",
        loss_fn=_difference,
        pyramid_levels=_LEVELS,
        lr=_RATE,
        num_iterations=_ITERATIONS,
        tolerance=_TOLERANCE,
    )
    with torch.enable_grad():
        registrator.register(search, template)
    size = (height, width)
    local = denormalize_homography(registrator.model().detach(), size, size, align_corners=False)
    found = local[0].double().numpy() @ prior
    return found if correlation(*pair, found) > correlation(*pair, prior) else None


def _difference(moved: Tensor, still: Tensor, reduction: str) -> Tensor:
    weight = moved[:, 1:] * still[:, 1:]
    # The registrator averages over the whole frame: undivided, a template that shrinks would cost less.
    return (moved[:, :1] - still[:, :1]).abs() * weight / weight.mean().clamp_min(1e-3)
