from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiny_recipe import CAM_RECIPE, Recorder, made_up_run, write_recipe
from wsss.engine.compare import Comparison, compare, compare_runs
from wsss.engine.publish import publish
from wsss.errors import RecipeError

CONFUSION = [[90, 10], [20, 30]]
IMAGES = {
    "maps": {"fixed": [CONFUSION] * 4, "oracle": [CONFUSION] * 4},
    "pseudo_masks": {"automatic": [CONFUSION] * 4},
    "segmentation": {"automatic": [CONFUSION] * 2},
    "segmentation_crf": {"automatic": [CONFUSION] * 2},
}


def edit(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def edit_scores(folder: Path, stage: str, change: Callable[[Any], None]) -> None:
    pattern = f"score-{stage}-{folder.name.rpartition('-')[0]}-*/scores.json"
    for path in (folder.parent / "stages").glob(pattern):
        edit(path, change)


def with_fixed_score(folder: Path) -> None:
    edit_scores(folder, "maps", lambda scores: scores["entries"][0].update(background_score=0.2))


def with_fewer_images(folder: Path) -> None:
    edit_scores(folder, "segmentation", lambda scores: scores.update(images=1))


def in_recipe(section: str, **values: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "run.json", lambda run: run["recipe"][section].update(values))


def in_data(**values: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "run.json", lambda run: run["data"].update(values))


DIFFERENT: list[tuple[str, Callable[[Path], None], str]] = [
    ("fixed background score of maps", with_fixed_score, "0.15 (a-seed0), 0.2 (b-seed0)"),
    ("scales of maps", in_recipe("activation", scales=[1.0]), "0.5 1 (a-seed0), 1 (b-seed0)"),
    ("flip of maps", in_recipe("activation", flip=False), "yes (a-seed0), no (b-seed0)"),
    ("scales of segmentation", in_recipe("segmentation", test_scales=[1, 2]), "1 (a-seed0), 1 2 (b-seed0)"),
    ("flip of segmentation", in_recipe("segmentation", test_flip=True), "no (a-seed0), yes (b-seed0)"),
    (
        "dense CRF on predictions",
        in_recipe("segmentation", dense_crf={"iterations": 5}),
        'null (a-seed0), {"iterations": 5} (b-seed0)',
    ),
    ("images scored of segmentation", with_fewer_images, "2 (a-seed0), 1 (b-seed0)"),
    ("data_version", in_data(data_version="2"), "1 (a-seed0), 2 (b-seed0)"),
    ("train_split", in_data(train_split="train_aug"), "train (a-seed0), train_aug (b-seed0)"),
    ("val_split", in_data(val_split="test"), "val (a-seed0), test (b-seed0)"),
    ("maps_split", in_data(maps_split="val"), "train (a-seed0), val (b-seed0)"),
]
CASES = pytest.mark.parametrize(("what", "change", "values"), DIFFERENT, ids=[case[0] for case in DIFFERENT])


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [made_up_run(tmp_path, name, 0, IMAGES, method="cam") for name in ("a", "b", "c")]


@CASES
def test_numbers_that_mean_different_things_are_refused(
    folders: list[Path], what: str, change: Callable[[Path], None], values: str
) -> None:
    change(folders[1])
    message = rf"a-seed0 and b-seed0 can't be compared: their `{what}` differ .*`--mix-protocols`"
    for order in (folders, [folders[0], folders[2], folders[1]]):  # also where the first two agree
        with pytest.raises(RecipeError, match=message):
            compare_runs(order)


@CASES
def test_they_are_mixed_on_request_and_that_is_said(
    folders: list[Path], what: str, change: Callable[[Path], None], values: str
) -> None:
    change(folders[1])
    comparison = compare_runs(folders, mix_protocols=True)
    assert comparison.mixed == (f"{what}: {values}",)
    assert comparison.to_dict()["mixed"] == [f"{what}: {values}"]
    assert {row.recipe for row in comparison.rows} == {"a", "b", "c"}
    json.dumps(comparison.to_dict())


@pytest.mark.parametrize("change", [{"name": "others"}, {"class_names": ["background", "dog"]}])
def test_other_data_sets_and_classes_are_never_mixed(folders: list[Path], change: dict[str, Any]) -> None:
    in_data(**change)(folders[1])
    with pytest.raises(RecipeError, match=r"their `\w+` differ .* Compare runs of the same data and classes"):
        compare_runs(folders, mix_protocols=True)


def changed_method(folder: Path) -> None:
    edit(folder / "run.json", lambda run: run["recipe"].update(method={"name": "clims", "area_weight": 7}))


def other_supervision(folder: Path) -> None:
    edit(folder / "run.json", lambda run: run.update(supervision="I+S"))


def pseudo_masks_at_another_score(folder: Path) -> None:
    def change(scores: Any) -> None:
        scores["entries"][0].update(background_score_source="fixed", background_score=0.3)

    edit_scores(folder, "pseudo_masks", change)


@pytest.mark.parametrize(
    "change",
    [
        changed_method,
        other_supervision,
        pseudo_masks_at_another_score,
        in_recipe("activation", scales=[0.5, 1.0]),  # the same ones: scales are summed
        in_recipe("segmentation", backbone="vgg16"),
        lambda folder: edit(folder / "run.json", lambda run: run["recipe"].update(refine=[{"name": "irn"}])),
        lambda folder: edit(folder / "run.json", lambda run: run["weights"].update(teacher="0" * 64)),
    ],
)
def test_settings_that_are_under_study_may_differ(
    folders: list[Path], change: Callable[[Path], None]
) -> None:
    change(folders[1])
    assert compare_runs(folders).mixed == ()


def test_a_stage_that_only_some_runs_have_asks_nothing_of_the_others(tmp_path: Path) -> None:
    maps = made_up_run(tmp_path, "a", 0, {"maps": IMAGES["maps"]}, method="cam")
    network = made_up_run(tmp_path, "b", 0, {"segmentation": IMAGES["segmentation"]}, method="cam")
    in_recipe("activation", scales=[2.0])(network)  # no maps of it are scored
    assert compare_runs([maps, network]).mixed == ()


def test_mixed_runs_of_other_images_have_no_paired_interval(tmp_path: Path) -> None:
    first = made_up_run(tmp_path, "a", 0, {"maps": {"fixed": [CONFUSION] * 4}})
    second = made_up_run(tmp_path, "b", 0, {"maps": {"fixed": [CONFUSION] * 3}})
    (gain,) = compare_runs([first, second], mix_protocols=True).gains
    assert gain.mean == pytest.approx(0)
    assert gain.interval is None


def test_passports_are_part_of_the_comparison(folders: list[Path]) -> None:
    comparison: Comparison = compare_runs(folders)
    found = [(p.recipe, p.stage, p.background_score_source) for p in comparison.passports]
    assert len(found) == len(set(found)) == 3 * 5
    written = json.loads(json.dumps(comparison.to_dict()))["passports"][0]
    assert (written["split"], written["images"], written["supervision"]) == ("train", 4, "I")
    assert written["weights"] == {"teacher": "f" * 64}


def test_published_rows_may_be_tested_in_several_ways_but_not_on_several_data(
    folders: list[Path], tmp_path: Path
) -> None:
    in_recipe("segmentation", test_scales=[1, 2])(folders[1])
    (path,) = publish(folders, tmp_path / "results")
    assert ",1 2," in path.read_text()
    in_data(val_split="test")(folders[1])
    with pytest.raises(RecipeError, match="their `val_split` differ"):
        publish(folders, tmp_path / "results")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"activation": {"scales": [1.0]}}, "scales of maps"),
        ({"evaluation": {"fixed_background_score": 0.2}}, "fixed background score of maps"),
        ({"data": {**CAM_RECIPE["data"], "val_split": "train"}}, "val_split"),
    ],
)
def test_recipes_are_refused_before_anything_runs(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    first = write_recipe(tmp_path / "a.yaml", CAM_RECIPE)
    second = write_recipe(tmp_path / "b.yaml", CAM_RECIPE, **changes)
    recorder = Recorder()
    with pytest.raises(RecipeError, match=f"a and b can't be compared: their `{what}` differ"):
        compare([first, second], seeds=(0,), runs=tmp_path / "runs", progress=recorder)
    assert not recorder.started_titles
    assert not (tmp_path / "runs").exists()
