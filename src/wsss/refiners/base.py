"""What a refiner is: a step that maps activation maps to better activation maps.

One file per refiner, `wsss/refiners/<name>.py` (or any file, given by its path), holding exactly one
`Refiner` subclass, which `find_refiner` imports by name. Refiners chain: what one gives, the next takes.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from wsss.activation.extract import MAX_PIXELS, Pixels, capped_size, resized
from wsss.activation.store import MapStore
from wsss.checks import nearest
from wsss.data.dataset import Dataset
from wsss.errors import RecipeError, ShapeError
from wsss.methods.base import import_file, single_subclass
from wsss.training.config import merged_settings
from wsss.training.journal import Progress
from wsss.types import ActivationMaps, Paper, Sample


class RefinerConfig(BaseModel):
    """Hyper-parameters that every refiner has; subclasses add their own, defaults = published values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_pixels: int = Field(
        MAX_PIXELS,
        ge=1,
        description="Larger images are seen shrunk to so many pixels; published data sets stay below "
        "(published: no limit).",
    )

    @model_validator(mode="before")
    @classmethod
    def _complete_sections(cls, values: Any) -> Any:
        """Sections such as `training` need only name what differs from this refiner's own defaults."""
        if not isinstance(values, Mapping):
            return values
        defaults = {
            name: default.model_dump()
            for name, field in cls.model_fields.items()
            if isinstance(default := field.get_default(call_default_factory=True), BaseModel)
            and isinstance(values.get(name), Mapping)
        }
        return merged_settings(defaults, values)


class Refiner(ABC):
    """Improves activation maps without masks.

    Args:
        config: the refiner's own `Config`.
        class_names: K + 1 names, the first "background".

    Attributes:
        presets: named sets of hyper-parameters, applied before the recipe's own values.
        reads_full_size: whether `refine` wants maps of the image's size, or as they are stored, at the map
            stride; the two are normalised separately (docs/file-formats.md).
        background: what becomes of the maps' background: "set" (the result has one), or "unknown" (it has
            none, and a background score makes the mask).
        together: images of one size that a CPU refines at once; accelerators take more.
        stride: image pixels per cell of what `refine` gives; maps of the image's size follow by
            `ActivationMaps.enlarged(stride, height, width)`.
    """

    paper: ClassVar[Paper]
    Config: ClassVar[type[RefinerConfig]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    reads_full_size: ClassVar[bool] = True
    background: ClassVar[str] = "set"
    together: ClassVar[int] = 1

    def __init__(self, config: RefinerConfig, class_names: Sequence[str]) -> None:
        self.config = config
        self.class_names = tuple(class_names)

    @property
    def stride(self) -> int:
        """Image pixels per cell of what `refine` gives."""
        return 1

    def seen_pixels(self, size: tuple[int, int]) -> int:
        """Pixels that are worked on for an image of (height, width): what batches are measured by."""
        return min(prod(size), self.config.max_pixels)

    def fit(
        self,
        dataset: Dataset,
        ids: Sequence[str],
        maps: MapStore,
        work_dir: Path,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> None:
        """Learn what `refine` needs, resumably, inside `work_dir`; default: nothing.

        One folder belongs to one configuration, seed and store of maps.

        Called in every process of a distributed run, and again, returning at once, before `refine` is used in
        another process.

        Args:
            dataset: gives no masks.
            ids: images to learn from.
            maps: the maps to be refined.
            work_dir: the refiner's own folder.
            seed: of everything random.
            device: where to compute.
            progress: told of the work as it goes.
        """
        return

    @abstractmethod
    def refine(self, sample: Sample, maps: ActivationMaps) -> ActivationMaps:
        """Better maps of one image on the maps' device: the same classes, scores in [0, 1].

        Args:
            sample: the image; it has no mask.
            maps: what `reads_full_size` asks for; maps of another size are resized.
        """

    def refine_batch(self, samples: Sequence[Sample], maps: Sequence[ActivationMaps]) -> list[ActivationMaps]:
        """`refine` for several images of one size; the same results, faster on accelerators."""
        return [self.refine(sample, own) for sample, own in zip(samples, maps, strict=True)]

    def rehearse(self, count: int, side: int) -> tuple[nn.Module, dict[str, Tensor]] | None:
        """For estimates: the untrained network of `fit`, and the aligned inputs of a batch of its training.

        Leaves the refiner ready to refine, with results that mean nothing. Default: it trains nothing.

        Args:
            count: images of the batch.
            side: of their square crops, in pixels.
        """
        return None

    def checked_size(self, samples: Sequence[Sample], maps: Sequence[ActivationMaps]) -> tuple[int, int]:
        """(height, width) that all the images share; for `refine_batch`.

        Raises:
            ShapeError: sizes differ, or the maps hold a class that does not exist.
        """
        sizes = sorted({(sample.image.shape[0], sample.image.shape[1]) for sample in samples})
        if len(sizes) != 1 or len(samples) != len(maps):
            raise ShapeError(
                f"`refine_batch` takes images of one size, each with its maps; got {len(samples)} images of "
                f"sizes {sizes} and {len(maps)} maps. Group the images by size."
            )
        for sample, own in zip(samples, maps, strict=True):
            if len(own.class_ids) and int(own.class_ids[-1]) >= len(self.class_names):
                raise ShapeError(
                    f"Maps of {sample.image_id} hold class {int(own.class_ids[-1])}, but there are only "
                    f"{len(self.class_names) - 1} foreground classes. Were they made with another class list?"
                )
        return sizes[0]


def seen_image(sample: Sample, max_pixels: int) -> Pixels:
    """The image (H, W, 3), or shrunk, sides in proportion, to at most `max_pixels` pixels."""
    height, width = sample.image.shape[:2]
    return resized(sample.image, capped_size((height, width), max_pixels), Image.Resampling.BICUBIC)


def list_refiners() -> tuple[str, ...]:
    """Names of the refiners in the package."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    return tuple(sorted(m.name for m in modules if m.name != "base" and not m.name.startswith("_")))


def find_refiner(name: str) -> type[Refiner]:
    """The `Refiner` class called `name`, or the one in the Python file at the path `name`.

    Raises:
        RecipeError: there is no such refiner, or its file does not define exactly one.
    """
    if name.endswith(".py"):
        module = import_file(Path(name), "refiner")
    elif name in list_refiners():
        module = importlib.import_module(f"wsss.refiners.{name}")
    else:
        raise RecipeError(f"Unknown refiner `{name}`. {nearest(name, list_refiners())}")
    found: type[Refiner] = single_subclass(module, Refiner)
    return found
