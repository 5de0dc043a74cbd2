"""The ten background textures of the world, as functions of a generator and a size.

Every texture is drawn with its own range of colours and light, so that no single colour gives it away,
and looks alike at any image size: its grain is counted in parts of the image, not in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image

Array = np.ndarray
Texture = Callable[[np.random.Generator, int, int], Array]


def smooth_noise(rng: np.random.Generator, height: int, width: int, rows: int, columns: int) -> Array:
    """Noise in [0, 1] whose blobs are 1 / `rows` of the height and 1 / `columns` of the width; (H, W)."""
    grid = Image.fromarray(rng.random((rows + 1, columns + 1), dtype=np.float32))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)).clip(0.0, 1.0)


def grid_of(height: int, width: int) -> tuple[Array, Array]:
    """Row and column coordinates in [0, 1): (H, 1) and (1, W)."""
    rows = (np.arange(height, dtype=np.float32) + 0.5) / height
    columns = (np.arange(width, dtype=np.float32) + 0.5) / width
    return rows[:, None], columns[None, :]


def mix(low: Array, high: Array, share: Array) -> Array:
    """Blend two colours by a plane of shares in [0, 1]; (H, W, 3)."""
    mixed: Array = low + share[..., None] * (high - low)
    return mixed


def rgb(red: float, green: float, blue: float) -> Array:
    """A colour to calculate with; (3,), float32, 0-255."""
    return np.array([red, green, blue], np.float32)


def tone(rng: np.random.Generator, colour: tuple[int, int, int], spread: float = 12.0) -> Array:
    """`colour` with a random lightness and a little random tint; (3,), 0-255."""
    shift = rng.normal(0.0, spread) + rng.normal(0.0, spread * 0.35, 3)
    return (np.asarray(colour, np.float32) + shift).astype(np.float32)


def pick(rng: np.random.Generator, colours: list[tuple[int, int, int]], spread: float = 10.0) -> Array:
    """One of several colours, varied by `tone`."""
    return tone(rng, colours[int(rng.integers(len(colours)))], spread)


def sky(rng: np.random.Generator, height: int, width: int) -> Array:
    """A gradient of blue, grey or evening light with soft haze."""
    v, _ = grid_of(height, width)
    tops = [(70, 130, 215), (100, 160, 225), (140, 165, 195), (110, 120, 190)]
    bottoms = [(190, 220, 245), (210, 225, 240), (250, 215, 190)]
    image = mix(pick(rng, tops), pick(rng, bottoms), np.broadcast_to(v, (height, width)))
    haze = smooth_noise(rng, height, width, 5, 3) * smooth_noise(rng, height, width, 9, 4)
    return mix(image, rgb(250, 250, 252), (haze * 1.3 - 0.25).clip(0, 0.7))


def tree(rng: np.random.Generator, height: int, width: int) -> Array:
    """Clustered foliage with dark gaps and a trunk or two."""
    dark, light = (
        pick(rng, [(26, 58, 30), (36, 62, 24)]),
        pick(rng, [(96, 152, 62), (118, 152, 56), (76, 140, 80)]),
    )
    leaves = 0.55 * smooth_noise(rng, height, width, 26, 26) + 0.45 * smooth_noise(rng, height, width, 9, 9)
    image = mix(dark, light, ((leaves - 0.28) * 2.0).clip(0, 1))
    v, u = grid_of(height, width)
    for _ in range(int(rng.integers(1, 3))):
        centre, half = rng.uniform(0.05, 0.95), rng.uniform(0.012, 0.028)
        bark = (np.abs(u - centre + 0.03 * np.sin(4 * v + centre)) < half * (0.7 + 0.6 * v)) & (leaves < 0.56)
        image = np.where(bark[..., None], tone(rng, (84, 62, 42)) + 30 * (leaves[..., None] - 0.4), image)
    return image


def water(rng: np.random.Generator, height: int, width: int) -> Array:
    """Waves: broken horizontal crests over blue or green depth."""
    v, u = grid_of(height, width)
    deep = pick(rng, [(22, 82, 128), (24, 104, 122), (40, 92, 150)])
    light = pick(rng, [(96, 176, 200), (110, 190, 190), (120, 178, 215)])
    swell = smooth_noise(rng, height, width, 6, 4)
    phase = (
        2 * np.pi * (v * rng.uniform(13, 18) * (1.15 - 0.35 * v) + 1.6 * swell + 0.5 * np.sin(6 * u + 9 * v))
    )
    crest = (0.5 + 0.5 * np.sin(phase)) ** 2 * smooth_noise(rng, height, width, 24, 7)
    image = mix(deep, light, (0.25 * swell + 0.85 * crest).clip(0, 1))
    return mix(image, rgb(235, 246, 250), ((crest - 0.62) * 2.4).clip(0, 0.8))


def wood(rng: np.random.Generator, height: int, width: int) -> Array:
    """Boards with grain and dark joints."""
    v, u = grid_of(height, width)
    across, along = (v, u) if rng.random() < 0.6 else (u, v)
    boards = int(rng.integers(5, 9))
    board = np.floor(across * boards).astype(int) % boards
    lightness = rng.uniform(-16, 16, boards).astype(np.float32)[board]
    wobble = smooth_noise(rng, height, width, 4, 4)
    grain = 0.5 + 0.5 * np.sin(across * boards * 26 + 7 * wobble + 3 * np.sin(along * 5 + 2 * lightness))
    dark, light = pick(rng, [(118, 74, 40), (136, 92, 56)]), pick(rng, [(182, 128, 78), (200, 152, 100)])
    image = mix(dark, light, np.broadcast_to(0.35 * grain + 0.6 * wobble, (height, width)))
    image = image + np.broadcast_to(lightness, (height, width))[..., None]
    joint = np.abs((across * boards) % 1.0 - 0.5) > 0.46
    boarded: Array = np.where(np.broadcast_to(joint, (height, width))[..., None], image * 0.45, image)
    return boarded


def road(rng: np.random.Generator, height: int, width: int) -> Array:
    """Asphalt with grit and dashed lane marks."""
    v, u = grid_of(height, width)
    base = tone(rng, (98, 98, 104), 12)
    patches = smooth_noise(rng, height, width, 5, 5)
    grit = smooth_noise(rng, height, width, 60, 60)
    image = base + (26 * (patches - 0.5) + 34 * (grit - 0.5))[..., None]
    mark = pick(rng, [(232, 232, 226), (226, 190, 70)], 6)
    slope, period = rng.uniform(-0.12, 0.12), rng.uniform(0.22, 0.34)
    for line in rng.uniform(0.12, 0.3) + np.array([0.0, 0.48], np.float32):
        dash = (np.abs(v - line - slope * (u - 0.5)) < 0.016) & ((u + line) % period < 0.6 * period)
        image = np.where((dash & (grit > 0.22))[..., None], mark, image)
    return image


def wall(rng: np.random.Generator, height: int, width: int) -> Array:
    """Bricks in staggered courses with pale mortar."""
    v, u = grid_of(height, width)
    courses, bricks = int(rng.integers(9, 13)), int(rng.integers(4, 7))
    course = np.floor(v * courses).astype(int)
    along = u * bricks + 0.5 * (course % 2) + rng.random()
    brick = np.floor(along).astype(int) % bricks
    shade = rng.uniform(-22, 22, (courses, bricks)).astype(np.float32)[course, brick]
    base = pick(rng, [(166, 84, 64), (150, 96, 78), (178, 112, 86), (140, 78, 72)])
    image = base + (shade + 30 * (smooth_noise(rng, height, width, 40, 40) - 0.5))[..., None]
    gap = ((v * courses) % 1.0 < 0.14) | (along % 1.0 < 0.07)
    return np.where(gap[..., None], tone(rng, (206, 196, 182), 8), image)


def grass(rng: np.random.Generator, height: int, width: int) -> Array:
    """Upright blades over patches of lighter and drier green."""
    blades = smooth_noise(rng, height, width, 14, 72)
    patches = smooth_noise(rng, height, width, 4, 4)
    dark, light = (
        pick(rng, [(46, 104, 34), (58, 112, 30)]),
        pick(rng, [(140, 196, 74), (128, 184, 60), (164, 190, 84)]),
    )
    return mix(dark, light, (0.62 * blades + 0.55 * patches - 0.12).clip(0, 1))


def railroad(rng: np.random.Generator, height: int, width: int) -> Array:
    """Ballast with tracks: sleepers under pairs of bright rails."""
    v, u = grid_of(height, width)
    stones = smooth_noise(rng, height, width, 44, 44)
    image = tone(rng, (128, 116, 104), 10) + (84 * (stones - 0.5))[..., None]
    gauge, ties = rng.uniform(0.13, 0.17), rng.uniform(9, 12)
    sleeper, rail = tone(rng, (74, 52, 40), 6), tone(rng, (196, 198, 204), 8)
    slope, first = rng.uniform(-0.05, 0.05), rng.uniform(0.16, 0.34)
    for centre in (first, first + rng.uniform(0.42, 0.5)):
        offset = np.abs(v - centre - slope * (u - 0.5))
        tie = (offset < 0.78 * gauge) & ((u * ties) % 1.0 < 0.42)
        image = np.where(tie[..., None], sleeper + 24 * (stones[..., None] - 0.5), image)
        image = np.where((np.abs(offset - 0.5 * gauge) < 0.013)[..., None], rail, image)
    return image


def sand(rng: np.random.Generator, height: int, width: int) -> Array:
    """Wind ripples and grain in pale yellow."""
    v, u = grid_of(height, width)
    bend = smooth_noise(rng, height, width, 4, 4)
    ripple = 0.5 + 0.5 * np.sin(2 * np.pi * (v * rng.uniform(9, 13) + rng.uniform(-3, 3) * u + 1.8 * bend))
    grain = smooth_noise(rng, height, width, 70, 70)
    dark, light = (
        pick(rng, [(196, 164, 112), (206, 172, 124)], 7),
        pick(rng, [(240, 216, 168), (232, 208, 150)], 7),
    )
    return mix(dark, light, (0.45 * ripple + 0.35 * bend + 0.3 * grain).clip(0, 1))


def snow(rng: np.random.Generator, height: int, width: int) -> Array:
    """Drifts of white with blue shadows and glints."""
    drift = smooth_noise(rng, height, width, 5, 3)
    grain = smooth_noise(rng, height, width, 64, 64)
    shade, light = pick(rng, [(186, 204, 228), (200, 212, 230)], 6), tone(rng, (246, 249, 253), 3)
    image = mix(shade, light, (1.5 * drift - 0.1 + 0.24 * (grain - 0.5)).clip(0, 1))
    return np.where((grain > 0.93)[..., None], rgb(255, 255, 255), image)


TEXTURES: Final[dict[str, Texture]] = {
    "sky": sky,
    "tree": tree,
    "water": water,
    "wood": wood,
    "road": road,
    "wall": wall,
    "grass": grass,
    "railroad": railroad,
    "sand": sand,
    "snow": snow,
}
