"""What was asked about one image, what was answered, and which texts a method makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss.data.dataset import WithoutMasks
from wsss.engine import provenance
from wsss.engine.answers_work import read_stage_answers
from wsss.engine.plan import plan
from wsss.engine.recipe import Recipe, load_recipe
from wsss.engine.stages import Silence, Workspace, stage_record
from wsss.errors import DataError, RecipeError, StageError
from wsss.questions.answers import Answers, read_answers
from wsss.questions.cleaning import CleaningConfig, background_texts, foreground_texts
from wsss.questions.pair_texts import PairTexts
from wsss.questions.questions import BACKGROUND_GROUPS, FOREGROUND_GROUPS, fill
from wsss.questions.texts import pair_texts


@dataclass(frozen=True)
class ImageTexts:
    """Answers about one image, and the texts made of them.

    Args:
        image_id: the image.
        model: who answered; "tags" where nobody was asked.
        answers: class name -> question in full -> raw answer.
        pairs: the final texts, one entry for each class of the image.
    """

    image_id: str
    model: str
    answers: Mapping[str, Mapping[str, str]]
    pairs: tuple[PairTexts, ...]


def image_texts(recipe: Recipe | str | Path, image_id: str, *, runs: Path | str = "runs") -> ImageTexts:
    """Answers and texts of an image, as a recipe's method is trained with them.

    Args:
        recipe: a recipe whose method uses texts of images.
        image_id: an image of the training split.
        runs: where the answers are.

    Raises:
        RecipeError: the method uses no texts of images.
        StageError: the questions have not been asked yet.
        DataError: there is no such image, or an answer is missing.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    section = recipe.method
    if section is None or not hasattr(section.config, "text_sources"):
        raise RecipeError(
            f"The method of {recipe.name} uses no texts of single images. "
            "Name a recipe such as scenes/qa_clims."
        )
    workspace = Workspace(Path(runs), recipe.data, provenance.default_device(), Silence())
    stages = {stage.name: stage for stage in plan(recipe, 0, workspace)}
    asked = stages.get("ask-questions")
    if asked is not None and stage_record(workspace.folder(asked)) is None:
        raise StageError(
            f"The questions of {recipe.name} have not been asked yet. "
            "Run its stage first: `wsss run RECIPE --until ask-questions`."
        )
    dataset = WithoutMasks(workspace.dataset)
    if image_id not in dataset.ids(recipe.data.train_split):
        raise DataError(
            f"There is no image `{image_id}` in split `{recipe.data.train_split}` of {dataset.name}. "
            "Give an image id without folder and suffix."
        )
    config: Any = section.config.with_class_texts(dataset.classes)
    answers: Answers | None = None
    if "answers" in section.needs:
        answers = read_stage_answers(section.vqa, workspace.folder(asked) if asked else None, dataset.name)
    pairs = pair_texts(dataset, [image_id], config.text_sources(answers))
    return ImageTexts(
        image_id,
        answers.header.model if answers else "tags",
        _answers(answers, image_id),
        tuple(pairs),
    )


def image_texts_of_file(path: Path, image_id: str, cleaning: CleaningConfig | None = None) -> ImageTexts:
    """Answers and texts of an image in a file of answers, by the published rules.

    Raises:
        DataError: the file is not as it must be, or does not speak of the image.
    """
    answers = read_answers(path)
    found = _answers(answers, image_id)
    if not found:
        raise DataError(
            f"{path} holds no answers about `{image_id}`. Give an image id without folder and suffix."
        )
    groups = (*FOREGROUND_GROUPS, *BACKGROUND_GROUPS)
    if not any(group in answers.header.questions for group in groups):
        raise DataError(
            f"{path} has none of the groups {', '.join(groups)}, so it doesn't say what its answers speak "
            "of. Show them with `--recipe`."
        )
    rules = cleaning or CleaningConfig()
    pairs = []
    for name, given in found.items():
        noun = answers.nouns[image_id, name]
        foreground = _of_groups(answers, given, noun, FOREGROUND_GROUPS)
        background = _of_groups(answers, given, noun, BACKGROUND_GROUPS)
        pairs.append(
            PairTexts(
                image_id,
                name,
                noun,
                foreground_texts(foreground, noun, rules),
                background_texts(background, noun, rules),
            )
        )
    return ImageTexts(image_id, answers.header.model, found, tuple(pairs))


def _answers(answers: Answers | None, image_id: str) -> dict[str, Mapping[str, str]]:
    if answers is None:
        return {}
    return {name: given for (image, name), given in answers.pairs.items() if image == image_id}


def _of_groups(answers: Answers, given: Mapping[str, str], noun: str, groups: Sequence[str]) -> list[str]:
    questions = [fill(t, noun) for group in groups for t in answers.header.questions.get(group, ())]
    return [given[question] for question in questions if question in given]
