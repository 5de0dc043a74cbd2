from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tiny_recipe import CAM_RECIPE, clims_recipe, random_teacher, write_recipe
from wsss.engine import segmentation_work
from wsss.engine.fingerprint import fingerprint
from wsss.engine.plan import plan
from wsss.engine.recipe import load_recipe
from wsss.engine.stages import Silence, Stage, Workspace, until_stage
from wsss.errors import RecipeError, WeightsError
from wsss.segmentation import SegmentationConfig


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("recipes")
    teacher = random_teacher(folder / "teacher")
    return {
        "cam": write_recipe(folder / "cam.yaml", CAM_RECIPE),
        "clims": write_recipe(folder / "clims.yaml", clims_recipe(teacher)),
        "teacher": teacher,
    }


def planned(path: Path, *overrides: str, seed: int = 0) -> dict[str, Stage]:
    recipe = load_recipe(path, overrides)
    workspace = Workspace(Path("runs"), recipe.data, torch.device("cpu"), Silence())
    return {stage.name: stage for stage in plan(recipe, seed, workspace)}


def changed(path: Path, *overrides: str, seed: int = 0) -> set[str]:
    """Names of the stages that an override (or another seed) makes anew."""
    before, after = planned(path), planned(path, *overrides, seed=seed)
    return {
        name for name in after if name not in before or after[name].fingerprint != before[name].fingerprint
    }


AFTER_MAPS = {"choose-score-maps", "score-maps", "pseudo-masks", "score-pseudo_masks"}
AFTER_PSEUDO = {"train-segmentation", "predict", "score-segmentation"}


@pytest.mark.parametrize(
    ("override", "redone"),
    [
        ("segmentation.test_flip=false", {"predict", "score-segmentation"}),
        ("segmentation.dense_crf=deeplab", {"predict-crf", "score-segmentation_crf"}),
        ("segmentation.training.epochs=3", AFTER_PSEUDO),
        ("pseudo_masks.unsure_margin=0.1", {"pseudo-masks", "score-pseudo_masks", *AFTER_PSEUDO}),
        ("activation.flip=false", {"activate", *AFTER_MAPS, *AFTER_PSEUDO}),
        ("method.reg_weight=3", {"train-method", "activate", *AFTER_MAPS, *AFTER_PSEUDO}),
        ("method.export=relu", {"activate", *AFTER_MAPS, *AFTER_PSEUDO}),
        ("pseudo_masks.background_power=4", {"pseudo-masks", "score-pseudo_masks", *AFTER_PSEUDO}),
        ("training.workers=2", set()),
        ("training.log_every=1", set()),
        ("activation.loaders=5", set()),
        ("about.title=other", set()),
        ("evaluation.fixed_background_score=0.2", {"score-maps", "score-pseudo_masks", "score-segmentation"}),
    ],
)
def test_a_changed_setting_redoes_only_what_depends_on_it(files, override, redone):
    assert changed(files["clims"], override) == redone


def test_a_changed_world_redoes_everything(files):
    assert changed(files["clims"], "data.world=8") == set(planned(files["clims"]))


def test_another_seed_trains_anew_on_the_same_data(files):
    assert changed(files["clims"], seed=1) == set(planned(files["clims"])) - {"data"}


def test_the_cam_stage_is_shared_by_the_recipes_that_start_from_it(files):
    cam, clims = planned(files["cam"]), planned(files["clims"])
    assert clims["initialise"].folder_name == cam["train-method"].folder_name
    assert clims["train-method"].fingerprint != cam["train-method"].fingerprint


def test_the_teachers_weights_are_part_of_the_fingerprint(files):
    before = planned(files["clims"])["train-method"].fingerprint
    card = files["teacher"] / "teacher.json"
    original = card.read_bytes() if card.exists() else None
    card.write_text("{}")
    try:
        assert planned(files["clims"])["train-method"].fingerprint != before
    finally:
        card.unlink() if original is None else card.write_bytes(original)
    assert planned(files["clims"])["train-method"].fingerprint == before


def test_a_missing_teacher_stops_the_plan_before_anything_runs(files, tmp_path):
    with pytest.raises(WeightsError, match="no weights"):
        planned(files["clims"], f"method.teacher={tmp_path / 'nowhere'}")


def test_a_supervised_recipe_has_no_stage_of_a_method(files):
    names = list(planned(files["cam"], "method=null", "segmentation.target=masks"))
    assert names == ["data", "train-segmentation", "predict", "score-segmentation"]


def test_the_twin_trains_the_same_network_on_other_targets(files):
    twin = planned(files["cam"], "method=null", "segmentation.target=masks")["train-segmentation"]
    weak = planned(files["cam"])["train-segmentation"]
    assert {**twin.settings, "target": None} == {**weak.settings, "target": None}


def test_masks_with_a_dense_crf_stand_beside_those_without(files):
    with_crf = planned(files["cam"], "segmentation.dense_crf=deeplab")
    assert list(with_crf)[-4:] == ["predict", "score-segmentation", "predict-crf", "score-segmentation_crf"]
    other = planned(files["cam"], "segmentation.dense_crf={iterations: 3}")
    redone = {name for name in other if other[name].fingerprint != with_crf[name].fingerprint}
    assert redone == {"predict-crf", "score-segmentation_crf"}
    assert with_crf["predict-crf"].inputs[0] is with_crf["train-segmentation"]
    ends = until_stage(tuple(with_crf.values()), "predict")
    assert ends[-1].name == "score-segmentation"


@pytest.mark.parametrize("network", ["v1-vgg", "v2-vgg", "v1-resnet"])
def test_other_networks_of_smvwe_are_trained_on_its_own_pseudo_masks(network):
    smvwe, other = planned(Path("scenes/smvwe")), planned(Path(f"scenes/smvwe-{network}"))
    assert list(smvwe) == list(other)
    redone = {name for name in other if other[name].fingerprint != smvwe[name].fingerprint}
    assert redone == AFTER_PSEUDO
    ours, theirs = (s["train-segmentation"].settings["training"] for s in (other, smvwe))
    assert ours == theirs


@pytest.mark.parametrize(
    ("preset", "trained", "predicted"),
    [
        ("scenes", "29b0aa93a971ef3a", "190cbdd23378ff2b"),
        ("voc12", "9d2c9616d904574c", "84e292a8154181f5"),
    ],
)
def test_settings_of_finished_networks_keep_their_fingerprints(preset, trained, predicted):
    config = SegmentationConfig(preset=preset)
    settings = segmentation_work.training_settings(config)
    assert fingerprint("train-segmentation", settings, (), seed=0, version=1) == trained
    settings = segmentation_work.prediction_settings(config)
    assert fingerprint("predict", settings, (), seed=None, version=1) == predicted


def test_until_ends_with_the_scoring_of_the_named_stage(files):
    stages = tuple(planned(files["clims"]).values())
    assert [stage.name for stage in until_stage(stages, "activate")][-1] == "score-maps"
    assert until_stage(stages, "evaluate") == stages
    with pytest.raises(RecipeError, match="no stage `refine`"):
        until_stage(stages, "refine")
