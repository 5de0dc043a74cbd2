"""Scores of maps and masks against true masks: the only room besides segmentation's twin that reads masks.

Results are plain dictionaries, ready for `scores.json`; docs/file-formats.md describes them. Pixels of a
predicted mask that are 255 (unsure) count as background, as in IRN, and their share is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsss.activation.score_entries import Entry, Mask, Scoring, or_none, true_mask
from wsss.activation.store import MapStore
from wsss.data.dataset import Dataset
from wsss.data.masks_png import read_mask
from wsss.errors import DataError, ShapeError
from wsss.metrics.curves import (
    POWERS,
    THRESHOLDS,
    LevelCounts,
    ScoreCurve,
    count_levels,
    masks_at,
    score_of_power,
    top_levels,
)
from wsss.training.journal import Progress
from wsss.types import BACKGROUND, IGNORE, ActivationMaps


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
    """Score full-size maps at the fixed, the best and the automatic background score.

    The best one is chosen on the true masks of these very images: its source is `oracle`, and nothing else
    may use it. The curve holds the mIoU at every constant score and at powers of PSA's background. Maps with
    a background of their own get one entry of source `none` and no curve. One pass over the maps gives all
    confusions; edges need the masks at the best score, so the maps are read once more.

    Args:
        store: maps.
        dataset: gives true masks, and context maps where it has them.
        ids: images.
        fixed: the papers' constant background score.
        automatic: what `choose_background_score` found, if it ran.
        per_image: file for the confusion of each image at each of these scores, for intervals.
        progress: told after each image, in both passes.

    Raises:
        DataError: a mask or map is missing, or their sizes differ.
    """
    scoring = Scoring(dataset, ids=ids)
    chosen = {"fixed": fixed} if automatic is None else {"fixed": fixed, "automatic": automatic}
    thresholds = tuple(sorted({*THRESHOLDS, *map(score_of_power, POWERS), *chosen.values()}))
    curve = ScoreCurve(scoring.num_classes, thresholds)
    images: list[tuple[LevelCounts, LevelCounts | None]] = []
    own = Entry(scoring)
    for done, image_id in enumerate(ids, start=1):
        maps, mask, context = store.read(image_id), true_mask(dataset, image_id), scoring.context(image_id)
        _check_sizes(mask.shape, maps.size, f"the maps of {image_id} in {store.folder}")
        if len(maps.class_ids) and int(maps.class_ids.max()) >= scoring.num_classes:
            raise DataError(
                f"The maps of {image_id} in {store.folder} must be of classes 1-{scoring.num_classes - 1}; "
                f"got {maps.class_ids.tolist()}. Delete the file and run the same command again to remake it."
            )
        if maps.background is not None:
            own.add_masks(mask, maps.to_mask().numpy(), context, scoring.true_edges(image_id, mask))
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
    chosen["oracle"] = max(THRESHOLDS, key=lambda score: (np.nan_to_num(miou[score], nan=-1.0), -score))
    entries: dict[str, tuple[float | None, Entry]] = {}
    for source in ("fixed", "oracle", "automatic"):
        if source in chosen:
            entries[source] = (chosen[source], Entry(scoring))
            index = thresholds.index(chosen[source])
            for pixels, context_pixels in images:
                entries[source][1].add_levels(pixels, context_pixels, index)
    _add_edges(scoring, store, dataset, ids, entries, progress=progress)
    return scoring.result(ids, entries, _curves(miou), per_image)


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
    folder, scoring = Path(folder), Scoring(dataset, ids=ids)
    _check_complete(folder, ids)
    entry = Entry(scoring)
    for done, image_id in enumerate(ids, start=1):
        path, mask = folder / f"{image_id}.png", true_mask(dataset, image_id)
        predicted = _predicted_mask(path, mask)
        entry.add_masks(mask, predicted, scoring.context(image_id), scoring.true_edges(image_id, mask))
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
    scoring = Scoring(None, class_names)
    entry = Entry(scoring)
    for name in names:
        mask, path = read_mask(masks / f"{name}.png"), predictions / f"{name}.png"
        predicted = _predicted_mask(path, mask)
        try:
            entry.add_masks(mask, predicted, None, scoring.true_edges(name, mask))
        except ShapeError as error:  # values of no class
            raise DataError(f"{path} or its true mask is no mask of these classes: {error}") from error
    return scoring.result(names, {"none": (None, entry)}, None, None)


def _curves(miou: Mapping[float, float]) -> dict[str, list[float | None]]:
    """The mIoU at each constant background score and at each power, from that at each threshold."""
    return {
        "background_scores": list(THRESHOLDS),
        "miou": [or_none(miou[score]) for score in THRESHOLDS],
        "background_powers": list(POWERS),
        "power_miou": [or_none(miou[score_of_power(power)]) for power in POWERS],
    }


def _levels(
    scoring: Scoring, maps: ActivationMaps, mask: Mask, context: Mask | None, thresholds: Sequence[float]
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


def _add_edges(
    scoring: Scoring,
    store: MapStore,
    dataset: Dataset,
    ids: Sequence[str],
    entries: Mapping[str, tuple[float | None, Entry]],
    *,
    progress: Progress | None,
) -> None:
    """Count the edges of the masks that maps give at the background score of each entry."""
    scores = sorted({score for score, _ in entries.values() if score is not None})
    for done, image_id in enumerate(ids, start=1):
        edges = scoring.true_edges(image_id, true_mask(dataset, image_id))
        masks = dict(zip(scores, masks_at(store.read(image_id), scores), strict=True))
        for score, entry in entries.values():
            if score is not None:
                entry.boundaries.add(edges, masks[score])
        if progress is not None:
            progress(done, len(ids), "images, edges")


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
