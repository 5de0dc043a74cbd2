"""Reading data sets: the only place that knows file layouts. Which kinds there are is decided here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import Field

from wsss.data.coco import CocoConfig, open_coco
from wsss.data.dataset import Dataset, WithoutMasks, occurring_classes, tagged_ids
from wsss.data.file_dataset import FileDataset
from wsss.data.folder import FolderConfig, open_folder
from wsss.data.scenes_dataset import ScenesConfig, ScenesDataset
from wsss.data.voc import VocConfig, open_voc
from wsss.errors import DataError

AnyDataConfig: TypeAlias = FolderConfig | VocConfig | CocoConfig | ScenesConfig
DataConfig: TypeAlias = Annotated[AnyDataConfig, Field(discriminator="kind")]


def open_dataset(config: AnyDataConfig, *, root: Path | None = None) -> Dataset:
    """Open the data set that a recipe's `data` section describes.

    Args:
        config: the section.
        root: for `scenes`, the folder of the written tree; for the others, what a relative `root` of the
            section is relative to (the working directory by default).

    Raises:
        DataError: something is missing or not as expected; the message names the file and the mend.
    """
    if isinstance(config, FolderConfig):
        return open_folder(config, root)
    if isinstance(config, VocConfig):
        return open_voc(config, root)
    if isinstance(config, CocoConfig):
        return open_coco(config, root)
    if root is None:
        raise DataError(
            "A `scenes` data set is opened from its written tree; got no `root`. "
            "Write the tree with `wsss.data.scenes.write_tree` and pass its folder."
        )
    return ScenesDataset(config, Path(root))


__all__ = [
    "AnyDataConfig",
    "CocoConfig",
    "DataConfig",
    "Dataset",
    "FileDataset",
    "FolderConfig",
    "ScenesConfig",
    "ScenesDataset",
    "VocConfig",
    "WithoutMasks",
    "occurring_classes",
    "open_dataset",
    "tagged_ids",
]
