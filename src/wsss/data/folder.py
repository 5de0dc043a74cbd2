"""`folder`: images of one's own, with a tags file; masks, split lists, a classes file where there are any."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from wsss.data.classes import classes_of_tags
from wsss.data.file_dataset import FileDataset, FilesConfig, existing_folder
from wsss.data.image_folder import ImageFolder
from wsss.data.splits import Splits, drawn_split, lists_in
from wsss.data.tags import TagRow, TagTable, labels_of_rows, read_tag_rows, tag_table
from wsss.data.true_masks import PngMasks
from wsss.errors import DataError


class FolderConfig(FilesConfig):
    """Images anywhere under a folder, with image-level tags in a CSV file."""

    kind: Literal["folder"] = "folder"
    images: Path = Field(Path(), description="Folder of the images, searched with all folders below it.")
    tags: Path | None = Field(
        Path("tags.csv"),
        description="CSV file `image,labels[,scene]`; none: no image is tagged (prediction only).",
    )
    masks: Path | None = Field(
        None, description="Folder of true masks, indexed PNG named like the images; scoring only."
    )
    splits: Path | dict[str, Path] | None = Field(
        None,
        description="Folder of lists `<split>.txt`, or list file by split name; none: all tagged "
        "images are trained on.",
    )
    val_fraction: float = Field(
        0.0, ge=0, lt=1, description="Without `splits`: share of the tagged images drawn as `val_split`."
    )
    split_seed: int = Field(0, description="Seed of that draw.")

    @model_validator(mode="after")
    def _one_source_of_splits(self) -> Self:
        if self.splits is not None and self.val_fraction > 0:
            raise ValueError("`val_fraction` draws a split, and `splits` lists them. Remove one of them.")
        if self.val_fraction > 0 and self.train_split == self.val_split:
            raise ValueError(
                "`train_split` and `val_split` must have different names when `val_fraction` is given."
            )
        return self


def open_folder(config: FolderConfig, root: Path | None = None) -> FileDataset:
    """Open a folder of tagged images; tags and class list are checked at once.

    Args:
        config: where everything lies.
        root: what a relative `config.root` is relative to; the working directory by default.

    Raises:
        DataError: something is missing or not as expected.
    """
    base = config.base(root)
    masks = None if config.masks is None else existing_folder(base / config.masks, "masks")
    context = config.context_maps(base)
    others = [path for path in (masks, context.folder if context else None) if path is not None]
    images = ImageFolder(base / config.images, without=others)
    classes = config.listed_classes(base)
    rows: tuple[TagRow, ...] = ()
    tags = None if config.tags is None else base / config.tags
    if tags is not None:
        rows = read_tag_rows(tags)
        classes = classes or classes_of_tags(labels_of_rows(rows), str(tags))
    if classes is None:
        raise DataError(
            "Without tags, the classes are unknown. Give `classes` or `class_names` in the data section."
        )
    table = TagTable({}, {})
    if tags is not None:
        table = tag_table(rows, tags, images, classes, missing_images=config.missing_images)
    return FileDataset(
        name=config.short_name(base),
        images=images,
        classes=classes,
        labels=table,
        splits=_splits(config, base, images, table),
        masks=None if masks is None else PngMasks(masks, images),
        context=context,
        max_pixels=config.max_pixels,
    )


def _splits(config: FolderConfig, base: Path, images: ImageFolder, table: TagTable) -> Splits:
    if config.splits is None:
        tagged = [image_id for image_id in images.ids if image_id in table.labels]
        train, val = drawn_split(tagged, config.val_fraction, config.split_seed)
        drawn = {config.train_split: train}
        if config.val_fraction > 0:
            drawn[config.val_split] = val
        return Splits(images, drawn=drawn)
    if isinstance(config.splits, Path):
        lists = lists_in(base / config.splits)
    else:
        lists = {name: base / path for name, path in config.splits.items()}
    return Splits(images, lists=lists, missing_images=config.missing_images)
