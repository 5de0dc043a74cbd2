from __future__ import annotations

import numpy as np
import pytest

from wsss.errors import DataError, ShapeError
from wsss.metrics.confusion import Confusion
from wsss.metrics.intervals import ImageCounts, bootstrap, paired_bootstrap

CLASSES = 4


def random_side(seed: int, images: int = 30, better: float = 0.0) -> tuple[ImageCounts, np.ndarray]:
    """Counts of masks whose share of right pixels rises with `better`, and the confusions they come from."""
    rng = np.random.default_rng(7)  # the same images on every side
    truth = rng.integers(0, 200, (images, CLASSES)) * (rng.random((images, CLASSES)) < 0.7)
    rng = np.random.default_rng(seed)
    confusions = np.zeros((images, CLASSES, CLASSES), dtype=np.int64)
    for image in range(images):
        for c in range(CLASSES):
            right = 0.5 + better + 0.2 * rng.random()
            spread = [(1 - right) / (CLASSES - 1)] * CLASSES
            spread[c] = right
            confusions[image, c] = rng.multinomial(truth[image, c], np.array(spread) / sum(spread))
    rows = np.nonzero(confusions)
    ids = [f"image_{number}" for number in range(images)]
    return ImageCounts.from_sparse(ids, (*rows, confusions[rows]), CLASSES), confusions


def test_sparse_rows_give_the_corpus_score() -> None:
    side, confusions = random_side(0)
    assert side.miou()[0] == pytest.approx(Confusion(confusions.sum(axis=0)).miou())


def test_weights_repeat_images() -> None:
    side, confusions = random_side(0)
    weights = np.random.default_rng(1).integers(0, 4, (3, 30))
    for row, score in zip(weights, side.miou(weights), strict=True):
        expected = Confusion((row[:, None, None] * confusions).sum(axis=0)).miou()
        assert score == pytest.approx(expected)


def test_the_bootstrap_equals_a_loop_over_draws() -> None:
    first, second = random_side(0), random_side(1, better=0.1)
    interval = paired_bootstrap([first[0]], [second[0]], resamples=40, seed=5, level=0.8)
    rng, differences = np.random.default_rng(5), []
    for picks in rng.integers(0, 30, (40, 30)):
        scores = [Confusion(confusions[picks].sum(axis=0)).miou() for _, confusions in (first, second)]
        differences.append(scores[1] - scores[0])
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(differences, [0.1, 0.9])))


def test_a_side_against_itself_is_exactly_nothing() -> None:
    side, _ = random_side(0)
    interval = paired_bootstrap([side], [side])
    assert (interval.value, interval.low, interval.high) == (0.0, 0.0, 0.0)


def test_a_clear_gain_lies_above_zero_and_turns_its_sign_when_swapped() -> None:
    worse, better = random_side(0)[0], random_side(1, better=0.15)[0]
    gain, loss = paired_bootstrap([worse], [better], seed=3), paired_bootstrap([better], [worse], seed=3)
    assert 0 < gain.low < gain.value < gain.high
    assert (loss.low, loss.high) == pytest.approx((-gain.high, -gain.low))


def test_the_order_of_images_does_not_matter() -> None:
    first, second = random_side(0)[0], random_side(1)[0]
    shuffled = second.ordered(second.ids[::-1])
    assert shuffled.miou()[0] == pytest.approx(second.miou()[0])
    assert paired_bootstrap([first], [shuffled]) == paired_bootstrap([first], [second])


def test_seeds_are_averaged() -> None:
    sides = [random_side(seed)[0] for seed in range(3)]
    assert bootstrap(sides).value == pytest.approx(np.mean([side.miou()[0] for side in sides]))


def test_different_images_can_not_be_paired() -> None:
    first, _ = random_side(0)
    other = ImageCounts(("elsewhere", *first.ids[1:]), *(np.ones((30, CLASSES), dtype=np.int64),) * 3)
    with pytest.raises(DataError, match="same images"):
        paired_bootstrap([first], [other])
    with pytest.raises(ShapeError, match="level"):
        bootstrap([first], level=1.0)
