"""From a folder of images and tags to a mask of every image, interrupted or not, scored or not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scene_folder import write_scene_folder
from tiny_recipe import Recorder
from wsss.data.masks_png import read_mask
from wsss.engine.label import HEADING, LabelSettings, _make_room, label_folder, label_recipe
from wsss.engine.recipe import load_recipe, parse_recipe
from wsss.engine.stages import stage_record
from wsss.errors import DataError, RecipeError

UNTAGGED = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_scenes: Any, tiny_tree: Path) -> Path:
    """18 images, the last three untagged, the first five with masks."""
    root = tmp_path_factory.mktemp("label") / "scenes"
    return write_scene_folder(tiny_scenes, tiny_tree, root, untagged=UNTAGGED, masks=5)


@pytest.fixture
def settings(folder: Path, tmp_path: Path) -> LabelSettings:
    return LabelSettings(folder / "images", folder / "tags.csv", tmp_path / "out", quick=True, refine=())


class Interrupter(Recorder):
    """Presses Ctrl-C when a stage begins."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    def started(self, title: str) -> Any:
        if title == self._title:
            raise KeyboardInterrupt
        return super().started(title)


def masks_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_image_gets_a_mask_and_an_interrupted_call_goes_on(
    settings: LabelSettings, tiny_scenes: Any, tmp_path: Path
):
    with pytest.raises(KeyboardInterrupt):
        label_folder(settings, progress=Interrupter("Write pseudo masks"))
    assert not (settings.out / "masks").exists()
    resumed = Recorder()
    labelled = label_folder(settings, progress=resumed)
    assert "Train smvwe" in resumed.skipped_titles
    assert "Train smvwe" not in resumed.started_titles
    assert (labelled.from_tags, labelled.from_network) == (15, UNTAGGED)
    assert [path.stem for path in sorted(labelled.masks.iterdir())] == sorted(tiny_scenes.ids("all"))
    check_masks(labelled, tiny_scenes)
    check_rows(labelled, tiny_scenes)
    again = replace(settings, out=tmp_path / "again")
    assert masks_of(label_folder(again).masks) == masks_of(labelled.masks)
    summary = json.loads((settings.out / "label.json").read_text())
    assert summary["background_score"] == labelled.background_score
    assert (labelled.background_source, labelled.oracle) == ("automatic", None)
    assert load_recipe(settings.out / "recipe.yaml") == parse_recipe(label_recipe(settings), "test")


def check_masks(labelled: Any, scenes: Any) -> None:
    """Masks of tagged images are the pseudo masks, the others the network's predictions."""
    stages = labelled.run_folder.parent / "stages"
    (pseudo,) = stages.glob("pseudo-masks-*/pseudo_masks")
    (predicted,) = stages.glob("predict-*/predictions")
    ids = scenes.ids("all")
    for place, image_id in enumerate(ids):
        source = pseudo if place < len(ids) - UNTAGGED else predicted
        mask = labelled.masks / f"{image_id}.png"
        assert mask.read_bytes() == (source / f"{image_id}.png").read_bytes()
        assert read_mask(mask).shape == scenes.image_size(image_id)


def check_rows(labelled: Any, scenes: Any) -> None:
    """The table's numbers, counted anew, one pixel set after the other."""
    occurring = [name for name in scenes.class_names[1:] if name in {row.name for row in labelled.classes}]
    for number, name in enumerate(occurring, start=1):
        shares = []
        for image_id in scenes.ids("all")[:-UNTAGGED]:
            if scenes.image_labels(image_id)[scenes.class_names.index(name) - 1]:
                mask = read_mask(labelled.masks / f"{image_id}.png")
                shares.append(float((mask == number).mean()))
        (row,) = (row for row in labelled.classes if row.name == name)
        assert (row.tagged, row.found) == (len(shares), sum(share > 0 for share in shares))
        assert row.share == pytest.approx(np.mean(shares))


def test_masks_of_some_images_score_those_and_train_nothing_anew(
    settings: LabelSettings, folder: Path, tiny_tree: Path, tiny_scenes: Any
):
    settings = replace(settings, masks=folder / "masks", classes=tiny_tree / "classes.yaml", method="cam")
    recorder = Recorder()
    labelled = label_folder(settings, progress=recorder)
    assert recorder.started_titles.count("Train the segmentation network") == 1
    assert recorder.started_titles.count("Predict masks") == 2  # of the scored images, and of all
    assert labelled.scores["maps"]["images"] == labelled.scores["segmentation"]["images"] == 5
    by_source = {
        entry["background_score_source"]: entry["background_score"]
        for entry in labelled.scores["maps"]["entries"]
    }
    assert labelled.oracle == by_source["oracle"]
    assert labelled.background_score == by_source["automatic"]
    (network,) = labelled.run_folder.parent.glob("stages/train-segmentation-*/model.safetensors")
    assert labelled.network == network
    predictions = {path.parent for path in labelled.run_folder.parent.glob("stages/predict-*/predictions")}
    counts = {len(list((place / "predictions").iterdir())) for place in predictions}
    assert counts == {5, 18}
    assert all(stage_record(place) for place in predictions)


def test_a_given_background_score_makes_the_masks(settings: LabelSettings):
    labelled = label_folder(replace(settings, background_score=1.0, method="cam"))
    assert (labelled.background_score, labelled.background_source) == (1.0, "fixed")
    masks = [read_mask(path) for path in sorted(labelled.masks.iterdir())[:-UNTAGGED]]
    assert not any(mask.any() for mask in masks)  # no map exceeds 1
    assert all(row.found == 0 for row in labelled.classes)


@pytest.mark.parametrize("method", ["clims", "qa_clims"])
def test_language_methods_get_their_words_from_the_tags(settings: LabelSettings, method: str):
    raw = label_recipe(replace(settings, method=method))
    recipe = parse_recipe(raw, "test")
    assert recipe.train_teacher is not None
    assert recipe.train_teacher.training.steps == 10
    if method == "clims":
        assert set(raw["method"]["background_texts"]["cow"]) <= {"sky", "grass", "tree", "water", "wall"}


def test_outputs_never_lie_in_the_way_of_inputs(settings: LabelSettings, folder: Path):
    with pytest.raises(DataError, match="must lie outside the images' folder"):
        label_recipe(replace(settings, out=folder / "images" / "out"))
    with pytest.raises(DataError, match="names as the true ones"):
        label_recipe(replace(settings, out=folder, masks=folder / "masks"))
    with pytest.raises(RecipeError, match="Did you mean `clims`"):
        label_recipe(replace(settings, method="clim"))


def test_what_others_wrote_is_never_replaced(settings: LabelSettings, folder: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"masks holds .* would be replaced\. Name another output folder"):
        label_recipe(replace(settings, out=folder))  # its true masks, though nobody named them
    nested = tmp_path / "nested" / "masks" / "north" / "a.png"
    nested.parent.mkdir(parents=True)
    nested.write_bytes(b"mine")
    with pytest.raises(DataError, match="would be replaced"):
        label_folder(replace(settings, out=tmp_path / "nested"))
    assert nested.read_bytes() == b"mine"
    recipe = settings.out / "recipe.yaml"
    recipe.parent.mkdir()
    for text in ("name: mine\n", "", f"name: mine\n# {HEADING}\n"):
        recipe.write_text(text)
        with pytest.raises(DataError, match=r"recipe\.yaml was not written by `wsss label`"):
            label_folder(settings)
        assert recipe.read_text() == text
    recipe.write_text(f"# {HEADING}\nname: own\n")
    (settings.out / "masks").mkdir()
    (settings.out / "masks" / "a.png").write_bytes(b"own")
    assert label_recipe(settings)["name"].endswith("-quick")  # its own folder: the call goes on


def test_room_is_made_once_for_each_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    swept: list[Path] = []
    monkeypatch.setattr("wsss.engine.label.remove_leftovers", swept.append)
    kept = {tmp_path / f"{place}/{n}.png" for place in ("north", "south") for n in range(9)}
    (tmp_path / "north").mkdir()
    for name in ("north/0.png", "north/gone.png", "gone.png"):
        (tmp_path / name).write_bytes(b"mask")
    _make_room(tmp_path, kept)
    assert sorted(swept) == [tmp_path / "north", tmp_path / "south"]
    assert list(tmp_path.rglob("*.png")) == [tmp_path / "north" / "0.png"]


def test_masks_are_written_after_one_sweep(settings: LabelSettings, monkeypatch: pytest.MonkeyPatch):
    swept: list[Path] = []
    monkeypatch.setattr("wsss.engine.label.remove_leftovers", swept.append)
    masks = settings.out / "masks"
    (settings.out / "recipe.yaml").parent.mkdir()
    (settings.out / "recipe.yaml").write_text(f"# {HEADING}\n")
    masks.mkdir()
    (masks / "gone.png").write_bytes(b"of an image that is gone")
    labelled = label_folder(replace(settings, method="cam"))
    assert swept == [masks]
    assert len(list(masks.iterdir())) == labelled.from_tags + labelled.from_network
