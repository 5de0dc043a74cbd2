"""Weakly supervised semantic segmentation: image tags in, pixel masks and a segmentation model out.

The names below are loaded when they are first used, so `import wsss` itself is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ActivationMaps": "wsss.types",
    "Batch": "wsss.types",
    "ClassInfo": "wsss.types",
    "Comparison": "wsss.engine.compare",
    "FolderConfig": "wsss.data",
    "Frozen": "wsss.methods.base",
    "LabelSettings": "wsss.engine.label",
    "MapStore": "wsss.activation.store",
    "Method": "wsss.methods.base",
    "MethodConfig": "wsss.methods.base",
    "Paper": "wsss.types",
    "Recipe": "wsss.engine.recipe",
    "Refiner": "wsss.refiners.base",
    "RunResult": "wsss.engine.run",
    "Sample": "wsss.types",
    "ScenesConfig": "wsss.data",
    "SegmentationModel": "wsss.segmentation.model",
    "TrainingConfig": "wsss.training.config",
    "VocConfig": "wsss.data",
    "WsssError": "wsss.errors",
    "compare": "wsss.engine.compare",
    "extract": "wsss.activation.extract",
    "find_method": "wsss.methods.base",
    "label_folder": "wsss.engine.label",
    "list_methods": "wsss.methods.base",
    "list_recipes": "wsss.engine.recipe_files",
    "list_refiners": "wsss.refiners.base",
    "load_recipe": "wsss.engine.recipe",
    "load_teacher": "wsss.models.clip",
    "open_dataset": "wsss.data",
    "run": "wsss.engine.run",
    "show_maps": "wsss.export.show_maps",
    "train": "wsss.training.loop",
    "write_report": "wsss.report.page",
}

__all__ = [
    "ActivationMaps",
    "Batch",
    "ClassInfo",
    "Comparison",
    "FolderConfig",
    "Frozen",
    "LabelSettings",
    "MapStore",
    "Method",
    "MethodConfig",
    "Paper",
    "Recipe",
    "Refiner",
    "RunResult",
    "Sample",
    "ScenesConfig",
    "SegmentationModel",
    "TrainingConfig",
    "VocConfig",
    "WsssError",
    "compare",
    "extract",
    "find_method",
    "label_folder",
    "list_methods",
    "list_recipes",
    "list_refiners",
    "load_recipe",
    "load_teacher",
    "open_dataset",
    "run",
    "show_maps",
    "train",
    "write_report",
]

if TYPE_CHECKING:
    from wsss.activation.extract import extract
    from wsss.activation.store import MapStore
    from wsss.data import FolderConfig, ScenesConfig, VocConfig, open_dataset
    from wsss.engine.compare import Comparison, compare
    from wsss.engine.label import LabelSettings, label_folder
    from wsss.engine.recipe import Recipe, load_recipe
    from wsss.engine.recipe_files import list_recipes
    from wsss.engine.run import RunResult, run
    from wsss.errors import WsssError
    from wsss.export.show_maps import show_maps
    from wsss.methods.base import Frozen, Method, MethodConfig, find_method, list_methods
    from wsss.models.clip import load_teacher
    from wsss.refiners.base import Refiner, list_refiners
    from wsss.report.page import write_report
    from wsss.segmentation.model import SegmentationModel
    from wsss.training.config import TrainingConfig
    from wsss.training.loop import train
    from wsss.types import ActivationMaps, Batch, ClassInfo, Paper, Sample


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module `wsss` has no `{name}`; it has {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
