"""Masks for CVAT: "CVAT for images 1.1", an XML file with one mask for each class of each image.

A mask is a box (`left`, `top`, `width`, `height`, in pixels) and the lengths of its runs, row by row, zeros
first; 255 (ignore) belongs to no mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from wsss.errors import DataError
from wsss.export.mask_source import MaskSource, checked_size
from wsss.export.target_file import check_target_file
from wsss.training.checkpoint import atomic_path

EXAMPLE: Final = "masks.xml"  # for messages

Mask = npt.NDArray[np.uint8]
Inside = npt.NDArray[np.bool_]


def encode_runs(inside: Inside) -> list[int]:
    """Lengths of the runs of a box, row by row, zeros first (a first one of 0 where it begins with ones).

    Example:
        >>> encode_runs(np.array([[1, 1, 0], [1, 0, 0]], dtype=bool))
        [0, 2, 1, 1, 2]
    """
    flat = inside.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths: list[int] = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def decode_runs(runs: Sequence[int], size: tuple[int, int]) -> Inside:
    """The box (h, w) that `encode_runs` had.

    Raises:
        DataError: the runs do not fill it.
    """
    lengths = np.asarray(runs, dtype=np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != size[0] * size[1]:
        raise DataError(
            f"The runs of a mask must fill its box of {size[0]} x {size[1]} pixels; got {lengths.sum():,}. "
            "Export it again."
        )
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(size)


def write_cvat(source: MaskSource, path: Path) -> int:
    """Write all masks as one XML file; memory does not grow with their number.

    Args:
        source: masks; their images' names become the images' names.
        path: the file, complete or absent.

    Returns:
        The number of masks of single classes.

    Raises:
        DataError: a mask can't be read or holds a value that is no class, or there can be no such file.
    """
    check_target_file(path, EXAMPLE)
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        stream.write(_text(_meta(source)))
        for number, name in enumerate(source.names):
            height, width = source.size(name)
            about = {"id": number, "name": source.image_name(name), "width": width, "height": height}
            image = ElementTree.Element("image", {key: str(value) for key, value in about.items()})
            for class_id, inside in source.class_masks(name):
                image.append(_mask(source.class_names[class_id], inside))
            count += len(image)
            stream.write(_text(image))
        stream.write("</annotations>\n")
    return count


def read_cvat(path: Path, class_names: Sequence[str]) -> Iterator[tuple[str, Mask]]:
    """Masks from a file of CVAT; where masks overlap, the later one wins.

    Args:
        path: XML file.
        class_names: K + 1 names, the first "background".

    Yields:
        The image's name and its mask; (H, W), uint8.

    Raises:
        DataError: the file can't be understood, or names an unknown class.
    """
    try:
        _refuse_entities(path)
        for _, image in ElementTree.iterparse(path):
            if image.tag == "image":
                yield image.attrib["name"], _read_image(image, class_names)
                image.clear()
    except (OSError, ValueError, KeyError, OverflowError, ElementTree.ParseError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} is no file of CVAT for images 1.1 with masks of these classes "
            f"({type(error).__name__}: {error}). Export it again, or correct the classes."
        ) from error


def _read_image(image: ElementTree.Element, class_names: Sequence[str]) -> Mask:
    height, width = checked_size(image.attrib["height"], image.attrib["width"])
    found = np.zeros((height, width), np.uint8)
    for mask in image.iter("mask"):
        left, top, w, h = (int(mask.attrib[key]) for key in ("left", "top", "width", "height"))
        if min(left, top) < 0 or min(w, h) < 1 or left + w > width or top + h > height:
            raise ValueError("a mask leaves its image")
        inside = decode_runs([int(run) for run in mask.attrib["rle"].split(",")], (h, w))
        found[top : top + h, left : left + w][inside] = class_names.index(mask.attrib["label"])
    return found


def _refuse_entities(path: Path) -> None:
    """Files of CVAT define no entities; such a definition only serves to blow a reader up."""
    with path.open("rb") as stream:
        if b"<!DOCTYPE" in stream.read(4096).upper():
            raise ValueError("a document type")


def _meta(source: MaskSource) -> ElementTree.Element:
    """The task's labels with their colours."""
    meta = ElementTree.Element("meta")
    labels = ElementTree.SubElement(ElementTree.SubElement(meta, "task"), "labels")
    for name, (red, green, blue) in list(zip(source.class_names, source.colours.tolist(), strict=True))[1:]:
        label = ElementTree.SubElement(labels, "label")
        about = {"name": name, "color": f"#{red:02x}{green:02x}{blue:02x}", "type": "mask", "attributes": ""}
        for key, value in about.items():
            ElementTree.SubElement(label, key).text = value
    return meta


def _mask(label: str, inside: Inside) -> ElementTree.Element:
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    box = inside[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
    about = {
        "label": label,
        "source": "auto",
        "occluded": 0,
        "rle": ", ".join(map(str, encode_runs(box))),
        "left": left,
        "top": top,
        "width": box.shape[1],
        "height": box.shape[0],
        "z_order": 0,
    }
    return ElementTree.Element("mask", {key: str(value) for key, value in about.items()})


def _text(element: ElementTree.Element) -> str:
    ElementTree.indent(element)
    return ElementTree.tostring(element, encoding="unicode") + "\n"
