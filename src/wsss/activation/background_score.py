r"""Chooses the background score without any mask: the one whose masks separate the images' colours best.

A constant background score t splits an image into foreground (top score over t) and background. Objects and
backgrounds differ in colour, so a good split leaves little colour variance on its two sides. The share of an
image's colour variance that the split explains is

$$ R^2(t) = \frac{n_f |\mu_f - \mu|^2 + n_b |\mu_b - \mu|^2}{\sum_p |x_p - \mu|^2} $$

with pixel colours x_p (RGB), their mean $\mu$, and number n and mean colour $\mu_f, \mu_b$ of both sides.
Each image's curve is divided by its maximum, so that all images have the same say; the background score with
the highest average is taken. This is Otsu's criterion (IEEE Trans. SMC 1979) with the colours of the image in
place of the values that are thresholded. The maps only say which splits are possible, so the height of their
scores, and with it the last activation of the network, hardly matters.
docs/background-score.md says what else was tried and how well it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wsss.activation.store import MapStore
from wsss.data.dataset import Dataset
from wsss.errors import DataError, StageError
from wsss.metrics.confusion import Scores
from wsss.metrics.curves import THRESHOLDS, top_levels
from wsss.training.journal import Progress
from wsss.types import ActivationMaps

MOST_IMAGES: Final = 2000  # evenly spread over the ids; the average has long settled by then


@dataclass(frozen=True)
class ChosenScore:
    """A background score and how it was chosen.

    Args:
        value: in [0, 1].
        source: "automatic": no mask had a part in it.
        details: `rule`, `images` (how many were looked at), `background_scores` and `agreement` (average of
            the images' curves, each divided by its maximum, at each of them).
    """

    value: float
    source: str = "automatic"
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for `chosen_score.json`."""
        return asdict(self)


def choose_background_score(
    store: MapStore, ids: Sequence[str], dataset: Dataset, *, progress: Progress | None = None
) -> ChosenScore:
    """Choose the background score from maps and images alone.

    At most 2,000 images are looked at; images without any class say nothing and are passed over.

    Args:
        store: maps without a background of their own.
        ids: images, those that the network was trained on.
        dataset: gives their pixels; pass `WithoutMasks(dataset)`.
        progress: told after each image.

    Raises:
        StageError: no image has a class, or the maps have a background already.
        DataError: an image or its maps can't be read, or their sizes differ.
    """
    looked_at = ids[:: -(-len(ids) // MOST_IMAGES)] if ids else ()
    total, images = np.zeros(len(THRESHOLDS)), 0
    for done, image_id in enumerate(looked_at, start=1):
        maps = store.read(image_id)
        if maps.background is not None:
            raise StageError(
                f"The maps in {store.folder} have a background of their own, so there is no background score "
                "to choose. Use them as they are."
            )
        if len(maps.class_ids):
            image = dataset.sample(image_id).image
            if image.shape[:2] != maps.size:
                raise DataError(
                    f"The maps of {image_id} are {maps.size[0]} x {maps.size[1]} (height x width), its image "
                    f"{image.shape[0]} x {image.shape[1]}. Extract the maps again."
                )
            explained = explained_colour(image, maps)
            total += explained / (explained.max() or 1.0)
            images += 1
        if progress is not None:
            progress(done, len(looked_at), "images")
    if not images:
        raise StageError(
            f"No background score can be chosen: none of {len(ids):,} images has a class. Give a constant "
            "`pseudo_masks.background_score`, or check the tags."
        )
    details = {
        "rule": "colour separation",
        "images": images,
        "background_scores": list(THRESHOLDS),
        "agreement": (total / images).round(6).tolist(),
    }
    return ChosenScore(THRESHOLDS[int(total.argmax())], details=details)


def explained_colour(
    image: npt.NDArray[np.uint8], maps: ActivationMaps, thresholds: Sequence[float] = THRESHOLDS
) -> Scores:
    """Share of an image's colour variance that the split at each background score explains.

    Args:
        image: RGB; (H, W, 3), uint8.
        maps: full-size maps of at least one class.
        thresholds: ascending constant background scores.

    Returns:
        (T,), float64 in [0, 1]; 0 where all pixels are on one side, and for an image of one colour.
    """
    colours = image.reshape(-1, 3).astype(np.float64)
    colours -= colours.mean(axis=0)
    variance = float((colours**2).sum())
    levels = top_levels(maps, thresholds)[1].flatten().numpy()
    depth = len(thresholds) + 1
    foreground = _above(np.bincount(levels, minlength=depth))  # (T,)
    background = len(levels) - foreground
    is_split = (foreground > 0) & (background > 0)
    if variance == 0 or not is_split.any():
        return np.zeros(len(thresholds))
    # the colours sum to zero, so both sides' sums have the same length
    sums = [_above(np.bincount(levels, weights=colours[:, channel], minlength=depth)) for channel in range(3)]
    squared = np.square(sums).sum(axis=0)
    between = np.zeros(len(thresholds))
    sides = foreground[is_split] * background[is_split] / len(levels)
    between[is_split] = squared[is_split] / sides
    return np.clip(between / variance, 0, 1)


def _above(histogram: npt.NDArray[Any]) -> Scores:
    """Sums over the levels above each threshold's number; (T + 1,) to (T,)."""
    sums: Scores = histogram[::-1].cumsum()[::-1][1:].astype(np.float64)
    return sums
