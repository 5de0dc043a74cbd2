"""Draws the true masks of MS COCO from its annotations, when one is asked for; none is ever written.

Objects are painted in the order of the file, so that later ones cover earlier ones; crowds are background.
This is how the masks were made that CLIMS scores against: another order gives other scores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from pycocotools import mask as coco_mask

from wsss.data.coco_annotations import CocoObject, Shape
from wsss.data.digests import file_digests
from wsss.errors import DataError
from wsss.types import BACKGROUND

_FURTHEST: Final = 100_000.0  # pixels; a corner beyond that is damage, and drawing it would fill the memory
_CORNERS: Final = 3
_LOWEST_LETTER: Final = ord("0")
_LARGEST_SHIFT: Final = 50


class CocoMasks:
    """Masks drawn from annotation files; satisfies `TrueMasks`.

    A file is read for its polygons when the first mask of it is asked for: less than half a minute and 0.5 GB
    for COCO's training images.

    Args:
        files: annotation file of each image id.
        size_of: (height, width) of an image.
        read: objects of every image of an annotation file.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        size_of: Callable[[str], tuple[int, int]],
        read: Callable[[Path], dict[str, list[CocoObject]]],
    ) -> None:
        self._files, self._size_of, self._read = files, size_of, read
        self._objects: dict[Path, dict[str, list[CocoObject]]] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What worker processes get: all but the lock and what was read."""
        return {**self.__dict__, "_lock": None, "_objects": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    @property
    def folders(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(path.parent for path in self._files.values()))

    def missing(self, ids: Sequence[str]) -> tuple[Path, ...]:
        return tuple(Path(f"{image_id}.png") for image_id in ids if image_id not in self._files)

    def read(self, image_id: str) -> tuple[np.ndarray, Path]:
        if image_id not in self._files:
            raise DataError(
                f"COCO has no annotations of {image_id}, so it can't be scored. Score a split of its own, "
                "such as `val`."
            )
        path = self._files[image_id]
        with self._lock:  # images are worked on in several threads
            if path not in self._objects:
                self._objects[path] = self._read(path)
        return draw_mask(self._objects[path][image_id], self._size_of(image_id), image_id), path

    def digests(self) -> list[tuple[str, str]]:
        paths = sorted(dict.fromkeys(self._files.values()))
        return list(zip([path.name for path in paths], file_digests(paths), strict=True))


def draw_mask(objects: Sequence[CocoObject], size: tuple[int, int], image_id: str) -> np.ndarray:
    """Paint objects over each other, the last on top; (H, W), uint8, 0 where there is none.

    Args:
        objects: in the order of their file.
        size: (height, width) of the image in pixels.
        image_id: for messages.

    Raises:
        DataError: an object's shape is missing or damaged.

    Example:
        >>> from array import array
        >>> square = CocoObject(7, [array("d", (1, 0, 3, 0, 3, 2, 1, 2))])
        >>> draw_mask([square], (2, 4), "x").tolist()
        [[0, 7, 7, 0], [0, 7, 7, 0]]
    """
    mask = np.full(size, BACKGROUND, dtype=np.uint8)
    try:
        for item in objects:
            mask[_inside(item.shape, size)] = item.value
    except (ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise DataError(
            f"An object of image {image_id} has a `segmentation` that can't be drawn into {size[0]} x "
            f"{size[1]} pixels ({str(error) or type(error).__name__}). Replace COCO's annotation file."
        ) from error
    return mask


def _inside(shape: Shape | None, size: tuple[int, int]) -> np.ndarray:
    """Where an object is; (H, W), bool."""
    if isinstance(shape, dict):
        return _runs(shape, size)
    if not shape or not all(_is_polygon(polygon) for polygon in shape):
        raise ValueError("no polygon of three corners or more")
    drawn = coco_mask.merge(coco_mask.frPyObjects(shape, *size))
    inside: np.ndarray = np.array(coco_mask.decode(drawn), dtype=np.bool_)
    return inside


def _is_polygon(corners: Sequence[float]) -> bool:
    values = np.asarray(corners, dtype=np.float64)
    is_whole = len(values) >= 2 * _CORNERS and len(values) % 2 == 0
    return is_whole and bool((np.abs(values) < _FURTHEST).all())  # false for NaN too


def _runs(encoding: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Decode runs of 0 and 1 in turn, down the columns; plain numbers, or COCO's text for them."""
    counts = encoding["counts"]
    if tuple(encoding["size"]) != size:
        raise ValueError(f"its size is {encoding['size']}")
    lengths = np.asarray(_unpacked(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    pixels = size[0] * size[1]
    # each by itself first: sums of huge ones wrap, and `repeat` would write beyond its memory
    if lengths.ndim != 1 or not ((lengths >= 0) & (lengths <= pixels)).all() or lengths.sum() != pixels:
        raise ValueError("its runs don't add up to the image")
    inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    upright: np.ndarray = inside.reshape(size[::-1]).T
    return upright


def _unpacked(text: str) -> list[int]:
    """Run lengths from COCO's text: groups of 5 bits from the lowest, the sixth bit says that more follow.

    From the fourth on, lengths are given as what they add to the last but one.
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - _LOWEST_LETTER
        if not 0 <= bits < 64 or shift > _LARGEST_SHIFT:
            raise ValueError("its text is damaged")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0  # the highest bit is the sign
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its text is cut short")
    return counts
