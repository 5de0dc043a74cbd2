"""Masks as COCO JSON: one annotation for each class of each image, run-length encoded.

Categories have the numbers of their classes, 1…K. Pixels of 255 (ignore) belong to no annotation: read back,
they are background. Whoever scores such a file needs them from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle

from wsss.errors import DataError
from wsss.export.json_items import DAMAGE, write_items
from wsss.export.mask_source import MaskSource, checked_size
from wsss.export.target_file import check_target_file
from wsss.training.checkpoint import atomic_path

EXAMPLE: Final = "masks.json"  # for messages

Mask = npt.NDArray[np.uint8]


def write_coco(source: MaskSource, path: Path) -> int:
    """Write all masks as one COCO JSON file; memory does not grow with their number.

    Args:
        source: masks; their images' names become `file_name`.
        path: the file, complete or absent.

    Returns:
        The number of annotations.

    Raises:
        DataError: a mask can't be read or holds a value that is no class, or there can be no such file.
    """
    check_target_file(path, EXAMPLE)
    categories = [
        {"id": number, "name": name, "supercategory": ""}
        for number, name in enumerate(source.class_names)
        if number
    ]
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(
            f'{{"info":{{"description":"masks of wsss"}},"licenses":[],"categories":{_text(categories)}'
        )
        stream.write(',"images":')
        write_items(stream, _images(source))
        stream.write(',"annotations":')
        count = write_items(stream, _annotations(source))
        stream.write("}\n")
    return count


def read_coco(path: Path) -> Iterator[tuple[str, Mask]]:
    """Masks from a COCO JSON file; run lengths, compressed or not, and polygons.

    Where annotations overlap, the later one wins.

    Yields:
        The image's `file_name` and its mask, values 0…K, (H, W), uint8; 0 where no annotation is.

    Raises:
        DataError: the file can't be understood.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in document["images"]}
        for annotation in document["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        for image in document["images"]:
            size = checked_size(image["height"], image["width"])
            mask = np.zeros(size, np.uint8)
            for annotation in by_image[image["id"]]:
                mask[_inside(annotation["segmentation"], size)] = annotation["category_id"]
            yield image["file_name"], mask
    except DAMAGE as error:
        raise DataError(
            f"{path} is no COCO file of masks ({type(error).__name__}: {error}). Export it again."
        ) from error


def _inside(segmentation: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Pixels of an annotation; (H, W), bool."""
    if isinstance(segmentation, list):
        packed = rle.merge(rle.frPyObjects(segmentation, *size))
    elif isinstance(segmentation["counts"], list):
        packed = rle.frPyObjects(segmentation, *size)
    else:
        packed = segmentation
    if tuple(packed["size"]) != size:
        raise ValueError(f"an annotation of {packed['size']} in an image of {size}")
    inside: npt.NDArray[np.bool_] = rle.decode(packed).astype(bool)
    return inside


def _images(source: MaskSource) -> Iterator[dict[str, Any]]:
    for number, name in enumerate(source.names, start=1):
        height, width = source.size(name)
        yield {"id": number, "file_name": source.image_name(name), "height": height, "width": width}


def _annotations(source: MaskSource) -> Iterator[dict[str, Any]]:
    count = 0
    for image, name in enumerate(source.names, start=1):
        for category, inside in source.class_masks(name):
            count += 1
            encoded = rle.encode(np.asfortranarray(inside, dtype=np.uint8))
            yield {
                "id": count,
                "image_id": image,
                "category_id": category,
                "segmentation": {**encoded, "counts": encoded["counts"].decode("ascii")},
                "area": int(rle.area(encoded)),
                "bbox": rle.toBbox(encoded).tolist(),
                "iscrowd": 0,
            }


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
