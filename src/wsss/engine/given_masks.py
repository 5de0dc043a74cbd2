"""Masks that people give back: a folder of indexed PNGs, or one COCO JSON file of any annotation tool.

PNGs hold class numbers, 0…K and 255. In COCO JSON, an image's annotations are painted in their order on
background; categories are looked up by name, since tools number them anew; one called `ignore` paints 255.
"""

from __future__ import annotations

import json
import os
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
    pngs, documents = _pngs_below(place), sorted(place.glob("*.json"))
    if pngs:
        _check_alone(place, documents)
        names = tuple(path.relative_to(place).with_suffix("").as_posix() for path in pngs)
        return GivenMasks(place, tuple(pngs), names, partial(_read_png, dict(zip(names, pngs, strict=True))))
    if len(documents) != 1:
        raise DataError(
            f"{place} must hold corrected masks, `<image id>.png` each, or one COCO JSON file; it has no PNG "
            f"and {len(documents)} JSON files. Put the masks there, or name the JSON file itself."
        )
    return _open_coco(documents[0], place)


def _pngs_below(place: Path) -> list[Path]:
    """All PNG files, hidden ones left out; none may be missed that somebody drew."""
    found = []
    for folder, names, files in os.walk(place, onerror=_raise):
        names[:] = [name for name in names if not name.startswith(".")]
        links = [Path(folder, name) for name in names if Path(folder, name).is_symlink()]
        shown = [Path(folder, name) for name in files if not name.startswith(".")]
        paths = [path for path in shown if path.suffix.lower() == ".png"]
        missed = links + [path for path in paths if not path.is_file()]
        if missed:
            raise DataError(
                f"{min(missed)} must be a folder or a mask; got a link to a folder, or no file. Put the "
                "masks themselves there, or remove it."
            )
        found += paths
    return sorted(found)


def _raise(error: OSError) -> None:
    raise DataError(
        f"The folder {error.filename} can't be read ({error.strerror}). Correct its permissions, or remove "
        "it."
    ) from error


def _check_alone(place: Path, documents: Sequence[Path]) -> None:
    """Refuse a COCO file beside PNGs: nothing tells which of them counts. Other JSON files do no harm."""
    for path in documents:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, *_WRONG):
            document = {"annotations": "unknown"}  # perhaps one that is damaged
        if isinstance(document, dict) and "annotations" in document:
            raise DataError(
                f"{place} must hold either PNG masks or one COCO JSON file; got PNGs and {path.name}. Move "
                "one kind elsewhere, or name the JSON file itself."
            )


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
    categories = _by_id(document["categories"], "category")
    entries = _by_id(document["images"], "image")
    shapes: dict[int, list[tuple[str, Any]]] = {number: [] for number in entries}
    for annotation in document["annotations"]:
        image, category = int(annotation["image_id"]), int(annotation["category_id"])
        if image not in entries or category not in categories:
            missing = f"image {image}" if image not in entries else f"category {category}"
            raise ValueError(f"an annotation names {missing}, which is not listed")
        shape = annotation["segmentation"]
        shape = shape if isinstance(shape, dict) else [array("d", polygon) for polygon in shape]
        shapes[image].append((str(categories[category]["name"]), shape))
    found: dict[str, _Annotated] = {}
    for number, entry in entries.items():
        name = PurePosixPath(str(entry["file_name"]).replace("\\", "/")).with_suffix("").as_posix()
        size = int(entry["height"]), int(entry["width"])
        if name in found:
            raise ValueError(f"image {name} is listed twice")
        if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
            raise ValueError(f"image {name} has {size[0]} x {size[1]} pixels")
        found[name] = _Annotated(size, tuple(shapes[number]))
    return found


def _by_id(entries: Any, kind: str) -> dict[int, Any]:
    """Entries of a list by their number, which no two may share."""
    found: dict[int, Any] = {}
    for entry in entries:
        number = int(entry["id"])
        if number in found:
            raise ValueError(f"{kind} {number} is listed twice")
        found[number] = entry
    return found


def _draw(path: Path, images: dict[str, _Annotated], name: str, class_names: Sequence[str]) -> Mask:
    values = {class_name: number for number, class_name in enumerate(class_names)} | {IGNORE_NAME: IGNORE}
    objects, size = [], images[name].size
    for category, shape in images[name].shapes:
        if category not in values:
            raise DataError(
                f"Category `{category}` of {path} is no class. {nearest(category, values)} Pixels that "
                f"should not count are of category `{IGNORE_NAME}`."
            )
        objects.append(CocoObject(values[category], shape))
    try:
        mask: Mask = draw_mask(objects, size, name)
    except (DataError, *_WRONG, MemoryError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise DataError(
            f"An annotation of {name} in {path} must be polygons or run lengths of an image of {size[0]} x "
            f"{size[1]} (height x width); it can't be drawn ({reason}). Export it again."
        ) from error
    return mask
