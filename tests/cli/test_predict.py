"""`wsss predict`: thin over tested functions; what it says and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from cli.test_commands import call, plain
from export.small_model import noise, save_image, small_model
from wsss.data.masks_png import read_mask


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(test_flip=False).save_pretrained(tmp_path / "model")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "north/a.jpg")):
        save_image(tmp_path / "photos" / name, noise(24, 40, seed=number))
    return tmp_path / "photos"


def test_masks_overlays_and_coco(model: Path, photos: Path, tmp_path: Path) -> None:
    out, coco = tmp_path / "out", tmp_path / "masks.json"
    done = call("predict", model, photos, "--out", out, "--overlays", "--coco", coco)
    assert done.exit_code == 0, done.output
    assert f"2 masks are new in {out}." in plain(done.stdout)
    loaded = COCO(coco)
    assert sorted(image["file_name"] for image in loaded.imgs.values()) == ["a.png", "north/a.jpg"]
    for image in loaded.imgs.values():
        mask = read_mask((out / image["file_name"]).with_suffix(".png"))
        for annotation in loaded.imgToAnns[image["id"]]:
            assert np.array_equal(loaded.annToMask(annotation) > 0, mask == annotation["category_id"])
        assert (out / "overlays" / image["file_name"]).with_suffix(".jpg").is_file()
    again = call("predict", model, photos, "--out", out, "--coco", coco)
    assert "0 masks are new" in plain(again.stdout)
    assert "2 were there already" in plain(again.stdout)


def test_options_reach_the_prediction(model: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--scales", "1.0,1.5", "--flip", "--crf", "--tile", "128")
    assert call("predict", model, photos / "a.png", "--out", out, *options).exit_code == 0
    made = json.loads((out / "predictions.json").read_text())
    assert (made["scales"], made["flip"], made["crf"], made["tile"]) == ([1.0, 1.5], True, True, 128)


def test_bad_images_are_listed_and_the_status_is_one(model: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"nothing")
    done = call("predict", model, str(photos / "**" / "*"), "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "2 masks are new" in plain(done.stdout)
    assert "broken.jpg: Image" in plain(done.stderr)
    assert "1 of 3 images have no mask" in plain(done.stderr)
    alone = call(
        "predict", model, photos / "broken.jpg", "--out", tmp_path / "alone", "--coco", tmp_path / "x.json"
    )
    assert alone.exit_code == 1
    assert "broken.jpg: Image" in plain(alone.stderr)
    assert not (tmp_path / "x.json").exists()


def test_mistakes_are_named(model: Path, photos: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((tmp_path, photos, "--out", tmp_path / "out"), "holds no segmentation model"),
        ((model, tmp_path / "none*.jpg", "--out", tmp_path / "out"), "image matches"),
        ((model, "nosuch", "--out", tmp_path / "out"), "no image, folder or list nosuch. Correct the path"),
        ((model, photos, "--out", tmp_path / "out", "--coco", photos), "is a folder. Name a file"),
        ((model, photos, "--out", photos), "would replace an image"),
        ((model, photos, "--out", tmp_path / "out", "--scales", "1,x"), "takes numbers separated by commas"),
        ((model, photos, "--out", tmp_path / "out", "--scales", "nan"), "`--scales` can't be"),
        ((model, photos, "--out", tmp_path / "out", "--tile", "5"), "`--tile` can't be 5"),
    ):
        result = call("predict", *arguments)
        assert (result.exit_code, message in plain(result.stderr)) == (2, True), (message, result.output)
    assert not (tmp_path / "out").exists()


def test_a_tall_image_in_tiles_has_its_own_size(model: Path, tmp_path: Path) -> None:
    image = save_image(tmp_path / "tall.png", noise(400, 96))
    assert call("predict", model, image, "--out", tmp_path / "out", "--tile", "128").exit_code == 0
    with Image.open(tmp_path / "out" / "tall.png") as mask:
        assert mask.size == (96, 400)


def test_scales_that_leave_a_stamp_are_warned_of_once(photos: Path, tmp_path: Path) -> None:
    model = small_model(test_flip=False, test_scales=(0.0794,)).save_pretrained(tmp_path / "shrinking")
    for name in ("c.png", "d.png"):
        save_image(tmp_path / "large" / name, noise(600, 800))
    done = call("predict", model, tmp_path / "large", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    said = plain(done.stderr)
    assert said.count("800 pixels long, at 64 pixels") == said.count("--scales 0.4`") == 1
    mended = call("predict", model, tmp_path / "large", "--out", tmp_path / "mended", "--scales", "0.4")
    assert "pixels long" not in plain(mended.stderr)
    whole = call("predict", model, photos, "--out", tmp_path / "whole", "--scales", "1")
    assert "pixels long" not in plain(whole.stderr)  # small, but not shrunk
