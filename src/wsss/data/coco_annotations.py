"""Reads the annotation files of MS COCO into as little memory as possible.

A file of 82,783 images is 320 MB of JSON, nearly all of it corners of polygons. Every object is shortened the
moment it has been read, so that the whole document never exists beside its text. Labels need no polygons;
those are kept only where masks are drawn.

Source:
    Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; the layout of `instances_*.json`.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple, TypeAlias

from wsss.data.classes import ClassList
from wsss.errors import DataError

Shape: TypeAlias = "list[array[float]] | dict[str, Any]"
"""Polygons, each x, y, x, y, …; or a run-length encoding: `counts` and `size`."""

_WRONG: Final = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


class _Annotation(NamedTuple):
    image: int
    category: int
    is_crowd: bool
    shape: Shape | None


class _Image(NamedTuple):
    number: int
    file_name: str


@dataclass(frozen=True)
class CocoLabels:
    """Image-level labels; satisfies `Labels`.

    Args:
        labels: places 0…K-1 of the classes present, ascending, by image id.
        annotated: ids of the images with at least one annotation.
    """

    labels: dict[str, tuple[int, ...]]
    annotated: frozenset[str]

    def classes_of(self, image_id: str) -> tuple[int, ...] | None:
        return self.labels.get(image_id)

    def scene_words(self, image_id: str) -> tuple[str, ...]:
        return ()

    def digest(self) -> str:
        return hashlib.sha256(repr(sorted(self.labels.items())).encode()).hexdigest()


@dataclass(frozen=True)
class CocoObject:
    """One annotated object that is no crowd.

    Args:
        value: its class in masks, 1…K.
        shape: where it is; None: the file does not say.
    """

    value: int
    shape: Shape | None


def read_labels(path: Path, classes: ClassList) -> CocoLabels:
    """Read which classes each image of an annotation file shows; crowds count, as all annotations do.

    Args:
        path: `instances_*.json`.
        classes: the foreground classes; categories are looked up by name.

    Raises:
        DataError: the file is missing, damaged or names an unknown category.
    """
    names, annotations, places = _read(path, classes, with_shapes=False)
    found: dict[str, set[int]] = {name: set() for name in names.values()}
    annotated: set[str] = set()
    for annotation in annotations:
        name = names[annotation.image]
        found[name].add(places[annotation.category])
        annotated.add(name)
    labels = {name: tuple(sorted(found[name])) for name in sorted(found)}
    return CocoLabels(labels, frozenset(annotated))


def read_objects(path: Path, classes: ClassList) -> dict[str, list[CocoObject]]:
    """Read the objects of every image in the order of the file; crowds are left out.

    Args:
        path: `instances_*.json`.
        classes: the foreground classes; categories are looked up by name.

    Raises:
        DataError: as `read_labels`.
    """
    names, annotations, places = _read(path, classes, with_shapes=True)
    found: dict[str, list[CocoObject]] = {name: [] for name in names.values()}
    for annotation in annotations:
        if not annotation.is_crowd:
            value = places[annotation.category] + 1
            found[names[annotation.image]].append(CocoObject(value, annotation.shape))
    return found


def _read(
    path: Path, classes: ClassList, *, with_shapes: bool
) -> tuple[dict[int, str], list[_Annotation], dict[int, int]]:
    """Image ids by COCO's numbers, annotations in order, and places of the classes by category number."""

    def shortened(entry: dict[str, Any]) -> Any:
        if "category_id" in entry:
            shape = entry.get("segmentation")
            is_crowd = bool(entry.get("iscrowd", 0))
            kept = _shape(shape) if with_shapes and not is_crowd else None
            return _Annotation(int(entry["image_id"]), int(entry["category_id"]), is_crowd, kept)
        if "file_name" in entry:
            return _Image(int(entry["id"]), str(entry["file_name"]))
        return entry

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(
            f"There is no annotation file {path}. Put COCO's instances there, or correct `annotations` and "
            "`year` in the data section."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Annotation file {path} can't be read ({error}). Replace it.") from error
    try:
        document = json.loads(text, object_hook=shortened)
        del text
        images = [_Image(*image) for image in document["images"]]
        annotations = [_Annotation(*annotation) for annotation in document["annotations"]]
        categories = {int(entry["id"]): str(entry["name"]) for entry in document["categories"]}
    except _WRONG as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(
            f"Annotation file {path} must be COCO's JSON with `images`, `annotations` and `categories`; it "
            f"can't be understood ({reason}). Replace it."
        ) from error
    names = _image_ids(path, images)
    places = {number: classes.require(name, str(path)) for number, name in sorted(categories.items())}
    _check_references(path, annotations, names, places)
    return names, annotations, places


def _shape(value: Any) -> Shape | None:
    if value is None or isinstance(value, dict):
        return value
    return [array("d", polygon) for polygon in value]


def _image_ids(path: Path, images: list[_Image]) -> dict[int, str]:
    """File names without extension, by COCO's numbers, each of which must be unique."""
    names = {image.number: PurePosixPath(image.file_name).stem for image in images}
    if not names:
        raise DataError(f"Annotation file {path} lists no image. Replace it.")
    if len(names) < len(images) or len(set(names.values())) < len(images):
        name, _ = Counter(PurePosixPath(image.file_name).stem for image in images).most_common(1)[0]
        raise DataError(
            f"Annotation file {path} must list each image once; got `{name}` or its number again. Correct it."
        )
    return names


def _check_references(
    path: Path, annotations: list[_Annotation], names: Mapping[int, str], places: Mapping[int, int]
) -> None:
    if len(set(places.values())) < len(places):
        raise DataError(f"Two categories of {path} are the same class. Give each category a name of its own.")
    for annotation in annotations:
        if annotation.image not in names or annotation.category not in places:
            raise DataError(
                f"An annotation in {path} must be of a listed image and category; got image "
                f"{annotation.image}, category {annotation.category}. Replace the file by a complete one."
            )
