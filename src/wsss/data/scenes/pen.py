"""Draws one object from flat parts: outline, texture, light, and which pixels belong to the key part.

Shapes speak in unit coordinates (u right, v down, the object's box is [0, 1] x [0, 1]); the pen turns,
mirrors and scales them, draws on a canvas three times finer than the image and returns a layer for it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from wsss.data.scenes.textures import smooth_noise

SUPERSAMPLING: Final = 3

Array = np.ndarray
Point = tuple[float, float]
Colour = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Layer:
    """A drawn object: where it goes and what it covers.

    Args:
        top: first row in the image; may be negative.
        left: first column in the image; may be negative.
        colour: RGB, 0-255; (h, w, 3), float32.
        alpha: share of each pixel that is covered; (h, w), float32 in [0, 1].
        key: share of each pixel covered by the key part; (h, w), float32 in [0, 1].
    """

    top: int
    left: int
    colour: Array
    alpha: Array
    key: Array


@dataclass(frozen=True)
class Pose:
    """How an object stands: centre and size in pixels, mirrored or not, turned by `angle` degrees."""

    x: float
    y: float
    width: float
    height: float
    flip: bool = False
    angle: float = 0.0


def darker(colour: Colour, share: float = 0.6) -> Colour:
    """`colour` times `share`."""
    return (int(colour[0] * share), int(colour[1] * share), int(colour[2] * share))


def lighter(colour: Colour, share: float = 0.4) -> Colour:
    """`colour` moved towards white by `share`."""
    return (
        int(colour[0] + (255 - colour[0]) * share),
        int(colour[1] + (255 - colour[1]) * share),
        int(colour[2] + (255 - colour[2]) * share),
    )


class Pen:
    """Collects the parts of one object.

    Args:
        pose: where it stands in the image.
        body: main colour; textured.
        accent: second colour, of the texture and of smaller parts.
        key: the class's own colour.
        with_key: false leaves the key part out.
    """

    def __init__(
        self, pose: Pose, *, body: Colour, accent: Colour, key: Colour, with_key: bool = True
    ) -> None:
        self.body, self.accent, self.key = body, accent, key
        self._with_key = with_key
        self._pose = pose
        turn = math.radians(pose.angle)
        self._cos, self._sin = math.cos(turn), math.sin(turn)
        half_width = 0.5 * (abs(pose.width * self._cos) + abs(pose.height * self._sin)) * 1.08 + 2
        half_height = 0.5 * (abs(pose.width * self._sin) + abs(pose.height * self._cos)) * 1.08 + 2
        self._left, self._top = math.floor(pose.x - half_width), math.floor(pose.y - half_height)
        size = (
            (math.ceil(pose.x + half_width) - self._left) * SUPERSAMPLING,
            (math.ceil(pose.y + half_height) - self._top) * SUPERSAMPLING,
        )
        self._colour = Image.new("RGB", size, body)
        self._masks = [Image.new("L", size, 0) for _ in range(3)]  # alpha, textured body, key
        self._draw = ImageDraw.Draw(self._colour)
        self._mask_draws = [ImageDraw.Draw(mask) for mask in self._masks]
        self._outline = max(1, round(0.02 * max(pose.width, pose.height) * SUPERSAMPLING * 0.7))

    def polygon(self, points: Sequence[Point], colour: Colour | None = None) -> None:
        """A part of the body; textured in the body colour unless a `colour` is given."""
        self._part(points, self.body if colour is None else colour, textured=colour is None, is_key=False)

    def key_polygon(self, points: Sequence[Point], colour: Colour | None = None) -> None:
        """A piece of the key part, in the class's own colour unless a `colour` is given."""
        if self._with_key:
            self._part(points, self.key if colour is None else colour, textured=False, is_key=True)

    def ellipse(self, u: float, v: float, across: float, down: float, colour: Colour | None = None) -> None:
        """An ellipse around (u, v) with radii `across` and `down`."""
        self.polygon(_ring(u, v, across, down), colour)

    def key_ellipse(
        self, u: float, v: float, across: float, down: float, colour: Colour | None = None
    ) -> None:
        """An ellipse of the key part."""
        self.key_polygon(_ring(u, v, across, down), colour)

    def disc(self, u: float, v: float, radius: float, colour: Colour | None = None) -> None:
        """A disc that stays round whatever the box; `radius` in parts of the longer side."""
        across, down = self._round(radius)
        self.ellipse(u, v, across, down, colour)

    def key_disc(self, u: float, v: float, radius: float, colour: Colour | None = None) -> None:
        """A round disc of the key part."""
        across, down = self._round(radius)
        self.key_ellipse(u, v, across, down, colour)

    def box(self, u: float, v: float, right: float, bottom: float, colour: Colour | None = None) -> None:
        """A rectangle from (u, v) to (right, bottom)."""
        self.polygon([(u, v), (right, v), (right, bottom), (u, bottom)], colour)

    def stroke(self, points: Sequence[Point], width: float, colour: Colour | None = None) -> None:
        """A thick line through `points`; `width` in parts of the longer side."""
        across, down = self._round(width / 2)
        for (u, v), (to_u, to_v) in itertools.pairwise(points):
            length = math.hypot((to_u - u) / across, (to_v - v) / down) or 1.0
            du, dv = -(to_v - v) / down / length * across, (to_u - u) / across / length * down
            self.polygon(
                [(u + du, v + dv), (to_u + du, to_v + dv), (to_u - du, to_v - dv), (u - du, v - dv)], colour
            )

    def finish(self, rng: np.random.Generator, pattern: str) -> Layer:
        """Texture and light the body and shrink everything to the image's grid.

        Args:
            rng: source of the texture's randomness.
            pattern: plain, stripes, spots, checks or patches.
        """
        alpha, textured, key = (
            np.asarray(mask.reduce(SUPERSAMPLING), np.float32) / 255 for mask in self._masks
        )
        colour: Array = np.asarray(self._colour.reduce(SUPERSAMPLING), np.float32)
        height, width = alpha.shape
        share = _pattern(rng, pattern, height, width)[..., None] * textured[..., None]
        colour = colour + share * (np.array(self.accent, np.float32) - np.array(self.body, np.float32))
        fall = np.linspace(1.1, 0.86, height, dtype=np.float32)[:, None]
        unevenness = 0.10 * (smooth_noise(rng, height, width, 6, 6) - 0.5)
        light = np.where(key > 0.5, np.float32(1.0), fall + unevenness)
        return Layer(self._top, self._left, (colour * light[..., None]).clip(0, 255), alpha, key)

    def _round(self, radius: float) -> tuple[float, float]:
        longer = max(self._pose.width, self._pose.height)
        return radius * longer / self._pose.width, radius * longer / self._pose.height

    def _part(self, points: Sequence[Point], colour: Colour, *, textured: bool, is_key: bool) -> None:
        placed = [self._place(u, v) for u, v in points]
        self._draw.polygon(placed, fill=colour, outline=darker(colour, 0.62), width=self._outline)
        for draw, value in zip(self._mask_draws, (255, 255 * textured, 255 * is_key), strict=True):
            draw.polygon(placed, fill=value)

    def _place(self, u: float, v: float) -> Point:
        pose = self._pose
        x = (0.5 - u if pose.flip else u - 0.5) * pose.width
        y = (v - 0.5) * pose.height
        turned_x, turned_y = x * self._cos - y * self._sin, x * self._sin + y * self._cos
        return (
            (pose.x + turned_x - self._left) * SUPERSAMPLING,
            (pose.y + turned_y - self._top) * SUPERSAMPLING,
        )


PATTERNS: Final = ("plain", "stripes", "spots", "checks", "patches")


def _pattern(rng: np.random.Generator, pattern: str, height: int, width: int) -> Array:
    """Where the accent colour shows through the body; (h, w) in [0, 1]."""
    v, u = np.mgrid[0:height, 0:width].astype(np.float32) / max(height, width)
    share: Array
    if pattern == "stripes":
        turn = rng.uniform(0, math.pi)
        wave = np.sin(
            2 * math.pi * rng.uniform(6, 9) * (u * math.cos(turn) + v * math.sin(turn)) + rng.uniform(0, 6)
        )
        share = wave * 2 + 0.2
    elif pattern == "spots":
        count = rng.uniform(5, 8)
        waves = np.sin(2 * math.pi * count * (u + 0.3 * v)) * np.sin(2 * math.pi * count * (v - 0.3 * u))
        share = waves * 4 - 1.4
    elif pattern == "checks":
        count = rng.uniform(4, 6)
        waves = np.sin(2 * math.pi * count * u + 1) * np.sin(2 * math.pi * count * v + 1)
        share = waves * 4 + 0.5
    elif pattern == "patches":
        share = (smooth_noise(rng, height, width, 4, 5) - 0.52) * 9 + 0.5
    else:
        share = 0.35 * smooth_noise(rng, height, width, 5, 5)
    return share.clip(0, 1)


def _ring(u: float, v: float, across: float, down: float, steps: int = 22) -> list[Point]:
    turns = [2 * math.pi * step / steps for step in range(steps)]
    return [(u + across * math.cos(turn), v + down * math.sin(turn)) for turn in turns]
