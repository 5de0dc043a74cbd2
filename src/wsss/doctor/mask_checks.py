"""Looks at true masks, where there are some: complete, of the images' size, class numbers inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np

from wsss.data.masks_png import read_mask
from wsss.doctor.findings import Finding, Level, about
from wsss.doctor.image_checks import ImageFacts
from wsss.doctor.survey import Survey
from wsss.errors import DataError
from wsss.types import BACKGROUND, IGNORE

READ_WHEN_QUICK: Final = 100  # masks, evenly spread


def check_masks(
    found: Survey, facts: Mapping[str, ImageFacts], *, quick: bool = False
) -> tuple[int, list[Finding]]:
    """Read the masks of images; how many there are, and what is wrong.

    Args:
        found: images, tags and the folder of masks.
        facts: sizes of the images.
        quick: read some of the masks only.
    """
    folder = found.inputs.masks
    if folder is None or found.images is None:
        return 0, []
    if not folder.is_dir():
        advice = "Correct `masks`, or leave it out: masks are never needed."
        return 0, [Finding("error", "no-masks", f"There is no folder of masks {folder}.", advice)]
    paths = {image_id: _path(folder, found.images.relative(image_id), image_id) for image_id in facts}
    there = {image_id: path for image_id, path in paths.items() if path.is_file()}
    findings = _completeness(folder, there, list(facts))
    step = max(1, len(there) // READ_WHEN_QUICK) if quick else 1
    names = [info.name for info in found.classes.infos] if found.classes else []
    problems: dict[str, list[str]] = {code: [] for code in _TEXTS}
    for image_id in list(there)[::step]:
        tagged = found.labels.get(image_id)
        code, shown = _problem(there[image_id], facts[image_id].size, names, tagged)
        if code:
            problems[code].append(f"{image_id} ({shown})" if shown else image_id)
    for code, (level, what, advice) in _TEXTS.items():
        findings += about(level, code, what, advice, problems[code])
    return len(there), findings


_TEXTS: Final[dict[str, tuple[Level, str, str]]] = {
    "unreadable-mask": (
        "error",
        "Masks can't be read, or hold colours instead of class numbers.",
        "Save them as indexed (or 8-bit grey) PNG, or leave `masks` out.",
    ),
    "mask-size": (
        "error",
        "Masks have another size than their images.",
        "Export them at the images' own size, turned as EXIF says.",
    ),
    "mask-values": (
        "error",
        f"Masks hold values that are no class: 0 is background, then the classes, {IGNORE} is ignored.",
        "Complete the class list, in the order of the values, or correct the masks.",
    ),
    "mask-against-tags": (
        "warning",
        "Masks show classes that the image's tags don't name.",
        "Where that is so for most, the values have another order than the classes (those of the tags are "
        "sorted by name): give a classes file in the order of the values. Else correct masks or tags.",
    ),
}


def _path(folder: Path, relative: str, image_id: str) -> Path:
    mirrored = folder / PurePosixPath(relative).with_suffix(".png")
    return mirrored if mirrored.is_file() else folder / f"{image_id}.png"


def _completeness(folder: Path, there: Mapping[str, Path], ids: list[str]) -> list[Finding]:
    if not there:
        advice = "Name masks like their images, with .png, or leave `masks` out."
        return [Finding("warning", "no-mask-fits", f"No mask in {folder} has the name of an image.", advice)]
    return about(
        "warning",
        "incomplete-masks",
        "Images have no true mask, so scores can count only some images.",
        "`wsss label` scores those that have one; in a recipe, list these as a split and name it as "
        "`evaluation.maps_split` and `data.val_split`.",
        [image_id for image_id in ids if image_id not in there],
    )


def _problem(
    path: Path, size: tuple[int, int] | None, names: Sequence[str], tagged: Sequence[str] | None
) -> tuple[str, str]:
    """Code and detail of what is wrong; empty where nothing is."""
    try:
        mask = read_mask(path)
    except DataError:
        return "unreadable-mask", ""
    if size is not None and mask.shape != size:
        return "mask-size", f"{mask.shape[0]} x {mask.shape[1]}, image {size[0]} x {size[1]}"
    values = [int(value) for value in np.unique(mask) if value not in (BACKGROUND, IGNORE)]
    strange = [value for value in values if value > len(names)]
    if names and strange:
        return "mask-values", ", ".join(map(str, strange[:5]))
    if names and tagged is not None:
        surplus = [name for value in values if (name := names[value - 1]) not in tagged]
        return ("mask-against-tags", ", ".join(surplus)) if surplus else ("", "")
    return "", ""
