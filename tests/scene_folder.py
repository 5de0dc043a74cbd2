"""The tiny generated scenes as a user has them: a folder of images, a tags file, perhaps masks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any


def write_scene_folder(scenes: Any, tree: Path, root: Path, *, untagged: int = 0, masks: int = 0) -> Path:
    """Write `images/`, `tags.csv` and, for the first images, `masks/`.

    Args:
        scenes: the opened tree.
        tree: its folder.
        root: what is written.
        untagged: how many images (the last ones) have no line in the tags.
        masks: how many images (the first ones) have a true mask.
    """
    ids = scenes.ids("all")
    (root / "images").mkdir(parents=True)
    lines = ["image,labels,scene"]
    for place, image_id in enumerate(ids):
        shutil.copy(scenes.image_path(image_id), root / "images")
        names = [
            info.name
            for info, is_present in zip(scenes.classes, scenes.image_labels(image_id), strict=True)
            if is_present
        ]
        if place < len(ids) - untagged:
            lines.append(f"{image_id},{'|'.join(names)},{'|'.join(scenes.scene_words(image_id))}")
        if place < masks:
            (root / "masks").mkdir(exist_ok=True)
            shutil.copy(tree / "SegmentationClass" / f"{image_id}.png", root / "masks")
    (root / "tags.csv").write_text("\n".join(lines) + "\n")
    return root
