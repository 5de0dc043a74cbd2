"""Training pictures for the embedded VQA: free scenes with the generator's answers to every question.

The scenes come from a split of their own and from `free` plans, so no benchmark picture is among them. They
are drawn once; a step takes some of them, in one of two mirrorings and under random light.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from wsss.data.scenes.drawing import Scene, draw_scene
from wsss.data.scenes.relations import answer
from wsss.data.scenes.vocabulary import context_names, vocabulary
from wsss.data.scenes.world import plan_scene
from wsss.models.embedded.compose import IMAGE_MEAN, IMAGE_STD, Progress

DRAWN_SIZE: Final = 96
PATCH: Final = 12  # pixels
SHOWN: Final = len(vocabulary().classes) + len(context_names()) - 1  # what a pixel can show
SLOTS: Final = 2  # classes of an image that can be asked about
TOGETHER: Final = 500  # scenes one process draws at a time
TOPICS: Final = tuple(topic for _, topic in vocabulary().questions)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Drawn scenes and what is to be answered about them.

    Args:
        images: RGB; (N, H, W, 3), uint8.
        classes: index of the class in each slot, -1 where there is none; (N, 2), int64.
        answers: index into `answer_words()` of the right answer: as drawn and mirrored left to right, for
            each slot and topic; (N, 2, 2, 16), int64.
    """

    images: Tensor
    classes: Tensor
    answers: Tensor
    patches: Tensor


@functools.cache
def answer_words() -> tuple[str, ...]:
    """Every answer that the world knows, in a fixed order."""
    words = vocabulary()
    found = {words.nothing, *context_names()[1:]}
    for item in words.classes:
        found |= {item.name, *item.aliases, *(word for pair in item.kinds for word in pair)}
    for place in words.backgrounds:
        found |= {place.scene, place.environment, place.place}
    return tuple(sorted(found))


def draw_pictures(
    seed: int, split: str, count: int, *, processes: int = 2, progress: Progress | None = None
) -> Pictures:
    """Draw free scenes, several at once.

    Args:
        seed: world seed; each training has pictures of its own.
        split: name of the stream of scenes.
        count: scenes to draw; the few of them without an object are left out.
        processes: how many draw; fewer scenes than two rounds of one process are drawn in this one.
        progress: called with ("drawing", scenes drawn, scenes in all).
    """
    ranges = [(start, min(count, start + TOGETHER)) for start in range(0, count, TOGETHER)]
    parts = []
    for part in _drawn(seed, split, ranges, processes if len(ranges) > 2 else 1):
        parts.append(part)
        if progress is not None:
            progress("drawing", ranges[len(parts) - 1][1], count)
    images, classes, answers, patches = (
        torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts, strict=True)
    )
    return Pictures(images, classes.long(), answers.long(), patches)


def _drawn(
    seed: int, split: str, ranges: Sequence[tuple[int, int]], processes: int
) -> Iterator[tuple[np.ndarray, ...]]:
    draw = functools.partial(_draw_range, seed, split)
    if processes == 1:
        yield from map(draw, ranges)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(draw, ranges)


def _draw_range(seed: int, split: str, numbers: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Those scenes of a range that show an object, as the arrays of `Pictures`."""
    images, classes, answers, patches = [], [], [], []
    for index in range(*numbers):
        scene = draw_scene(plan_scene(seed, split, index, size=DRAWN_SIZE, free=True))
        if not scene.metadata["labels"]:
            continue  # nothing to ask about
        images.append(scene.image)
        rows, values = answer_table(scene.metadata)
        classes.append(rows)
        answers.append(values)
        patches.append(patch_table(scene))
    return np.stack(images), np.stack(classes), np.stack(answers), np.stack(patches)


def patch_table(scene: Scene) -> np.ndarray:
    """What each patch shows, in pixels of each class and of each background and distractor; (h, w, 24)."""
    count, side = len(vocabulary().classes), DRAWN_SIZE // PATCH
    shown = np.where(
        scene.mask > 0, scene.mask.astype(np.int64) - 1, scene.context.astype(np.int64) + count - 1
    )
    each = np.eye(SHOWN, dtype=np.uint8)[shown]  # (H, W, 24)
    counts: np.ndarray = each.reshape(side, PATCH, side, PATCH, SHOWN).sum(axis=(1, 3), dtype=np.uint8)
    return counts


def answer_table(metadata: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Classes of a scene, (2,), and its answers as drawn and mirrored, (2, 2, 16), as in `Pictures`."""
    names = [word.name for word in vocabulary().classes]
    places = {word: place for place, word in enumerate(answer_words())}
    classes, answers = np.full(SLOTS, -1, np.int16), np.zeros((2, SLOTS, len(TOPICS)), np.int16)
    for side, told in enumerate((metadata, mirrored(metadata))):
        for slot, label in enumerate(metadata["labels"]):
            classes[slot] = names.index(label)
            answers[side, slot] = [places[answer(told, label, topic)] for topic in TOPICS]
    return classes, answers


def mirrored(metadata: dict[str, Any]) -> dict[str, Any]:
    """What is to be said of a scene when its picture is mirrored left to right."""
    return {**metadata, "objects": [_mirrored_object(entry) for entry in metadata["objects"]]}


def _mirrored_object(entry: dict[str, Any]) -> dict[str, Any]:
    relations = dict(entry["relations"])
    relations["left"], relations["right"] = relations["right"], relations["left"]
    words = vocabulary()
    grounds = {place.name for place in words.backgrounds}
    beside = [name for side in ("left", "right") for name in relations[side] if name != words.nothing]
    things = [name for name in beside if name not in grounds]
    relations["next"] = list(dict.fromkeys(things + beside)) or [words.nothing]
    top, left, bottom, right = entry["box"]
    return {**entry, "relations": relations, "box": [top, DRAWN_SIZE - right, bottom, DRAWN_SIZE - left]}


def photograph(images: Tensor, is_mirrored: Tensor, generator: torch.Generator) -> Tensor:
    """Normalised pictures under random light, tint, contrast and noise; (B, 3, H, W).

    Args:
        images: as drawn; (B, H, W, 3), uint8.
        is_mirrored: which are turned left to right; (B,), bool.
        generator: source of all randomness.
    """
    count = len(images)
    pixels = torch.where(is_mirrored[:, None, None, None], images.flip(2), images).float()

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)

    tint = 1 + 0.025 * torch.randn(count, 1, 1, 3, generator=generator)
    noise = torch.randn(pixels.shape[:3], generator=generator)[..., None] * uniform(0.0, 4.0)
    pixels = (pixels * uniform(0.9, 1.1) * tint + noise).clamp(0, 255)
    return normalised(pixels)


def normalised(pixels: Tensor) -> Tensor:
    """Pixels in 0-255, (B, H, W, 3), as the network's input, (B, 3, H, W)."""
    scaled = (pixels.float() / 255 - torch.tensor(IMAGE_MEAN)) / torch.tensor(IMAGE_STD)
    return scaled.permute(0, 3, 1, 2).contiguous()
