"""Texts that speak of classes: published prompt names and background lists, and how they meet a data set.

The published lists are data (`class_texts.json`, beside this file) and are read when first asked for.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeAlias, TypeVar

from wsss.checks import nearest
from wsss.errors import RecipeError
from wsss.types import ClassInfo

T = TypeVar("T")
BackgroundTexts: TypeAlias = tuple[str, ...] | dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class PublishedTexts:
    """What a publication says about the classes of one data set.

    Args:
        prompts: class name -> noun for the prompt template.
        background_texts: names of backgrounds, for all classes (a tuple) or class by class.
        class_weights: class name -> weight of its pairs; 1 for classes not named.
    """

    prompts: Mapping[str, str]
    background_texts: tuple[str, ...] | Mapping[str, tuple[str, ...]]
    class_weights: Mapping[str, float]

    def fit(self, class_names: Sequence[str]) -> bool:
        """Whether the publication knows all of these foreground classes, whatever their spelling."""
        known = {spelling(name) for name in self.prompts}
        return all(spelling(name) in known for name in class_names)


@functools.cache
def published_texts(name: str) -> PublishedTexts:
    """The texts published under `name`.

    Known are voc_improved, coco_improved, voc_camera_ready and voc_paper of CLIMS, and the nouns voc_qa and
    coco_qa of QA-CLIMS.

    Example:
        >>> published_texts("voc_improved").prompts["person"]
        'player'
    """
    text = resources.files(__package__).joinpath("class_texts.json").read_text(encoding="utf-8")
    entry: dict[str, Any] = json.loads(text)[name]
    backgrounds = entry["background_texts"]
    return PublishedTexts(
        prompts=entry["prompts"],
        background_texts=tuple(backgrounds) if isinstance(backgrounds, list) else _tuples(backgrounds),
        class_weights=entry["class_weights"],
    )


def spelling(name: str) -> str:
    """A class name without case, spaces, hyphens and underscores: "Dining table" is "diningtable"."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def of_classes(values: Mapping[str, T], class_names: Iterable[str], key: str) -> dict[str, T]:
    """Give `values` under the data set's own spelling of its classes.

    Args:
        values: anything, by class name in any spelling.
        class_names: the K foreground classes.
        key: where the values come from in a recipe, for the message.

    Raises:
        RecipeError: a value names a class that the data set doesn't have.
    """
    own = {spelling(name): name for name in class_names}
    for name in values:
        if spelling(name) not in own:
            raise RecipeError(
                f"`{key}` names the class `{name}`, which the data set doesn't have. "
                f"{nearest(name, own.values())}"
            )
    return {own[spelling(name)]: value for name, value in values.items()}


def restricted(values: Mapping[str, T], class_names: Iterable[str]) -> dict[str, T]:
    """`values` of the classes in `class_names` only, under those names; others are left out silently."""
    by_spelling = {spelling(name): value for name, value in values.items()}
    return {name: by_spelling[spelling(name)] for name in class_names if spelling(name) in by_spelling}


def class_prompts(
    classes: Sequence[ClassInfo], given: Mapping[str, str], published: PublishedTexts
) -> dict[str, str]:
    """The noun for each class: the recipe's, else the data set's, else the published one, else its name.

    Args:
        classes: the K foreground classes.
        given: nouns by class name, from the recipe.
        published: used where it knows all of these classes.

    Raises:
        RecipeError: `given` names an unknown class.
    """
    names = [info.name for info in classes]
    prompts = {name: name for name in names}
    if published.fit(names):
        prompts |= restricted(published.prompts, names)
    prompts |= {info.name: info.prompt for info in classes if info.prompt}
    return prompts | of_classes(given, names, "class_prompts")


def background_texts(
    classes: Sequence[ClassInfo], given: BackgroundTexts | None, published: PublishedTexts
) -> BackgroundTexts:
    """Backgrounds for all classes or class by class: the recipe's, the data set's or the published; or ().

    Raises:
        RecipeError: `given` names an unknown class.
    """
    names = [info.name for info in classes]
    if isinstance(given, dict):
        return of_classes(given, names, "background_texts")
    if given is not None:
        return given
    own = {info.name: info.background_texts for info in classes if info.background_texts}
    if own or not published.fit(names):
        return own or ()
    if isinstance(published.background_texts, tuple):
        return published.background_texts
    return restricted(published.background_texts, names)


def _tuples(lists: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(values) for name, values in lists.items()}
