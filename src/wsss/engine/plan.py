"""From a recipe and a seed to an ordered tuple of stages: one plain function, no graph engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wsss.crf import CrfParameters
from wsss.data import DataConfig, ScenesConfig
from wsss.data.scenes import class_infos
from wsss.engine import map_work, method_work, scoring, segmentation_work
from wsss.engine.answers_work import asking_settings
from wsss.engine.corrections import corrected_masks, latest_masks
from wsss.engine.fit import check_classes, check_images, check_networks
from wsss.engine.given_weights import given_weights_stage
from wsss.engine.recipe import MethodSection, Recipe, refined_stages
from wsss.engine.saliency_work import SALIENCY, detector_digest
from wsss.engine.stage_inputs import (
    backbone_weights,
    foreign_files,
    method_settings,
    own_file,
    prepare_settings,
    prepared_files,
    teacher_weights,
)
from wsss.engine.stages import Stage, Workspace
from wsss.methods.base import Method
from wsss.models import weights
from wsss.training.config import TrainingConfig


@dataclass(frozen=True)
class Source:
    """The data as stages depend on them: a stage that generates them, or the fingerprint of files.

    Args:
        inputs: the stage that generates the data, masks included.
        reads: what every stage reads of files: all but the masks.
        masks: what scoring and training on true masks read besides.
    """

    inputs: tuple[Stage, ...]
    reads: tuple[str, ...]
    masks: tuple[str, ...]


def plan(recipe: Recipe, seed: int, workspace: Workspace) -> tuple[Stage, ...]:
    """All stages of a recipe in order; scoring stands behind what it scores.

    Raises:
        DataError: the recipe's data set can't be opened, or does not fit the recipe.
        RecipeError: networks or batches don't fit together, or a class is unknown.
        WeightsError: weights that the recipe names are not there.
    """
    check_networks(recipe)
    source, stages = _data(recipe, workspace)
    maps: Stage | None = None
    if recipe.method is not None:
        helpers = _frozen_helpers(recipe, recipe.method, seed, source) if recipe.training else {}
        stages += _method(recipe, recipe.method, helpers, seed, source)
        trained = stages[-1]
        activate = _activate(recipe, recipe.method, trained, helpers, source)
        stages += [activate, *_scored_maps(recipe, activate, "maps", source)]
        if recipe.method.num_words:
            words = _words(recipe, trained, helpers, source)
            stages += [words, _score(recipe, words, "words", recipe.maps_split, source)]
        maps = activate
        refined = refined_stages([section.short_name for section in recipe.refine])
        for index in range(len(refined)):
            maps = _refine(recipe, index, maps, seed, source)
            stages += [maps, *_scored_maps(recipe, maps, refined[index], source)]
        pseudo_masks = _pseudo_masks(recipe, maps, stages, source)
        stages += [pseudo_masks, _score(recipe, pseudo_masks, "pseudo_masks", recipe.maps_split, source)]
        stages += corrected_masks(recipe, pseudo_masks, source.inputs, source.reads, workspace)
    if recipe.segmentation is not None:
        network = _train_segmentation(recipe, stages, seed, source)
        stages += [network, *_predictions(recipe, network, source)]
    return tuple(stages)


def data_stage(config: DataConfig) -> Stage | None:
    """The stage that generates the data, where they are generated."""
    if not isinstance(config, ScenesConfig):
        return None
    return _stage(
        "data",
        "Generate the data",
        config.model_dump(mode="json", exclude={"train_split", "val_split"}),
        (),
        partial(method_work.generate, config),
    )


def _data(recipe: Recipe, workspace: Workspace) -> tuple[Source, list[Stage]]:
    stage = data_stage(recipe.data)
    if stage is None:
        dataset = workspace.dataset
        check_classes(recipe, dataset.classes)
        check_images(recipe, dataset)
        return Source((), (dataset.fingerprint(),), (dataset.mask_fingerprint(),)), []
    workspace.data_stage = stage
    check_classes(recipe, class_infos())
    return Source((stage,), (), ()), [stage]


def _method(
    recipe: Recipe, section: MethodSection, helpers: Mapping[str, Stage], seed: int, source: Source
) -> list[Stage]:
    """Everything up to the trained method, which comes last."""
    if recipe.training is None:
        return [given_weights_stage(section, source.inputs)]
    stages = list(helpers.values())
    cache: Stage | None = None
    if section.cls.prepare is not Method.prepare:
        frozen = {role: stage for role, stage in helpers.items() if role != SALIENCY}
        cache = _stage(
            "prepare",
            "Prepare the method",
            {"method": prepare_settings(section), "split": recipe.data.train_split},
            (*frozen.values(), *source.inputs),
            partial(method_work.prepare, recipe, section, frozen),
            reads=(*source.reads, *prepared_files(section, frozen)),
        )
        stages.append(cache)
    initial: Stage | None = None
    if recipe.initialise is not None:
        start = recipe.initialise
        initial = _train(recipe, "initialise", start.method, start.training, seed, source, {})
        stages.append(initial)
    inputs = {
        **helpers,
        **({"prepare": cache} if cache else {}),
        **({"initialise": initial} if initial else {}),
    }
    stages.append(_train(recipe, "train-method", section, recipe.training, seed, source, inputs))
    return stages


def _frozen_helpers(recipe: Recipe, section: MethodSection, seed: int, source: Source) -> dict[str, Stage]:
    """Stages that make what the method learns from: helpers that are no finished weights, and saliency."""
    helpers: dict[str, Stage] = {}
    if "tag_classifier" in section.needs:
        settings = recipe.tag_classifier
        assert settings is not None
        helpers["tag_classifier"] = _stage(
            "train-tag-classifier",
            "Train the tag classifier",
            {
                **settings.model_dump(mode="json"),
                "split": recipe.data.train_split,
                "normalisation": getattr(section.config, "normalisation", None),
            },
            source.inputs,
            partial(method_work.train_tag_classifier, recipe, section, settings, seed),
            reads=source.reads,
            seed=seed,
            every_process=True,
        )
    if "teacher" in section.needs and recipe.train_teacher is not None:
        helpers["teacher"] = _stage(
            "train-teacher",
            "Train a teacher from tags and scene words",
            {**recipe.train_teacher.model_dump(mode="json"), "split": recipe.data.train_split},
            source.inputs,
            partial(method_work.train_new_teacher, recipe, recipe.train_teacher, seed),
            reads=source.reads,
            seed=seed,
            every_process=True,
        )
    if "teacher" in section.needs and recipe.finetune_teacher is not None:
        helpers["teacher"] = _stage(
            "finetune-teacher",
            "Fine-tune the teacher",
            {**recipe.finetune_teacher.model_dump(mode="json"), "split": recipe.data.train_split},
            source.inputs,
            partial(method_work.finetune_teacher, recipe, section, recipe.finetune_teacher, seed),
            reads=(*source.reads, *teacher_weights(section)),
            seed=seed,
            every_process=True,
        )
    if "answers" in section.needs and section.vqa.answers_file is None:
        model = section.vqa.weights
        helpers["answers"] = _stage(
            "ask-questions",
            "Ask questions about the images",
            asking_settings(section.vqa, section.config, recipe.data.train_split),
            source.inputs,
            partial(method_work.ask_about, recipe, section),
            reads=(*source.reads, *(() if model is None else (weights.sha256(model),))),
            every_process=True,
        )
    if section.needs_saliency and section.saliency.folder is None:
        helpers[SALIENCY] = _stage(
            "detect-saliency",
            "Detect salient objects",
            {"split": recipe.data.train_split},  # the detector is told by its weights
            source.inputs,
            partial(method_work.detect_saliency, recipe, section),
            reads=(*source.reads, detector_digest(section.saliency)),
            every_process=True,
        )
    return helpers


def _train(
    recipe: Recipe,
    name: str,
    section: MethodSection,
    training: TrainingConfig,
    seed: int,
    source: Source,
    inputs: Mapping[str, Stage],
) -> Stage:
    return _stage(
        name,
        f"Train {section.short_name}" + (" to start from" if name == "initialise" else ""),
        {
            "method": method_settings(section),
            "training": training.model_dump(mode="json"),
            "split": recipe.data.train_split,
            "roles": sorted(inputs),
        },
        (*inputs.values(), *source.inputs),
        partial(method_work.train_method, recipe, section, training, seed, inputs),
        kind="train-method",
        reads=(*source.reads, *foreign_files(section, inputs)),
        seed=seed,
        every_process=True,
    )


def _activate(
    recipe: Recipe, section: MethodSection, trained: Stage, helpers: Mapping[str, Stage], source: Source
) -> Stage:
    return _stage(
        "activate",
        "Write activation maps",
        {
            "activation": recipe.activation.model_dump(mode="json"),
            "export": section.config.model_dump(mode="json", include=set(section.cls.export_fields)),
            "splits": _map_splits(recipe),
        },
        (trained, *source.inputs),
        partial(map_work.activate, recipe, trained, helpers),
        reads=source.reads,
        every_process=True,
    )


def _words(recipe: Recipe, trained: Stage, helpers: Mapping[str, Stage], source: Source) -> Stage:
    return _stage(
        "write-words",
        "Write word maps",
        {"split": recipe.maps_split},
        (trained, *source.inputs),
        partial(map_work.write_word_maps, recipe, trained, helpers),
        reads=source.reads,
        every_process=True,
    )


def _refine(recipe: Recipe, index: int, maps: Stage, seed: int, source: Source) -> Stage:
    section = recipe.refine[index]
    name = section.short_name
    return _stage(
        f"refine-{index}-{name}",
        f"Refine the maps ({name})",
        {"config": section.config.model_dump(mode="json"), "splits": _map_splits(recipe)},
        (maps, *source.inputs),
        partial(map_work.refine, recipe, section, maps, seed),
        kind=f"refine-{name}",
        reads=(*source.reads, *own_file(section.name), *backbone_weights(section.config)),
        seed=seed,
        every_process=True,
    )


def _scored_maps(recipe: Recipe, maps: Stage, scores: str, source: Source) -> list[Stage]:
    """The choice of a background score without masks, and the scores of the maps."""
    choose = _stage(
        f"choose-score-{scores}",
        f"Choose a background score ({scores})",
        {"split": recipe.data.train_split},
        (maps, *source.inputs),
        partial(map_work.choose_score, recipe, maps),
        kind="choose-score",
        reads=source.reads,
    )
    return [choose, _score(recipe, maps, scores, recipe.maps_split, source, choose)]


def _pseudo_masks(recipe: Recipe, maps: Stage, stages: list[Stage], source: Source) -> Stage:
    automatic = recipe.pseudo_masks.is_automatic
    choose = (
        next(s for s in stages if s.kind == "choose-score" and s.inputs[0] is maps) if automatic else None
    )
    return _stage(
        "pseudo-masks",
        "Write pseudo masks",
        {"pseudo_masks": recipe.pseudo_masks.model_dump(mode="json"), "splits": _map_splits(recipe)},
        (maps, *((choose,) if choose else ()), *source.inputs),
        partial(map_work.write_masks, recipe, maps, choose),
        reads=source.reads,
    )


def _train_segmentation(recipe: Recipe, stages: list[Stage], seed: int, source: Source) -> Stage:
    assert recipe.segmentation is not None
    pseudo_masks = latest_masks(stages) if recipe.segmentation.target == "pseudo_masks" else None
    inputs, masks = ((pseudo_masks,), ()) if pseudo_masks else ((), source.masks)
    return _stage(
        "train-segmentation",
        "Train the segmentation network" + ("" if pseudo_masks else " on true masks"),
        {**segmentation_work.training_settings(recipe.segmentation), "split": recipe.data.train_split},
        (*inputs, *source.inputs),
        partial(segmentation_work.train_network, recipe, seed, pseudo_masks),
        reads=(*source.reads, *masks, *segmentation_work.initial_weights(recipe.segmentation)),
        seed=seed,
        every_process=True,
    )


def _predictions(recipe: Recipe, trained: Stage, source: Source) -> list[Stage]:
    """The network's masks and, where the recipe has a dense CRF, the refined ones; each with its scores."""
    assert recipe.segmentation is not None
    split, dense_crf = recipe.data.val_split, recipe.segmentation.dense_crf
    settings = {**segmentation_work.prediction_settings(recipe.segmentation), "split": split}
    ways: list[tuple[str, str, str, CrfParameters | None, dict[str, Any]]]
    ways = [("predict", "Predict masks", "segmentation", None, settings)]
    if dense_crf is not None:
        settings = {**settings, "dense_crf": dense_crf.model_dump(mode="json")}
        title = "Predict masks with a dense CRF"
        ways.append(("predict-crf", title, "segmentation_crf", dense_crf, settings))
    stages: list[Stage] = []
    for name, title, scores, crf, decisive in ways:
        work = partial(segmentation_work.predict, recipe, trained, crf)
        inputs = (trained, *source.inputs)
        predict = _stage(name, title, decisive, inputs, work, reads=source.reads, every_process=True)
        stages += [predict, _score(recipe, predict, scores, split, source)]
    return stages


def _score(
    recipe: Recipe, stage: Stage, scores: str, split: str, source: Source, choose: Stage | None = None
) -> Stage:
    return _stage(
        f"score-{scores}",
        f"Score {scoring.scored_words(scores)} on {split}",
        {"split": split, "evaluation": recipe.evaluation.model_dump(mode="json", exclude={"maps_split"})},
        (stage, *((choose,) if choose else ()), *source.inputs),
        partial(scoring.score, recipe, stage, choose, scores, split),
        reads=(*source.reads, *source.masks),
        scores=scores,
        split=split,
    )


def _stage(
    name: str,
    title: str,
    settings: Mapping[str, Any],
    inputs: tuple[Stage, ...],
    work: Callable[[Path, Workspace, Any], Mapping[str, Any] | None],
    *,
    kind: str | None = None,
    **rest: Any,
) -> Stage:
    return Stage(
        name=name, kind=kind or name, title=title, settings=settings, inputs=inputs, work=work, **rest
    )


def _map_splits(recipe: Recipe) -> list[str]:
    """Splits whose images get maps: training's, and the scored one where it is another."""
    return list(dict.fromkeys((recipe.data.train_split, recipe.maps_split)))
