"""A small folder of tagged images without any fault, and ways to write single images and tags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("blisk", "rotor")  # no everyday words
PATTERN = (("blisk",), ("rotor",), ("blisk", "rotor"), ())
SCENES = ("bench", "tray", "cloth")  # three beside four kinds of labels: no word belongs to a class


def pixels(seed: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Random colours, (H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (48, 64)) -> Path:
    """An RGB image in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, size)).save(path)
    return path


def write_tags(path: Path, rows: list[tuple[str, tuple[str, ...], tuple[str, ...]]]) -> Path:
    """A tags file of (image, labels, scene words)."""
    lines = [f"{image},{'|'.join(labels)},{'|'.join(words)}" for image, labels, words in rows]
    path.write_text("\n".join(["image,labels,scene", *lines]) + "\n", encoding="utf-8")
    return path


def clean_rows(count: int = 48) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Tags that leave nothing to say: 24 images of each class, alone, together and without, any scene."""
    return [(f"{n:03d}", PATTERN[n % 4], (SCENES[n % 3],)) for n in range(count)]


def write_folder(root: Path, count: int = 48) -> Path:
    """`images/` and `tags.csv` without any fault."""
    for n in range(count):
        write_image(root / "images" / f"{n:03d}.png", n)
    write_tags(root / "tags.csv", clean_rows(count))
    return root
