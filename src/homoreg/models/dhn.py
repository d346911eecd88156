"""DHN: one convolutional network that regresses the four corners.

DeTone, Malisiewicz and Rabinovich, Deep Image Homography Estimation, arXiv 1606.03798. With ``A`` the
infrared template and ``B`` the centred square of the RGB search image, both grey, ``n = 128`` px:

    d = f(A, B) in R^(4x2),    H = T(n/4, n/4) H4(c, c + d)

``f`` is eight 3x3 convolutions of 64, 64, 64, 64, 128, 128, 128, 128 channels, each with batch norm and ReLU,
max pooling after each pair but the last, a fully connected layer of 1024 units and one of 8; ``c`` are the
corners of the template, ``H4`` the homography that maps four points to four points, ``T`` a shift from the
centred square to the search image.

Deviations from the paper:

- The two images are of two cameras. In place of grey values, ``A`` and ``B`` are the roots of the magnitudes
  of their gradients, taken at 64 px and enlarged to 128, at zero mean and unit deviation. On grey values the
  same kind of network (the first stage of MHN) had learned nothing across cameras after 9,600 samples, on
  gradients it was 2 px better than its start.
- The last layer is in units of ``n / 4`` px (the largest displacement of the protocol) and starts at zero.
- Dropout of 0.1 in place of 0.5, and AdamW with one cycle of the learning rate in place of SGD: training
  draws every sample afresh, so none is seen twice, and has far fewer of them. The loss is the paper's.
- An answer that folds or mirrors the frame, or is not finite, is replaced by the centred square.
- Images of other sizes are resized to 128 px, and the answer is taken back to their pixels exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from homoreg.geometry import (
    compose,
    fit_matrix,
    homography_from_corners,
    image_corners,
    is_plausible,
    square_prior,
)
from homoreg.models.base import HomographyEstimate, HomographyModel
from homoreg.models.layers import OffsetRegressor, check_regressor, edge_map

__all__ = ["DHN", "DHNConfig"]


@dataclass(frozen=True)
class DHNConfig:
    """Sizes of a DHN; the defaults are the paper's 34 million parameters."""

    side: int = 128  # px of the images the network sees
    widths: tuple[int, int, int, int] = (64, 64, 128, 128)  # channels of the four pairs of convolutions
    hidden: int = 1024  # units of the fully connected layer
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_regressor("dhn", self, multiple=8)


class DHN(HomographyModel):
    """Deep homography network of DeTone et al.

    Parameters
    ----------
    config
        Sizes; the default has 34.2 million parameters.
    """

    architecture = "dhn"
    rates_itself = False

    def __init__(self, config: DHNConfig | None = None) -> None:
        super().__init__()
        self._config = config or DHNConfig()
        c = self._config
        self.net = OffsetRegressor(2, c.side, c.widths, hidden=c.hidden, dropout=c.dropout)

    @property
    def config(self) -> DHNConfig:
        """The frozen dataclass this model was built from."""
        return self._config

    def forward(
        self,
        template: Tensor,
        search: Tensor,
        *,
        initial: Tensor | None = None,
        quick: bool = False,
        valid: Tensor | None = None,
    ) -> HomographyEstimate:
        """Estimate the homography from template pixels to search pixels.

        Parameters
        ----------
        template
            Shape (B, 3, n, n), in [0, 1], infrared.
        search
            Shape (B, 3, 3n/2, 3n/2), in [0, 1], RGB; only its centred n x n square is seen.
        initial, quick, valid
            Ignored: there is nothing to refine, no cheaper answer and no cell that could be left out.

        Returns
        -------
        HomographyEstimate
            Covariance and log precision are constants. ``details`` holds ``offsets`` (B, 4, 2), the
            displacements of the corners in px of a template of the config's ``side``.

        Raises
        ------
        InputError
            If the shapes or the type do not fit.
        """
        n, side = self.check_input(template, search), self._config.side
        margin = n // 4
        patch = search[..., margin : margin + n, margin : margin + n]
        pair = [edge_map(image, side // 2, side) for image in (template, patch)]
        offsets = self.net(torch.cat(pair, dim=1)) * (side / 4)
        corners = image_corners(side, side, dtype=offsets.dtype, device=offsets.device)
        to_side = fit_matrix((n, n), (side, side), dtype=offsets.dtype).to(offsets.device)
        from_side = fit_matrix((side, side), (n, n), dtype=offsets.dtype).to(offsets.device)
        prior = square_prior(n, dtype=offsets.dtype, device=offsets.device)
        found = compose(prior, from_side, homography_from_corners(corners, corners + offsets), to_side)
        sound = is_plausible(found.detach(), n)
        return HomographyEstimate(
            homography=torch.where(sound[:, None, None], found, prior),
            stages=[found],
            diverged=~sound,
            details={"offsets": offsets},
            **self.constant_rating(found, n),
        )
