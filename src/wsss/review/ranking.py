r"""Puts images in order of suspicion from their signals, by ranks alone.

Signals have no common unit, so each is replaced by its rank r among the images, from 0 for the least
suspicious to 1. An image's suspicion is the quadratic mean over its S signals

$$ s = \sqrt{\tfrac{1}{S} \sum_{i=1}^{S} r_i^2} $$

so that one loud alarm counts for more than several faint ones. No signal has a weight; docs/review.md says
how the signals were chosen and how well the order does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from wsss.errors import DataError

Signals = Mapping[str, float | None]
"""Signals of one image by name; None where it has none."""


@dataclass(frozen=True)
class Ranked:
    """One image of the ranking.

    Args:
        image_id: which.
        suspicion: in [0, 1]; compares images of one ranking only.
        signals: as measured; larger is more suspicious.
        ranks: of each signal among the images, 0 to 1; signals that the image lacks are left out.
    """

    image_id: str
    suspicion: float
    signals: Signals
    ranks: Mapping[str, float]


def rank(signals: Mapping[str, Signals]) -> tuple[Ranked, ...]:
    """All images, the most suspicious first; equal ones in the order of their ids.

    Args:
        signals: by image id; a signal that says nothing (the same for all images) is left out.

    Example:
        >>> order = rank({"a": {"size": 0.1, "mixed": 0.1}, "b": {"size": 2.0, "mixed": 0.6}})
        >>> [(image.image_id, image.suspicion) for image in order]
        [('b', 1.0), ('a', 0.0)]
    """
    ids = list(signals)
    names = list(dict.fromkeys(name for values in signals.values() for name in values))
    ranks: dict[str, dict[str, float]] = {image_id: {} for image_id in ids}
    for name in names:
        measured = {i: float(value) for i in ids if (value := signals[i].get(name)) is not None}
        if len(set(measured.values())) > 1:
            for image_id, place in zip(measured, _ranks(list(measured.values())), strict=True):
                ranks[image_id][name] = place
    found = [Ranked(i, _quadratic_mean(list(ranks[i].values())), signals[i], ranks[i]) for i in ids]
    return tuple(sorted(found, key=lambda image: (-image.suspicion, image.image_id)))


def share_of_worst(ranking: Sequence[str], true_ious: Mapping[str, float], share: float = 0.2) -> float:
    """How many of the images with the worst true IoU are found at the top of a ranking.

    For judging a ranking where true masks are known; nothing that ranks may call it.

    Args:
        ranking: image ids, the most suspicious first.
        true_ious: IoU of each of these images, in [0, 1]; more may be given.
        share: how large top and worst part are, in (0, 1]; rounded up to whole images.

    Returns:
        Share of the worst images that are among the first, in [0, 1]; `share` is what chance gives.

    Raises:
        DataError: the ranking is empty, or an image has no IoU.
    """
    missing = [image_id for image_id in ranking if image_id not in true_ious]
    if missing or not ranking:
        raise DataError(
            f"Each ranked image needs a true IoU; {len(missing):,} of {len(ranking):,} have none, the first "
            f"is {missing[:1]}. Give the IoUs of the same images."
        )
    count = math.ceil(round(share * len(ranking), 6))
    worst = sorted(ranking, key=lambda image_id: (true_ious[image_id], image_id))[:count]
    return len(set(ranking[:count]) & set(worst)) / count


def _ranks(values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Ranks from 0 to 1, equal values sharing the mean of theirs."""
    places: npt.NDArray[np.float64] = (rankdata(values) - 1) / (len(values) - 1)
    return places


def _quadratic_mean(ranks: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(ranks)))) if ranks else 0.0
