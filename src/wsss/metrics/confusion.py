"""Confusion counts of masks, and the scores that follow from them.

Counts are summed over a whole data set before any ratio is taken (corpus scores), so the score of a data set
is the merge of the scores of its parts. True pixels of value 255 never count.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from wsss.errors import ShapeError
from wsss.types import IGNORE

Counts = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


class Confusion:
    """Counts of pixels by true and predicted class.

    Args:
        counts: `counts[true, predicted]`; (C, C), integers of at least 0. Not copied.

    Example:
        >>> confusion = Confusion.empty(2)
        >>> confusion.add(np.array([[0, 1, 255]]), np.array([[0, 0, 1]]))
        >>> confusion.counts.tolist()
        [[1, 0], [1, 0]]
    """

    def __init__(self, counts: npt.ArrayLike) -> None:
        array = np.asarray(counts, dtype=np.int64)
        if array.ndim != 2 or array.shape[0] != array.shape[1] or (array < 0).any():
            raise ShapeError(
                f"`counts` must be (C, C) and not negative; got shape {array.shape}. "
                "Rows are true classes, columns predicted ones."
            )
        self.counts: Counts = array

    @classmethod
    def empty(cls, num_classes: int) -> Self:
        """No pixels yet, for C = K + 1 classes."""
        return cls(np.zeros((num_classes, num_classes), dtype=np.int64))

    def add(self, mask: npt.NDArray[np.integer], predicted_mask: npt.NDArray[np.integer]) -> None:
        """Count one image.

        Args:
            mask: true classes, 0…K or 255 (left out); (H, W), integer.
            predicted_mask: predicted classes, 0…K; (H, W), integer.

        Raises:
            ShapeError: the sizes differ or a class is out of range.
        """
        self.counts += count_pixels(mask, predicted_mask, len(self.counts))

    def __add__(self, other: Confusion) -> Confusion:
        """Both data sets together."""
        return Confusion(self.counts + other.counts)

    @property
    def true_positives(self) -> Counts:
        """Pixels of each class that are found; (C,)."""
        found: Counts = np.diagonal(self.counts).copy()
        return found

    @property
    def true_pixels(self) -> Counts:
        """Pixels of each class in the true masks; (C,)."""
        pixels: Counts = self.counts.sum(axis=1)
        return pixels

    @property
    def predicted_pixels(self) -> Counts:
        """Pixels of each class in the predicted masks, where the truth is not ignored; (C,)."""
        pixels: Counts = self.counts.sum(axis=0)
        return pixels

    def iou(self) -> Scores:
        """TP / (TP + FP + FN) per class; (C,), NaN for a class without true pixels."""
        union = self.true_pixels + self.predicted_pixels - self.true_positives
        return ratio(self.true_positives, np.where(self.true_pixels > 0, union, 0))

    def miou(self) -> float:
        """Mean IoU over the classes that have true pixels; NaN when none has.

        `missing_classes` names the others. Identical to the mean over all classes when all occur.
        """
        return float(mean_iou(self.true_positives, self.true_pixels, self.predicted_pixels))

    def missing_classes(self) -> list[int]:
        """Classes without a single true pixel, which `miou` leaves out."""
        return [int(c) for c in np.flatnonzero(self.true_pixels == 0)]

    def precision(self) -> Scores:
        """TP / (TP + FP) per class; (C,), NaN for a class never predicted."""
        return ratio(self.true_positives, self.predicted_pixels)

    def recall(self) -> Scores:
        """TP / (TP + FN) per class; (C,), NaN for a class without true pixels."""
        return ratio(self.true_positives, self.true_pixels)


def count_pixels(
    mask: npt.NDArray[np.integer], predicted_mask: npt.NDArray[np.integer], num_classes: int
) -> Counts:
    """Confusion counts of one image; (C, C), `[true, predicted]`, ignored pixels left out."""
    if mask.shape != predicted_mask.shape:
        raise ShapeError(
            f"`predicted_mask` must have the size of `mask`, {mask.shape}; got {predicted_mask.shape}. "
            "Predict at the image's own size."
        )
    counted = mask != IGNORE
    truth, predicted = mask[counted], predicted_mask[counted]
    for name, values in (("mask", truth), ("predicted_mask", predicted)):
        if values.size and not 0 <= (worst := _farthest(values, num_classes)) < num_classes:
            raise ShapeError(
                f"`{name}` must hold 0…{num_classes - 1}; got {worst}. "
                "Check the number of classes and that masks are indexed, not coloured."
            )
    pairs = truth.astype(np.int64) * num_classes + predicted
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def mean_iou(
    true_positives: npt.NDArray[Any], true_pixels: npt.NDArray[Any], predicted: npt.NDArray[Any]
) -> Scores:
    """Mean IoU over the classes with true pixels; three (…, C) arrays of counts give (…)."""
    occurs = true_pixels > 0
    iou = ratio(true_positives, true_pixels + predicted - true_positives)
    total = np.where(occurs, iou, 0).sum(axis=-1)
    return ratio(total, occurs.sum(axis=-1))


def ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Scores:
    """Divide, giving NaN where `whole` is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    quotient: Scores = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    np.divide(part, whole, out=quotient, where=whole != 0)
    return quotient


def _farthest(values: npt.NDArray[np.integer], num_classes: int) -> int:
    """A value out of range if there is one, else any."""
    low, high = int(values.min()), int(values.max())
    return low if low < 0 else high
