from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from homoreg.geometry import square_prior
from homoreg.imaging.reading import read_image
from homoreg.priors import FIELD_RATIOS, given
from homoreg.search import ASIDE, Finding, Search, _Pair
from homoreg.trust import Trust
from homoreg.views import PairViews
from tests.scenes import infrared_of, scene
from tests.test_registrar import PROTOCOL, Double, Same, plain, similarity

RAMP = np.repeat(np.linspace(20, 235, 400).astype(np.uint8)[None, :, None], 300, axis=0).repeat(3, axis=2)


class Bright(Double):
    """Keeps its placement, and is the surer the brighter the RGB picture is there."""

    def answer(self, template: Tensor, search: Tensor) -> tuple[Tensor, float, bool]:
        return square_prior(template.shape[-1]), 8 * float(search.mean()) - 6, False


def find(
    model: Double,
    rgb: NDArray[Any],
    prior: NDArray[Any] | None,
    trust: Trust | None = None,
    effort: Any = "auto",
    size: tuple[int, int] = (128, 128),
) -> Finding:
    views = PairViews(read_image(infrared_of(scene(*size, seed=3)), role="ir"), read_image(rgb, role="rgb"))
    search = Search(model, trust or plain(), torch.device("cpu"), lambda: None)
    return search.run([views], [given(prior)], effort)[0]


def test_the_most_certain_of_other_starts_is_kept() -> None:
    start = similarity(1.0, 120, 80)
    found = find(Bright(), RAMP, start)
    assert found.homography[0, 2] == pytest.approx(120 + ASIDE[-1]), "as far beside it as is looked"
    assert found.evidence is not None
    first = find(Bright(), RAMP, start, effort="fast")
    assert torch.allclose(first.homography, torch.from_numpy(start))
    assert first.evidence is not None
    assert found.evidence.precision > first.evidence.precision


class FarSighted(Double):
    """Finds a place 40 px to the right at first; keeps its placement then, surer where it is brighter."""

    def __init__(self, gain: float, *, lost_if_turned: bool = False) -> None:
        super().__init__()
        self.gain, self.lost_if_turned = gain, lost_if_turned

    def answer(self, template: Tensor, search: Tensor) -> tuple[Tensor, float, bool]:
        n = template.shape[-1]
        right = 40.0 if len(self.sizes) == 1 else 0.0
        lost = self.lost_if_turned and len(self.sizes) == 2
        return torch.from_numpy(similarity(1.0, n / 4 + right, n / 4)), self.gain * float(search.mean()), lost


@pytest.mark.parametrize(("gain", "place"), [(1.0, 40 - ASIDE[0]), (8.0, 40 + ASIDE[-1])])
def test_beyond_the_reach_of_a_given_start_an_answer_has_to_be_clearly_more_precise(
    gain: float, place: float
) -> None:
    model = FarSighted(gain, lost_if_turned=True)
    found = find(model, RAMP, similarity(1.0, 120, 80), plain(confidence_offset=-4.0))
    assert found.history[0][0][0, 2] == pytest.approx(120 + 40)
    assert found.homography[0, 2] == pytest.approx(120 + place)


def test_the_evidence_says_how_far_an_answer_is_beyond_the_reach_of_a_given_start() -> None:
    found = find(FarSighted(0.0), RAMP, similarity(1.0, 120, 80), effort="twice")
    assert found.homography[0, 2] == pytest.approx(120 + 40)
    assert found.evidence is not None
    assert found.evidence.beyond == pytest.approx(np.log1p(4 * 8)), "of the 40 px 32 are within it"


def test_without_a_start_nothing_is_beyond_reach() -> None:
    found = find(FarSighted(0.0), RAMP, None, effort="fast")
    assert found.evidence is not None
    assert found.evidence.beyond == 0


def test_of_the_best_few_frames_of_both_sizes_decide() -> None:
    """Answers as bright as each other in frames of 128 px, the lower of them the greener in larger ones."""

    class Greener(Double):
        def answer(self, template: Tensor, search: Tensor) -> tuple[Tensor, float, bool]:
            n = template.shape[-1]
            return square_prior(n), 8 * float(search[int(n == 256)].mean()) - 6, False

    across = np.broadcast_to(np.arange(400) / 2, (300, 400))
    down = np.broadcast_to(np.arange(300)[:, None] / 2, (300, 400))
    rgb = np.stack([across, down, 0 * down], axis=-1).astype(np.uint8)
    found = find(Greener(), rgb, similarity(1.0, 120, 80), plain(confidence_offset=-1.0))
    side = ASIDE[-1]
    assert found.homography[:2, 2].tolist() == pytest.approx([120 + side, 80 + side])
    assert found.evidence is not None
    assert found.evidence.single == 0, "which was a finer look at it already"


def test_confident_answers_are_not_tried_from_other_starts() -> None:
    start = similarity(1.0, 120, 80)
    found = find(Bright(), RAMP, start, plain(confidence_offset=9.0))
    assert torch.allclose(found.homography, torch.from_numpy(start))


def test_the_evidence_says_how_far_an_answer_moved() -> None:
    shift = torch.from_numpy(similarity(1.0, 35, 36))
    found = find(Same(5.0, homography=shift), scene(192, 192), PROTOCOL, plain(error_offset=9.0))
    (_, first), *finer = found.history
    assert (first.single, first.agreement) == (1, 0)
    assert [evidence.single for _, evidence in finer] == [0] * 4
    assert [evidence.agreement for _, evidence in finer] == pytest.approx([np.log(0.1 + 5)] * 4), "in each"
    assert finer[-1][1] is found.evidence


@pytest.mark.parametrize(
    ("effort", "step", "looks"),
    [("auto", 0.45, 1), ("auto", 0.55, 4), ("best", 0.05, 1), ("best", 0.45, 4), ("twice", 0.45, 1)],
)
def test_finer_looks_go_on_while_they_move_the_answer(effort: str, step: float, looks: int) -> None:
    class Moving(Same):
        def answer(self, template: Tensor, search: Tensor) -> tuple[Tensor, float, bool]:
            n = template.shape[-1]
            moved = step * n / 128 if n == 256 else 0.0
            return torch.from_numpy(similarity(1.0, n / 4 + moved, n / 4)), 5.0, False

    model = Moving()
    find(model, scene(192, 192), PROTOCOL, plain(error_offset=9.0), effort=effort)
    assert model.sizes.count(256) == looks


def test_the_evidence_says_how_far_mirrored_pictures_lead() -> None:
    # It always answers a shift of (3, 4) px: (-3, 4), (3, -4) and (-3, -4) in pictures that are turned over.
    shift = torch.from_numpy(similarity(1.0, 35, 36))
    model = Same(3.0, homography=shift)
    found = find(model, scene(192, 192), PROTOCOL, effort="twice")
    assert list(zip(model.sizes, model.batches, strict=True)) == [(128, 1), (128, 6), *[(256, 1)] * 4]
    assert [evidence.unmirrored for _, evidence in found.history] == [1, 0, 0, 0, 0, 0]
    assert found.history[0][1].mirrored == 0
    (first, _), (_, second), (_, third), (_, fourth), *_, (_, last) = found.history
    torch.testing.assert_close(found.history[1][0], first, atol=0, rtol=0)
    per_px = 128 / 127
    assert second.mirrored == pytest.approx(np.log(1 + 8 * per_px))
    median = np.hypot(3, 12)  # of the distances of (6, 8) to (-3, 4), (3, -4) and (-3, -4)
    assert third.mirrored == pytest.approx(np.log(1 + median * per_px))
    median = np.hypot(6, 16)  # of those of (9, 12)
    assert fourth.mirrored == pytest.approx(np.log(1 + median * per_px))
    assert last is found.evidence


@pytest.mark.parametrize(
    ("decoys", "finer", "over"),
    [
        (2.0, 2.0, 0.0),
        (1.9, 2.0, 0.1),
        (2.1, 2.0, -0.1),
        (1.9, 5.0, 0.1),  # frames of the same size are compared
        (-3.0, 2.0, 0.25),
        (9.0, 2.0, -0.25),
        (None, 2.0, 0.25),
    ],
)
def test_the_evidence_says_how_far_an_answer_exceeds_decoys(
    decoys: float | None, finer: float, over: float
) -> None:
    """Precise where both pictures are shown the same way, as precise as said where they are not."""

    class Knowing(Double):
        def answer(self, template: Tensor, search: Tensor) -> tuple[Tensor, float, bool]:
            n = template.shape[-1]
            darkest = [adaptive_avg_pool2d(image, 2).mean(0).argmin() for image in (template, search)]
            if darkest[0] == darkest[1]:
                return square_prior(n), finer if n == 256 else 2.0, False
            return square_prior(n), decoys or 0.0, decoys is None

    rgb = scene(192, 192, seed=5) // 4 + 180
    rgb[:96, :96] //= 6
    views = PairViews(read_image(rgb[32:160, 32:160].copy(), role="rgb"), read_image(rgb, role="rgb"))
    search = Search(Knowing(), plain(), torch.device("cpu"), lambda: None)
    (found,) = search.run([views], [given(PROTOCOL)], "twice")
    assert [one.over_decoys for _, one in found.history] == pytest.approx([0, over, over])
    beats = np.tanh((over - 0.05) / 0.05)
    assert [one.beats_decoys for _, one in found.history] == pytest.approx([0, beats, beats])


class Matching(Double):
    """Finds a grey picture in one that holds it, unless they are shown in a way that it does not know."""

    def __init__(self, *, lost_in: frozenset[int] = frozenset()) -> None:
        super().__init__()
        self.lost_in = lost_in

    def answer(self, template: Tensor, search: Tensor) -> tuple[Tensor, float, bool]:
        n = template.shape[-1]
        wanted, seen = (image.mean(0).numpy()[:: n // 64, :: n // 64].copy() for image in (template, search))
        scores = cv2.matchTemplate(seen, wanted, cv2.TM_CCOEFF_NORMED)
        y, x = np.unravel_index(scores.argmax(), scores.shape)
        lost = len(self.sizes) == 2 and x * n // 64 in self.lost_in
        return torch.from_numpy(similarity(1.0, x * n / 64, y * n / 64)), 0.0, lost


def _found_by(model: Double) -> Finding:
    rgb = scene(192, 192, seed=5)
    views = PairViews(read_image(rgb[20:148, 44:172], role="rgb"), read_image(rgb, role="rgb"))
    found = Search(model, plain(), torch.device("cpu"), lambda: None).run([views], [given(PROTOCOL)], "twice")
    assert found[0].homography[0, 2] == pytest.approx(44, abs=1)
    assert found[0].homography[1, 2] == pytest.approx(20, abs=1)
    return found[0]


def test_what_the_pictures_show_is_found_in_mirrored_ones_too() -> None:
    found = _found_by(Matching())
    assert found.evidence is not None
    assert found.evidence.mirrored < np.log(1 + 2.0)


def test_mirrored_pictures_in_which_nothing_is_found_count_as_far_away() -> None:
    # Lost where left and right are swapped: in two of three.
    lost = _found_by(Matching(lost_in=frozenset(range(18, 22)))).evidence
    assert lost is not None
    assert lost.mirrored == pytest.approx(np.log(1 + 128))


@pytest.mark.parametrize(("flip", "axes"), [(1, (1,)), (2, (0,)), (3, (0, 1))])
def test_what_a_decoy_finds_is_seen_through_its_answer(flip: int, axes: tuple[int, ...]) -> None:
    rgb = scene(192, 192, seed=5)
    turned = np.ascontiguousarray(np.flip(rgb[20:148, 44:172], axes))
    pair = _Pair(PairViews(read_image(turned, role="rgb"), read_image(rgb, role="rgb")), given(PROTOCOL))
    search = Search(Matching(), plain(), torch.device("cpu"), lambda: None)
    search._look([pair])
    (start,) = (one for one in pair.turned_over() if one.decoy and one.flip == flip)
    (decoy,) = search._estimate([start], 128)
    assert decoy is not None
    assert decoy.homography[:2, 2].tolist() == pytest.approx([44, 20], abs=1)
    template, frame, _ = decoy.frames(128)
    assert torch.corrcoef(torch.stack([template.flatten(), frame[..., 32:160, 32:160].flatten()]))[0, 1] > 0.9


@pytest.mark.parametrize(("precision", "place"), [(0.1, 44), (2.0, 32)])
def test_of_about_equally_precise_answers_the_one_that_comes_back_in_mirrored_pictures_is_kept(
    precision: float, place: float
) -> None:
    class Torn(Matching):
        # Sure of a wrong place in the pictures as they are, of the right one in all others.
        def answer(self, template: Tensor, search: Tensor) -> tuple[Tensor, float, bool]:
            homography, _, lost = super().answer(template, search)
            if self.sizes == [128]:
                return square_prior(128), precision, False
            return homography, 0.0, lost

    trust = plain(confidence_offset=-1.0, confidence_precision=0.5, confidence_mirrored=-2.0)
    rgb = scene(192, 192, seed=5)
    views = PairViews(read_image(rgb[20:148, 44:172], role="rgb"), read_image(rgb, role="rgb"))
    found = Search(Torn(), trust, torch.device("cpu"), lambda: None).run([views], [given(PROTOCOL)])[0]
    assert found.history[0][0][0, 2] == pytest.approx(32)
    assert found.homography[0, 2] == pytest.approx(place, abs=1)
    assert found.evidence is not None
    assert (found.evidence.rival == 1) is (place == 32), (
        "it says that another place looks better in the mirror"
    )


def test_places_beside_a_doubtful_answer_are_looked_at_without_matching_anew() -> None:
    model = Same(1.0)  # stays wherever it begins
    find(model, scene(192, 192), PROTOCOL, plain(confidence_offset=-1.0))
    assert model.sizes[:5] == [128, 128, 64, 128, 64]
    assert model.batches[2:4] == [8 * len(ASIDE), 4]
    assert [one is None for one in model.initials[:5]] == [True, True, False, False, True]


def test_clear_answers_are_not_looked_at_in_the_mirror() -> None:
    found = find(Same(3.0), scene(192, 192), PROTOCOL, plain(confidence_offset=9.0, error_offset=9.0))
    assert found.evidence is not None
    assert found.evidence.unmirrored == 1


def test_the_spread_is_that_of_the_corners_at_128_px() -> None:
    class Wide(Same):
        def forward(self, template: Tensor, search: Tensor, **options: Any) -> Any:
            estimate = super().forward(template, search, **options)
            estimate.covariance[:] = torch.eye(2) * 4.0
            return estimate

    found = find(Wide(3.0), scene(192, 192), PROTOCOL, effort="fast")
    assert found.evidence is not None
    assert found.evidence.spread == pytest.approx(np.log(2))


def test_coinciding_edges_speak_for_an_answer() -> None:
    rgb = scene(192, 192, seed=5)
    views = PairViews(
        read_image(infrared_of(rgb)[32:160, 32:160].copy(), role="ir"), read_image(rgb, role="rgb")
    )
    search = Search(Same(3.0), plain(), torch.device("cpu"), lambda: None)
    heights = []
    for shift in (0.0, 7.0):
        prior = similarity(1.0, 32 + shift, 32)
        (found,) = search.run([views], [given(prior)], "fast")
        assert found.evidence is not None
        heights.append(found.evidence.height)
    assert heights[0] > heights[1] + 1


@pytest.mark.parametrize(
    ("model", "status"), [(Same(diverged=True), "diverged"), (Same(3.0), ""), (Same(-9.0), "")]
)
def test_what_came_of_it(model: Same, status: str) -> None:
    found = find(model, scene(192, 192), PROTOCOL)
    assert found.status == status
    assert (found.evidence is None) is bool(status)
    assert bool(found.history) is not bool(status)


def test_a_prior_that_shows_nothing_is_not_looked_through() -> None:
    model = Same(3.0)
    found = find(model, scene(192, 192), similarity(1.0, 5000, 0))
    assert (found.status, found.evidence, model.batches) == ("outside", None, [])
    assert torch.equal(found.homography, torch.from_numpy(similarity(1.0, 5000, 0)))


def test_the_model_is_told_what_lies_outside_the_picture() -> None:
    model = Same(3.0)
    start = similarity(1.0, -20.5, 40)
    find(model, scene(220, 192), start, plain(confidence_offset=9.0), effort="fast")
    (mask,) = model.masks
    assert mask is not None
    expected = torch.zeros(192, 192, dtype=torch.bool)
    expected[:, 53:] = True
    assert torch.equal(mask[0, 0], expected)


def test_pairs_whose_frames_lie_within_the_picture_have_no_mask() -> None:
    alone, together = Same(3.0), Same(3.0)
    find(alone, scene(300, 300), similarity(1.0, 80, 80), effort="twice")
    assert set(alone.masks) == {None}
    views = [
        PairViews(
            read_image(infrared_of(scene(128, 128)), role="ir"), read_image(scene(192, 192), role="rgb")
        )
        for _ in range(2)
    ]
    search = Search(together, plain(), torch.device("cpu"), lambda: None)
    search.run(views, [given(PROTOCOL), given(similarity(1.0, 32, -20))], "fast")
    (mask,) = together.masks
    assert mask is not None
    assert mask.shape == (2, 1, 192, 192)
    assert mask[0].all()
    assert mask[1].float().mean() == pytest.approx(140 / 192)


def test_without_a_prior_narrow_fields_beside_the_centre_are_tried_too() -> None:
    given_one, free = (sum(_looks(prior)) for prior in (PROTOCOL, None))
    assert max(_looks(None)) == 16
    assert free > given_one + 20


def _looks(prior: NDArray[Any] | None) -> list[int]:
    model = Same(-9.0)
    find(model, scene(300, 400), prior)
    return model.batches


@pytest.mark.parametrize(("stretch", "tried"), [(1.03, False), (1.07, True)])
def test_answers_of_a_shape_that_is_hardly_possible_are_not_taken_alone(stretch: float, tried: bool) -> None:
    """However confident; with a start given, which may be of any shape, they are."""

    class Stretched(Double):
        def answer(self, template: Tensor, search: Tensor) -> tuple[Tensor, float, bool]:
            n = template.shape[-1]
            wider = torch.diag(torch.tensor([stretch, 1 / stretch, 1.0], dtype=torch.float64))
            return square_prior(n) @ wider if n < 128 else square_prior(n), 5.0, False

    trust = plain(confidence_offset=9.0)
    free, given_one = Stretched(), Stretched()
    found = find(free, scene(400, 400), None, trust)
    assert found.evidence is not None
    assert (max(free.batches) > len(FIELD_RATIOS)) is tried
    find(given_one, scene(400, 400), PROTOCOL, trust)
    assert max(given_one.batches) == 1


@pytest.mark.parametrize(
    ("effort", "prior", "sizes"),
    [
        ("fast", PROTOCOL, [128]),
        ("auto", PROTOCOL, [128, 256]),
        ("auto", None, [64, 128, 256]),
        ("best", PROTOCOL, [128, 128, 64, 128, 64, 128, 256]),
        ("twice", PROTOCOL, [128, 128, 256]),
    ],
)
def test_what_is_certain_is_looked_at_coarse_then_fine(
    effort: str, prior: NDArray[Any] | None, sizes: list[int]
) -> None:
    model = Same(5.0)
    find(model, scene(192, 192), prior, plain(error_offset=9.0), effort=effort)
    assert model.sizes == sizes


@pytest.mark.parametrize(
    ("effort", "width", "largest"),
    [
        ("best", 128, 256),
        ("best", 500, 512),
        ("best", 900, 1024),
        ("best", 3000, 1024),
        ("auto", 640, 256),
        ("auto", 900, 512),
        ("auto", 1280, 768),
        ("auto", 3000, 1024),
        ("fast", 3000, 128),
    ],
)
def test_frames_grow_with_the_infrared_pictures_own_resolution(effort: str, width: int, largest: int) -> None:
    model = Same(5.0)
    find(
        model,
        scene(400, 300),
        None,
        plain(threshold=0.0, error_offset=9.0),
        effort=effort,
        size=(width, 3 * width // 4),
    )
    assert max(model.sizes) == largest


@pytest.mark.parametrize(("size", "largest"), [((1140, 570), 512), ((1140, 380), 256), ((570, 1140), 512)])
def test_pixels_count_over_both_directions(size: tuple[int, int], largest: int) -> None:
    """A picture that was stretched in one direction shows no more than before."""
    model = Same(5.0)
    find(model, scene(400, 300), None, plain(threshold=0.0, error_offset=9.0), size=size)
    assert max(model.sizes) == largest


def test_a_sharper_look_is_kept_only_if_it_is_as_certain() -> None:
    class Blind(Same):
        """Certain, but for frames of 512 px, where it goes astray."""

        def answer(self, template: Tensor, search: Tensor) -> tuple[Tensor, float, bool]:
            n = template.shape[-1]
            if n < 512:
                return square_prior(n), 5.0, False
            return torch.from_numpy(similarity(1.0, n / 4 + 9, n / 4)), self.fixed[1], False

    start = similarity(0.4, 20, 20)
    for precision, moved in ((5.0, True), (2.0, False)):
        trust = plain(threshold=0.0)
        found = find(Blind(precision), scene(400, 300), start, trust, effort="best", size=(512, 400))
        assert torch.allclose(found.homography, torch.from_numpy(start)) is not moved
        assert found.evidence is not None
        assert found.evidence.agreement == pytest.approx(np.log(0.1)), "the evidence is that of the fine look"


@pytest.mark.parametrize(("change", "kept"), [(-7.0, False), (-0.05, False), (0.05, True)])
def test_a_fine_look_is_kept_unless_it_is_less_certain(change: float, kept: bool) -> None:
    class Blurred(Same):
        def answer(self, template: Tensor, search: Tensor) -> tuple[Tensor, float, bool]:
            n = template.shape[-1]
            # In px of the larger frame, which are half as large.
            precision = 5.0 if n == 128 else 5.0 - np.log(2) + change
            return torch.from_numpy(similarity(1.0, n / 4 + n / 128, n / 4)), precision, False

    found = find(Blurred(), scene(192, 192), PROTOCOL, plain(error_offset=9.0))
    assert found.evidence is not None
    assert found.evidence.single == (not kept)
    assert found.homography[0, 2] == pytest.approx(37 if kept else 33), (
        "each of four finer looks moves it by 1"
    )


def test_an_answer_that_is_as_good_elsewhere_is_a_rival() -> None:
    """Where everything is as certain everywhere, at most one of the answers is right."""
    doubtful = find(Same(1.0), scene(300, 300), similarity(1.0, 80, 80), plain(confidence_offset=-1.0))
    assert doubtful.evidence is not None
    assert doubtful.evidence.rival == pytest.approx(1.0)

    class Once(Double):
        """Finds its way back to one place from everywhere."""

        def answer(self, template: Tensor, search: Tensor) -> tuple[Tensor, float, bool]:
            return square_prior(template.shape[-1]), 3.0 * float(search[0].mean() > 0.9), False

    rgb = np.full((300, 300, 3), 40, np.uint8)
    rgb[60:230, 60:230] = 255
    rgb[100:180, 100:180, 1:] = 0
    single = find(Once(), rgb, similarity(1.0, 80, 80), plain(confidence_offset=-2.5))
    assert single.evidence is not None
    assert single.evidence.rival < 0.5


def test_the_second_best_field_of_view_is_looked_at_where_the_best_leaves_doubt() -> None:
    class Fickle(Double):
        """Prefers bright views in small frames and dark ones in larger ones."""

        def answer(self, template: Tensor, search: Tensor) -> tuple[Tensor, float, bool]:
            n, mean = template.shape[-1], float(search.mean())
            return square_prior(n), 0.5 * mean if n < 128 else 4 - 4 * mean, False

    y, x = np.mgrid[-150:150, -200:200]
    rgb = np.repeat((255 * np.exp(-((x / 90) ** 2) - (y / 90) ** 2)).astype(np.uint8)[..., None], 3, axis=2)
    scales = []
    for offset in (-3.0, 9.0):
        found = find(Fickle(), rgb, None, plain(confidence_offset=offset), size=(120, 160))
        scales.append(float(found.homography[0, 0]) / 400 * 160)
    narrowest, next_one = sorted(FIELD_RATIOS)[:2]
    assert scales == pytest.approx([next_one, narrowest])


@pytest.mark.parametrize(("threshold", "over"), [(0.5, 0.0), (0.95, 0.25)])
def test_decoys_are_searched_as_far_as_an_answer_that_is_to_be_believed(
    threshold: float, over: float
) -> None:
    # The brightest place beside the start is the best for the infrared as it is and for any decoy.
    trust = plain(confidence_precision=0.0, confidence_offset=2.0, threshold=threshold)
    found = find(Bright(), RAMP, similarity(1.0, 120, 80), trust)
    assert found.homography[0, 2] == pytest.approx(120 + ASIDE[-1])
    assert found.evidence is not None
    assert found.evidence.over_decoys == pytest.approx(over, abs=1e-6)
    assert found.history[1][1].over_decoys == pytest.approx(0, abs=1e-6), "one look each"
