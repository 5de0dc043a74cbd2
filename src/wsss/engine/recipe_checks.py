"""What no single section of a recipe can know: whether its sections fit each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsss.engine.saliency_work import SALIENCY
from wsss.errors import RecipeError
from wsss.methods.base import Method
from wsss.refiners.base import find_refiner
from wsss.segmentation import SegmentationConfig

if TYPE_CHECKING:
    from wsss.engine.recipe import MethodSection, Recipe


def check_whole(recipe: Recipe, source: str) -> None:
    """Raise `RecipeError` where sections of the recipe in the file `source` contradict or lack each other."""
    supervised = recipe.segmentation is not None and recipe.segmentation.target == "masks"
    if supervised and recipe.method is not None:
        raise RecipeError(
            f"`segmentation.target: masks` in {source} stands beside a `method`, whose pseudo masks nothing "
            "would use. Write the fully supervised twin as a recipe of its own, without `method`."
        )
    if recipe.segmentation is not None:
        _check_segmentation(recipe.segmentation, source)
    _check_background(recipe, source)
    if recipe.method is None:
        if not supervised:
            raise RecipeError(
                f"Section `method` is missing in {source}. Name one (`wsss list methods`), "
                "or train on true masks with `segmentation: {target: masks}`."
            )
        return
    _check_start(recipe, recipe.method, source)
    if recipe.train_teacher is not None and recipe.finetune_teacher is not None:
        raise RecipeError(
            f"`train_teacher` and `finetune_teacher` are both given in {source}. Keep one of them: "
            "each makes the teacher."
        )
    if recipe.train_teacher is not None and _names_a_teacher(recipe.method):
        raise RecipeError(
            f"`method.teacher` and `train_teacher` are both given in {source}. Keep one of them: "
            "`train_teacher: null` uses the teacher that is named."
        )
    _check_asking(recipe, source)
    _check_saliency(recipe.method, source)
    if "tag_classifier" in recipe.method.needs and recipe.tag_classifier is None:
        raise RecipeError(
            f"Method `{recipe.method.name}` needs a section `tag_classifier` in {source}. "
            "Say how it is trained."
        )


def _check_start(recipe: Recipe, section: MethodSection, source: str) -> None:
    """What a method starts from, and how long it trains."""
    if recipe.initialise is not None and _has_own_work(recipe.initialise.method):
        name = recipe.initialise.method.short_name
        raise RecipeError(
            f"`initialise.method` in {source} is `{name}`, which needs work of its own before training. "
            "Start from a method that learns from tags alone, such as `cam`."
        )
    if recipe.training is None and section.weights is None:
        raise RecipeError(
            f"Section `training` is missing in {source}. Say how long `method` trains: "
            "`training: {epochs: 5}`, or name a trained network as `method.weights`."
        )
    if recipe.initialise is not None and section.weights is not None:
        raise RecipeError(
            f"`method.weights` and `initialise` are both given in {source}. Keep one of them: "
            "each says what the method starts from."
        )


def _check_segmentation(config: SegmentationConfig, source: str) -> None:
    if config.weights is None and config.batch_norm == "frozen":
        raise RecipeError(
            f"`segmentation` in {source} freezes the batch norms of a network with random weights, "
            "which can't learn. Give `weights` (`wsss weights fetch resnet101`), or write `batch_norm: live`."
        )


def _check_background(recipe: Recipe, source: str) -> None:
    """Maps with a background of their own leave nothing to choose."""
    masks = recipe.pseudo_masks
    if (
        recipe.refine
        and find_refiner(recipe.refine[-1].name).background == "set"
        and (masks.background_power is not None or not masks.is_automatic)
    ):
        raise RecipeError(
            f"`pseudo_masks` in {source} names a background, but the last refiner, "
            f"`{recipe.refine[-1].name}`, gives maps that have one. Leave it out."
        )


def _has_own_work(section: MethodSection) -> bool:
    return section.cls.prepare is not Method.prepare or section.needs_saliency


def _names_a_teacher(section: MethodSection) -> bool:
    return bool(section.teacher != type(section).model_fields["teacher"].default)


def _check_saliency(section: MethodSection, source: str) -> None:
    unknown = set(section.cls.pixel_inputs(section.config)) - {SALIENCY}
    if unknown:
        raise RecipeError(
            f"`{section.short_name}` in {source} wants inputs of every pixel that nothing makes: "
            f"{', '.join(sorted(unknown))}. `pixel_inputs` can name `{SALIENCY}` only; what else a method "
            "needs, it can make from the images in `prepare` or `losses`."
        )
    if not section.needs_saliency and section.saliency != type(section.saliency)():
        raise RecipeError(
            f"`method.saliency` in {source} is given, but `{section.short_name}` with these settings learns "
            "from no saliency maps. Leave it out."
        )


def _check_asking(recipe: Recipe, source: str) -> None:
    """Who is asked must be able to answer, and somebody must want the answers."""
    section = recipe.method
    assert section is not None
    if "answers" not in section.needs:
        if section.vqa != type(section.vqa)():
            raise RecipeError(
                f"`method.vqa` in {source} is given, but `{section.short_name}` with these settings asks no "
                "questions. Leave it out."
            )
        return
    if section.vqa.is_oracle and recipe.data.kind != "scenes":
        raise RecipeError(
            f"`vqa: oracle` in {source} knows generated scenes only, and the data are `{recipe.data.kind}`. "
            "Name a BLIP checkpoint, or take the texts from tags (`texts: tags`)."
        )
