from __future__ import annotations

from pathlib import Path

import pytest

from wsss.engine.recipe_files import find_recipe, list_recipes, read_yaml, recipe_name, with_overrides
from wsss.errors import RecipeError


def test_shipped_recipes_are_found_by_name_path_and_file():
    assert "scenes/cam" in list_recipes()
    found = {
        find_recipe(name).resolve() for name in ("scenes/cam", "recipes/scenes/cam.yaml", "scenes/cam.yaml")
    }
    assert len(found) == 1


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match="Did you mean `scenes/clims`"):
        find_recipe("scenes/climms")


def test_the_name_comes_from_the_place_and_marks_overrides(tmp_path: Path):
    assert recipe_name(find_recipe("scenes/cam")) == "scenes/cam"
    assert recipe_name(tmp_path / "mine.yaml") == "mine"
    marked = recipe_name(tmp_path / "mine.yaml", ["a=1", "b=2"])
    assert marked.startswith("mine+")
    assert (
        marked
        == recipe_name(tmp_path / "mine.yaml", ["b=2", "a=1"])
        != recipe_name(tmp_path / "mine.yaml", ["a=1"])
    )


def test_overrides_reach_into_sections_and_lists_and_leave_the_original():
    raw = {"method": {"name": "cam"}, "refine": [{"name": "x"}], "segmentation": None}
    changed = with_overrides(
        raw, ["refine.0.steps=5", "method.rate=1e-3", "segmentation.epochs=2", "list=[1, 2]"], "r"
    )
    assert changed == {
        "method": {"name": "cam", "rate": "1e-3"},  # pydantic reads such text as a number
        "refine": [{"name": "x", "steps": 5}],
        "segmentation": {"epochs": 2},
        "list": [1, 2],
    }
    assert raw["refine"] == [{"name": "x"}]


@pytest.mark.parametrize(
    "text", ["method.name", "=3", "refine.4.steps=1", "refine.x=1", "method.name.deeper=1"]
)
def test_a_wrong_override_is_a_recipe_error(text: str):
    with pytest.raises(RecipeError):
        with_overrides({"method": {"name": "cam"}, "refine": [{}]}, [text], "r")


def test_a_key_written_twice_is_refused(tmp_path: Path):
    path = tmp_path / "twice.yaml"
    path.write_text("data:\n  kind: scenes\n  kind: voc\n")
    with pytest.raises(RecipeError, match="`kind` is written twice"):
        read_yaml(path)


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "just words"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError):
        read_yaml(path)
