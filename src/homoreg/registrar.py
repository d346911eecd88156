"""Registrar: two pictures in, one homography out, with a number that says how far to trust it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from homoreg.errors import HomoregError, InputError, UnreliableError, UnreliableWarning
from homoreg.imaging.palettes import recognise_palette
from homoreg.imaging.reading import ImageLike, Picture, read_image
from homoreg.imaging.rjpeg import read_rjpeg
from homoreg.models.base import HomographyModel
from homoreg.models.storage import load_model
from homoreg.pretrained import locate
from homoreg.priors import Orientation, Prior, spread_priors
from homoreg.registration import Registration
from homoreg.search import SIZE, Effort, Finding, Search, check_effort
from homoreg.trust import Trust
from homoreg.views import PairViews

if TYPE_CHECKING:
    from homoreg.evaluation import Evaluation

__all__ = ["Effort", "OnUnreliable", "Orientation", "Prior", "Registrar"]

logger = logging.getLogger(__name__)

OnUnreliable: TypeAlias = Literal["return", "warn", "raise"]

COLOURFUL, COLOURLESS = 0.06, 0.015  # mean saturations: a photograph's is above the first, grey's below
LEAST_OVERLAP = 0.2  # share of the infrared frame that must lie in the RGB picture to be reliable


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
        self.device = _find_device("cpu" if device is None else device)
        try:
            self.model = model.to(self.device).eval()
        except (RuntimeError, AssertionError, ImportError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"device is {device!r}; expected cpu, or cuda where torch sees one ({reason})"
            ) from None
        self.name = name
        self.trust = trust or Trust()
        self.training: dict[str, Any] = {}
        self.folder: Path | None = None
        self._starter: HomographyModel | None = None
        self._starter_sought = False
        self._fetching: dict[str, Any] = {}

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
        registrar._fetching = {
            "cache_dir": cache_dir,
            "token": token,
            "local_files_only": local_files_only,
        }
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
            If repository, revision or token cannot be one.
        UnknownNameError
            If the Hub has no such owner or branch.
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

    def __call__(
        self,
        ir: ImageLike,
        rgb: ImageLike,
        *,
        prior: Prior = "auto",
        orientation: Orientation = "upright",
        effort: Effort = "auto",
        on_unreliable: OnUnreliable = "return",
    ) -> Registration:
        """Register an infrared picture to an RGB picture.

        Parameters
        ----------
        ir, rgb
            Path, PIL image, array (H, W[, C]) or tensor ([C,] H, W); 8- or 16-bit or float; grey, RGB or
            RGBA; any two sizes.
        prior
            First guess: "auto" takes what the files say of their cameras, else compares hypotheses about
            the two fields of view; "same-view" for pictures that show about the same; a number, the share
            of the RGB picture's width that the infrared picture covers, both centred on each other; a 3x3
            matrix that maps infrared px to RGB px; or an earlier Registration of the same two cameras, in
            any sizes. What is given is taken to be right to a quarter of the infrared picture's sides.
        orientation
            "any" also tries quarter turns and mirror images of the infrared picture.
        effort
            How many looks to take: "fast" one, after quick ones that compare fields of view where there is
            no prior; "auto" further ones in larger frames, up to three quarters of the infrared picture's own
            resolution, and before them mirrored pictures and other starts where the first is not certain;
            "best" all of these always, up to all of its resolution. No frame is larger than 1024 px, and
            only reliable answers get frames of more than 256 px. A model that does not rate itself (dhn,
            mhn, clkn, dlkfm) looks once, from the matrix or the same view, whatever the other options
            say, and calls no result reliable.
        on_unreliable
            What to do where the result is not reliable: "return" it all the same, "warn" with
            :class:`~homoreg.errors.UnreliableWarning` as well, or "raise"
            :class:`~homoreg.errors.UnreliableError`, which carries it.

        Returns
        -------
        Registration
            Also where nothing fits: then with ``reliable`` False and the reason in ``status``.

        Raises
        ------
        InputError
            If an image, the prior or an option is not usable; the message says why.
        UnreliableError
            If the result is not reliable, with ``on_unreliable="raise"``.
        """
        return self.register_many(
            [(ir, rgb)], prior=prior, orientation=orientation, effort=effort, on_unreliable=on_unreliable
        )[0]

    def register_rjpeg(
        self,
        path: str | os.PathLike[str],
        *,
        prior: Prior = "auto",
        orientation: Orientation = "upright",
        effort: Effort = "auto",
        on_unreliable: OnUnreliable = "return",
    ) -> Registration:
        """Register the two pictures inside one radiometric JPEG of a FLIR camera.

        Parameters
        ----------
        path
            The file as the camera wrote it, with its visual picture.
        prior, orientation, effort, on_unreliable
            As for a single call.

        Returns
        -------
        Registration
            Of the infrared counts to the visual picture.

        Raises
        ------
        ImageReadError
            If the file has no radiometric data or no visual picture, or is damaged.
        InputError, UnreliableError
            As for a single call.
        """
        both = read_rjpeg(path)
        return self(
            both.thermal,
            both.visual,
            prior=prior,
            orientation=orientation,
            effort=effort,
            on_unreliable=on_unreliable,
        )

    def register_many(
        self,
        pairs: Iterable[tuple[ImageLike, ImageLike]],
        *,
        prior: Prior | Sequence[Prior] = "auto",
        orientation: Orientation = "upright",
        effort: Effort = "auto",
        on_unreliable: OnUnreliable = "return",
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
        orientation, effort
            As for a single call.
        on_unreliable
            As for a single call; "raise" stops at the first batch with an unreliable result.
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
            If an image, a prior or an option is not usable, the numbers of pairs and priors differ, or
            ``batch_size`` is not a positive whole number.
        UnreliableError
            If a result is not reliable, with ``on_unreliable="raise"``.
        """
        listed = list(pairs)
        _check_call(listed, batch_size)
        check_effort(effort)
        if on_unreliable not in get_args(OnUnreliable):
            expected = ", ".join(map(repr, get_args(OnUnreliable)))
            raise InputError(f"on_unreliable is {on_unreliable!r}; expected one of {expected}")
        guesses = spread_priors(prior, orientation, len(listed))
        search = Search(self.model, self.trust, self.device, self.find_starter)
        results: list[Registration] = []
        for first in range(0, len(listed), batch_size):
            chunk = listed[first : first + batch_size]
            views = [_read_pair(pair, first + k, len(listed)) for k, pair in enumerate(chunk)]
            _warn_of_swapped(views)
            findings = search.run(views, guesses[first : first + batch_size], effort)
            results += [self._result(*one) for one in zip(views, findings, strict=True)]
            _complain(results[first:], first, on_unreliable)
        return results

    def find_starter(self) -> HomographyModel | None:
        """The model whose answer this one starts from, loaded once; None, and one warning, without it."""
        if not self._starter_sought:
            self._starter_sought = True
            name = self.model.starter
            try:
                self._starter = load_model(locate(name, **self._fetching).folder)[0].to(self.device)
            except HomoregError as error:
                logger.warning(
                    "%s starts from %s, which cannot be loaded (%s); it starts from the centred square and "
                    "will be wrong more often",
                    *(self.name, name, error),
                )
        return self._starter

    def _result(self, view: PairViews, finding: Finding) -> Registration:
        result = Registration.build(
            finding.homography.numpy(),
            ir=view.ir,
            rgb=view.rgb,
            ir_tone=view.ir_tone,
            rgb_tone=view.rgb_tone,
            expected_error=float("inf"),
            confidence=0.0,
            reliable=False,
            model=self.name,
            status=finding.status or "uncertain",
        )
        if finding.evidence is None:
            return result
        status = "outside" if result.overlap < LEAST_OVERLAP else "uncertain"
        if not self.model.rates_itself:
            return dataclasses.replace(result, status=status)
        # A px at n = 128 is so many px of the RGB picture.
        scale = np.linalg.norm(np.roll(result.corners, -1, axis=0) - result.corners, axis=1).mean() / (
            SIZE - 1
        )
        confidence = self.trust.confidence(finding.evidence)
        reliable = status != "outside" and confidence >= self.trust.threshold
        return dataclasses.replace(
            result,
            expected_error=self.trust.expected_error(finding.evidence) * scale,
            confidence=confidence,
            reliable=reliable,
            status="ok" if reliable else status,
        )


def _find_device(name: str) -> torch.device:
    with contextlib.suppress(RuntimeError, TypeError):
        device = torch.device(name)
        if device.type != "meta":  # which holds no numbers
            return device
    raise InputError(f"device is {name!r}; expected cpu, or cuda where torch sees one")


def _read_pair(pair: tuple[ImageLike, ImageLike], number: int, count: int) -> PairViews:
    """One of some pairs; the errors say which."""
    try:
        return PairViews(read_image(pair[0], role="ir"), read_image(pair[1], role="rgb"))
    except InputError as error:
        if count == 1:
            raise
        raise type(error)(f"pair {number}: {error}") from error


def _check_call(pairs: list[Any], batch_size: Any) -> None:
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise InputError(f"batch_size is {batch_size!r}; expected a whole number from 1 up, such as 16")
    for index, pair in enumerate(pairs):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            size = f" of {len(pair)}" if isinstance(pair, list | tuple) else ""
            raise InputError(
                f"pair {index} is a {type(pair).__name__}{size}; expected an infrared image and an RGB image"
            )


def _complain(results: list[Registration], first: int, on_unreliable: OnUnreliable) -> None:
    """Warn of unreliable results, or raise the first; ``first`` is the number of the first pair."""
    for number, result in enumerate(results, first):
        if result.reliable or on_unreliable == "return":
            continue
        text = (
            f"pair {number}, {result.ir.name} to {result.rgb.name}: the result is not reliable (status "
            f"{result.status!r}, confidence {result.confidence:.2f})"
        )
        if on_unreliable == "raise":
            raise UnreliableError(f"{text}; the error's registration holds it", result)
        warnings.warn(text, UnreliableWarning, stacklevel=4)


def _warn_of_swapped(views: list[PairViews]) -> None:
    """Say so where the infrared picture is a photograph in colour and the RGB picture grey or a palette."""
    for view in views:
        if view.ir_tone.palette or _colourfulness(view.ir) < COLOURFUL or recognise_palette(_thin(view.ir)):
            continue
        if _colourfulness(view.rgb) < COLOURLESS or recognise_palette(_thin(view.rgb)):
            logger.warning(
                "%s, given as the infrared image, is in natural colours and %s, given as the RGB image, is "
                "not: are they swapped? The infrared image comes first",
                *(view.ir.name, view.rgb.name),
            )


def _thin(picture: Picture) -> NDArray[Any]:
    step = max(1, max(picture.size) // 128)
    return picture.pixels[::step, ::step]


def _colourfulness(picture: Picture) -> float:
    """Mean difference between the largest and the smallest channel, as a share of the largest value."""
    if picture.is_grey:
        return 0.0
    pixels = _thin(picture).astype(np.float32)
    return float((pixels.max(-1) - pixels.min(-1)).mean()) / max(float(pixels.max()), 1e-6)
