"""The words of the generated world: classes, backgrounds, distractors and the questions they answer.

The words are data (`vocabulary.json`, next to this file), read once when first asked for. They belong to
`WORLD_VERSION`: methods, recipes and the shipped teacher rely on them, so a changed word is a new version.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from wsss.types import ClassInfo

WORLD_VERSION: Final = 1

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ObjectWords:
    """One foreground class of the world.

    Args:
        name: its name in tags and masks.
        key_part: what the part is that always has the class's own colour.
        key_colour: that colour; RGB, 0-255.
        home: the background it co-occurs with; None when it stands anywhere.
        home_share: share of its appearances on `home`, 0-1.
        distractor: the unlabelled thing most often seen beside it.
        aliases: other words for it, one for each of the alias questions.
        kinds: pairs (kind, type) of words, one pair for each shape the class is drawn in.
        background_texts: fixed list of words for its usual surroundings (CLIMS).
    """

    name: str
    key_part: str
    key_colour: Colour
    home: str | None
    home_share: float
    distractor: str
    aliases: tuple[str, ...]
    kinds: tuple[tuple[str, str], ...]
    background_texts: tuple[str, ...]


@dataclass(frozen=True)
class BackgroundWords:
    """One background: its name, the words of its scene, and its plausible neighbours above and below."""

    name: str
    scene: str
    environment: str
    place: str
    above: tuple[str, ...]
    below: tuple[str, ...]


@dataclass(frozen=True)
class Vocabulary:
    """All words of the world; `questions` are pairs (template, topic), in the order of QA-CLIMS."""

    classes: tuple[ObjectWords, ...]
    backgrounds: tuple[BackgroundWords, ...]
    distractors: tuple[str, ...]
    nothing: str
    reserved_shapes: tuple[str, ...]
    reserved_backgrounds: tuple[str, ...]
    questions: tuple[tuple[str, str], ...]

    def object_words(self, name: str) -> ObjectWords:
        """The words of the class called `name`."""
        return next(words for words in self.classes if words.name == name)

    def background_words(self, name: str) -> BackgroundWords:
        """The words of the background called `name`."""
        return next(words for words in self.backgrounds if words.name == name)

    @property
    def listed_backgrounds(self) -> frozenset[str]:
        """Backgrounds on the fixed list of some class: what fixed text lists can cover."""
        return frozenset(text for words in self.classes for text in words.background_texts)


@functools.cache
def vocabulary() -> Vocabulary:
    """Read the words of the world.

    Example:
        >>> vocabulary().object_words("boat").home
        'water'
    """
    text = resources.files(__package__).joinpath("vocabulary.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    classes = tuple(
        ObjectWords(
            name=entry["name"],
            key_part=entry["key_part"],
            key_colour=_colour(entry["key_colour"]),
            home=entry["home"],
            home_share=entry["home_share"],
            distractor=entry["distractor"],
            aliases=tuple(entry["aliases"]),
            kinds=tuple((kind, other) for kind, other in entry["kinds"]),
            background_texts=tuple(entry["background_texts"]),
        )
        for entry in data["classes"]
    )
    backgrounds = tuple(
        BackgroundWords(
            name=entry["name"],
            scene=entry["scene"],
            environment=entry["environment"],
            place=entry["place"],
            above=tuple(entry["above"]),
            below=tuple(entry["below"]),
        )
        for entry in data["backgrounds"]
    )
    return Vocabulary(
        classes=classes,
        backgrounds=backgrounds,
        distractors=tuple(data["distractors"]),
        nothing=data["nothing"],
        reserved_shapes=tuple(data["reserved"]["shapes"]),
        reserved_backgrounds=tuple(data["reserved"]["backgrounds"]),
        questions=tuple((template, topic) for template, topic in data["questions"]),
    )


def class_infos() -> tuple[ClassInfo, ...]:
    """The foreground classes as every data set describes them, in label order."""
    return tuple(
        ClassInfo(
            name=words.name,
            prompt=words.name,
            synonyms=words.aliases,
            background_texts=words.background_texts,
        )
        for words in vocabulary().classes
    )


def context_names(*, reserved: bool = False) -> tuple[str, ...]:
    """Names of the values of a context map: value v is `context_names()[v]`, 0 is any labelled object."""
    words = vocabulary()
    names = ("object", *(background.name for background in words.backgrounds), *words.distractors)
    return (*names, *words.reserved_backgrounds) if reserved else names


def _colour(values: list[int]) -> Colour:
    red, green, blue = values
    return red, green, blue
