"""What is counted at one background score, and what all scores of one scoring share.

Results are plain dictionaries, ready for `scores.json`; docs/file-formats.md describes them.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsss.data.dataset import Dataset, ids_with_boundaries, true_boundaries
from wsss.errors import DataError
from wsss.metrics.activation import over_activation, under_activation
from wsss.metrics.boundaries import Boundaries, TrueEdges
from wsss.metrics.confusion import Confusion, Counts, count_pixels
from wsss.metrics.cooccurrence import Cooccurrence, count_context
from wsss.metrics.curves import LevelCounts
from wsss.metrics.per_image import PerImage, save_per_image
from wsss.types import BACKGROUND, IGNORE

Mask = npt.NDArray[np.uint8]
log = logging.getLogger(__name__)


class Scoring:
    """What all entries of one scoring share.

    Args:
        dataset: gives class names, contexts and boundaries; None: there are only masks.
        class_names: where there is no data set.
        ids: images to be scored.
    """

    def __init__(
        self, dataset: Dataset | None, class_names: Sequence[str] = (), ids: Sequence[str] = ()
    ) -> None:
        self.class_names = tuple(dataset.class_names) if dataset is not None else tuple(class_names)
        self.context_names: Mapping[int, str] = dataset.context_names if dataset is not None else {}
        self.num_classes = len(self.class_names)
        self.num_contexts = max(self.context_names, default=0) + 1
        self._dataset = dataset
        known = dataset is not None and ids_with_boundaries(dataset, ids)
        self.boundary_source = "sbd" if known else "masks"

    def true_edges(self, image_id: str, mask: Mask) -> TrueEdges | None:
        """The data set's own boundaries where any scored image has them, else the edges of the true mask.

        None for an image without boundaries among images that have them: edges of both kinds in one score
        would be two metrics in one number.
        """
        if self._dataset is None or self.boundary_source == "masks":
            return TrueEdges.of_mask(mask)
        boundaries = true_boundaries(self._dataset, image_id)
        return None if boundaries is None else TrueEdges.of_boundaries(boundaries)

    def context(self, image_id: str) -> Mask | None:
        """Context map of an image, values without a name set to 0."""
        if self._dataset is None or not self.context_names:
            return None
        context = self._dataset.context(image_id)
        return None if context is None else np.where(context < self.num_contexts, context, 0).astype(np.uint8)

    def result(
        self,
        ids: Sequence[str],
        entries: Mapping[str, tuple[float | None, Entry]],
        curve: dict[str, Any] | None,
        per_image: Path | None,
    ) -> dict[str, Any]:
        """What `scores.json` holds; confusions of single images go to the file `per_image`."""
        if per_image is not None:
            rows = {source: entry.per_image for source, (_, entry) in entries.items()}
            save_per_image(per_image, ids, rows, self.num_classes)
        return {
            "class_names": list(self.class_names),
            "images": len(ids),
            "entries": [entry.summary(source, score) for source, (score, entry) in entries.items()],
            "curve": curve,
        }


class Entry:
    """Everything counted at one background score."""

    def __init__(self, scoring: Scoring) -> None:
        self.scoring = scoring
        self.confusion = Confusion.empty(scoring.num_classes)
        self.cooccurrence = Cooccurrence(scoring.num_classes, scoring.num_contexts)
        self.boundaries = Boundaries()
        self.per_image = PerImage()
        self.images = self.pixels = self.unsure = 0

    def add(self, counts: Counts, context_counts: Counts | None) -> None:
        """Count one image by its confusion (C, C) and, where known, its background by context (V, C)."""
        self.confusion = self.confusion + Confusion(counts)
        if context_counts is not None:
            self.cooccurrence.add(counts, context_counts)
        self.per_image.add(counts)
        self.images += 1

    def add_levels(self, pixels: LevelCounts, context_pixels: LevelCounts | None, index: int) -> None:
        """Count one image at threshold number `index`."""
        num_classes = self.scoring.num_classes
        context = None if context_pixels is None else context_pixels.at(index, num_classes)
        self.add(pixels.at(index, num_classes), context)

    def add_masks(self, mask: Mask, predicted: Mask, context: Mask | None, edges: TrueEdges | None) -> None:
        """Count one image by its masks; 255 in `predicted` is background. No `edges`: none are counted."""
        counted, unsure = mask != IGNORE, predicted == IGNORE
        self.pixels += int(counted.sum())
        self.unsure += int((unsure & counted).sum())
        predicted = np.where(unsure, BACKGROUND, predicted).astype(np.uint8)
        counts = count_pixels(mask, predicted, self.scoring.num_classes)
        context_counts = None
        if context is not None:
            shape = {"num_contexts": self.scoring.num_contexts, "num_classes": self.scoring.num_classes}
            context_counts = count_context(context, mask, predicted, **shape)
        self.add(counts, context_counts)
        self.boundaries.add(edges, predicted)

    def summary(self, source: str, background_score: float | None) -> dict[str, Any]:
        """The entry as `scores.json` holds it; `source` says who chose the background score."""
        names, confusion = self.scoring.class_names, self.confusion
        missing = [names[c] for c in confusion.missing_classes()]
        if missing:
            _warn_of_missing(", ".join(missing))

        def by_class(values: npt.NDArray[np.float64]) -> dict[str, float | None]:
            return {name: or_none(value) for name, value in zip(names, values.tolist(), strict=True)}

        return {
            "background_score_source": source,
            "background_score": background_score,
            "miou": or_none(confusion.miou()),
            "iou": by_class(confusion.iou()),
            "precision": by_class(confusion.precision()),
            "recall": by_class(confusion.recall()),
            "over_activation": by_class(over_activation(confusion)),
            "under_activation": by_class(under_activation(confusion)),
            "confusion": confusion.counts.tolist(),
            "cooccurrence": self.cooccurrence.summary(names, self.scoring.context_names),
            "boundary": self.boundaries.summary(),
            "boundary_source": self.scoring.boundary_source,
            "boundary_images": self.boundaries.images,
            "missing_classes": missing,
            "unsure_share": self.unsure / self.pixels if self.pixels else 0.0,
        }


def true_mask(dataset: Dataset, image_id: str) -> Mask:
    """The true mask of an image that is scored; (H, W), uint8.

    Raises:
        DataError: it has none.
    """
    mask = dataset.sample(image_id, with_mask=True).mask
    if mask is None:
        raise DataError(f"{image_id} has no true mask. Score a split that has masks; training needs none.")
    return mask


def or_none(value: float) -> float | None:
    """None in place of NaN, which JSON has no word for."""
    return None if np.isnan(value) else float(value)


@functools.cache  # said once, not for every background score
def _warn_of_missing(names: str) -> None:
    log.warning("no true pixels of %s: left out of the mean IoU", names)
