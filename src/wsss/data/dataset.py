"""What every data set offers, whatever its files look like, and the guard that keeps masks from training.

The readers (`voc`, `folder`, `scenes`) are the only place that knows file layouts. Training of methods and
refiners receives `WithoutMasks(dataset)`, so weak supervision is a property of the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from wsss.errors import DataError
from wsss.types import ClassInfo, Sample


@runtime_checkable
class Dataset(Protocol):
    """Images with image-level labels, in named splits."""

    @property
    def name(self) -> str:
        """Short name for reports and result files."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """K + 1 names; the first is "background"."""

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """What is known of the K foreground classes, in order."""

    @property
    def context_names(self) -> dict[int, str]:
        """Names of the values of context maps (co-occurring backgrounds); empty where there are none."""

    def ids(self, split: str) -> tuple[str, ...]:
        """Image ids of a split, in a fixed order. Raises `DataError` for an unknown split."""

    def image_labels(self, image_id: str) -> np.ndarray:
        """Classes present; (K,), bool. Reads no image."""

    def is_tagged(self, image_id: str) -> bool:
        """False where nothing at all is known about the image's classes (it is not trained on)."""

    def scene_words(self, image_id: str) -> tuple[str, ...]:
        """Words for the visible background, where the data set has them."""

    def image_size(self, image_id: str) -> tuple[int, int]:
        """(height, width) in pixels as `sample` gives it, read from the file's header where possible."""

    def sample(self, image_id: str, *, with_mask: bool = False) -> Sample:
        """Decode one image; its mask too on request. Raises `DataError` naming the file."""

    def has_masks(self, split: str) -> bool:
        """Whether the true masks of all images of the split can be read (for scoring)."""

    def missing_masks(self, ids: Sequence[str]) -> tuple[Path, ...]:
        """Mask files that should be there for these images and are not, in order. Reads no mask."""

    def context(self, image_id: str) -> np.ndarray | None:
        """Context map for scoring (values of `context_names`, else 0); (H, W), uint8; None if unknown."""

    def image_digests(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Digests of the files of these images, in order; hexadecimal."""

    def fingerprint(self) -> str:
        """Changes when anything but the true masks changes, pixels included; hexadecimal."""

    def mask_fingerprint(self) -> str:
        """Changes when a true mask changes, comes or goes; hexadecimal."""


@runtime_checkable
class HasBoundaries(Protocol):
    """A data set that may know the true boundaries of its classes better than its masks do."""

    def has_boundaries(self, image_id: str) -> bool:
        """Whether the image has such a map. Reads none, so that all images can be asked about."""

    def boundaries(self, image_id: str) -> np.ndarray | None:
        """True boundaries of all classes, for scoring; (H, W), bool; None where the image has no such map."""


class WithoutMasks:
    """A data set as training may see it: the same, but masks, boundaries and context maps can't be read.

    Args:
        dataset: any data set.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.name = dataset.name
        self.class_names = dataset.class_names
        self.classes = dataset.classes
        self.context_names: dict[int, str] = {}

    def __repr__(self) -> str:
        return f"WithoutMasks({self._dataset!r})"

    def ids(self, split: str) -> tuple[str, ...]:
        return self._dataset.ids(split)

    def image_labels(self, image_id: str) -> np.ndarray:
        return self._dataset.image_labels(image_id)

    def is_tagged(self, image_id: str) -> bool:
        return self._dataset.is_tagged(image_id)

    def scene_words(self, image_id: str) -> tuple[str, ...]:
        return self._dataset.scene_words(image_id)

    def image_size(self, image_id: str) -> tuple[int, int]:
        return self._dataset.image_size(image_id)

    def sample(self, image_id: str, *, with_mask: bool = False) -> Sample:
        if with_mask:
            raise DataError(
                f"Training of methods and refiners asked for the mask of {image_id}. "
                "Only evaluation reads masks; train on image labels, or use `segmentation.target: masks`."
            )
        return self._dataset.sample(image_id).without_mask()

    def has_masks(self, split: str) -> bool:
        return False

    def missing_masks(self, ids: Sequence[str]) -> tuple[Path, ...]:
        return tuple(Path(f"{image_id}.png") for image_id in ids)

    def context(self, image_id: str) -> np.ndarray | None:
        return None

    def image_digests(self, ids: Sequence[str]) -> tuple[str, ...]:
        return self._dataset.image_digests(ids)

    def fingerprint(self) -> str:
        return self._dataset.fingerprint()

    def mask_fingerprint(self) -> str:
        raise DataError(
            "Training of methods and refiners asked for the fingerprint of the masks. "
            "Only evaluation reads masks; use `fingerprint`, which leaves them out."
        )


def true_boundaries(dataset: Dataset, image_id: str) -> np.ndarray | None:
    """True boundaries of an image; (H, W), bool; None where the data set has none."""
    return dataset.boundaries(image_id) if isinstance(dataset, HasBoundaries) else None


def ids_with_boundaries(dataset: Dataset, ids: Sequence[str]) -> tuple[str, ...]:
    """Those of the images that have true boundaries, in order. Reads none."""
    if not isinstance(dataset, HasBoundaries):
        return ()
    return tuple(image_id for image_id in ids if dataset.has_boundaries(image_id))


def tagged_ids(dataset: Dataset, split: str) -> tuple[str, ...]:
    """Ids of a split that may be trained on: those whose tags are known (possibly none present)."""
    return tuple(image_id for image_id in dataset.ids(split) if dataset.is_tagged(image_id))


def occurring_classes(dataset: Dataset, ids: Sequence[str]) -> np.ndarray:
    """How many of the images hold each foreground class; (K,), int64."""
    counts = np.zeros(len(dataset.class_names) - 1, dtype=np.int64)
    for image_id in ids:
        counts += dataset.image_labels(image_id)
    return counts
