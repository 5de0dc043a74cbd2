"""What can be said about a drawn scene: its metadata, and the answers to the 16 questions of QA-CLIMS.

Relations are read off the picture (which names fill the strip above an object, beside it, around it), so
they are right for what an image shows and not only for what was planned.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from wsss.data.scenes.pen import Array
from wsss.data.scenes.vocabulary import context_names, vocabulary
from wsss.data.scenes.world import SceneSpec

REACH: Final = 0.3  # how far above, below and beside an object a relation looks, in parts of the image's side
RING: Final = 0.08  # width of the ring that counts as around
THING_SHARE: Final = 0.08  # share of a strip from which on a distractor or an object is named first
NAMED_SHARE: Final = 0.15  # share of a strip from which on a background is named

RELATIONS: Final = ("above", "under", "behind", "around", "next", "left", "right")


def describe(spec: SceneSpec, context: Array, instances: Array) -> dict[str, Any]:
    """The metadata of a scene, as plain JSON values.

    Args:
        spec: its plan.
        context: (H, W), uint8, as in `Scene`.
        instances: (H, W), uint8, as in `Scene`.
    """
    words = vocabulary()
    names = context_names(reserved=True)
    objects = []
    for number, item in enumerate(spec.objects, start=1):
        background = spec.panels[item.panel].background
        entry: dict[str, Any] = {"name": item.name, "kind": item.kind, "background": background}
        if not spec.reserved:
            own, place = words.object_words(item.name), words.background_words(background)
            entry["type"] = dict(own.kinds)[item.kind]
            entry["aliases"] = list(own.aliases)
            entry.update(scene=place.scene, environment=place.environment, place=place.place)
            entry["at_home"] = background == own.home
        entry.update(pattern=item.pattern, box=_box(instances == number))
        entry["relations"] = _relations(spec, context, instances, number)
        objects.append(entry)
    shown = [names[value] for value in np.unique(context).tolist() if value]
    unlisted = [] if spec.reserved else [name for name in shown if name not in words.listed_backgrounds]
    return {
        "image_id": spec.image_id,
        "world": spec.world,
        "split": spec.split,
        "index": spec.index,
        "labels": sorted({item.name for item in spec.objects}),
        "objects": objects,
        "backgrounds": [name for name in shown if name not in words.distractors],
        "distractors": sorted({item.name for item in spec.distractors}),
        "specific_surroundings": unlisted,
        "has_specific_surroundings": bool(unlisted),
    }


def answer(metadata: dict[str, Any], class_name: str, topic: str) -> str:
    """The generator's own answer to one question about the largest object of a class.

    Args:
        metadata: of the image.
        class_name: which class the question is about; it must be in the image.
        topic: second value of an entry of `vocabulary().questions`.
    """
    candidates = [entry for entry in metadata["objects"] if entry["name"] == class_name]
    entry = max(
        candidates, key=lambda item: (item["box"][2] - item["box"][0]) * (item["box"][3] - item["box"][1])
    )
    if topic in RELATIONS:
        return str(entry["relations"][topic][0])
    if topic == "name":
        return class_name
    if topic in ("alias", "alias_word", "alias_name"):
        return str(entry["aliases"][("alias", "alias_word", "alias_name").index(topic)])
    return str(entry[topic])


def _relations(spec: SceneSpec, context: Array, instances: Array, number: int) -> dict[str, list[str]]:
    """Names for each relation of object `number`, the most telling first."""
    size = spec.size
    own = instances == number
    if not own.any():
        return {relation: [vocabulary().nothing] for relation in RELATIONS}
    top, left, bottom, right = _box(own)
    reach, ring = round(REACH * size), round(RING * size)
    zones = {
        "above": (slice(max(0, top - reach), top), slice(left, right)),
        "under": (slice(bottom, bottom + reach), slice(left, right)),
        "behind": (slice(top, bottom), slice(left, right)),
        "around": (slice(max(0, top - ring), bottom + ring), slice(max(0, left - ring), right + ring)),
        "left": (slice(top, bottom), slice(max(0, left - reach), left)),
        "right": (slice(top, bottom), slice(right, right + reach)),
    }
    found = {name: _names(spec, context[zone], instances[zone], number) for name, zone in zones.items()}
    found["around"] = _backgrounds_first(found["around"])
    beside = found["left"] + found["right"]
    things = [name for name in beside if not _is_background(name)]
    found["next"] = list(dict.fromkeys(things + beside))
    return {relation: found[relation] or [vocabulary().nothing] for relation in RELATIONS}


def _names(spec: SceneSpec, context: Array, instances: Array, number: int) -> list[str]:
    """What fills a window of the picture: things first, then backgrounds, each by its area."""
    names = context_names(reserved=True)
    other = instances != number
    total = int(other.sum())
    if context.size == 0 or total == 0:
        return []
    things: list[tuple[int, str]] = []
    backgrounds: list[tuple[int, str]] = []
    for value, count in zip(*np.unique(context[other & (context > 0)], return_counts=True), strict=True):
        name, is_ground = names[value], _is_background(names[value])
        if count >= total * (NAMED_SHARE if is_ground else THING_SHARE):
            (backgrounds if is_ground else things).append((-int(count), name))
    for value, count in zip(*np.unique(instances[other & (instances > 0)], return_counts=True), strict=True):
        if count >= total * THING_SHARE:
            things.append((-int(count), spec.objects[int(value) - 1].name))
    return list(dict.fromkeys(name for _, name in sorted(things) + sorted(backgrounds)))


def _backgrounds_first(names: list[str]) -> list[str]:
    return sorted(names, key=lambda name: not _is_background(name))


def _is_background(name: str) -> bool:
    words = vocabulary()
    return name in words.reserved_backgrounds or any(
        name == background.name for background in words.backgrounds
    )


def _box(covered: Array) -> list[int]:
    """First row, first column, last row + 1, last column + 1; zeros when nothing is covered."""
    rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    if len(rows) == 0:
        return [0, 0, 0, 0]
    return [int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1]
