"""Measures the signals of all images of a run, image by image; an interrupted measurement goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from wsss.data.masks_png import check_labels
from wsss.errors import DataError
from wsss.review.inputs import ReviewedRun, per_scale
from wsss.review.ranking import Signals
from wsss.review.signals import (
    Mask,
    class_share,
    disagreement,
    mask_signals,
    mixed_tags,
    scale_masks,
    unusual_sizes,
)
from wsss.training.journal import Journal, Progress, read_journal

VERSION: Final = 1  # raised where signals are measured in another way


@dataclass(frozen=True)
class Measured:
    """What was measured of one image.

    Args:
        signals: all but `size`, which needs the other images.
        foreground: share of the image that the mask calls foreground.
        shares: share of each tag, by class number.
    """

    signals: Signals
    foreground: float
    shares: dict[int, float]


def measure(
    runs: Sequence[ReviewedRun], ids: Sequence[str], journal: Path, progress: Progress | None = None
) -> dict[str, Measured]:
    """Measure images of the first run; the others are second opinions.

    Args:
        runs: opened runs of the same data.
        ids: tagged images.
        journal: JSON lines of what was measured; one of other runs is begun anew.
        progress: told after each image.

    Raises:
        DataError: maps or masks are missing or damaged, or belong to an image of another size.
    """
    identity = _identity(runs)
    lines = _lines(journal)
    if not lines or lines[0].get("runs") != identity:
        journal.unlink(missing_ok=True)
        lines = []
    writer = Journal(journal)
    if not lines:
        writer.write({"runs": identity})
    wanted = set(ids)
    known = {line["image_id"]: line for line in lines[1:] if _is_whole(line, wanted, runs[0])}
    for done, image_id in enumerate(ids, start=1):
        if image_id not in known:
            known[image_id] = {"image_id": image_id, **measure_image(runs, image_id)}
            writer.write(known[image_id])
        if progress is not None:
            progress(done, len(ids), "images")
    return {image_id: _measured(known[image_id]) for image_id in ids}


def _lines(journal: Path) -> list[dict[str, Any]]:
    """What was measured before; nothing where the file is damaged."""
    try:
        return read_journal(journal)
    except (ValueError, RecursionError):
        return []


class _Line(BaseModel):
    """One image's line of the journal."""

    model_config = ConfigDict(strict=True, extra="forbid")

    image_id: str
    foreground: FiniteFloat
    shares: dict[str, FiniteFloat]
    signals: dict[str, FiniteFloat | None]


def _is_whole(line: dict[str, Any], wanted: Collection[str], run: ReviewedRun) -> bool:
    """Whether a line is as it was written, and of a wanted image; others are measured again."""
    try:
        found = _Line.model_validate(line)
        return found.image_id in wanted and list(found.shares) == [str(t) for t in run.tags(found.image_id)]
    except ValidationError:
        return False


def measure_image(runs: Sequence[ReviewedRun], image_id: str) -> dict[str, Any]:
    """Signals of one image as plain data."""
    run = runs[0]
    tags, sample = run.tags(image_id), run.dataset.sample(image_id)
    size = sample.image.shape[0], sample.image.shape[1]
    mask, *opinions = (checked_mask(each, image_id, size) for each in runs)
    found = mask_signals(mask, tags, sample.image)
    others: dict[str, float | None] = {
        "scales": disagreement(mask, _scale_masks(run, image_id, mask), tags),
        "refinement": disagreement(mask, _unrefined(run, image_id, size), tags),
        "methods": disagreement(mask, opinions, tags),
    }
    return {
        "foreground": found.pop("foreground"),
        "shares": {str(tag): class_share(mask, tag) for tag in tags},
        "signals": {
            **found,
            "mixed": mixed_tags(mask, run.read_maps(run.last_maps, image_id, size)),
            **others,
        },
    }


def checked_mask(run: ReviewedRun, image_id: str, size: tuple[int, int]) -> Mask:
    """The pseudo mask of an image.

    Args:
        run: whose mask.
        image_id: which image.
        size: (height, width) of the image.

    Raises:
        DataError: it is missing or damaged, has another size, or holds what is no class.
    """
    stage = run.maps.folder.parent if run.masks is None else run.masks.parent
    mend = f"Delete the folder {stage.name} and run the recipe again."
    try:
        mask = run.mask(image_id)
    except DataError as error:
        if run.masks is None:
            raise
        raise DataError(
            f"The pseudo mask of {image_id} in {run.folder} is missing, damaged or none of class numbers. "
            f"{mend}"
        ) from error
    if mask.shape != size:
        raise DataError(
            f"The pseudo mask of {image_id} in {run.folder} is {mask.shape[0]} x {mask.shape[1]} (height x "
            f"width), its image {size[0]} x {size[1]}. {mend}"
        )
    check_labels(mask, len(run.class_names), f"The pseudo mask of {image_id} in {run.folder}", mend)
    return mask


def all_signals(measured: dict[str, Measured]) -> dict[str, Signals]:
    """Signals by image id, `size` among them."""
    sizes = unusual_sizes({image_id: image.foreground for image_id, image in measured.items()})
    return {image_id: {**image.signals, "size": sizes[image_id]} for image_id, image in measured.items()}


def _scale_masks(run: ReviewedRun, image_id: str, mask: Mask) -> list[Mask]:
    score = run.unrefined_score
    if score is None:
        return []
    scales, class_ids = per_scale(run.maps, image_id)
    height, width = mask.shape
    return scale_masks(scales, class_ids, (height, width), score) if len(scales) > 1 else []


def _unrefined(run: ReviewedRun, image_id: str, size: tuple[int, int]) -> list[Mask]:
    if run.refined is None:
        return []
    return [run.read_maps(run.maps, image_id, size).to_mask(run.unrefined_score).numpy()]


def _identity(runs: Sequence[ReviewedRun]) -> str:
    """Decided by everything that the signals are measured from."""
    parts = [VERSION, *(run.identity() for run in runs)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _measured(line: dict[str, Any]) -> Measured:
    shares = {int(tag): float(share) for tag, share in line["shares"].items()}
    return Measured(dict(line["signals"]), float(line["foreground"]), shares)
