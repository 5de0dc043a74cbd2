"""A method whose maps depend on the pixels and on where they are, and a data set held in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import DataError
from wsss.types import Sample

NAMES = ("background", "cat", "dog", "cow")


class FakeMethod(nn.Module):
    """cams (B, 3, h / 8, w / 8): one colour channel each, pooled, times a ramp to the right and down."""

    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        self.calls: list[tuple[int, ...]] = []

    def cams(self, images: Tensor) -> Tensor:
        self.calls.append(tuple(images.shape))
        assert not self.training
        pooled = F.avg_pool2d(images, 8, ceil_mode=True, count_include_pad=False)
        height, width = pooled.shape[-2:]
        ramp = torch.linspace(0.2, 1, width) + torch.linspace(0, 3, height)[:, None] ** 2
        return F.relu(pooled + 0.8) * ramp * self.weight[:, None, None]


class MemoryDataset:
    """Random images with labels; those in `broken` can't be read."""

    name, class_names, classes = "memory", NAMES, ()
    context_names: Mapping[int, str] = {}

    def __init__(self, sizes: list[tuple[int, int]], labels: list[list[int]], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.names = tuple(f"image_{number}" for number in range(len(sizes)))
        self.images = {
            name: rng.integers(0, 256, (*size, 3)).astype(np.uint8)
            for name, size in zip(self.names, sizes, strict=True)
        }
        self.labels = {
            name: np.isin(np.arange(1, 4), present) for name, present in zip(self.names, labels, strict=True)
        }
        self.masks: dict[str, np.ndarray] = {}
        self.contexts: dict[str, np.ndarray] = {}
        self.broken: set[str] = set()
        self.samples_read: list[str] = []

    def ids(self, split: str) -> tuple[str, ...]:
        return self.names

    def image_labels(self, image_id: str) -> np.ndarray:
        return self.labels[image_id]

    def image_size(self, image_id: str) -> tuple[int, int]:
        height, width = self.images[image_id].shape[:2]
        return height, width

    def sample(self, image_id: str, *, with_mask: bool = False) -> Sample:
        self.samples_read.append(image_id)
        if image_id in self.broken:
            raise DataError(f"{image_id}.jpg is no image. Replace it.")
        mask = self.masks.get(image_id) if with_mask else None
        return Sample(image_id, self.images[image_id], self.labels[image_id], mask)

    def context(self, image_id: str) -> np.ndarray | None:
        return self.contexts.get(image_id)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)
