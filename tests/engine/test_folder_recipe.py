"""A template fitted to a folder: lengths, sizes, backgrounds, teachers."""

from __future__ import annotations

from typing import Any

import pytest

from wsss.engine import folder_recipe as fitting
from wsss.engine.folder_recipe import METHODS, FolderFacts, folder_recipe, recipe_text, surroundings
from wsss.engine.recipe import parse_recipe
from wsss.engine.recipe_files import find_recipe, read_yaml
from wsss.errors import RecipeError

DATA = {"kind": "folder", "root": "DATA", "name": "parts"}
TRIED = FolderFacts(276, ((213, 320),) * 5)


def fitted(method: str = "cam", facts: FolderFacts = TRIED, **options: Any) -> dict[str, Any]:
    return folder_recipe(DATA, method, facts, name="mine", **options)


@pytest.mark.parametrize("method", METHODS)
def test_the_tried_folder_gets_the_template_itself(method: str):
    template = read_yaml(find_recipe(f"folder/{method}"))
    recipe = fitted(method)
    differing = {key for key in template if recipe[key] != template[key]}
    assert differing == {"about", "data"} | ({"segmentation"} if "batch_size" not in template else set())
    assert recipe["segmentation"]["training"]["epochs"] == template["segmentation"]["training"]["epochs"]
    assert parse_recipe(recipe, "test").method_name == method


@pytest.mark.parametrize(("images", "epochs"), [(276, 40), (138, 80), (10, 160), (552, 20), (100_000, 10)])
def test_presentations_of_images_stay_as_they_were_tried(images: int, epochs: int):
    recipe = fitted(facts=FolderFacts(images, TRIED.sizes))
    assert recipe["training"]["epochs"] == epochs
    assert recipe["training"]["batch_size"] == min(16, images)
    assert recipe["segmentation"]["training"]["batch_size"] == min(16, images)


def test_large_images_are_shrunk_to_the_size_that_was_tried():
    recipe = fitted(facts=FolderFacts(276, ((2130, 3200), (213, 320), (2130, 3200))))
    augmentation = recipe["training"]["augmentation"]
    assert (augmentation["long_side"], augmentation["crop_size"]) == ([192, 320], 160)
    assert "scale" not in augmentation
    assert recipe["activation"]["scales"] == [0.1, 0.05, 0.15]
    assert recipe["segmentation"]["test_scales"] == [0.1]
    assert parse_recipe(recipe, "test").training.augmentation.scale is None


def test_small_images_get_small_crops():
    assert fitted(facts=FolderFacts(276, ((96, 96),)))["training"]["augmentation"]["crop_size"] == 64
    assert fitted(facts=FolderFacts(276, ((20, 20),)))["training"]["augmentation"]["crop_size"] == 32


def test_a_constant_background_score_goes_where_it_decides():
    assert fitted(background_score=0.3)["pseudo_masks"] == {"background_score": 0.3}
    irn = fitted(refine=["irn"], background_score=0.3)
    assert irn["pseudo_masks"] == {"background_score": 0.3}
    crf = fitted(refine=["irn", "dense_crf"], background_score=0.3)
    assert "pseudo_masks" not in crf
    assert crf["refine"] == [{"name": "irn"}, {"name": "dense_crf", "background_score": 0.3}]
    for recipe in (irn, crf):
        parse_recipe(recipe, "test")
    with pytest.raises(RecipeError, match="make a background of their own"):
        fitted(refine=["psa"], background_score=0.3)
    with pytest.raises(RecipeError, match=r"must lie in \[0, 1\]; got 1.5"):
        fitted(background_score=1.5)


def test_a_public_teacher_takes_the_place_of_a_trained_one():
    recipe = parse_recipe(fitted("clims", teacher="owner/clip", background_texts={"cow": ("grass",)}), "test")
    assert recipe.method is not None
    assert (recipe.method.teacher, recipe.train_teacher) == ("owner/clip", None)
    assert recipe.method.config.similarity == "clamp"  # type: ignore[attr-defined]
    assert recipe.method.config.background_texts == {"cow": ("grass",)}  # type: ignore[attr-defined]
    assert fitted("smvwe", teacher="owner/clip") == fitted("smvwe")


def test_a_public_teacher_is_looked_for_only_where_one_is_wanted(monkeypatch):
    monkeypatch.setattr(fitting, "find_weights", lambda name: name)
    assert fitting.public_teacher("clims") == fitting.PUBLIC_TEACHER
    assert fitting.public_teacher("smvwe") is None


def test_the_text_is_read_back(tmp_path):
    recipe = fitted("qa_clims")
    path = tmp_path / "mine.yaml"
    path.write_text(recipe_text(recipe, ["one", "two"]), encoding="utf-8")
    assert path.read_text().startswith("# one\n# two\nname: mine\n")
    assert read_yaml(path) == recipe


LABELS = {"1": {"boat"}, "2": {"boat", "water"}, "3": {"boat", "water"}, "4": {"cow"}, "5": {"cow"}}


def test_surroundings_are_scene_words_by_frequency():
    scenes = {"1": ("sea", "sky"), "2": ("sea",), "3": ("water",), "4": ("grass",)}
    found = surroundings({key: names - {"water"} for key, names in LABELS.items()}, scenes, general=False)
    assert found.source == "scene words"
    assert found.texts == {"boat": ("sea", "sky", "water"), "cow": ("grass",)}


def test_a_class_without_scene_words_gets_those_of_all():
    found = surroundings(LABELS, {"1": ("sea", "Water")}, general=False)
    assert found.texts == {"boat": ("sea",), "cow": ("sea",), "water": ("sea",)}  # no name of a class


def test_surroundings_without_scene_words():
    found = surroundings(LABELS, {}, general=True)
    assert found.source == "tags"
    assert found.texts == {"boat": ("water",), "water": ("boat",)}
    alone = {"1": {"boat"}, "2": {"cow"}}
    assert surroundings(alone, {}, general=False).texts == {}
    general = surroundings(alone, {}, general=True)
    assert general.source == "general"
    assert "river" in general.texts["cow"]
