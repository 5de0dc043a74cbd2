"""YAML from anybody: plain values come back, code never runs, references can't grow without end."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from wsss.data.classes import read_classes
from wsss.data.yaml_text import MOST_VALUES, parse_yaml
from wsss.engine.recipe_files import read_yaml, with_overrides
from wsss.errors import DataError, RecipeError


def bomb(levels: int) -> str:
    """A list of lists whose last holds nine references to the one before, and so on."""
    lists = ["&x0 [a, a, a, a, a, a, a, a, a]"]
    lists += [f"&x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, levels)]
    return f"[{', '.join(lists)}]"


@pytest.mark.parametrize("text", ["a: [1, 2.5, x, null, true]", "[]", "", "&a [1]", "{a: &a {b: 1}, c: *a}"])
def test_plain_documents_are_read_as_yaml_reads_them(text: str) -> None:
    assert parse_yaml(text) == yaml.safe_load(text)


def test_references_may_stand_for_a_million_values_and_no_more() -> None:
    def written_out(value: object) -> int:
        return 1 + sum(map(written_out, value)) if isinstance(value, list) else 1

    assert written_out(parse_yaml(bomb(6))) < MOST_VALUES
    with pytest.raises(ValueError, match="more than 1,000,000 values"):
        parse_yaml(bomb(7))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("&a [*a]", "refers to itself"),
        ("[" * 3_000, "nested too deeply"),
        ("2020-99-99", "month"),
        ("!!int cat", "invalid literal"),
        ("!!timestamp cat", "groupdict"),
        ("!!python/object/apply:os.mkdir [x]", "could not determine a constructor"),
        ("*a", "undefined alias"),
        ("a\0b", "not allowed"),
        ("? [a]\n: b", "unhashable"),
        ("1" * 5_000, "digits"),
    ],
)
def test_everything_else_is_one_kind_of_error(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_yaml(text)


def test_recipes_overrides_and_classes_say_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"method: {bomb(9)}\n")
    with pytest.raises(RecipeError, match=r"x\.yaml is not valid YAML: its references"):
        read_yaml(path)
    with pytest.raises(DataError, match=r"x\.yaml can't be understood: its references"):
        read_classes(path)
    path.write_text("a: 1\nb: 2\na: 3\n")
    with pytest.raises(RecipeError, match=r"`a` is written twice in .*x\.yaml, line 1"):
        read_yaml(path)
    with pytest.raises(RecipeError, match=r"value of `--set a\.b` can't be understood"):
        with_overrides({}, ["a.b=["], "x.yaml")
