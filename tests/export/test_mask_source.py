"""Where masks to export come from: runs, predictions, folders; their classes and their images' names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from export.small_model import NAMES, mask_folder, masks, noise, save_image, small_model
from tiny_recipe import made_up_run
from wsss.data.masks_png import voc_palette, write_mask
from wsss.errors import DataError
from wsss.export.mask_source import open_masks, predicted_masks
from wsss.segmentation.image_list import find_images
from wsss.segmentation.model import PredictionSettings
from wsss.segmentation.predict_images import predict_images


def test_a_folder_of_masks_with_a_list_of_classes(tmp_path: Path) -> None:
    source = mask_folder(tmp_path)
    assert source.names == tuple(sorted(masks()))
    assert source.class_names == NAMES
    for name, mask in masks().items():
        assert np.array_equal(source.read(name), mask)
        assert source.size(name) == mask.shape
        assert source.image_name(name) == name
        found = dict(source.class_masks(name))
        assert set(found) == set(np.unique(mask).tolist()) - {0, 255}
        assert all(np.array_equal(inside, mask == number) for number, inside in found.items())


def test_predictions_know_their_classes_and_images(tmp_path: Path) -> None:
    save_image(tmp_path / "photos" / "north" / "a.jpg", noise(16, 24))
    save_image(tmp_path / "photos" / "b.png", noise(16, 24))
    model, out = small_model(), tmp_path / "out"
    images = find_images([tmp_path / "photos"], out)
    predict_images(model, images, out, PredictionSettings(), overlays=True)
    opened = open_masks(out, images=tmp_path / "photos")
    own = predicted_masks(model, images, out)
    for source in (opened, own):
        assert source.names == ("b.png", "north/a.png")
        assert [source.image_name(name) for name in source.names] == ["b.png", "north/a.jpg"]
        assert source.class_names == NAMES


def test_a_run_gives_the_masks_of_the_stage_that_is_named(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "runs", "mine", 0, {})
    stages = [("pseudo-masks", "pseudo_masks", 1), ("predict", "predictions", 2), ("score", "scores", 3)]
    for name, inside, value in stages:
        write_mask(tmp_path / "runs" / "stages" / name / inside / "a.png", np.full((2, 3), value, np.uint8))
    others = {"title": "", "seconds": 1.0, "commit": "", "hardware": ""}
    unscored = {"scores": None, "score_stage": None, "split": None}
    record = json.loads((run / "run.json").read_text())
    record["stages"] = [
        {"name": name, "folder": f"../stages/{name}", **others, **unscored} for name, _, _ in stages
    ]
    record["data"]["class_names"] = list(NAMES)
    (run / "run.json").write_text(json.dumps(record))
    assert open_masks(run).read("a.png").max() == 1
    assert open_masks(run, stage="segmentation").read("a.png").max() == 2
    with pytest.raises(DataError, match="has no masks of `segmentation_crf`"):
        open_masks(run, stage="segmentation_crf")
    with pytest.raises(DataError, match="Did you mean `segmentation`"):
        open_masks(run, stage="segmentations")


def test_mistakes_are_named(tmp_path: Path) -> None:
    source = mask_folder(tmp_path)
    for arguments, message in (
        ({"place": tmp_path / "nowhere"}, "There is no folder"),
        ({"place": tmp_path / "masks" / "below" / ".."}, "Nothing in .* says which classes"),
        ({"place": source.folder, "classes": tmp_path / "none.json"}, "There is no classes file"),
        (
            {"place": source.folder, "classes": tmp_path / "classes.json", "images": tmp_path},
            "one.png|empty|a.png",
        ),
    ):
        if "images" in arguments:
            save_image(tmp_path / "photos" / "zzz.jpg", noise(4, 4))
            arguments["images"] = tmp_path / "photos"
            message = "No image under .* belongs to the mask a.png"
        with pytest.raises(DataError, match=message):
            open_masks(**arguments)  # type: ignore[arg-type]
    (tmp_path / "few.json").write_text('["cat"]')
    with pytest.raises(DataError, match=r"must hold 0-1 and 255; got 3"):
        open_masks(source.folder, classes=tmp_path / "few.json").read("full.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="There are no PNG masks"):
        open_masks(tmp_path / "empty", classes=tmp_path / "classes.json")


def labelled(folder: Path, summary: str) -> Path:
    """An output folder of `wsss label`: masks, and a run with masks of its own."""
    for name in ("masks/a.png", "runs/stages/x/pseudo_masks/a.png", "runs/stages/y/predictions/a.png"):
        write_mask(folder / name, np.full((2, 3), 2 if name.startswith("masks") else 1, np.uint8))
    (folder / "label.json").write_text(summary, encoding="utf-8")
    return folder


def test_a_labelled_folder_gives_its_own_masks_alone(tmp_path: Path) -> None:
    rows = [{"name": name, "tagged": 1} for name in NAMES[1:]]
    source = open_masks(labelled(tmp_path, json.dumps({"classes": rows})))
    assert (source.names, source.class_names) == (("a.png",), NAMES)
    assert source.read("a.png").min() == 2
    with pytest.raises(DataError, match="Name the run inside it"):
        open_masks(tmp_path, stage="segmentation")


@pytest.mark.parametrize(
    "summary", ["", "{}", "[]", '{"classes": []}', '{"classes": [{"name": 3}]}', "[" * 9999]
)
def test_a_damaged_summary_of_labelling_is_named(tmp_path: Path, summary: str) -> None:
    with pytest.raises(DataError, match=r"label\.json must say which classes"):
        open_masks(labelled(tmp_path, summary))


@pytest.mark.parametrize(
    "colours",
    [
        [[300, 0, 0], [0, 0, 0]],
        [[-1, 0, 0], [0, 0, 0]],
        [[1], [1, 2]],
        [["a"] * 3] * 2,
        [[1.5] * 3] * 2,
        {},
        "x",
    ],
)
def test_damaged_colours_become_those_of_voc(tmp_path: Path, colours: object) -> None:
    write_mask(tmp_path / "a.png", np.ones((2, 3), np.uint8))
    manifest = {"class_names": ["background", "cat"], "colours": colours}
    (tmp_path / "predictions.json").write_text(json.dumps(manifest))
    assert np.array_equal(open_masks(tmp_path).colours, voc_palette()[:2])
    manifest["colours"] = [[0, 0, 0], [1, 2, 255]]
    (tmp_path / "predictions.json").write_text(json.dumps(manifest))
    assert open_masks(tmp_path).colours.tolist() == manifest["colours"]


def test_extensions_count_in_any_case(tmp_path: Path) -> None:
    source = mask_folder(tmp_path)
    (source.folder / "a.png").rename(source.folder / "a.PNG")
    assert "a.PNG" in open_masks(source.folder, classes=tmp_path / "classes.json").names
