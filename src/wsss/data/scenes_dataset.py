"""`scenes`: reads a generated benchmark world from the tree that `wsss.data.scenes.write_tree` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from wsss.data.classes import read_classes
from wsss.data.context_maps import open_context
from wsss.data.file_dataset import FileDataset
from wsss.data.image_folder import ImageFolder
from wsss.data.scenes import WORLD_VERSION, is_finished
from wsss.data.splits import Splits, lists_in
from wsss.data.true_masks import PngMasks
from wsss.data.voc import XmlLabels
from wsss.errors import DataError


class ScenesConfig(BaseModel):
    """A generated world; it is written as a tree before it is opened."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["scenes"] = "scenes"
    world: int = Field(0, ge=0, description="World seed; 100 is for tuning, 0 for published numbers.")
    train: int = Field(1600, ge=1, description="Number of training images.")
    val: int = Field(400, ge=1, description="Number of validation images.")
    size: int = Field(96, ge=32, description="Side of the images in pixels.")
    version: int = Field(
        WORLD_VERSION, description="Version of the world's design; numbers compare within one only."
    )
    train_split: str = Field("train", description="Split that is trained on.")
    val_split: str = Field("val", description="Split that networks are scored on.")

    @field_validator("version")
    @classmethod
    def _known_version(cls, version: int) -> int:
        if version != WORLD_VERSION:
            raise ValueError(
                f"this release generates worlds of version {WORLD_VERSION}, not {version}. "
                "Use the release that made the numbers, or leave `version` out"
            )
        return version


class ScenesDataset(FileDataset):
    """A written world: a VOC tree with context maps, words for the background and metadata.

    Args:
        config: which world it must be.
        tree: folder that `write_tree` filled.

    Raises:
        DataError: the folder holds no such world, or not all of it.
    """

    def __init__(self, config: ScenesConfig, tree: Path) -> None:
        if not is_finished(tree, world=config.world, train=config.train, val=config.val, size=config.size):
            raise DataError(
                f"{tree} doesn't hold world {config.world} with {config.train} + {config.val} images of "
                f"{config.size} pixels, complete. Write it with `wsss data scenes --out {tree}` and "
                "these numbers."
            )
        classes = read_classes(tree / "classes.yaml")
        images = ImageFolder(tree / "JPEGImages")
        self._lines = tree / "scenes.jsonl"
        self._metadata: dict[str, dict[str, Any]] | None = None
        super().__init__(
            name="scenes",
            images=images,
            classes=classes,
            labels=XmlLabels(tree / "Annotations", classes),
            splits=Splits(images, lists=lists_in(tree / "ImageSets" / "Segmentation"), first_word_only=True),
            masks=PngMasks(tree / "SegmentationClass", images),
            context=open_context(tree / "SegmentationContext", tree / "context.json"),
            read_too=(self._lines,),
        )

    def metadata(self, image_id: str) -> dict[str, Any]:
        """All that the generator knows of an image: objects, kinds, relations, distractors, backgrounds."""
        if self._metadata is None:
            with self._lines.open(encoding="utf-8") as lines:
                entries = [json.loads(line) for line in lines]
            self._metadata = {entry["image_id"]: entry for entry in entries}
        if image_id not in self._metadata:
            raise DataError(
                f"There is no image `{image_id}` in {self._lines}. Pass an id that the data set lists."
            )
        return self._metadata[image_id]

    def scene_words(self, image_id: str) -> tuple[str, ...]:
        return tuple(self.metadata(image_id)["backgrounds"])
