from __future__ import annotations

import numpy as np
import pytest

import oracle_masks
from wsss.metrics.confusion import count_pixels
from wsss.metrics.cooccurrence import Cooccurrence, count_context

NAMES = ("background", "boat", "train")
CONTEXTS = {1: "water", 2: "railroad"}


def summary_of(images: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, dict[str, float]]:
    counts = Cooccurrence(len(NAMES), 3)
    for mask, predicted, context in images:
        table = count_context(context, mask, predicted, num_contexts=3, num_classes=3)
        counts.add(count_pixels(mask, predicted, 3), table)
    return counts.summary(NAMES, CONTEXTS)


def image(mask: list[int], predicted: list[int], context: list[int]) -> tuple[np.ndarray, ...]:
    return tuple(np.array([values], dtype=np.uint8) for values in (mask, predicted, context))


def test_context_counts_equal_the_pixel_loop() -> None:
    rng = np.random.default_rng(0)
    mask, predicted = oracle_masks.random_masks(rng, 3, (9, 8))
    context = rng.integers(0, 3, (9, 8)).astype(np.uint8)
    expected = oracle_masks.context_table(context, mask, predicted, 3, 3)
    assert np.array_equal(count_context(context, mask, predicted, num_contexts=3, num_classes=3), expected)


def test_ratio_and_share_by_hand() -> None:
    both = image([1, 1, 1, 0, 0, 255], [1, 1, 0, 1, 0, 1], [0, 0, 0, 1, 1, 1])
    only_boat = image([1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0])
    only_water = image([0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1])
    found = summary_of([both, only_boat, only_water])
    assert set(found) == {"boat/water"}
    pair = found["boat/water"]
    assert pair["images"] == 1
    assert pair["confusion_ratio"] == pytest.approx(1 / 2)  # one false pixel on water, two found
    assert pair["share_of_foreground"] == pytest.approx(2 / 6)  # of all boat pixels of all images


def test_a_class_never_found_has_no_ratio() -> None:
    found = summary_of([image([1, 0], [0, 1], [0, 1])])
    assert found["boat/water"] == {"share_of_foreground": 1.0, "confusion_ratio": None, "images": 1}
