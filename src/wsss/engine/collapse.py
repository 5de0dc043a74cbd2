"""Notice a training whose maps have become all background or all foreground, and say where it went wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image

from wsss.activation.extract import capped_size, resized
from wsss.activation.seeds import check_collapse
from wsss.activation.store import MapStore
from wsss.data.dataset import Dataset
from wsss.errors import CollapseError
from wsss.methods.base import Method
from wsss.training.journal import read_journal
from wsss.types import ActivationMaps

CHECKED_IMAGES: Final = 8
CHECKED_PIXELS: Final = 2**18  # of one image: about a training crop, as the training's memory is still taken
CHECKS: Final = 10  # in the second half of a training; young classifiers may have empty maps for a while
MIDDLE_SCORE: Final = 0.5  # maps are divided by their maximum, so only flat or empty ones lie all on one side


def map_alarm(
    method: Method, dataset: Dataset, ids: Sequence[str], total_steps: int, log: Path
) -> Callable[[int], str | None]:
    """An alarm for `wsss.training.loop.train`: looks at the maps of a few images now and then.

    Args:
        method: being trained.
        dataset: gives images and image labels.
        ids: training images; a few that show some class are looked at.
        total_steps: of the whole training.
        log: the training's log.jsonl, read when the alarm goes off.
    """
    shown = [image_id for image_id in ids[:200] if dataset.image_labels(image_id).any()][:CHECKED_IMAGES]
    looked_at: set[int] = set()

    def alarm(step: int) -> str | None:
        check = step * 2 * CHECKS // total_steps
        if check <= CHECKS or check in looked_at or not shown:
            return None
        looked_at.add(check)
        verdict = flat_maps(method, dataset, shown)
        return None if verdict is None else f"{verdict} {most_changed_term(log)}"

    return alarm


@torch.inference_mode()
def flat_maps(method: Method, dataset: Dataset, ids: Sequence[str]) -> str | None:
    """A sentence if the maps of all images are background everywhere, or foreground everywhere.

    Images of more than `CHECKED_PIXELS` pixels are looked at in that size.
    """
    method.eval()
    device = next(method.parameters()).device
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (method.mean, method.std))
    shares = []
    for image_id in ids:
        shown = dataset.sample(image_id).image
        shown = resized(shown, capped_size(shown.shape[:2], CHECKED_PIXELS), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.ascontiguousarray(shown)).to(device)
        image = (pixels.permute(2, 0, 1).float() / 255 - mean) / std  # (3, H, W)
        labels = torch.from_numpy(dataset.image_labels(image_id))
        maps = ActivationMaps.from_cams(method.cams(image[None])[0].float(), labels)
        shares.append(float((maps.to_mask(MIDDLE_SCORE) > 0).float().mean()))
    if max(shares) == 0:
        return f"The maps of all {len(shares)} checked images are background everywhere."
    if min(shares) == 1:
        return f"The maps of all {len(shares)} checked images are foreground everywhere."
    return None


def check_written_maps(
    store: MapStore, ids: Sequence[str], class_names: Sequence[str], trained: Path
) -> str | None:
    """Stop a run whose written maps have collapsed, naming loss term, step and weights.

    Args:
        store: the maps.
        ids: training images.
        class_names: K + 1 names.
        trained: folder of the training.

    Returns:
        A sentence that names classes that have vanished from the maps, if any have.

    Raises:
        CollapseError: nearly all maps are all background or all foreground.
    """
    try:
        vanished = check_collapse(store, ids, MIDDLE_SCORE)
    except CollapseError as error:
        lines = read_journal(trained / "log.jsonl")
        step = (
            f" The weights are those of step {lines[-1]['step']}, {trained / 'model.safetensors'}."
            if lines
            else ""
        )
        raise CollapseError(f"{error} {most_changed_term(trained / 'log.jsonl')}{step}") from error
    if not vanished:
        return None
    return (
        f"The maps are empty in all looked-at images of {', '.join(class_names[k] for k in vanished)}. "
        "Look at them in the report. A lower weight of the area term may help, or a teacher that knows them."
    )


def check_refined_maps(
    store: MapStore, ids: Sequence[str], class_names: Sequence[str], refiner: str
) -> str | None:
    """Stop a run whose refined maps have collapsed; arguments and result as `check_written_maps`."""
    try:
        vanished = check_collapse(store, ids, MIDDLE_SCORE)
    except CollapseError as error:
        raise CollapseError(
            f"{error} Refiner `{refiner}` made these maps: compare them with those that it was given."
        ) from error
    if not vanished:
        return None
    return (
        f"Refiner `{refiner}` left the maps empty in all looked-at images of "
        f"{', '.join(class_names[k] for k in vanished)}. Look at them in the report."
    )


def most_changed_term(log: Path) -> str:
    """A sentence that names the loss term with the largest change, as a factor, since the log began."""
    lines = [line for line in read_journal(log) if line.get("losses")]
    if not lines:
        return "The log holds no losses yet."
    first, last = lines[0]["losses"], lines[-1]["losses"]

    def factor(name: str) -> float:
        sizes = sorted((abs(first[name]) + 1e-8, abs(last[name]) + 1e-8))
        return float(sizes[1] / sizes[0])

    known = [name for name in last if last[name] is not None and first.get(name) is not None]
    if not known:
        return "The log holds no losses yet."
    name = max(known, key=factor)
    return (
        f"Loss term `{name}` has changed most: {first[name]:.4g} at step {lines[0]['step']}, "
        f"{last[name]:.4g} at step {lines[-1]['step']}."
    )
