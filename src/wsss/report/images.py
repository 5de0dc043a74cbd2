"""Pictures for the page: photographs, maps and masks in one colour language, as WebP data URIs.

A class has one colour everywhere on the page. Maps and masks lie on a pale grey copy of the photograph: a map
takes the class's colour in the strength of its score, a mask takes it fully, with a line around each region.
"""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsss.report.class_colours import class_colour
from wsss.types import BACKGROUND, IGNORE

Picture = npt.NDArray[np.uint8]
"""RGB, 0-255; (H, W, 3)."""

UNSURE: Final = (255, 255, 255)  # pixels of value 255
SMALL_SIDE: Final = 150  # smaller pictures are doubled, so that edges stay sharp on dense screens
LARGE_SIDE: Final = 320  # larger pictures are reduced to this; they are shown enlarged on demand
MAP_STRENGTH: Final = 0.92  # share of the class's colour where a score is 1
MASK_STRENGTH: Final = 0.72
POINT_REACH: Final = 2  # of a marked point to each side, in shown pixels


def thumbnail(image: Picture) -> Picture:
    """The photograph at the size in which the page shows it."""
    size = shown_size(*image.shape[:2])
    return image if size == image.shape[:2] else _resized(image, size, Image.Resampling.LANCZOS)


def shown_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) in which the page shows a picture."""
    longest = max(height, width)
    if longest <= SMALL_SIDE:
        return 2 * height, 2 * width
    factor = min(1.0, LARGE_SIDE / longest)
    return max(1, round(factor * height)), max(1, round(factor * width))


def map_picture(image: Picture, class_ids: Sequence[int], scores: npt.NDArray[np.float32]) -> Picture:
    """Scores over the pale photograph, each class in its colour.

    Args:
        image: (H, W, 3).
        class_ids: M classes.
        scores: (M, H, W), in [0, 1].
    """
    base = _pale(thumbnail(image))
    size = base.shape[:2]
    if not len(class_ids):
        return base.astype(np.uint8)
    planes = np.stack(
        [_resized(plane.astype(np.float32), size, Image.Resampling.BILINEAR) for plane in scores]
    )
    strongest = planes.argmax(axis=0)
    colours = np.stack([_rgb(class_id) for class_id in class_ids])[strongest]
    strength = MAP_STRENGTH * planes.max(axis=0).clip(0, 1)[..., None]
    picture: Picture = (base * (1 - strength) + colours * strength).round().astype(np.uint8)
    return picture


def mask_picture(image: Picture, mask: npt.NDArray[np.uint8]) -> Picture:
    """Regions over the pale photograph, each class in its colour; unsure pixels (255) are white.

    Args:
        image: (H, W, 3).
        mask: (H, W), label space of the library.
    """
    base = _pale(thumbnail(image))
    shown = _resized(mask, base.shape[:2], Image.Resampling.NEAREST)
    blended = base.copy()
    edge = class_edges(shown)
    for class_id in np.unique(shown).tolist():
        if class_id == BACKGROUND:
            continue
        colour = np.array(UNSURE if class_id == IGNORE else _rgb(class_id), dtype=np.float64)
        inside = shown == class_id
        blended[inside] = base[inside] * (1 - MASK_STRENGTH) + colour * MASK_STRENGTH
        blended[inside & edge] = colour * 0.8
    picture: Picture = blended.round().astype(np.uint8)
    return picture


def pale_picture(image: Picture) -> Picture:
    """The pale grey copy of the photograph that maps and masks lie on, at the size of the page."""
    return _pale(thumbnail(image)).astype(np.uint8)


def mask_layer(mask: npt.NDArray[np.uint8]) -> str:
    """A mask (H, W) as a PNG data URI of its own size: classes in their colours, background transparent."""
    shown = np.zeros((*mask.shape, 4), dtype=np.uint8)
    for class_id in np.unique(mask).tolist():
        if class_id != BACKGROUND:
            shown[mask == class_id] = (*_rgb(class_id), 255)
    stream = io.BytesIO()
    Image.fromarray(shown).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def saliency_picture(saliency: npt.NDArray[np.uint8]) -> Picture:
    """Saliency (H, W), 0-255, as grey levels: white stands out."""
    shown = _resized(saliency, shown_size(*saliency.shape), Image.Resampling.BILINEAR)
    picture: Picture = np.repeat(shown[..., None], 3, axis=2)
    return picture


def words_picture(words: npt.NDArray[np.int64]) -> Picture:
    """Word numbers (H, W), each word in a colour of its own; neighbouring numbers get distant colours."""
    shown = _resized(words.astype(np.int32), shown_size(*words.shape), Image.Resampling.NEAREST)
    numbers, places = np.unique(shown, return_inverse=True)
    picture: Picture = np.array([_word_colour(n) for n in numbers.tolist()], np.uint8)[
        places.reshape(shown.shape)
    ]
    return picture


def pointed_picture(
    image: Picture, points: Sequence[tuple[int, int]], colours: Sequence[tuple[int, int, int]]
) -> Picture:
    """The photograph with a square in a black frame at each point.

    Args:
        image: (H, W, 3).
        points: (row, column), in pixels of the image.
        colours: RGB of each point.
    """
    shown: Picture = thumbnail(image).copy()
    for (row, column), colour in zip(points, colours, strict=True):
        centre = [
            int((at + 0.5) * length / whole)
            for at, length, whole in zip((row, column), shown.shape, image.shape, strict=False)
        ]
        for reach, paint in ((POINT_REACH + 1, (0, 0, 0)), (POINT_REACH, colour)):
            rows, columns = (slice(max(0, at - reach), at + reach + 1) for at in centre)
            shown[rows, columns] = paint
    return shown


def data_uri(picture: Picture, quality: int = 80) -> str:
    """The picture as a WebP data URI."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _pale(image: Picture) -> npt.NDArray[np.float64]:
    """Grey, with less contrast and more light, so that colours on it are read as colours; whole numbers."""
    grey = image.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    pale: npt.NDArray[np.float64] = np.repeat((0.5 * grey + 118.0).round()[..., None], 3, axis=2)
    return pale


def class_edges(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Pixels with a neighbour (up, down, left, right) of another class."""
    edge = np.zeros(mask.shape, dtype=bool)
    rows, columns = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    edge[1:] |= rows
    edge[:-1] |= rows
    edge[:, 1:] |= columns
    edge[:, :-1] |= columns
    return edge


def _word_colour(word: int) -> tuple[int, ...]:
    hue, lightness = (word * 0.618034) % 1.0, 0.36 + 0.12 * (word % 4)
    return tuple(round(255 * part) for part in colorsys.hls_to_rgb(hue, lightness, 0.6))


def _rgb(class_id: int) -> tuple[int, int, int]:
    colour = class_colour(class_id)
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _resized(values: npt.NDArray[Any], size: tuple[int, int], filter_: Image.Resampling) -> npt.NDArray[Any]:
    if values.shape[:2] == size:
        return values
    return np.asarray(Image.fromarray(values).resize((size[1], size[0]), filter_))
