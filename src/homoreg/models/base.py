"""The contract that every architecture keeps, and the estimate it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from homoreg.errors import ConfigError, InputError

__all__ = ["HomographyEstimate", "HomographyModel"]


@dataclass(frozen=True, eq=False)
class HomographyEstimate:
    """What a model says of a batch of pairs.

    Parameters
    ----------
    homography
        Shape (B, 3, 3), float32 or float64, template px to search px, last entry 1.
    stages
        The homography after every stage or step, first to last; the last equals ``homography`` where the
        estimate has not diverged.
    covariance
        Shape (B, 4, 2, 2), px**2 in the search frame: uncalibrated covariance of the mapped corners.
    log_precision
        Shape (B,): mean predicted log precision (in template px) of the last solve, uncalibrated. Larger is
        more certain; it is comparable between pairs of the same template size.
    diverged
        Shape (B,), bool: the estimate was implausible and has been replaced, by the last one before it that
        was not or by the centred square, see :func:`~homoreg.geometry.square_prior`.
    details
        What an architecture keeps for its losses; its ``forward`` says what.
    """

    homography: Tensor
    stages: list[Tensor]
    covariance: Tensor
    log_precision: Tensor
    diverged: Tensor
    details: dict[str, Any] = field(default_factory=dict, repr=False)


class HomographyModel(nn.Module, ABC):
    """Base class of the architectures: ``model(template, search) -> HomographyEstimate``.

    The template is the infrared image, (B, 3, n, n); the search image is the RGB image,
    (B, 3, 3n/2, 3n/2). Both are in [0, 1] and of the floating-point type of the model's weights, which is
    float32 unless the caller converts the model; n is a multiple of 32. The estimate maps template pixels
    to search pixels.
    """

    architecture: ClassVar[str]
    """Registered name of the architecture."""

    rates_itself: ClassVar[bool] = True
    """Whether log precision and covariance compare between pairs; else no result is called reliable."""

    @property
    def starter(self) -> str:
        """Registered name of the model whose answer this one starts from; empty if it needs none.

        That of the config, where it has one.
        """
        return str(getattr(self.config, "starter", ""))

    @property
    @abstractmethod
    def config(self) -> Any:
        """The frozen dataclass this model was built from."""

    @abstractmethod
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
            Shape (B, 3, 3n/2, 3n/2), in [0, 1], RGB.
        initial
            Shape (B, 3, 3): where to start, for architectures that refine; they find a start themselves
            without it. Others ignore it.
        quick
            Ask for a cheaper and coarser answer, where the architecture has one. The log precisions of quick
            answers compare with one another only.
        valid
            Shape (B, 1, 3n/2, 3n/2), bool: which pixels of the search image show the picture; the others
            hold its mean. Without it all do. Architectures that cannot use it ignore it.

        Raises
        ------
        InputError
            If the shapes or the type do not fit.
        """

    def begin_silent(self, added: Sequence[str]) -> None:
        """Have parts that were added to trained weights change nothing at first.

        Parameters
        ----------
        added
            Names of the parameters that the weights do not hold.

        Raises
        ------
        ConfigError
            If the architecture has no such parts.
        """
        raise ConfigError(
            f"{self.architecture} cannot begin from weights without {added[0]!r}; expected all: use those "
            "of this config"
        )

    def check_input(self, template: Tensor, search: Tensor) -> int:
        """Return n after checking shapes and type.

        Raises
        ------
        InputError
            If the tensors are not (B, 3, n, n) and (B, 3, 3n/2, 3n/2) with B at least 1 and n a multiple
            of 32, are not floats, or, without autocast, are of another type than the weights.
        """
        batch, n = (int(template.shape[0]), int(template.shape[-1])) if template.dim() == 4 else (0, 0)
        expected = (batch, 3, n, n), (batch, 3, 3 * n // 2, 3 * n // 2)
        fits = (tuple(template.shape), tuple(search.shape)) == expected
        if not fits or batch == 0 or n == 0 or n % 32:
            raise InputError(
                f"{self.architecture} got a template of shape {tuple(template.shape)} and a search image of "
                f"shape {tuple(search.shape)}; expected (B, 3, n, n) and (B, 3, 3n/2, 3n/2) with n a "
                "multiple of 32: resize both, or call Registrar, which does"
            )
        if not (template.is_floating_point() and search.is_floating_point()):
            raise InputError(
                f"{self.architecture} got {template.dtype} and {search.dtype} images; expected floats in "
                "[0, 1]: divide 8-bit images by 255"
            )
        own = next(self.parameters()).dtype
        mixed = template.dtype != own or search.dtype != own
        if mixed and not torch.is_autocast_enabled(template.device.type):
            raise InputError(
                f"{self.architecture} got {template.dtype} and {search.dtype} images and has {own} weights; "
                f"expected one type: convert the images with .to({own})"
            )
        return n

    @staticmethod
    def check_initial(initial: Tensor | None, batch: int) -> None:
        """Check the shape of the starts.

        Raises
        ------
        InputError
            If there are any and they are not (batch, 3, 3).
        """
        if initial is not None and tuple(initial.shape) != (batch, 3, 3):
            raise InputError(
                f"initial has shape {tuple(initial.shape)}; expected ({batch}, 3, 3), one matrix for each "
                "pair"
            )

    @staticmethod
    def check_valid(valid: Tensor | None, batch: int, n: int) -> None:
        """Check the shape and the type of the masks.

        Raises
        ------
        InputError
            If there are any and they are not (batch, 1, 3n/2, 3n/2) and bool.
        """
        side = 3 * n // 2
        if valid is not None and (tuple(valid.shape), valid.dtype) != ((batch, 1, side, side), torch.bool):
            raise InputError(
                f"valid is {valid.dtype} of shape {tuple(valid.shape)}; expected bool of shape ({batch}, 1, "
                f"{side}, {side}), one mask for each pair"
            )

    @torch.no_grad()
    def count_parameters(self) -> int:
        """Return the number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @staticmethod
    def constant_rating(homography: Tensor, n: int) -> dict[str, Tensor]:
        """Covariance (n/8 px a coordinate) and log precision (0) for a model that does not rate itself.

        Parameters
        ----------
        homography
            Shape (B, 3, 3): gives batch, type and device.
        n
            Side of the template in px.
        """
        eye = torch.eye(2, dtype=homography.dtype, device=homography.device) * (n / 8) ** 2
        return {
            "covariance": eye.expand(len(homography), 4, 2, 2),
            "log_precision": torch.zeros(len(homography), dtype=homography.dtype, device=homography.device),
        }
