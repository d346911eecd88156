"""Registrar: two pictures in, one homography out, with a number that says how far to trust it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from homoreg.errors import InputError
from homoreg.geometry import fit_matrix, image_corners, pad_matrix, square_prior, transform_points
from homoreg.imaging.reading import ImageLike, read_image
from homoreg.imaging.resampling import share_inside
from homoreg.models.base import HomographyModel
from homoreg.models.storage import load_model
from homoreg.pretrained import locate
from homoreg.registration import Registration
from homoreg.trust import Trust
from homoreg.views import PairViews

if TYPE_CHECKING:
    from homoreg.evaluation import Evaluation

__all__ = ["Prior", "Registrar"]

Prior: TypeAlias = Literal["auto"] | ArrayLike | Tensor

SIZE = 128  # side of the template frame in px
SCOUT_SIZE = 64  # of the frames in which the field-of-view hypotheses are compared
FIELD_RATIOS = (1.25, 1.0, 0.78, 0.6, 0.45)  # infrared field of view over that of the RGB
SHIFTS = ((-0.125, 0.0), (0.125, 0.0), (0.0, -0.125), (0.0, 0.125))  # of other starts, in template sides
SLACK = 0.1  # log precision that a further look may lose and still be preferred
LEAST_OVERLAP = 0.2  # share of the infrared frame that must lie in the RGB picture to be reliable
WORST_PRECISION = -4.0  # the floor of the models' log precision


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A homography (3, 3) float64, infrared px to RGB px, and the log precision of its last solve."""

    homography: Tensor
    log_precision: float

    @property
    def diverged(self) -> bool:
        """No answer was accepted: the homography is the start."""
        return self.log_precision <= WORST_PRECISION


class Registrar:
    """Registers infrared pictures to RGB pictures with one trained model.

    Make one with :meth:`from_pretrained`; call it with two pictures.

    Parameters
    ----------
    model
        Trained model, in evaluation mode.
    name
        What results call it.
    trust
        Calibration of its confidence.
    device
        Where it runs, such as "cpu" or "cuda".

    Attributes
    ----------
    training
        Facts about the training, kept in the config and shown in the model card.
    folder
        Where the model was loaded from; None if it was not.

    Raises
    ------
    InputError
        If the device is not there.
    """

    def __init__(
        self, model: HomographyModel, *, name: str, trust: Trust | None = None, device: str | None = None
    ) -> None:
        chosen = device or "cpu"
        try:
            self.device = torch.device(chosen)
            self.model = model.to(self.device).eval()
        except (RuntimeError, AssertionError, ImportError) as error:
            raise InputError(
                f"device is {chosen!r}; expected cpu, or cuda where torch sees one ({error})"
            ) from None
        self.name = name
        self.trust = trust or Trust()
        self.training: dict[str, Any] = {}
        self.folder: Path | None = None

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str] = "m120",
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        device: str | None = None,
    ) -> Registrar:
        """Load a trained model.

        Parameters
        ----------
        name
            A registered name, see :func:`homoreg.list_models`; a folder with ``config.json`` and
            ``model.safetensors``; or ``"OWNER/NAME"`` or ``"OWNER/NAME@REVISION"`` on the Hugging Face Hub.
            Embedded models need no network.
        revision
            Branch, tag or commit of a repository; its main branch by default.
        cache_dir
            Where downloads are kept; by default that of ``huggingface_hub``, which ``HF_HOME`` moves.
        token
            Access token; True takes the one that is logged in, False none.
        local_files_only
            Use the cache and never the network; so does ``HF_HUB_OFFLINE=1``.
        force_download
            Download again what is in the cache.
        device
            Where to run; the CPU by default.

        Returns
        -------
        Registrar
            Ready to be called.

        Raises
        ------
        UnknownNameError
            If there is no such model, folder, repository or revision.
        WeightsError, ConfigError
            If the files are missing, corrupt, not those that are pinned, or do not fit each other.
        HubError, OutputError
            If the Hub gives no answer and the cache has no copy, or the cache cannot be written.
        InputError
            If the arguments contradict each other, or the device is not there.
        """
        source = locate(
            name,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            force_download=force_download,
        )
        model, config = load_model(source.folder)
        registrar = cls(model, name=source.name, trust=Trust.from_dict(config["calibration"]), device=device)
        registrar.training, registrar.folder = config["training"], source.folder
        return registrar

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        results: Sequence[Evaluation] = (),
        pictures: Mapping[str, Registration] | None = None,
    ) -> Path:
        """Write a folder that :meth:`from_pretrained` loads back equal.

        Parameters
        ----------
        folder
            Created if it is not there. Gets config.json, model.safetensors, README.md (a model card) and the
            pictures; files of these names are replaced.
        results
            Evaluations for the card's table. Without them the card says that nothing was measured, unless it
            comes with weights that are unchanged.
        pictures
            Registrations for the card to show, by caption.

        Returns
        -------
        pathlib.Path
            The folder.

        Raises
        ------
        OutputError
            If it cannot be written; then nothing of it is.
        """
        from homoreg import publish

        return publish.save(self, folder, results=results, pictures=pictures)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        results: Sequence[Evaluation] = (),
        pictures: Mapping[str, Registration] | None = None,
    ) -> str:
        """Upload what :meth:`save_pretrained` writes to the Hugging Face Hub, in one commit.

        Parameters
        ----------
        repository
            ``"OWNER/NAME"``; made if it does not exist.
        private
            Whether a repository made for this is private; by default what the owner's settings say.
        revision
            Branch, made if it does not exist; the main branch by default.
        token
            Access token that may write; by default the one that is logged in.
        results, pictures
            As for :meth:`save_pretrained`.

        Returns
        -------
        str
            Full commit: ``from_pretrained(f"{repository}@{commit}")`` loads these weights for ever.

        Raises
        ------
        HubError
            If the Hub cannot be reached or refuses.
        InputError
            If repository or revision cannot be a name.
        """
        from homoreg import publish

        return publish.push(
            self,
            repository,
            private=private,
            revision=revision,
            token=token,
            results=results,
            pictures=pictures,
        )

    def __repr__(self) -> str:
        return (
            f"Registrar({self.name!r}, architecture={self.model.architecture!r}, device={str(self.device)!r})"
        )

    def __call__(self, ir: ImageLike, rgb: ImageLike, *, prior: Prior = "auto") -> Registration:
        """Register an infrared picture to an RGB picture.

        Parameters
        ----------
        ir, rgb
            Path, PIL image, array (H, W[, C]) or tensor ([C,] H, W); 8- or 16-bit or float; grey, RGB or
            RGBA; any two sizes.
        prior
            First guess: a 3x3 matrix that maps infrared px to RGB px, or "auto", which compares
            hypotheses about the two fields of view, centred on each other.

        Returns
        -------
        Registration
            Always, also where nothing fits: then with ``reliable`` False and the reason in ``status``.

        Raises
        ------
        InputError
            If an image or the prior is not usable; the message says why.
        """
        return self.register_many([(ir, rgb)], prior=prior)[0]

    def register_many(
        self,
        pairs: Iterable[tuple[ImageLike, ImageLike]],
        *,
        prior: Prior | Sequence[Prior] = "auto",
        batch_size: int = 16,
    ) -> list[Registration]:
        """Register many pairs, several at a time.

        The results are those of single calls up to rounding, some thousandths of a pixel; where a pair is at
        the edge of needing another look, rounding may decide it.

        Parameters
        ----------
        pairs
            Infrared and RGB pictures as for a single call.
        prior
            One for all pairs, or a list with one for each.
        batch_size
            Pairs that go through the network together; memory grows with it, and by the pictures that every
            result keeps.

        Returns
        -------
        list of Registration
            In the order of the pairs.

        Raises
        ------
        InputError
            If an image or a prior is not usable, their numbers differ, or ``batch_size`` is not a positive
            whole number.
        """
        listed = list(pairs)
        _check_call(listed, batch_size)
        priors = _spread_prior(prior, len(listed))
        results: list[Registration] = []
        for first in range(0, len(listed), batch_size):
            chunk = listed[first : first + batch_size]
            views = [PairViews(read_image(ir, role="ir"), read_image(rgb, role="rgb")) for ir, rgb in chunk]
            results += self._register(views, priors[first : first + batch_size])
        return results

    def _register(self, views: list[PairViews], priors: list[Tensor | None]) -> list[Registration]:
        """Scout where there is no prior, look twice, and try other starts where in doubt."""
        blank = [view.is_featureless for view in views]
        starts = [_start(view, prior) for view, prior in zip(views, priors, strict=True)]
        best = [_Candidate(start, WORST_PRECISION) for start in starts]
        active = [i for i in range(len(views)) if not blank[i]]
        free = [i for i in active if priors[i] is None]
        given = [i for i in active if priors[i] is not None]
        self._scout(views, best, free, [_hypotheses(views[i]) for i in free])
        self._look(views, best, given, refine=False)
        self._look(views, best, active, refine=True)
        unsure = [i for i in active if self.trust.confidence(best[i].log_precision) < self.trust.threshold]
        others = [_Candidate(start, WORST_PRECISION) for start in starts]
        # Without a prior, the field of view that the scouts chose is the best guess there is.
        centres = [starts[i] if priors[i] is not None else best[i].homography for i in range(len(views))]
        self._scout(views, others, unsure, [_shifted(views[i], centres[i]) for i in unsure])
        self._look(views, others, unsure, refine=True)
        for i in unsure:
            best[i] = max(best[i], others[i], key=lambda c: c.log_precision)
        self._look(views, best, unsure, refine=True)
        for i, start in enumerate(starts):
            if best[i].diverged:
                best[i] = _Candidate(start, WORST_PRECISION)
        return [
            self._result(view, candidate, featureless)
            for view, candidate, featureless in zip(views, best, blank, strict=True)
        ]

    def _scout(
        self,
        views: list[PairViews],
        best: list[_Candidate],
        chosen: list[int],
        placements: list[list[Tensor]],
    ) -> None:
        """Compare placements of each chosen pair in small frames and keep the answer to the best."""
        jobs = [(views[i], one) for i, tried in zip(chosen, placements, strict=True) for one in tried]
        found = iter(self._estimate(jobs, SCOUT_SIZE, quick=True))
        for i, tried in zip(chosen, placements, strict=True):
            answers = [next(found) for _ in tried]
            winner = max(answers, key=lambda c: c.log_precision)
            # Precisions in small frames do not compare with those in full ones: any full answer wins.
            best[i] = _Candidate(winner.homography, WORST_PRECISION)

    def _look(
        self, views: list[PairViews], best: list[_Candidate], chosen: list[int], *, refine: bool
    ) -> None:
        """Look through the best placement so far; keep the answer unless it is less certain."""
        found = self._estimate([(views[i], best[i].homography) for i in chosen], SIZE, refine=refine)
        for i, candidate in zip(chosen, found, strict=True):
            if candidate.log_precision > best[i].log_precision - SLACK and not candidate.diverged:
                best[i] = candidate

    @torch.inference_mode()
    def _estimate(
        self,
        jobs: list[tuple[PairViews, Tensor]],
        n: int,
        *,
        refine: bool = False,
        quick: bool = False,
        chunk: int = 16,
    ) -> list[_Candidate]:
        """Run the model on placed pairs, at template size n; ``refine`` starts from the placement itself."""
        found: list[_Candidate] = []
        for first in range(0, len(jobs), chunk):
            part = jobs[first : first + chunk]
            template = torch.cat([view.template(n) for view, _ in part]).to(self.device)
            search = torch.cat([view.search(placement, n) for view, placement in part]).to(self.device)
            initial = square_prior(n, dtype=torch.float32).to(self.device).expand(len(part), 3, 3)
            estimate = self.model(template, search, initial=initial if refine else None, quick=quick)
            homographies = estimate.homography.cpu().double()
            precisions = estimate.log_precision.cpu().tolist()
            diverged = estimate.diverged.cpu().tolist()
            for k, (view, placement) in enumerate(part):
                homography = view.compose(placement, homographies[k], n)
                lost = diverged[k] or not bool(torch.isfinite(homography).all())
                found.append(
                    _Candidate(placement, WORST_PRECISION) if lost else _Candidate(homography, precisions[k])
                )
        return found

    def _result(self, view: PairViews, candidate: _Candidate, featureless: bool) -> Registration:
        corners = image_corners(*view.ir.size, dtype=torch.float64)
        quad = transform_points(candidate.homography, corners)
        side = float((quad.roll(-1, 0) - quad).norm(dim=-1).mean())
        confidence = self.trust.confidence(candidate.log_precision)
        lost = featureless or candidate.diverged
        seen = share_inside(candidate.homography.numpy(), view.ir.size, view.rgb.size)
        trusted = not lost and seen >= LEAST_OVERLAP and confidence >= self.trust.threshold
        return Registration.build(
            candidate.homography.numpy(),
            ir=view.ir,
            rgb=view.rgb,
            ir_tone=view.ir_tone,
            rgb_tone=view.rgb_tone,
            expected_error=self.trust.expected_error(candidate.log_precision) * side / (SIZE - 1),
            confidence=0.0 if lost else confidence,
            reliable=trusted,
            model=self.name,
            status="featureless" if featureless else "diverged" if candidate.diverged else "ok",
        )


def _hypotheses(view: PairViews) -> list[Tensor]:
    """Placements of the infrared picture centred on the RGB picture, one a field-of-view ratio."""
    (width, height), (rgb_width, rgb_height) = view.ir.size, view.rgb.size
    # The ratio is that of the geometric means, so that it is one number for pictures of unlike aspects.
    even = (rgb_width * rgb_height / (width * height)) ** 0.5
    placements = []
    for ratio in FIELD_RATIOS:
        scale = ratio * even
        x, y = (rgb_width - 1 - scale * (width - 1)) / 2, (rgb_height - 1 - scale * (height - 1)) / 2
        placements.append(torch.tensor([[scale, 0, x], [0, scale, y], [0, 0, 1]], dtype=torch.float64))
    return placements


def _shifted(view: PairViews, start: Tensor) -> list[Tensor]:
    """The start, and starts a share of the infrared frame beside it."""
    width, height = view.ir.size
    return [start, *(start @ pad_matrix(x * width, y * height) for x, y in SHIFTS)]


def _start(view: PairViews, prior: Tensor | None) -> Tensor:
    """The prior, or both pictures taken to show the same field of view."""
    return fit_matrix(view.ir.size, view.rgb.size) if prior is None else prior


def _check_call(pairs: list[Any], batch_size: Any) -> None:
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise InputError(f"batch_size is {batch_size!r}; expected a whole number from 1 up, such as 16")
    for index, pair in enumerate(pairs):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            size = f" of {len(pair)}" if isinstance(pair, list | tuple) else ""
            raise InputError(
                f"pair {index} is a {type(pair).__name__}{size}; expected an infrared image and an RGB image"
            )


def _spread_prior(prior: Any, count: int) -> list[Tensor | None]:
    """One checked prior a pair; None stands for "auto"."""
    if isinstance(prior, list | tuple) and _are_priors(prior):
        if len(prior) != count:
            raise InputError(
                f"got {len(prior)} priors for {count} pairs; expected one for all or one for each"
            )
        return [_check_prior(one) for one in prior]
    return [_check_prior(prior)] * count


def _are_priors(values: Sequence[Any]) -> bool:
    """Whether a sequence holds priors rather than the rows of one."""
    try:
        return all(isinstance(value, str) or np.ndim(value) == 2 for value in values)
    except ValueError:  # rows of unequal lengths
        return False


def _check_prior(prior: Any) -> Tensor | None:
    if isinstance(prior, str):
        if prior == "auto":
            return None
        raise InputError(f'prior is {prior!r}; expected "auto" or a 3x3 matrix from infrared px to RGB px')
    if isinstance(prior, Tensor):
        prior = prior.detach().cpu().numpy()
    try:
        matrix = np.asarray(prior, np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f'prior is a {type(prior).__name__}; expected "auto" or a 3x3 matrix from infrared px to RGB px'
        ) from None
    if matrix.shape != (3, 3):
        raise InputError(f"prior has shape {matrix.shape}; expected (3, 3), a map from infrared px to RGB px")
    if not np.isfinite(matrix).all() or matrix[2, 2] == 0 or abs(np.linalg.det(matrix / matrix[2, 2])) < 1e-9:
        raise InputError(
            f"prior {matrix.tolist()} is singular or not finite; expected an invertible homography"
        )
    return torch.from_numpy(matrix / matrix[2, 2])
