"""`voc`: a tree laid out like PASCAL VOC 2012, with any class list.

```
JPEGImages/ID.jpg      ImageSets/Segmentation/SPLIT.txt      Annotations/ID.xml
SegmentationClass/ID.png, SegmentationClassAug/ID.png
SBD/cls/ID.mat, SBD/{train,val}.txt      (boundaries, and masks of images that have no PNG)
```
Image-level labels are the names of all objects in the XML files, difficult ones included, as in the
reference code of all methods here; or they come from a tags file. Images of the test split have neither
labels nor masks.

`train_aug`, which all methods train on, need not be listed: it is VOC's train and all images of SBD but those
of VOC's val, 10,582 in all.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any, Final, Literal
from xml.etree import ElementTree

import numpy as np
from pydantic import Field

from wsss.data.classes import ClassList, named_classes
from wsss.data.context_maps import ContextMaps, open_context
from wsss.data.file_dataset import FileDataset, FilesConfig, existing_folder
from wsss.data.image_folder import ImageFolder
from wsss.data.sbd import read_sbd_boundaries
from wsss.data.splits import Splits, lists_in
from wsss.data.tags import Labels, read_tag_rows, tag_table
from wsss.data.true_masks import FirstMasks, PngMasks, SbdMasks, TrueMasks
from wsss.errors import DataError

logger = logging.getLogger(__name__)

VOC_CLASSES: Final = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
TRAIN_AUG: Final = "train_aug"
TRAIN_AUG_IMAGES: Final = 10_582
VOC_TRAIN_IMAGES: Final = 1_464


class VocConfig(FilesConfig):
    """A tree in the layout of PASCAL VOC 2012; the default classes are VOC's 20."""

    kind: Literal["voc"] = "voc"
    mask_folder: Path = Field(
        Path("SegmentationClass"),
        description="True masks for scoring; SegmentationClassAug holds those of train_aug as well. Images "
        "without a PNG there take SBD's mask, where SBD has them.",
    )
    sbd: Path = Field(
        Path("SBD"),
        description="Folder of SBD (`cls/<id>.mat`, lists train.txt and val.txt), if it is there.",
    )
    context_classes: tuple[str, ...] | None = Field(
        None,
        description="Backgrounds to tell apart by the context maps; none: all of a JSON file of names; "
        "water, track and platform of PASCAL-Context's labels.txt.",
    )
    tags: Path | None = Field(
        None,
        description="CSV file `image,labels[,scene]` to take labels from, in place of Annotations/*.xml.",
    )

    def context_maps(self, base: Path) -> ContextMaps | None:
        """PNG maps, or PASCAL-Context's files."""
        if self.context is None or self.context_names is None:
            return None
        folder = existing_folder(base / self.context, "context")
        return open_context(folder, base / self.context_names, self.context_classes)


class XmlLabels:
    """Labels from VOC annotations, read when first asked for; an image without an annotation is untagged.

    Args:
        folder: of the files `<id>.xml`.
        classes: the classes of the data set.
    """

    def __init__(self, folder: Path, classes: ClassList) -> None:
        self._folder, self._classes = folder, classes
        self._known: dict[str, tuple[int, ...] | None] = {}

    def classes_of(self, image_id: str) -> tuple[int, ...] | None:
        """Places 0…K-1 of the classes present.

        Raises:
            DataError: the annotation is damaged or names an unknown class.
        """
        if image_id not in self._known:
            self._known[image_id] = self._read(self._folder / f"{image_id}.xml")
        return self._known[image_id]

    def scene_words(self, image_id: str) -> tuple[str, ...]:
        return ()

    def digest(self) -> str:
        found = hashlib.sha256()
        for path in sorted(self._folder.glob("*.xml")):
            found.update(repr((path.name, path.read_bytes())).encode())
        return found.hexdigest()

    def _read(self, path: Path) -> tuple[int, ...] | None:
        try:
            document = ElementTree.fromstring(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ElementTree.ParseError, OSError, ValueError) as error:
            raise DataError(f"Annotation {path} can't be read ({error}). Replace it.") from error
        names = [(item.findtext("name") or "").strip() for item in document.findall("object")]
        return tuple(sorted({self._classes.require(name, str(path)) for name in names}))


class VocDataset(FileDataset):
    """A VOC tree, with the boundaries of SBD where it holds them.

    Args:
        boundaries: SBD's folder of the files `<id>.mat`; None: there are none.
        files: as of `FileDataset`.
    """

    def __init__(self, boundaries: Path | None, **files: Any) -> None:
        super().__init__(**files)
        self._boundaries = boundaries

    @property
    def mask_folders(self) -> tuple[Path, ...]:
        """All folders of masks that such a tree has, those that scoring does not use too."""
        own = super().mask_folders
        trees = dict.fromkeys(folder.parent for folder in (*own, self._images.folder))
        others = [path for tree in trees for path in sorted(tree.glob("Segmentation*")) if path.is_dir()]
        if self._boundaries is not None:
            others += [self._boundaries, self._boundaries.with_name("inst")]
        return tuple(dict.fromkeys((*own, *others)))

    def has_boundaries(self, image_id: str) -> bool:
        """Whether SBD has the image."""
        return self._boundary_file(image_id) is not None

    def boundaries(self, image_id: str) -> np.ndarray | None:
        """SBD's boundaries of all classes; (H, W), bool; None where SBD does not have the image.

        Raises:
            DataError: the file is damaged, or of another size than the image.
        """
        path = self._boundary_file(image_id)
        if path is None:
            return None
        found, size = read_sbd_boundaries(path), self.image_size(image_id)
        if found.shape != size:
            raise DataError(
                f"{path} must be {size[0]} x {size[1]} (height x width) like its image; got "
                f"{found.shape[0]} x {found.shape[1]}. Check that they belong together."
            )
        return found

    def _boundary_file(self, image_id: str) -> Path | None:
        path = None if self._boundaries is None else self._boundaries / f"{image_id}.mat"
        return path if path is not None and path.is_file() else None


def open_voc(config: VocConfig, root: Path | None = None) -> FileDataset:
    """Open a VOC tree; lists and annotations are read when first asked for.

    Args:
        config: where everything lies.
        root: what a relative `config.root` is relative to; the working directory by default.

    Raises:
        DataError: something is missing or not as expected.
    """
    base = config.base(root)
    images = ImageFolder(existing_folder(base / "JPEGImages", "root"))
    classes = config.listed_classes(base) or named_classes(VOC_CLASSES, "the classes of PASCAL VOC")
    sbd = base / config.sbd / "cls"
    return VocDataset(
        sbd if sbd.is_dir() else None,
        name=config.short_name(base),
        images=images,
        classes=classes,
        labels=_labels(config, base, images, classes),
        splits=_splits(config, base, images),
        masks=_masks(base / config.mask_folder, sbd, images),
        context=config.context_maps(base),
        max_pixels=config.max_pixels,
    )


def _masks(folder: Path, sbd: Path, images: ImageFolder) -> TrueMasks | None:
    """PNG files first, then SBD's; None for a tree without any mask, which can be trained on."""
    sources: list[TrueMasks] = [PngMasks(folder, images)] if folder.is_dir() else []
    if sbd.is_dir():
        sources.append(SbdMasks(sbd))
    return FirstMasks(sources) if sources else None


def _splits(config: VocConfig, base: Path, images: ImageFolder) -> Splits:
    """The listed splits, and train_aug where it is asked for and not listed."""
    lists = lists_in(base / "ImageSets" / "Segmentation")
    options: dict[str, Any] = {
        "lists": lists,
        "first_word_only": True,
        "missing_images": config.missing_images,
        "advice": {
            TRAIN_AUG: "It is derived from `train`, `val` and SBD's images where `train_split` or "
            f"`val_split` names it and SBD is there (`sbd`); or write the list {TRAIN_AUG}.txt."
        },
    }
    wanted = TRAIN_AUG in (config.train_split, config.val_split) and TRAIN_AUG not in lists
    names = _sbd_names(base, base / config.sbd) if wanted else ()
    if not names or not {"train", "val"} <= lists.keys():
        return Splits(images, **options)
    return Splits(images, drawn={TRAIN_AUG: _train_aug(Splits(images, **options), names, images)}, **options)


def _sbd_names(base: Path, sbd: Path) -> tuple[str, ...]:
    """Names of SBD's images: from its own lists, else its files, else PNG files made of them."""
    own = [path for path in (sbd / "train.txt", sbd / "val.txt") if path.is_file()]
    if own:
        return tuple(word for path in own for word in path.read_text(encoding="utf-8").split())
    files = [*(sbd / "cls").glob("*.mat")] or [*(base / "SegmentationClassAug").glob("*.png")]
    return tuple(path.stem for path in files)


def _train_aug(splits: Splits, sbd: tuple[str, ...], images: ImageFolder) -> tuple[str, ...]:
    """VOC's train and all of SBD but VOC's val, sorted; images that are not there are left out."""
    train, val = splits.ids("train"), set(splits.ids("val"))
    ids = sorted({*train, *(name for name in sbd if name in images)} - val)
    if len(train) == VOC_TRAIN_IMAGES and len(ids) != TRAIN_AUG_IMAGES:
        logger.warning(
            "train_aug has %s images in place of %s: the images of SBD are not complete.",
            f"{len(ids):,}",
            f"{TRAIN_AUG_IMAGES:,}",
        )
    return tuple(ids)


def _labels(config: VocConfig, base: Path, images: ImageFolder, classes: ClassList) -> Labels:
    if config.tags is not None:
        path = base / config.tags
        return tag_table(read_tag_rows(path), path, images, classes, missing_images=config.missing_images)
    folder = base / "Annotations"
    if not folder.is_dir():
        raise DataError(
            f"There is no folder {folder} to take labels from. Add the annotations, or name a CSV file "
            "as `tags`."
        )
    return XmlLabels(folder, classes)
