from __future__ import annotations

import math

import numpy as np
import pytest

from wsss.errors import ShapeError
from wsss.metrics.saliency import SaliencyCounts, SaliencyScores, f_measure


def slow_scores(pairs: list[tuple[np.ndarray, np.ndarray]]) -> SaliencyScores:
    """Pixel by pixel and threshold by threshold."""
    error, pixels = 0.0, []
    for saliency, covered in pairs:
        for value, truth in zip(saliency.ravel().tolist(), covered.ravel().tolist(), strict=True):
            error += abs(value - (1.0 if truth else 0.0))
            pixels.append((math.floor(value * 255 + 0.5), truth))
    things = sum(truth for _, truth in pixels)
    curve = []
    for threshold in range(255):
        found = sum(level > threshold for level, _ in pixels)
        hits = sum(level > threshold and truth for level, truth in pixels)
        precision, recall = (hits / found if found else 0.0), hits / things
        down = 0.3 * precision + recall
        curve.append(1.3 * precision * recall / down if down else 0.0)
    best = max(range(255), key=lambda place: (curve[place], -place))
    return SaliencyScores(error / len(pixels), curve[best], best / 255, curve[127])


def random_pairs(seed: int, count: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    pairs = []
    for number in range(count):
        covered = rng.random((5 + number, 7)) < 0.3
        saliency = (0.4 * covered + 0.6 * rng.random(covered.shape)).astype(np.float32)
        pairs.append((saliency, covered))
    return pairs


def scores_of(pairs: list[tuple[np.ndarray, np.ndarray]]) -> SaliencyScores:
    counts = SaliencyCounts()
    for saliency, covered in pairs:
        counts.add(saliency, covered)
    return counts.scores()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_are_those_of_loops(seed: int) -> None:
    found, expected = scores_of(random_pairs(seed)), slow_scores(random_pairs(seed))
    for name, value in vars(expected).items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-9), name


def test_a_perfect_map_has_no_error_and_full_measure() -> None:
    covered = random_pairs(4)[0][1]
    assert scores_of([(covered.astype(np.float32), covered)]) == SaliencyScores(0.0, 1.0, 0.0, 1.0)


def test_the_opposite_of_the_truth_finds_nothing() -> None:
    covered = random_pairs(4)[0][1]
    assert scores_of([(1 - covered.astype(np.float32), covered)]) == SaliencyScores(1.0, 0.0, 0.0, 0.0)


def test_pictures_without_things_count_as_false_alarms() -> None:
    pair = random_pairs(5)[0]
    alarm = (np.ones((4, 4), np.float32), np.zeros((4, 4), bool))
    calm = (np.zeros((4, 4), np.float32), np.zeros((4, 4), bool))
    assert scores_of([pair, calm]).best_f == scores_of([pair]).best_f
    assert scores_of([pair, alarm]).half_f < scores_of([pair]).half_f
    assert math.isnan(scores_of([calm]).best_f)
    assert scores_of([alarm]).mean_absolute_error == 1.0


def test_pixels_that_do_not_count_change_nothing() -> None:
    saliency, covered = random_pairs(6)[0]
    counted = np.random.default_rng(7).random(covered.shape) < 0.5
    one, other = SaliencyCounts(), SaliencyCounts()
    one.add(saliency, covered, counted=counted)
    other.add(np.where(counted, saliency, 1 - saliency), covered ^ ~counted, counted=counted)
    assert one.scores() == other.scores()


def test_half_means_a_saliency_of_one_half() -> None:
    covered = np.array([[True, True, False, False]])
    saliency = np.array([[0.5, 0.49, 0.5, 0.49]])
    assert scores_of([(saliency, covered)]).half_f == pytest.approx(
        float(f_measure(np.array([1]), np.array([2]), 2)[0])
    )


def test_maps_that_are_none_are_refused() -> None:
    counts = SaliencyCounts()
    with pytest.raises(ShapeError, match="of one size"):
        counts.add(np.zeros((2, 3)), np.zeros((3, 2), bool))
    for value in (1.5, -0.1, float("nan")):
        with pytest.raises(ShapeError, match="must lie in"):
            counts.add(np.full((2, 2), value), np.zeros((2, 2), bool))
