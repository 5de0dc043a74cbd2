"""What a refiner is: a step that maps activation maps to better activation maps.

One file per refiner, `wsss/refiners/<name>.py`, holding exactly one `Refiner` subclass, which `find_refiner`
imports by name. Refiners chain: what one gives, the next takes.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from wsss.activation.store import MapStore
from wsss.checks import nearest
from wsss.data.dataset import Dataset
from wsss.errors import RecipeError
from wsss.methods.base import single_subclass
from wsss.training.journal import Progress
from wsss.types import ActivationMaps, Paper, Sample


class RefinerConfig(BaseModel):
    """Hyper-parameters of a refiner; subclasses add their own, defaults = published values."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Refiner(ABC):
    """Improves activation maps without masks.

    Args:
        config: the refiner's own `Config`.
        class_names: K + 1 names, the first "background".
    """

    paper: ClassVar[Paper]
    Config: ClassVar[type[RefinerConfig]]

    def __init__(self, config: RefinerConfig, class_names: Sequence[str]) -> None:
        self.config = config
        self.class_names = tuple(class_names)

    def fit(
        self,
        dataset: Dataset,
        ids: Sequence[str],
        maps: MapStore,
        work_dir: Path,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> None:
        """Train what the refiner needs, resumably, inside `work_dir`; default: nothing.

        Args:
            dataset: gives no masks.
            ids: images to learn from.
            maps: the maps to be refined.
            work_dir: the refiner's own folder.
            seed: of everything random.
            progress: told after each step.
        """
        return

    @abstractmethod
    def refine(self, sample: Sample, maps: ActivationMaps) -> ActivationMaps:
        """Better maps of one image: the same classes, scores in [0, 1]. `sample` has no mask."""


def list_refiners() -> tuple[str, ...]:
    """Names of the refiners in the package."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    return tuple(sorted(m.name for m in modules if m.name != "base" and not m.name.startswith("_")))


def find_refiner(name: str) -> type[Refiner]:
    """The `Refiner` class called `name`.

    Raises:
        RecipeError: there is no such refiner, or its file does not define exactly one.
    """
    if name not in list_refiners():
        raise RecipeError(f"Unknown refiner `{name}`. {nearest(name, list_refiners())}")
    found: type[Refiner] = single_subclass(importlib.import_module(f"wsss.refiners.{name}"), Refiner)
    return found
