from __future__ import annotations

import pytest

from wsss.data.scenes.vocabulary import vocabulary
from wsss.errors import RecipeError
from wsss.questions.questions import (
    BACKGROUND_GROUPS,
    FOREGROUND_GROUPS,
    all_templates,
    check_questions,
    fill,
    published_questions,
)


def test_the_published_questions_are_those_of_the_paper() -> None:
    questions = published_questions()
    assert {group: len(templates) for group, templates in questions.items()} == {
        "object": 7,
        "scene": 3,
        "fine_grained": 2,
        "alias": 4,
    }
    assert tuple(questions) == BACKGROUND_GROUPS + FOREGROUND_GROUPS
    assert check_questions(questions) == questions


def test_the_generated_world_answers_exactly_the_published_questions() -> None:
    asked = tuple(template for template, _ in vocabulary().questions)
    assert all_templates(published_questions()) == asked


def test_a_noun_fills_the_gap_whatever_it_holds() -> None:
    assert fill("what is above the {}?", "tv monitor") == "what is above the tv monitor?"
    assert fill("what is above the {}?", "{} {0}") == "what is above the {} {0}?"


def test_a_template_of_two_groups_is_asked_once() -> None:
    assert all_templates({"a": ("b {}", "c {}"), "d": ("c {}", "e {}")}) == ("b {}", "c {}", "e {}")


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        (("what is it?",), r"exactly once; got 0 in 'what is it\?'"),
        (("{} or {}?",), "exactly once; got 2"),
        (("what is {}?", "what is {}?"), "more than once"),
        ((), "at least one template"),
    ],
)
def test_a_wrong_template_is_named(templates: tuple[str, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_questions({"object": templates})
