"""What tests of models and exports share: a small network that sees several classes, images, masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from wsss.data.masks_png import write_mask
from wsss.export.mask_source import MaskSource, open_masks
from wsss.segmentation import SegmentationConfig, build
from wsss.segmentation.model import SegmentationModel

NAMES = ("background", "cat", "dining table", "Zähler <&>")


def small_net(config: SegmentationConfig | None = None, seed: int = 0) -> Any:
    """Random weights, strong enough that no class is everywhere."""
    torch.manual_seed(seed)
    net = build(config or SegmentationConfig(preset="scenes"), NAMES).eval()
    with torch.no_grad():
        for parameter in net.head.parameters():
            parameter.normal_(std=1.0)
    return net


def small_model(seed: int = 0, **settings: Any) -> SegmentationModel:
    config = SegmentationConfig(preset="scenes", **settings)
    return SegmentationModel(small_net(config, seed), config, NAMES)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An image of coarse random patches."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return cells.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def save_image(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def masks() -> dict[str, np.ndarray]:
    """Masks of several sizes: regions, single pixels, 255, one without any class, one of one class."""
    rng = np.random.default_rng(3)
    blocks = rng.choice([0, 1, 2, 3, 255], (5, 7), p=[0.4, 0.2, 0.1, 0.2, 0.1]).astype(np.uint8)
    return {
        "a.png": blocks.repeat(6, axis=0).repeat(9, axis=1),
        "below/a.png": rng.choice([0, 1, 2, 255], (31, 17)).astype(np.uint8),
        "empty.png": np.zeros((4, 9), np.uint8),
        "full.png": np.full((300, 257), 3, np.uint8),
        "one.png": np.eye(1, 12, 11, dtype=np.uint8),
    }


def mask_folder(folder: Path) -> MaskSource:
    """`masks()` as files, with their list of classes."""
    for name, mask in masks().items():
        write_mask(folder / "masks" / name, mask)
    classes = folder / "classes.json"
    classes.write_text(str(list(NAMES[1:])).replace("'", '"'), encoding="utf-8")
    return open_masks(folder / "masks", classes=classes)


def without_ignored(mask: np.ndarray) -> np.ndarray:
    return np.where(mask == 255, 0, mask).astype(np.uint8)
