"""Predictions of many images: complete, resumable, never mixed, and not stopped by a bad image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from export.small_model import noise, save_image, small_model
from wsss.data.images import decode
from wsss.data.masks_png import read_mask, voc_palette
from wsss.errors import DataError, StageError
from wsss.export.mask_source import predicted_masks
from wsss.segmentation.image_list import find_images
from wsss.segmentation.model import PredictionSettings, SegmentationModel
from wsss.segmentation.predict_images import Predicted, overlay, predict_images, read_manifest

SETTINGS = PredictionSettings()


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    return small_model(test_flip=False)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "b.jpg", "north/a.png", "south/a.png")):
        save_image(tmp_path / "photos" / name, noise(24 + 8 * number, 40, seed=number))
    return tmp_path / "photos"


def predicted(model: SegmentationModel, photos: Path, out: Path, **options: object) -> Predicted:
    settings = options.pop("settings", SETTINGS)
    return predict_images(model, find_images([photos], out), out, settings, **options)  # type: ignore[arg-type]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


def test_every_image_gets_its_mask_below_the_same_folders(model, photos: Path, tmp_path: Path) -> None:
    calls = []
    made = predicted(model, photos, tmp_path / "out", progress=lambda *call: calls.append(call))
    assert made == Predicted(4, 0, {})
    assert calls[-1] == (4, 4, "south/a.png")
    for name in ("a.png", "b.jpg", "north/a.png", "south/a.png"):
        path = (tmp_path / "out" / name).with_suffix(".png")
        image = decode(photos / name)
        assert np.array_equal(read_mask(path), model.predict(image))
        with Image.open(path) as picture:
            assert picture.mode == "P"
            assert picture.getpalette()[:768] == voc_palette().ravel().tolist()
    assert sorted(files(tmp_path / "out")) == [
        "a.png",
        "b.png",
        "north/a.png",
        "predictions.json",
        "south/a.png",
    ]
    manifest = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert manifest["model"] == model.fingerprint
    assert manifest["class_names"] == list(model.class_names)


def test_done_ones_are_kept_and_missing_ones_come_back_the_same(model, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predicted(model, photos, out)
    first = files(out)
    (out / "north" / "a.png").unlink()
    (out / "b.png").write_bytes(b"kept as it is")
    (out / "north" / ".tmp-123-a.png").write_bytes(b"of a killed process")
    assert predicted(model, photos, out) == Predicted(1, 3, {})
    assert files(out) == first | {"b.png": b"kept as it is"}


def test_bad_images_are_reported_and_the_others_go_on(model, photos: Path, tmp_path: Path) -> None:
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "cut.png").write_bytes((photos / "a.png").read_bytes()[:90])
    (photos / "text.jpg").write_text("no image")
    made = predicted(model, photos, tmp_path / "out")
    assert (made.new, made.kept) == (4, 0)
    assert list(made.failures) == ["cut.png", "empty.jpg", "text.jpg"]
    assert "is empty (0 bytes)" in made.failures["empty.jpg"]
    assert not (tmp_path / "out" / "cut.png").exists()
    save_image(photos / "cut.png", noise(16, 16))
    again = predicted(model, photos, tmp_path / "out")
    assert (again.new, again.kept, list(again.failures)) == (1, 4, ["empty.jpg", "text.jpg"])


def test_other_images_fail_alone_when_the_network_does(
    model, photos: Path, tmp_path: Path, monkeypatch
) -> None:
    predict = SegmentationModel.predict

    def without_memory(self, image, settings):
        if image.shape[0] == 40:
            raise RuntimeError("out of memory")
        return predict(self, image, settings)

    monkeypatch.setattr(SegmentationModel, "predict", without_memory)
    assert predicted(model, photos, tmp_path / "out").failures == {"north/a.png": "out of memory"}


def test_a_full_disk_stops_everything(model, photos: Path, tmp_path: Path, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wsss.segmentation.predict_images.write_indexed", full)
    with pytest.raises(OSError, match="No space left"):
        predicted(model, photos, tmp_path / "out")


def test_masks_of_two_models_or_settings_are_never_mixed(model, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predicted(model, photos, out)
    with pytest.raises(DataError, match=r"made otherwise \(model\)"):
        predicted(small_model(seed=1, test_flip=False), photos, out)
    for settings, word in (
        (PredictionSettings(scales=(1.0, 1.5)), "scales"),
        (PredictionSettings(flip=True), "flip"),
        (PredictionSettings(crf=True), "crf"),
        (PredictionSettings(tile=256), "tile"),
    ):
        with pytest.raises(DataError, match=rf"made otherwise \({word}\)"):
            predicted(model, photos, out, settings=settings)
    assert predicted(model, photos, out, settings=PredictionSettings(scales=(1.0,), flip=False)).kept == 4
    (out / "predictions.json").write_text("{")
    with pytest.raises(DataError, match=r"no readable predictions\.json"):
        predicted(model, photos, out)


def test_overlays_come_with_masks_or_later(model, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predicted(model, photos, out)
    masks = files(out)
    assert predicted(model, photos, out, overlays=True) == Predicted(0, 4, {})
    assert {name: data for name, data in files(out).items() if name in masks} == masks
    with Image.open(out / "overlays" / "north" / "a.jpg") as picture:
        assert picture.size == (40, 40)
    predicted(model, photos, tmp_path / "both", overlays=True)
    assert files(tmp_path / "both") == files(out)


def test_an_overlay_leaves_the_background_as_it_is() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    mask = rng.choice([0, 1, 2, 255], (5, 6)).astype(np.uint8)
    found = overlay(image, mask, voc_palette())
    for row in range(5):
        for column in range(6):
            own, colour = image[row, column].astype(float), voc_palette()[mask[row, column]].astype(float)
            wanted = own if mask[row, column] == 0 else np.round(0.45 * own + 0.55 * colour)
            assert np.abs(found[row, column] - wanted).max() <= 1


def test_a_second_process_is_refused(model, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with (
        FileLock(tmp_path / "out" / ".lock"),
        pytest.raises(StageError, match="Another process writes masks"),
    ):
        predicted(model, photos, tmp_path / "out")


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_files(model, photos: Path, tmp_path: Path) -> None:
    for number in range(6):
        save_image(photos / f"more{number}.png", noise(24, 32, seed=number))
    folder = model.save_pretrained(tmp_path / "model")
    program = Path(__file__).with_name("killed_prediction.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(program), str(folder), str(photos), str(tmp_path / "killed"), "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    predicted(model, photos, tmp_path / "whole", overlays=True)
    torch.set_num_threads(threads)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_images_of_another_folder_are_not_taken_for_those_that_have_masks(
    model, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert predicted(model, photos / "north", out).new == 1
    with pytest.raises(DataError, match=r"holds masks of images below .*north, and these are below .*south"):
        predicted(model, photos / "south", out)
    assert predicted(model, photos / "north" / "a.png", out).kept == 1  # the same image, named otherwise
    assert np.array_equal(read_mask(out / "a.png"), model.predict(photos / "north" / "a.png"))


def test_folders_of_older_versions_are_gone_on_with(model, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predicted(model, photos, out)
    found = json.loads((out / "predictions.json").read_text())
    assert found.pop("images") == str(photos)
    (out / "predictions.json").write_text(json.dumps(found))
    Image.open(out / "b.png").save(out / "b.png")  # without the image's name
    assert predicted(model, photos, out).kept == 4


def test_a_mask_of_the_same_name_and_another_extension_is_not_taken_over(
    model, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    save_image(photos / "a.jpg", noise(24, 40, seed=9))
    predicted(model, photos / "a.png", out)
    before = files(out)
    images = find_images([photos / "a.jpg", photos / "b.jpg"], out)
    made = predict_images(model, images, out, SETTINGS, overlays=True)
    assert (made.new, made.kept, list(made.failures)) == (1, 0, ["a.jpg"])
    assert "another extension" in made.failures["a.jpg"]
    assert files(out)["a.png"] == before["a.png"]
    assert not (out / "overlays" / "a.jpg").exists()
    assert predicted_masks(model, images, out).names == ("b.png",)


@pytest.mark.parametrize("names", [[], [3, None], ["x"] * 256, "cat"])
def test_manifests_without_usable_class_names_are_none(tmp_path: Path, names: object) -> None:
    (tmp_path / "predictions.json").write_text(json.dumps({"class_names": names}))
    assert read_manifest(tmp_path) is None
