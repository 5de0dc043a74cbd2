"""Measures the signals of all images of a run, image by image; an interrupted measurement goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

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
    lines = read_journal(journal)
    if not lines or lines[0].get("runs") != identity:
        journal.unlink(missing_ok=True)
        lines = []
    writer = Journal(journal)
    if not lines:
        writer.write({"runs": identity})
    known = {str(line["image_id"]): line for line in lines[1:]}
    for done, image_id in enumerate(ids, start=1):
        if image_id not in known:
            known[image_id] = {"image_id": image_id, **measure_image(runs, image_id)}
            writer.write(known[image_id])
        if progress is not None:
            progress(done, len(ids), "images")
    return {image_id: _measured(known[image_id]) for image_id in ids}


def measure_image(runs: Sequence[ReviewedRun], image_id: str) -> dict[str, Any]:
    """Signals of one image as plain data."""
    run = runs[0]
    tags, mask = run.tags(image_id), run.mask(image_id)
    sample = run.dataset.sample(image_id)
    size = sample.image.shape[:2]
    if mask.shape != size:
        raise DataError(
            f"The pseudo mask of {image_id} is {mask.shape[0]} x {mask.shape[1]} (height x width), its image "
            f"{size[0]} x {size[1]}. Run the recipe again."
        )
    found = mask_signals(mask, tags, sample.image)
    others: dict[str, float | None] = {
        "scales": disagreement(mask, _scale_masks(run, image_id, mask), tags),
        "refinement": disagreement(mask, _unrefined(run, image_id), tags),
        "methods": disagreement(mask, [other.mask(image_id) for other in runs[1:]], tags),
    }
    return {
        "foreground": found.pop("foreground"),
        "shares": {str(tag): class_share(mask, tag) for tag in tags},
        "signals": {
            **found,
            "mixed": mixed_tags(mask, run.last_maps.read(image_id, image_size=size)),
            **others,
        },
    }


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


def _unrefined(run: ReviewedRun, image_id: str) -> list[Mask]:
    if run.refined is None:
        return []
    return [run.maps.read(image_id).to_mask(run.unrefined_score).numpy()]


def _identity(runs: Sequence[ReviewedRun]) -> str:
    """Decided by everything that the signals are measured from."""
    parts = [VERSION, *(run.identity() for run in runs)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _measured(line: dict[str, Any]) -> Measured:
    shares = {int(tag): float(share) for tag, share in line["shares"].items()}
    return Measured(dict(line["signals"]), float(line["foreground"]), shares)
