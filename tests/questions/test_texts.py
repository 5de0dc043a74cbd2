"""From answers or tags to the texts of every pair."""

from __future__ import annotations

import pytest
from tests.fakes import ToyDataset, toy_answers

from wsss.errors import DataError
from wsss.questions.cleaning import CleaningConfig
from wsss.questions.questions import published_questions
from wsss.questions.texts import TextSources, pair_texts
from wsss.types import ClassInfo

NAMES = ("background", "boat", "train", "cat")
TOYS = ToyDataset(NAMES, {"a": (0, 2), "b": (), "c": (1,)}, ("grass", "sky", "grass"))
NOUNS = {name: name for name in NAMES[1:]}


def sources(answers=None, **changes) -> TextSources:
    given = {"foreground": ("fine_grained", "alias"), "background": ("object", "scene"), "nouns": NOUNS}
    return TextSources(answers=answers, questions=published_questions(), **{**given, **changes})


def test_each_pair_has_its_own_texts_in_the_order_of_the_questions() -> None:
    answers = toy_answers(TOYS)
    answers.pairs["a", "cat"]["what scene is the cat in?"] = "cats"
    pairs = pair_texts(TOYS, TOYS.ids("train"), sources(answers))
    assert [(pair.image_id, pair.class_name) for pair in pairs] == [
        ("a", "boat"),
        ("a", "cat"),
        ("c", "train"),
    ]
    assert pairs[0].foreground == (
        "old boat",
        "small boat",
        "thing boat",
        "toy boat",
        "thing boat",
        "toy boat",
    )
    assert pairs[0].background == ("sky", "road", "tree", "city", "field")
    assert pairs[1].background == ("sky", "road", "tree", "field", "city")  # without the class itself


def test_groups_can_be_left_out() -> None:
    answers = toy_answers(TOYS)
    only = pair_texts(TOYS, ["c"], sources(answers, foreground=(), background=("scene",)))
    assert (only[0].foreground, only[0].background) == ((), ("city", "field"))
    none = pair_texts(TOYS, ["c"], sources(answers, background=()))
    assert none[0].background == ()
    named = pair_texts(TOYS, ["c"], sources(answers, background=(), no_class=True))
    assert named[0].background == ("no train",)


@pytest.mark.parametrize("bad", ["", "train", "trains", "  "])
def test_useless_answers_leave_the_pair_without_background(bad: str) -> None:
    answers = toy_answers(TOYS, object=(bad,), scene=(bad,))
    assert pair_texts(TOYS, ["c"], sources(answers))[0].background == ()


def test_long_and_foreign_answers_become_texts() -> None:
    long = "a very " * 60 + "long sea"
    answers = toy_answers(TOYS, object=(long,), scene=("plage à côté", "\u6d77"))
    texts = pair_texts(TOYS, ["c"], sources(answers))[0].background
    assert texts == (long, "plage à côté", "\u6d77")
    short = pair_texts(TOYS, ["c"], sources(answers, cleaning=CleaningConfig(max_words=5)))[0].background
    assert short == texts[1:]


def test_other_classes_can_be_dropped() -> None:
    answers = toy_answers(TOYS, object=("cat", "sea", "ship"))
    dataset = ToyDataset(NAMES, TOYS.present)
    dataset.classes = (ClassInfo("boat", synonyms=("ship",)), *dataset.classes[1:])
    kept = pair_texts(dataset, ["a"], sources(answers))[0].background
    assert kept[:3] == ("cat", "sea", "ship")
    cleaned = sources(answers, cleaning=CleaningConfig(drop_other_classes=True))
    assert pair_texts(dataset, ["a"], cleaned)[0].background[0] == "sea"
    assert "ship" not in pair_texts(dataset, ["a"], cleaned)[0].background


def test_tags_give_scene_words_and_the_label_alone() -> None:
    pairs = pair_texts(TOYS, ("a", "c"), sources(from_tags=True))
    assert {pair.background for pair in pairs} == {("grass", "sky")}
    assert {pair.foreground for pair in pairs} == {()}
    odd = ToyDataset(NAMES, TOYS.present, ("Cats", "CAT", "trees", "Tree", "boat"))
    cat = pair_texts(odd, ("a",), sources(from_tags=True))[1]
    assert cat.background == ("tree", "boat")
    cleaned = sources(from_tags=True, cleaning=CleaningConfig(drop_other_classes=True))
    assert pair_texts(odd, ("a",), cleaned)[1].background == ("tree",)


def test_texts_without_any_group_need_no_answers() -> None:
    pairs = pair_texts(TOYS, ("c",), sources(foreground=(), background=(), no_class=True))
    assert (pairs[0].foreground, pairs[0].background) == ((), ("no train",))
    with pytest.raises(DataError, match="no answers to take texts from"):
        pair_texts(TOYS, ("c",), sources())


def test_listed_backgrounds_stand_in_for_missing_ones() -> None:
    bare = ToyDataset(NAMES, TOYS.present)
    for listed in (("road", "sky"), {"boat": ("road", "sky"), "cat": ("sofa",)}):
        boat, cat, train = pair_texts(bare, ("a", "c"), sources(from_tags=True, listed=listed))
        assert boat.background == ("road", "sky")
        assert cat.background == (("sofa",) if isinstance(listed, dict) else ("road", "sky"))
        assert train.background == (() if isinstance(listed, dict) else ("road", "sky"))
    assert pair_texts(TOYS, ("c",), sources(from_tags=True, listed=("road",)))[0].background == (
        "grass",
        "sky",
    )


def test_a_missing_answer_is_named() -> None:
    answers = toy_answers(TOYS)
    del answers.pairs["c", "train"]["what is above the train?"]
    with pytest.raises(DataError, match=r"'what is above the train\?'"):
        pair_texts(TOYS, ["c"], sources(answers))
