"""Scoring beside the stages: the only part of a run that reads masks of weakly supervised data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np

from wsss.activation.scoring import score_maps, score_masks
from wsss.activation.word_scoring import score_words
from wsss.data.dataset import Dataset, tagged_ids
from wsss.engine.chosen_score import chosen_score
from wsss.engine.map_work import map_store
from wsss.engine.recipe import Recipe
from wsss.engine.stages import Stage, Workspace, stage_record
from wsss.errors import DataError
from wsss.metrics.per_image import load_per_image
from wsss.training.checkpoint import write_atomically
from wsss.training.journal import Progress

FOLDERS: Final = {
    "pseudo_masks": "pseudo_masks",
    "segmentation": "predictions",
    "segmentation_crf": "predictions",
}
PREDICTED: Final = ("segmentation", "segmentation_crf")  # what a network says of all images of a split
SPECIAL: Final = "specific_surroundings"
_WORDS: Final = {"words": "word labels", "segmentation_crf": "segmentation + CRF"}
_REFINED: Final = "refined-"
_NOTED: WeakKeyDictionary[Workspace, set[str]] = WeakKeyDictionary()  # so that one cause is told once a run


def scored_words(scores: str) -> str:
    """What a scored stage is called inside a sentence; the report's titles begin with a capital.

    Example:
        >>> scored_words("refined-dense_crf"), scored_words("pseudo_masks")
        ('refined (dense_crf)', 'pseudo masks')
    """
    if scores.startswith(_REFINED):
        return f"refined ({scores.removeprefix(_REFINED)})"
    return _WORDS.get(scores, scores.replace("_", " "))


def score(
    recipe: Recipe,
    stage: Stage,
    choose: Stage | None,
    scores: str,
    split: str,
    folder: Path,
    workspace: Workspace,
    progress: Progress,
) -> dict[str, Any]:
    """Write `scores.json` and `per_image.npz`; only a note where masks are missing."""
    dataset = workspace.dataset
    ids = scored_ids(dataset, scores, split)
    note = _without_masks(recipe, dataset, scores, split) or _incomplete_masks(dataset, scores, split)
    if note is not None:
        _note_once(workspace, note)
        return {"skipped": note}
    per_image = folder / "per_image.npz"
    if choose is not None:
        found = score_maps(
            map_store(workspace, stage),
            dataset,
            ids,
            fixed=recipe.evaluation.fixed_background_score,
            automatic=chosen_score(workspace.folder(choose)),
            per_image=per_image,
            progress=progress,
        )
    elif scores == "words":
        words = workspace.folder(stage) / "words"
        found = score_words(words, dataset, ids, per_image=per_image, progress=progress)
    else:
        source, value = _background_score(stage, workspace)
        found = score_masks(
            workspace.folder(stage) / FOLDERS[scores],
            dataset,
            ids,
            source=source,
            background_score=value,
            per_image=per_image,
            progress=progress,
        )
    add_mious_without(found["entries"], recipe.evaluation.also_without)
    _add_special_images(found["entries"], dataset, ids, per_image)
    write_atomically(folder / "scores.json", (json.dumps(found, indent=1) + "\n").encode())
    return {"images": found["images"]}


def scored_ids(dataset: Dataset, scores: str, split: str) -> tuple[str, ...]:
    """The images that count: all of the split for segmentation, else the tagged ones, which have maps."""
    return dataset.ids(split) if scores in PREDICTED else tagged_ids(dataset, split)


def check_masks(dataset: Dataset, scores: str, split: str) -> None:
    """Make sure that all images to be scored have masks, or none, which leaves the scores out.

    Raises:
        DataError: only some have; a score of these alone would look like one of the split.
    """
    message = _incomplete_masks(dataset, scores, split)
    if message is not None:
        raise DataError(message)


def _note_once(workspace: Workspace, note: str) -> None:
    """Say once in a run what keeps several of its stages from being scored."""
    said = _NOTED.setdefault(workspace, set())
    if note not in said:
        said.add(note)
        workspace.listener.note(note)


def _without_masks(recipe: Recipe, dataset: Dataset, scores: str, split: str) -> str | None:
    """Says what of a run can't be scored, the same for all stages concerned; None where some image can."""
    if not scored_ids(dataset, scores, split):
        what = _joined(_results(scores))
        return f"No image of split {split} of {dataset.name} has tags, so {what} are not scored."
    if not _is_without_masks(dataset, scores, split):
        return None
    scored = [("maps", recipe.maps_split)] if recipe.method else []
    scored += [("segmentation", recipe.data.val_split)] if recipe.segmentation else []
    without = {kind: part for kind, part in scored if _is_without_masks(dataset, kind, part)}
    splits = list(dict.fromkeys(without.values()))
    subject, verb = ("Split", "has") if len(splits) == 1 else ("Splits", "have")
    what = _joined([name for kind in without for name in _results(kind)])
    return f"{subject} {_joined(splits)} of {dataset.name} {verb} no masks, so {what} are not scored."


def _is_without_masks(dataset: Dataset, scores: str, split: str) -> bool:
    ids = scored_ids(dataset, scores, split)
    return 0 < len(ids) == len(dataset.missing_masks(ids))


def _incomplete_masks(dataset: Dataset, scores: str, split: str) -> str | None:
    """Says which masks are missing and what to do; None where all are there, or none is."""
    ids = scored_ids(dataset, scores, split)
    missing = dataset.missing_masks(ids)
    if not 0 < len(missing) < len(ids):
        return None
    key = "data.val_split" if scores in PREDICTED else "evaluation.maps_split"
    return (
        f"{_joined(_results(scores)).capitalize()} of split {split} of {dataset.name} can't be scored: "
        f"{len(missing):,} of its {len(ids):,} images {'has' if len(missing) == 1 else 'have'} no mask, "
        f"the first missing file is {missing[0]}. Add the masks, or leave such images out of the split's "
        f"list, or list the images that have masks as a split and name it as `{key}`."
    )


def _results(scores: str) -> tuple[str, ...]:
    """What is scored on the same split as this, for readers."""
    return ("predicted masks",) if scores in PREDICTED else ("maps", "pseudo masks")


def _joined(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def add_mious_without(entries: Sequence[dict[str, Any]], classes: Sequence[str]) -> None:
    """Add the mean IoU of the classes that have true pixels, once without each of `classes`."""
    for entry in entries if classes else ():
        entry["miou_without"] = {
            left_out: fmean(v for name, v in entry["iou"].items() if name != left_out and v is not None)
            for left_out in classes
        }


def _add_special_images(
    entries: Sequence[dict[str, Any]], dataset: Dataset, ids: Sequence[str], per_image: Path
) -> None:
    """Add the mIoU of images whose surroundings are on no fixed list, where metadata tell them."""
    metadata = getattr(dataset, "metadata", None)
    if metadata is None:
        return
    special = np.array([bool(metadata(image_id).get(f"has_{SPECIAL}")) for image_id in ids])
    if special.any():
        counts = load_per_image(per_image)
        for entry in entries:
            value = float(counts[entry["background_score_source"]].miou(special[None].astype(np.int64))[0])
            entry["miou_subset"] = {SPECIAL: value}


def _background_score(stage: Stage, workspace: Workspace) -> tuple[str, float | None]:
    """Source and value of the background score that the pseudo masks behind some masks were made with."""
    pseudo_masks = _ancestor(stage, "pseudo-masks")
    record = stage_record(workspace.folder(pseudo_masks)) if pseudo_masks else None
    facts: Mapping[str, Any] = record["facts"] if record else {}
    return facts.get("background_score_source", "none"), facts.get("background_score")


def _ancestor(stage: Stage, kind: str) -> Stage | None:
    if stage.kind == kind:
        return stage
    return next((found for other in stage.inputs if (found := _ancestor(other, kind))), None)
