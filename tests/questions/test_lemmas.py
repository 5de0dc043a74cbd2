from __future__ import annotations

import json
import logging
import sys
from importlib import resources
from types import ModuleType

import pytest

from wsss.data.scenes.vocabulary import vocabulary
from wsss.errors import StageError
from wsss.questions import lemmas
from wsss.questions.lemmas import lemma, lemma_table


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("trees", "tree"),
        ("rocks", "rock"),
        ("leaves", "leaf"),
        ("buses", "bus"),
        ("benches", "bench"),
        ("women", "woman"),
        ("people", "people"),  # WordNet's oddities from here on
        ("men", "men"),
        ("jeans", "jean"),
        ("boss", "bos"),
        ("pass", "pas"),
        ("us", "u"),
        ("glass", "glass"),
        ("bus", "bus"),
        ("green trees", "green trees"),
        ("tree", "tree"),
        ("zzyzxs", "zzyzxs"),
        ("", ""),
    ],
)
def test_the_table_gives_wordnet_s_singulars(answer: str, expected: str) -> None:
    assert lemma(answer) == expected


def test_no_word_is_in_two_parts_of_the_table() -> None:
    text = resources.files("wsss.questions").joinpath("lemmas.json").read_text(encoding="utf-8")
    parts = json.loads(text)
    words = [f"{word}s" for word in parts["adds_s"]] + [*parts["others"], *parts["unchanged"]]
    assert len(words) == len(set(words)) == len(lemma_table())
    assert all(word == word.lower() and word.isalpha() for word in words)


def test_words_of_the_generated_world_stay_as_they_are() -> None:
    words = vocabulary()
    own = {word.name for word in (*words.classes, *words.backgrounds)} | set(words.distractors)
    for entry in words.classes:
        own |= {*entry.aliases, *(word for pair in entry.kinds for word in pair)}
    for place in words.backgrounds:
        own |= {place.scene, place.environment, place.place}
    assert {word for word in own if lemma(word) != word} == set()


def test_an_unknown_plural_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    lemmas._note_unknown.cache_clear()
    with caplog.at_level(logging.INFO, logger="wsss.questions"):
        for answer in ("gizmos", "gizmos", "grass", "red gizmos", "gizmo"):
            lemma(answer)
    assert [record.getMessage().split("`")[1] for record in caplog.records] == ["gizmos"]


def test_wordnet_without_nltk_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    lemmas._wordnet.cache_clear()
    monkeypatch.setitem(sys.modules, "nltk.stem", None)
    with pytest.raises(StageError, match=r"wsss\[nltk\]"):
        lemma("dogs", "wordnet")


class FakeLemmatizer:
    has_corpus = True

    def lemmatize(self, word: str, pos: str = "n") -> str:
        if not self.has_corpus:
            raise LookupError("Resource wordnet not found.")
        return word.removesuffix("s") if pos == "n" else word


@pytest.fixture
def fake_nltk(monkeypatch: pytest.MonkeyPatch) -> type[FakeLemmatizer]:
    stem = ModuleType("nltk.stem")
    stem.WordNetLemmatizer = FakeLemmatizer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nltk", ModuleType("nltk"))
    monkeypatch.setitem(sys.modules, "nltk.stem", stem)
    lemmas._wordnet.cache_clear()
    monkeypatch.setattr(FakeLemmatizer, "has_corpus", True)
    return FakeLemmatizer


def test_wordnet_gets_the_whole_answer(fake_nltk: type[FakeLemmatizer]) -> None:
    assert lemma("gizmos", "wordnet") == "gizmo"
    lemmas._wordnet.cache_clear()


def test_wordnet_without_its_corpus_names_the_corpus(
    fake_nltk: type[FakeLemmatizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_nltk, "has_corpus", False)
    with pytest.raises(StageError, match=r"corpus `wordnet`.*nltk\.downloader wordnet"):
        lemma("dogs", "wordnet")
