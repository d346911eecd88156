from __future__ import annotations

import dataclasses
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from homoreg.errors import (
    ConfigError,
    ImageReadError,
    InputError,
    UnknownNameError,
    UnreliableError,
    UnreliableWarning,
    WeightsError,
)
from homoreg.geometry import compose, fit_matrix, image_corners, square_prior, transform_points
from homoreg.imaging.resampling import share_inside
from homoreg.models.base import HomographyEstimate, HomographyModel
from homoreg.models.storage import load_model, save_weights
from homoreg.registrar import Prior, Registrar
from homoreg.registration import Registration
from homoreg.search import Effort
from homoreg.trust import Trust
from tests.models.contract import tiny
from tests.scenes import infrared_of, save, scene

Pixels = NDArray[Any]
PROTOCOL = np.array([[1, 0, 32], [0, 1, 32], [0, 0, 1]], np.float64)
UNLIKE_SIZES = [  # height and width of infrared and RGB
    ((96, 128), (240, 320)),
    ((128, 128), (192, 192)),
    ((150, 100), (120, 90)),
    ((64, 80), (300, 200)),
]


class Double(HomographyModel):
    """Base of models that need no training: answers with what `answer` says of each member."""

    architecture: ClassVar[str] = "double"

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []
        self.sizes: list[int] = []
        self.initials: list[Tensor | None] = []
        self.masks: list[Tensor | None] = []

    @property
    def config(self) -> None:
        return None

    def answer(self, template: Tensor, search: Tensor) -> tuple[Tensor, float, bool]:
        """Homography (3, 3), log precision, whether it diverged; for (3, n, n) and (3, 3n/2, 3n/2)."""
        raise NotImplementedError

    def forward(
        self,
        template: Tensor,
        search: Tensor,
        *,
        initial: Tensor | None = None,
        quick: bool = False,
        valid: Tensor | None = None,
    ) -> HomographyEstimate:
        self.check_input(template, search)
        self.batches.append(len(template))
        self.sizes.append(template.shape[-1])
        self.initials.append(initial)
        self.masks.append(valid)
        found = [self.answer(*pair) for pair in zip(template, search, strict=True)]
        homography = torch.stack([h for h, _, _ in found]).float()
        precision = torch.tensor([p for _, p, _ in found])
        diverged = torch.tensor([d for _, _, d in found])
        return HomographyEstimate(
            homography, [homography], torch.zeros(len(found), 4, 2, 2), precision, diverged
        )


class Same(Double):
    """The same answer to everything; its homography is that between frames of 128 and 192 px."""

    def __init__(
        self, precision: float = 3.0, diverged: bool = False, homography: Tensor | None = None
    ) -> None:
        super().__init__()
        self.fixed = homography, precision, diverged

    def answer(self, template: Tensor, search: Tensor) -> tuple[Tensor, float, bool]:
        homography, precision, diverged = self.fixed
        n = template.shape[-1]
        if homography is None:
            return square_prior(n), precision, diverged
        here = compose(
            fit_matrix((192, 192), (3 * n // 2, 3 * n // 2)),
            homography.double(),
            fit_matrix((n, n), (128, 128)),
        )
        return here, precision, diverged


class Decoder(Double):
    """Solves pictures that spell out places: red and green of a pixel are its x and y in the RGB image."""

    def answer(self, template: Tensor, search: Tensor) -> tuple[Tensor, float, bool]:
        from_template, from_search = self._read(template), self._read(search)
        if from_template is None or from_search is None:
            return square_prior(template.shape[-1]), -4.0, True
        return compose(torch.linalg.inv(from_search), from_template), 3.0, False

    @staticmethod
    def _read(frame: Tensor) -> Tensor | None:
        """Map of the frame's pixels to places, from those that change, which the fill does not."""
        image = frame[:2].permute(1, 2, 0).numpy().astype(np.float64)
        changes = np.zeros(image.shape[:2], np.uint8)
        changes[:-1, :-1] = (np.abs(image[:-1, :-1] - image[1:, 1:]) > 1e-5).any(-1)
        y, x = np.nonzero(cv2.erode(changes, np.ones((9, 9), np.uint8), borderValue=0))
        if len(x) < 100:
            return None
        source = np.stack([x, y], axis=-1).astype(np.float64)
        homography, _ = cv2.findHomography(source, image[y, x] * 1000, 0)
        return torch.from_numpy(np.asarray(homography))


def spelled(width: int, height: int, homography: Pixels, of: tuple[int, int]) -> Pixels:
    """Picture whose red and green spell where its pixels lie in the RGB image of size (width, height)."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    u, v, w = homography @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    places = np.stack([u / w / of[0], v / w / of[1], 0 * u], axis=-1).reshape(height, width, 3)
    return (0.25 + 0.5 * places).astype(np.float32)


def corner_error(result: Registration, truth: Pixels) -> float:
    """Mean distance of the infrared image's corners, px of the RGB image."""
    width, height = result.ir.size
    corners = image_corners(width, height, dtype=torch.float64)
    wanted = transform_points(torch.from_numpy(truth), corners).numpy()
    return float(np.linalg.norm(result.corners - wanted, axis=1).mean())


def similarity(scale: float, x: float, y: float, turn: float = 0.0) -> Pixels:
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    return np.array([[c, -s, x], [s, c, y], [0, 0, 1]])


@pytest.fixture(scope="module")
def untrained() -> Registrar:
    return Registrar(tiny("m"), name="untrained")


@pytest.fixture(scope="module")
def pictures() -> list[tuple[Pixels, Pixels]]:
    """Pairs of unlike sizes, which do not belong together."""
    return [
        (infrared_of(scene(*ir, seed=2 * index))[..., 0].copy(), scene(*rgb, seed=2 * index + 1))
        for index, (ir, rgb) in enumerate(UNLIKE_SIZES)
    ]


# --- the way there and back, with a model that knows --------------------------------------------------------

TRUTHS: dict[str, tuple[tuple[int, int], tuple[int, int], Pixels]] = {
    "the protocol": ((128, 128), (192, 192), similarity(0.97, 40, 29, turn=0.05)),
    "a larger RGB image": ((160, 120), (1280, 720), similarity(4.1, 280, 95, turn=-0.06)),
    "a smaller RGB image": ((320, 256), (160, 120), similarity(0.33, 25, 17)),
    "odd sizes": ((97, 61), (211, 301), similarity(1.7, 20, 99, turn=0.1)),
    "unlike aspects": ((200, 64), (300, 400), np.array([[1.2, 0.05, 31], [-0.02, 3.1, 90], [0, 0, 1]])),
    "perspective": ((160, 120), (480, 360), np.array([[2.1, 0.1, 60], [-0.1, 2.2, 50], [3e-4, -2e-4, 1]])),
    "a quarter of the view": ((128, 96), (640, 480), similarity(2.0, 190, 140)),
}


@pytest.mark.parametrize("given", [True, False], ids=["prior", "auto"])
@pytest.mark.parametrize("name", TRUTHS)
def test_what_the_model_sees_comes_back_in_the_pixels_given(name: str, given: bool) -> None:
    ir_size, rgb_size, truth = TRUTHS[name]
    ir = spelled(*ir_size, truth, rgb_size)
    rgb = spelled(*rgb_size, np.eye(3), rgb_size)
    # Some five to ten per cent of the infrared frame beside the truth.
    beside = similarity(1.06, 0.05 * ir_size[0], -0.06 * ir_size[1], turn=0.05)
    registrar = Registrar(Decoder(), name="decoder", trust=plain())
    result = registrar(ir, rgb, prior=truth @ beside if given else "auto")
    # Found without a prior, but nothing that two cameras with square pixels see.
    stretched = name == "unlike aspects" and not given
    assert result.status == ("uncertain" if stretched else "ok")
    assert corner_error(result, truth) < 2e-3 * rgb_size[0]
    assert result.homography == pytest.approx(truth, rel=0.02, abs=2e-3 * rgb_size[0])


def plain(**values: float) -> Trust:
    """Trust that weighs the precision and the values given, and nothing else."""
    zeros = dict.fromkeys((field.name for field in dataclasses.fields(Trust)), 0.0)
    return Trust(
        **{**zeros, "threshold": 0.5, "confidence_precision": 1.0, "error_precision": -1.0, **values}
    )


def test_the_result_of_a_certain_answer() -> None:
    ir_size, rgb_size, truth = TRUTHS["a larger RGB image"]
    ir, rgb = spelled(*ir_size, truth, rgb_size), spelled(*rgb_size, np.eye(3), rgb_size)
    trust = plain(confidence_offset=-2.0, error_offset=2.0)
    result = Registrar(Decoder(), name="decoder", trust=trust)(ir, rgb, prior=truth)
    assert result.model == "decoder"
    assert result.reliable
    # A frame of 256 px halves what a px is worth: the log precision of 3 counts as 3 + log 2.
    odds = 3 + np.log(2) - 2
    assert result.confidence == pytest.approx(1 / (1 + np.exp(-odds)))
    # exp(-odds) px of a template of 128 px, whose sides are here 4.1 * 159 and 4.1 * 119 px long.
    side = 4.1 * (159 + 119) / 2
    assert result.expected_error == pytest.approx(np.exp(2 - 3 - np.log(2)) * side / 127, rel=0.01)
    assert result.overlap == pytest.approx(share_inside(result.homography, ir_size, rgb_size))
    assert result.homography.dtype == np.float64
    assert result.homography[2, 2] == 1


def test_the_threshold_decides_what_is_reliable(pictures: list[tuple[Pixels, Pixels]]) -> None:
    for threshold, status in ((0.9, "ok"), (0.995, "uncertain")):
        result = Registrar(Same(5.0), name="same", trust=plain(threshold=threshold))(*pictures[0])
        assert result.confidence == pytest.approx(1 / (1 + np.exp(-5)))
        assert result.reliable is (status == "ok")
        assert result.status == status


def test_little_overlap_is_not_reliable(pictures: list[tuple[Pixels, Pixels]]) -> None:
    result = Registrar(Same(9.0), name="same", trust=plain())(*pictures[0], prior=similarity(1.0, 300, 200))
    assert 0 < result.overlap < 0.2
    assert result.confidence > 0.99
    assert (result.reliable, result.status) == (False, "outside")


def test_an_answer_of_no_change_leaves_the_prior(pictures: list[tuple[Pixels, Pixels]]) -> None:
    prior = np.array([[2.0, 0.1, 30], [-0.2, 1.9, 20], [1e-4, -2e-4, 1]])
    result = Registrar(Same(), name="same", trust=plain())(*pictures[0], prior=prior)
    assert result.homography == pytest.approx(prior, abs=1e-9)
    assert result.status == "ok"


# --- models that do not rate themselves, or start from another -------------------------------------------


class Mute(Same):
    """Cannot say how sure it is."""

    rates_itself = False


class Follower(Same):
    """Starts from the model in a folder."""

    def __init__(self, starter: str) -> None:
        super().__init__()
        self._starter = starter

    @property
    def starter(self) -> str:
        return self._starter


@pytest.mark.parametrize("prior", ["auto", "matrix"])
def test_a_model_that_cannot_rate_itself_looks_once(
    pictures: list[tuple[Pixels, Pixels]], prior: str
) -> None:
    shift = similarity(1.0, 35, 30)
    model = Mute(precision=0.0, homography=torch.from_numpy(shift))
    start = similarity(2.0, 10, 5) if prior == "matrix" else fit_matrix((128, 96), (320, 240)).numpy()
    result = Registrar(model, name="mute")(*pictures[0], prior=start if prior == "matrix" else "auto")
    assert model.batches == [1]
    assert model.initials == [None]
    to_template = fit_matrix((128, 96), (128, 128)).numpy()
    moved = start @ np.linalg.inv(to_template) @ similarity(1.0, 3, -2) @ to_template
    assert result.homography == pytest.approx(moved, abs=1e-6)
    assert (result.status, result.confidence, result.expected_error) == ("uncertain", 0.0, np.inf)
    assert not Registrar(Mute(diverged=True), name="mute")(*pictures[0]).reliable
    beside = Registrar(Mute(), name="mute")(*pictures[0], prior=similarity(1.0, 300, 200))
    assert (beside.reliable, beside.status) == (False, "outside")


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "starter"
    save_weights(folder, tiny("m"), dtype=torch.float32)
    return folder


def test_a_model_starts_from_its_starter(starter: Path, pictures: list[tuple[Pixels, Pixels]]) -> None:
    model = Follower(str(starter))
    registrar = Registrar(model, name="follower")
    registrar(*pictures[1], prior=PROTOCOL)
    template, search = (
        torch.from_numpy(image).reshape(*image.shape[:2], -1).permute(2, 0, 1).expand(3, -1, -1)[None] / 255.0
        for image in pictures[1]
    )
    with torch.inference_mode():
        answer = load_model(starter)[0](template, search).homography[0]
    first, last = model.initials[0], model.initials[-1]
    assert first is not None
    assert last is not None
    assert torch.allclose(first[0], answer, atol=1e-4)
    assert not torch.allclose(first[0], square_prior(128).float(), atol=1e-2)
    assert torch.equal(last[0], square_prior(256).float()), "a refinement starts from the placement"


def test_a_starter_is_loaded_once_and_missed_once(
    starter: Path, pictures: list[tuple[Pixels, Pixels]], caplog: pytest.LogCaptureFixture
) -> None:
    registrar = Registrar(Follower(str(starter / "nowhere")), name="follower")
    result = registrar.register_many(pictures[:2], prior=PROTOCOL)
    registrar(*pictures[2], prior=PROTOCOL)
    model = registrar.model
    assert isinstance(model, Follower)
    initials = [initial for initial in model.initials if initial is not None]
    assert len(initials) == len(model.initials)
    for one in initials:
        n = 4 * int(one[0, 0, 2])
        assert torch.equal(one, square_prior(n).float().expand_as(one))
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "follower starts from" in warning.message
    assert "nowhere" in warning.message
    assert "it starts from the centred square" in warning.message
    assert all(np.isfinite(one.homography).all() for one in result)


# --- where there is no answer -------------------------------------------------------------------------------

LOST = {
    "diverged": Same(diverged=True),
    "not finite": Same(homography=torch.full((3, 3), float("nan"))),
}


@pytest.mark.parametrize("name", LOST)
def test_a_model_that_is_lost_leaves_the_prior(pictures: list[tuple[Pixels, Pixels]], name: str) -> None:
    prior = similarity(2.0, 30, 20)
    result = Registrar(LOST[name], name="lost")(*pictures[0], prior=prior)
    assert result.status == "diverged"
    assert not result.reliable
    assert result.confidence == 0
    assert result.expected_error == np.inf
    # Starts beside the prior may have been tried, but none of them had an answer.
    assert result.homography == pytest.approx(prior, abs=1e-9)


FLAT = np.full((100, 140, 3), 77, np.uint8)
FEATURELESS: dict[str, tuple[Pixels, Pixels]] = {
    "infrared": (FLAT, scene(200, 300)),
    "rgb": (scene(100, 140), np.tile(FLAT, (2, 2, 1))),
    "both": (FLAT, FLAT),
    "counts": (np.full((100, 140), 30_000, np.uint16), scene(200, 300)),
    "kelvin": (np.full((100, 140), 293.15, np.float32), scene(200, 300)),
    "black": (np.zeros((100, 140), np.uint8), scene(200, 300)),
}


@pytest.mark.parametrize("name", FEATURELESS)
def test_a_constant_image_is_unreliable_at_its_prior(untrained: Registrar, name: str) -> None:
    prior = np.array([[2.0, 0.1, 10], [-0.1, 1.5, 20], [1e-4, 0, 1]])
    result = untrained(*FEATURELESS[name], prior=prior)
    assert result.status == "featureless"
    assert not result.reliable
    assert result.confidence == 0
    assert np.array_equal(result.homography, prior)


def test_a_constant_image_without_a_prior_fills_the_other(untrained: Registrar) -> None:
    result = untrained(FLAT, scene(200, 300))
    assert result.status == "featureless"
    edges = np.array([[-0.5, -0.5], [139.5, 99.5]])
    wanted = np.array([[-0.5, -0.5], [299.5, 199.5]])
    scale = result.homography[[0, 1], [0, 1]]
    assert edges * scale + result.homography[:2, 2] == pytest.approx(wanted)


def test_a_constant_image_does_not_disturb_its_neighbours(
    untrained: Registrar, pictures: list[tuple[Pixels, Pixels]]
) -> None:
    alone = untrained(*pictures[0])
    flat, beside = untrained.register_many([(FLAT, FLAT), pictures[0]])
    assert flat.status == "featureless"
    assert beside.status == alone.status
    assert beside.homography == pytest.approx(alone.homography, rel=1e-4, abs=1e-4)


def test_a_prior_far_from_the_image(untrained: Registrar, pictures: list[tuple[Pixels, Pixels]]) -> None:
    result = untrained(*pictures[0], prior=similarity(1.0, 10_000, 10_000))
    assert np.isfinite(result.homography).all()
    assert result.overlap == 0
    assert (result.reliable, result.status) == (False, "outside")
    assert result.expected_error == np.inf
    assert result.homography == pytest.approx(similarity(1.0, 10_000, 10_000))


# --- any image ----------------------------------------------------------------------------------------------


def _grey(ir: Pixels) -> Pixels:
    return ir[..., 0].copy()


IMAGES: dict[str, Callable[[Pixels, Pixels], tuple[Any, Any]]] = {
    "grey": lambda ir, rgb: (_grey(ir), rgb),
    "colours": lambda ir, rgb: (cv2.applyColorMap(_grey(ir), cv2.COLORMAP_JET), rgb),
    "counts": lambda ir, rgb: (7000 + 3 * _grey(ir).astype(np.uint16), rgb.astype(np.uint16) * 257),
    "kelvin": lambda ir, rgb: (280 + _grey(ir) / 10.0, rgb.astype(np.float32) / 255),
    "transparent": lambda ir, rgb: (ir, np.dstack([rgb, np.tri(*rgb.shape[:2], dtype=np.uint8) * 255])),
    "grey rgb": lambda ir, rgb: (ir, _grey(rgb)),
    "tensors": lambda ir, rgb: (torch.from_numpy(_grey(ir)), torch.from_numpy(rgb.transpose(2, 0, 1).copy())),
    "one row more": lambda ir, rgb: (ir[:65], rgb[:, :101]),
    "wide": lambda ir, rgb: (ir[:20], rgb),
    "tiny": lambda ir, rgb: (ir[:16, :16], rgb[:16, :16]),
    "large": lambda ir, rgb: (ir, cv2.resize(rgb, (1920, 1080))),
}


@pytest.mark.parametrize("prior", ["auto", "matrix"])
@pytest.mark.parametrize("name", IMAGES)
def test_sizes_and_types(untrained: Registrar, name: str, prior: str) -> None:
    ir, rgb = IMAGES[name](infrared_of(scene(96, 128, seed=1)), scene(150, 200, seed=2))
    result = untrained(ir, rgb, prior="auto" if prior == "auto" else similarity(1.5, 5, 5))
    assert result.homography.shape == (3, 3)
    assert result.homography.dtype == np.float64
    assert np.isfinite(result.homography).all()
    assert result.homography[2, 2] == 1
    corners = image_corners(*result.ir.size, dtype=torch.float64)
    mapped = transform_points(torch.from_numpy(result.homography.copy()), corners)
    assert result.corners == pytest.approx(mapped.numpy())
    assert 0 <= result.confidence <= 1
    assert result.expected_error > 0
    assert 0 <= result.overlap <= 1
    assert result.status in ("ok", "uncertain", "outside", "diverged")
    assert result.reliable is (result.status == "ok")
    assert result.model == "untrained"


def test_paths_and_pil(tmp_path: Path, untrained: Registrar, pictures: list[tuple[Pixels, Pixels]]) -> None:
    Image = pytest.importorskip("PIL.Image")
    ir, rgb = pictures[0]
    expected = untrained(ir, rgb).homography
    path = save(tmp_path / "rgb.png", rgb)
    assert np.array_equal(untrained(Image.fromarray(ir), str(path)).homography, expected)
    assert np.array_equal(untrained(ir, path).homography, expected)


def test_the_same_pair_gives_the_same_bits(
    untrained: Registrar, pictures: list[tuple[Pixels, Pixels]]
) -> None:
    first, second = untrained(*pictures[0]), untrained(*pictures[0])
    assert np.array_equal(first.homography, second.homography)
    assert first.confidence == second.confidence


# --- many ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effort", ["fast", "auto"])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_many_pairs_give_the_results_of_single_calls(batch_size: int, effort: Effort) -> None:
    # Sums of a batch are rounded otherwise than those of one. What a trained network finds depends little on
    # that; an untrained one, whose answers rest on nothing, makes up to a tenth of a pixel of it.
    registrar = Registrar.from_pretrained("m120", device="cpu")
    pictures = []
    for seed, ((height, width), rgb_size) in enumerate(UNLIKE_SIZES):
        rgb = scene(*rgb_size, seed=seed)
        infrared = cv2.resize(infrared_of(rgb)[..., 0], (width, height), interpolation=cv2.INTER_AREA)
        pictures.append((infrared, rgb))
    alone = [registrar(*pair, effort=effort) for pair in pictures]
    assert all(one.reliable for one in alone)
    together = registrar.register_many((pair for pair in pictures), effort=effort, batch_size=batch_size)
    assert len(together) == len(alone)
    for one, other in zip(together, alone, strict=True):
        assert np.abs(one.corners - other.corners).max() < 5e-3
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
        assert (one.status, one.reliable, one.model) == (other.status, other.reliable, other.model)


def test_one_prior_for_all_or_one_for_each(pictures: list[tuple[Pixels, Pixels]]) -> None:
    registrar = Registrar(Same(), name="same")
    priors = [similarity(1.0 + 0.1 * k, k, -k) for k in range(4)]
    for one, prior in zip(registrar.register_many(pictures, prior=priors), priors, strict=True):
        assert one.homography == pytest.approx(prior, abs=1e-9)
    for one in registrar.register_many(pictures, prior=priors[2], batch_size=2):
        assert one.homography == pytest.approx(priors[2], abs=1e-9)
    one_of_each: list[Prior] = ["auto", priors[1]]
    mixed = registrar.register_many(pictures[:2], prior=one_of_each)
    assert mixed[1].homography == pytest.approx(priors[1], abs=1e-9)
    assert mixed[0].homography == pytest.approx(registrar(*pictures[0]).homography, abs=1e-9)


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, np.asarray])
def test_priors_of_any_kind(pictures: list[tuple[Pixels, Pixels]], kind: Callable[[Any], Any]) -> None:
    rows = [[1.5, 0.0, 3.0], [0.0, 1.5, 4.0], [0.0, 0.0, 1.0]]
    assert Registrar(Same(), name="same")(*pictures[0], prior=kind(rows)).homography == pytest.approx(
        np.array(rows), abs=1e-9
    )


def test_a_prior_of_any_scale(pictures: list[tuple[Pixels, Pixels]]) -> None:
    prior = similarity(1.5, 3, 4)
    result = Registrar(Same(), name="same")(*pictures[0], prior=-3 * prior)
    assert result.homography == pytest.approx(prior, abs=1e-9)


def test_pairs_go_through_the_model_together(pictures: list[tuple[Pixels, Pixels]]) -> None:
    model = Same(3.5)
    Registrar(model, name="same", trust=plain()).register_many(pictures, prior=PROTOCOL)
    # Three mirrored looks and three decoys at each, starts beside it, four places there, three of them in
    # larger frames.
    assert set(model.batches) == {4, 8, 16}
    model.batches.clear()
    Registrar(model, name="same", trust=plain()).register_many(pictures, prior=PROTOCOL, batch_size=2)
    assert set(model.batches) == {2, 4, 8, 12, 16}, "16 and 4: no more go through at a time"


def test_no_pairs(untrained: Registrar) -> None:
    assert untrained.register_many([]) == []


# --- loading ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_weights(
        tmp_path / "mine",
        tiny("m"),
        calibration={"confidence_precision": 1.5, "threshold": 0.75},
        dtype=torch.float32,
    )
    return tmp_path / "mine"


@pytest.mark.parametrize("kind", [str, Path])
def test_from_a_folder(
    folder: Path, pictures: list[tuple[Pixels, Pixels]], kind: Callable[[Path], Any]
) -> None:
    registrar = Registrar.from_pretrained(kind(folder))
    assert registrar.trust == Trust(confidence_precision=1.5, threshold=0.75)
    assert not registrar.model.training
    assert repr(registrar) == "Registrar('mine', architecture='m', device='cpu')"
    result = registrar(*pictures[0], prior=PROTOCOL)
    expected = Registrar(tiny("m"), name="same", trust=registrar.trust)(*pictures[0], prior=PROTOCOL)
    assert result.model == "mine"
    assert np.array_equal(result.homography, expected.homography)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


BROKEN: dict[str, tuple[Callable[[Path], Any], type[Exception], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), WeightsError, r"config\.json does not exist"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), WeightsError, r"safetensors does not exist"),
    "corrupt": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), WeightsError, "not a readable"),
    "cut": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]),
        WeightsError,
        "not a readable safetensors file",
    ),
    "no json": (lambda f: (f / "config.json").write_text("{"), WeightsError, "cannot be read as JSON"),
    "mismatched": (
        lambda f: change(f / "config.json", config={"width2": 8}),
        WeightsError,
        "tensor .* expected|does not fit",
    ),
    "unknown key": (lambda f: change(f / "config.json", extra=1), ConfigError, "unknown key 'extra'; known"),
    "unknown size": (
        lambda f: change(f / "config.json", config={"depth": 3}),
        ConfigError,
        "unknown m config key 'depth'; known keys",
    ),
    "calibration": (
        lambda f: change(f / "config.json", calibration={"slope": 3}),
        ConfigError,
        "unknown calibration key 'slope'; known keys",
    ),
    "architecture": (
        lambda f: change(f / "config.json", architecture="n"),
        UnknownNameError,
        "no architecture is called 'n'; known architectures: ",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_folder_that_is_not_in_order(folder: Path, name: str) -> None:
    spoil, error, message = BROKEN[name]
    spoil(folder)
    with pytest.raises(error, match=message):
        Registrar.from_pretrained(folder)


def test_an_unknown_model() -> None:
    with pytest.raises(
        UnknownNameError, match=r"no model is called 'm1200' and there is no such folder; known"
    ):
        Registrar.from_pretrained("m1200")


@pytest.mark.parametrize("name", ["tpu9", "cuda:99", "xpu", "hpu", "meta", ""])
def test_a_device_that_is_not_there(folder: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"device is '{name}'; expected cpu, or cuda where torch sees one"):
        Registrar.from_pretrained(folder, device=name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda(folder: Path, untrained: Registrar, pictures: list[tuple[Pixels, Pixels]]) -> None:
    result = Registrar.from_pretrained(folder, device="cuda")(*pictures[1], prior=PROTOCOL)
    expected = untrained(*pictures[1], prior=PROTOCOL)
    assert np.abs(result.corners - expected.corners).max() < 0.5


# --- effort, and results that are not reliable -------------------------------------------------------------


def test_effort_decides_how_many_looks_are_taken(pictures: list[tuple[Pixels, Pixels]]) -> None:
    looks = {}
    for effort in ("fast", "auto", "best"):
        for precision in (-1.0, 9.0):
            model = Same(precision)
            trust = plain(error_offset=1.0)
            Registrar(model, name="same", trust=trust)(*pictures[1], prior=PROTOCOL, effort=effort)
            looks[effort, precision] = sum(model.batches)
    assert looks["fast", -1.0] == looks["fast", 9.0] == 1
    assert looks["auto", 9.0] == 1, "exp(1 - 9) px are expected: good enough"
    assert looks["auto", -1.0] > 10
    assert looks["best", 9.0] == looks["best", -1.0] > looks["auto", -1.0]


def test_a_middling_answer_is_refined(pictures: list[tuple[Pixels, Pixels]]) -> None:
    model = Same(5.0)
    Registrar(model, name="same", trust=plain(error_offset=5.0))(*pictures[1], prior=PROTOCOL)
    assert model.batches == [1, 1]
    assert [initial is None for initial in model.initials] == [True, False]


@pytest.mark.parametrize("effort", ["slow", "", None, 2])
def test_an_effort_that_is_none(
    untrained: Registrar, pictures: list[tuple[Pixels, Pixels]], effort: Any
) -> None:
    with pytest.raises(InputError, match=f"effort is {effort!r}; expected one of 'fast', 'auto', 'best'"):
        untrained(*pictures[0], effort=effort)


def test_unreliable_results_may_be_returned_warned_of_or_raised(
    pictures: list[tuple[Pixels, Pixels]],
) -> None:
    registrar = Registrar(Same(-2.0), name="same", trust=plain())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet = registrar(*pictures[0])
    assert not quiet.reliable
    with pytest.warns(UnreliableWarning, match=r"pair 0.*status 'uncertain', confidence 0\.21") as caught:
        assert registrar(*pictures[0], on_unreliable="warn").status == "uncertain"
    assert caught[0].filename == __file__
    flat = np.full((64, 64, 3), 99, np.uint8)
    with pytest.raises(UnreliableError, match=r"pair 2, .*status 'featureless', confidence 0\.00") as error:
        Registrar(Same(3.0), name="same", trust=plain()).register_many(
            [pictures[0], pictures[1], (flat, pictures[1][1])], on_unreliable="raise"
        )
    assert error.value.registration.ir.size == (64, 64)
    assert isinstance(error.value, RuntimeError)


def test_reliable_results_are_neither_warned_of_nor_raised(pictures: list[tuple[Pixels, Pixels]]) -> None:
    registrar = Registrar(Same(5.0), name="same", trust=plain())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for what in ("warn", "raise"):
            assert registrar(*pictures[0], on_unreliable=what).reliable


@pytest.mark.parametrize("what", ["ignore", "", None, True])
def test_an_answer_to_unreliable_results_that_is_none(
    untrained: Registrar, pictures: list[tuple[Pixels, Pixels]], what: Any
) -> None:
    with pytest.raises(InputError, match=f"on_unreliable is {what!r}; expected one of 'return', 'warn', 'ra"):
        untrained(*pictures[0], on_unreliable=what)


def test_swapped_pictures_are_remarked(untrained: Registrar, caplog: pytest.LogCaptureFixture) -> None:
    rgb = scene(150, 200, seed=2)
    grey = np.repeat(infrared_of(rgb)[..., :1], 3, axis=2)
    palette = cv2.applyColorMap(grey, cv2.COLORMAP_JET)[..., ::-1].copy()
    for ir in (grey, grey[..., 0].copy(), palette):
        untrained(ir, rgb, effort="fast")
        untrained(ir, grey, effort="fast")
        untrained(rgb, rgb, effort="fast")
        assert not caplog.records
        untrained(rgb, ir, effort="fast")
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert "given as the infrared image, is in natural colours" in record.message
        assert "are they swapped? The infrared image comes first" in record.message
        caplog.clear()


# --- bad input ----------------------------------------------------------------------------------------------

PRIORS: dict[str, tuple[Any, str]] = {
    "singular": ([[1, 2, 3], [2, 4, 6], [0, 0, 1]], "is singular or not finite; expected an invertible"),
    "zero": (np.zeros((3, 3)), "is singular or not finite"),
    "NaN": ([[1, 0, float("nan")], [0, 1, 0], [0, 0, 1]], "is singular or not finite"),
    "infinite": ([[1, 0, float("inf")], [0, 1, 0], [0, 0, 1]], "is singular or not finite"),
    "two rows": ([[1, 0, 3], [0, 1, 4]], r"prior has shape \(2, 3\); expected \(3, 3\), a map from infrared"),
    "2x2": ([[1, 0], [0, 1]], r"prior has shape \(2, 2\); expected \(3, 3\)"),
    "a row": ([1, 0, 0, 0, 1, 0, 0, 0, 1], r"prior has shape \(9,\); expected \(3, 3\)"),
    "an array of many": (np.stack([PROTOCOL] * 2), r"prior has shape \(2, 3, 3\); expected \(3, 3\)"),
    "no share": (0.0, r"prior is 0.0; as a share of the RGB picture's width expected 0.05 to 20"),
    "a large share": (21, r"prior is 21; as a share"),
    "not a number": (float("nan"), "prior is nan; as a share"),
    "a truth value": (True, "prior is True; as a share"),
    "ragged": ([[1, 0, 0], [0, 1], [0, 0, 1]], 'prior is a list; expected "auto", "same-view", the share'),
    "a word": ("identity", "prior is 'identity'; expected .*, a 3x3 matrix from infrared px to RGB px, or a"),
    "words": ([["a"] * 3] * 3, 'prior is a list; expected "auto"'),
    "a dict": ({"prior": 1}, 'prior is a dict; expected "auto"'),
    "nothing": (None, "prior"),
    "several": ([PROTOCOL, PROTOCOL], "got 2 priors for 1 pairs; expected one for all or one for each"),
    "several words": (["auto", "auto"], "got 2 priors for 1 pairs"),
    "one bad of many": ([np.eye(2)], r"prior has shape \(2, 2\)"),
}


@pytest.mark.parametrize("name", PRIORS)
def test_a_prior_that_is_none(untrained: Registrar, pictures: list[tuple[Pixels, Pixels]], name: str) -> None:
    prior, message = PRIORS[name]
    with pytest.raises(InputError, match=message):
        untrained(*pictures[0], prior=prior)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "16", None])
def test_a_batch_size_that_is_none(
    untrained: Registrar, pictures: list[tuple[Pixels, Pixels]], batch_size: Any
) -> None:
    with pytest.raises(InputError, match=f"batch_size is {batch_size!r}; expected a whole number from 1"):
        untrained.register_many(pictures, batch_size=batch_size)


@pytest.mark.parametrize("pairs", [[("a.png",)], ["ab"], [(1, 2, 3)], [5]])
def test_pairs_that_are_none(untrained: Registrar, pairs: Any) -> None:
    with pytest.raises(
        InputError, match=r"pair 0 is a (tuple of [13]|str|int); expected an infrared image and an RGB image"
    ):
        untrained.register_many(pairs)


def test_of_several_pairs_the_error_says_which(untrained: Registrar, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^pair 2: cannot use the RGB image: it has 64 x 5 pixels"):
        untrained.register_many([(GOOD, GOOD), (GOOD, GOOD), (GOOD, GOOD[:5])], batch_size=2)
    with pytest.raises(ImageReadError, match=r"^pair 0: cannot read the infrared image .*no such file"):
        untrained.register_many([(tmp_path / "none.png", GOOD), (GOOD, GOOD)])
    with pytest.raises(InputError, match=r"^cannot use the RGB image"):
        untrained(GOOD, GOOD[:5])


def test_an_unreliable_result_comes_back_from_other_processes(untrained: Registrar) -> None:
    with pytest.raises(UnreliableError) as raised:
        untrained(GOOD, GOOD, on_unreliable="raise")
    again = pickle.loads(pickle.dumps(raised.value))
    assert str(again) == str(raised.value)
    assert np.array_equal(again.registration.homography, raised.value.registration.homography)


def nan() -> Pixels:
    image = np.full((32, 32), 300.0, np.float32)
    image[3, 3] = np.nan
    return image


GOOD = scene(64, 64)
IMAGES_THAT_ARE_NONE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda t: t / "nowhere.png", "no such file"),
    "a directory": (lambda t: t, "it is a directory"),
    "empty": (lambda t: t / "empty.png", "the file is empty"),
    "truncated": (lambda t: t / "cut.png", "truncated or damaged|is truncated|ends"),
    "text": (lambda t: t / "text.png", "not an image of a known format"),
    "1x1": (lambda t: np.zeros((1, 1, 3), np.uint8), "at least 16 x 16"),
    "NaN": (lambda t: nan(), "NaN"),
    "infinite": (lambda t: np.where(np.isnan(nan()), np.inf, 0.5).astype(np.float32), "infinit|inf"),
    "complex": (lambda t: np.zeros((32, 32), np.complex64), "complex64"),
    "dimensions": (lambda t: np.zeros((2, 3, 32, 32), np.uint8), "dimension|shape"),
    "channels": (lambda t: np.zeros((32, 32, 2), np.uint8), r"shape \(32, 32, 2\)"),
    "a number": (lambda t: 5, "int"),
    "nothing": (lambda t: None, "None"),
}


@pytest.mark.parametrize("side", ["infrared", "RGB"])
@pytest.mark.parametrize("name", IMAGES_THAT_ARE_NONE)
def test_an_image_that_is_none(tmp_path: Path, untrained: Registrar, name: str, side: str) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image, but long enough to be taken for one")
    whole = save(tmp_path / "whole.png", GOOD).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    make, message = IMAGES_THAT_ARE_NONE[name]
    pair = (make(tmp_path), GOOD) if side == "infrared" else (GOOD, make(tmp_path))
    with pytest.raises(InputError, match=f"the {side} image.*({message})"):
        untrained(*pair)
