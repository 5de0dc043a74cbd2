"""The estimate: which stages it lists, and how its figures follow from counts and timed steps."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fake_parts import MemoryDataset

import wsss.engine.estimate as estimating
from tiny_recipe import (
    CAM_RECIPE,
    REFINERS,
    clims_recipe,
    random_teacher,
    smvwe_recipe,
    training,
    write_recipe,
)
from wsss.data import FolderConfig
from wsss.engine.data_facts import SAMPLED_SIZES, data_facts, sampled_sizes
from wsss.engine.estimate import Estimate, estimate
from wsss.engine.recipe import load_recipe
from wsss.engine.run import run
from wsss.errors import DataError


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


SIZES = ((32, 32), (16, 32), (160, 320))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, steady_clock) -> list[tuple[int, ...]]:
    """Shapes of the images that are passed for timing, of a data set of images of three sizes."""
    found: list[tuple[int, ...]] = []
    facts = estimating.data_facts

    def timed(work, device):
        if isinstance(work, partial):
            found.append(tuple(work.args[-1].shape))
            work()
        return 0.01

    def three_sizes(recipe, workspace):
        return replace(facts(recipe, workspace), sizes=SIZES)

    monkeypatch.setattr(estimating, "_timed", timed)
    monkeypatch.setattr(estimating, "data_facts", three_sizes)
    return found


def capped_recipe(folder: Path, cap: int, **sections):
    activation = {**CAM_RECIPE["activation"], "scales": [1.0, 2.0, 0.25], "max_pixels": cap}
    return load_recipe(write_recipe(folder / "a.yaml", CAM_RECIPE, activation=activation, **sections))


def test_the_largest_image_is_passed_no_larger_than_the_work_passes_it(tmp_path: Path, shown):
    cap = 64 * 128
    estimate(capped_recipe(tmp_path, cap, segmentation=None), runs=tmp_path / "runs")
    assert [shape[2:] for shape in shown] == [(64, 128), (40, 80)]  # scales 1 and 2 are one size
    assert max(prod(shape[2:]) for shape in shown) <= cap


def test_the_time_is_that_of_images_of_average_size(tmp_path: Path, shown):
    cap = 64 * 128
    found = estimate(capped_recipe(tmp_path, cap, segmentation=None), runs=tmp_path / "runs")
    handling = 12 * sum(map(prod, SIZES)) / 3 * estimating.SECONDS_PER_PIXEL
    scale_1 = (32 * 32 + 16 * 32 + cap) / 3 / cap
    scale_2 = (64 * 64 + 32 * 64 + cap) / 3 / cap
    scale_quarter = (8 * 8 + 4 * 8 + 40 * 80) / 3 / (40 * 80)
    expected = 12 * 2 * 0.01 / 16 * (scale_1 + scale_2 + scale_quarter)
    assert seconds(found, "write activation maps") - handling == pytest.approx(expected)


def test_prediction_is_timed_with_the_largest_image_capped(
    tmp_path: Path, shown, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(estimating, "MAX_PIXELS", 64 * 128)
    estimate(capped_recipe(tmp_path, 64 * 64), runs=tmp_path / "runs")
    assert shown[-1][2:] == (64, 128)


def test_the_memory_of_extraction_counts(tmp_path: Path, shown, monkeypatch: pytest.MonkeyPatch):
    def used_memory(device):
        return 1e6 * max((prod(shape[2:]) for shape in shown), default=0)  # dwarfs the weights

    monkeypatch.setattr(estimating, "_used_memory", used_memory)
    caps = (32 * 64, 64 * 128)
    small, large = (
        estimate(capped_recipe(tmp_path, cap, segmentation=None), runs=tmp_path / "runs") for cap in caps
    )
    assert large.memory_bytes > small.memory_bytes


def test_sizes_are_read_of_a_few_spread_images_and_unreadable_ones_left_out(
    monkeypatch: pytest.MonkeyPatch,
):
    dataset = MemoryDataset([(8, 8 + number % 3) for number in range(1000)], [[1]] * 1000)
    asked = []

    def image_size(image_id):
        asked.append(image_id)
        if len(asked) == 1:
            raise DataError("Image image_0 is empty (0 bytes). Replace it.")
        return dataset.images[image_id].shape[:2]

    monkeypatch.setattr(dataset, "image_size", image_size)
    sizes = sampled_sizes(dataset, dataset.names)
    assert 300 <= len(asked) <= SAMPLED_SIZES
    assert asked[-1] >= "image_99"
    assert len(sizes) == len(asked) - 1
    assert sampled_sizes(dataset, ()) == ((1, 1),)


def test_finished_stages_cost_nothing_and_nothing_is_written(tmp_path: Path, steady_clock):
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


def test_refining_takes_training_labels_and_each_image_once(tmp_path: Path, steady_clock):
    recipe = load_recipe(write_recipe(tmp_path / "a.yaml", CAM_RECIPE, refine=REFINERS[1:4]))
    found, cores = estimate(recipe, runs=tmp_path / "runs"), torch.get_num_threads()
    handling = 12 * 64**2 * estimating.SECONDS_PER_PIXEL
    loading = 3 * 4 * 64**2 * estimating.SECONDS_PER_PIXEL
    trained = 3 * 0.01 + loading  # 3 steps of 4 images
    for title in ("maps (psa)", "maps (irn)"):
        assert seconds(found, title) == pytest.approx(handling + trained + 2 * 12 * 0.01 / cores)
    assert seconds(found, "maps (dense_crf)") == pytest.approx(handling + 12 * 0.01 / cores)


@pytest.mark.parametrize(("split", "images"), [(None, 12), ("train", 12), ("val", 6), ("trainval", 18)])
def test_words_are_those_of_the_scored_images(tmp_path: Path, steady_clock, split: str | None, images: int):
    changed = {**smvwe_recipe(), "evaluation": {"maps_split": split}}
    recipe = load_recipe(write_recipe(tmp_path / "a.yaml", changed))
    found = estimate(recipe, runs=tmp_path / "runs", until="write-words")
    (stage,) = (stage for stage in found.stages if stage.title == "Write word maps")
    one_pass = 2 * 2 * 0.01 / 16 / 4  # 16 images at two scales and mirrored
    assert stage.seconds == pytest.approx(images * (64**2 * estimating.SECONDS_PER_PIXEL + one_pass))
    assert stage.disk_bytes == images * 64**2 / 20


def test_detection_takes_as_long_whatever_the_size_of_the_images(tmp_path: Path, shown):
    recipe = load_recipe(write_recipe(tmp_path / "a.yaml", smvwe_recipe()))
    found = estimate(recipe, runs=tmp_path / "runs", until="detect-saliency")
    handling = 12 * sum(map(prod, SIZES)) / 3 * estimating.SECONDS_PER_PIXEL
    assert seconds(found, "salien") == pytest.approx(2 * handling + 12 * 0.01)


def test_tagged_images_of_the_scored_split_are_counted():
    dataset = MemoryDataset([(8, 8)] * 5, [[1]] * 5)
    dataset.ids = {"train": dataset.names[:4], "scored": dataset.names[2:]}.__getitem__
    dataset.is_tagged = lambda image_id: image_id != "image_3"
    config = FolderConfig()
    method = SimpleNamespace()
    recipe = SimpleNamespace(data=config, segmentation=None, method=method, maps_split="scored")
    facts = data_facts(recipe, SimpleNamespace(dataset=dataset))
    assert (facts.train, facts.val, facts.scored) == (3, 0, 2)
    recipe.method = None
    assert data_facts(recipe, SimpleNamespace(dataset=dataset)).scored == 0
