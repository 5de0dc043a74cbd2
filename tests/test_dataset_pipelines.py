"""From image-level labels to scored masks on miniature VOC (with SBD and PASCAL-Context) and COCO trees."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.test_commands import call, plain
from data.tiny_trees import (
    BOAT,
    LISTS,
    SBD_ONLY,
    SIZE,
    WATER,
    coco_id,
    number_of,
    scene,
    with_ignored_band,
    write_coco,
    write_voc,
)
from tiny_recipe import CAM, Recorder, write_recipe
from wsss.activation.scoring import score_masks
from wsss.data import open_dataset
from wsss.data.coco_masks import CocoMasks
from wsss.data.file_dataset import FileDataset
from wsss.data.masks_png import read_mask, write_mask
from wsss.data.true_masks import PngMasks
from wsss.engine.recipe import load_recipe
from wsss.engine.run import RunResult, read_run, run

TRAINING: dict[str, Any] = {
    "steps": 3,
    "batch_size": 2,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "augmentation": {"crop_size": 64, "scale": [0.9, 1.1]},
}
RECIPE: dict[str, Any] = {
    "about": {"title": "tiny", "command": "wsss run tiny.yaml"},
    "method": CAM,
    "training": TRAINING,
    "activation": {"scales": [1.0, 0.5]},
    "pseudo_masks": {"background_score": 0.2},
    "segmentation": {"preset": "scenes", "training": {**TRAINING, "epochs": None}},
}


def stage_folder(result: RunResult, name: str) -> Path:
    stages = {stage["name"]: stage["folder"] for stage in read_run(result.folder)["stages"]}
    return (result.folder / stages[name]).resolve()


def readers_of_masks(monkeypatch: pytest.MonkeyPatch, listener: Recorder) -> set[str]:
    """Fills with the stages that ask for a true mask or context map, whatever its file."""
    readers: set[str] = set()
    for method in ("_true_mask", "context"):
        original = getattr(FileDataset, method)

        def recorded(self, *args, original=original):
            readers.add(listener.current)
            return original(self, *args)

        monkeypatch.setattr(FileDataset, method, recorded)
    for source in (PngMasks, CocoMasks):
        own = source.read

        def read(self, image_id, own=own):
            readers.add(listener.current)
            return own(self, image_id)

        monkeypatch.setattr(source, "read", read)
    return readers


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("voc")
    data = {
        "kind": "voc",
        "root": str(write_voc(place / "tree")),
        "name": "tiny-voc",
        "train_split": "train_aug",
        "context": "Context",
        "context_names": "labels.txt",
    }
    evaluation = {"maps_split": "train_aug"}
    return write_recipe(place / "voc.yaml", RECIPE, data=data, evaluation=evaluation)


@pytest.fixture(scope="module")
def voc_run(voc: Path) -> RunResult:
    return run(voc, runs=voc.parent / "runs")


def test_voc_goes_from_labels_to_scores(voc_run: RunResult) -> None:
    assert list(voc_run.scores) == ["maps", "pseudo_masks", "segmentation"]
    assert voc_run.scores["maps"]["images"] == 6
    assert voc_run.scores["segmentation"]["images"] == 2
    names = {path.stem for path in (stage_folder(voc_run, "pseudo-masks") / "pseudo_masks").glob("*.png")}
    assert names == {*LISTS["train"], *SBD_ONLY}


def test_scores_of_voc_have_confusions_with_the_context_and_edges_of_sbd(voc_run: RunResult) -> None:
    (entry,) = voc_run.scores["pseudo_masks"]["entries"]
    assert entry["cooccurrence"]["boat/water"]["images"] == 2
    assert "train/track" in entry["cooccurrence"]
    assert (entry["boundary_source"], entry["boundary_images"]) == ("sbd", 4)


def test_confusion_ratios_are_those_counted_by_hand(voc: Path, tmp_path: Path) -> None:
    """Every pixel of moved masks: boats found on water that is background, over boats found rightly."""
    dataset, ids = open_dataset(load_recipe(voc).data), (*LISTS["train"], *SBD_ONLY)
    false = found = images = 0
    for image_id in ids:
        _, mask, context = scene(number_of(image_id))
        predicted = np.roll(mask, (4, -7), axis=(0, 1))
        write_mask(tmp_path / f"{image_id}.png", predicted)
        if image_id in LISTS["train"]:  # VOC's own mask with its band of ignored pixels
            mask = with_ignored_band(mask)
        images += bool((mask == BOAT).any())
        for row, column in np.argwhere(predicted == BOAT):
            found += mask[row, column] == BOAT
            false += mask[row, column] == 0 and context[row, column] == WATER
    (entry,) = score_masks(tmp_path, dataset, ids)["entries"]
    pair = entry["cooccurrence"]["boat/water"]
    assert pair["images"] == images == 2
    assert pair["confusion_ratio"] == pytest.approx(false / found)
    assert 0.1 < pair["confusion_ratio"] < 1


def test_neither_masks_nor_context_of_voc_reach_training(
    voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Recorder()
    readers = readers_of_masks(monkeypatch, listener)
    run(voc, runs=tmp_path / "runs", progress=listener)
    assert readers == {title for title in listener.started_titles if title.startswith("Score ")}


def test_a_changed_context_map_redoes_scores_alone(voc_run: RunResult, voc: Path) -> None:
    path = voc.parent / "tree" / "Context" / f"{LISTS['train'][0]}.mat"
    content = path.read_bytes()
    shutil.copyfile(path.with_name(f"{LISTS['train'][1]}.mat"), path)
    listener = Recorder()
    try:
        run(voc, runs=voc.parent / "runs", progress=listener)
    finally:
        path.write_bytes(content)
    assert listener.started_titles
    assert all(title.startswith("Score ") for title in listener.started_titles)


def test_a_network_may_learn_from_all_masks_of_sbd(voc: Path) -> None:
    recipe = load_recipe(voc, ["method=null", "training=null", "segmentation.target=masks"])
    result = run(recipe, runs=voc.parent / "runs")
    assert read_run(result.folder)["supervision"] == "F"
    record = json.loads((stage_folder(result, "train-segmentation") / "stage.json").read_text())
    assert record["facts"]["images"] == 6


def test_test_images_are_predicted_and_submitted(voc_run: RunResult, voc: Path, tmp_path: Path) -> None:
    listener, archive = Recorder(), tmp_path / "results.tar.gz"
    result = run(load_recipe(voc, ["data.val_split=test"]), runs=voc.parent / "runs", progress=listener)
    assert listener.started_titles == ["Predict masks", "Score segmentation on test"]  # nothing is trained
    assert any("has no masks" in note for note in listener.notes)
    done = call("submission", result.folder, "--out", archive)
    assert done.exit_code == 0, done.output
    assert "2 masks for comp5." in plain(done.stdout)
    assert "has 1,456 images: the server would refuse" in plain(done.stdout)
    checked = call("submission", "--check", archive, "--voc", voc.parent / "tree")
    assert checked.exit_code == 0, checked.output
    refused = call("submission", voc_run.folder, "--out", archive)
    assert refused.exit_code == 2
    assert "predictions of the split `test`; got those of `val`" in plain(refused.output)


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("coco")
    data = {"kind": "coco", "root": str(write_coco(place / "tree")), "name": "tiny-coco"}
    evaluation = {"maps_split": "train_first_3"}
    return write_recipe(place / "coco.yaml", RECIPE, data=data, evaluation=evaluation)


def test_coco_goes_from_labels_to_scores(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Recorder()
    readers = readers_of_masks(monkeypatch, listener)
    result = run(coco, runs=coco.parent / "runs", progress=listener)
    assert readers == {title for title in listener.started_titles if title.startswith("Score ")}
    assert "Score maps on train_first_3" in readers
    assert [result.scores[key]["images"] for key in ("maps", "pseudo_masks", "segmentation")] == [3, 3, 2]
    record = read_run(result.folder)
    assert record["data"]["maps_split"] == "train_first_3"
    assert len(record["data"]["class_names"]) == 81
    pseudo = stage_folder(result, "pseudo-masks") / "pseudo_masks"
    assert len(list(pseudo.glob("*.png"))) == 5
    assert not read_mask(pseudo / f"{coco_id('train', 34)}.png").any()  # no label, all background
    assert not list((coco.parent / "tree").rglob("*.png"))
    (entry,) = result.scores["segmentation"]["entries"]
    confusion = np.array(entry["confusion"])
    assert confusion.sum() == 2 * SIZE[0] * SIZE[1]
    assert confusion.sum(axis=1)[9] == 22 * 30 - 20 * 10  # a boat, partly behind a person
