"""Training pictures for the embedded saliency detector: reserved shapes on reserved backgrounds.

An off-the-shelf detector was trained on other data than the images it is used on. So is this one: it sees
only the generator's second set of shapes and textures, which the benchmark never shows. So few of them would
be learned by heart, and are therefore changed beyond recognition: things are put together of several shapes,
stretched and turned; backgrounds are turned, stretched, bent, cut and blended; all change their colours.
Things and backgrounds are drawn once each; a batch lays random things over random backgrounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.data.scenes.drawing import lay_over
from wsss.data.scenes.pen import PATTERNS, Colour, Pen, Point, Pose
from wsss.data.scenes.reserved import RESERVED_SHAPES, RESERVED_TEXTURES
from wsss.data.scenes.world import BODY_COLOURS
from wsss.models.embedded.compose import Progress
from wsss.models.embedded.saliency_format import WORKING_SIZE, normalised

GROUND_SIZE: Final = 144  # backgrounds are drawn larger: a picture shows a turned part of them
COUNT_WEIGHTS: Final = (0.06, 0.54, 0.30, 0.10)  # pictures with 0, 1, 2 and 3 things
PART_WEIGHTS: Final = (0.40, 0.35, 0.25)  # things of 1, 2 and 3 shapes
AREAS: Final = (0.03, 0.5)  # of a thing's box, in parts of the picture
ASPECTS: Final = (0.4, 2.2)  # of the box, height by width
FLAT: Final = (1, 1, 1)  # shape of what is one number per picture and broadcast over (B, D, H, W)


@dataclass(frozen=True, eq=False)
class Pools:
    """Drawn parts.

    Args:
        things: RGB and coverage, each thing at its place in a picture; (N, 4, H, W), uint8.
        shadows: darkening of the ground under it, 255 = black; (N, 1, H, W), uint8.
        grounds: RGB; (M, 3, 144, 144), uint8.
    """

    things: Tensor
    shadows: Tensor
    grounds: Tensor


class PartPen(Pen):
    """A pen that draws several shapes into parts of one thing's box.

    Args:
        pose: of the whole thing.
        body: main colour.
        accent: second colour.
    """

    def __init__(self, pose: Pose, body: Colour, accent: Colour) -> None:
        super().__init__(pose, body=body, accent=accent, key=(0, 0, 0))
        # takes (u, v, 1) of a shape to (u, v) of the whole thing
        self.frame = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

    def polygon(self, points: Sequence[Point], colour: Colour | None = None) -> None:
        """A part of the shape that is being drawn."""
        placed = np.column_stack([np.asarray(points, float), np.ones(len(points))]) @ self.frame.T
        super().polygon([(float(u), float(v)) for u, v in placed], colour)


def draw_pools(seed: int, *, things: int, grounds: int, progress: Progress | None = None) -> Pools:
    """Draw the parts that a detector is trained on.

    Args:
        seed: of the training; each seed has pools of its own.
        things: how many.
        grounds: how many backgrounds, as many of each reserved texture.
        progress: called with ("drawing", parts drawn, parts in all).
    """
    layers, shades, textures = [], [], []
    names = tuple(RESERVED_TEXTURES)
    for index in range(things + grounds):
        rng = np.random.default_rng([seed, index])
        if index < things:
            drawn, shade = _thing(rng)
            layers.append(drawn)
            shades.append(shade)
        else:
            ground = RESERVED_TEXTURES[names[index % len(names)]](rng, GROUND_SIZE, GROUND_SIZE)
            textures.append(ground.round().clip(0, 255).astype(np.uint8))
        if progress is not None and index % 500 == 499:
            progress("drawing", index + 1, things + grounds)
    return Pools(
        torch.from_numpy(np.stack(layers)).permute(0, 3, 1, 2),
        torch.from_numpy(np.stack(shades))[:, None],
        torch.from_numpy(np.stack(textures)).permute(0, 3, 1, 2),
    )


def _thing(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """RGB and coverage (H, W, 4), and shadow (H, W), of one to three shapes in a common box; uint8."""
    size = WORKING_SIZE
    pose = _pose(rng)
    first, second = rng.choice(len(BODY_COLOURS), 2, replace=False).tolist()
    pen = PartPen(pose, BODY_COLOURS[first], BODY_COLOURS[second])
    count = 1 + int(rng.choice(len(PART_WEIGHTS), p=PART_WEIGHTS))
    for _ in range(count):
        if count > 1:
            pen.frame = _frame(rng)
        name = list(RESERVED_SHAPES)[int(rng.integers(len(RESERVED_SHAPES)))]
        RESERVED_SHAPES[name][name][0](pen)
    layer = pen.finish(rng, PATTERNS[int(rng.integers(len(PATTERNS)))])
    picture, white = np.zeros((size, size, 3), np.float32), np.zeros((size, size, 1), np.float32)
    opaque, cover = (layer.alpha > 0).astype(np.float32), np.full((*layer.alpha.shape, 1), 255, np.float32)
    lay_over(picture, replace(layer, alpha=opaque))
    lay_over(white, replace(layer, colour=cover))
    drawn = np.concatenate([picture, white], axis=2).round().astype(np.uint8)
    return drawn, (255 * _shadow(pose, size)).round().astype(np.uint8)


def _pose(rng: np.random.Generator) -> Pose:
    """Where a thing stands: any size and place, mostly upright and mostly inside the picture."""
    area = math.exp(rng.uniform(math.log(AREAS[0]), math.log(AREAS[1])))
    aspect = math.exp(rng.uniform(math.log(ASPECTS[0]), math.log(ASPECTS[1])))
    sides = math.sqrt(area / aspect), math.sqrt(area * aspect)
    width, height = (WORKING_SIZE * min(0.94, side) for side in sides)
    over = 0.3 if rng.random() < 0.15 else 0.0  # of its box may lie outside
    x, y = (rng.uniform((0.5 - over) * side, WORKING_SIZE - (0.5 - over) * side) for side in (width, height))
    angle = rng.uniform(0, 360) if rng.random() < 0.2 else rng.normal(0, 8)
    return Pose(float(x), float(y), width, height, bool(rng.random() < 0.5), float(angle))


def _frame(rng: np.random.Generator) -> np.ndarray:
    """A random part of the box for a shape, mirrored or turned by quarters at random; (2, 3)."""
    width, height = rng.uniform(0.4, 0.95, 2)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    quarter = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), int(rng.integers(4)))
    quarter = quarter if rng.random() < 0.5 else np.eye(2)
    turned = np.diag([width, height]) @ quarter
    return np.column_stack([turned, np.array([left + width / 2, top + height / 2]) - turned @ [0.5, 0.5]])


def _shadow(pose: Pose, size: int) -> np.ndarray:
    """How much a thing darkens the ground below it, as in the generator's scenes; (H, W), 0-1."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32) + 0.5
    across = (columns - pose.x) / (0.52 * pose.width)
    down = (rows - pose.y - 0.49 * pose.height) / (0.05 * size + 0.03 * pose.height)
    depth: np.ndarray = 0.35 * (1.0 - across**2 - down**2).clip(0, 1)
    return depth


def compose(pools: Pools, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Lay random things over random backgrounds, all in random colours, under random light.

    Args:
        pools: parts.
        count: B.
        generator: source of all randomness.

    Returns:
        Pictures, normalised, (B, 3, H, W), and what things cover, (B, 1, H, W), 0 or 1.
    """
    pictures = _background(pools, count, generator)
    masks = torch.zeros_like(pictures[:, :1])
    weights = torch.tensor(COUNT_WEIGHTS).expand(count, -1)
    counts = torch.multinomial(weights, 1, generator=generator)[:, 0]
    for number in range(len(COUNT_WEIGHTS) - 1):
        rows = (counts > number).nonzero().flatten()
        chosen = torch.randint(len(pools.things), (len(rows),), generator=generator)
        layers = torch.cat([pools.things[chosen], pools.shadows[chosen]], dim=1).float() / 255
        mirror = torch.rand(len(rows), generator=generator) < 0.5
        layers = torch.where(mirror[:, None, None, None], layers.flip(3), layers)
        has_shadow = _uniform(generator, 0, 1, len(rows)) < 0.5
        cover = layers[:, 3:4]
        under = pictures[rows] * (1 - layers[:, 4:] * has_shadow)
        pictures[rows] = under + cover * (recoloured(layers[:, :3], generator) - under)
        masks[rows] = torch.maximum(masks[rows], (cover >= 0.5).float())
    return normalised(255 * _lit(pictures, generator).permute(0, 2, 3, 1)), masks


def _background(pools: Pools, count: int, generator: torch.Generator) -> Tensor:
    """Two changed backgrounds, joined along a line, blended, or the first alone; (B, 3, H, W), 0-1."""
    first, second = _ground(pools, count, generator), _ground(pools, count, generator)
    kind = torch.rand(count, generator=generator)[:, None, None, None]
    halves = (_line(count, generator) > 0).float()
    blend = _uniform(generator, 0.2, 0.8, count) * torch.ones_like(halves)
    patches = (8 * (_smooth(count, 5, generator) - 0.5)).clamp(0, 1)
    share = torch.where(kind < 0.45, torch.zeros_like(halves), halves)
    share = torch.where((kind >= 0.75) & (kind < 0.87), blend, share)
    share = torch.where(kind >= 0.87, patches, share)
    pictures = first + share * (second - first)
    return pictures + _stripes(count, generator) * (second.flip(3) - pictures)


def _ground(pools: Pools, count: int, generator: torch.Generator) -> Tensor:
    """Backgrounds turned, stretched, bent and recoloured; (B, 3, H, W), 0-1."""
    chosen = pools.grounds[torch.randint(len(pools.grounds), (count,), generator=generator)].float() / 255
    turn = torch.where(
        torch.rand(count, generator=generator) < 0.4,
        math.pi / 2 * torch.randint(4, (count,), generator=generator),
        2 * math.pi * torch.rand(count, generator=generator),
    )
    zoom = torch.exp(math.log(0.35) + math.log(1.2 / 0.35) * torch.rand(count, 2, generator=generator))
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = turn.cos() * zoom[:, 0], -turn.sin() * zoom[:, 1]
    theta[:, 1, 0], theta[:, 1, 1] = turn.sin() * zoom[:, 0], turn.cos() * zoom[:, 1]
    theta[:, :, 2] = torch.rand(count, 2, generator=generator) - 0.5
    grid = F.affine_grid(theta, [count, 3, WORKING_SIZE, WORKING_SIZE], align_corners=False)
    bend = torch.cat([_smooth(count, 4, generator) - 0.5 for _ in range(2)], dim=1).permute(0, 2, 3, 1)
    grid = grid + _uniform(generator, 0.0, 0.5, count) * bend
    sampled = F.grid_sample(chosen, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return recoloured(sampled, generator)


def recoloured(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Give each picture of a batch other colours: channels exchanged and mixed, contrast, lightness, tint.

    Args:
        pixels: RGB; (B, 3, H, W) in [0, 1].
        generator: source of all randomness.
    """
    count = len(pixels)
    order = torch.rand(count, 3, generator=generator).argsort(dim=1)
    mixing = torch.eye(3)[order]  # (B, 3, 3)
    mixing = mixing + 0.25 * torch.randn(count, 3, 3, generator=generator)
    mixing = mixing / mixing.sum(dim=2, keepdim=True).clamp_min(0.5)  # grey stays about grey
    contrast = torch.exp(_uniform(generator, math.log(0.5), math.log(1.5), count))
    lightness = 0.10 * torch.randn(count, *FLAT, generator=generator)
    tint = 0.08 * torch.randn(count, 3, 1, 1, generator=generator)
    mixed = torch.einsum("bij,bjhw->bihw", mixing, pixels - 0.5) * contrast
    return (mixed + 0.5 + lightness + tint).clamp(0, 1)


def _lit(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Random light, soft unevenness, blur and noise over whole pictures."""
    count = len(pictures)
    light = _uniform(generator, 0.8, 1.12, count) * (1 + 0.24 * (_smooth(count, 3, generator) - 0.5))
    blurred = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blur = (_uniform(generator, 0, 1, count) < 0.15) * _uniform(generator, 0.3, 1.0, count)
    grain = torch.randn(count, 1, *pictures.shape[2:], generator=generator)
    noise = _uniform(generator, 0, 0.03, count) * grain
    return ((pictures + blur * (blurred - pictures)) * light + noise).clamp(0, 1)


def _line(count: int, generator: torch.Generator) -> Tensor:
    """Signed distance from a random wavy line through the picture; (B, 1, H, W), parts of its side."""
    turn = torch.where(
        _uniform(generator, 0, 1, count) < 0.7,
        math.pi / 2 * torch.randint(4, (count, *FLAT), generator=generator),
        _uniform(generator, 0, 2 * math.pi, count),
    )
    places = (torch.arange(WORKING_SIZE) + 0.5) / WORKING_SIZE - 0.5
    across = places * turn.cos() + places[:, None] * turn.sin()
    waves = 0.08 * (_smooth(count, 4, generator) - 0.5) * (_uniform(generator, 0, 1, count) < 0.7)
    return across + waves + _uniform(generator, -0.3, 0.3, count)


def _stripes(count: int, generator: torch.Generator) -> Tensor:
    """Bands across the whole picture, which are no things: one wide or many narrow; (B, 1, H, W), 0 or 1."""
    distance = _line(count, generator)
    is_one = _uniform(generator, 0, 1, count) < 0.5
    half = _uniform(generator, 0.008, 0.06, count)
    period = half * _uniform(generator, 3.0, 8.0, count)
    repeated = (distance / period - (distance / period).round()).abs() * period
    inside = torch.where(is_one, distance.abs(), repeated) < half
    return (inside & (_uniform(generator, 0, 1, count) < 0.25)).float()


def _smooth(count: int, cells: int, generator: torch.Generator) -> Tensor:
    """Soft noise with blobs of 1 / `cells` of the picture; (B, 1, H, W) in [0, 1]."""
    grid = torch.rand(count, 1, cells + 1, cells + 1, generator=generator)
    size = (WORKING_SIZE, WORKING_SIZE)
    return F.interpolate(grid, size=size, mode="bicubic", align_corners=True).clamp(0, 1)


def _uniform(generator: torch.Generator, low: float, high: float, count: int) -> Tensor:
    return low + (high - low) * torch.rand(count, *FLAT, generator=generator)
