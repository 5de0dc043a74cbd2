from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tiny_recipe import CAM, CAM_RECIPE, training, write_recipe
from wsss.engine.recipe import load_recipe
from wsss.errors import RecipeError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "tiny.yaml", CAM_RECIPE)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.backbon=vgg_small", r"Unknown key `method.backbon` in .*tiny.yaml. "
         r"Did you mean `backbone`\? Run `wsss show methods/cam` for"),
        ("trainning.epochs=3", r"Unknown key `trainning` in .*tiny.yaml. Did you mean `training`\?"),
        ("training.learning_rat=3", r"`training.learning_rat` .* Did you mean `learning_rate`\?"),
        ("training.augmentation.crop=3", r"`training.augmentation.crop` .* Did you mean `crop_size`\?"),
        ("data.wrld=3", r"Unknown key `data.wrld` .* Did you mean `world`\?"),
        ("data.kind=scene", r"`data` in .* is wrong: .*scene"),
        ("segmentation.training.epoch=3", r"`segmentation.training.epoch` .* Did you mean `epochs`\?"),
        ("activation.scale=3", r"Unknown key `activation.scale` .* Did you mean `scales`\?"),
        ("initialise.methd=cam", r"Unknown key `initialise.methd` .* Did you mean `method`\?"),
        ("pseudo_masks.background_score=high", r"`pseudo_masks.background_score` in .* is wrong"),
        ("training.batch_size=0", r"`training.batch_size` in .* is wrong: .*equal to 1; got 0."),
        ("training.steps=5", r"exactly one of `steps` and `epochs`"),
        ("method.name=camm", r"Unknown method `camm`. Did you mean `cam`\?"),
        ("method.preset=irm", r"Method `cam` has no preset `irm` .* Did you mean `irn`\?"),
        ("method.teacher_precision=half", r"`method.teacher_precision` in .* is wrong"),
        ("method=cam", r"`method` in .* must be a section of keys; got 'cam'"),
        ("refine=[{name: crff}]", "Unknown refiner `crff`"),
        ("refine=crf", "`refine` in .* must be a list"),
        ("method=null", "Section `method` is missing"),
        ("training=null", "Section `training` is missing"),
        ("segmentation.batch_norm=frozen", "freezes the batch norms of a network with random weights"),
        ("segmentation.target=masks", "stands beside a `method`"),
        ("pseudo_masks.background_power=0", r"`pseudo_masks.background_power` in .* is wrong"),
        ("pseudo_masks={background_score: 0.2, background_power: 4}", "exclude each other"),
    ],
)  # fmt: skip
def test_a_wrong_key_or_value_is_named_with_its_file_and_the_nearest_valid_one(path: Path, override, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(path, [override])


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A recipe with a name of its own, as `wsss label` and `wsss doctor` write them."""
    return write_recipe(tmp_path / "recipe.yaml", CAM_RECIPE, name="photos-cam")


def test_overrides_mark_the_own_name_of_a_file_as_they_mark_that_of_its_place(own: Path, path: Path):
    one, two = ["training.epochs=1"], ["training.epochs=2", 'corrections.folder="corrected"']
    assert load_recipe(own).name == "photos-cam"
    names = [load_recipe(own, overrides).name for overrides in (one, two, two[::-1], two[1:])]
    assert all(name.startswith("photos-cam+") for name in names)
    assert len(set(names)) == 3
    assert names[1] == names[2]  # their order says nothing
    mark = load_recipe(path, one).name.removeprefix("tiny")
    assert names[0] == f"photos-cam{mark}"


def test_a_name_that_is_overridden_itself_has_no_mark(own: Path, path: Path):
    for file in (own, path):
        assert load_recipe(file, [" name =mine", "training.epochs=1"]).name == "mine"
    with pytest.raises(RecipeError, match=r"`name` in .* is wrong"):
        load_recipe(own, ["name=[1]"])


def test_the_recipe_of_a_run_folder_keeps_the_name_of_its_run(own: Path, tmp_path: Path):
    folder = tmp_path / "runs" / "some-seed0"
    folder.mkdir(parents=True)
    for recipe in (load_recipe(own), load_recipe(own, ["training.epochs=1"]), load_recipe("scenes/cam")):
        (folder / "recipe.yaml").write_text(recipe.to_yaml())
        assert load_recipe(folder / "recipe.yaml").name == recipe.name


@pytest.mark.parametrize("name", ["5", "null", "[a]"])
def test_a_name_that_is_no_text_is_refused_with_and_without_overrides(path: Path, name: str):
    path.write_text(f"name: {name}\n{path.read_text()}")
    for overrides in ([], ["training.epochs=1"]):
        with pytest.raises(RecipeError, match=r"`name` in .* is wrong"):
            load_recipe(path, overrides)


def test_a_missing_data_section_is_named(tmp_path: Path):
    path = write_recipe(tmp_path / "r.yaml", {"method": CAM, "training": training(1)})
    with pytest.raises(RecipeError, match=r"Section `data` is missing in .*r.yaml"):
        load_recipe(path)


def test_the_resolved_recipe_is_complete_and_reads_back_to_the_same(path: Path, tmp_path: Path):
    recipe = load_recipe(path, ["method.preset=irn"])
    text = recipe.to_yaml()
    again = tmp_path / "resolved.yaml"
    again.write_text(text)
    assert load_recipe(again).resolved() == recipe.resolved()
    resolved = yaml.safe_load(text)
    assert resolved["training"]["batch_size"] == 4
    assert (
        resolved["evaluation"]["fixed_background_score"] == 0.15
    )  # a default that the file does not mention
    assert resolved["method"]["name"] == "cam"
    assert resolved["method"]["normalisation"] == "imagenet"


def test_a_preset_is_applied_before_the_recipes_own_values(path: Path):
    recipe = load_recipe(path, ["method.preset=clims_camera_ready", "method.batch_norm=frozen"])
    assert recipe.method is not None
    config = recipe.method.config.model_dump()
    assert (config["normalisation"], config["batch_norm"]) == ("clip", "frozen")


def test_supervision_follows_from_the_target_and_the_method(path: Path):
    assert load_recipe(path).supervision == "I"
    twin = load_recipe(path, ["method=null", "segmentation.target=masks"])
    assert (twin.supervision, twin.method_name) == ("F", "supervised")
    assert load_recipe("scenes/clims").supervision == "I+L"
    assert load_recipe("scenes/ablation-classifier").supervision == "I"


def test_a_method_file_is_found_by_its_path_and_named_by_its_stem(path: Path, tmp_path: Path):
    source = "from wsss.methods.cam import Cam\n\nclass Mine(Cam):\n    '''Mine.'''\n"
    (tmp_path / "my_method.py").write_text(source)
    recipe = load_recipe(path, [f"method.name={tmp_path / 'my_method.py'}"])
    assert recipe.method_name == "my_method"
    assert recipe.method is not None
    assert recipe.method.cls.__name__ == "Mine"


def test_a_named_teacher_and_one_to_be_trained_exclude_each_other(path: Path):
    load_recipe(path, ["train_teacher={training: {steps: 5}}"])
    with pytest.raises(RecipeError, match=r"`method.teacher` and `train_teacher` are both given"):
        load_recipe(path, ["train_teacher={training: {steps: 5}}", "method.teacher=teachers/farm"])


def test_a_method_that_wants_pixels_of_an_unknown_kind_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "deep.py").write_text(
        "from wsss.methods.base import Method, MethodConfig\n\n\n"
        "class Deep(Method):\n"
        "    Config = MethodConfig\n\n"
        "    @classmethod\n"
        "    def pixel_inputs(cls, config):\n"
        "        return ('saliency', 'depth')\n\n"
        "    def losses(self, batch):\n"
        "        return {}\n\n"
        "    def cams(self, images):\n"
        "        return images\n"
    )
    recipe = write_recipe(tmp_path / "deep.yaml", CAM_RECIPE, method={"name": str(tmp_path / "deep.py")})
    with pytest.raises(
        RecipeError, match=r"`deep` in .* wants inputs .*: depth\. `pixel_inputs` can name `saliency`"
    ):
        load_recipe(recipe)
