from __future__ import annotations

import json
from pathlib import Path

import pytest

from tiny_recipe import CAM_RECIPE, made_up_run, write_recipe
from wsss.engine.compare import compare, compare_runs, gain_counts, summary
from wsss.errors import RecipeError, StageError


def confusion(found: int, missed: int, false: int = 0, background: int = 100) -> list[list[int]]:
    return [[background - false, false], [missed, found]]


def test_summary_by_hand():
    mean, deviation, error = summary([50.0, 53.0, 56.0])
    assert mean == pytest.approx(53.0)
    assert deviation == pytest.approx(3.0)  # sqrt(((-3)^2 + 0 + 3^2) / 2)
    assert error == pytest.approx(3.0 / 3**0.5)
    assert summary([50.0]) == (50.0, None, None)


@pytest.mark.parametrize(
    ("by_seed", "counts"),
    [
        ([3.0, 4.0, 5.0], True),  # mean 4, standard error 0.577
        ([0.1, 10.0, 0.1], False),  # mean 3.4, standard error 3.3: positive everywhere, but uncertain
        ([5.0, 5.2, -0.1], False),  # one seed lost
        ([5.0], None),
    ],
)
def test_a_gain_counts_when_positive_everywhere_and_over_twice_its_standard_error(by_seed, counts):
    assert gain_counts(by_seed) is counts


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    # mIoU of one image is (background IoU + cat IoU) / 2
    for seed, found in enumerate((40, 50, 60)):
        made_up_run(tmp_path, "weak", seed, {"maps": {"fixed": [confusion(found, 100 - found)] * 4}})
        made_up_run(tmp_path, "strong", seed, {"maps": {"fixed": [confusion(found + 20, 80 - found)] * 4}})
    return tmp_path


def test_rows_and_gains_by_hand(runs: Path):
    names = [f"{name}-seed{seed}" for name in ("weak", "strong") for seed in range(3)]
    comparison = compare_runs([runs / name for name in names])
    rows = {(row.recipe, row.metric): row for row in comparison.rows}

    def miou(found: int) -> float:
        return 50 * (100 / (200 - found) + found / 100)

    weak, strong = [miou(f) for f in (40, 50, 60)], [miou(f) for f in (60, 70, 80)]
    assert list(rows["weak", "miou"].by_seed.values()) == pytest.approx(weak)
    assert rows["strong", "miou"].mean == pytest.approx(sum(strong) / 3)
    assert rows["weak", "iou:cat"].by_seed[1] == pytest.approx(50)
    assert rows["weak", "under_activation"].by_seed[0] == pytest.approx(60)  # foreground classes only
    assert rows["weak", "over_activation"].by_seed[0] == pytest.approx(0)
    assert ("weak", "cooccurrence:cat/grass") in rows  # the pair that most images show
    assert ("weak", "cooccurrence:cat/sky") not in rows
    (gain,) = comparison.gains
    assert gain.over == "weak"
    assert gain.mean == pytest.approx(sum(b - a for a, b in zip(weak, strong, strict=True)) / 3)
    assert gain.counts is True
    assert gain.interval is not None
    assert gain.interval == pytest.approx(
        (gain.mean, gain.mean)
    )  # all images are alike: resampling changes nothing
    json.dumps(comparison.to_dict())


def test_only_seeds_of_both_sides_enter_a_gain(runs: Path):
    (gain,) = compare_runs([runs / "weak-seed0", runs / "weak-seed1", runs / "strong-seed1"]).gains
    assert list(gain.by_seed) == [1]
    assert gain.counts is None


def test_the_weak_network_is_given_as_a_share_of_its_fully_supervised_twin(tmp_path: Path):
    for seed in (0, 1):
        made_up_run(tmp_path, "cam", seed, {"segmentation": {"automatic": [confusion(50, 50)]}})
    made_up_run(tmp_path, "full", 0, {"segmentation": {"none": [confusion(100, 0)]}}, supervision="F")
    comparison = compare_runs([tmp_path / name for name in ("cam-seed0", "cam-seed1", "full-seed0")])
    rows = [row for row in comparison.rows if row.metric == "weak_to_full"]
    assert [(row.recipe, list(row.by_seed)) for row in rows] == [("cam", [0])]  # seed 1 has no twin
    assert rows[0].mean == pytest.approx(50 * (100 / 150 + 0.5))


def test_a_dense_crf_behind_one_of_them_is_no_part_of_that_share(tmp_path: Path):
    weak = {"segmentation": {"automatic": [confusion(50, 50)]}}
    weak["segmentation_crf"] = {"automatic": [confusion(60, 40)]}
    first = made_up_run(tmp_path, "cam", 0, weak)
    record = json.loads((first / "run.json").read_text())
    record["recipe"]["segmentation"]["dense_crf"] = {"iterations": 10}
    (first / "run.json").write_text(json.dumps(record))
    full = {"segmentation": {"none": [confusion(100, 0)]}}
    second = made_up_run(tmp_path, "full", 0, full, supervision="F")
    (row,) = [r for r in compare_runs([first, second]).rows if r.metric == "weak_to_full"]
    assert (row.stage, row.mean) == ("segmentation", pytest.approx(50 * (100 / 150 + 0.5)))


@pytest.mark.parametrize(
    "change", [{"data_version": "2"}, {"val_split": "test"}, {"class_names": ["background", "dog"]}]
)
def test_runs_of_other_data_or_splits_are_refused(tmp_path: Path, change):
    images = {"maps": {"fixed": [confusion(50, 50)]}}
    first = made_up_run(tmp_path, "a", 0, images)
    second = made_up_run(tmp_path, "b", 0, images, data=change)
    with pytest.raises(RecipeError, match=f"can't be compared: their `{next(iter(change))}` differ"):
        compare_runs([first, second])


def test_two_recipes_of_one_name_are_refused_before_anything_runs(tmp_path: Path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_recipe(tmp_path / folder / "cam.yaml", CAM_RECIPE)
    with pytest.raises(RecipeError, match="are both called cam, so their runs would share a folder"):
        compare([tmp_path / "a" / "cam.yaml", tmp_path / "b" / "cam.yaml"], runs=tmp_path / "runs")


def test_an_unfinished_run_is_named(tmp_path: Path):
    with pytest.raises(StageError, match="no finished run"):
        compare_runs([tmp_path])


def test_seeds_with_other_settings_are_refused(tmp_path: Path):
    images = {"maps": {"fixed": [confusion(50, 50)]}}
    folders = [made_up_run(tmp_path, "a", seed, images) for seed in (0, 1)]
    record = json.loads((folders[1] / "run.json").read_text())
    record["recipe"]["about"]["minutes"] = 3  # says nothing about results
    (folders[1] / "run.json").write_text(json.dumps(record))
    compare_runs(folders)
    record["recipe"]["activation"]["flip"] = False
    (folders[1] / "run.json").write_text(json.dumps(record))
    with pytest.raises(RecipeError, match="a-seed1 are no seeds of one recipe: their `activation`"):
        compare_runs(folders)
