"""Masks to export: of a run, of `wsss label` or `wsss predict`, or any folder of PNGs with their classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsss.checks import nearest
from wsss.data.classes import BACKGROUND_NAME, read_classes
from wsss.data.image_folder import ImageFolder
from wsss.data.images import MAX_PIXELS
from wsss.data.masks_png import check_labels, read_mask, voc_palette
from wsss.engine.label import MASKS, SUMMARY
from wsss.engine.run import read_run
from wsss.errors import DataError
from wsss.segmentation.image_list import ImageFile
from wsss.segmentation.model import SegmentationModel
from wsss.segmentation.predict_images import MOST_CLASSES, may_have_mask, read_manifest
from wsss.types import IGNORE

STAGES: Final = {
    "pseudo_masks": ("pseudo-masks", "pseudo_masks"),
    "segmentation": ("predict", "predictions"),
    "segmentation_crf": ("predict-crf", "predictions"),
}
"""What makes masks in a run, as its scores are called: its stage, and the folder inside that of the stage."""

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class MaskSource:
    """Masks of one list of classes.

    Args:
        folder: where the files are.
        names: their paths below it, with forward slashes, in order.
        class_names: K + 1 names, the first "background".
        colours: RGB of each class; (K + 1, 3), uint8.
        image_names: the images' own names by mask name; a mask without one is called by its own.
    """

    folder: Path
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    colours: Mask
    image_names: Mapping[str, str]

    def read(self, name: str) -> Mask:
        """The values of a mask; (H, W), uint8.

        Raises:
            DataError: it can't be read, or holds a value that is no class.
        """
        mask = read_mask(self.folder / name)
        mend = "Give the list of classes that it was made with."
        check_labels(mask, len(self.class_names), f"Mask {self.folder / name}", mend)
        return mask

    def size(self, name: str) -> tuple[int, int]:
        """(height, width) of a mask, from the file's header."""
        try:
            with Image.open(self.folder / name, formats=("PNG",)) as image:
                return image.height, image.width
        except Exception as error:  # decoders raise almost anything on damaged files
            raise DataError(f"Mask {self.folder / name} is no readable PNG file. Replace it.") from error

    def image_name(self, name: str) -> str:
        """What the mask's image is called."""
        return self.image_names.get(name, name)

    def class_masks(self, name: str) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
        """The foreground classes of a mask, ascending, with their pixels, (H, W); 255 belongs to none."""
        mask = self.read(name)
        for number in np.unique(mask[(mask > 0) & (mask != IGNORE)]).tolist():
            yield number, mask == number


def open_masks(
    place: Path, *, classes: Path | None = None, stage: str = "pseudo_masks", images: Path | None = None
) -> MaskSource:
    """Find masks and what their values mean.

    Args:
        place: a run folder, an output folder of `wsss label` or `wsss predict`, or a folder of indexed PNGs.
        classes: list of classes; None: that of the run, of `wsss label` or of `wsss predict`.
        stage: of a run, whose masks: pseudo_masks, segmentation or segmentation_crf.
        images: folder of the images that the masks belong to, for their names; None: masks' names are used.

    Raises:
        DataError: no masks, nothing says what their classes are, what says it is damaged, or a mask has no
            image.
    """
    place = Path(place)
    folder, names, colours = _found(place, stage)
    if classes is not None:
        names, colours = read_classes(classes).class_names, None
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Name a run, or a folder of masks.")
    pngs = (path for path in folder.rglob("*") if path.suffix.lower() == ".png" and path.is_file())
    found = (path.relative_to(folder) for path in pngs)
    masks = tuple(sorted(p.as_posix() for p in found if not any(part.startswith(".") for part in p.parts)))
    if not masks:
        raise DataError(f"There are no PNG masks in {folder}. Name a run, or a folder of masks.")
    if names is None:
        raise DataError(
            f"Nothing in {place} says which classes its masks hold. Give them with `--classes classes.yaml`."
        )
    image_names = {} if images is None else _image_names(masks, images)
    return MaskSource(folder, masks, tuple(names), _colours(colours, len(names)), image_names)


def predicted_masks(model: SegmentationModel, images: Sequence[ImageFile], out: Path) -> MaskSource:
    """The masks that `predict_images` wrote to `out`; images that have none are left out.

    Raises:
        DataError: there is no mask.
    """
    made = (i for i in images if (out / i.mask_name).is_file() and may_have_mask(out, i))
    names = {image.mask_name: image.name for image in made}
    if not names:
        raise DataError(f"There are no PNG masks in {out}. Predict some first.")
    return MaskSource(out, tuple(names), model.class_names, model.colours, names)


def checked_size(height: Any, width: Any) -> tuple[int, int]:
    """(height, width) of a mask in a file, which may say anything.

    Raises:
        ValueError: no size of an image.
    """
    size = int(height), int(width)
    if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"an image of {height} x {width} pixels")
    return size


def _found(place: Path, stage: str) -> tuple[Path, Sequence[str] | None, Any]:
    """The folder of the masks, their classes and the classes' colours, as far as the place says."""
    if (place / "run.json").is_file():
        record = read_run(place)
        return _stage_folder(place, record, stage), record["data"]["class_names"], None
    if (place / SUMMARY).is_file() and (place / MASKS).is_dir():  # runs inside hold masks of their own
        if stage != next(iter(STAGES)):
            raise DataError(
                f"{place} holds the masks of `wsss label`, which are of no other stage; got `{stage}`. Name "
                "the run inside it."
            )
        return place / MASKS, _labelled_classes(place / SUMMARY), None
    manifest = read_manifest(place) or {}
    return place, manifest.get("class_names"), manifest.get("colours")


def _labelled_classes(summary: Path) -> tuple[str, ...]:
    """K + 1 names, from the summary of `wsss label`."""
    try:
        names = [row["name"] for row in json.loads(summary.read_text(encoding="utf-8"))["classes"]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        names = []
    if not 0 < len(names) < MOST_CLASSES or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{summary} must say which classes `wsss label` gave the masks beside it, and is damaged. Run "
            f"the same command again, or name {summary.parent / MASKS} with a list of classes."
        )
    return (BACKGROUND_NAME, *names)


def _colours(given: Any, count: int) -> Mask:
    """Colours of so many classes, (count, 3), uint8: those given where usable, else the VOC palette's."""
    try:
        colours = np.asarray(given)
    except (ValueError, OverflowError):  # ragged
        colours = np.empty(0)
    is_usable = colours.shape == (count, 3) and colours.dtype.kind in "iu"
    if is_usable and colours.min() >= 0 and colours.max() <= 255:
        return np.asarray(colours, np.uint8)
    return np.asarray(voc_palette()[:count], np.uint8)


def _stage_folder(run: Path, record: Mapping[str, Any], stage: str) -> Path:
    """The folder of the masks that a stage of a run made."""
    if stage not in STAGES:
        raise DataError(f"No stage `{stage}` makes masks. {nearest(stage, STAGES)}")
    name, inside = STAGES[stage]
    folders = [(run / str(e["folder"]) / inside).resolve() for e in record["stages"] if e["name"] == name]
    if not folders or not folders[-1].is_dir():
        raise DataError(
            f"The run {run} has no masks of `{stage}`. Name another stage, or run its recipe again."
        )
    return folders[-1]


def _image_names(masks: Sequence[str], images: Path) -> dict[str, str]:
    folder = ImageFolder(images)
    found = {}
    for name in masks:
        image_id = folder.find(str(PurePosixPath(name).with_suffix("")), f"the masks ({name})")
        if image_id is None:
            raise DataError(
                f"No image under {images} belongs to the mask {name}. Leave out `--images`, or add it."
            )
        found[name] = folder.relative(image_id)
    return found
