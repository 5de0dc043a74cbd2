"""Per-image confusions on disk, for intervals over images: sparse, without pickle.

One file per scoring holds a set of rows for each background score it was made at. Arrays: `ids` and `sources`
(text), `num_classes`; and for every source S: `S_index` (int32, number of the image), `S_true`, `S_predicted`
(uint8, classes), `S_count` (int32, pixels).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsss.errors import DataError
from wsss.metrics.confusion import Counts
from wsss.metrics.intervals import ImageCounts
from wsss.training.checkpoint import write_atomically

_COLUMNS = {"index": np.int32, "true": np.uint8, "predicted": np.uint8, "count": np.int32}


class PerImage:
    """Collects the confusion of each image, in the order of `ids`."""

    def __init__(self) -> None:
        self._rows: list[npt.NDArray[np.int64]] = []
        self._images = 0

    def add(self, counts: Counts) -> None:
        """Add the next image's `counts[true, predicted]`; (C, C)."""
        true, predicted = np.nonzero(counts)
        index = np.full_like(true, self._images)
        self._rows.append(np.stack([index, true, predicted, counts[true, predicted]]))
        self._images += 1

    def columns(self) -> npt.NDArray[np.int64]:
        """Index, true class, predicted class and count of all rows; (4, R)."""
        return np.concatenate([np.zeros((4, 0), dtype=np.int64), *self._rows], axis=1)


def save_per_image(path: Path, ids: Sequence[str], entries: Mapping[str, PerImage], num_classes: int) -> None:
    """Write the confusions of the same images at several background scores.

    Args:
        path: the `.npz` file.
        ids: the images, in the order they were added.
        entries: confusions by background score source (fixed, oracle, automatic, none).
        num_classes: C.
    """
    arrays: dict[str, Any] = {
        "ids": np.array(ids, dtype=np.str_),
        "sources": np.array(list(entries), dtype=np.str_),
        "num_classes": np.array(num_classes),
    }
    for source, rows in entries.items():
        for (name, dtype), column in zip(_COLUMNS.items(), rows.columns(), strict=True):
            arrays[f"{source}_{name}"] = column.astype(dtype)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def load_per_image(path: Path) -> dict[str, ImageCounts]:
    """Read the counts of each background score source.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        ids, num_classes = arrays["ids"].tolist(), int(arrays["num_classes"])
        found = {}
        for source in arrays["sources"].tolist():
            rows = tuple(arrays[f"{source}_{name}"] for name in _COLUMNS)
            found[source] = ImageCounts.from_sparse(ids, rows, num_classes)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is no readable per-image file ({error}). Delete it and score again."
        ) from error
    return found
