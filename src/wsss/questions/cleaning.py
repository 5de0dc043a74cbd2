"""From answers to texts: singulars, the class name behind foreground answers, background answers once each.

Source: QA-CLIMS, Deng et al., ACM MM 2023, https://arxiv.org/abs/2401.09883, Section 3.2.3, and its code.
Differs: the paper appends the class name to adjectives and nouns and adds the bare name as one more text;
the code, and this file, append it to every answer that doesn't contain it, and add nothing. Backgrounds keep
the order of the answers, where the code's order is arbitrary. A class named by a plural is also known by its
singular (the code compares singular answers with the plural). Empty answers are dropped; line breaks become
spaces and letters lower case, which changes no answer that BLIP can give.
"""

from __future__ import annotations

import functools
import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from wsss.layers.class_texts import spelling
from wsss.questions.lemmas import Lemmatiser, lemma

logger = logging.getLogger(__name__)

_SHORT_NAMES: Final = {  # spelling -> name in the published code, shorter name accepted in answers
    "diningtable": ("dining table", "table"),
    "pottedplant": ("potted plant", "plant"),
    "tvmonitor": ("tv monitor", "monitor"),
}
_BREAKS: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})  # Unicode: control, lone surrogate, line, paragraph


class CleaningConfig(BaseModel):
    """How answers become texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lemmatiser: Lemmatiser = Field(
        "table",
        description="Where singulars come from: the shipped table, or WordNet by nltk (QA-CLIMS: wordnet).",
    )
    suffix_rule: Literal["substring", "word"] = Field(
        "substring",
        description="The class name is appended unless the answer contains it anywhere (QA-CLIMS), "
        "or as a whole word.",
    )
    empty_answers: Literal["drop", "keep"] = Field(
        "drop",
        description="Empty answers are left out, or kept as the published code does: the class name behind "
        "a space for the foreground, an empty text for the background.",
    )
    max_words: int | None = Field(
        None,
        ge=1,
        description="Answers of more words are left out of backgrounds and replaced by the class name for "
        "the foreground; null: no limit (QA-CLIMS).",
    )
    drop_other_classes: bool = Field(
        False,
        description="Leave out background answers that name another class of the image or the class itself "
        "by another name; QA-CLIMS keeps them.",
    )


def foreground_texts(answers: Iterable[str], class_name: str, config: CleaningConfig) -> tuple[str, ...]:
    """Texts that speak of the class itself, in order and with repetitions.

    Args:
        answers: raw answers to the questions on kinds and other names.
        class_name: the noun that was asked about; it is appended to answers that don't contain it. Dining
            table, potted plant and tv monitor, however spelled, also count when table, plant or monitor is
            contained.
        config: the rules.

    Returns:
        One text per answer, or fewer where empty answers are dropped; possibly none.

    Example:
        >>> foreground_texts(["passenger", "trains"], "train", CleaningConfig())
        ('passenger train', 'train')
    """
    markers = _markers(class_name, config.lemmatiser)
    texts = []
    for text in _lemmas(answers, config):
        if _is_too_long(text, config):
            texts.append(class_name)
        elif _holds_marker(text, markers, config):
            texts.append(text)
        else:
            texts.append(f"{text} {class_name}")
    return tuple(texts)


def background_texts(
    answers: Iterable[str], class_name: str, config: CleaningConfig, *, others: Sequence[str] = ()
) -> tuple[str, ...]:
    """Texts that speak of the surroundings of the class, each once, in the order of the answers.

    Args:
        answers: raw answers to the questions on surrounding objects and scenes.
        class_name: the noun that was asked about; answers that equal it are left out.
        config: the rules.
        others: names of other classes in the image and aliases of the class; used with
            `drop_other_classes` only, which leaves out answers that end in one of them.

    Returns:
        Possibly none; the published training then skips the pair's background terms.

    Example:
        >>> background_texts(["grass", "dogs", "trees", "grass"], "dog", CleaningConfig())
        ('grass', 'tree')
    """
    own = set(_own_names(class_name, config.lemmatiser))
    names = [_normalised(name).split() for name in others] if config.drop_other_classes else []
    return tuple(
        text
        for text in dict.fromkeys(_lemmas(answers, config))
        if text not in own and not _is_too_long(text, config) and not _ends_in(text, names, config.lemmatiser)
    )


def _lemmas(answers: Iterable[str], config: CleaningConfig) -> Iterator[str]:
    """Answers as plain lower-case text, whole answers lemmatised."""
    for answer in answers:
        text = _normalised(answer)
        if config.empty_answers == "drop":
            text = text.strip()
            if not text:
                continue
        yield lemma(text, config.lemmatiser)


def _normalised(text: str) -> str:
    composed = unicodedata.normalize("NFC", text.lower())
    spaced = (" " if unicodedata.category(letter) in _BREAKS else letter for letter in composed)
    return re.sub(r"\s+", " ", "".join(spaced))


def _own_names(class_name: str, lemmatiser: Lemmatiser) -> tuple[str, ...]:
    """The class's name, its singular (answers are singular too), and the published spelling."""
    published = _SHORT_NAMES.get(spelling(class_name))
    name = _normalised(class_name)
    names = (name, lemma(name, lemmatiser))
    return tuple(dict.fromkeys(names if published is None else (*names, published[0])))


def _markers(class_name: str, lemmatiser: Lemmatiser) -> tuple[str, ...]:
    published = _SHORT_NAMES.get(spelling(class_name))
    names = _own_names(class_name, lemmatiser)
    return names if published is None else (*names, published[1])


def _holds_marker(text: str, markers: Sequence[str], config: CleaningConfig) -> bool:
    if any(_is_word_in(marker, text) for marker in markers):
        return True
    if config.suffix_rule == "word":
        return _ends_in(text, [marker.split() for marker in markers], config.lemmatiser)
    within = next((marker for marker in markers if marker in text), None)
    if within is None:
        return False
    _note_part_of_word(text, within)
    return True


def _is_word_in(marker: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(marker)}(?!\w)", text) is not None


@functools.lru_cache(maxsize=100_000)
def _note_part_of_word(text: str, marker: str) -> None:
    """Log a match inside a word; the cache makes it once per answer and name."""
    logger.info(
        "The answer `%s` holds `%s` inside a word, so the class name isn't appended, as published. "
        "Set `suffix_rule: word` to append it.",
        text,
        marker,
    )


def _is_too_long(text: str, config: CleaningConfig) -> bool:
    return config.max_words is not None and len(text.split()) > config.max_words


def _ends_in(text: str, names: Sequence[list[str]], lemmatiser: Lemmatiser) -> bool:
    """Whether the last words of `text`, its last one in the singular, are one of the names."""
    words = text.split()
    if not words or not names:
        return False
    singular = [*words[:-1], lemma(words[-1], lemmatiser)]
    return any(name and name in (words[-len(name) :], singular[-len(name) :]) for name in names)
