"""The pictures of the review page: photograph, mask over it, mask alone; large enough to judge an outline."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsss.report.class_colours import class_colour
from wsss.report.images import UNSURE, Picture, class_edges
from wsss.review.signals import Mask
from wsss.types import BACKGROUND, IGNORE

SMALLEST: Final = 240  # longest side in pixels; smaller pictures are enlarged by whole numbers
LARGEST: Final = 420
STRENGTH: Final = 0.5  # share of the class's colour in the overlay
GROUND: Final = 232  # grey of the background in the mask alone


def photograph(image: Picture) -> Picture:
    """The photograph at the size in which the page shows it; (H, W, 3)."""
    size = page_size(*image.shape[:2])
    filter_ = Image.Resampling.NEAREST if size[0] >= image.shape[0] else Image.Resampling.LANCZOS
    picture: Picture = np.asarray(Image.fromarray(image).resize((size[1], size[0]), filter_))
    return picture


def overlay(image: Picture, mask: Mask) -> Picture:
    """The mask's classes in their colours over the photograph, with a line around each region."""
    base = photograph(image)
    shown = _at_size(mask, base)
    blended = base.astype(np.float64)
    edge = class_edges(shown)
    for label in _labels(shown):
        inside, colour = shown == label, _colour(label)
        blended[inside] += (colour - blended[inside]) * STRENGTH
        blended[inside & edge] = colour
    picture: Picture = blended.round().astype(np.uint8)
    return picture


def flat(image: Picture, mask: Mask) -> Picture:
    """The mask alone: classes in their colours on grey, unsure pixels white."""
    base = np.full_like(photograph(image), GROUND)
    shown = _at_size(mask, base)
    for label in _labels(shown):
        base[shown == label] = _colour(label).round().astype(np.uint8)
    return base


def page_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) in which the page shows a picture.

    Example:
        >>> page_size(96, 64), page_size(375, 500), page_size(300, 300)
        ((288, 192), (315, 420), (300, 300))
    """
    longest = max(height, width)
    if longest < SMALLEST:
        factor = -(-SMALLEST // longest)
        return factor * height, factor * width
    share = min(1.0, LARGEST / longest)
    return max(1, round(share * height)), max(1, round(share * width))


def _labels(mask: Mask) -> list[int]:
    return [label for label in np.unique(mask).tolist() if label != BACKGROUND]


def _colour(label: int) -> npt.NDArray[np.float64]:
    if label == IGNORE:
        return np.array(UNSURE, dtype=np.float64)
    text = class_colour(label)
    return np.array([int(text[at : at + 2], 16) for at in (1, 3, 5)], dtype=np.float64)


def _at_size(mask: Mask, base: Picture) -> Mask:
    size = base.shape[1], base.shape[0]
    shown: Mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    return shown
