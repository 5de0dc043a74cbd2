"""`coco`: MS COCO 2014 (or 2017), with masks drawn from its annotations.

```
train2014/COCO_train2014_000000000009.jpg      annotations/instances_train2014.json
val2014/COCO_val2014_000000000042.jpg          annotations/instances_val2014.json
```
Image ids are the files' names without extension. Image-level labels are the categories of all objects of an
image, crowds included. Splits, each in the order of image ids (their numbers for 2014):

| split | images of COCO 2014 |
| --- | --- |
| `train` | all training images, also those without any label: 82,783 |
| `train_labelled` | those with at least one annotation: 82,081 |
| `val` | validation images with at least one annotation: 40,137 |
| `val_all` | all validation images: 40,504 |

Classes are COCO's 80 categories in the order of their ids (1-90 with gaps), numbered 1-80.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from wsss.data.classes import ClassList, named_classes
from wsss.data.coco_annotations import CocoLabels, read_labels, read_objects
from wsss.data.coco_masks import CocoMasks
from wsss.data.file_dataset import FileDataset, FilesConfig
from wsss.data.image_folder import ImageFolder, MissingImages
from wsss.data.images import image_size
from wsss.data.splits import Splits
from wsss.errors import DataError

logger = logging.getLogger(__name__)

COCO_CLASSES: Final = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
PARTS: Final = ("train", "val")


class CocoConfig(FilesConfig):
    """Images and instance annotations of MS COCO; the default classes are its 80."""

    kind: Literal["coco"] = "coco"
    year: Literal[2014, 2017] = Field(2014, description="Which division into training and validation images.")
    images: Path = Field(Path(), description="Folder of train2014 and val2014.")
    annotations: Path = Field(
        Path("annotations"), description="Folder of instances_train2014.json and instances_val2014.json."
    )


def open_coco(config: CocoConfig, root: Path | None = None) -> FileDataset:
    """Open COCO; both annotation files are read at once for their labels, which takes some 20 seconds.

    A file that is not there leaves out its part's splits.

    Args:
        config: where everything lies.
        root: what a relative `config.root` is relative to; the working directory by default.

    Raises:
        DataError: something is missing or not as expected.
    """
    base = config.base(root)
    classes = config.listed_classes(base) or named_classes(COCO_CLASSES, "the categories of COCO")
    paths = {part: base / config.annotations / f"instances_{part}{config.year}.json" for part in PARTS}
    there = {part: path for part, path in paths.items() if path.is_file()}
    if not there:
        raise DataError(
            f"Expected {paths['train'].name} or {paths['val'].name} in {paths['train'].parent}; got neither. "
            "Put COCO's annotations there, or correct `annotations` and `year` in the data section."
        )
    images = _images(base / config.images, config.year)
    read = {part: _present(path, classes, images, config.missing_images) for part, path in there.items()}
    merged: dict[str, tuple[int, ...]] = {}
    for labels in read.values():
        merged |= labels.labels
    files = {image_id: there[part] for part, labels in read.items() for image_id in labels.labels}
    return FileDataset(
        name=config.short_name(base),
        images=images,
        classes=classes,
        labels=CocoLabels(merged, frozenset().union(*(labels.annotated for labels in read.values()))),
        splits=_splits(images, read, paths),
        masks=CocoMasks(
            files, partial(_size, images, config.max_pixels), partial(read_objects, classes=classes)
        ),
        context=config.context_maps(base),
        max_pixels=config.max_pixels,
    )


def _images(folder: Path, year: int) -> ImageFolder:
    """The images of one year's two parts, whatever else lies beside them."""
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Correct `images` in the data section.")
    wanted = {f"{part}{year}" for part in PARTS}
    others = [path for path in folder.iterdir() if path.is_dir() and path.name not in wanted]
    if not any((folder / name).is_dir() for name in wanted):
        names = " or ".join(sorted(wanted))
        raise DataError(f"Expected {names} in {folder}; got neither. Correct `images` or `year`.")
    return ImageFolder(folder, without=others)


def _present(
    path: Path, classes: ClassList, images: ImageFolder, missing_images: MissingImages
) -> CocoLabels:
    """An annotation file's labels of the images that are there."""
    labels = read_labels(path, classes)
    missing = [name for name in labels.labels if name not in images]
    if not missing:
        return labels
    if missing_images == "error":
        raise DataError(
            f"{path} lists {len(missing):,} images that are not under {images.folder}; the first is "
            f"{missing[0]}. Add them, or set `missing_images: skip` in the data section."
        )
    logger.warning("%s lists %d images that are not under %s; left out.", path, len(missing), images.folder)
    kept = {name: found for name, found in labels.labels.items() if name in images}
    return CocoLabels(kept, labels.annotated & kept.keys())


def _splits(images: ImageFolder, read: dict[str, CocoLabels], paths: dict[str, Path]) -> Splits:
    drawn: dict[str, tuple[str, ...]] = {}
    names = {"train": ("train", "train_labelled"), "val": ("val_all", "val")}  # all images, annotated ones
    for part, labels in read.items():
        everything, annotated = names[part]
        drawn[everything] = tuple(labels.labels)
        drawn[annotated] = tuple(name for name in labels.labels if name in labels.annotated)
    advice = {
        name: f"Its images are listed in {paths[part]}, which is not there. Add that file."
        for part in PARTS
        if part not in read
        for name in names[part]
    }
    return Splits(images, drawn=drawn, advice=advice)


def _size(images: ImageFolder, max_pixels: int, image_id: str) -> tuple[int, int]:
    return image_size(images.path(image_id), max_pixels=max_pixels)
