"""The second set of shapes and textures, kept out of the benchmark and of the teacher's training.

A model trained on these alone (a saliency detector) has seen objects and backgrounds, but none of the
benchmark's.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from wsss.data.scenes.pen import Pen, darker, lighter
from wsss.data.scenes.shapes import GLASS, Shape
from wsss.data.scenes.textures import Array, Texture, grid_of, mix, pick, rgb, smooth_noise, tone


def house(pen: Pen) -> None:
    """Walls, a roof, a door and a window."""
    pen.box(0.1, 0.4, 0.9, 1.0)
    pen.polygon([(0.0, 0.44), (0.5, 0.0), (1.0, 0.44)], pen.accent)
    pen.box(0.2, 0.6, 0.4, 1.0, darker(pen.accent, 0.7))
    pen.box(0.54, 0.56, 0.78, 0.76, GLASS)


def mushroom(pen: Pen) -> None:
    """A stalk under a cap with dots."""
    pen.polygon([(0.38, 0.46), (0.62, 0.46), (0.7, 1.0), (0.3, 1.0)], lighter(pen.accent, 0.6))
    pen.polygon([(0.0, 0.5), (0.1, 0.22), (0.34, 0.02), (0.66, 0.02), (0.9, 0.22), (1.0, 0.5)])
    for u, v in ((0.28, 0.28), (0.52, 0.16), (0.74, 0.34)):
        pen.disc(u, v, 0.07, lighter(pen.body, 0.75))


def umbrella(pen: Pen) -> None:
    """A canopy of panels over a bent handle."""
    pen.stroke([(0.5, 0.4), (0.5, 0.92), (0.6, 0.99), (0.68, 0.9)], 0.05, darker(pen.accent, 0.6))
    pen.polygon([(0.0, 0.48), (0.14, 0.18), (0.5, 0.02), (0.86, 0.18), (1.0, 0.48)])
    pen.polygon([(0.34, 0.48), (0.5, 0.02), (0.66, 0.48)], pen.accent)


def fish(pen: Pen) -> None:
    """An oval with fins and a forked tail."""
    pen.polygon([(0.74, 0.5), (1.0, 0.1), (0.94, 0.5), (1.0, 0.9)], pen.accent)
    pen.polygon([(0.3, 0.3), (0.56, 0.0), (0.62, 0.32)], pen.accent)
    pen.ellipse(0.42, 0.52, 0.42, 0.34)
    pen.disc(0.16, 0.44, 0.045, (24, 24, 28))


def cup(pen: Pen) -> None:
    """A mug with a handle."""
    pen.ellipse(0.8, 0.5, 0.2, 0.26, pen.accent)
    pen.polygon([(0.04, 0.06), (0.78, 0.06), (0.72, 1.0), (0.1, 1.0)])
    pen.ellipse(0.41, 0.08, 0.37, 0.08, darker(pen.body, 0.6))


def tent(pen: Pen) -> None:
    """Two slopes and an open front."""
    pen.polygon([(0.0, 1.0), (0.36, 0.04), (0.7, 1.0)])
    pen.polygon([(0.36, 0.04), (0.74, 0.1), (1.0, 0.92), (0.7, 1.0)], pen.accent)
    pen.polygon([(0.22, 1.0), (0.36, 0.4), (0.48, 1.0)], darker(pen.body, 0.4))


def gravel(rng: np.random.Generator, height: int, width: int) -> Array:
    """Grey and brown pebbles."""
    stones = smooth_noise(rng, height, width, 22, 22)
    return mix(
        tone(rng, (84, 80, 78)),
        pick(rng, [(176, 168, 156), (150, 150, 156)]),
        (stones * 1.7 - 0.35).clip(0, 1),
    )


def carpet(rng: np.random.Generator, height: int, width: int) -> Array:
    """A woven plaid."""
    v, u = grid_of(height, width)
    count = rng.uniform(4, 7)
    weave = 0.5 * (np.sin(2 * np.pi * count * u) > 0.2) + 0.5 * (np.sin(2 * np.pi * count * v) > 0.2)
    ends = pick(rng, [(140, 44, 60), (52, 70, 120)]), pick(rng, [(214, 186, 150), (190, 160, 190)])
    return mix(*ends, weave + 0.2 * (smooth_noise(rng, height, width, 60, 60) - 0.5))


def tiles(rng: np.random.Generator, height: int, width: int) -> Array:
    """A chequered floor with joints."""
    v, u = grid_of(height, width)
    count = int(rng.integers(5, 9))
    checks = ((np.floor(v * count) + np.floor(u * count)) % 2).astype(np.float32)
    image = mix(
        pick(rng, [(90, 120, 140), (120, 100, 90)]), pick(rng, [(224, 224, 216), (210, 220, 228)]), checks
    )
    joint = ((v * count) % 1.0 < 0.07) | ((u * count) % 1.0 < 0.07)
    return np.where(joint[..., None], rgb(150, 150, 146), image)


def marble(rng: np.random.Generator, height: int, width: int) -> Array:
    """Pale stone with wandering veins."""
    bend = smooth_noise(rng, height, width, 5, 5) + 0.4 * smooth_noise(rng, height, width, 14, 14)
    veins = (1.0 - np.abs(np.sin(9 * bend + rng.uniform(0, 6)))) ** 4
    return mix(pick(rng, [(232, 228, 224), (216, 222, 214)], 6), tone(rng, (112, 116, 124)), veins * 0.9)


def night(rng: np.random.Generator, height: int, width: int) -> Array:
    """A dark sky with stars."""
    v, _ = grid_of(height, width)
    image = mix(tone(rng, (14, 16, 44), 5), tone(rng, (60, 52, 104), 8), np.broadcast_to(v, (height, width)))
    stars = smooth_noise(rng, height, width, 48, 48) > 0.94
    return np.where(stars[..., None], rgb(240, 240, 220), image)


RESERVED_SHAPES: Final[dict[str, dict[str, tuple[Shape, float]]]] = {
    "house": {"house": (house, 1.0)},
    "mushroom": {"mushroom": (mushroom, 1.05)},
    "umbrella": {"umbrella": (umbrella, 1.0)},
    "fish": {"fish": (fish, 0.6)},
    "cup": {"cup": (cup, 0.85)},
    "tent": {"tent": (tent, 0.8)},
}

RESERVED_TEXTURES: Final[dict[str, Texture]] = {
    "gravel": gravel,
    "carpet": carpet,
    "tiles": tiles,
    "marble": marble,
    "night": night,
}
