"""Masks that people give back: a folder of indexed PNGs, or one COCO JSON file of any annotation tool.

PNGs hold class numbers, 0…K and 255. In COCO JSON, an image's annotations are painted in their order on
background; categories are looked up by name, since tools number them anew; one called `ignore` paints 255.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wsss.checks import nearest
from wsss.data.coco_annotations import CocoObject
from wsss.data.coco_masks import draw_mask
from wsss.data.images import MAX_PIXELS
from wsss.data.masks_png import read_mask
from wsss.errors import DataError
from wsss.types import IGNORE

IGNORE_NAME: Final = "ignore"
_WRONG: Final = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)

Mask = npt.NDArray[np.uint8]
"""(H, W), label space of the library."""


@dataclass(frozen=True, eq=False)
class GivenMasks:
    """Masks by name, read when asked for.

    Args:
        place: the folder or file that was named.
        files: all files that hold them.
        names: each mask's path below the place without suffix, or in COCO JSON its image's; with `/`.
        reader: gives the mask of a name for a list of K + 1 class names.
    """

    place: Path
    files: tuple[Path, ...]
    names: tuple[str, ...]
    reader: Callable[[str, Sequence[str]], Mask]

    @property
    def relative(self) -> tuple[Path, ...]:
        """The files as seen from the place."""
        return tuple(Path(f.name) if f == self.place else f.relative_to(self.place) for f in self.files)

    def read(self, name: str, class_names: Sequence[str]) -> Mask:
        """One mask.

        Raises:
            DataError: it can't be read, or names an unknown class.
        """
        return self.reader(name, class_names)


def open_given_masks(place: Path) -> GivenMasks:
    """Find the masks at a place.

    Args:
        place: folder of PNGs (folders below it count), or of one JSON file alone, or that file.

    Raises:
        DataError: there is none, or nothing tells which of several files is meant.
    """
    if place.is_file():
        return _open_coco(place, place)
    if not place.is_dir():
        raise DataError(
            f"There is no folder or file {place} of corrected masks. Correct the path given as `corrections`."
        )
    below = sorted(path for path in place.rglob("*") if path.suffix.lower() == ".png" and path.is_file())
    pngs = [path for path in below if not any(part.startswith(".") for part in path.relative_to(place).parts)]
    if pngs:
        names = tuple(path.relative_to(place).with_suffix("").as_posix() for path in pngs)
        return GivenMasks(place, tuple(pngs), names, partial(_read_png, dict(zip(names, pngs, strict=True))))
    documents = sorted(place.glob("*.json"))
    if len(documents) != 1:
        raise DataError(
            f"{place} must hold corrected masks, `<image id>.png` each, or one COCO JSON file; it has no PNG "
            f"and {len(documents)} JSON files. Put the masks there, or name the JSON file itself."
        )
    return _open_coco(documents[0], place)


def _read_png(files: dict[str, Path], name: str, class_names: Sequence[str]) -> Mask:
    return read_mask(files[name])


@dataclass(frozen=True)
class _Annotated:
    """One image of a COCO file: its size and the categories and shapes of its annotations, in order."""

    size: tuple[int, int]
    shapes: tuple[tuple[str, Any], ...]


def _open_coco(path: Path, place: Path) -> GivenMasks:
    try:
        images = _annotated(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, *_WRONG) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(
            f"{path} must be COCO JSON with `images`, `annotations` and `categories`; it can't be understood "
            f"({reason}). Export it again."
        ) from error
    if not images:
        raise DataError(f"{path} lists no image. Export it again, with the images that were corrected.")
    return GivenMasks(place, (path,), tuple(images), partial(_draw, path, images))


def _annotated(document: Any) -> dict[str, _Annotated]:
    categories = {int(entry["id"]): str(entry["name"]) for entry in document["categories"]}
    shapes: dict[int, list[tuple[str, Any]]] = {int(image["id"]): [] for image in document["images"]}
    for annotation in document["annotations"]:
        shape = annotation["segmentation"]
        shape = shape if isinstance(shape, dict) else [array("d", polygon) for polygon in shape]
        shapes[int(annotation["image_id"])].append((categories[int(annotation["category_id"])], shape))
    found: dict[str, _Annotated] = {}
    for image in document["images"]:
        name = PurePosixPath(str(image["file_name"]).replace("\\", "/")).with_suffix("").as_posix()
        size = int(image["height"]), int(image["width"])
        if name in found:
            raise ValueError(f"image {name} is listed twice")
        if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
            raise ValueError(f"image {name} has {size[0]} x {size[1]} pixels")
        found[name] = _Annotated(size, tuple(shapes[int(image["id"])]))
    return found


def _draw(path: Path, images: dict[str, _Annotated], name: str, class_names: Sequence[str]) -> Mask:
    values = {class_name: number for number, class_name in enumerate(class_names)} | {IGNORE_NAME: IGNORE}
    objects = []
    for category, shape in images[name].shapes:
        if category not in values:
            raise DataError(
                f"Category `{category}` of {path} is no class. {nearest(category, values)} Pixels that "
                f"should not count are of category `{IGNORE_NAME}`."
            )
        objects.append(CocoObject(values[category], shape))
    mask: Mask = draw_mask(objects, images[name].size, name)
    return mask
