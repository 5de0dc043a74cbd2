"""Paired bootstrap intervals over images: is a gain larger than the luck of the images?

The images are drawn anew with replacement many times; every draw scores both sides on the same images, so
what makes an image hard for both cancels out. A corpus mIoU needs three counts per image and class, so a
draw is a product of a weight vector with three small matrices, and a thousand draws take a second or so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from wsss.errors import DataError, ShapeError
from wsss.metrics.confusion import Counts, Scores, mean_iou

_CHUNK = 256  # draws at a time: bounds the memory of the weights


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """What the mIoU of any multiset of images follows from.

    Args:
        ids: N image ids.
        true_positives: found pixels; (N, C), int64.
        true_pixels: pixels in the true masks; (N, C), int64.
        predicted_pixels: pixels in the predicted masks; (N, C), int64.
    """

    ids: tuple[str, ...]
    true_positives: Counts
    true_pixels: Counts
    predicted_pixels: Counts

    @classmethod
    def from_sparse(
        cls,
        ids: Sequence[str],
        rows: tuple[npt.NDArray[np.integer], ...],
        num_classes: int,
    ) -> Self:
        """From sparse confusions: image number, true class, predicted class and count, each (R,)."""
        image, true, predicted, count = (np.asarray(column, dtype=np.int64) for column in rows)

        def total(classes: Counts, weights: Counts) -> Counts:
            cells = image * num_classes + classes
            # bincount adds in float64, exact up to 2^53 pixels
            sums = np.bincount(cells, weights=weights, minlength=len(ids) * num_classes)
            return sums.astype(np.int64).reshape(len(ids), num_classes)

        return cls(
            tuple(ids),
            total(true, np.where(true == predicted, count, 0)),
            total(true, count),
            total(predicted, count),
        )

    def ordered(self, ids: Sequence[str]) -> Self:
        """The same counts with the images in the order of `ids`."""
        if set(ids) != set(self.ids) or len(ids) != len(self.ids):
            only = sorted(set(ids) ^ set(self.ids))
            raise DataError(
                f"Paired intervals need the same images on both sides; got {len(ids)} and {len(self.ids)} "
                f"(first difference: {only[:1]}). Score the same split on both sides."
            )
        place = {image_id: row for row, image_id in enumerate(self.ids)}
        order = [place[image_id] for image_id in ids]
        return type(self)(
            tuple(ids), self.true_positives[order], self.true_pixels[order], self.predicted_pixels[order]
        )

    def miou(self, weights: npt.NDArray[np.integer] | None = None) -> Scores:
        """The mIoU with each image taken `weights` (R, N) times, else once; (R,), else (1,)."""
        if weights is None:
            weights = np.ones((1, len(self.ids)), dtype=np.int64)
        # float64 products run in BLAS and are exact for counts below 2^53
        factor = weights.astype(np.float64)
        found, true, predicted = (
            factor @ table.astype(np.float64)
            for table in (self.true_positives, self.true_pixels, self.predicted_pixels)
        )
        return mean_iou(found, true, predicted)


@dataclass(frozen=True)
class Interval:
    """A value and the range that resampling the images gives it.

    Args:
        value: on the images as they are.
        low: lower end.
        high: upper end.
        level: share of the resamples inside, for example 0.95.
        resamples: how many.
    """

    value: float
    low: float
    high: float
    level: float
    resamples: int


def bootstrap(
    sides: Sequence[ImageCounts], *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Percentile interval of the mIoU, averaged over `sides` (for example the seeds of one recipe)."""
    return _interval([(1.0 / len(sides), side) for side in sides], resamples, seed, level)


def paired_bootstrap(
    first: Sequence[ImageCounts],
    second: Sequence[ImageCounts],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of mIoU(second) - mIoU(first), every draw on the same images.

    Args:
        first: one entry per training seed; their mIoUs are averaged.
        second: likewise; the number of seeds may differ.
        resamples: number of draws.
        seed: of the draws.
        level: share of the draws inside the interval.

    Raises:
        DataError: the images are not the same on both sides.
    """
    signed = [(-1.0 / len(first), side) for side in first] + [(1.0 / len(second), side) for side in second]
    return _interval(signed, resamples, seed, level)


def _interval(
    signed: Sequence[tuple[float, ImageCounts]], resamples: int, seed: int, level: float
) -> Interval:
    """Interval of a weighted sum of mIoUs."""
    if resamples < 1 or not 0 < level < 1:
        raise ShapeError(
            f"`resamples` must be at least 1 and `level` inside (0, 1); got {resamples} and {level}."
        )
    ids = signed[0][1].ids
    sides = [(sign, side.ordered(ids)) for sign, side in signed]
    value = float(sum(sign * side.miou()[0] for sign, side in sides))
    rng = np.random.default_rng(seed)
    draws: list[Scores] = []
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        picks = rng.integers(0, len(ids), size=(count, len(ids)))
        picks += np.arange(count)[:, None] * len(ids)
        weights = np.bincount(picks.ravel(), minlength=count * len(ids)).reshape(count, len(ids))
        draws.append(sum((sign * side.miou(weights) for sign, side in sides), np.zeros(count)))
    outside = (1 - level) / 2
    low, high = np.nanquantile(np.concatenate(draws), [outside, 1 - outside])
    return Interval(value, float(low), float(high), level, resamples)
