"""The generated benchmark: scenes of eight classes on ten backgrounds, deterministic from a world seed."""

from __future__ import annotations

from typing import Final

from wsss.data.scenes.drawing import Scene, draw_scene
from wsss.data.scenes.relations import answer
from wsss.data.scenes.tree import is_finished, write_tree
from wsss.data.scenes.vocabulary import WORLD_VERSION, Vocabulary, class_infos, context_names, vocabulary
from wsss.data.scenes.world import SceneSpec, plan_scene

CLASS_NAMES: Final = (
    "background",
    "aeroplane",
    "bird",
    "boat",
    "bottle",
    "car",
    "cat",
    "cow",
    "train",
)
BACKGROUND_NAMES: Final = (
    "sky",
    "tree",
    "water",
    "wood",
    "road",
    "wall",
    "grass",
    "railroad",
    "sand",
    "snow",
)

__all__ = [
    "BACKGROUND_NAMES",
    "CLASS_NAMES",
    "WORLD_VERSION",
    "Scene",
    "SceneSpec",
    "Vocabulary",
    "answer",
    "class_infos",
    "context_names",
    "draw_scene",
    "is_finished",
    "plan_scene",
    "vocabulary",
    "write_tree",
]
