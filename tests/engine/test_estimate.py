"""The estimate: which stages it lists, and how its figures follow from counts and timed steps."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

import wsss.engine.estimate as estimating
from tiny_recipe import CAM_RECIPE, clims_recipe, random_teacher, training, write_recipe
from wsss.engine.estimate import Estimate, estimate
from wsss.engine.recipe import load_recipe
from wsss.engine.run import run


@pytest.fixture
def steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every timed step takes one hundredth of a second, so that figures can be calculated."""

    def timed(work, device):
        work()
        return 0.01

    monkeypatch.setattr(estimating, "_timed", timed)


def seconds(found: Estimate, title: str) -> float:
    (stage,) = (stage for stage in found.stages if title in stage.title.lower())
    return stage.seconds


def test_a_training_takes_its_steps_times_the_time_of_one(tmp_path: Path, steady_clock):
    recipe = load_recipe(write_recipe(tmp_path / "a.yaml", CAM_RECIPE))
    found = seconds(estimate(recipe, runs=tmp_path / "runs"), "train cam")
    loading = 12 * 4 * 64**2 * estimating.SECONDS_PER_PIXEL
    assert found == pytest.approx(4 * 3 * 0.01 + loading)  # 4 epochs of 12 images in batches of 4


def test_extraction_takes_each_image_at_each_scale_and_mirrored(tmp_path: Path, steady_clock):
    changed = copy.deepcopy(CAM_RECIPE)
    without_flip = {**changed["activation"], "flip": False}
    both = load_recipe(write_recipe(tmp_path / "a.yaml", changed))
    single = load_recipe(write_recipe(tmp_path / "b.yaml", changed, activation=without_flip))
    title = "write activation maps"
    handling = 12 * 64**2 * estimating.SECONDS_PER_PIXEL
    passes = [seconds(estimate(r, runs=tmp_path / "runs"), title) - handling for r in (both, single)]
    # one pass of 16 images at each of two scales takes one step of the clock
    assert passes == pytest.approx([2 * 2 * 12 * 0.01 / 16, 2 * 12 * 0.01 / 16])


def test_finished_stages_cost_nothing_and_nothing_is_written(tmp_path: Path):
    recipe = load_recipe(write_recipe(tmp_path / "a.yaml", CAM_RECIPE, training=training(1)))
    before = estimate(recipe, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    run(recipe, runs=tmp_path / "runs", until="activate")
    after = estimate(recipe, runs=tmp_path / "runs")
    done = {stage.title for stage in before.stages} - {stage.title for stage in after.stages}
    assert any("Train cam" in title for title in done)
    assert any("Write activation maps" in title for title in done)
    assert after.seconds < before.seconds
    assert after.disk_bytes < before.disk_bytes


def test_until_leaves_out_the_stages_after_it(tmp_path: Path):
    recipe = load_recipe(write_recipe(tmp_path / "a.yaml", CAM_RECIPE))
    found = estimate(recipe, runs=tmp_path / "runs", until="activate")
    assert not any("segmentation" in stage.title.lower() for stage in found.stages)


def test_all_kinds_of_stages_have_a_cost_and_random_states_stay(tmp_path: Path):
    recipe = load_recipe(write_recipe(tmp_path / "a.yaml", clims_recipe(random_teacher(tmp_path / "t"))))
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    found = estimate(recipe, runs=tmp_path / "runs")
    assert torch.equal(torch.rand(3), expected)
    assert all(stage.seconds > 0 for stage in found.stages)
    assert found.memory_bytes > 50e6
    assert found.free_disk_bytes > 0
