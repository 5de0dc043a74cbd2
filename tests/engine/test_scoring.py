"""Which stages follow the masks, and what becomes of scores where masks are missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tiny_recipe import CAM_RECIPE, Recorder, training, write_recipe
from wsss.cli import tables
from wsss.data import open_dataset
from wsss.data.masks_png import read_mask, write_mask
from wsss.engine import scoring
from wsss.engine.compare import compare_runs
from wsss.engine.measurements import finished_run
from wsss.engine.plan import plan
from wsss.engine.recipe import Recipe, load_recipe
from wsss.engine.run import RunResult, read_run, run
from wsss.engine.stages import Stage, Workspace
from wsss.errors import DataError
from wsss.report.passports import stage_title
from wsss.report.runs import read_reported
from wsss.report.score_table import score_table

SCORED = {"score-maps", "score-pseudo_masks", "score-segmentation"}
SPLITS = "ImageSets/Segmentation"


@pytest.fixture
def tree(tmp_path: Path, tiny_tree: Path) -> Path:
    return Path(shutil.copytree(tiny_tree, tmp_path / "tree"))


def ids(tree: Path, split: str) -> list[str]:
    return (tree / SPLITS / f"{split}.txt").read_text().split()


def mask_path(tree: Path, split: str, place: int) -> Path:
    return tree / "SegmentationClass" / f"{ids(tree, split)[place]}.png"


def loaded(tree: Path, supervised: bool = False, **changes: Any) -> Recipe:
    data = {"kind": "voc", "root": str(tree), "classes": "classes.yaml"}
    recipe = {key: CAM_RECIPE[key] for key in ("about", "segmentation")} if supervised else CAM_RECIPE
    if supervised:
        changes["segmentation"] = {**CAM_RECIPE["segmentation"], "target": "masks"}
    return load_recipe(write_recipe(tree.parent / "recipe.yaml", recipe, data=data, **changes))


def workspace(recipe: Recipe, runs: Path = Path("runs")) -> Workspace:
    return Workspace(runs, recipe.data, torch.device("cpu"), Recorder())


def planned(tree: Path, **how: Any) -> dict[str, Stage]:
    recipe = loaded(tree, **how)
    return {stage.name: stage for stage in plan(recipe, 0, workspace(recipe))}


def redone(tree: Path, before: dict[str, Stage], **how: Any) -> set[str]:
    after = planned(tree, **how)
    return {name for name in after if after[name].fingerprint != before[name].fingerprint}


def test_a_corrected_mask_is_scored_anew_and_trains_nothing_anew(tree: Path) -> None:
    before = planned(tree)
    write_mask(mask_path(tree, "train", 0), np.zeros((64, 64), np.uint8))
    assert redone(tree, before) == SCORED


def test_masks_that_come_later_are_scored_and_train_nothing_anew(tree: Path) -> None:
    (tree / "SegmentationClass").rename(tree / "later")
    before = planned(tree)
    (tree / "later").rename(tree / "SegmentationClass")
    assert redone(tree, before) == SCORED


def test_the_supervised_twin_is_trained_anew_when_a_mask_changes(tree: Path) -> None:
    before = planned(tree, supervised=True)
    write_mask(mask_path(tree, "train", 0), np.zeros((64, 64), np.uint8))
    assert redone(tree, before, supervised=True) == set(before)


def test_other_pixels_of_the_same_file_size_redo_everything(tree: Path) -> None:
    path = tree / "JPEGImages" / f"{ids(tree, 'train')[0]}.jpg"
    path.unlink()
    path = path.with_suffix(".bmp")
    Image.new("RGB", (64, 64), (9, 9, 9)).save(path)
    before = planned(tree)
    Image.new("RGB", (64, 64), (200, 9, 9)).save(path)
    assert redone(tree, before) == set(before)


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (
            "train",
            r"Maps and pseudo masks of split train .* 2 of its 12 .*{first}.* `evaluation\.maps_split`",
        ),
        ("val", r"Predicted masks of split val .* 2 of its 6 .* first .*{first}.* `data\.val_split`"),
    ],
)
def test_some_missing_masks_stop_the_plan_before_any_training(tree: Path, split: str, words: str) -> None:
    for place in (4, 2):
        mask_path(tree, split, place).unlink()
    with pytest.raises(DataError, match=words.format(first=mask_path(tree, split, 2).name)):
        planned(tree)


def test_images_that_are_only_trained_on_need_no_mask(tree: Path) -> None:
    mask_path(tree, "train", 0).unlink()
    (tree / SPLITS / "masked.txt").write_text("\n".join(ids(tree, "train")[1:]))
    assert set(planned(tree, evaluation={"maps_split": "masked"})) > SCORED


def test_untagged_images_need_no_mask_for_scores_of_maps(tree: Path) -> None:
    mask_path(tree, "train", 0).unlink()
    (tree / "Annotations" / f"{ids(tree, 'train')[0]}.xml").unlink()
    dataset = workspace(loaded(tree)).dataset
    assert scoring.scored_ids(dataset, "maps", "train") == tuple(ids(tree, "train")[1:])
    assert set(planned(tree)) > SCORED


def test_a_split_without_any_mask_is_no_error(tree: Path) -> None:
    for image_id in ids(tree, "train"):
        (tree / "SegmentationClass" / f"{image_id}.png").unlink()
    assert set(planned(tree)) > SCORED


@pytest.mark.parametrize(("kept", "words"), [(5, "1 of its 6"), (0, "has no masks")])
def test_masks_that_vanish_during_a_run_end_as_a_note(
    tree: Path, tmp_path: Path, kept: int, words: str
) -> None:
    recipe = loaded(tree)
    place = workspace(recipe, tmp_path / "runs")
    stages = {stage.name: stage for stage in plan(recipe, 0, place)}
    for gone in range(kept, 6):
        mask_path(tree, "val", gone).unlink()
    stage = stages["score-segmentation"]
    (tmp_path / "scored").mkdir()
    facts = stage.work(tmp_path / "scored", place, lambda done, total, note: None)
    assert facts is not None
    (note,) = place.listener.notes  # type: ignore[attr-defined]
    assert words in note
    assert json.dumps(facts["skipped"]) == json.dumps(note)
    assert not list((tmp_path / "scored").iterdir())


@pytest.mark.parametrize(("kept", "words"), [(11, r"1 of its 12 .*\.png"), (0, "nothing can be trained")])
def test_supervised_training_needs_every_mask_before_it_begins(tree: Path, kept: int, words: str) -> None:
    for gone in range(kept, 12):
        mask_path(tree, "train", gone).unlink()
    with pytest.raises(DataError, match=words):
        planned(tree, supervised=True)


def notes_without_masks(tree: Path, out: Path, **changes: Any) -> list[str]:
    """What a run says when each of its stages is scored, and nothing can be."""
    recipe = loaded(tree, **changes)
    place = workspace(recipe)
    recorded = [
        stage.work(out, place, lambda done, total, note: None)
        for stage in plan(recipe, 0, place)
        if stage.scores
    ]
    assert len(recorded) > 2
    assert all(facts and facts["skipped"] for facts in recorded)  # each stage's own record says it
    assert not list(out.glob("*"))
    return list(place.listener.notes)  # type: ignore[attr-defined]


def test_missing_masks_are_told_once_and_not_by_each_stage(tree: Path, tmp_path: Path) -> None:
    (tree / "SegmentationClass").rename(tmp_path / "elsewhere")
    out, crf = tmp_path / "scored", [{"name": "dense_crf"}]
    (note,) = notes_without_masks(tree, out, refine=crf)
    assert note == (
        "Splits train and val of tree have no masks, so maps, pseudo masks and predicted masks are not "
        "scored."
    )
    (note,) = notes_without_masks(tree, out, evaluation={"maps_split": "val"})
    assert note == "Split val of tree has no masks, so maps, pseudo masks and predicted masks are not scored."
    (note,) = notes_without_masks(tree, out, segmentation=None, refine=crf)
    assert note == "Split train of tree has no masks, so maps and pseudo masks are not scored."


def test_scored_stages_have_the_words_of_the_report() -> None:
    stages = ("maps", "words", "refined-dense_crf", "refined-irn-2", "pseudo_masks", *scoring.PREDICTED)
    titles = [stage_title(stage) for stage in stages]
    assert [scoring.scored_words(stage) for stage in stages] == [t[0].lower() + t[1:] for t in titles]


def test_a_split_without_tags_is_said_to_have_none(tree: Path, tmp_path: Path) -> None:
    for image_id in ids(tree, "val"):
        (tree / "Annotations" / f"{image_id}.xml").unlink()
    recipe = loaded(tree, evaluation={"maps_split": "val"})
    place = workspace(recipe)
    stages = {stage.name: stage for stage in plan(recipe, 0, place)}
    stages["score-maps"].work(tmp_path, place, lambda done, total, note: None)
    (note,) = place.listener.notes  # type: ignore[attr-defined]
    assert "No image of split val" in note


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A supervised run whose predictions a dense CRF refines."""
    folder = tmp_path_factory.mktemp("crf")
    recipe = {key: CAM_RECIPE[key] for key in ("about", "data", "segmentation")}
    parameters = {"iterations": 2, "appearance_rgb_std": 20}
    learns = {**training(10), "learning_rate": 1e-2, "steps": None}
    segmentation = {**CAM_RECIPE["segmentation"], "target": "masks", "dense_crf": parameters}
    segmentation["training"] = learns
    path = write_recipe(folder / "full.yaml", recipe, segmentation=segmentation)
    return run(path, runs=folder / "runs")


def masks(result: RunResult, name: str) -> dict[str, np.ndarray]:
    stage = next(entry for entry in read_run(result.folder)["stages"] if entry["name"] == name)
    folder = result.folder / stage["folder"] / "predictions"
    return {path.stem: read_mask(path) for path in sorted(folder.glob("*.png"))}


def test_predictions_with_and_without_a_dense_crf_are_kept_and_scored(refined: RunResult) -> None:
    assert list(refined.scores) == ["segmentation", "segmentation_crf"]
    plain, crf = masks(refined, "predict"), masks(refined, "predict-crf")
    assert plain.keys() == crf.keys()
    assert any((plain[name] != crf[name]).any() for name in plain)
    data = load_recipe(refined.folder / "recipe.yaml").data
    root = next(refined.folder.parent.glob("stages/data-*/tree"))
    dataset = open_dataset(data, root=root)
    for stage, found in (("segmentation", plain), ("segmentation_crf", crf)):
        confusion = np.zeros((len(dataset.class_names),) * 2, np.int64)
        for image_id, mask in found.items():
            true = dataset.sample(image_id, with_mask=True).mask
            assert true is not None
            np.add.at(confusion, (true[true != 255], mask[true != 255]), 1)
        same, present = np.diag(confusion), confusion.sum(1) > 0
        iou = same / np.maximum(1, confusion.sum(0) + confusion.sum(1) - same)
        scores = refined.scores[stage]
        assert scores["entries"][0]["miou"] == pytest.approx(iou[present].mean(), abs=1e-6)
        assert scores["images"] == len(dataset.ids("val")) == len(found)


def test_both_scores_are_measured_and_a_second_run_skips_them(refined: RunResult) -> None:
    found = finished_run(refined.folder)
    numbers = {m.stage: m.value for m in found.measurements if m.metric == "miou"}
    assert set(numbers) == {"segmentation", "segmentation_crf"}
    assert {m.split for m in found.measurements} == {"val"}
    assert found.per_image("segmentation_crf") != found.per_image("segmentation")
    listener = Recorder()
    run(refined.folder / "recipe.yaml", runs=refined.folder.parent, progress=listener)
    assert listener.started_titles == []
    assert "Score segmentation + CRF on val" in listener.skipped_titles


def test_both_scores_stand_in_the_tables(refined: RunResult, capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_scores(refined)
    tables.print_comparison(compare_runs([refined.folder]))
    shown = " ".join(capsys.readouterr().out.split())
    assert "segmentation_crf" not in shown
    assert shown.count("segmentation + CRF") >= 2
    page = str(score_table(read_reported([refined.folder])))
    for stage in refined.scores.values():
        assert f"{100 * stage['entries'][0]['miou']:.1f}" in page
