"""Singulars of answers: a shipped table of nouns, or WordNet's own lemmatiser where it is installed.

Source: QA-CLIMS, Deng et al., ACM MM 2023, https://arxiv.org/abs/2401.09883, Section 3.2.3; the published
code passes each whole answer to WordNet's lemmatiser in noun mode.
Differs: the default is a table, which needs no corpus. It gives WordNet 3.0's lemmas, oddities included
(jeans -> jean, boss -> bos, people unchanged), for the words it knows and leaves others as they are.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from importlib import resources
from typing import Any, Literal, TypeAlias

from wsss.errors import StageError

logger = logging.getLogger(__name__)

Lemmatiser: TypeAlias = Literal["table", "wordnet"]


def lemma(answer: str, lemmatiser: Lemmatiser = "table") -> str:
    """The singular of an answer; answers of several words stay as they are.

    Args:
        answer: one answer in lower case.
        lemmatiser: `table`: `lemmas.json`, beside this file; `wordnet`: nltk with its corpus.

    Raises:
        StageError: `wordnet` is asked for, and nltk or its corpus is missing.

    Example:
        >>> lemma("leaves"), lemma("people"), lemma("green leaves")
        ('leaf', 'people', 'green leaves')
    """
    if lemmatiser == "wordnet":
        return _wordnet()(answer)
    found = lemma_table().get(answer)
    if found is not None:
        return found
    if answer.endswith("s") and answer.isalpha():
        _note_unknown(answer)
    return answer


@functools.cache
def lemma_table() -> dict[str, str]:
    """Word -> lemma of all words in the shipped table, those that don't change among them."""
    text = resources.files(__package__).joinpath("lemmas.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    table: dict[str, str] = dict(data["others"])
    table |= {f"{word}s": word for word in data["adds_s"]}
    table |= {word: word for word in data["unchanged"]}
    return table


@functools.lru_cache(maxsize=100_000)
def _note_unknown(word: str) -> None:
    """Log a word that may be a plural; the cache makes it once per word."""
    logger.info(
        "`%s` isn't in the table of lemmas and stays as it is. If it is a plural, add it to lemmas.json "
        "or set `lemmatiser: wordnet`.",
        word,
    )


@functools.cache
def _wordnet() -> Callable[[str], str]:
    try:
        from nltk.stem import WordNetLemmatizer
    except ImportError as error:
        raise StageError(
            "`lemmatiser: wordnet` needs the package nltk, which is not installed. "
            'Run `pip install "wsss[nltk]"`, or set `lemmatiser: table`.'
        ) from error
    lemmatizer = WordNetLemmatizer()
    try:
        lemmatizer.lemmatize("dogs")
    except LookupError as error:
        raise StageError(
            "`lemmatiser: wordnet` needs the corpus `wordnet` of nltk, which is not installed. "
            "Run `python -m nltk.downloader wordnet`, or set `lemmatiser: table`."
        ) from error
    return lambda answer: str(lemmatizer.lemmatize(answer))
