"""`voc`: a tree laid out like PASCAL VOC 2012, with any class list.

```
JPEGImages/ID.jpg      ImageSets/Segmentation/SPLIT.txt      Annotations/ID.xml
SegmentationClass/ID.png, SegmentationClassAug/ID.png
SBD/cls/ID.mat                                       (only where boundaries are scored against SBD's)
```
Image-level labels are the names of all objects in the XML files, difficult ones included, as in the reference
code of all methods here; or they come from a tags file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final, Literal
from xml.etree import ElementTree

import numpy as np
from pydantic import Field

from wsss.data.classes import ClassList, named_classes
from wsss.data.digests import file_digests
from wsss.data.file_dataset import FileDataset, FilesConfig, existing_folder
from wsss.data.image_folder import ImageFolder
from wsss.data.sbd import read_sbd_boundaries
from wsss.data.splits import Splits, lists_in
from wsss.data.tags import Labels, read_tag_rows, tag_table
from wsss.errors import DataError

VOC_CLASSES: Final = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
SBD_FOLDER: Final = Path("SBD") / "cls"


class VocConfig(FilesConfig):
    """A tree in the layout of PASCAL VOC 2012; the default classes are VOC's 20."""

    kind: Literal["voc"] = "voc"
    mask_folder: Path = Field(
        Path("SegmentationClass"),
        description="True masks for scoring; SegmentationClassAug holds those of train_aug as well.",
    )
    tags: Path | None = Field(
        None,
        description="CSV file `image,labels[,scene]` to take labels from, in place of Annotations/*.xml.",
    )


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
        boundaries: folder of the files `<id>.mat`; None: there are none.
        files: as of `FileDataset`.
    """

    def __init__(self, boundaries: Path | None, **files: Any) -> None:
        super().__init__(**files)
        self._boundaries = boundaries

    @property
    def mask_folders(self) -> tuple[Path, ...]:
        """All folders of masks that such a tree has, those that scoring does not use too."""
        own = super().mask_folders
        trees = dict.fromkeys(folder.parent for folder in own)
        others = (path for tree in trees for path in sorted(tree.glob("Segmentation*")) if path.is_dir())
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

    def mask_fingerprint(self) -> str:
        masks = super().mask_fingerprint()
        if self._boundaries is None:
            return masks
        paths = sorted(self._boundaries.glob("*.mat"))
        digests = list(zip([path.name for path in paths], file_digests(paths), strict=True))
        return hashlib.sha256(repr([masks, digests]).encode()).hexdigest()

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
    masks, boundaries = base / config.mask_folder, base / SBD_FOLDER
    return VocDataset(
        boundaries if boundaries.is_dir() else None,
        name=config.short_name(base),
        images=images,
        classes=classes,
        labels=_labels(config, base, images, classes),
        splits=Splits(
            images,
            lists=lists_in(base / "ImageSets" / "Segmentation"),
            first_word_only=True,
            missing_images=config.missing_images,
        ),
        masks=masks if masks.is_dir() else None,  # trees without any mask can be trained on
        context=config.context_maps(base),
        max_pixels=config.max_pixels,
    )


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
