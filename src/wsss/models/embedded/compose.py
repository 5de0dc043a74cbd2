"""Training images for the embedded teacher: pools of drawn parts, put together freely in batches.

Drawing a whole scene for every step would take longer than learning from it. Objects, with their shadows, and
backgrounds, with their distractors, are drawn once each; a batch lays random objects over random
backgrounds, so the teacher sees every object everywhere and never a benchmark image: the parts come from
splits of their own and from `free` plans.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.data.scenes.drawing import distractor_layer, draw_background, lay_over, object_layer, shadow
from wsss.data.scenes.vocabulary import context_names, vocabulary
from wsss.data.scenes.world import ObjectSpec, plan_scene

DRAWN_SIZE: Final = 96
INPUT_SIZE: Final = 64
CLOSE_SHARE: Final = 0.35  # images that are crops around their first object
KEYLESS_SHARE: Final = 0.35  # objects drawn without their key part, or the teacher learns the key alone
IMAGE_MEAN: Final = (0.485, 0.456, 0.406)  # ImageNet's, like the networks that the teacher will judge
IMAGE_STD: Final = (0.229, 0.224, 0.225)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Pools:
    """Drawn parts.

    Args:
        objects: colour and coverage; (N, H, W, 4), uint8.
        shadows: darkening of the ground, 255 = black; (N, H, W), uint8.
        kinds: which kind each object is, counted over all classes; (N,), int64.
        single: indices of objects that stand alone in their image.
        first: indices of left objects of pairs.
        second: indices of right objects of pairs.
        backgrounds: (M, H, W, 3), uint8.
        contexts: context maps of the backgrounds; (M, H, W), uint8.
    """

    objects: Tensor
    shadows: Tensor
    kinds: Tensor
    single: Tensor
    first: Tensor
    second: Tensor
    backgrounds: Tensor
    contexts: Tensor


@dataclass(frozen=True, eq=False)
class Composites:
    """A batch of composed images at the teacher's input size.

    Args:
        images: normalised; zero outside the scene; (B, 3, H, W).
        instances: pixels of the first and second object; (B, 2, H, W), float32, 0 or 1.
        kinds: kind of the first and second object, -1 where there is none; (B, 2), int64.
        areas: pixels each object would cover if nothing were cropped; (B, 2).
        context: context map, 0 at objects and outside the scene; (B, H, W), int64.
    """

    images: Tensor
    instances: Tensor
    kinds: Tensor
    areas: Tensor
    context: Tensor


def draw_pools(seed: int, *, objects: int, backgrounds: int, progress: Progress | None = None) -> Pools:
    """Draw the parts that a teacher is trained on.

    Args:
        seed: of the training; each seed has pools of its own.
        objects: number of scenes whose objects are drawn.
        backgrounds: number of backgrounds.
        progress: called with ("drawing", parts drawn, parts in all).
    """
    kind_rows = {
        kind: row
        for row, kind in enumerate(
            (word.name, kind) for word in vocabulary().classes for kind, _ in word.kinds
        )
    }
    layers: list[np.ndarray] = []
    shades: list[np.ndarray] = []
    kinds: list[int] = []
    single: list[int] = []
    pairs: list[tuple[int, int]] = []
    for index in range(objects):
        plan = plan_scene(seed, "teacher-objects", index, size=DRAWN_SIZE, free=True)
        rng = np.random.default_rng([plan.seed, 3])
        start = len(layers)
        for item in plan.objects:
            drawn, shade = _object(
                item, keyless=bool(rng.random() < KEYLESS_SHARE), with_shadow=bool(rng.random() < 0.5)
            )
            layers.append(drawn)
            shades.append(shade)
            kinds.append(kind_rows[(item.name, item.kind)])
        if len(plan.objects) == 1:
            single.append(start)
        elif len(plan.objects) == 2:
            pairs.append((start, start + 1))
        if progress is not None and index % 500 == 499:
            progress("drawing", index + 1, objects + backgrounds)
    grounds, contexts = [], []
    for index in range(backgrounds):
        ground, context = _background(seed, index)
        grounds.append(ground)
        contexts.append(context)
        if progress is not None and index % 500 == 499:
            progress("drawing", objects + index + 1, objects + backgrounds)
    return Pools(
        objects=torch.from_numpy(np.stack(layers)),
        shadows=torch.from_numpy(np.stack(shades)),
        kinds=torch.tensor(kinds),
        single=torch.tensor(single),
        first=torch.tensor([first for first, _ in pairs]),
        second=torch.tensor([second for _, second in pairs]),
        backgrounds=torch.from_numpy(np.stack(grounds)),
        contexts=torch.from_numpy(np.stack(contexts)),
    )


def _object(item: ObjectSpec, *, keyless: bool, with_shadow: bool) -> tuple[np.ndarray, np.ndarray]:
    """Colour and coverage (H, W, 4) and shadow (H, W) of one object, uint8."""
    item = replace(item, has_key=not keyless)
    layer = object_layer(item, DRAWN_SIZE)
    opaque = replace(layer, alpha=(layer.alpha > 0).astype(np.float32))
    colour = np.zeros((DRAWN_SIZE, DRAWN_SIZE, 3), np.float32)
    lay_over(colour, opaque)
    cover = np.zeros((DRAWN_SIZE, DRAWN_SIZE, 1), np.float32)
    lay_over(cover, replace(layer, colour=np.full((*layer.alpha.shape, 1), 255, np.float32)))
    drawn = np.concatenate([colour, cover], axis=2).round().astype(np.uint8)
    shade = shadow(item, DRAWN_SIZE) if with_shadow else np.zeros((DRAWN_SIZE, DRAWN_SIZE), np.float32)
    return drawn, (shade * 255).round().astype(np.uint8)


def _background(seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """One background with its distractors: colours (H, W, 3) and context (H, W), uint8."""
    plan = plan_scene(seed, "teacher-backgrounds", index, size=DRAWN_SIZE, free=True)
    image, context = draw_background(plan.panels, DRAWN_SIZE, plan.seed)
    for distractor in plan.distractors:
        covered, _ = lay_over(image, distractor_layer(distractor, DRAWN_SIZE))
        context[covered] = context_names().index(distractor.name)
    return image.round().clip(0, 255).astype(np.uint8), context


def stream(*names: int | str) -> torch.Generator:
    """A generator for one purpose and step, whatever was drawn before."""
    parts = [zlib.crc32(name.encode()) if isinstance(name, str) else name for name in names]
    state = np.random.SeedSequence(parts).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


def compose(pools: Pools, count: int, generator: torch.Generator) -> Composites:
    """Lay random objects over random backgrounds, under random light, crop, scale and mirroring.

    Args:
        pools: parts.
        count: B.
        generator: source of all randomness.
    """
    ground = torch.randint(len(pools.backgrounds), (count,), generator=generator)
    images = pools.backgrounds[ground].float()
    context = pools.contexts[ground].float()
    draw = torch.rand(count, generator=generator)
    chosen = torch.full((count, 2), -1, dtype=torch.int64)
    lone = pools.single[torch.randint(len(pools.single), (count,), generator=generator)]
    pair = torch.randint(len(pools.first), (count,), generator=generator)
    is_lone, is_pair = (draw >= 0.06) & (draw < 0.70), draw >= 0.70
    chosen[is_lone, 0] = lone[is_lone]
    chosen[is_pair, 0], chosen[is_pair, 1] = pools.first[pair[is_pair]], pools.second[pair[is_pair]]
    planes = []
    for slot in range(2):
        rows = (chosen[:, slot] >= 0).nonzero().flatten()
        layer = pools.objects[chosen[rows, slot]].float()
        alpha = layer[..., 3:] / 255
        dark = 1 - pools.shadows[chosen[rows, slot]].float()[..., None] / 255
        images[rows] = images[rows] * dark * (1 - alpha) + layer[..., :3] * alpha
        covered = torch.zeros_like(context)
        covered[rows] = (alpha[..., 0] >= 0.5).float()
        context[covered > 0] = 0
        planes.append(covered)
    planes[0] = planes[0] * (1 - planes[1])
    labels = torch.stack([*planes, context], dim=1)  # (B, 3, 96, 96)
    kinds = torch.where(chosen >= 0, pools.kinds[chosen.clamp_min(0)], -1)
    full_areas = labels[:, :2].sum(dim=(2, 3))
    return _photograph(images, labels, kinds, full_areas, generator)


def _photograph(
    images: Tensor, labels: Tensor, kinds: Tensor, full_areas: Tensor, generator: torch.Generator
) -> Composites:
    """Light, noise, mirroring, zoom and shift; then down to the input size."""
    count = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    gain = uniform(0.84, 1.12, 1, 1, 1) * (1 + 0.025 * torch.randn(count, 1, 1, 3, generator=generator))
    noise = torch.randn(images.shape[:3], generator=generator)[..., None] * uniform(0.5, 5.0, 1, 1, 1)
    pixels = (images * gain + noise).clamp(0, 255) / 255
    pixels = (pixels - torch.tensor(IMAGE_MEAN)) / torch.tensor(IMAGE_STD)
    draw = uniform(0, 1)
    zoom = torch.where(draw < 0.45, torch.exp(uniform(-0.35, 0.35)), torch.ones(count))
    slack = (1 - zoom).abs() + 0.08
    centre = uniform(-1, 1, 2) * slack[:, None] * (zoom != 1)[:, None]
    middle, half = _extents(labels[:, 0])
    is_close = (draw > 1 - CLOSE_SHARE) & (half > 0)
    near = (half * uniform(1.0, 1.7)).clamp(0.3, 1.0)
    zoom = torch.where(is_close, near, zoom)
    centre = torch.where(is_close[:, None], middle + 0.25 * near[:, None] * uniform(-1, 1, 2), centre)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = zoom * mirror, zoom
    theta[:, :, 2] = centre
    grid = F.affine_grid(theta, [count, 3, INPUT_SIZE, INPUT_SIZE], align_corners=False)
    small = F.grid_sample(pixels.permute(0, 3, 1, 2), grid, mode="bilinear", align_corners=False)
    small_labels = F.grid_sample(labels, grid, mode="nearest", align_corners=False)
    shrink = (INPUT_SIZE / DRAWN_SIZE / zoom) ** 2
    return Composites(
        images=small,
        instances=small_labels[:, :2],
        kinds=kinds,
        areas=full_areas * shrink[:, None],
        context=small_labels[:, 2].round().long(),
    )


def _extents(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Centre (x, y) in [-1, 1] and half the longer side, 0-1, of what each plane covers; (B, 2) and (B,)."""
    middles, halves = [], []
    for covered in (planes.amax(dim=1), planes.amax(dim=2)):  # columns, then rows
        length = covered.shape[1]
        places = torch.arange(length).expand_as(covered)
        is_covered = covered > 0
        first = torch.where(is_covered, places, length).amin(dim=1)
        last = torch.where(is_covered, places, -1).amax(dim=1)
        middles.append((first + last + 1).float() / length - 1)
        halves.append((last + 1 - first).clamp_min(0).float() / length)
    return torch.stack(middles, dim=1), torch.maximum(*halves)
