"""Plans a scene: which objects, where, on what, beside what; no pixel is drawn here.

A plan depends on (world version, world seed, split, index) alone, so image 17 is the same picture whether ten
or ten thousand are made. `free` scenes combine everything with everything and are what models that must know
the world without its habits are trained on; benchmark scenes have the habits that mislead a classifier.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from wsss.data.scenes.animals import SHAPES
from wsss.data.scenes.distractors import DISTRACTORS
from wsss.data.scenes.pen import Colour, Pose
from wsss.data.scenes.reserved import RESERVED_SHAPES
from wsss.data.scenes.vocabulary import WORLD_VERSION, vocabulary
from wsss.errors import DataError

EMPTY_SHARE: Final = 0.03  # scenes without any object
PAIR_SHARE: Final = 0.30  # scenes with two objects
DISTRACTOR_SHARE: Final = 0.26  # objects with an unlabelled thing beside them
BAND_SHARE: Final = 0.36  # panels with a second background above or below

BODY_COLOURS: Final[tuple[Colour, ...]] = (
    (196, 84, 76), (206, 150, 84), (214, 200, 120), (132, 160, 84), (88, 146, 124),
    (92, 136, 176), (112, 112, 170), (158, 108, 160), (196, 132, 150), (150, 112, 84),
    (110, 92, 84), (150, 150, 150), (214, 210, 202), (92, 96, 104),
)  # fmt: skip


@dataclass(frozen=True)
class PanelSpec:
    """A stretch of the image, from `left` to `right` in parts of its width, and the background it shows.

    Args:
        left: where it begins, 0-1.
        right: where it ends, 0-1.
        background: its main background.
        band: a second background above or below; None when there is none.
        band_on_top: where the band lies.
        horizon: row that divides them, 0-1 of the height.
        seed: of its textures.
    """

    left: float
    right: float
    background: str
    band: str | None
    band_on_top: bool
    horizon: float
    seed: int


@dataclass(frozen=True)
class ObjectSpec:
    """One labelled object; positions and sizes in parts of the image's side, angle in degrees.

    Args:
        name: its class.
        kind: which of the class's shapes.
        panel: index of the panel it stands on.
        x: column of its centre, 0-1.
        y: row of its centre, 0-1.
        width: 0-1.
        height: 0-1.
        flip: mirrored left to right.
        angle: turn.
        body: main colour.
        accent: second colour.
        pattern: texture of the body.
        has_key: false draws it without its key part (never in the benchmark).
        seed: of its texture.
    """

    name: str
    kind: str
    panel: int
    x: float
    y: float
    width: float
    height: float
    flip: bool
    angle: float
    body: Colour
    accent: Colour
    pattern: str
    has_key: bool
    seed: int

    def pose(self, size: int) -> Pose:
        """Where it stands in an image of `size` pixels."""
        return Pose(
            self.x * size, self.y * size, self.width * size, self.height * size, self.flip, self.angle
        )


@dataclass(frozen=True)
class DistractorSpec:
    """One unlabelled thing; positions and sizes in parts of the image's side."""

    name: str
    panel: int
    x: float
    y: float
    width: float
    height: float
    flip: bool
    body: Colour
    accent: Colour
    seed: int

    def pose(self, size: int) -> Pose:
        """Where it stands in an image of `size` pixels."""
        return Pose(self.x * size, self.y * size, self.width * size, self.height * size, self.flip)


@dataclass(frozen=True)
class SceneSpec:
    """Everything that is needed to draw one image."""

    image_id: str
    world: int
    split: str
    index: int
    size: int
    free: bool
    reserved: bool
    panels: tuple[PanelSpec, ...]
    objects: tuple[ObjectSpec, ...]
    distractors: tuple[DistractorSpec, ...]
    seed: int


def plan_scene(
    world: int,
    split: str,
    index: int,
    *,
    size: int = 96,
    free: bool = False,
    reserved: bool = False,
) -> SceneSpec:
    """Plan image `index` of a split of a world.

    Args:
        world: world seed; 0 is the benchmark, 100 the world that settings are tuned on.
        split: train, val or any other name; every split is its own stream of images.
        index: number of the image, from 0.
        size: side of the image in pixels, at least 32; the picture is the same at every size.
        free: no co-occurrence: every object on every background beside every distractor.
        reserved: the second set of shapes and backgrounds, which the benchmark never shows.

    Raises:
        DataError: a negative seed or index, or an image too small to draw.

    Example:
        >>> plan_scene(0, "train", 17) == plan_scene(0, "train", 17)
        True
    """
    if world < 0 or index < 0 or size < 32:
        raise DataError(
            f"`world` and `index` must be 0 or more and `size` at least 32; got {world}, {index} and {size}. "
            "Choose values in these ranges."
        )
    rng = np.random.default_rng(
        [WORLD_VERSION, world, zlib.crc32(split.encode()), index, int(free), int(reserved)]
    )
    planner = _Planner(rng, free=free, reserved=reserved)
    names = planner.names()
    panels = planner.panels(names)
    objects = tuple(planner.object(name, position, len(names), panels) for position, name in enumerate(names))
    return SceneSpec(
        image_id=f"w{world}_{split}_{index:05d}",
        world=world,
        split=split,
        index=index,
        size=size,
        free=free,
        reserved=reserved,
        panels=panels,
        objects=objects,
        distractors=planner.distractors(panels, objects),
        seed=planner.seed(),
    )


class _Planner:
    """Draws the parts of one plan from one generator."""

    def __init__(self, rng: np.random.Generator, *, free: bool, reserved: bool) -> None:
        self._rng = rng
        self._free = free or reserved
        self._reserved = reserved
        self._words = vocabulary()
        self._backgrounds = (
            self._words.reserved_backgrounds
            if reserved
            else tuple(words.name for words in self._words.backgrounds)
        )

    def seed(self) -> int:
        return int(self._rng.integers(2**31))

    def names(self) -> tuple[str, ...]:
        """The classes of the scene's objects, left to right."""
        choices = (
            self._words.reserved_shapes
            if self._reserved
            else tuple(word.name for word in self._words.classes)
        )
        draw = self._rng.random()
        first, second = self._choice(choices), self._choice(choices)
        if draw < EMPTY_SHARE:
            return ()
        return (first, second) if draw < EMPTY_SHARE + PAIR_SHARE else (first,)

    def panels(self, names: tuple[str, ...]) -> tuple[PanelSpec, ...]:
        """One panel for each object; two objects on the same background share one."""
        mains = [self._background_of(name) for name in names] or [self._choice(self._backgrounds)]
        middle = self._rng.uniform(0.44, 0.56)
        if len(mains) == 2 and mains[0] != mains[1]:
            return (self._panel(0.0, middle, mains[0]), self._panel(middle, 1.0, mains[1]))
        return (self._panel(0.0, 1.0, mains[0]),)

    def object(self, name: str, position: int, count: int, panels: tuple[PanelSpec, ...]) -> ObjectSpec:
        """Size, place and looks of one object."""
        rng = self._rng
        shapes = RESERVED_SHAPES if self._reserved else SHAPES
        kind = self._choice(tuple(shapes[name]))
        aspect = shapes[name][kind][1] * rng.uniform(0.92, 1.08)
        area = rng.uniform(0.2, 0.46) if count == 1 else rng.uniform(0.13, 0.23)
        left, right = (0.0, 1.0) if count == 1 else ((0.0, 0.5), (0.5, 1.0))[position]
        if count == 2 and len(panels) == 2:
            left, right = panels[position].left, panels[position].right
        width = math.sqrt(area / aspect)
        shrink = min(1.0, (right - left - 0.05) / width, 0.84 / (width * aspect))
        width, height = width * shrink, width * shrink * aspect
        panel = position if len(panels) == 2 else 0
        body, accent = self._two_colours()
        return ObjectSpec(
            name=name,
            kind=kind,
            panel=panel,
            x=rng.uniform(left + width / 2 + 0.02, right - width / 2 - 0.02),
            y=self._row(height, panels[panel]),
            width=width,
            height=height,
            flip=bool(rng.random() < 0.5),
            angle=float(rng.normal(0.0, 8.0 if name in ("aeroplane", "fish") else 3.0)),
            body=body,
            accent=accent,
            pattern=self._pattern(kind),
            has_key=True,
            seed=self.seed(),
        )

    def distractors(
        self, panels: tuple[PanelSpec, ...], objects: tuple[ObjectSpec, ...]
    ) -> tuple[DistractorSpec, ...]:
        """Unlabelled things beside or partly behind the objects, where there is room."""
        if self._reserved:
            return ()
        found: list[DistractorSpec] = []
        for owner in objects or (None,):
            wanted = self._rng.random() < DISTRACTOR_SHARE
            favourite = self._rng.random() < 0.6 and not self._free and owner is not None
            name = self._choice(self._words.distractors)
            if favourite and owner is not None:
                name = self._words.object_words(owner.name).distractor
            panel = 0 if owner is None else owner.panel
            if wanted and (self._free or self._is_plausible(name, panels[panel])):
                placed = self._place(name, panel, panels[panel], objects, found)
                if placed is not None:
                    found.append(placed)
        return tuple(found)

    def _place(
        self,
        name: str,
        panel: int,
        where: PanelSpec,
        objects: tuple[ObjectSpec, ...],
        others: list[DistractorSpec],
    ) -> DistractorSpec | None:
        """The first of some random places that the objects leave at least half visible."""
        rng = self._rng
        _, aspect, height, bodies, accents = DISTRACTORS[name]
        height *= rng.uniform(0.8, 1.25)
        width = height / aspect
        flip, body = bool(rng.random() < 0.5), bodies[int(rng.integers(len(bodies)))]
        accent, seed = accents[int(rng.integers(len(accents)))], self.seed()
        places = rng.random((16, 2))
        half = min(width / 2, (where.right - where.left) / 2)
        low, high = (0.0, 0.34) if name == "cloud" else (0.2, 1.0)
        for share_x, share_y in places.tolist():
            x = where.left + half + share_x * (where.right - where.left - 2 * half)
            y = low + height / 2 + share_y * (high - low - height)
            box = (x, y, width, height)
            hidden = [
                _overlap(box, (item.x, item.y, item.width * 0.9, item.height * 0.9)) for item in objects
            ]
            if all(share < 0.4 for share in hidden) and all(
                _overlap(box, (item.x, item.y, item.width, item.height)) < 0.05 for item in others
            ):
                return DistractorSpec(name, panel, x, y, width, height, flip, body, accent, seed)
        return None

    def _background_of(self, name: str) -> str:
        draw = self._rng.random()
        other = self._choice(self._backgrounds)
        if self._free:
            return other
        words = self._words.object_words(name)
        if words.home is not None and draw < words.home_share:
            return words.home
        while other == words.home:
            other = self._choice(self._backgrounds)
        return other

    def _panel(self, left: float, right: float, background: str) -> PanelSpec:
        rng = self._rng
        has_band, on_top, depth = rng.random() < BAND_SHARE, rng.random() < 0.65, rng.uniform(0.15, 0.34)
        if self._free:
            choices = tuple(name for name in self._backgrounds if name != background)
        else:
            words = self._words.background_words(background)
            on_top = bool(words.above) and (on_top or not words.below)
            choices = words.above if on_top else words.below
        band = self._choice(choices) if has_band else None
        return PanelSpec(
            left, right, background, band, bool(on_top), depth if on_top else 1.0 - depth, self.seed()
        )

    def _row(self, height: float, panel: PanelSpec) -> float:
        """A row for an object's centre: mostly on the main background, standing on it below a horizon."""
        low, high = height / 2 + 0.03, 1.0 - height / 2 - 0.03
        if panel.band is not None and panel.band_on_top:
            low = min(high, max(low, panel.horizon + 0.12 - height * 0.1))
        elif panel.band is not None:
            high = max(low, min(high, panel.horizon - height * 0.4))
        return float(self._rng.uniform(low, high))

    def _two_colours(self) -> tuple[Colour, Colour]:
        first, second = self._rng.choice(len(BODY_COLOURS), 2, replace=False).tolist()
        shift = self._rng.normal(0.0, 10.0, 2)
        return _shifted(BODY_COLOURS[first], shift[0]), _shifted(BODY_COLOURS[second], shift[1])

    def _pattern(self, kind: str) -> str:
        choice = self._choice(("plain", "plain", "stripes", "spots", "checks", "patches"))
        return {"tabby": "stripes", "holstein": "patches"}.get(kind, choice)

    def _is_plausible(self, name: str, panel: PanelSpec) -> bool:
        """Clouds need some open sky; nothing else grows or stands in it."""
        shown = (panel.background, panel.band if panel.band_on_top else None)
        return ("sky" in shown) if name == "cloud" else panel.background != "sky"

    def _choice(self, values: tuple[str, ...]) -> str:
        return values[int(self._rng.integers(len(values)))]


def _shifted(colour: Colour, by: float) -> Colour:
    red, green, blue = (int(min(235, max(40, value + by))) for value in colour)
    return red, green, blue


def _overlap(first: tuple[float, float, float, float], second: tuple[float, float, float, float]) -> float:
    """Share of the first box (x, y, width, height; centres) that the second covers."""
    across = min(first[0] + first[2] / 2, second[0] + second[2] / 2) - max(
        first[0] - first[2] / 2, second[0] - second[2] / 2
    )
    down = min(first[1] + first[3] / 2, second[1] + second[3] / 2) - max(
        first[1] - first[3] / 2, second[1] - second[3] / 2
    )
    return max(0.0, across) * max(0.0, down) / (first[2] * first[3])
