"""What doesn't fit together is found while the stages are planned, before anything runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tiny_recipe import CAM_RECIPE, REFINERS, clims_recipe, random_teacher, training, write_recipe
from wsss.engine.plan import plan
from wsss.engine.recipe import load_recipe
from wsss.engine.stages import Silence, Workspace
from wsss.errors import RecipeError, ShapeError


@pytest.fixture
def clims(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "clims.yaml", clims_recipe(random_teacher(tmp_path / "teacher")))


def planned(path: Path, *overrides: str) -> None:
    recipe = load_recipe(path, overrides)
    plan(recipe, 0, Workspace(path.parent / "runs", recipe.data, torch.device("cpu"), Silence()))
    assert not (path.parent / "runs").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "evaluation.also_without=[hors]",
            r"names `hors`, which is no class of the data. Choose one of `aeroplane`",
        ),
        ("method.class_prompts={hors: steed}", "`class_prompts` names the class `hors`"),
        ("initialise.method.backbone=resnet50", "their backbones differ. Give both the same `backbone`"),
        ("initialise.method.output_stride=4", "their backbones differ"),
    ],
)
def test_unknown_classes_and_other_backbones_are_named(clims: Path, override: str, message: str):
    planned(clims)
    with pytest.raises(RecipeError, match=message):
        planned(clims, override)


def test_an_output_stride_that_the_network_lacks_is_named(clims: Path):
    with pytest.raises(ShapeError, match="`output_stride` of resnet_small must be 4 or 8; got 3"):
        planned(clims, "segmentation.output_stride=3")


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("refine.2.backbone=resnet_smal", RecipeError, "Unknown backbone `resnet_smal`"),
        ("refine.2.grid_stride=3", ShapeError, "`grid_stride` must be the stride of one of the backbone's"),
        ("refine.1.output_stride=5", ShapeError, "`output_stride` of resnet_small must be 4 or 8; got 5"),
        ("refine.1.backbone_options={no_such: true}", RecipeError, "do not fit the backbone"),
    ],
)
def test_networks_of_refiners_are_built_before_anything_runs(tmp_path: Path, override, error, message):
    path = write_recipe(tmp_path / "refined.yaml", CAM_RECIPE, refine=REFINERS)
    planned(path)
    with pytest.raises(error, match=message):
        planned(path, override)


@pytest.mark.parametrize("key", ["training", "segmentation.training", "refine.2.training"])
def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path, key: str):
    for number in range(6):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    rows = "".join(f"{number}.png,cow\n" for number in range(6))
    (tmp_path / "tags.csv").write_text(f"image,labels\n{rows}")
    data = {"kind": "folder", "root": str(tmp_path), "tags": "tags.csv", "val_fraction": 0.2}
    changes = {"training": training(1), "refine": REFINERS}
    path = write_recipe(tmp_path / "cam.yaml", CAM_RECIPE, data=data, **changes)
    planned(path)
    with pytest.raises(
        RecipeError, match=rf"`{key}.batch_size` is 16, but split train of .* has only 5 tagged"
    ):
        planned(path, f"{key}.batch_size=16")
    planned(path, f"{key}.batch_size=16", f"{key}.drop_last=false")
