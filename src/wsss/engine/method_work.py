"""Work of the stages up to the trained method. None of it can read a mask: data come as `WithoutMasks`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wsss.data import ScenesConfig
from wsss.data.dataset import Dataset, WithoutMasks, tagged_ids
from wsss.data.loaders import Aligned, TrainingBatches
from wsss.data.scenes import write_tree
from wsss.engine import answers_work, saliency_work
from wsss.engine.collapse import map_alarm
from wsss.engine.fingerprint import file_fingerprint
from wsss.engine.recipe import MethodSection, Recipe, TagClassifierSection
from wsss.engine.stages import Stage, Workspace
from wsss.errors import DataError
from wsss.methods.base import Frozen, Method
from wsss.models import build_backbone, weights
from wsss.models.clip import load_teacher
from wsss.models.clip_finetuning import FinetuneConfig, finetune
from wsss.models.official_checkpoints import cam_network_state
from wsss.models.teacher_training import TeacherConfig, train_teacher
from wsss.models.vgg_small import TagClassifier
from wsss.training.checkpoint import load_state
from wsss.training.config import TrainingConfig
from wsss.training.journal import Progress
from wsss.training.loop import train
from wsss.training.processes import is_main_process, num_processes, process_number, wait_for_everyone
from wsss.training.seeding import seed_everything


def generate(config: ScenesConfig, folder: Path, workspace: Workspace, progress: Progress) -> None:
    """Write the generated world as a VOC tree."""
    for leftover in folder.glob(".tree.writing-*"):  # of a killed process
        shutil.rmtree(leftover, ignore_errors=True)
    write_tree(
        folder / "tree",
        world=config.world,
        train=config.train,
        val=config.val,
        size=config.size,
        progress=lambda done, total: progress(done, total, "images"),
    )


def training_ids(dataset: Dataset, split: str) -> tuple[str, ...]:
    """The split's images that have tags.

    Raises:
        DataError: there is none.
    """
    ids = tagged_ids(dataset, split)
    if not ids:
        raise DataError(
            f"No image of split `{split}` of {dataset.name} has tags, so nothing can be learned. "
            "Check the tags file and the split list."
        )
    return ids


def prepare(
    recipe: Recipe,
    section: MethodSection,
    helpers: Mapping[str, Stage],
    folder: Path,
    workspace: Workspace,
    progress: Progress,
) -> None:
    """The method's one-off work before training."""
    dataset = WithoutMasks(workspace.dataset)
    ids = training_ids(dataset, recipe.data.train_split)
    method = build_method(section, dataset, frozen_models(recipe, section, helpers, workspace), seed=0)
    method.to(workspace.device).prepare(dataset, ids, folder / "cache", progress=progress)


def ask_about(
    recipe: Recipe, section: MethodSection, folder: Path, workspace: Workspace, progress: Progress
) -> dict[str, Any]:
    """Ask the method's questions about the training images; leaves `answers.jsonl`."""
    dataset = workspace.dataset  # answers_work shows masks to nobody; the oracle reads the generator's notes
    return answers_work.ask_questions(
        section.vqa,
        section.config.with_class_texts(dataset.classes),
        dataset,
        training_ids(WithoutMasks(dataset), recipe.data.train_split),
        workspace.runs / "answers",
        folder,
        workspace.device,
        progress,
    )


def detect_saliency(
    recipe: Recipe, section: MethodSection, folder: Path, workspace: Workspace, progress: Progress
) -> dict[str, Any]:
    """Detect salient objects in the training images; leaves `maps/<image id>.png`."""
    dataset = WithoutMasks(workspace.dataset)
    return saliency_work.detect_saliency(
        section.saliency,
        dataset,
        training_ids(dataset, recipe.data.train_split),
        folder,
        workspace.device,
        progress,
    )


def train_method(
    recipe: Recipe,
    section: MethodSection,
    training: TrainingConfig,
    seed: int,
    inputs: Mapping[str, Stage],
    folder: Path,
    workspace: Workspace,
    progress: Progress,
) -> dict[str, Any]:
    """Train a method from image labels; leaves `model.safetensors` and `log.jsonl`."""
    dataset = WithoutMasks(workspace.dataset)
    method = build_method(section, dataset, frozen_models(recipe, section, inputs, workspace), seed=seed)
    if "prepare" in inputs:
        _load_prepared(method, dataset, recipe, workspace.folder(inputs["prepare"]) / "cache")
    if "initialise" in inputs:
        state, _ = load_state(workspace.folder(inputs["initialise"]) / "model.safetensors")
        method.initialise(state)
    elif section.weights is not None:
        method.initialise(cam_network_state(section.weights))
    ids, aligned = training_ids(dataset, recipe.data.train_split), None
    if section.needs_saliency:
        made = workspace.folder(inputs["saliency"]) if "saliency" in inputs else None
        aligned = saliency_work.saliency_inputs(section.saliency, made, dataset, ids)
    batches = label_batches(dataset, recipe, training, seed, method.mean, method.std, aligned)
    total = training.total_steps(batches.steps_per_epoch)
    alarm = map_alarm(method, dataset, ids, total, folder / "log.jsonl")
    method.to(workspace.device)
    result = train(method, batches, training, work_dir=folder, seed=seed, progress=progress, alarm=alarm)
    return {
        "seconds": result.seconds,
        "steps": result.steps,
        "final_losses": result.final_losses,
        "method": method.config.model_dump(mode="json"),
        "sha256": file_fingerprint(folder / "model.safetensors"),
    }


def _load_prepared(method: Method, dataset: Dataset, recipe: Recipe, cache: Path) -> None:
    """Let the method find what it prepared; the first process before the others."""
    ids = training_ids(dataset, recipe.data.train_split)
    if is_main_process():  # alone, should it find that something has to be made again
        method.prepare(dataset, ids, cache)
    wait_for_everyone()
    if not is_main_process():
        method.prepare(dataset, ids, cache)


def label_batches(
    dataset: Dataset,
    recipe: Recipe,
    training: TrainingConfig,
    seed: int,
    mean: Any,
    std: Any,
    aligned: Aligned | None = None,
) -> TrainingBatches:
    """Batches of tagged training images; beside them what `aligned` reads, which is never a mask."""
    return TrainingBatches(
        dataset,
        training_ids(dataset, recipe.data.train_split),
        training.augmentation,
        batch_size=training.batch_size,
        seed=seed,
        mean=mean,
        std=std,
        aligned=aligned,
        drop_last=training.drop_last,
        workers=training.workers,
        rank=process_number(),
        world=num_processes(),
    )


def build_method(section: MethodSection, dataset: Dataset, frozen: Frozen, *, seed: int) -> Method:
    """An untrained method with the data set's classes and texts; its first weights follow from `seed`."""
    seed_everything(seed)
    config = section.config.with_class_texts(dataset.classes)
    return section.cls(config, dataset.class_names, frozen)


def trained_method(
    recipe: Recipe, section: MethodSection, stage: Stage, helpers: Mapping[str, Stage], workspace: Workspace
) -> Method:
    """The method that a train-method stage has finished, in eval mode on the workspace's device."""
    dataset = WithoutMasks(workspace.dataset)
    method = build_method(section, dataset, frozen_models(recipe, section, helpers, workspace), seed=0)
    state, _ = load_state(workspace.folder(stage) / "model.safetensors")
    method.load_state_dict(state)
    return method.to(workspace.device).eval()


def train_tag_classifier(
    recipe: Recipe,
    section: MethodSection,
    settings: TagClassifierSection,
    seed: int,
    folder: Path,
    workspace: Workspace,
    progress: Progress,
) -> dict[str, Any]:
    """Train the classifier that judges masked images, on whole images and their tags."""
    dataset = WithoutMasks(workspace.dataset)
    method = build_method(section, dataset, Frozen(), seed=seed)  # says which statistics images come in
    seed_everything(seed)
    network = tag_classifier_network(settings, len(dataset.class_names) - 1)
    batches = label_batches(dataset, recipe, settings.training, seed, method.mean, method.std)
    result = train(network, batches, settings.training, work_dir=folder, seed=seed, progress=progress)
    digest = file_fingerprint(folder / "model.safetensors")
    return {
        "seconds": result.seconds,
        "steps": result.steps,
        "final_losses": result.final_losses,
        "sha256": digest,
    }


def train_new_teacher(
    recipe: Recipe, config: TeacherConfig, seed: int, folder: Path, workspace: Workspace, progress: Progress
) -> dict[str, Any]:
    """Train a teacher from the tags and scene words of the training images; leaves `teacher/`."""
    data = recipe.data
    made = train_teacher(
        WithoutMasks(workspace.dataset),
        folder / "teacher",
        config,
        split=data.train_split,
        seed=seed,
        progress=progress,
    )  # held-out agreement comes from a share of the training images, so that no other split is touched
    agreement = None if made.held_out is None else asdict(made.held_out)
    digest = weights.sha256(made.folder)
    return {"words": list(made.words), "images": made.images, "held_out": agreement, "sha256": digest}


def finetune_teacher(
    recipe: Recipe,
    section: MethodSection,
    config: FinetuneConfig,
    seed: int,
    folder: Path,
    workspace: Workspace,
    progress: Progress,
) -> dict[str, Any]:
    """Fine-tune the method's teacher on the training images and their tags; leaves `teacher/`."""
    dataset = WithoutMasks(workspace.dataset)
    ids = training_ids(dataset, recipe.data.train_split)
    made = finetune(section.teacher, dataset, ids, config, folder, seed=seed, progress=progress)
    return {"images": len(ids), "sha256": weights.sha256(made)}


def tag_classifier_network(settings: TagClassifierSection, num_foreground: int) -> TagClassifier:
    """The untrained tag classifier."""
    return TagClassifier(build_backbone(settings.backbone), num_foreground)


def load_tag_classifier(settings: TagClassifierSection, folder: Path, workspace: Workspace) -> TagClassifier:
    """The trained tag classifier, frozen."""
    network = tag_classifier_network(settings, len(workspace.dataset.class_names) - 1)
    state, _ = load_state(folder / "model.safetensors")
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def frozen_models(
    recipe: Recipe, section: MethodSection, made: Mapping[str, Stage], workspace: Workspace
) -> Frozen:
    """The frozen helpers that the method's configuration asks for.

    Args:
        recipe: says how a tag classifier is built.
        section: the method.
        made: stages that make helpers, by the name of the `Frozen` field.
        workspace: where those stages' folders are.

    Returns:
        None of them where nothing is trained: maps need no helper.
    """
    if recipe.training is None:
        return Frozen()
    teacher, classifier, answers = None, None, None
    if "teacher" in section.needs:
        source = workspace.folder(made["teacher"]) / "teacher" if "teacher" in made else section.teacher
        teacher = load_teacher(source, precision=section.teacher_precision)
    if "tag_classifier" in section.needs:
        assert recipe.tag_classifier is not None
        classifier = load_tag_classifier(
            recipe.tag_classifier, workspace.folder(made["tag_classifier"]), workspace
        )
    if "answers" in section.needs:
        place = workspace.folder(made["answers"]) if "answers" in made else None
        answers = answers_work.read_stage_answers(section.vqa, place, workspace.dataset.name)
    return Frozen(teacher=teacher, tag_classifier=classifier, answers=answers)
