"""Scores of maps and masks against true masks: the only room besides segmentation's twin that reads masks.

Results are plain dictionaries, ready for `scores.json`; docs/file-formats.md describes them. Pixels of a
predicted mask that are 255 (unsure) count as background, as in IRN, and their share is reported.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsss.activation.store import MapStore
from wsss.data.dataset import Dataset
from wsss.data.masks_png import read_mask
from wsss.errors import DataError
from wsss.metrics.activation import over_activation, under_activation
from wsss.metrics.confusion import Confusion, Counts, count_pixels
from wsss.metrics.cooccurrence import Cooccurrence, count_context
from wsss.metrics.curves import THRESHOLDS, LevelCounts, ScoreCurve, count_levels, top_levels
from wsss.metrics.per_image import PerImage, save_per_image
from wsss.training.journal import Progress
from wsss.types import BACKGROUND, IGNORE, ActivationMaps

Mask = npt.NDArray[np.uint8]
log = logging.getLogger(__name__)


def score_maps(
    store: MapStore,
    dataset: Dataset,
    ids: Sequence[str],
    *,
    fixed: float = 0.15,
    automatic: float | None = None,
    per_image: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score full-size maps at the fixed, the best and the automatic background score in one pass.

    The best one is chosen on the true masks of these very images: its source is `oracle`, and nothing else
    may use it. Maps with a background of their own get one entry of source `none` and no curve.

    Args:
        store: maps.
        dataset: gives true masks, and context maps where it has them.
        ids: images.
        fixed: the papers' constant background score.
        automatic: what `choose_background_score` found, if it ran.
        per_image: file for the confusion of each image at each of these scores, for intervals.
        progress: told after each image.

    Raises:
        DataError: a mask or map is missing, or their sizes differ.
    """
    scoring = _Scoring(dataset)
    chosen = {"fixed": fixed} if automatic is None else {"fixed": fixed, "automatic": automatic}
    thresholds = tuple(sorted({*THRESHOLDS, *chosen.values()}))
    curve = ScoreCurve(scoring.num_classes, thresholds)
    images: list[tuple[LevelCounts, LevelCounts | None]] = []
    own = _Entry(scoring)
    for done, image_id in enumerate(ids, start=1):
        maps, mask, context = store.read(image_id), _true_mask(dataset, image_id), scoring.context(image_id)
        _check_sizes(mask.shape, maps.size, f"the maps of {image_id} in {store.folder}")
        if maps.background is not None:
            own.add_masks(mask, maps.to_mask().numpy(), context)
        else:
            images.append(_levels(scoring, maps, mask, context, thresholds))
            curve.add(images[-1][0])
        if progress is not None:
            progress(done, len(ids), "images")
    if own.images and images:
        raise DataError(
            f"Only some maps in {store.folder} have a background of their own. Score one kind at a time."
        )
    if own.images:
        return scoring.result(ids, {"none": (None, own)}, None, per_image)
    miou = dict(zip(thresholds, curve.miou().tolist(), strict=True))
    grid = [miou[score] for score in THRESHOLDS]
    chosen["oracle"] = max(THRESHOLDS, key=lambda score: (np.nan_to_num(miou[score], nan=-1.0), -score))
    entries: dict[str, tuple[float | None, _Entry]] = {}
    for source in ("fixed", "oracle", "automatic"):
        if source in chosen:
            entries[source] = (chosen[source], _Entry(scoring))
            index = thresholds.index(chosen[source])
            for pixels, context_pixels in images:
                entries[source][1].add_levels(pixels, context_pixels, index)
    curve_values = {"background_scores": list(THRESHOLDS), "miou": [_or_none(value) for value in grid]}
    return scoring.result(ids, entries, curve_values, per_image)


def score_masks(
    folder: Path,
    dataset: Dataset,
    ids: Sequence[str],
    *,
    source: str = "none",
    background_score: float | None = None,
    per_image: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score predicted or pseudo masks of a folder.

    Args:
        folder: holds `<image id>.png`.
        dataset: gives true masks, and context maps where it has them.
        ids: images; each needs a file.
        source: where the masks' background score came from, for the entry.
        background_score: and its value.
        per_image: file for the confusion of each image, for intervals.
        progress: told after each image.

    Raises:
        DataError: predictions are missing, or sizes or classes don't fit.
    """
    folder, scoring = Path(folder), _Scoring(dataset)
    _check_complete(folder, ids)
    entry = _Entry(scoring)
    for done, image_id in enumerate(ids, start=1):
        path, mask = folder / f"{image_id}.png", _true_mask(dataset, image_id)
        predicted = _predicted_mask(path, mask)
        entry.add_masks(mask, predicted, scoring.context(image_id))
        if progress is not None:
            progress(done, len(ids), "images")
    return scoring.result(ids, {source: (background_score, entry)}, None, per_image)


def evaluate_folders(
    predictions: Path,
    masks: Path,
    class_names: Sequence[str] | None = None,
    *,
    ids: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Score a folder of predicted masks against a folder of true ones.

    Args:
        predictions: 8-bit PNGs of class numbers.
        masks: true masks of the same names; 255 is ignored.
        class_names: K + 1 names, the first "background"; None: numbers, as many as the files hold.
        ids: file stems to score; None: all of `masks`, and each needs a prediction.

    Raises:
        DataError: no masks, predictions are missing, or sizes or classes don't fit.
    """
    predictions, masks = Path(predictions), Path(masks)
    names = tuple(sorted(path.stem for path in masks.glob("*.png"))) if ids is None else tuple(ids)
    if not names:
        raise DataError(f"There are no PNG masks in {masks}. Name the folder of true masks.")
    _check_complete(predictions, names)
    if class_names is None:
        files = (folder / f"{name}.png" for name in names for folder in (predictions, masks))
        highest = max(_highest(read_mask(path)) for path in files)
        class_names = ("background", *(str(number) for number in range(1, highest + 1)))
    scoring = _Scoring(None, tuple(class_names))
    entry = _Entry(scoring)
    for name in names:
        mask, path = read_mask(masks / f"{name}.png"), predictions / f"{name}.png"
        entry.add_masks(mask, _predicted_mask(path, mask), None)
    return scoring.result(names, {"none": (None, entry)}, None, None)


class _Scoring:
    """What all entries of one scoring share."""

    def __init__(self, dataset: Dataset | None, class_names: Sequence[str] = ()) -> None:
        self.class_names = tuple(dataset.class_names) if dataset is not None else tuple(class_names)
        self.context_names: Mapping[int, str] = dataset.context_names if dataset is not None else {}
        self.num_classes = len(self.class_names)
        self.num_contexts = max(self.context_names, default=0) + 1
        self._dataset = dataset

    def context(self, image_id: str) -> Mask | None:
        """Context map of an image, values without a name set to 0."""
        if self._dataset is None or not self.context_names:
            return None
        context = self._dataset.context(image_id)
        return None if context is None else np.where(context < self.num_contexts, context, 0).astype(np.uint8)

    def result(
        self,
        ids: Sequence[str],
        entries: Mapping[str, tuple[float | None, _Entry]],
        curve: dict[str, Any] | None,
        per_image: Path | None,
    ) -> dict[str, Any]:
        if per_image is not None:
            rows = {source: entry.per_image for source, (_, entry) in entries.items()}
            save_per_image(per_image, ids, rows, self.num_classes)
        return {
            "class_names": list(self.class_names),
            "images": len(ids),
            "entries": [entry.summary(source, score) for source, (score, entry) in entries.items()],
            "curve": curve,
        }


class _Entry:
    """Everything counted at one background score."""

    def __init__(self, scoring: _Scoring) -> None:
        self.scoring = scoring
        self.confusion = Confusion.empty(scoring.num_classes)
        self.cooccurrence = Cooccurrence(scoring.num_classes, scoring.num_contexts)
        self.per_image = PerImage()
        self.images = self.pixels = self.unsure = 0

    def add(self, counts: Counts, context_counts: Counts | None) -> None:
        self.confusion = self.confusion + Confusion(counts)
        if context_counts is not None:
            self.cooccurrence.add(counts, context_counts)
        self.per_image.add(counts)
        self.images += 1

    def add_levels(self, pixels: LevelCounts, context_pixels: LevelCounts | None, index: int) -> None:
        """Count one image at threshold number `index`."""
        num_classes = self.scoring.num_classes
        context = None if context_pixels is None else context_pixels.at(index, num_classes)
        self.add(pixels.at(index, num_classes), context)

    def add_masks(self, mask: Mask, predicted: Mask, context: Mask | None) -> None:
        """Count one image by its masks; 255 in `predicted` is background."""
        counted, unsure = mask != IGNORE, predicted == IGNORE
        self.pixels += int(counted.sum())
        self.unsure += int((unsure & counted).sum())
        predicted = np.where(unsure, BACKGROUND, predicted).astype(np.uint8)
        counts = count_pixels(mask, predicted, self.scoring.num_classes)
        context_counts = None
        if context is not None:
            shape = {"num_contexts": self.scoring.num_contexts, "num_classes": self.scoring.num_classes}
            context_counts = count_context(context, mask, predicted, **shape)
        self.add(counts, context_counts)

    def summary(self, source: str, background_score: float | None) -> dict[str, Any]:
        names, confusion = self.scoring.class_names, self.confusion
        missing = [names[c] for c in confusion.missing_classes()]
        if missing:
            _warn_of_missing(", ".join(missing))

        def by_class(values: npt.NDArray[np.float64]) -> dict[str, float | None]:
            return {name: _or_none(value) for name, value in zip(names, values.tolist(), strict=True)}

        return {
            "background_score_source": source,
            "background_score": background_score,
            "miou": _or_none(confusion.miou()),
            "iou": by_class(confusion.iou()),
            "precision": by_class(confusion.precision()),
            "recall": by_class(confusion.recall()),
            "over_activation": by_class(over_activation(confusion)),
            "under_activation": by_class(under_activation(confusion)),
            "confusion": confusion.counts.tolist(),
            "cooccurrence": self.cooccurrence.summary(names, self.scoring.context_names),
            "missing_classes": missing,
            "unsure_share": self.unsure / self.pixels if self.pixels else 0.0,
        }


def _levels(
    scoring: _Scoring, maps: ActivationMaps, mask: Mask, context: Mask | None, thresholds: Sequence[float]
) -> tuple[LevelCounts, LevelCounts | None]:
    """Histograms of one image by true class, and of its background by context."""
    levels = top_levels(maps, thresholds) if len(maps.class_ids) else None
    pixels = count_levels(
        mask, mask != IGNORE, maps, num_labels=scoring.num_classes, levels=levels, thresholds=thresholds
    )
    if context is None:
        return pixels, None
    background = mask == BACKGROUND
    shown = count_levels(
        context, background, maps, num_labels=scoring.num_contexts, levels=levels, thresholds=thresholds
    )
    return pixels, shown


def _true_mask(dataset: Dataset, image_id: str) -> Mask:
    mask = dataset.sample(image_id, with_mask=True).mask
    if mask is None:
        raise DataError(f"{image_id} has no true mask. Score a split that has masks; training needs none.")
    return mask


def _predicted_mask(path: Path, mask: Mask) -> Mask:
    predicted = read_mask(path)
    _check_sizes(mask.shape, predicted.shape, str(path))
    return predicted


def _check_sizes(expected: tuple[int, ...], got: tuple[int, ...], what: str) -> None:
    if tuple(expected) != tuple(got):
        raise DataError(
            f"{what} must have the size of the true mask, {expected[0]} x {expected[1]} (height x width); "
            f"got {got[0]} x {got[1]}. Make predictions at the image's own size."
        )


def _check_complete(folder: Path, ids: Sequence[str]) -> None:
    missing = [image_id for image_id in ids if not (folder / f"{image_id}.png").is_file()]
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(ids):,} predictions are missing in {folder}; the first is "
            f"{missing[0]}.png. Predict these images too, or score against a folder with the true masks "
            "of the predicted images alone."
        )


def _highest(mask: Mask) -> int:
    return int(mask[mask != IGNORE].max(initial=BACKGROUND))


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


@functools.cache  # said once, not for every background score
def _warn_of_missing(names: str) -> None:
    log.warning("no true pixels of %s: left out of the mean IoU", names)
