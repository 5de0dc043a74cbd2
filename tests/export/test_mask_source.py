"""Where masks to export come from: runs, predictions, folders; their classes and their images' names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from export.small_model import NAMES, mask_folder, masks, noise, save_image, small_model
from wsss.data.masks_png import write_mask
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
    run = tmp_path / "runs" / "mine-seed0"
    stages = [("pseudo-masks", "pseudo_masks", 1), ("predict", "predictions", 2), ("score", "scores", 3)]
    for name, inside, value in stages:
        write_mask(tmp_path / "runs" / "stages" / name / inside / "a.png", np.full((2, 3), value, np.uint8))
    run.mkdir()
    entries = [{"name": name, "folder": f"../stages/{name}"} for name, _, _ in stages]
    (run / "run.json").write_text(json.dumps({"stages": entries, "data": {"class_names": list(NAMES)}}))
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
