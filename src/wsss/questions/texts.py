"""From answers, or from the scene words of tags, to the final texts of every (image, class) pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from wsss.data.dataset import Dataset
from wsss.errors import DataError
from wsss.layers.class_texts import BackgroundTexts, spelling
from wsss.questions.answers import Answers
from wsss.questions.cleaning import CleaningConfig, background_texts, foreground_texts
from wsss.questions.pair_texts import PairTexts
from wsss.questions.questions import Questions


@dataclass(frozen=True)
class TextSources:
    """Where texts come from and how they are chosen.

    Args:
        answers: of a question answering model; not needed where no group is used.
        from_tags: backgrounds are the data set's scene words, and nothing but its noun speaks of a class.
        questions: what was asked, by group.
        foreground: groups that speak of the object; (): the noun alone.
        background: groups that speak of its surroundings.
        nouns: class name -> noun that was used in questions and is used in texts.
        listed: texts for pairs without any background text, for all classes or class by class.
        no_class: give a pair without any background text `no {noun}` (QA-CLIMS, ablation) instead of none.
        cleaning: from answers to texts.
    """

    answers: Answers | None
    questions: Questions
    foreground: Sequence[str]
    background: Sequence[str]
    nouns: Mapping[str, str]
    from_tags: bool = False
    listed: BackgroundTexts = ()
    no_class: bool = False
    cleaning: CleaningConfig = field(default_factory=CleaningConfig)

    def templates(self, groups: Sequence[str]) -> tuple[str, ...]:
        """The questions of some groups, in order."""
        return tuple(template for group in groups for template in self.questions[group])


def pair_texts(dataset: Dataset, ids: Sequence[str], sources: TextSources) -> list[PairTexts]:
    """The texts of every class that the tags give each image, image after image.

    Raises:
        DataError: an answer is missing.
    """
    pairs = []
    for image_id in ids:
        present = [dataset.classes[column].name for column in np.flatnonzero(dataset.image_labels(image_id))]
        pairs += [_texts_of(dataset, image_id, name, present, sources) for name in present]
    return pairs


def _texts_of(
    dataset: Dataset, image_id: str, name: str, present: Sequence[str], sources: TextSources
) -> PairTexts:
    noun = sources.nouns.get(name, name)
    if sources.from_tags:
        told: tuple[str, ...] = ()
        around = tuple(word for word in dataset.scene_words(image_id) if spelling(word) != spelling(name))
    else:
        told = _answers(sources, sources.foreground, image_id, name)
        around = _answers(sources, sources.background, image_id, name)
    foreground = foreground_texts(told, noun, sources.cleaning)
    others = _others(dataset, name, present, sources)
    background = background_texts(around, noun, sources.cleaning, others=others)
    if not background:
        listed = sources.listed
        background = tuple(listed.get(name, ())) if isinstance(listed, dict) else tuple(listed)
    if not background and sources.no_class:
        background = (f"no {noun}",)
    return PairTexts(image_id, name, noun, foreground, background)


def _answers(sources: TextSources, groups: Sequence[str], image_id: str, name: str) -> tuple[str, ...]:
    templates = sources.templates(groups)
    if not templates:
        return ()
    if sources.answers is None:
        raise DataError("There are no answers to take texts from. Pass `Frozen(answers=...)`.")
    return sources.answers.of(image_id, name, sources.nouns.get(name, name), templates)


def _others(dataset: Dataset, name: str, present: Sequence[str], sources: TextSources) -> tuple[str, ...]:
    """Nouns and synonyms of the image's other classes, and synonyms of the class itself."""
    found: list[str] = []
    for info in dataset.classes:
        if info.name == name:
            found += info.synonyms
        elif info.name in present:
            found += [info.name, sources.nouns.get(info.name, info.name), *info.synonyms]
    return tuple(dict.fromkeys(found))
