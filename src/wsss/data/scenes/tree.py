"""Writes scenes as an ordinary VOC 2012 tree, with their metadata beside it.

```
JPEGImages/ID.jpg              SegmentationClass/ID.png    Annotations/ID.xml
ImageSets/Segmentation/{train,val,trainval}.txt            classes.yaml
SegmentationContext/ID.png     what each background pixel shows; context.json names the values
KeyParts/ID.png                0, or the class whose key part the pixel belongs to
scenes.jsonl                   one line of metadata per image
scenes.json                    what was written: world, version, counts, size; written last
```
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

import numpy as np
import yaml
from PIL import Image

from wsss.data.masks_png import write_mask
from wsss.data.scenes.drawing import Scene, draw_scene
from wsss.data.scenes.vocabulary import WORLD_VERSION, class_infos, context_names, vocabulary
from wsss.data.scenes.world import plan_scene
from wsss.errors import DataError

JPEG_QUALITY: Final = 95
PROOF: Final = "scenes.json"

Progress = Callable[[int, int], None]


def write_tree(
    folder: str | Path, *, world: int, train: int, val: int, size: int = 96, progress: Progress | None = None
) -> None:
    """Write a benchmark world as a VOC tree; nothing happens when the same tree is already there.

    The tree is built beside `folder` under a temporary name and moved there when it is whole.

    Args:
        folder: where the tree shall stand; it may exist when it is empty or holds an older scenes tree.
        world: world seed.
        train: number of training images.
        val: number of validation images.
        size: side of the images in pixels.
        progress: called with (images written, images in all).

    Raises:
        DataError: `folder` holds other files.
    """
    folder = Path(folder)
    if is_finished(folder, world=world, train=train, val=val, size=size):
        return
    if folder.exists() and any(folder.iterdir()) and not (folder / PROOF).is_file():
        raise DataError(
            f"{folder} is not empty and holds no scenes tree. Name a new folder, or empty this one."
        )
    building = folder.with_name(f".{folder.name}.writing-{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    try:
        _fill(building, world=world, counts={"train": train, "val": val}, size=size, progress=progress)
        if folder.exists():
            shutil.rmtree(folder)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def is_finished(folder: str | Path, *, world: int, train: int, val: int, size: int = 96) -> bool:
    """Whether `folder` holds exactly this tree, complete."""
    proof = Path(folder) / PROOF
    if not proof.is_file():
        return False
    try:
        found = json.loads(proof.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return bool(found == _proof(world, {"train": train, "val": val}, size))


def classes_document() -> dict[str, Any]:
    """What `classes.yaml` says: the classes with their texts, and the names of the backgrounds."""
    return {
        "classes": [
            {
                "name": info.name,
                "prompt": info.prompt,
                "synonyms": list(info.synonyms),
                "background_texts": list(info.background_texts),
            }
            for info in class_infos()
        ],
        "background_names": [words.name for words in vocabulary().backgrounds],
    }


def _fill(folder: Path, *, world: int, counts: dict[str, int], size: int, progress: Progress | None) -> None:
    for name in ("JPEGImages", "SegmentationClass", "SegmentationContext", "KeyParts", "Annotations"):
        (folder / name).mkdir(parents=True)
    sets = folder / "ImageSets" / "Segmentation"
    sets.mkdir(parents=True)
    ids: dict[str, list[str]] = {split: [] for split in counts}
    total = sum(counts.values())
    with (folder / "scenes.jsonl").open("w", encoding="utf-8") as lines:
        for number, (split, scene) in enumerate(_scenes(world, counts, size), start=1):
            ids[split].append(scene.metadata["image_id"])
            _write_scene(folder, scene)
            lines.write(json.dumps(scene.metadata) + "\n")
            if progress is not None:
                progress(number, total)
    everything = [image_id for members in ids.values() for image_id in members]
    for split, members in (*ids.items(), ("trainval", everything)):
        (sets / f"{split}.txt").write_text("".join(f"{name}\n" for name in members), encoding="utf-8")
    (folder / "classes.yaml").write_text(
        yaml.safe_dump(classes_document(), sort_keys=False), encoding="utf-8"
    )
    names = {str(value): name for value, name in enumerate(context_names())}
    (folder / "context.json").write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")
    (folder / PROOF).write_text(json.dumps(_proof(world, counts, size), indent=1) + "\n", encoding="utf-8")


def _scenes(world: int, counts: dict[str, int], size: int) -> Iterator[tuple[str, Scene]]:
    for split, count in counts.items():
        for index in range(count):
            yield split, draw_scene(plan_scene(world, split, index, size=size))


def _write_scene(folder: Path, scene: Scene) -> None:
    image_id = scene.metadata["image_id"]
    image = Image.fromarray(scene.image)
    image.save(folder / "JPEGImages" / f"{image_id}.jpg", quality=JPEG_QUALITY)
    write_mask(folder / "SegmentationClass" / f"{image_id}.png", scene.mask)
    write_mask(folder / "SegmentationContext" / f"{image_id}.png", scene.context)
    write_mask(folder / "KeyParts" / f"{image_id}.png", np.where(scene.key, scene.mask, 0).astype(np.uint8))
    (folder / "Annotations" / f"{image_id}.xml").write_text(_annotation(scene), encoding="utf-8")


def _annotation(scene: Scene) -> str:
    """The VOC annotation: the names and boxes of the objects (pixels counted from 1, both ends included)."""
    height, width = scene.mask.shape
    lines = [
        "<annotation>",
        f"  <filename>{escape(scene.metadata['image_id'])}.jpg</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
        "  <segmented>1</segmented>",
    ]
    for item in scene.metadata["objects"]:
        top, left, bottom, right = item["box"]
        lines += [
            "  <object>",
            f"    <name>{escape(item['name'])}</name>",
            "    <difficult>0</difficult>",
            f"    <bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
            f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox>",
            "  </object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _proof(world: int, counts: dict[str, int], size: int) -> dict[str, Any]:
    return {"version": WORLD_VERSION, "world": world, **counts, "size": size}
