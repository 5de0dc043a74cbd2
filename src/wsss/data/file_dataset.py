"""A data set that lies in folders: what `folder`, `voc` and `scenes` have in common.

The readers decide where images, labels, splits and masks come from; everything else is here once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from wsss.data.classes import ClassList, named_classes, read_classes
from wsss.data.context_maps import ContextMaps, open_context
from wsss.data.digests import file_digests
from wsss.data.image_folder import ImageFolder, MissingImages
from wsss.data.images import MAX_PIXELS, decode, image_size
from wsss.data.splits import Splits
from wsss.data.tags import Labels
from wsss.data.true_masks import TrueMasks, png_beside
from wsss.errors import DataError
from wsss.types import BACKGROUND, IGNORE, ClassInfo, Sample


class FilesConfig(BaseModel):
    """Where a data set lies; the other paths are relative to `root` unless absolute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path = Field(Path(), description="Folder of the data set; relative to the working directory.")
    name: str | None = Field(
        None, description="Short name in reports and results; none: that of the root folder."
    )
    classes: Path | None = Field(
        None, description="Classes file, .json or .yaml: names, prompts, synonyms, texts."
    )
    class_names: tuple[str, ...] | None = Field(
        None, description="Foreground classes in label order, in place of a classes file."
    )
    context: Path | None = Field(
        None,
        description="Folder of PNG maps that say what the background is (scoring of co-occurrence only).",
    )
    context_names: Path | None = Field(None, description="JSON file: name of each value of the context maps.")
    missing_images: MissingImages = Field(
        "error",
        description="Whether tags and lists that name images which are not there are an error or skipped.",
    )
    max_pixels: int = Field(
        MAX_PIXELS,
        ge=1,
        description="Largest image that is decoded, in pixels (protects memory against accidents).",
    )
    train_split: str = Field("train", description="Split that is trained on.")
    val_split: str = Field("val", description="Split that networks are scored on.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.classes is not None and self.class_names is not None:
            raise ValueError("`classes` and `class_names` are both given. Remove one of them.")
        if (self.context is None) != (self.context_names is None):
            raise ValueError("`context` and `context_names` belong together. Give both or neither.")
        return self

    def base(self, root: Path | None) -> Path:
        """The data set's folder.

        Raises:
            DataError: it does not exist.
        """
        base = (root or Path()) / self.root.expanduser()
        if not base.is_dir():
            raise DataError(f"There is no data folder {base}. Correct `root` in the data section.")
        return base

    def listed_classes(self, base: Path) -> ClassList | None:
        """The classes that the configuration gives; None if it leaves them open."""
        if self.classes is not None:
            return read_classes(base / self.classes)
        return None if self.class_names is None else named_classes(self.class_names, "`class_names`")

    def context_maps(self, base: Path) -> ContextMaps | None:
        """The context maps that the configuration names."""
        if self.context is None or self.context_names is None:
            return None
        return open_context(existing_folder(base / self.context, "context"), base / self.context_names)

    def short_name(self, base: Path) -> str:
        """The name for reports and files: letters, digits, `.`, `_` and `-` only."""
        name = self.name or base.resolve().name
        return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "data"


class FileDataset:
    """Images in a folder, with labels and splits from elsewhere; satisfies `Dataset`.

    Args:
        name: short name for reports and result files.
        images: the images.
        classes: the foreground classes.
        labels: image-level labels and words for the background.
        splits: named lists of ids.
        masks: true masks; for scoring only.
        context: maps of the background; for scoring only.
        max_pixels: largest image that is decoded.
        read_too: other files that `fingerprint` covers.
    """

    def __init__(
        self,
        *,
        name: str,
        images: ImageFolder,
        classes: ClassList,
        labels: Labels,
        splits: Splits,
        masks: TrueMasks | None = None,
        context: ContextMaps | None = None,
        max_pixels: int = MAX_PIXELS,
        read_too: tuple[Path, ...] = (),
    ) -> None:
        self._name, self._images, self._classes = name, images, classes
        self._labels, self._splits = labels, splits
        self._masks, self._context, self._max_pixels, self._read_too = masks, context, max_pixels, read_too
        self._sizes: dict[str, tuple[int, int]] = {}
        self._complete: dict[str, bool] = {}
        self._fingerprint: str | None = None
        self._mask_fingerprint: str | None = None

    def __repr__(self) -> str:
        shown = ", ".join(self.class_names[1:4]) + (", …" if len(self.class_names) > 4 else "")
        return (
            f"{type(self).__name__}({self._name!r}, {len(self._classes)} classes: {shown}; "
            f"splits {', '.join(self.split_names)}; {'no masks' if self._masks is None else 'masks'})"
        )

    @property
    def name(self) -> str:
        return self._name

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._classes.class_names

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        return self._classes.infos

    @property
    def context_names(self) -> dict[int, str]:
        return dict(self._context.names) if self._context else {}

    @property
    def split_names(self) -> tuple[str, ...]:
        """All splits; `all` is every image."""
        return self._splits.names

    def ids(self, split: str) -> tuple[str, ...]:
        return self._splits.ids(split)

    def image_path(self, image_id: str) -> Path:
        """The image's file."""
        return self._images.path(image_id)

    def image_labels(self, image_id: str) -> np.ndarray:
        self._images.relative(image_id)
        present = np.zeros(len(self._classes), dtype=np.bool_)
        present[list(self._labels.classes_of(image_id) or ())] = True
        return present

    def is_tagged(self, image_id: str) -> bool:
        self._images.relative(image_id)
        return self._labels.classes_of(image_id) is not None

    def scene_words(self, image_id: str) -> tuple[str, ...]:
        return self._labels.scene_words(image_id)

    def image_size(self, image_id: str) -> tuple[int, int]:
        if image_id not in self._sizes:
            self._sizes[image_id] = image_size(self._images.path(image_id), max_pixels=self._max_pixels)
        return self._sizes[image_id]

    def sample(self, image_id: str, *, with_mask: bool = False) -> Sample:
        image = decode(self._images.path(image_id), max_pixels=self._max_pixels)
        mask = self._true_mask(image_id, image.shape[:2]) if with_mask else None
        return Sample(image_id, image, self.image_labels(image_id), mask)

    def has_masks(self, split: str) -> bool:
        if self._masks is None:
            return False
        if split not in self._complete:
            self._complete[split] = not self.missing_masks(self.ids(split))
        return self._complete[split]

    def missing_masks(self, ids: Sequence[str]) -> tuple[Path, ...]:
        if self._masks is None:
            return tuple(Path(f"{image_id}.png") for image_id in ids)
        return self._masks.missing(ids)

    @property
    def mask_folders(self) -> tuple[Path, ...]:
        """Folders of true masks and of context maps, which no training may read."""
        masks = () if self._masks is None else self._masks.folders
        return masks if self._context is None else (*masks, self._context.folder)

    def mask_files(self, image_id: str) -> tuple[Path, ...]:
        """Files of the image alone that hold its true mask or context map. Reads none."""
        paths = [path for folder in self.mask_folders for path in self._beside(folder, image_id)]
        return tuple(path for path in paths if path.is_file())

    def context(self, image_id: str) -> np.ndarray | None:
        if self._context is None:
            return None
        paths = [path for path in self._beside(self._context.folder, image_id) if path.is_file()]
        if not paths:
            return None
        return _of_image_size(self._context.read(paths[0]), paths[0], self.image_size(image_id))

    def image_digests(self, ids: Sequence[str]) -> tuple[str, ...]:
        return file_digests([self._images.path(image_id) for image_id in ids])

    def fingerprint(self) -> str:
        if self._fingerprint is None:
            found = hashlib.sha256(b"wsss data 2\n")
            found.update(repr([self._name, [astuple(info) for info in self.classes]]).encode())
            found.update(
                repr([self._labels.digest(), self._splits.digest(), self._images.digests()]).encode()
            )
            found.update(repr([[], []]).encode())  # once of context maps, which are no part of training
            found.update(repr(file_digests(self._read_too)).encode())
            self._fingerprint = found.hexdigest()
        return self._fingerprint

    def mask_fingerprint(self) -> str:
        if self._mask_fingerprint is None:
            found = hashlib.sha256(b"wsss masks 1\n")
            found.update(repr([] if self._masks is None else self._masks.digests()).encode())
            if self._context is not None:
                stored = None if self._context.stored is None else sorted(self._context.stored.items())
                named = [sorted(self.context_names.items()), stored, self._context.digests()]
                found.update(repr(named).encode())
            self._mask_fingerprint = found.hexdigest()
        return self._mask_fingerprint

    def _true_mask(self, image_id: str, size: tuple[int, ...]) -> np.ndarray:
        if self._masks is None:
            raise DataError(
                f"{self._name} has no masks, so {image_id} can't be scored. Name their folder in the "
                "data section."
            )
        mask, path = self._masks.read(image_id)
        mask = _of_image_size(mask, path, size)
        top = len(self._classes)
        strange = np.unique(mask[(mask > top) & (mask != IGNORE)])
        if len(strange):
            raise DataError(
                f"Mask {path} must hold 0-{top} ({BACKGROUND} background, classes of "
                f"{self._classes.source}) and "
                f"{IGNORE} (ignored); got {', '.join(map(str, strange[:5]))}. Complete the class list "
                "or correct the mask."
            )
        return mask

    def _beside(self, folder: Path, image_id: str) -> tuple[Path, Path]:
        """Where a folder would have what belongs to an image: a PNG or a MATLAB file."""
        return png_beside(folder, self._images, image_id), folder / f"{image_id}.mat"


def existing_folder(path: Path, key: str) -> Path:
    """`path`, or a `DataError` that names the recipe's `key`."""
    if not path.is_dir():
        raise DataError(f"There is no folder {path}. Correct `{key}` in the data section, or leave it out.")
    return path


def _of_image_size(values: np.ndarray, path: Path, size: tuple[int, ...]) -> np.ndarray:
    if values.shape != tuple(size):
        turned = (
            " (turned; EXIF orientation is applied to images)" if values.shape == tuple(size)[::-1] else ""
        )
        raise DataError(
            f"{path} must be {size[0]} x {size[1]} (height x width) like its image; got {values.shape[0]} x "
            f"{values.shape[1]}{turned}. Check that they belong together, and export it at the image's "
            "own size."
        )
    return values
