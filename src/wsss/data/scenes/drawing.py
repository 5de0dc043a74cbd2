"""Draws a planned scene: the image, its masks, and what is to be known about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from wsss.data.scenes.animals import SHAPES
from wsss.data.scenes.distractors import DISTRACTORS
from wsss.data.scenes.pen import Array, Colour, Layer, Pen
from wsss.data.scenes.relations import describe
from wsss.data.scenes.reserved import RESERVED_SHAPES, RESERVED_TEXTURES
from wsss.data.scenes.textures import TEXTURES, smooth_noise
from wsss.data.scenes.vocabulary import context_names, vocabulary
from wsss.data.scenes.world import DistractorSpec, ObjectSpec, PanelSpec, SceneSpec

FLOATING: Final = ("sky", "tree", "water", "wall", "night")  # backgrounds on which nothing throws a shadow


@dataclass(frozen=True, eq=False)
class Scene:
    """One drawn scene.

    Args:
        image: RGB, 0-255; (H, W, 3), uint8.
        mask: true classes, 0 background, 1…K; (H, W), uint8.
        context: what each background pixel shows, 0 where an object is, else an index into
            `context_names(reserved=True)`; (H, W), uint8.
        key: pixels of key parts; (H, W), bool.
        instances: 0 background, else 1 + index into the plan's objects; (H, W), uint8.
        metadata: what the plan and the picture say in words; can be written as JSON.
    """

    image: Array
    mask: Array
    context: Array
    key: Array
    instances: Array
    metadata: dict[str, Any]


def draw_scene(spec: SceneSpec) -> Scene:
    """Draw a planned scene.

    Example:
        >>> from wsss.data.scenes.world import plan_scene
        >>> draw_scene(plan_scene(0, "train", 0)).image.shape
        (96, 96, 3)
    """
    image, context = draw_background(spec.panels, spec.size, spec.seed)
    names = context_names(reserved=True)
    for distractor in spec.distractors:
        covered = lay_over(image, distractor_layer(distractor, spec.size))[0]
        context[covered] = names.index(distractor.name)
    mask, key = np.zeros_like(context), np.zeros(context.shape, bool)
    instances = np.zeros_like(context)
    class_names = _class_names(spec.reserved)
    for number, item in enumerate(spec.objects, start=1):
        if spec.panels[item.panel].background not in FLOATING:
            image *= 1.0 - shadow(item, spec.size)[..., None]
        covered, is_key = lay_over(image, object_layer(item, spec.size, reserved=spec.reserved))
        mask[covered], instances[covered], context[covered] = class_names.index(item.name), number, 0
        key = (key & ~covered) | is_key
    return Scene(
        image=finish_light(image, spec.seed),
        mask=mask,
        context=context,
        key=key,
        instances=instances,
        metadata=describe(spec, context, instances),
    )


def draw_background(panels: tuple[PanelSpec, ...], size: int, seed: int) -> tuple[Array, Array]:
    """The panels alone: colours (H, W, 3) float32 and context (H, W) uint8."""
    rng = np.random.default_rng([seed, 1])
    rows = (np.arange(size, dtype=np.float32) + 0.5)[:, None] / size
    columns = (np.arange(size, dtype=np.float32) + 0.5)[None, :] / size
    ground = _panel(panels[0], size, columns)
    for panel in panels[1:]:
        edge = panel.left + 0.012 * np.sin(rows * rng.uniform(8, 14) + rng.uniform(0, 6))
        ground = _join(ground, _panel(panel, size, columns), (columns - edge) * size)
    return ground


def _panel(panel: PanelSpec, size: int, columns: Array) -> tuple[Array, Array]:
    """One panel over the whole image, with its band."""
    rng = np.random.default_rng([panel.seed, 0])
    names = context_names(reserved=True)
    textures = {**TEXTURES, **RESERVED_TEXTURES}
    image = textures[panel.background](rng, size, size).astype(np.float32)
    context = np.full((size, size), names.index(panel.background), np.uint8)
    if panel.band is None:
        return image, context
    band = textures[panel.band](rng, size, size).astype(np.float32)
    waves = 0.02 * np.sin(columns * rng.uniform(5, 12) + rng.uniform(0, 6))
    waves = waves + rng.uniform(-0.06, 0.06) * (columns - 0.5)
    rows = (np.arange(size, dtype=np.float32) + 0.5)[:, None] / size
    below = rows - panel.horizon - waves
    distance = (-below if panel.band_on_top else below) * size
    return _join((image, context), (band, np.full_like(context, names.index(panel.band))), distance)


def _join(ground: tuple[Array, Array], other: tuple[Array, Array], distance: Array) -> tuple[Array, Array]:
    """Lay `other` over `ground` where `distance` (pixels) is positive, with an edge one pixel wide."""
    image, context = ground
    share = np.broadcast_to((distance + 0.5).clip(0, 1), context.shape).astype(np.float32)
    blended = image + share[..., None] * (other[0] - image)
    return blended, np.where(share > 0.5, other[1], context)


def object_layer(item: ObjectSpec, size: int, *, reserved: bool = False) -> Layer:
    """Draw one object."""
    shape, _ = (RESERVED_SHAPES if reserved else SHAPES)[item.name][item.kind]
    key: Colour = (0, 0, 0) if reserved else vocabulary().object_words(item.name).key_colour
    pen = Pen(item.pose(size), body=item.body, accent=item.accent, key=key, with_key=item.has_key)
    shape(pen)
    return pen.finish(np.random.default_rng(item.seed), item.pattern)


def distractor_layer(item: DistractorSpec, size: int) -> Layer:
    """Draw one distractor."""
    pen = Pen(item.pose(size), body=item.body, accent=item.accent, key=(0, 0, 0))
    DISTRACTORS[item.name][0](pen)
    return pen.finish(np.random.default_rng(item.seed), "plain")


def lay_over(image: Array, layer: Layer) -> tuple[Array, Array]:
    """Blend a layer into `image` in place; which pixels it covers and which are key, (H, W) bool each."""
    size_rows, size_columns = image.shape[:2]
    top, left = max(0, layer.top), max(0, layer.left)
    bottom = min(size_rows, layer.top + layer.alpha.shape[0])
    right = min(size_columns, layer.left + layer.alpha.shape[1])
    covered, is_key = np.zeros(image.shape[:2], bool), np.zeros(image.shape[:2], bool)
    if bottom <= top or right <= left:
        return covered, is_key
    part = (slice(top - layer.top, bottom - layer.top), slice(left - layer.left, right - layer.left))
    window = image[top:bottom, left:right]
    window += layer.alpha[part][..., None] * (layer.colour[part] - window)
    covered[top:bottom, left:right] = layer.alpha[part] >= 0.5
    is_key[top:bottom, left:right] = (layer.key[part] >= 0.5) & (layer.alpha[part] >= 0.5)
    return covered, is_key


def finish_light(image: Array, seed: int) -> Array:
    """Give the whole picture one light, a soft unevenness and a little sensor noise; uint8."""
    rng = np.random.default_rng([seed, 2])
    height, width = image.shape[:2]
    gain = rng.uniform(0.86, 1.1) * rng.normal(1.0, 0.02, 3)
    uneven = 1.0 + 0.12 * (smooth_noise(rng, height, width, 3, 3) - 0.5)
    noise = rng.standard_normal((height, width, 1), dtype=np.float32) * rng.uniform(1.0, 4.0)
    finished: Array = (image * gain.astype(np.float32) * uneven[..., None] + noise).round().clip(0, 255)
    return finished.astype(np.uint8)


def without_key(item: ObjectSpec) -> ObjectSpec:
    """The same object drawn without its key part."""
    return replace(item, has_key=False)


def shadow(item: ObjectSpec, size: int) -> Array:
    """How much an object darkens the ground under it; (H, W), 0-1."""
    rows = (np.arange(size, dtype=np.float32) + 0.5)[:, None] / size
    columns = (np.arange(size, dtype=np.float32) + 0.5)[None, :] / size
    distance = ((columns - item.x) / (0.52 * item.width)) ** 2 + (
        (rows - item.y - 0.49 * item.height) / (0.05 + 0.03 * item.height)
    ) ** 2
    depth: Array = 0.35 * (1.0 - distance).clip(0, 1)
    return depth


def _class_names(reserved: bool) -> tuple[str, ...]:
    words = vocabulary()
    names = words.reserved_shapes if reserved else tuple(word.name for word in words.classes)
    return ("background", *names)
