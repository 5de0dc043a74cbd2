"""Whether recipe, data and networks fit together, found out before the first training step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from wsss.checks import nearest
from wsss.data.dataset import Dataset
from wsss.engine import method_work, scoring, segmentation_work
from wsss.engine.recipe import MethodSection, Recipe
from wsss.engine.saliency_work import check_given_maps
from wsss.errors import RecipeError
from wsss.layers.cam_backbone import cam_backbone
from wsss.models.teacher_folder import takes_masks
from wsss.models.weights import find_weights
from wsss.refiners.base import find_refiner
from wsss.segmentation import build
from wsss.training.config import TrainingConfig
from wsss.types import ClassInfo

_FEW_CLASSES = ("background", "any")  # the number of classes is no question here


def check_networks(recipe: Recipe) -> None:
    """Build what can be built without data or weights (on torch's meta device, which computes nothing).

    Raises:
        RecipeError: the method can't start from the weights of `initialise`, or its teacher takes no masks.
        ShapeError: a network has no such output stride.
    """
    with torch.device("meta"):
        if recipe.segmentation is not None:
            build(recipe.segmentation.model_copy(update={"weights": None}), _FEW_CLASSES)
        for section in recipe.refine:
            find_refiner(section.name)(section.config, _FEW_CLASSES).rehearse(1, 1)
        if recipe.method is not None:
            recipe.method.config.check_installation()
            _check_masks(recipe, recipe.method)
        if recipe.method is not None and recipe.initialise is not None:
            own, start = _backbone_shapes(recipe.method), _backbone_shapes(recipe.initialise.method)
            if own is not None and start is not None and own != start:
                raise RecipeError(
                    "`method` can't start from the weights of `initialise`: their backbones differ. "
                    "Give both the same `backbone` and `output_stride`."
                )


def _check_masks(recipe: Recipe, section: MethodSection) -> None:
    """Find a teacher without mask prompts before anything is asked or trained."""
    if not getattr(section.config, "wants_token_masks", False):
        return
    is_made = recipe.train_teacher is not None or recipe.finetune_teacher is not None
    if is_made or not takes_masks(find_weights(section.teacher)):
        raise RecipeError(
            f"`method.mask_mode` of {recipe.name} needs a mask-adapted teacher, and this one takes no masks. "
            "Convert OVSeg's weights with `wsss weights convert-ovseg`, or leave `mask_mode` out."
        )


def check_classes(recipe: Recipe, classes: Sequence[ClassInfo]) -> None:
    """Find unknown classes, and classes that the method can't work with.

    Args:
        recipe: what is to run.
        classes: the K foreground classes of its data.

    Raises:
        RecipeError: what is wrong, and the nearest class.
    """
    for section in _sections(recipe):
        section.config.with_class_texts(classes)
    names = ("background", *(info.name for info in classes))
    for name in recipe.evaluation.also_without:
        if name not in names:
            raise RecipeError(
                f"`evaluation.also_without` names `{name}`, which is no class of the data. "
                f"{nearest(name, names)}"
            )


def check_images(recipe: Recipe, dataset: Dataset) -> None:
    """Look for splits, tags, masks, saliency maps and enough images for a batch.

    Raises:
        DataError: a split is missing, untagged or only partly masked, or saliency maps are missing or are
            true masks.
        RecipeError: a batch is larger than the split.
    """
    split = recipe.data.train_split
    for key, training in _trainings(recipe):
        images = len(method_work.training_ids(dataset, split))
        if training.drop_last and images < training.batch_size:
            raise RecipeError(
                f"`{key}.batch_size` is {training.batch_size}, but split {split} of {dataset.name} has only "
                f"{images} tagged images. Write `{key}.batch_size: {images}` or less."
            )
    if recipe.method is not None:
        scoring.check_masks(dataset, "maps", recipe.maps_split)
        given = recipe.method.saliency.given_maps
        if recipe.method.needs_saliency and given is not None:
            check_given_maps(given, dataset, method_work.training_ids(dataset, split))
    if recipe.segmentation is not None:
        if recipe.segmentation.target == "masks":
            segmentation_work.supervised_ids(dataset, split)
        scoring.check_masks(dataset, "segmentation", recipe.data.val_split)


def _sections(recipe: Recipe) -> Iterator[MethodSection]:
    if recipe.method is not None:
        yield recipe.method
    if recipe.initialise is not None:
        yield recipe.initialise.method


def _trainings(recipe: Recipe) -> Iterator[tuple[str, TrainingConfig]]:
    """All trainings but those on true masks, with their place in the recipe."""
    if recipe.initialise is not None:
        yield "initialise.training", recipe.initialise.training
    if recipe.tag_classifier is not None:
        yield "tag_classifier.training", recipe.tag_classifier.training
    if recipe.training is not None:
        yield "training", recipe.training
    for index, section in enumerate(recipe.refine):
        if isinstance(training := getattr(section.config, "training", None), TrainingConfig):
            yield f"refine.{index}.training", training
    if recipe.segmentation is not None and recipe.segmentation.target == "pseudo_masks":
        yield "segmentation.training", recipe.segmentation.training


def _backbone_shapes(section: MethodSection) -> dict[str, Any] | None:
    """Names and shapes of the backbone's weights; None for methods that build theirs in another way."""
    config = section.config
    if not hasattr(config, "backbone") or not hasattr(config, "backbone_weights"):
        return None
    backbone = cam_backbone(config.model_copy(update={"backbone_weights": None}))  # type: ignore[arg-type]
    return {name: value.shape for name, value in backbone.state_dict().items()}
