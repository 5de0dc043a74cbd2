"""How much of a class's mask lies on the backgrounds that tend to surround it.

A context map says what the background shows (water, railroad, …). Two measures per class c and context k:

- share of foreground: share of the pixels predicted as c that are background showing k, over all images
  that have a context map; in [0, 1].
- confusion ratio: FP_{k,c} / TP_c over the images that contain both c and k (EPS), where FP_{k,c} are
  background pixels of k predicted as c and TP_c the correct pixels of c in the same images; unbounded,
  lower is better.

Source:
    Lee et al., "Railroad is not a Train: Saliency as Pseudo-pixel Supervision", CVPR 2021 (the ratio is
    described in words there; contexts come from PASCAL-Context).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wsss.metrics.confusion import Counts, ratio
from wsss.types import BACKGROUND


class Cooccurrence:
    """Counts of predicted pixels by context.

    Args:
        num_classes: C = K + 1.
        num_contexts: V; context maps hold 0 (nothing known) … V - 1.
    """

    def __init__(self, num_classes: int, num_contexts: int) -> None:
        shape = (num_contexts, num_classes)
        self.on_context: Counts = np.zeros(shape, dtype=np.int64)  # predicted as c, shows k, every image
        self.predicted: Counts = np.zeros(num_classes, dtype=np.int64)
        self.false: Counts = np.zeros(shape, dtype=np.int64)  # FP_{k,c}, images with both
        self.found: Counts = np.zeros(shape, dtype=np.int64)  # TP_c, images with both
        self.images: Counts = np.zeros(shape, dtype=np.int64)

    def add(self, confusion: Counts, context_counts: Counts) -> None:
        """Count one image.

        Args:
            confusion: the image's counts `[true, predicted]`; (C, C).
            context_counts: its background pixels `[context, predicted]`; (V, C).
        """
        both = (context_counts.sum(axis=1) > 0)[:, None] & (confusion.sum(axis=1) > 0)[None]  # (V, C)
        self.on_context += context_counts
        self.predicted += confusion.sum(axis=0)
        self.false += context_counts * both
        self.found += np.diagonal(confusion)[None] * both
        self.images += both

    def summary(
        self, class_names: Sequence[str], context_names: Mapping[int, str]
    ) -> dict[str, dict[str, Any]]:
        """`{"class/context": {share_of_foreground, confusion_ratio, images}}` of pairs that occur together.

        A ratio is None where it has nothing to divide by.
        """
        share = ratio(self.on_context, self.predicted[None])
        confused = ratio(self.false, self.found)
        return {
            f"{class_names[c]}/{context_names[k]}": {
                "share_of_foreground": _or_none(share[k, c]),
                "confusion_ratio": _or_none(confused[k, c]),
                "images": int(self.images[k, c]),
            }
            for c in range(BACKGROUND + 1, len(class_names))
            for k in sorted(context_names)
            if self.images[k, c]
        }


def count_context(
    context: npt.NDArray[np.integer],
    mask: npt.NDArray[np.integer],
    predicted_mask: npt.NDArray[np.integer],
    *,
    num_contexts: int,
    num_classes: int,
) -> Counts:
    """Background pixels of one image by context and predicted class; (V, C), int64."""
    background = mask == BACKGROUND
    cells = context[background].astype(np.int64) * num_classes + predicted_mask[background]
    table = np.bincount(cells, minlength=num_contexts * num_classes)
    return table.reshape(num_contexts, num_classes)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
