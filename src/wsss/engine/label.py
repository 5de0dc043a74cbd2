"""From a folder of images and a tags file to a mask of every image: `wsss label`.

Images with tags get the masks that the maps of their classes give; images without get the trained network's.
All tagged images are trained on. True masks, where there are some, are read by scoring alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from wsss.data import Dataset, FolderConfig, open_dataset, tagged_ids
from wsss.data.splits import ALL
from wsss.engine import provenance
from wsss.engine.chosen_score import chosen_score
from wsss.engine.corrections import MASKS as PSEUDO_MASKS
from wsss.engine.corrections import STAGE as CORRECT_MASKS
from wsss.engine.corrections import corrected_ids
from wsss.engine.data_facts import sampled_sizes
from wsss.engine.folder_recipe import (
    DEFAULT_METHOD,
    FolderFacts,
    data_name,
    folder_recipe,
    public_teacher,
    recipe_text,
    surroundings,
)
from wsss.engine.label_masks import ClassRow, intended_masks, touched_masks, write_masks
from wsss.engine.own_files import OwnFiles
from wsss.engine.plan import plan
from wsss.engine.recipe import Recipe, parse_recipe
from wsss.engine.run import run
from wsss.engine.stages import Listener, Silence, Workspace, complete
from wsss.errors import DataError

MASKS: Final = "masks"
SUMMARY: Final = "label.json"
MASKED: Final = "masked"  # split of the images that have true masks
RECIPE: Final = "recipe.yaml"
SPLITS: Final = "label-splits"
HEADING: Final = "Made by `wsss label`; `wsss run` with this file gives the same run."


@dataclass(frozen=True)
class LabelSettings:
    """What is labelled, and how.

    Args:
        images: folder of images, searched with all folders below it.
        tags: CSV file `image,labels[,scene]`.
        out: folder for everything that is made; outside `images`.
        classes: classes file; None: the classes are those of the tags.
        masks: folder of true masks, for scoring only.
        method: one of the templates' methods.
        refine: names of refiners, in order.
        background_score: score of class 0 in [0, 1]; None: chosen without masks.
        seed: of the trainings.
        quick: a few steps only, to see that everything works.
        corrections: masks corrected by hand, a folder or a COCO file; the network learns from them too, and
            they are among the masks that are written. None: there are none.
    """

    images: Path
    tags: Path
    out: Path
    classes: Path | None = None
    masks: Path | None = None
    method: str = DEFAULT_METHOD
    refine: tuple[str, ...] = ("dense_crf",)
    background_score: float | None = None
    seed: int = 0
    quick: bool = False
    corrections: Path | None = None


@dataclass(frozen=True)
class Labelled:
    """What `label_folder` made.

    Args:
        run_folder: the run, for `wsss report`.
        masks: folder of one indexed PNG per image, named by image id.
        network: `model.safetensors` of the trained network.
        from_tags: masks that the tags' maps gave.
        corrected: masks that were given.
        from_network: masks of images without tags, which the network gave.
        background_score: of the maps; None where their background is not a constant.
        background_source: "automatic" (chosen without masks) or "fixed" (given).
        oracle: the background score that would have been best on the true masks; None without any.
        classes: one row each.
        scores: as `RunResult.scores`.
    """

    run_folder: Path
    masks: Path
    network: Path
    from_tags: int
    corrected: int
    from_network: int
    background_score: float | None
    background_source: str
    oracle: float | None
    classes: tuple[ClassRow, ...]
    scores: Mapping[str, Any] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, paths as texts; scores are left out, the run holds them."""
        found = asdict(self)
        found.pop("scores")
        return {key: str(value) if isinstance(value, Path) else value for key, value in found.items()}


def label_recipe(settings: LabelSettings) -> dict[str, Any]:
    """The recipe that labels the folder, as plain data; reads tags, names and headers, no pixels.

    Raises:
        DataError: images, tags, classes or masks are missing or wrong, the output lies in their way, or it
            would replace what others wrote.
        RecipeError: an unknown method or refiner, or a background score that nothing would use.
    """
    _check_places(settings)
    section = _section(settings)
    dataset = open_dataset(FolderConfig.model_validate(section))
    ids = tagged_ids(dataset, "train")
    if not ids:
        raise DataError(f"{settings.tags} tags no image of {settings.images}. Add lines for some of them.")
    own = OwnFiles(settings.out, settings.images)
    own.check([settings.out / RECIPE, settings.out / SUMMARY, *touched_masks(dataset, settings.out / MASKS)])
    section |= _scored(dataset, ids, settings, own)
    teacher = public_teacher(settings.method)
    raw = folder_recipe(
        section,
        settings.method,
        FolderFacts(len(ids), sampled_sizes(dataset, ids)),
        name="-".join((dataset.name, settings.method, *_marks(settings))),
        teacher=teacher,
        background_texts=_background_texts(dataset, ids, general=teacher is not None),
        refine=settings.refine,
        background_score=settings.background_score,
        quick=settings.quick,
    )
    if MASKED in section.get("splits", {}):
        raw["evaluation"] = {"maps_split": MASKED}
    if settings.corrections is not None:
        raw["corrections"] = {"folder": str(settings.corrections.resolve())}
    return raw


def label_folder(settings: LabelSettings, *, progress: Listener | None = None) -> Labelled:
    """Label all images of a folder; interrupted, the same call goes on where it stopped.

    Args:
        settings: what and how.
        progress: follows the stages.

    Raises:
        WsssError: something is wrong with the data, or a stage failed. Call again to go on.
    """
    listener = progress or Silence()
    raw = label_recipe(settings)
    recipe = parse_recipe(raw, "the folder's recipe")
    own = OwnFiles(settings.out, settings.images)
    own.write(settings.out / RECIPE, recipe_text(raw, (HEADING,)).encode())
    runs = settings.out / "runs"
    result = run(recipe, seed=settings.seed, runs=runs, progress=listener)
    places = _folders(recipe, settings.seed, runs)
    predictions = places["predict"] / "predictions"
    if recipe.data.val_split != ALL:
        predictions = _predict_all(raw, settings.seed, runs, listener)
    dataset = open_dataset(recipe.data)
    target = settings.out / MASKS
    report, clock = listener.started("Write masks"), time.perf_counter()
    given = places.get(CORRECT_MASKS)
    masks = (given or places["pseudo-masks"]) / PSEUDO_MASKS
    own.claim(intended_masks(dataset, masks, predictions, target))
    rows, counts = write_masks(dataset, masks, predictions, target, report)
    own.settle()
    listener.finished("Write masks", time.perf_counter() - clock)
    score, source = _background(places, settings)
    corrected = len(corrected_ids(given)) if given else 0
    labelled = Labelled(
        run_folder=result.folder,
        masks=target,
        network=places["train-segmentation"] / "model.safetensors",
        from_tags=counts[0] - corrected,
        corrected=corrected,
        from_network=counts[1],
        background_score=score,
        background_source=source,
        oracle=_oracle(result.scores),
        classes=rows,
        scores=result.scores,
    )
    own.write(settings.out / SUMMARY, (json.dumps(labelled.as_dict(), indent=1) + "\n").encode())
    return labelled


def _check_places(settings: LabelSettings) -> None:
    """Nothing that is made may be taken for an input, or replace one."""
    out = settings.out.resolve()
    if settings.images.is_dir() and out.is_relative_to(settings.images.resolve()):
        raise DataError(
            f"The output folder must lie outside the images' folder {settings.images}; got {settings.out}. "
            "Its masks would be taken for images."
        )
    made = (out / MASKS).resolve()  # may be a link
    if settings.images.is_dir() and settings.images.resolve().is_relative_to(made):
        raise DataError(
            f"New masks are written into {made}, where the images of {settings.images} are. Name another "
            "output folder."
        )
    if settings.masks is not None and settings.masks.resolve().is_relative_to(made):
        raise DataError(
            f"New masks are written into {made}, which `masks` names as the true ones. Name another output "
            "folder."
        )
    if settings.corrections is not None and settings.corrections.resolve().is_relative_to(made):
        raise DataError(
            f"New masks are written into {made}, where `corrections` are to be read. Copy the masks that you "
            "correct into a folder of their own."
        )


def _marks(settings: LabelSettings) -> list[str]:
    """Runs of the same folder that must not replace each other have names of their own."""
    marks = {"quick": settings.quick, "corrected": settings.corrections is not None}
    return [mark for mark, is_so in marks.items() if is_so]


def _section(settings: LabelSettings) -> dict[str, Any]:
    images = settings.images.resolve()
    section: dict[str, Any] = {
        "kind": "folder",
        "root": str(images),
        "name": data_name(images),
        "images": ".",
        "tags": str(settings.tags.resolve()),
        "val_split": ALL,  # the network's masks are wanted of all images
    }
    for key in ("classes", "masks"):
        path = getattr(settings, key)
        if path is not None:
            section[key] = str(path.resolve())
    return section


def _scored(dataset: Dataset, ids: Sequence[str], settings: LabelSettings, own: OwnFiles) -> dict[str, Any]:
    """A list of the images with true masks, where not all have one: scores count all images of a split."""
    everything = dataset.ids(ALL)
    masked = [image_id for image_id in everything if not dataset.missing_masks([image_id])]
    if not 0 < len(masked) < len(everything):
        return {}
    lists = {"train": ids, MASKED: masked}
    places = {name: settings.out / SPLITS / f"{name}.txt" for name in lists}
    own.check(places.values())
    for name, path in places.items():
        own.write(path, ("\n".join(lists[name]) + "\n").encode())
    return {"splits": {name: str(path.resolve()) for name, path in places.items()}, "val_split": MASKED}


def _background_texts(
    dataset: Dataset, ids: Sequence[str], *, general: bool
) -> Mapping[str, tuple[str, ...]] | None:
    """Proposed ones, unless the classes file has some."""
    if any(info.background_texts for info in dataset.classes):
        return None
    names = np.array(dataset.class_names[1:])
    labels = {image_id: names[dataset.image_labels(image_id)].tolist() for image_id in ids}
    scenes = {image_id: dataset.scene_words(image_id) for image_id in ids}
    return surroundings(labels, scenes, general=general).texts


def _folders(recipe: Recipe, seed: int, runs: Path) -> dict[str, Path]:
    """The folder of each stage, by its name."""
    workspace = Workspace(runs, recipe.data, provenance.default_device(), Silence())
    return {stage.name: workspace.folder(stage) for stage in plan(recipe, seed, workspace)}


def _predict_all(raw: Mapping[str, Any], seed: int, runs: Path, listener: Listener) -> Path:
    """The same network's masks of all images; nothing but this prediction is new."""
    data = {key: value for key, value in raw["data"].items() if key != "masks"}
    whole = {**raw, "data": {**data, "val_split": ALL}}
    recipe = parse_recipe(whole, "the folder's recipe")
    workspace = Workspace(runs, recipe.data, provenance.default_device(), listener)
    (predict,) = (stage for stage in plan(recipe, seed, workspace) if stage.name == "predict")
    complete(predict, workspace)
    return workspace.folder(predict) / "predictions"


def _background(places: Mapping[str, Path], settings: LabelSettings) -> tuple[float | None, str]:
    """The background score of the maps and who chose it."""
    if settings.background_score is not None:
        return settings.background_score, "fixed"
    name = "choose-score-maps"
    if settings.refine:  # a refiner without background has its maps' score chosen at the end
        last = [place for place in places if place.startswith("choose-score-refined")][-1]
        chosen = chosen_score(places[last])
        if chosen is not None:
            return chosen, "automatic"
    return chosen_score(places[name]), "automatic"


def _oracle(scores: Mapping[str, Any]) -> float | None:
    entries = scores.get("maps", {}).get("entries", [])
    found = [entry for entry in entries if entry["background_score_source"] == "oracle"]
    return float(found[0]["background_score"]) if found else None
