"""Unlabelled things that stand beside the objects: background, but no texture and on no fixed list."""

from __future__ import annotations

from typing import Final

from wsss.data.scenes.pen import Colour, Pen, darker, lighter
from wsss.data.scenes.shapes import Shape


def rock(pen: Pen) -> None:
    """A grey boulder with lit and shaded faces."""
    pen.polygon([(0.0, 0.96), (0.08, 0.5), (0.32, 0.12), (0.62, 0.04), (0.9, 0.42), (1.0, 0.96)])
    pen.polygon([(0.32, 0.12), (0.62, 0.04), (0.56, 0.44), (0.26, 0.5)], lighter(pen.body, 0.25))
    pen.polygon([(0.56, 0.44), (0.9, 0.42), (1.0, 0.96), (0.6, 0.96)], darker(pen.body, 0.8))


def flower(pen: Pen) -> None:
    """A stem with leaves and six petals."""
    stem = (66, 132, 54)
    pen.box(0.47, 0.4, 0.54, 1.0, stem)
    pen.polygon([(0.5, 0.9), (0.14, 0.66), (0.3, 0.92)], stem)
    pen.polygon([(0.52, 0.82), (0.88, 0.6), (0.72, 0.86)], stem)
    for u, v in ((0.5, 0.1), (0.76, 0.2), (0.76, 0.42), (0.5, 0.52), (0.24, 0.42), (0.24, 0.2)):
        pen.ellipse(u, v, 0.19, 0.11, pen.body)
    pen.ellipse(0.5, 0.31, 0.15, 0.09, (252, 226, 120))


def cloud(pen: Pen) -> None:
    """A bank of white puffs."""
    for u, v, across, down in ((0.2, 0.64, 0.2, 0.28), (0.8, 0.66, 0.2, 0.26), (0.62, 0.46, 0.26, 0.4),
                               (0.38, 0.42, 0.24, 0.4), (0.5, 0.7, 0.4, 0.28)):  # fmt: skip
        pen.ellipse(u, v, across, down)


def post(pen: Pen) -> None:
    """A pole with a sign."""
    pen.box(0.4, 0.2, 0.6, 1.0)
    pen.polygon([(0.0, 0.04), (1.0, 0.04), (1.0, 0.3), (0.0, 0.3)], pen.accent)
    pen.box(0.14, 0.13, 0.86, 0.2, lighter(pen.accent, 0.7))


def bush(pen: Pen) -> None:
    """A low round shrub with berries."""
    for u, v, across, down in ((0.22, 0.68, 0.22, 0.3), (0.78, 0.68, 0.22, 0.3), (0.5, 0.48, 0.34, 0.44),
                               (0.5, 0.8, 0.44, 0.2)):  # fmt: skip
        pen.ellipse(u, v, across, down)
    for u, v in ((0.3, 0.5), (0.52, 0.3), (0.68, 0.6), (0.44, 0.7), (0.18, 0.74), (0.84, 0.78)):
        pen.disc(u, v, 0.05, pen.accent)


def crate(pen: Pen) -> None:
    """A box of slats with a diagonal."""
    pen.box(0.0, 0.0, 1.0, 1.0)
    pen.stroke([(0.1, 0.1), (0.9, 0.9)], 0.14, darker(pen.body, 0.7))
    for u, v, right, bottom in ((0.0, 0.0, 1.0, 0.16), (0.0, 0.84, 1.0, 1.0), (0.0, 0.0, 0.16, 1.0),
                                (0.84, 0.0, 1.0, 1.0)):  # fmt: skip
        pen.box(u, v, right, bottom, lighter(pen.body, 0.2))


# shape, height divided by width, size in parts of the image height, body colours, accent colours
DISTRACTORS: Final[dict[str, tuple[Shape, float, float, tuple[Colour, ...], tuple[Colour, ...]]]] = {
    "rock": (rock, 0.8, 0.17, ((132, 128, 124), (118, 112, 112), (146, 136, 124)), ((100, 96, 96),)),
    "flower": (flower, 1.7, 0.24, ((226, 60, 96), (240, 240, 250), (170, 90, 210)), ((255, 255, 255),)),
    "cloud": (cloud, 0.55, 0.15, ((246, 248, 252), (226, 230, 238)), ((214, 220, 232),)),
    "post": (
        post,
        2.6,
        0.32,
        ((110, 110, 116), (122, 96, 72)),
        ((40, 96, 168), (34, 128, 84), (176, 52, 60)),
    ),
    "bush": (bush, 0.8, 0.19, ((44, 112, 62), (70, 124, 48)), ((214, 52, 66), (250, 220, 120))),
    "crate": (crate, 0.95, 0.18, ((176, 132, 84), (150, 106, 66)), ((120, 84, 52),)),
}
