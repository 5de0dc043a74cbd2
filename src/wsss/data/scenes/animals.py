"""The shapes of the animals of the world; vehicles and bottles are in `shapes.py`."""

from __future__ import annotations

from typing import Final

from wsss.data.scenes.pen import Pen, darker, lighter
from wsss.data.scenes.shapes import VEHICLES, Shape

EYE: Final = (24, 24, 28)
WHITE: Final = (248, 248, 244)


def parrot(pen: Pen) -> None:
    """Upright, with a long tail and a hooked beak."""
    pen.polygon([(0.52, 0.6), (0.74, 0.56), (1.0, 1.0), (0.86, 1.0)], pen.accent)
    pen.polygon([(0.2, 0.3), (0.5, 0.2), (0.76, 0.42), (0.78, 0.66), (0.6, 0.8), (0.36, 0.72), (0.22, 0.5)])
    pen.polygon([(0.44, 0.36), (0.7, 0.42), (0.86, 0.78), (0.56, 0.66)], darker(pen.body, 0.75))
    pen.disc(0.34, 0.2, 0.17)
    pen.key_polygon([(0.16, 0.12), (0.02, 0.18), (0.0, 0.34), (0.1, 0.28), (0.2, 0.28)])
    pen.key_disc(0.33, 0.15, 0.065)
    pen.key_disc(0.33, 0.15, 0.03, EYE)
    pen.stroke([(0.46, 0.76), (0.44, 0.92)], 0.03, IRON_LEG)


def duck(pen: Pen) -> None:
    """Low and wide, with a raised tail and a flat beak."""
    pen.polygon([(0.76, 0.56), (1.0, 0.36), (0.96, 0.76)], pen.accent)
    pen.polygon([(0.2, 0.54), (0.36, 0.5), (0.6, 0.48), (0.94, 0.6), (0.86, 0.88), (0.6, 1.0), (0.36, 0.98),
                 (0.2, 0.82)])  # fmt: skip
    pen.polygon([(0.2, 0.2), (0.4, 0.2), (0.46, 0.6), (0.2, 0.68)])
    pen.disc(0.31, 0.21, 0.145)
    pen.polygon([(0.44, 0.62), (0.84, 0.6), (0.7, 0.86), (0.5, 0.82)], darker(pen.body, 0.75))
    pen.key_polygon([(0.2, 0.18), (0.0, 0.24), (0.0, 0.34), (0.2, 0.34)])
    pen.key_disc(0.3, 0.15, 0.05)
    pen.key_disc(0.3, 0.15, 0.022, EYE)


def owl(pen: Pen) -> None:
    """Upright and round, with tufts and two large eyes."""
    pen.polygon([(0.16, 0.0), (0.4, 0.14), (0.16, 0.3)])
    pen.polygon([(0.84, 0.0), (0.6, 0.14), (0.84, 0.3)])
    pen.ellipse(0.5, 0.6, 0.44, 0.4)
    pen.ellipse(0.5, 0.28, 0.4, 0.2)
    pen.polygon([(0.06, 0.5), (0.22, 0.46), (0.24, 0.84), (0.1, 0.8)], darker(pen.body, 0.7))
    pen.polygon([(0.94, 0.5), (0.78, 0.46), (0.76, 0.84), (0.9, 0.8)], darker(pen.body, 0.7))
    pen.ellipse(0.5, 0.68, 0.22, 0.22, lighter(pen.accent, 0.4))
    for centre in (0.32, 0.68):
        pen.key_disc(centre, 0.27, 0.115)
        pen.key_disc(centre, 0.27, 0.045, EYE)
    pen.key_polygon([(0.42, 0.36), (0.58, 0.36), (0.5, 0.5)])


def _ear_pair(pen: Pen, u: float, apart: float, top: float, bottom: float, width: float) -> None:
    for centre in (u - apart, u + apart):
        lean = 0.3 * (centre - u)
        pen.key_polygon([(centre - width, bottom), (centre + lean, top), (centre + width, bottom)])


def _face(pen: Pen, u: float, v: float, apart: float, size: float) -> None:
    for centre in (u - apart, u + apart):
        pen.disc(centre, v, size, (206, 220, 110))
        pen.disc(centre, v, size * 0.5, EYE)


def tabby(pen: Pen) -> None:
    """Sitting, the tail curled upwards."""
    pen.stroke([(0.78, 0.92), (0.97, 0.84), (0.96, 0.6), (0.86, 0.5)], 0.085)
    pen.polygon([(0.28, 0.4), (0.56, 0.38), (0.74, 0.6), (0.84, 0.86), (0.8, 1.0), (0.24, 1.0), (0.2, 0.7)])
    pen.box(0.28, 0.7, 0.36, 1.0, darker(pen.body, 0.82))
    pen.box(0.42, 0.7, 0.5, 1.0, darker(pen.body, 0.82))
    _ear_pair(pen, 0.37, 0.17, 0.0, 0.2, 0.1)
    pen.ellipse(0.37, 0.27, 0.27, 0.18)
    _face(pen, 0.37, 0.25, 0.11, 0.036)
    pen.key_polygon([(0.31, 0.32), (0.43, 0.32), (0.37, 0.39)])


def siamese(pen: Pen) -> None:
    """Standing and slim, with dark legs, tail and mask."""
    points = darker(pen.accent, 0.6)
    pen.stroke([(0.9, 0.48), (0.98, 0.3), (0.93, 0.08)], 0.055, points)
    for leg in (0.3, 0.42, 0.76, 0.88):
        pen.box(leg - 0.035, 0.6, leg + 0.035, 1.0, points)
    pen.polygon([(0.22, 0.42), (0.36, 0.36), (0.84, 0.38), (0.96, 0.5), (0.92, 0.72), (0.3, 0.74)])
    _ear_pair(pen, 0.2, 0.115, 0.0, 0.22, 0.075)
    pen.ellipse(0.2, 0.31, 0.19, 0.21)
    pen.ellipse(0.2, 0.36, 0.115, 0.13, points)
    _face(pen, 0.2, 0.27, 0.085, 0.026)
    pen.key_polygon([(0.145, 0.36), (0.255, 0.36), (0.2, 0.45)])


def kitten(pen: Pen) -> None:
    """A head as large as its body."""
    pen.stroke([(0.72, 0.9), (0.95, 0.8), (0.94, 0.62)], 0.075)
    pen.ellipse(0.5, 0.8, 0.3, 0.2)
    pen.ellipse(0.38, 0.94, 0.09, 0.06, lighter(pen.body, 0.45))
    pen.ellipse(0.62, 0.94, 0.09, 0.06, lighter(pen.body, 0.45))
    _ear_pair(pen, 0.5, 0.26, 0.0, 0.24, 0.14)
    pen.ellipse(0.5, 0.38, 0.42, 0.28)
    _face(pen, 0.5, 0.36, 0.18, 0.062)
    pen.key_polygon([(0.43, 0.46), (0.57, 0.46), (0.5, 0.54)])


def _legs(pen: Pen, top: float, *places: float, half: float = 0.045) -> None:
    for leg in places:
        pen.box(leg - half, top, leg + half, 1.0, darker(pen.body, 0.8))
        pen.box(leg - half, 0.93, leg + half, 1.0, EYE)


def holstein(pen: Pen) -> None:
    """A long level back, an udder and a hanging tail."""
    pen.stroke([(0.96, 0.34), (0.99, 0.74)], 0.025, pen.accent)
    _legs(pen, 0.62, 0.34, 0.44, 0.8, 0.9)
    pen.ellipse(0.72, 0.72, 0.09, 0.08, (238, 190, 190))
    pen.polygon([(0.28, 0.28), (0.94, 0.26), (0.98, 0.36), (0.95, 0.68), (0.32, 0.72), (0.26, 0.52)])
    pen.polygon([(0.1, 0.2), (0.28, 0.16), (0.38, 0.34), (0.3, 0.5), (0.1, 0.56), (0.06, 0.38)])
    pen.polygon([(0.26, 0.2), (0.38, 0.14), (0.36, 0.26)], darker(pen.body, 0.8))
    pen.key_polygon([(0.02, 0.4), (0.2, 0.4), (0.22, 0.6), (0.02, 0.62)])
    pen.key_polygon([(0.08, 0.21), (0.03, 0.02), (0.14, 0.17)])
    pen.key_polygon([(0.19, 0.18), (0.27, 0.0), (0.26, 0.17)])
    pen.disc(0.16, 0.32, 0.02, EYE)


def bull(pen: Pen) -> None:
    """A high shoulder, a lowered head and wide horns."""
    pen.stroke([(0.96, 0.36), (1.0, 0.62)], 0.03, pen.accent)
    _legs(pen, 0.6, 0.32, 0.46, 0.8, 0.91, half=0.05)
    pen.polygon([(0.2, 0.3), (0.38, 0.1), (0.56, 0.16), (0.92, 0.3), (0.98, 0.46), (0.92, 0.68), (0.4, 0.8),
                 (0.22, 0.68)])  # fmt: skip
    pen.polygon([(0.06, 0.34), (0.28, 0.28), (0.36, 0.5), (0.26, 0.68), (0.1, 0.68)])
    pen.key_polygon([(0.02, 0.54), (0.2, 0.54), (0.22, 0.74), (0.04, 0.76)])
    pen.key_polygon([(0.08, 0.36), (0.0, 0.12), (0.06, 0.1), (0.16, 0.33)])
    pen.key_polygon([(0.22, 0.31), (0.3, 0.06), (0.35, 0.08), (0.31, 0.34)])
    pen.disc(0.17, 0.45, 0.022, EYE)


def calf(pen: Pen) -> None:
    """Long legs under a short body, and buds for horns."""
    pen.stroke([(0.9, 0.42), (0.96, 0.66)], 0.03, pen.accent)
    _legs(pen, 0.58, 0.42, 0.54, 0.76, 0.87, half=0.04)
    pen.polygon([(0.36, 0.36), (0.86, 0.36), (0.94, 0.46), (0.9, 0.66), (0.4, 0.68)])
    pen.polygon([(0.1, 0.16), (0.34, 0.12), (0.5, 0.42), (0.42, 0.58), (0.3, 0.44), (0.12, 0.46)])
    pen.polygon([(0.34, 0.18), (0.52, 0.16), (0.44, 0.3)], darker(pen.body, 0.8))
    pen.key_polygon([(0.04, 0.3), (0.21, 0.3), (0.23, 0.5), (0.04, 0.52)])
    pen.key_polygon([(0.14, 0.17), (0.15, 0.02), (0.23, 0.15)])
    pen.key_polygon([(0.26, 0.15), (0.32, 0.0), (0.34, 0.15)])
    pen.disc(0.23, 0.25, 0.026, EYE)


IRON_LEG: Final = (96, 84, 78)

ANIMALS: Final[dict[str, dict[str, tuple[Shape, float]]]] = {
    "bird": {"parrot": (parrot, 1.25), "duck": (duck, 0.78), "owl": (owl, 1.3)},
    "cat": {"tabby": (tabby, 1.1), "siamese": (siamese, 0.72), "kitten": (kitten, 1.0)},
    "cow": {"holstein": (holstein, 0.7), "bull": (bull, 0.74), "calf": (calf, 0.95)},
}

SHAPES: Final[dict[str, dict[str, tuple[Shape, float]]]] = {**VEHICLES, **ANIMALS}
