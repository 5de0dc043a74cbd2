"""Work of the stages from a trained method to pseudo masks. None of it can read a mask."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from wsss.activation.extract import extract
from wsss.activation.refine import refine_images
from wsss.activation.seeds import choose_background_score, write_pseudo_masks
from wsss.activation.store import MapStore
from wsss.activation.words import write_words
from wsss.data.dataset import Dataset, WithoutMasks, tagged_ids
from wsss.engine.collapse import check_refined_maps, check_written_maps
from wsss.engine.method_work import trained_method, training_ids
from wsss.engine.recipe import Recipe, RefinerSection
from wsss.engine.stages import Stage, Workspace
from wsss.metrics.curves import score_of_power
from wsss.refiners.base import find_refiner
from wsss.training.checkpoint import write_atomically
from wsss.training.journal import Progress
from wsss.training.processes import is_main_process, num_processes, own_share, wait_for_everyone

CHOSEN: Final = "chosen_score.json"


def map_ids(recipe: Recipe, dataset: Dataset) -> tuple[str, ...]:
    """Images that get maps: the tagged ones of training, then those of the scored split."""
    scored = tagged_ids(dataset, recipe.maps_split)
    return tuple(dict.fromkeys((*training_ids(dataset, recipe.data.train_split), *scored)))


def map_store(workspace: Workspace, stage: Stage) -> MapStore:
    """The maps that an `activate` or `refine` stage wrote."""
    return MapStore(workspace.folder(stage) / "maps")


def activate(
    recipe: Recipe,
    trained: Stage,
    helpers: Mapping[str, Stage],
    folder: Path,
    workspace: Workspace,
    progress: Progress,
) -> dict[str, Any]:
    """Write the maps of all training images, each process its share; stop where they have collapsed."""
    assert recipe.method is not None
    dataset = WithoutMasks(workspace.dataset)
    method = trained_method(recipe, recipe.method, trained, helpers, workspace)
    ids, store = map_ids(recipe, dataset), MapStore(folder / "maps")
    extract(method, dataset, ids, store, recipe.activation, device=workspace.device, progress=progress)
    if not is_main_process():
        return {}
    train_ids = training_ids(dataset, recipe.data.train_split)
    note = check_written_maps(store, train_ids, dataset.class_names, workspace.folder(trained))
    if note is not None:
        workspace.listener.note(note)
    return {"images": len(ids), "note": note}


def write_word_maps(
    recipe: Recipe,
    trained: Stage,
    helpers: Mapping[str, Stage],
    folder: Path,
    workspace: Workspace,
    progress: Progress,
) -> dict[str, Any]:
    """Write the visual words of the images whose maps are scored, each process its share."""
    section = recipe.method
    assert section is not None
    dataset = WithoutMasks(workspace.dataset)
    write = partial(
        write_words,
        trained_method(recipe, section, trained, helpers, workspace),
        dataset,
        folder=folder / "words",
        num_words=section.num_words,
        device=workspace.device,
        progress=progress,
    )
    ids = tagged_ids(dataset, recipe.maps_split)
    if num_processes() > 1:
        write(own_share(ids))
        wait_for_everyone()
        if not is_main_process():
            return {}
    return write(ids)  # of several processes the first counts the words that all have found


def refine(
    recipe: Recipe,
    section: RefinerSection,
    maps: Stage,
    seed: int,
    folder: Path,
    workspace: Workspace,
    progress: Progress,
) -> dict[str, Any]:
    """Fit the refiner and write refined maps of the same images; all processes take their share."""
    dataset = WithoutMasks(workspace.dataset)
    ids, given, store = map_ids(recipe, dataset), map_store(workspace, maps), MapStore(folder / "maps")
    refiner = find_refiner(section.name)(section.config, dataset.class_names)
    train_ids, device = training_ids(dataset, recipe.data.train_split), workspace.device
    refiner.fit(dataset, train_ids, given, folder / "fit", seed=seed, device=device, progress=progress)
    refine_images(refiner, dataset, ids, given, store, device=device, progress=progress)
    if not is_main_process():
        return {}
    note = check_refined_maps(store, train_ids, dataset.class_names, section.short_name)
    if note is not None:
        workspace.listener.note(note)
    return {"images": len(ids), "note": note}


def choose_score(
    recipe: Recipe, maps: Stage, folder: Path, workspace: Workspace, progress: Progress
) -> dict[str, Any]:
    """Choose the background score without any mask; maps with a background of their own need none."""
    dataset = WithoutMasks(workspace.dataset)
    ids, store = training_ids(dataset, recipe.data.train_split), map_store(workspace, maps)
    if store.read(ids[0], full_size=False).background is not None:
        document: dict[str, Any] = {"value": None, "source": "none", "details": {}}
    else:
        document = choose_background_score(store, ids, dataset, progress=progress).as_dict()
    _write_chosen(folder, document)
    return {"value": document["value"]}


def _chosen_document(workspace: Workspace, choose: Stage) -> dict[str, Any]:
    """What `choose_score` found: value (None where none is needed), source and details."""
    found: dict[str, Any] = json.loads((workspace.folder(choose) / CHOSEN).read_text(encoding="utf-8"))
    return found


def write_masks(
    recipe: Recipe, maps: Stage, choose: Stage | None, folder: Path, workspace: Workspace, progress: Progress
) -> dict[str, Any]:
    """Turn maps into pseudo masks at the constant, power or automatic background score."""
    config = recipe.pseudo_masks
    dataset = WithoutMasks(workspace.dataset)
    chosen: dict[str, Any]
    if config.background_power is not None:
        constant = score_of_power(config.background_power)  # decides every pixel alike
        chosen = {"value": constant, "source": "fixed", "details": {"power": config.background_power}}
    elif choose is None:
        chosen = {"value": config.background_score, "source": "fixed", "details": {}}
    else:
        chosen = _chosen_document(workspace, choose)
    _write_chosen(folder, chosen)
    write_pseudo_masks(
        map_store(workspace, maps),
        map_ids(recipe, dataset),
        folder / "pseudo_masks",
        background_score=None if config.background_power is not None else chosen["value"],
        background_power=config.background_power,
        unsure_margin=config.unsure_margin,
        progress=progress,
    )
    return {"background_score": chosen["value"], "background_score_source": chosen["source"]}


def _write_chosen(folder: Path, document: dict[str, Any]) -> None:
    write_atomically(folder / CHOSEN, (json.dumps(document, indent=1) + "\n").encode())
