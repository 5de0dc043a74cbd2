"""What estimates know of the data: classes, counts and image sizes, without generating or decoding any."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil, prod
from statistics import fmean
from typing import Final

from wsss.data import ScenesConfig
from wsss.data.dataset import Dataset, tagged_ids
from wsss.data.scenes import CLASS_NAMES, class_infos
from wsss.engine.recipe import Recipe
from wsss.engine.stages import Workspace
from wsss.errors import WsssError
from wsss.types import ClassInfo

SAMPLED_SIZES: Final = 400  # images whose headers are read


@dataclass(frozen=True)
class DataFacts:
    """What the estimate knows of the data without generating them; sizes are those of a sample.

    Args:
        class_names: K + 1 names.
        classes: the K foreground classes.
        train: number of images that are trained on.
        val: number of images that a network is scored on; 0 without one.
        scored: number of images whose maps are scored; 0 without a method.
        sizes: (height, width) of some images.
    """

    class_names: tuple[str, ...]
    classes: tuple[ClassInfo, ...]
    train: int
    val: int
    scored: int
    sizes: tuple[tuple[int, int], ...]

    @property
    def pixels(self) -> float:
        """Of an image, on average: what time and disk follow from."""
        return mean_pixels(self.sizes)

    @property
    def largest(self) -> tuple[int, int]:
        """The size that decides the memory."""
        return max(self.sizes, key=prod)


def data_facts(recipe: Recipe, workspace: Workspace) -> DataFacts:
    """Count the images of a recipe and look at the headers of some; generated ones need not be there."""
    config = recipe.data
    if isinstance(config, ScenesConfig):
        size = (config.size, config.size)
        counts = {"val": config.val, "trainval": config.train + config.val}
        mapped = counts.get(recipe.maps_split, config.train)
        return DataFacts(CLASS_NAMES, tuple(class_infos()), config.train, config.val, mapped, (size,))
    dataset = workspace.dataset
    train = tagged_ids(dataset, config.train_split)
    val = dataset.ids(config.val_split) if recipe.segmentation is not None else ()
    scored = tagged_ids(dataset, recipe.maps_split) if recipe.method is not None else ()
    sizes = sampled_sizes(dataset, (*train, *val))
    return DataFacts(dataset.class_names, dataset.classes, len(train), len(val), len(scored), sizes)


def sampled_sizes(dataset: Dataset, ids: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Sizes of evenly spread images; of those that can't be read the stages themselves will tell."""
    sizes = []
    for image_id in ids[:: max(1, ceil(len(ids) / SAMPLED_SIZES))]:
        with suppress(WsssError, OSError):
            sizes.append(dataset.image_size(image_id))
    return tuple(sizes) or ((1, 1),)


def mean_pixels(sizes: Sequence[tuple[int, int]]) -> float:
    """Pixels of an image, on average over sizes (height, width)."""
    return fmean(prod(size) for size in sizes)
