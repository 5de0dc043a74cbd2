"""Miniature trees of VOC with SBD and PASCAL-Context, and of COCO, with files of the real formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import io, sparse

from wsss.data.coco import COCO_CLASSES
from wsss.data.masks_png import write_mask
from wsss.data.voc import VOC_CLASSES

SIZE = (48, 64)
BOAT, PERSON, TRAIN = (VOC_CLASSES.index(name) + 1 for name in ("boat", "person", "train"))
COLOURS = {BOAT: (200, 60, 40), PERSON: (60, 180, 60), TRAIN: (230, 220, 60)}
WATER, TRACK, GRASS = 443, 420, 207
"""Numbers of PASCAL-Context: beyond 255, as most of its 459 labels are."""

LISTS = {
    "train": ("2007_000001", "2007_000002", "2007_000003", "2007_000004"),
    "val": ("2007_000010", "2007_000011"),
    "test": ("2008_000020", "2008_000021"),
}
SBD_ONLY = ("2008_000030", "2008_000031")
SBD_LISTS = {"train": ("2007_000001", "2008_000030", "2007_000010"), "val": ("2008_000031", "2007_000002")}
"""SBD divides its images otherwise: one of VOC's val is in its train."""


def scene(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image, its mask without ignored pixels, and PASCAL-Context's labels of all its pixels.

    Boats lie on water, trains on tracks, persons stand on grass.
    """
    rng = np.random.default_rng(number)
    value, ground = ((BOAT, WATER), (TRAIN, TRACK), (PERSON, GRASS))[number % 3]
    mask = np.zeros(SIZE, dtype=np.uint8)
    top, left = 8 + number % 5, 10 + number % 7
    mask[top : top + 22, left : left + 30] = value
    context = np.where(mask > 0, value, ground).astype(np.uint16)
    context[:8] = 0
    image = rng.integers(90, 130, (*SIZE, 3))
    image[mask > 0] = COLOURS[value]
    return image.astype(np.uint8), mask, context


def number_of(image_id: str) -> int:
    return int(image_id[-3:])


def write_voc(root: Path, *, png_aug: bool = False) -> Path:
    """A VOC tree with SBD and PASCAL-Context; the first train image has an ignored band.

    Args:
        root: where to write.
        png_aug: SBD's masks as PNG files in SegmentationClassAug in place of `.mat` files and lists.
    """
    ids = [image_id for listed in LISTS.values() for image_id in listed]
    (root / "JPEGImages").mkdir(parents=True)
    (root / "Annotations").mkdir()
    for image_id in (*ids, *SBD_ONLY):
        image, mask, context = scene(number_of(image_id))
        Image.fromarray(image).save(root / "JPEGImages" / f"{image_id}.jpg", quality=95)
        if image_id in LISTS["test"]:
            continue
        name = VOC_CLASSES[int(mask.max()) - 1]
        (root / "Annotations" / f"{image_id}.xml").write_text(
            f"<annotation><object><name>{name}</name><difficult>1</difficult></object></annotation>"
        )
        write_context(root / "Context" / f"{image_id}.mat", context)
        if image_id not in SBD_ONLY:
            write_mask(root / "SegmentationClass" / f"{image_id}.png", with_ignored_band(mask))
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, listed in LISTS.items():
        (lists / f"{split}.txt").write_text("\n".join(listed) + "\n")
    (root / "labels.txt").write_text(f"{GRASS}: grass\n{TRACK}: track\n{WATER}: water\n300: platform\n")
    for image_id in sorted({name for listed in SBD_LISTS.values() for name in listed}):
        mask = scene(number_of(image_id))[1]
        if png_aug:
            write_mask(root / "SegmentationClassAug" / f"{image_id}.png", mask)
        else:
            write_sbd_file(root / "SBD" / "cls" / f"{image_id}.mat", mask)
    return root


def with_ignored_band(mask: np.ndarray) -> np.ndarray:
    """VOC's own masks surround objects with a band of 255."""
    banded = mask.copy()
    rows, columns = np.nonzero(mask)
    banded[rows.min() - 1, columns.min() : columns.max() + 1] = 255
    return banded


def write_sbd_file(path: Path, mask: np.ndarray) -> None:
    """One of SBD's files, boundaries of all 20 classes included."""
    cells = np.empty((len(VOC_CLASSES), 1), dtype=object)
    for value in range(1, len(VOC_CLASSES) + 1):
        inside = mask == value
        edge = inside & ~(np.roll(inside, 1, 0) & np.roll(inside, 1, 1))
        cells[value - 1, 0] = sparse.csc_matrix(edge.astype(np.uint8))
    present = np.unique(mask[mask > 0])[:, None]
    struct = {"Boundaries": cells, "Segmentation": mask, "CategoriesPresent": present}
    path.parent.mkdir(parents=True, exist_ok=True)
    io.savemat(path, {"GTcls": struct}, do_compression=True)


def write_context(path: Path, labels: np.ndarray) -> None:
    """One of PASCAL-Context's files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    io.savemat(path, {"LabelMap": labels}, do_compression=True)


CATEGORY_IDS = tuple(i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
"""COCO's 80 category ids have gaps."""

COCO_TRAIN, COCO_VAL = (9, 25, 30, 34, 36), (42, 73, 74)
UNLABELLED = {"train": 34, "val": 74}


def coco_id(part: str, number: int, year: int = 2014) -> str:
    return f"COCO_{part}{year}_{number:012d}" if year == 2014 else f"{number:012d}"


def category(name: str) -> int:
    return CATEGORY_IDS[COCO_CLASSES.index(name)]


def rectangle(top: int, left: int, bottom: int, right: int) -> list[float]:
    """A polygon that covers rows top … bottom - 1 and columns left … right - 1."""
    return [float(v) for v in (left, top, right, top, right, bottom, left, bottom)]


def runs(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed run lengths down the columns, zeros first."""
    counts, current = [0], 0
    for value in mask.T.ravel().tolist():
        if value != current:
            counts.append(0)
            current = value
        counts[-1] += 1
    return {"counts": counts, "size": list(mask.shape)}


def annotation(number: int, name: str, shape: Any, *, crowd: bool = False, key: int = 0) -> dict[str, Any]:
    return {
        "id": key or 1000 + number,
        "image_id": number,
        "category_id": category(name),
        "iscrowd": int(crowd),
        "segmentation": shape,
        "area": 1.0,
        "bbox": [0, 0, 1, 1],
    }


def crowd_mask() -> np.ndarray:
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[30:40, 2:20] = 1
    return mask


def coco_annotations(part: str) -> list[dict[str, Any]]:
    """Of each image a boat or a train; on the first also a person over it, and a crowd of cows below."""
    numbers = COCO_TRAIN if part == "train" else COCO_VAL
    found = []
    for place, number in enumerate(numbers):
        if number == UNLABELLED[part]:
            continue
        name = ("boat", "train")[place % 2]
        found.append(annotation(number, name, [rectangle(8, 10, 30, 40)]))
    found.append(annotation(numbers[0], "cow", runs(crowd_mask()), crowd=True, key=1))
    found.append(annotation(numbers[0], "person", [rectangle(10, 30, 40, 50), rectangle(0, 0, 4, 4)], key=2))
    return found


def coco_document(part: str, year: int = 2014) -> dict[str, Any]:
    numbers = COCO_TRAIN if part == "train" else COCO_VAL
    images = [
        {"id": n, "file_name": f"{coco_id(part, n, year)}.jpg", "height": SIZE[0], "width": SIZE[1]}
        for n in reversed(numbers)  # COCO's files are in no order
    ]
    names = zip(CATEGORY_IDS, COCO_CLASSES, strict=True)
    return {
        "info": {"year": year},
        "licenses": [],
        "images": images,
        "annotations": coco_annotations(part),
        "categories": [{"id": i, "name": name, "supercategory": "thing"} for i, name in names],
    }


def write_coco(root: Path, year: int = 2014) -> Path:
    """A COCO tree; the second training image is a grey JPEG."""
    (root / "annotations").mkdir(parents=True)
    for part, numbers in (("train", COCO_TRAIN), ("val", COCO_VAL)):
        folder = root / f"{part}{year}"
        folder.mkdir()
        for place, number in enumerate(numbers):
            image = np.random.default_rng(number).integers(90, 130, (*SIZE, 3)).astype(np.uint8)
            if number != UNLABELLED[part]:
                image[8:30, 10:40] = ((200, 60, 40), (230, 220, 60))[place % 2]
            picture = Image.fromarray(image)
            if number == COCO_TRAIN[1]:
                picture = picture.convert("L")
            picture.save(folder / f"{coco_id(part, number, year)}.jpg", quality=95)
        document = coco_document(part, year)
        (root / "annotations" / f"instances_{part}{year}.json").write_text(json.dumps(document))
    return root
