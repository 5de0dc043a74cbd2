"""A trained map network that a recipe names: its maps are those of the run that trained it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_recipe import CAM, CAM_RECIPE, training, write_recipe
from wsss.engine.recipe import load_recipe
from wsss.engine.run import RunResult, read_run, run
from wsss.errors import RecipeError, WeightsError
from wsss.training.checkpoint import load_state


def only_maps(weights: Path, **changes: Any) -> dict[str, Any]:
    kept = {key: CAM_RECIPE[key] for key in ("about", "data", "activation")}
    return {**kept, "method": {**CAM, "weights": str(weights)}, **changes}


def stage(result: RunResult, name: str) -> Path:
    record = read_run(result.folder)
    (folder,) = [result.folder / entry["folder"] for entry in record["stages"] if entry["name"] == name]
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    place = tmp_path_factory.mktemp("trained")
    recipe = {**CAM_RECIPE, "segmentation": None, "training": training(1)}
    return run(write_recipe(place / "cam.yaml", recipe), runs=place / "runs")


@pytest.fixture
def checkpoint(trained: RunResult, tmp_path: Path) -> Path:
    """As IRN saves it: from the data-parallel wrapper, as a plain `.pth`."""
    state, _ = load_state(stage(trained, "train-method") / "model.safetensors")
    path = tmp_path / "cam.pth"
    torch.save({f"module.{name}": value for name, value in state.items()}, path)
    return path


def test_without_training_the_weights_maps_are_written_and_scored(
    trained: RunResult, checkpoint: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "given.yaml", only_maps(checkpoint))
    result = run(recipe, runs=tmp_path / "runs")
    assert result.scores["maps"]["entries"] == trained.scores["maps"]["entries"]
    old, new = (sorted((stage(r, "activate") / "maps").rglob("*.npz")) for r in (trained, result))
    assert [path.name for path in old] == [path.name for path in new]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(old, new, strict=True))
    record = read_run(result.folder)
    assert set(record["weights"]) == {"weights"}
    assert record["supervision"] == "I"


def test_training_starts_from_the_weights(trained: RunResult, checkpoint: Path, tmp_path: Path) -> None:
    still = {**training(1), "learning_rate": 1e-12, "weight_decay": 0.0}
    recipe = write_recipe(tmp_path / "on.yaml", only_maps(checkpoint, training=still))
    result = run(recipe, runs=tmp_path / "runs", until="train-method")
    start, _ = load_state(stage(trained, "train-method") / "model.safetensors")
    end, _ = load_state(stage(result, "train-method") / "model.safetensors")
    torch.testing.assert_close(end["classifier.weight"], start["classifier.weight"], rtol=0, atol=1e-6)


def test_other_weights_are_another_stage(checkpoint: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "given.yaml", only_maps(checkpoint))
    run(recipe, runs=tmp_path / "runs", until="train-method")
    state = torch.load(checkpoint, weights_only=True)
    torch.save({name: value * 1.5 for name, value in state.items()}, checkpoint)
    run(recipe, runs=tmp_path / "runs", until="train-method")
    assert len(list((tmp_path / "runs" / "stages").glob("take-weights-*"))) == 2


def test_a_recipe_without_weights_does_not_mention_them(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path / "cam.yaml", CAM_RECIPE))
    assert "weights" not in recipe.resolved()["method"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": CAM}, "`training` is missing.*`method.weights`"),
        ({"initialise": {"method": CAM, "training": training(1)}}, "`method.weights` and `initialise` are"),
    ],
)
def test_what_contradicts_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_recipe(tmp_path / "bad.yaml", only_maps(tmp_path / "cam.pth", **changes))
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_weights_of_other_classes_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)
    state["module.classifier.weight"] = state["module.classifier.weight"][:3]
    torch.save(state, checkpoint)
    recipe = write_recipe(tmp_path / "given.yaml", only_maps(checkpoint))
    with pytest.raises(WeightsError, match=r"can't start from these weights: .*classifier\.weight"):
        run(recipe, runs=tmp_path / "runs", until="train-method")
