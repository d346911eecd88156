from __future__ import annotations

import cv2
import numpy as np
import pytest

from homoreg.synthesis.sources import ImageBank, find_pairs
from homoreg.training.trials import KINDS, MISMATCHES, Trial, draw_trials
from tests.scenes import write_pairs


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> ImageBank:
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder / "park", 5)
    write_pairs(folder / "city", 2)
    return ImageBank(find_pairs(folder / "park") + find_pairs(folder / "city"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_trials(bank: ImageBank, kind: str) -> None:
    first, again, other = (list(draw_trials(bank, kind, 3, seed)) for seed in (1, 1, 2))
    assert len(first) == 3
    for one, two, three in zip(first, again, other, strict=True):
        assert np.array_equal(one.ir, two.ir)
        assert np.array_equal(one.rgb, two.rgb)
        assert not np.array_equal(one.ir, three.ir)


def test_trials_of_the_protocol_have_its_frames_and_an_answer(bank: ImageBank) -> None:
    for trial in draw_trials(bank, "protocol", 17, 3):
        assert trial.ir.shape == (128, 128, 3)
        assert trial.rgb.shape == (192, 192, 3)
        assert trial.prior is not None
        assert trial.truth is not None
        assert 0 < trial.error(trial.prior) < 60
        assert trial.error(trial.truth) == pytest.approx(0, abs=1e-9)
        assert trial.source in ("park", "city")


def test_whole_pictures_show_the_infrared_where_the_answer_says(bank: ImageBank) -> None:
    ratios, correlations = [], []
    for trial in draw_trials(bank, "whole", 16, 3):
        assert trial.prior is None
        assert trial.truth is not None
        assert trial.kind == "whole"
        height, width = trial.ir.shape[:2]
        corners = np.array([[[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]], np.float64)
        quad = cv2.perspectiveTransform(corners, trial.truth)[0]
        ratios.append(np.linalg.norm(quad[1] - quad[0]) / trial.rgb.shape[1])
        seen = cv2.warpPerspective(
            trial.rgb, trial.truth, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        valid = cv2.warpPerspective(
            np.ones(trial.rgb.shape[:2], np.uint8), trial.truth, (width, height), flags=cv2.WARP_INVERSE_MAP
        )
        grey = [image.astype(float).mean(-1)[valid > 0] for image in (trial.ir, seen)]
        correlations.append(abs(np.corrcoef(*grey)[0, 1]))
    assert 0.4 < min(ratios) < 0.7 < max(ratios) < 1.1
    assert np.median(correlations) > 0.3


def test_mismatched_pictures_have_no_answer_and_take_turns(bank: ImageBank) -> None:
    trials = list(draw_trials(bank, "mismatched", 16, 3))
    assert {trial.kind for trial in trials} == set(MISMATCHES)
    assert all(trial.truth is None and trial.error(np.eye(3)) == np.inf for trial in trials)
    matching = list(draw_trials(bank, "mismatched", 16, 4))
    assert all(one.ir.shape == two.ir.shape for one, two in zip(trials, matching, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_every_other_batch_is_shown_as_it_is(bank: ImageBank, kind: str) -> None:
    trials = list(draw_trials(bank, kind, 64, 3))
    assert [trial.plain for trial in trials] == ([True] * 16 + [False] * 16) * 2
    for trial in trials:
        # These pairs' infrared pictures are grey; no tone, blur or noise is coloured but a palette.
        assert not trial.plain or np.array_equal(trial.ir[..., 0], trial.ir[..., 2])
    assert any(not np.array_equal(trial.ir[..., 0], trial.ir[..., 2]) for trial in trials)


def test_an_error_is_in_px_of_a_template_of_128() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    truth = np.array([[4.0, 0, 30], [0, 4.0, 20], [0, 0, 1]])
    trial = Trial(image, image, None, truth, "whole", "park", plain=True)
    shifted = truth + np.array([[0, 0, 8.0], [0, 0, 0], [0, 0, 0]])
    # 8 px of the RGB picture, in which the infrared picture is 4 * 63 px wide.
    assert trial.error(shifted) == pytest.approx(8 * 127 / (4 * 63))
