from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score, precision_score, recall_score

import oracle_masks
from wsss.errors import ShapeError
from wsss.metrics.activation import false_to_true, missed_to_true, over_activation, under_activation
from wsss.metrics.confusion import Confusion, count_pixels
from wsss.types import IGNORE


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def filled(rng: np.random.Generator, images: int = 3, num_classes: int = 5) -> Confusion:
    confusion = Confusion.empty(num_classes)
    for _ in range(images):
        confusion.add(*oracle_masks.random_masks(rng, num_classes, (9, 7)))
    return confusion


def test_counts_equal_the_pixel_loop(rng: np.random.Generator) -> None:
    mask, predicted = oracle_masks.random_masks(rng, 5, (13, 11))
    assert np.array_equal(count_pixels(mask, predicted, 5), oracle_masks.confusion(mask, predicted, 5))


def test_iou_equals_its_definition(rng: np.random.Generator) -> None:
    confusion = filled(rng)
    assert confusion.iou() == pytest.approx(oracle_masks.iou(confusion.counts))
    assert confusion.miou() == pytest.approx(np.mean(oracle_masks.iou(confusion.counts)))


def test_corpus_scores_are_those_of_scikit_learn_on_all_pixels_at_once(rng: np.random.Generator) -> None:
    """Images of unequal size, so that a mean of scores of images would differ."""
    pairs = [oracle_masks.random_masks(rng, 6, size) for size in ((9, 7), (20, 31), (2, 3), (15, 4))]
    pairs = [(np.where(mask == 5, 0, mask), predicted) for mask, predicted in pairs]  # one class never occurs
    confusion = Confusion.empty(6)
    for mask, predicted in pairs:
        confusion.add(mask, predicted)
    truth = np.concatenate([mask.ravel() for mask, _ in pairs])
    guess = np.concatenate([predicted.ravel() for _, predicted in pairs])[truth != IGNORE]
    truth = truth[truth != IGNORE]
    every = {"labels": list(range(6)), "average": None, "zero_division": 0.0}
    assert np.array_equal(confusion.counts, confusion_matrix(truth, guess, labels=every["labels"]))
    iou = jaccard_score(truth, guess, **every)
    assert confusion.iou()[:5] == pytest.approx(iou[:5])
    assert np.isnan(confusion.iou()[5])
    assert confusion.miou() == pytest.approx(iou[:5].mean())
    precision, recall = precision_score(truth, guess, **every), recall_score(truth, guess, **every)
    assert confusion.precision() == pytest.approx(precision)
    assert confusion.recall()[:5] == pytest.approx(recall[:5])
    assert over_activation(confusion) == pytest.approx(1 - precision)
    assert under_activation(confusion)[:5] == pytest.approx(1 - recall[:5])
    of_images = [Confusion(count_pixels(*pair, 6)).miou() for pair in pairs]
    assert confusion.miou() != pytest.approx(np.mean(of_images), abs=1e-3)


def test_a_perfect_prediction_scores_one(rng: np.random.Generator) -> None:
    mask, _ = oracle_masks.random_masks(rng, 4, (20, 20))
    confusion = Confusion.empty(4)
    confusion.add(mask, np.where(mask == IGNORE, 1, mask))
    assert confusion.miou() == 1.0
    assert not over_activation(confusion).any()
    assert not under_activation(confusion).any()


def test_two_halves_merge_to_the_whole(rng: np.random.Generator) -> None:
    mask, predicted = oracle_masks.random_masks(rng, 4, (20, 20))
    top, bottom, whole = (Confusion.empty(4) for _ in range(3))
    top.add(mask[:7], predicted[:7])
    bottom.add(mask[7:], predicted[7:])
    whole.add(mask, predicted)
    assert np.array_equal((top + bottom).counts, whole.counts)


def test_mirroring_both_masks_changes_nothing(rng: np.random.Generator) -> None:
    mask, predicted = oracle_masks.random_masks(rng, 4, (8, 9))
    assert np.array_equal(
        count_pixels(mask, predicted, 4), count_pixels(mask[:, ::-1], predicted[:, ::-1], 4)
    )


def test_ignored_pixels_never_count(rng: np.random.Generator) -> None:
    mask, predicted = oracle_masks.random_masks(rng, 4, (8, 9))
    changed = np.where(mask == IGNORE, (predicted + 1) % 4, predicted)
    assert np.array_equal(count_pixels(mask, predicted, 4), count_pixels(mask, changed, 4))


def test_an_image_of_ignored_pixels_only_adds_nothing() -> None:
    mask = np.full((4, 4), IGNORE, dtype=np.uint8)
    assert count_pixels(mask, np.zeros_like(mask), 3).sum() == 0


def test_classes_without_true_pixels_are_named_and_left_out() -> None:
    confusion = Confusion([[6, 0, 2], [1, 3, 0], [0, 0, 0]])
    assert confusion.missing_classes() == [2]
    assert np.isnan(confusion.iou()[2])
    assert confusion.miou() == pytest.approx((6 / 9 + 3 / 4) / 2)


def test_nothing_counted_gives_no_score() -> None:
    assert np.isnan(Confusion.empty(3).miou())


def test_activation_ratios_follow_their_definitions(rng: np.random.Generator) -> None:
    confusion = filled(rng)
    counts = confusion.counts
    for c in range(5):
        found, false, missed = counts[c, c], counts[:, c].sum() - counts[c, c], counts[c].sum() - counts[c, c]
        assert over_activation(confusion)[c] == pytest.approx(false / (found + false))
        assert under_activation(confusion)[c] == pytest.approx(missed / (found + missed))
        assert false_to_true(confusion)[c] == pytest.approx(false / found)
        assert missed_to_true(confusion)[c] == pytest.approx(missed / found)
    over, under = over_activation(confusion), under_activation(confusion)
    assert false_to_true(confusion) == pytest.approx(over / (1 - over))
    assert missed_to_true(confusion) == pytest.approx(under / (1 - under))


@pytest.mark.parametrize(
    ("mask", "predicted", "message"),
    [
        (np.zeros((2, 2)), np.zeros((2, 3)), "size"),
        (np.array([[3]]), np.array([[0]]), "`mask` must hold 0…2; got 3"),
        (np.array([[0]]), np.array([[IGNORE]]), "`predicted_mask` must hold 0…2; got 255"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask: np.ndarray, predicted: np.ndarray, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        count_pixels(mask.astype(np.uint8), predicted.astype(np.uint8), 3)


def test_counts_must_be_square() -> None:
    with pytest.raises(ShapeError, match=r"\(C, C\)"):
        Confusion([[1, 2, 3]])
