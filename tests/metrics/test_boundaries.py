from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import laplace

from wsss.errors import ShapeError
from wsss.metrics.boundaries import TOLERANCES, Boundaries, TrueEdges, mask_edges
from wsss.types import IGNORE

KEYS = ["0", "0.0075", "0.02"]


def blobs(rng: np.random.Generator, size: tuple[int, int], classes: int = 3) -> np.ndarray:
    """A mask of random rectangles, one over the other, some of them against the image's border."""
    mask = np.zeros(size, dtype=np.uint8)
    for _ in range(5):
        top, left = rng.integers(0, size[0] - 2), rng.integers(0, size[1] - 2)
        height, width = rng.integers(2, size[0]), rng.integers(2, size[1])
        mask[top : top + height, left : left + width] = rng.integers(0, classes + 1)
    return mask


def with_ignored(rng: np.random.Generator, mask: np.ndarray, share: float = 0.15) -> np.ndarray:
    return np.where(rng.random(mask.shape) < share, IGNORE, mask).astype(np.uint8)


def slow_edges(mask: np.ndarray) -> set[tuple[int, int]]:
    """The Laplacian of each class by its definition; the pixel itself stands in for unknown neighbours."""
    height, width = mask.shape
    found = set()
    for c in set(mask.ravel().tolist()) - {0, IGNORE}:
        for y in range(height):
            for x in range(width):
                if mask[y, x] != c:
                    continue
                response = -4
                for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                    is_inside = 0 <= y + dy < height and 0 <= x + dx < width
                    is_known = is_inside and mask[y + dy, x + dx] != IGNORE
                    response += int(mask[y + dy, x + dx] == c) if is_known else 1
                if response != 0:
                    found.add((y, x))
    return found


def slow_counts(mask: np.ndarray, predicted: np.ndarray) -> dict[str, tuple[int, int, int, int]]:
    """Matched and all true pixels, matched and all predicted pixels, from every pair of pixels."""
    true = slow_edges(mask)
    guessed = slow_edges(np.where(mask == IGNORE, IGNORE, predicted))
    diagonal = math.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2)

    def near(pixel: tuple[int, int], others: set[tuple[int, int]], radius: float) -> bool:
        return any(math.dist(pixel, other) <= radius for other in others)

    return {
        key: (
            sum(near(pixel, guessed, tolerance * diagonal) for pixel in true),
            len(true),
            sum(near(pixel, true, tolerance * diagonal) for pixel in guessed),
            len(guessed),
        )
        for key, tolerance in zip(KEYS, TOLERANCES, strict=True)
    }


def score(mask: np.ndarray, predicted: np.ndarray) -> dict[str, dict[str, float | None]]:
    counts = Boundaries()
    counts.add(TrueEdges.of_mask(mask), predicted)
    return counts.summary()


def square(size: int = 60, at: int = 20, side: int = 15) -> np.ndarray:
    mask = np.zeros((size, size), dtype=np.uint8)
    mask[at : at + side, at : at + side] = 1
    return mask


@pytest.mark.parametrize("seed", range(6))
def test_edges_are_the_inner_side_of_each_class_laplacian(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = blobs(rng, (13, 17))
    expected = np.zeros(mask.shape, dtype=bool)
    for c in (1, 2, 3):
        inside = (mask == c).astype(int)
        expected |= (laplace(inside, mode="nearest") != 0) & (inside == 1)
    assert np.array_equal(mask_edges(mask), expected)
    known = with_ignored(rng, mask)
    assert {(int(y), int(x)) for y, x in np.argwhere(mask_edges(known))} == slow_edges(known)


def test_edges_by_hand() -> None:
    mask = square(7, 2, 4)  # rows and columns 2 to 5
    edges = mask_edges(mask)
    assert edges.sum() == 12  # the ring of a 4 x 4 square
    assert not edges[3:5, 3:5].any()
    assert not mask_edges(np.full((5, 6), 3)).any()  # the image's border is no edge
    assert mask_edges(np.array([[1, 1, 2, 2]])).tolist() == [[False, True, True, False]]  # one each


@pytest.mark.parametrize("seed", range(5))
def test_counts_equal_the_loop_over_pairs_of_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = (37, 60)  # 0.02 of the diagonal are 1.41 pixels: straight neighbours match, diagonal ones do not
    counts, expected = Boundaries(), np.zeros((3, 4), dtype=int)
    for _ in range(2):
        mask, predicted = with_ignored(rng, blobs(rng, size), 0.03), blobs(rng, size)
        counts.add(TrueEdges.of_mask(mask), predicted)
        expected += np.array(list(slow_counts(mask, predicted).values()))
    assert list(zip(counts.found, counts.right, strict=True)) == [(row[0], row[2]) for row in expected]
    assert (counts.true_edges, counts.predicted_edges) == (expected[0, 1], expected[0, 3])
    summary = counts.summary()
    assert list(summary) == KEYS
    for key, (found, true, right, guessed) in zip(KEYS, expected.tolist(), strict=True):
        recall, precision = found / true, right / guessed
        assert summary[key]["recall"] == pytest.approx(recall)
        assert summary[key]["precision"] == pytest.approx(precision)
        assert summary[key]["f1"] == pytest.approx(2 * recall * precision / (recall + precision))


@pytest.mark.parametrize("seed", range(4))
def test_a_right_mask_scores_one_whatever_it_says_where_the_truth_is_ignored(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = with_ignored(rng, blobs(rng, (20, 24)))
    for filling in (0, 1, rng.integers(0, 4, mask.shape)):
        predicted = np.where(mask == IGNORE, filling, mask).astype(np.uint8)
        for values in score(mask, predicted).values():
            assert values == {"recall": 1.0, "precision": 1.0, "f1": 1.0}


def test_ignored_pixels_give_no_edges_and_no_false_ones() -> None:
    mask = np.zeros((9, 9), dtype=np.uint8)
    mask[:, 5:] = IGNORE
    predicted = np.zeros_like(mask)
    predicted[2:4, 6:8] = 1  # inside the ignored part
    assert score(mask, predicted)["0.02"] == {"recall": None, "precision": None, "f1": None}
    mask[:, :2] = 1  # an edge in the known part
    assert score(mask, predicted)["0"] == {"recall": 0.0, "precision": None, "f1": None}


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_a_shift_is_forgiven_up_to_the_tolerance(shift: int) -> None:
    mask = square(100)  # tolerances 0, 1.06 and 2.83 pixels
    for key, tolerance in zip(KEYS, TOLERANCES, strict=True):
        values = score(mask, np.roll(mask, shift, axis=1))[key]
        is_perfect = values == {"recall": 1.0, "precision": 1.0, "f1": 1.0}
        assert is_perfect == (tolerance * math.hypot(100, 100) >= shift), (key, shift)


def test_a_larger_tolerance_never_scores_lower_and_mirrors_score_alike() -> None:
    rng = np.random.default_rng(3)
    for _ in range(10):
        mask, predicted = with_ignored(rng, blobs(rng, (50, 40)), 0.05), blobs(rng, (50, 40))
        values = score(mask, predicted)
        for name in ("recall", "precision"):
            row = [value for key in KEYS if (value := values[key][name]) is not None]
            assert row == sorted(row)
        assert score(mask[:, ::-1], predicted[:, ::-1]) == values
        assert score(mask.T, predicted.T) == values


def test_recall_and_precision_change_places_with_truth_and_prediction() -> None:
    rng = np.random.default_rng(4)
    mask, predicted = blobs(rng, (40, 40)), blobs(rng, (40, 40))
    for there, back in zip(score(mask, predicted).values(), score(predicted, mask).values(), strict=True):
        assert (there["recall"], there["precision"]) == (back["precision"], back["recall"])
        assert there["f1"] == pytest.approx(back["f1"])


def test_two_halves_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(5)
    halves, whole = [Boundaries(), Boundaries()], Boundaries()
    for number in range(6):
        size = (20 + number, 30)
        truth, predicted = TrueEdges.of_mask(blobs(rng, size)), blobs(rng, size)
        halves[number % 2].add(truth, predicted)
        whole.add(truth, predicted)
    assert (halves[0] + halves[1]).summary() == whole.summary()
    assert halves[0].summary() != whole.summary()
    assert (whole + Boundaries()).summary() == whole.summary()


def test_which_class_an_edge_belongs_to_does_not_matter() -> None:
    mask = square()
    assert score(mask, 2 * mask)["0"] == {"recall": 1.0, "precision": 1.0, "f1": 1.0}


def test_given_boundaries_take_the_place_of_the_masks_edges() -> None:
    mask = square(100)
    counts = Boundaries()
    counts.add(TrueEdges.of_boundaries(np.roll(mask_edges(mask), 1, axis=0)), mask)
    summary = counts.summary()
    assert summary["0.0075"] == {"recall": 1.0, "precision": 1.0, "f1": 1.0}
    # the ring of a 15 x 15 square and itself one row below share 14 pixels of each upright side
    assert summary["0"]["recall"] == pytest.approx(28 / 56)


def test_nothing_to_divide_by_is_none() -> None:
    empty, full = np.zeros((10, 10), dtype=np.uint8), square(10, 3, 3)
    assert score(empty, empty)["0"] == {"recall": None, "precision": None, "f1": None}
    assert score(empty, full)["0.02"] == {"recall": None, "precision": 0.0, "f1": None}
    assert score(full, empty)["0.02"] == {"recall": 0.0, "precision": None, "f1": None}
    assert score(square(60), square(60, 40))["0"] == {"recall": 0.0, "precision": 0.0, "f1": 0.0}
    assert Boundaries().summary()["0"] == {"recall": None, "precision": None, "f1": None}


def test_sizes_must_agree() -> None:
    with pytest.raises(ShapeError, match=r"true edges, \(10, 10\); got \(9, 10\)"):
        score(np.zeros((10, 10), dtype=np.uint8), np.zeros((9, 10), dtype=np.uint8))


def test_an_image_without_known_edges_does_not_count() -> None:
    rng = np.random.default_rng(3)
    first, second, third = (blobs(rng, (20, 24)) for _ in range(3))
    counts, alone = Boundaries(), Boundaries()
    counts.add(TrueEdges.of_mask(first), second)
    counts.add(None, third)
    alone.add(TrueEdges.of_mask(first), second)
    assert counts.summary() == alone.summary()
    assert counts.images == alone.images == 1
    assert (counts + alone).images == 2
