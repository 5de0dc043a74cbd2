"""Slow references: pixel loops and one evaluation per threshold."""

from __future__ import annotations

import numpy as np

from wsss.types import IGNORE


def confusion(mask: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    for row in range(mask.shape[0]):
        for column in range(mask.shape[1]):
            if mask[row, column] != IGNORE:
                counts[mask[row, column], predicted[row, column]] += 1
    return counts


def iou(counts: np.ndarray) -> list[float]:
    values = []
    for c in range(len(counts)):
        found = counts[c, c]
        missed = sum(counts[c, other] for other in range(len(counts)) if other != c)
        false = sum(counts[other, c] for other in range(len(counts)) if other != c)
        values.append(found / (found + missed + false) if found + missed else float("nan"))
    return values


def context_table(
    context: np.ndarray, mask: np.ndarray, predicted: np.ndarray, num_contexts: int, num_classes: int
) -> np.ndarray:
    table = np.zeros((num_contexts, num_classes), dtype=np.int64)
    for k, true, c in zip(context.ravel(), mask.ravel(), predicted.ravel(), strict=True):
        if true == 0:
            table[k, c] += 1
    return table


def random_masks(
    rng: np.random.Generator, num_classes: int, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A true mask with ignored pixels and a predicted one."""
    mask = rng.integers(0, num_classes, size).astype(np.uint8)
    mask[rng.random(size) < 0.2] = IGNORE
    return mask, rng.integers(0, num_classes, size).astype(np.uint8)
