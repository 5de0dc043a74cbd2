from __future__ import annotations

import logging

import pytest
from pydantic import ValidationError

from wsss.questions import cleaning
from wsss.questions.cleaning import CleaningConfig, background_texts, foreground_texts

PUBLISHED = CleaningConfig(empty_answers="keep")
WORD = CleaningConfig(suffix_rule="word")


@pytest.mark.parametrize(
    ("answer", "class_name", "expected"),
    [
        ("passenger", "train", "passenger train"),
        ("train", "train", "train"),
        ("trains", "train", "train"),
        ("passenger trains", "train", "passenger trains"),
        ("terrier", "dog", "terrier dog"),
        ("no", "dog", "no dog"),
        ("yes", "dog", "yes dog"),
        ("woman", "person", "woman person"),
        ("women", "person", "woman person"),
        ("people", "person", "people person"),
        ("plane", "aeroplane", "plane aeroplane"),
        ("dining room table", "dining table", "dining room table"),
        ("dining", "dining table", "dining dining table"),
        ("tables", "dining table", "table"),
        ("wood", "diningtable", "wood diningtable"),
        ("coffee table", "diningtable", "coffee table"),
        ("plant", "potted plant", "plant"),
        ("plantation", "potted plant", "plantation"),
        ("fern", "potted plant", "fern potted plant"),
        ("house plant", "pottedplant", "house plant"),
        ("tv", "tv monitor", "tv tv monitor"),
        ("monitor", "tv monitor", "monitor"),
        ("computer monitors", "tvmonitor", "computer monitors"),
        ("carriage", "car", "carriage"),
        ("cart", "car", "cart"),
        ("cattle", "cat", "cattle"),
        ("bush", "bus", "bush"),
        ("bushes", "bus", "bush"),
        ("busy", "bus", "busy"),
        ("buses", "bus", "bus"),
        ("boss", "dog", "bos dog"),
        ("jeans", "person", "jean person"),
    ],
)
def test_the_class_name_follows_answers_that_lack_it(answer: str, class_name: str, expected: str) -> None:
    for config in (PUBLISHED, CleaningConfig()):
        assert foreground_texts([answer], class_name, config) == (expected,)


@pytest.mark.parametrize(
    ("answer", "class_name", "expected"),
    [
        ("cart", "car", "cart car"),
        ("carriage", "car", "carriage car"),
        ("plantation", "potted plant", "plantation potted plant"),
        ("cattle", "cat", "cattle cat"),
        ("busy", "bus", "busy bus"),
        ("police car", "car", "police car"),
        ("dining room table", "dining table", "dining room table"),
        ("car-wash", "car", "car-wash"),
        ("dogs", "dog", "dog"),
    ],
)
def test_the_word_rule_wants_whole_words(answer: str, class_name: str, expected: str) -> None:
    assert foreground_texts([answer], class_name, WORD) == (expected,)


def test_foreground_keeps_order_and_repetitions() -> None:
    answers = ["poodle", "terrier", "poodle", "dogs", "dog", "puppy"]
    expected = ("poodle dog", "terrier dog", "poodle dog", "dog", "dog", "puppy dog")
    assert foreground_texts(answers, "dog", PUBLISHED) == expected


def test_background_answers_come_once_each_in_their_order() -> None:
    answers = ["trees", "tree", "man", "nothing", "yes", "man", "grass", "rocks"]
    expected = ("tree", "man", "nothing", "yes", "grass", "rock")
    assert background_texts(answers, "person", PUBLISHED) == expected


@pytest.mark.parametrize(
    ("answers", "class_name", "expected"),
    [
        (["dogs", "dog", "big dog"], "dog", ("big dog",)),
        (["people", "person", "persons"], "person", ("people",)),
        (["dining table", "table"], "dining table", ("table",)),
        (["dining table", "table"], "diningtable", ("table",)),
        (["dog", "dogs"], "dog", ()),
        ([], "dog", ()),
    ],
)
def test_background_answers_that_equal_the_class_are_left_out(
    answers: list[str], class_name: str, expected: tuple[str, ...]
) -> None:
    assert background_texts(answers, class_name, PUBLISHED) == expected


def test_empty_answers_are_dropped_or_kept_as_published() -> None:
    answers = ["", "tree", " ", ""]
    assert foreground_texts(answers, "dog", CleaningConfig()) == ("tree dog",)
    assert foreground_texts(["", "tree"], "dog", PUBLISHED) == (" dog", "tree dog")
    assert background_texts(answers, "dog", CleaningConfig()) == ("tree",)
    assert background_texts(["", "tree", ""], "dog", PUBLISHED) == ("", "tree")
    assert foreground_texts([""], "dog", CleaningConfig()) == ()


def test_long_answers_are_kept_unless_a_limit_is_set() -> None:
    long, short = "a very long answer on trees", "big tree"
    limited = CleaningConfig(max_words=3)
    assert foreground_texts([long, short], "dog", CleaningConfig()) == (f"{long} dog", f"{short} dog")
    assert foreground_texts([long, short], "dog", limited) == ("dog", f"{short} dog")
    assert background_texts([long, short], "dog", limited) == (short,)


def test_other_classes_are_dropped_on_request_only() -> None:
    answers = [
        "horses",
        "brown horse",
        "brown horses",
        "horse stable",
        "sea",
        "puppy",
        "potted plant",
        "tree",
    ]
    others = ["horse", "Puppy", "potted plant", ""]
    chosen = CleaningConfig(drop_other_classes=True)
    assert background_texts(answers, "dog", chosen, others=others) == ("horse stable", "sea", "tree")
    assert len(background_texts(answers, "dog", CleaningConfig(), others=others)) == len(answers)


def test_odd_characters_become_plain_text() -> None:
    answers = [
        "cafe\u0301",
        "café",
        "two\nlines\t here",
        " Tree ",
        "\u6a39",
        "a\u2028b\x00c",
        "x\ud800y",
    ]
    expected = ("café", "two lines here", "tree", "\u6a39", "a b c", "x y")
    assert background_texts(answers, "dog", CleaningConfig()) == expected
    assert foreground_texts(["Dog", "Big\nDog"], "Dog", CleaningConfig()) == ("dog", "big dog")
    assert background_texts(["Dog", "dogs"], "Dog", CleaningConfig()) == ()


def test_a_name_inside_a_word_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    cleaning._note_part_of_word.cache_clear()
    with caplog.at_level(logging.INFO, logger="wsss.questions.cleaning"):
        foreground_texts(["cart", "cart", "car", "cart and car", "carriage", "lorry"], "car", PUBLISHED)
    assert [record.args for record in caplog.records] == [("cart", "car"), ("carriage", "car")]


def test_settings_are_checked_and_described() -> None:
    with pytest.raises(ValidationError):
        CleaningConfig(max_words=0)
    with pytest.raises(ValidationError):
        CleaningConfig(suffix="word")  # type: ignore[call-arg]
    assert all(field.description for field in CleaningConfig.model_fields.values())
