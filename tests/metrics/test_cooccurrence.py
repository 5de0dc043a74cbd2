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


def test_ratio_and_share_equal_the_loop_over_images_and_pixels() -> None:
    rng = np.random.default_rng(1)
    images = []
    for number in range(6):
        mask, predicted = oracle_masks.random_masks(rng, 3, (7, 6))
        mask[mask == 1 + number % 2] = 0 if number < 4 else 1  # some images hold one of the classes
        context = np.where(mask == 0, rng.integers(0, 3, mask.shape), 0)
        context[context == 1 + number % 3] = 0  # and some none, or one, of the contexts
        images.append((mask, predicted, context.astype(np.uint8)))
    found, expected = summary_of(images), {}
    for c, k in ((1, 1), (1, 2), (2, 1), (2, 2)):
        false = right = on_context = guessed = count = 0
        for mask, predicted, context in images:
            triples = list(zip(mask.ravel(), predicted.ravel(), context.ravel(), strict=True))
            guessed += sum(p == c and m != 255 for m, p, _ in triples)
            here = sum(p == c and m == 0 and s == k for m, p, s in triples)
            on_context += here
            if any(m == c for m, _, _ in triples) and any(m == 0 and s == k for m, _, s in triples):
                count += 1
                false += here
                right += sum(m == c and p == c for m, p, _ in triples)
        expected[f"{NAMES[c]}/{CONTEXTS[k]}"] = {
            "share_of_foreground": on_context / guessed,
            "confusion_ratio": false / right,
            "images": count,
        }
    assert found.keys() == expected.keys()
    for pair, values in expected.items():
        assert found[pair] == pytest.approx(values)


def test_a_class_never_found_has_no_ratio() -> None:
    found = summary_of([image([1, 0], [0, 1], [0, 1])])
    assert found["boat/water"] == {"share_of_foreground": 1.0, "confusion_ratio": None, "images": 1}
