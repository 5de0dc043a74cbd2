"""The shapes of the vehicles and bottles of the world; animals are in `animals.py`.

Each function draws one kind of one class into a unit box, facing left. `SHAPES[class][kind]` finds it;
the second value is the box's height divided by its width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from wsss.data.scenes.pen import Pen, darker, lighter

Shape = Callable[[Pen], None]

GLASS: Final = (176, 214, 232)
METAL: Final = (150, 150, 158)
IRON: Final = (112, 84, 76)


def airliner(pen: Pen) -> None:
    """A long body with one swept wing and round windows."""
    pen.polygon([(0.46, 0.6), (0.62, 0.6), (0.86, 1.0), (0.74, 1.0)], pen.accent)
    pen.key_polygon([(0.8, 0.5), (0.86, 0.02), (0.99, 0.02), (0.97, 0.5)])
    pen.polygon(
        [(0.0, 0.56), (0.06, 0.42), (0.2, 0.33), (0.86, 0.36), (1.0, 0.45), (0.86, 0.64), (0.16, 0.72)]
    )
    pen.polygon([(0.84, 0.5), (0.93, 0.5), (1.0, 0.66), (0.92, 0.66)], pen.accent)
    for window in range(5):
        pen.disc(0.24 + 0.1 * window, 0.47, 0.02, GLASS)
    pen.polygon([(0.05, 0.47), (0.12, 0.39), (0.15, 0.47)], GLASS)


def biplane(pen: Pen) -> None:
    """Two stacked wings, struts, a propeller and a wheel."""
    pen.key_polygon([(0.84, 0.46), (0.9, 0.06), (1.0, 0.1), (0.98, 0.5)])
    pen.polygon([(0.08, 0.4), (0.4, 0.34), (1.0, 0.46), (0.98, 0.58), (0.36, 0.72), (0.08, 0.66)])
    pen.stroke([(0.26, 0.18), (0.28, 0.72)], 0.025, METAL)
    pen.stroke([(0.46, 0.18), (0.48, 0.72)], 0.025, METAL)
    pen.polygon([(0.14, 0.1), (0.6, 0.1), (0.62, 0.24), (0.16, 0.24)], pen.accent)
    pen.polygon([(0.16, 0.66), (0.6, 0.66), (0.62, 0.8), (0.18, 0.8)], pen.accent)
    pen.disc(0.36, 0.92, 0.04, IRON)
    pen.polygon([(0.02, 0.2), (0.07, 0.2), (0.07, 0.86), (0.02, 0.86)], METAL)


def jet(pen: Pen) -> None:
    """A needle nose, a delta wing and a canopy."""
    pen.key_polygon([(0.7, 0.44), (0.9, 0.0), (1.0, 0.0), (0.96, 0.46)])
    pen.polygon([(0.0, 0.58), (0.34, 0.42), (0.96, 0.4), (1.0, 0.6), (0.36, 0.7)])
    pen.polygon([(0.36, 0.58), (0.92, 0.56), (0.98, 0.98), (0.84, 1.0)], pen.accent)
    pen.polygon([(0.22, 0.46), (0.32, 0.32), (0.46, 0.42)], GLASS)
    pen.box(0.95, 0.44, 1.0, 0.58, METAL)


def sailboat(pen: Pen) -> None:
    """A hull under a mast with two sails."""
    sail = lighter(pen.accent, 0.35)
    pen.box(0.46, 0.06, 0.5, 0.76, IRON)
    pen.polygon([(0.44, 0.14), (0.44, 0.7), (0.06, 0.7)], sail)
    pen.polygon([(0.53, 0.08), (0.94, 0.7), (0.53, 0.7)])
    pen.key_polygon([(0.49, 0.0), (0.72, 0.05), (0.49, 0.11)])
    pen.polygon([(0.02, 0.74), (0.98, 0.74), (0.84, 1.0), (0.18, 1.0)])
    pen.key_polygon([(0.045, 0.78), (0.955, 0.78), (0.91, 0.88), (0.09, 0.88)])


def motorboat(pen: Pen) -> None:
    """A low wedge with a windshield and a cabin."""
    pen.polygon([(0.44, 0.42), (0.52, 0.12), (0.76, 0.12), (0.8, 0.42)], pen.accent)
    pen.polygon([(0.36, 0.42), (0.5, 0.16), (0.54, 0.42)], GLASS)
    pen.box(0.9, 0.0, 0.93, 0.5, IRON)
    pen.key_polygon([(0.92, 0.0), (0.7, 0.06), (0.92, 0.18)])
    pen.polygon([(0.0, 0.4), (1.0, 0.4), (0.96, 1.0), (0.3, 1.0)])
    pen.key_polygon([(0.04, 0.48), (0.995, 0.48), (0.985, 0.66), (0.13, 0.66)])


def ferry(pen: Pen) -> None:
    """A deep hull with two decks and a funnel."""
    pale = lighter(pen.accent, 0.5)
    pen.box(0.56, 0.06, 0.7, 0.36, pen.accent)
    pen.box(0.2, 0.32, 0.86, 0.46, pale)
    pen.box(0.12, 0.44, 0.92, 0.62, pale)
    for window in range(6):
        pen.box(0.19 + 0.12 * window, 0.49, 0.25 + 0.12 * window, 0.56, GLASS)
    pen.box(0.22, 0.04, 0.245, 0.36, IRON)
    pen.key_polygon([(0.24, 0.03), (0.46, 0.09), (0.24, 0.17)])
    pen.polygon([(0.0, 0.6), (1.0, 0.6), (0.94, 1.0), (0.12, 1.0)])
    pen.key_polygon([(0.025, 0.66), (0.99, 0.66), (0.97, 0.77), (0.06, 0.77)])


def wine(pen: Pen) -> None:
    """Tall, with sloping shoulders, a long neck and a label."""
    pen.polygon(
        [(0.36, 0.14), (0.64, 0.14), (0.66, 0.36), (0.95, 0.5), (1.0, 0.6), (1.0, 0.98),
         (0.9, 1.0), (0.1, 1.0), (0.0, 0.98), (0.0, 0.6), (0.05, 0.5), (0.34, 0.36)]
    )  # fmt: skip
    pen.box(0.0, 0.62, 1.0, 0.86, lighter(pen.accent, 0.3))
    pen.box(0.2, 0.7, 0.8, 0.76, darker(pen.accent, 0.7))
    pen.key_polygon([(0.26, 0.0), (0.74, 0.0), (0.74, 0.17), (0.26, 0.17)])


def flask(pen: Pen) -> None:
    """A round belly under a short neck."""
    pen.box(0.38, 0.16, 0.62, 0.5)
    pen.ellipse(0.5, 0.68, 0.5, 0.32)
    pen.ellipse(0.34, 0.6, 0.09, 0.1, lighter(pen.body, 0.6))
    pen.box(0.36, 0.32, 0.64, 0.37, pen.accent)
    pen.key_polygon([(0.27, 0.0), (0.73, 0.0), (0.68, 0.2), (0.32, 0.2)])


def jug(pen: Pen) -> None:
    """A broad body with a handle."""
    pen.ellipse(0.8, 0.56, 0.2, 0.24, pen.accent)
    pen.polygon([(0.26, 0.16), (0.56, 0.16), (0.6, 0.32), (0.78, 0.42), (0.8, 0.98), (0.04, 0.98),
                 (0.04, 0.42), (0.22, 0.32)])  # fmt: skip
    pen.box(0.04, 0.56, 0.8, 0.66, pen.accent)
    pen.box(0.04, 0.8, 0.8, 0.86, pen.accent)
    pen.key_polygon([(0.17, 0.0), (0.65, 0.0), (0.65, 0.18), (0.17, 0.18)])


def _wheels(pen: Pen, *centres: float, v: float = 0.82, radius: float = 0.115) -> None:
    for centre in centres:
        pen.key_disc(centre, v, radius)
        pen.key_disc(centre, v, radius * 0.36, METAL)


def sedan(pen: Pen) -> None:
    """A bonnet, a rounded cabin and a boot."""
    pen.polygon([(0.2, 0.42), (0.34, 0.06), (0.68, 0.06), (0.84, 0.42)])
    pen.polygon([(0.27, 0.4), (0.37, 0.14), (0.5, 0.14), (0.5, 0.4)], GLASS)
    pen.polygon([(0.54, 0.4), (0.54, 0.14), (0.66, 0.14), (0.77, 0.4)], GLASS)
    pen.polygon([(0.0, 0.56), (0.05, 0.44), (0.24, 0.38), (0.9, 0.38), (1.0, 0.5), (1.0, 0.8), (0.0, 0.8)])
    pen.box(0.0, 0.54, 0.06, 0.64, (250, 236, 170))
    _wheels(pen, 0.23, 0.77)


def van(pen: Pen) -> None:
    """A tall box with a short nose."""
    pen.polygon([(0.0, 0.52), (0.14, 0.1), (0.2, 0.02), (0.96, 0.02), (1.0, 0.08), (1.0, 0.84), (0.0, 0.84)])
    pen.polygon([(0.07, 0.46), (0.17, 0.14), (0.3, 0.14), (0.3, 0.46)], GLASS)
    pen.box(0.36, 0.14, 0.56, 0.42, GLASS)
    pen.box(0.62, 0.14, 0.92, 0.42, GLASS)
    pen.box(0.0, 0.56, 1.0, 0.64, pen.accent)
    _wheels(pen, 0.22, 0.78, v=0.85)


def convertible(pen: Pen) -> None:
    """An open top: a slanted windshield and two seats."""
    pen.polygon([(0.3, 0.44), (0.42, 0.06), (0.47, 0.06), (0.42, 0.46)], GLASS)
    pen.polygon([(0.5, 0.46), (0.52, 0.2), (0.6, 0.2), (0.62, 0.46)], pen.accent)
    pen.polygon([(0.68, 0.46), (0.7, 0.24), (0.78, 0.24), (0.8, 0.46)], pen.accent)
    pen.polygon([(0.0, 0.6), (0.06, 0.46), (0.34, 0.4), (0.46, 0.46), (0.8, 0.44), (0.96, 0.36), (1.0, 0.5),
                 (0.98, 0.8), (0.02, 0.8)])  # fmt: skip
    pen.box(0.01, 0.56, 0.07, 0.65, (250, 236, 170))
    _wheels(pen, 0.22, 0.78)


def steam(pen: Pen) -> None:
    """A boiler with a chimney and a dome; the cab at its end."""
    pen.polygon([(0.1, 0.32), (0.08, 0.0), (0.24, 0.0), (0.21, 0.32)], pen.accent)
    pen.ellipse(0.44, 0.28, 0.09, 0.14, pen.accent)
    pen.polygon([(0.04, 0.3), (0.66, 0.3), (0.66, 0.7), (0.04, 0.7), (0.0, 0.5)])
    pen.polygon([(0.0, 0.94), (0.1, 0.66), (1.0, 0.66), (1.0, 0.8), (0.16, 0.8)], darker(pen.body, 0.7))
    pen.key_polygon([(0.64, 0.12), (1.0, 0.12), (1.0, 0.72), (0.64, 0.72)])
    pen.key_polygon([(0.72, 0.22), (0.92, 0.22), (0.92, 0.42), (0.72, 0.42)], GLASS)
    for centre in (0.26, 0.46, 0.66, 0.86):
        pen.disc(centre, 0.84, 0.085, IRON)


def bullet(pen: Pen) -> None:
    """A long smooth body with a pointed cab and a band of windows."""
    pen.polygon([(0.14, 0.3), (0.26, 0.16), (1.0, 0.16), (1.0, 0.84), (0.1, 0.84)])
    pen.key_polygon([(0.0, 0.74), (0.08, 0.46), (0.24, 0.16), (0.36, 0.16), (0.36, 0.84), (0.02, 0.84)])
    pen.key_polygon([(0.1, 0.46), (0.21, 0.24), (0.29, 0.24), (0.27, 0.46)], GLASS)
    for window in range(5):
        pen.box(0.42 + 0.115 * window, 0.28, 0.5 + 0.115 * window, 0.48, GLASS)
    pen.box(0.36, 0.6, 1.0, 0.7, pen.accent)
    pen.box(0.08, 0.84, 1.0, 0.94, IRON)


def tram(pen: Pen) -> None:
    """An upright car with a current collector, large windows and doors."""
    pen.stroke([(0.46, 0.2), (0.58, 0.03), (0.7, 0.2)], 0.03, IRON)
    pen.box(0.02, 0.18, 1.0, 0.86)
    pen.box(0.04, 0.13, 0.98, 0.22, pen.accent)
    for window in range(3):
        pen.box(0.36 + 0.22 * window, 0.3, 0.52 + 0.22 * window, 0.52, GLASS)
    pen.box(0.3, 0.62, 1.0, 0.7, pen.accent)
    pen.key_polygon([(0.02, 0.2), (0.29, 0.2), (0.29, 0.86), (0.0, 0.86), (0.0, 0.5)])
    pen.key_polygon([(0.05, 0.3), (0.23, 0.3), (0.23, 0.54), (0.04, 0.54)], GLASS)
    for centre in (0.2, 0.36, 0.66, 0.82):
        pen.disc(centre, 0.9, 0.06, IRON)


VEHICLES: Final[dict[str, dict[str, tuple[Shape, float]]]] = {
    "aeroplane": {"airliner": (airliner, 0.46), "biplane": (biplane, 0.56), "jet": (jet, 0.42)},
    "boat": {"sailboat": (sailboat, 1.0), "motorboat": (motorboat, 0.5), "ferry": (ferry, 0.6)},
    "bottle": {"wine": (wine, 2.5), "flask": (flask, 1.45), "jug": (jug, 1.4)},
    "car": {"sedan": (sedan, 0.5), "van": (van, 0.62), "convertible": (convertible, 0.44)},
    "train": {"steam": (steam, 0.56), "bullet": (bullet, 0.4), "tram": (tram, 0.54)},
}
