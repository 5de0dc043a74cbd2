"""The questions put to a visual question answering model: templates in groups, and how a noun fills them.

Source: QA-CLIMS, Deng et al., ACM MM 2023, https://arxiv.org/abs/2401.09883, Table 6.
Differs: spelled as in the published code, which writes questions about backgrounds in lower case.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Final, TypeAlias

from wsss.errors import RecipeError

Questions: TypeAlias = Mapping[str, tuple[str, ...]]
"""Group -> templates; each template holds `{}` once, where the noun goes."""

GAP: Final = "{}"
BACKGROUND_GROUPS: Final = ("object", "scene")
FOREGROUND_GROUPS: Final = ("fine_grained", "alias")


@functools.cache
def published_questions() -> dict[str, tuple[str, ...]]:
    """The 16 templates of QA-CLIMS: 7 on objects around, 3 on the scene, 2 on the kind, 4 on other names.

    Example:
        >>> published_questions()["scene"][0]
        'what scene is the {} in?'
    """
    text = resources.files(__package__).joinpath("questions.json").read_text(encoding="utf-8")
    return {group: tuple(templates) for group, templates in json.loads(text).items()}


def fill(template: str, noun: str) -> str:
    """Put a noun into a template.

    Example:
        >>> fill("what is above the {}?", "dining table")
        'what is above the dining table?'
    """
    return template.replace(GAP, noun)


def all_templates(questions: Questions) -> tuple[str, ...]:
    """Templates of all groups in order, each once."""
    return tuple(dict.fromkeys(template for templates in questions.values() for template in templates))


def check_questions(questions: Questions, key: str = "questions") -> dict[str, tuple[str, ...]]:
    """Give `questions` back if every template holds `{}` exactly once.

    Args:
        questions: templates by group; groups may have any name.
        key: where they come from, for the message.

    Raises:
        RecipeError: a template without `{}` or with several, one asked twice in its group, or none at all.
    """
    for group, templates in questions.items():
        for template in templates:
            found = template.count(GAP)
            if found != 1:
                raise RecipeError(
                    f"`{key}.{group}`: each template must hold `{GAP}` exactly once; got {found} in "
                    f"{template!r}. Write `{GAP}` where the name of the class goes."
                )
        doubled = next((template for template in templates if templates.count(template) > 1), None)
        if doubled is not None:
            raise RecipeError(f"`{key}.{group}` asks {doubled!r} more than once. Remove the repetition.")
    if not all_templates(questions):
        raise RecipeError(f"`{key}` must hold at least one template; got none. Leave it out to ask all 16.")
    return dict(questions)
