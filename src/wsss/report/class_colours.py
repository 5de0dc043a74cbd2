"""Colours of classes in reports: ten chosen by hand, each further one as far from all before it as can be.

Source:
    Distances are those of Oklab, Ottosson, *A perceptual color space for image processing*, 2020,
    https://bottosson.github.io/posts/oklab/.
"""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

FIRST: Final = (
    "#d1495b",
    "#2a7fba",
    "#e0a030",
    "#3f9c5a",
    "#8257b5",
    "#12a3a0",
    "#e0703c",
    "#c45a9c",
    "#7d8f2f",
    "#54678f",
)
HUES: Final = 36
LIGHTNESSES: Final = (0.28, 0.38, 0.5, 0.62, 0.72)  # neither lost on white nor on black
SATURATIONS: Final = (0.35, 0.6)

_TO_CONES: Final = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_OKLAB: Final = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def class_colour(class_id: int) -> str:
    """Colour of a foreground class, `#rrggbb`; after 370 classes they come again.

    Args:
        class_id: 1…K.
    """
    colours = _all_colours()
    return colours[(class_id - 1) % len(colours)]


def oklab(colours: Sequence[str]) -> npt.NDArray[np.float64]:
    """Colours, `#rrggbb`, where distance is difference to the eye; (N, 3)."""
    values = [[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in colours]
    rgb = np.asarray(values)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(linear @ np.asarray(_TO_CONES).T)
    found: npt.NDArray[np.float64] = cones @ np.asarray(_TO_OKLAB).T
    return found


@functools.cache
def _all_colours() -> tuple[str, ...]:
    others = [
        _hexadecimal(hue / HUES, lightness, saturation)
        for hue in range(HUES)
        for lightness in LIGHTNESSES
        for saturation in SATURATIONS
    ]
    places, chosen = oklab(others), list(FIRST)
    distances = np.linalg.norm(places[:, None] - oklab(FIRST)[None], axis=2).min(axis=1)
    for _ in others:
        furthest = int(distances.argmax())
        chosen.append(others[furthest])
        distances = np.minimum(distances, np.linalg.norm(places - places[furthest], axis=1))
    return tuple(dict.fromkeys(chosen))


def _hexadecimal(hue: float, lightness: float, saturation: float) -> str:
    parts = colorsys.hls_to_rgb(hue, lightness, saturation)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)
