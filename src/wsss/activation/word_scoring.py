"""Visual words scored as a segmentation: each word becomes a class, and so does each pixel.

The method itself says what each word speaks for, from its own weights. Beside it stands, as an oracle, the
class that most true pixels of a word have: what any naming of the words could reach at best, pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsss.activation.score_entries import Entry, Scoring, true_mask
from wsss.activation.words import Words, read_word_classes, read_words, word_file
from wsss.data.dataset import Dataset
from wsss.errors import DataError
from wsss.training.journal import Progress
from wsss.types import IGNORE


def score_words(
    folder: Path,
    dataset: Dataset,
    ids: Sequence[str],
    *,
    per_image: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score word maps with the method's own naming of words (source `none`) and the best one (`oracle`).

    Args:
        folder: what `write_words` left.
        dataset: gives true masks, and context maps where it has them.
        ids: images; each needs a word map.
        per_image: file for the confusion of each image, for intervals.
        progress: told after each image, in both passes.

    Raises:
        DataError: a mask or word map is missing, or their sizes differ.
    """
    own = read_word_classes(folder)
    scoring = Scoring(dataset, ids=ids)
    counts = np.zeros((len(own), scoring.num_classes), dtype=np.int64)  # [word, true class]
    for done, image_id in enumerate(ids, start=1):
        words, mask = _words_of(folder, dataset, image_id)
        counted = mask != IGNORE
        np.add.at(counts, (words[counted], mask[counted]), 1)
        if progress is not None:
            progress(done, len(ids), "images, words")
    classes = {"none": own, "oracle": counts.argmax(axis=1)}  # words without any pixel: background
    entries = {source: Entry(scoring) for source in classes}
    for done, image_id in enumerate(ids, start=1):
        words, mask = _words_of(folder, dataset, image_id)
        context, edges = scoring.context(image_id), scoring.true_edges(image_id, mask)
        for source, entry in entries.items():
            entry.add_masks(mask, classes[source][words].astype(np.uint8), context, edges)
        if progress is not None:
            progress(done, len(ids), "images")
    return scoring.result(ids, {source: (None, entry) for source, entry in entries.items()}, None, per_image)


def _words_of(folder: Path, dataset: Dataset, image_id: str) -> tuple[Words, np.ndarray]:
    words, mask = read_words(word_file(folder, image_id)), true_mask(dataset, image_id)
    if words.shape != mask.shape:
        raise DataError(
            f"The word map of {image_id} in {folder} must have the size of the true mask, {mask.shape}; got "
            f"{words.shape}. Delete it, and run the same command again."
        )
    return words, mask
