"""IoU of single images, for choosing which images to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsss.errors import DataError
from wsss.metrics.confusion import mean_iou
from wsss.metrics.per_image import load_per_image


def image_scores(score_folder: Path, source: str) -> dict[str, float]:
    """Each image's IoU, averaged over the classes in its truth (background among them).

    Args:
        score_folder: what a scoring wrote; it may lack `per_image.npz`.
        source: who chose the background score; where the file knows it by another name, its only one.

    Returns:
        IoU in [0, 1] by image id; images without a true pixel are left out.
    """
    path = score_folder / "per_image.npz"
    if not path.is_file():
        return {}
    try:
        by_source = load_per_image(path)
    except DataError:
        return {}
    counts = by_source.get(source) or next(iter(by_source.values()), None)
    if counts is None:
        return {}
    scores = mean_iou(counts.true_positives, counts.true_pixels, counts.predicted_pixels)
    return {
        image_id: float(score)
        for image_id, score in zip(counts.ids, scores, strict=True)
        if np.isfinite(score)
    }
