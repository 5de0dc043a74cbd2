"""Pseudo masks from activation maps, and the alarm for maps that have collapsed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from wsss.activation.background_score import ChosenScore, choose_background_score
from wsss.activation.store import MapStore
from wsss.data.masks_png import write_mask
from wsss.errors import CollapseError, ShapeError
from wsss.training.journal import Progress
from wsss.types import IGNORE, ActivationMaps

__all__ = ["ChosenScore", "check_collapse", "choose_background_score", "pseudo_mask", "write_pseudo_masks"]

COLLAPSED_SHARE: Final = 0.95  # of the images with classes
_EMPTY: Final = 0.001  # share of foreground pixels below which an image is all background
_CHECKED_IMAGES: Final = 500
_FEW_IMAGES: Final = 3  # fewer say nothing about a class


def pseudo_mask(
    maps: ActivationMaps,
    background_score: float | None,
    *,
    background_power: float | None = None,
    unsure_margin: float = 0.0,
) -> Tensor:
    """The mask of one image.

    Args:
        maps: full-size maps.
        background_score: constant score of class 0; None for maps with a background of their own, or with
            `background_power`.
        background_power: the background is (1 - best score)^power (PSA).
        unsure_margin: pixels whose two best scores (the background's among them) differ by less become 255.

    Returns:
        (H, W), uint8, values 0…K and 255.

    Raises:
        ShapeError: no background is known, or two are.
    """
    if background_power is not None:
        if maps.background is not None or background_score is not None:
            raise ShapeError("`background_power` is given beside another background. Give one of them.")
        maps = maps.with_background_power(background_power)
    mask = maps.to_mask(background_score)
    if unsure_margin > 0 and len(maps.scores):
        known = maps if background_score is None else maps.with_background(background_score)
        assert known.background is not None
        best = torch.cat([known.background[None], known.scores]).topk(2, dim=0).values
        mask[best[0] - best[1] < unsure_margin] = IGNORE
    return mask


def write_pseudo_masks(
    store: MapStore,
    ids: Sequence[str],
    folder: Path,
    *,
    background_score: float | None,
    background_power: float | None = None,
    unsure_margin: float = 0.0,
    progress: Progress | None = None,
) -> None:
    """Write the pseudo masks of all `ids` as indexed PNGs; those that exist already are kept.

    Args:
        store: maps.
        ids: images.
        folder: gets `<image id>.png`; one folder holds the masks of one background and margin.
        background_score: see `pseudo_mask`.
        background_power: see `pseudo_mask`.
        unsure_margin: see `pseudo_mask`.
        progress: told after each image.
    """
    for done, image_id in enumerate(ids, start=1):
        path = Path(folder) / f"{image_id}.png"
        if not path.is_file():
            mask = pseudo_mask(
                store.read(image_id),
                background_score,
                background_power=background_power,
                unsure_margin=unsure_margin,
            )
            write_mask(path, mask.numpy())
        if progress is not None:
            progress(done, len(ids), "images")


def check_collapse(store: MapStore, ids: Sequence[str], background_score: float) -> tuple[int, ...]:
    """Stop a run whose maps say the same of nearly every image: nothing is foreground, or everything is.

    At least 500 images, where there are as many, are looked at, evenly spread over `ids`, at low resolution.

    Args:
        store: maps.
        ids: images.
        background_score: constant score of class 0, ignored for maps with a background of their own.

    Returns:
        Ids of the classes that have vanished: at least three images show one, and none gets a pixel of it.

    Raises:
        CollapseError: at least 95% of the images are all background, or all foreground.
    """
    shares = []
    images, found = Counter[int](), Counter[int]()
    for image_id in ids[:: max(1, len(ids) // _CHECKED_IMAGES)]:
        maps = store.read(image_id, full_size=False)
        if len(maps.class_ids):
            mask = maps.to_mask(background_score if maps.background is None else None)
            shares.append(float((mask > 0).float().mean()))
            images.update(maps.class_ids.tolist())
            found.update(set(mask.flatten().tolist()))
    if not shares:
        return ()
    for name, count in (
        ("background", sum(share < _EMPTY for share in shares)),
        ("foreground", sum(share > 1 - _EMPTY for share in shares)),
    ):
        if count >= COLLAPSED_SHARE * len(shares):
            raise CollapseError(
                f"The activation maps have collapsed: at the background score {background_score:g}, "
                f"{count:,} of {len(shares):,} images with classes are all {name}. Look at the losses in "
                "log.jsonl; a lower learning rate or other loss weights may help."
            )
    return tuple(sorted(k for k, count in images.items() if count >= _FEW_IMAGES and not found[k]))
