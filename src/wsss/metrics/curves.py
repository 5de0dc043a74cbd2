"""The confusion at every background score from one pass over the data.

A constant background score t wins a pixel iff t >= its top foreground score (ties go to the background), and
the foreground class does not depend on t. So the number of thresholds below the top score, its *level*, says
all: a histogram over (true class, top class, level) gives the confusion at every threshold exactly.
The power form of the background, (1 - top)^alpha, is a constant score in disguise: `score_of_power`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsss.errors import ShapeError
from wsss.metrics.confusion import Confusion, Counts, Scores, mean_iou
from wsss.types import ActivationMaps

THRESHOLDS: Final = tuple(step / 100 for step in range(100))  # 0.00, 0.01, …, 0.99
POWERS: Final = tuple(float(power) for power in range(1, 11))
"""Exponents of the power background that are tried (CLIP-ES: 1, 2, …, 10)."""

FINEST: Final = 2**16  # most cells of a table of levels; closer thresholds are searched for


@dataclass(frozen=True, eq=False)
class LevelCounts:
    """Pixels of one image by label, top foreground class and level: sparse rows of a histogram.

    Args:
        labels: value of the label map; (N,), uint8.
        classes: top foreground class, 1…K; (N,), uint8.
        levels: number of thresholds below the top score, 1…T (level 0 is background at every threshold
            and needs no row); (N,), uint16.
        counts: pixels; (N,), int32.
        totals: all counted pixels of each label; (L,), int64.
    """

    labels: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.uint8]
    levels: npt.NDArray[np.uint16]
    counts: npt.NDArray[np.int32]
    totals: Counts

    def at(self, index: int, num_classes: int) -> Counts:
        """Counts `[label, predicted]` at threshold number `index`; (L, C), int64."""
        table = np.zeros((len(self.totals), num_classes), dtype=np.int64)
        kept = self.levels > index
        np.add.at(table, (self.labels[kept], self.classes[kept]), self.counts[kept])
        table[:, 0] = self.totals - table.sum(axis=1)
        return table


def top_levels(maps: ActivationMaps, thresholds: Sequence[float] = THRESHOLDS) -> tuple[Tensor, Tensor]:
    """Each pixel's top foreground class and its level.

    Args:
        maps: maps without a background of their own, at least one class.
        thresholds: ascending constant background scores.

    Returns:
        Rows of `maps.class_ids` (H, W), int64, and levels 0…T (H, W), int32.
    """
    top, rows = maps.scores.max(dim=0)
    return rows, _levels(top, tuple(thresholds))


def _levels(top: Tensor, thresholds: tuple[float, ...]) -> Tensor:
    """How many thresholds lie below each score; like `top` (float32 in [0, 1]), int32."""
    table = _level_table(thresholds)
    if table is None:
        edges = torch.tensor(thresholds, dtype=top.dtype, device=top.device)
        return torch.bucketize(top, edges, out_int32=True)
    below, edge = (part.to(top.device) for part in table)
    values = top.flatten()
    cells = (values * (len(below) - 1)).to(torch.int32)
    inside = values > edge.index_select(0, cells)  # several times as fast as indexing with brackets
    return (below.index_select(0, cells) + inside).view_as(top)


@functools.lru_cache(maxsize=8)
def _level_table(thresholds: tuple[float, ...]) -> tuple[Tensor, Tensor] | None:
    """Cells of [0, 1] with at most one threshold each: looked up several times as fast as searched for.

    Their number is a power of two, so which cell a float32 score lies in is exact.

    Returns:
        Thresholds below each cell (N + 1,), int32, and the threshold inside it, 2 for none (N + 1,); None
        where two are closer than any cell, or one is outside [0, 1].
    """
    edges = torch.tensor(thresholds)
    if not bool(((edges >= 0) & (edges <= 1)).all()):
        return None
    for count in (2**exponent for exponent in range(7, FINEST.bit_length())):
        cells = (edges * count).long()
        if len(torch.unique(cells)) == len(cells):
            below = torch.searchsorted(cells, torch.arange(count + 1), out_int32=True)
            edge = torch.full((count + 1,), 2.0)
            edge[cells] = edges
            return below, edge
    return None


def masks_at(maps: ActivationMaps, thresholds: Sequence[float]) -> list[npt.NDArray[np.uint8]]:
    """The mask at each of a few background scores; each (H, W), uint8, as `ActivationMaps.to_mask` gives it.

    Args:
        maps: maps without a background of their own.
        thresholds: ascending constant background scores.
    """
    if not len(maps.class_ids):
        return [np.zeros(maps.size, dtype=np.uint8) for _ in thresholds]
    rows, levels = top_levels(maps, thresholds)
    winners, level = maps.class_ids[rows].to(torch.uint8).cpu().numpy(), levels.cpu().numpy()
    return [np.where(level > index, winners, 0).astype(np.uint8) for index in range(len(thresholds))]


def count_levels(
    labels: npt.NDArray[np.integer],
    counted: npt.NDArray[np.bool_],
    maps: ActivationMaps,
    *,
    num_labels: int,
    levels: tuple[Tensor, Tensor] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> LevelCounts:
    """Histogram of one image over (label, top class, level).

    Args:
        labels: label map, for example the true mask; (H, W), values below `num_labels` where counted.
        counted: pixels that count; (H, W), bool.
        maps: full-size maps without a background of their own.
        num_labels: L.
        levels: what `top_levels` gave, where it is needed more than once.
        thresholds: ascending constant background scores.
    """
    if labels.shape != maps.size:
        raise ShapeError(
            f"Labels and maps must have the same size; got {labels.shape} and {maps.size}. "
            "Read full-size maps."
        )
    worst = int(labels.max(where=counted, initial=0))
    if worst >= num_labels:
        raise ShapeError(f"A mask must hold 0…{num_labels - 1} or 255; got {worst}. Check the class list.")
    truth = np.where(counted, labels, num_labels)  # pixels that don't count are a label of their own
    totals = np.bincount(truth.ravel(), minlength=num_labels + 1)[:num_labels]
    present, depth = len(maps.class_ids), len(thresholds) + 1
    if present == 0:
        nothing = np.zeros(0, dtype=np.uint8)
        return LevelCounts(nothing, nothing, nothing.astype(np.uint16), nothing.astype(np.int32), totals)
    rows, level = levels if levels is not None else top_levels(maps, thresholds)
    cells = (rows * depth + level).cpu().numpy() + truth.astype(np.int64) * (present * depth)
    table = np.bincount(cells.ravel(), minlength=(num_labels + 1) * present * depth)
    table = table.reshape(num_labels + 1, present, depth)[:num_labels]
    table[..., 0] = 0
    label, row, found = np.nonzero(table)
    return LevelCounts(
        label.astype(np.uint8),
        maps.class_ids.cpu().numpy().astype(np.uint8)[row],
        found.astype(np.uint16),
        table[label, row, found].astype(np.int32),
        totals,
    )


class ScoreCurve:
    """Confusion of a data set at every background score.

    Args:
        num_classes: C = K + 1.
        thresholds: ascending constant background scores.
    """

    def __init__(self, num_classes: int, thresholds: Sequence[float] = THRESHOLDS) -> None:
        if not len(thresholds) or (np.diff(thresholds) <= 0).any():
            raise ShapeError(
                f"`thresholds` must ascend; got {list(thresholds)[:5]}. Sort them, without repeats."
            )
        self.thresholds = tuple(float(t) for t in thresholds)
        self.num_classes = num_classes
        depth = len(self.thresholds) + 1
        # by true class, top class and level
        self._histogram = np.zeros((num_classes, num_classes, depth), dtype=np.int64)
        self._totals = np.zeros(num_classes, dtype=np.int64)

    def add(self, image: LevelCounts) -> None:
        """Add one image's counts, made with the same thresholds."""
        np.add.at(self._histogram, (image.labels, image.classes, image.levels), image.counts)
        self._totals += image.totals

    def confusion(self, index: int) -> Confusion:
        """The confusion at threshold number `index`."""
        counts = self._histogram[:, :, index + 1 :].sum(axis=2)
        counts[:, 0] = self._totals - counts.sum(axis=1)
        return Confusion(counts)

    def miou(self) -> Scores:
        """The mIoU at each threshold; (T,)."""
        above = self._histogram[:, :, ::-1].cumsum(axis=2)[:, :, ::-1][:, :, 1:]  # level > index; (C, C, T)
        foreground = above.sum(axis=1)  # (C, T)
        predicted = above.sum(axis=0)
        found = np.einsum("cct->ct", above).copy()
        found[0] = self._totals[0] - foreground[0]
        predicted[0] = self._totals.sum() - foreground.sum(axis=0)
        return mean_iou(found.T, self._totals[None], predicted.T)

    def best(self) -> int:
        """Number of the threshold with the highest mIoU; the lowest of equals."""
        return int(np.nanargmax(self.miou())) if self._totals.any() else 0


def score_of_power(power: float) -> float:
    """The constant background score that decides every pixel as (1 - top)^power does.

    The power form wins iff (1 - top)^power >= top, which holds up to the one top score where both are equal.

    Args:
        power: alpha of the PSA background, positive.

    Example:
        >>> score_of_power(1.0)
        0.5
    """
    if not power > 0:
        raise ShapeError(f"`power` must be positive; got {power}.")
    low, high = 0.0, 1.0
    for _ in range(60):  # halves the interval down to float64 precision
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - middle) ** power >= middle else (low, middle)
    return round(low, 12)
