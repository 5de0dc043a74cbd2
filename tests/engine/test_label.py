"""From a folder of images and tags to a mask of every image, interrupted or not, scored or not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuzz.hostile import folder_bytes
from scene_folder import write_scene_folder
from tiny_recipe import Recorder
from wsss.data.masks_png import read_mask, write_mask
from wsss.engine import label as label_module
from wsss.engine.label import HEADING, LabelSettings, label_folder, label_recipe
from wsss.engine.label_masks import _make_room
from wsss.engine.own_files import OwnFiles
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


def test_corrected_masks_take_their_place_and_leave_the_first_run_as_it_was(
    settings: LabelSettings, tmp_path: Path
):
    first = label_folder(settings)
    before, report = masks_of(first.masks), (first.run_folder / "run.json").read_bytes()
    tagged = sorted(before)[:2]
    given = {name: 1 + number for number, name in enumerate(tagged)}
    for name, value in given.items():
        write_mask(tmp_path / "corrected" / name, np.full_like(read_mask(first.masks / name), value))
    listener = Recorder()
    second = label_folder(replace(settings, corrections=tmp_path / "corrected"), progress=listener)
    assert {"Train smvwe", "Write pseudo masks"} <= set(listener.skipped_titles)
    assert (second.from_tags, second.corrected, second.from_network) == (13, 2, UNTAGGED)
    for name, whole in masks_of(second.masks).items():
        if name in given:
            assert (read_mask(second.masks / name) == given[name]).all()
        elif name in sorted(before)[:-UNTAGGED]:
            assert whole == before[name]
    assert second.run_folder != first.run_folder
    assert (first.run_folder / "run.json").read_bytes() == report
    assert json.loads((second.run_folder / "run.json").read_text())["supervision"].endswith("+M(2)")
    assert second.network != first.network
    assert load_recipe(settings.out / "recipe.yaml").name == "scenes-smvwe-quick-corrected"
    assert masks_of(label_folder(settings).masks) == before


def test_corrections_that_fit_nothing_stop_it_before_anything_runs(settings: LabelSettings, tmp_path: Path):
    (settings.out / "masks").mkdir(parents=True)
    with pytest.raises(DataError, match="where `corrections` are to be read"):
        label_folder(replace(settings, corrections=settings.out / "masks"))
    write_mask(tmp_path / "corrected" / "nobody.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match="belong to no tagged"):
        label_folder(replace(settings, corrections=tmp_path / "corrected"))
    assert not (settings.out / "runs" / "stages").exists() or not any(
        path.name.startswith("train") for path in (settings.out / "runs" / "stages").iterdir()
    )


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


def kept(settings: LabelSettings, *others: Path) -> str:
    """The message of a call that changes nothing in the output folder, nor in others."""
    folders = (settings.out, *others)
    before = [folder_bytes(folder) for folder in folders]
    with pytest.raises(DataError, match=r"Name|name another output folder\.") as caught:
        label_folder(settings)
    assert [folder_bytes(folder) for folder in folders] == before
    return str(caught.value)


def test_what_others_wrote_is_never_replaced(settings: LabelSettings, folder: Path, tmp_path: Path):
    assert "not written by `wsss label`" in kept(replace(settings, out=folder))  # its true masks, never named
    for name in (
        *("recipe.yaml", "label.json", "masks/north/a.png", "masks/w7_train_00000.png"),
        *("label-splits/train.txt", "label-splits/masked.txt"),
    ):
        path = tmp_path / name.replace("/", "-") / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"mine")
        there = replace(settings, out=tmp_path / name.replace("/", "-"), masks=folder / "masks")
        assert f"{path} was not written by `wsss label`" in kept(there)


def test_a_recipe_of_label_makes_no_folder_its_own(settings: LabelSettings, folder: Path, tmp_path: Path):
    """As it is when somebody copies it beside true masks, or edits it where it is."""
    recipe = f"# {HEADING}\nname: copied\n"
    for tree in ("masks", "masks/SegmentationClass"):
        out = tmp_path / tree.replace("/", "-")
        shutil.copytree(folder / "masks", out / tree)
        (out / "recipe.yaml").write_text(recipe)
        assert ", nor were 5 others, and would be replaced" in kept(replace(settings, out=out))


def test_links_into_true_masks_and_images_are_seen(settings: LabelSettings, folder: Path):
    settings.out.mkdir()
    made = settings.out / "masks"
    made.symlink_to(folder / "masks")
    assert "names as the true ones" in kept(replace(settings, masks=folder / "masks"), folder)
    assert "not written by `wsss label`" in kept(settings, folder)
    made.unlink()
    made.symlink_to(folder)
    assert "where the images of" in kept(settings, folder)
    made.unlink()
    shutil.copytree(folder / "masks", made / "true")
    assert "names as the true ones" in kept(replace(settings, masks=made / "true"))
    shutil.rmtree(made / "true")
    (made / "north").symlink_to(folder / "masks")
    assert label_recipe(settings)["name"].endswith("-quick")  # a link that no mask is written through
    (made / "north").unlink()
    made.rmdir()
    made.symlink_to(folder / "nowhere")
    assert "is a file where a folder is to be made" in kept(settings)
    made.unlink()
    made.write_bytes(b"mine")
    assert "is a file where a folder is to be made" in kept(settings)
    made.unlink()
    made.mkdir()
    (made / "w7_train_00000.png").symlink_to(folder / "nowhere.png")
    assert "w7_train_00000.png was not written" in kept(settings)


def test_a_folder_of_other_images_is_refused(settings: LabelSettings, folder: Path, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(folder / "images", other)
    OwnFiles(settings.out, folder / "images").write(settings.out / "recipe.yaml", b"own")
    assert f"holds what `wsss label` made of {folder / 'images'}" in kept(replace(settings, images=other))


def test_the_same_command_replaces_what_it_wrote_and_nothing_that_was_changed(
    settings: LabelSettings, monkeypatch: pytest.MonkeyPatch
):
    settings = replace(settings, method="cam")
    with monkeypatch.context() as patch:
        patch.setattr(label_module, "write_masks", interrupted_writing)
        with pytest.raises(KeyboardInterrupt):
            label_folder(settings)
    assert len(list((settings.out / "masks").iterdir())) == 2
    first = folder_bytes(label_folder(settings).masks)
    assert folder_bytes(label_folder(settings).masks) == first
    again = label_folder(replace(settings, background_score=1.0))  # other settings, the same folder
    assert folder_bytes(again.masks) != first
    for name in ("masks/w7_train_00000.png", "recipe.yaml", "label.json"):
        path = settings.out / name
        whole = path.read_bytes()
        path.write_bytes(whole + b"\n")
        assert f"{path} was not written by `wsss label` as it is now, and would" in kept(settings)
        path.write_bytes(whole)
    (settings.out / "masks" / ".hidden.png").write_bytes(b"left by a system")
    label_folder(settings)
    assert (settings.out / "masks" / ".hidden.png").is_file()


def interrupted_writing(dataset: Any, from_maps: Path, from_network: Path, target: Path, _: Any) -> None:
    """Two masks, the second one half."""
    target.mkdir()
    for image_id, end in zip(dataset.ids("all")[:2], (None, 40), strict=True):
        data = (from_maps / f"{image_id}.png").read_bytes()[:end]
        (target / f"{'' if end is None else '.tmp-123456789abc-'}{image_id}.png").write_bytes(data)
    raise KeyboardInterrupt


def test_room_is_made_once_for_each_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    swept: list[Path] = []
    monkeypatch.setattr("wsss.engine.label_masks.remove_leftovers", swept.append)
    kept = {tmp_path / f"{place}/{n}.png" for place in ("north", "south") for n in range(9)}
    (tmp_path / "north").mkdir()
    for name in ("north/0.png", "north/gone.png", "gone.png"):
        (tmp_path / name).write_bytes(b"mask")
    _make_room(tmp_path, kept)
    assert sorted(swept) == [tmp_path / "north", tmp_path / "south"]
    assert list(tmp_path.rglob("*.png")) == [tmp_path / "north" / "0.png"]


def test_masks_are_written_after_one_sweep(settings: LabelSettings, monkeypatch: pytest.MonkeyPatch):
    swept: list[Path] = []
    monkeypatch.setattr("wsss.engine.label_masks.remove_leftovers", swept.append)
    masks = settings.out / "masks"
    own = OwnFiles(settings.out, settings.images)
    own.write(masks / "gone.png", b"of an image that is gone")
    labelled = label_folder(replace(settings, method="cam"))
    assert swept == [masks]
    assert len(list(masks.iterdir())) == labelled.from_tags + labelled.from_network
