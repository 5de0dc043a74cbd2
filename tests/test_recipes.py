"""Every shipped recipe loads, says what it is, and shares what it can with the others."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev

import pytest
import torch

from tiny_recipe import random_teacher
from wsss.data import ScenesConfig
from wsss.engine.plan import plan
from wsss.engine.publish import read_rows
from wsss.engine.recipe import load_recipe
from wsss.engine.recipe_files import list_recipes
from wsss.engine.stages import Silence, Stage, Workspace
from wsss.errors import RecipeError

SCENES = [name for name in list_recipes() if name.startswith("scenes/")]
RESULTS = Path(__file__).resolve().parents[1] / "results"
HEADLINE = [name for name in SCENES if "demo" not in name]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_teacher(tmp_path_factory.mktemp("teacher") / "clip")


def planned(name: str, teacher: Path) -> dict[str, Stage]:
    overrides = [f"method.teacher={teacher}"] if load_recipe(name).method else []
    recipe = load_recipe(name, overrides)
    workspace = Workspace(Path("runs"), recipe.data, torch.device("cpu"), Silence())
    return {stage.name: stage for stage in plan(recipe, 0, workspace)}


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_loads_and_says_what_it_is(name: str):
    recipe = load_recipe(name)
    assert recipe.name == name
    about = recipe.about
    assert about.title
    assert about.hardware
    assert about.command.startswith("wsss ")
    assert about.paper or recipe.supervision == "F"
    for key in about.paper_values:
        stage, source, metric = key.split(".", 2)
        assert stage in ("maps", "pseudo_masks", "segmentation") or stage.startswith("refined-")
        assert source in ("fixed", "oracle", "automatic", "none")
        assert metric


@pytest.mark.parametrize("name", list_recipes())
def test_an_unknown_key_fails_with_a_suggestion(name: str):
    with pytest.raises(RecipeError, match=r"Unknown key `activation.scals`.*Did you mean `scales`"):
        load_recipe(name, ["activation.scals=1"])


@pytest.mark.parametrize("name", SCENES)
def test_scenes_recipes_share_their_data_and_their_common_cam(name: str, teacher: Path):
    stages, cam = (
        planned(name, teacher),
        planned("scenes/demo-cam" if "demo" in name else "scenes/cam", teacher),
    )
    assert stages["data"].fingerprint == cam["data"].fingerprint
    if "initialise" in stages:
        assert stages["initialise"].fingerprint == cam["train-method"].fingerprint


def test_headline_recipes_use_world_0_and_one_way_of_scoring():
    recipes = [load_recipe(name) for name in HEADLINE]
    assert {recipe.data.world for recipe in recipes if isinstance(recipe.data, ScenesConfig)} == {0}
    assert len({recipe.evaluation.model_dump_json() for recipe in recipes}) == 1
    assert len({recipe.activation.model_dump_json() for recipe in recipes if recipe.method}) == 1


def test_all_segmentation_networks_on_scenes_are_the_supervised_ones_twins(teacher: Path):
    full = planned("scenes/supervised", teacher)["train-segmentation"].settings
    for name in ("scenes/cam", "scenes/clims", "scenes/qa_clims"):
        assert {**planned(name, teacher)["train-segmentation"].settings, "target": "masks"} == full


def test_the_ablation_differs_from_clims_in_its_losses_only():
    full = load_recipe("scenes/clims").resolved()
    weights = {"otm_weight", "btm_weight", "cbs_weight", "reg_weight"}
    for name in ("otm", "otm-btm", "otm-btm-reg", "otm-btm-cbs"):
        other = load_recipe(f"scenes/ablation-{name}").resolved()
        assert {k for k, v in other["method"].items() if v != full["method"][k]} <= weights
        assert all(other["method"][k] in (0, full["method"][k]) for k in weights)
        assert [other[key] for key in ("data", "training", "initialise")] == [
            full[key] for key in ("data", "training", "initialise")
        ]


QA_PARTS = {
    "losses": ({"frc_weight", "brc_weight", "reg_weight"}, ("frc", "brc", "frc-brc")),
    "texts": (
        {"foreground", "background", "empty_background"},
        (
            *("label", "fine-grained", "alias", "object", "scene", "background"),
            *("fine-grained-alias", "fine-grained-alias-object"),
        ),
    ),
    "thresholds": ({"omega"}, ("omega-005", "omega-010", "omega-020", "omega-040")),
    "answers": ({"vqa"}, ("oracle",)),
}


@pytest.mark.parametrize("part", QA_PARTS)
def test_each_ablation_of_qa_clims_differs_from_it_in_one_part_only(part: str):
    full = load_recipe("scenes/qa_clims").resolved()
    keys, names = QA_PARTS[part]
    for name in names:
        other = load_recipe(f"scenes/ablation-qa-{name}").resolved()
        changed = {key for key, value in full["method"].items() if other["method"].get(key) != value}
        assert changed, name
        assert changed <= keys | ({"vqa"} if name == "label" else set()), name  # nothing is asked there
        assert [other[key] for key in ("data", "training", "initialise", "activation")] == [
            full[key] for key in ("data", "training", "initialise", "activation")
        ]
    clims = load_recipe("scenes/clims").resolved()
    assert clims["initialise"] == full["initialise"]
    assert clims["training"] == full["training"]


@pytest.mark.parametrize("name", list_recipes())
def test_minutes_and_expected_scores_are_those_of_the_results(name: str):
    about, rows = load_recipe(name).about, published(name)
    assert (about.minutes is not None) == bool(rows)
    assert bool(about.expected) == bool(rows)
    for key, found in about.expected.items():
        stage, source, metric = key.split(".", 2)
        columns = ("stage", "background_score_source", "metric")
        values = [float(row["value"]) for row in rows if [row[c] for c in columns] == [stage, source, metric]]
        spread = [stdev(values)] if len(values) > 1 else []
        assert found == [pytest.approx(value, abs=0.051) for value in (fmean(values), *spread)]


def published(name: str) -> list[dict[str, str]]:
    """A recipe's rows in results/."""
    rows: list[dict[str, str]] = []
    for path in sorted(RESULTS.glob("*.csv")):
        if path.name not in ("benchmarks.csv", "refine_photographs.csv"):
            rows += [row for row in read_rows(path) if row["recipe"] == name]
    return rows
