"""`wsss export`: thin over tested functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from cli.test_commands import call, plain
from export.small_model import NAMES, mask_folder, masks, small_model, without_ignored
from export.test_model_folder import run_of
from wsss.data.masks_png import read_mask
from wsss.export.cvat import read_cvat
from wsss.export.label_studio import read_label_studio
from wsss.segmentation.model import SegmentationModel


def test_masks_go_to_every_format(tmp_path: Path) -> None:
    source = mask_folder(tmp_path)
    given = (source.folder, "--classes", tmp_path / "classes.json")
    for name, file in (("coco", "x.json"), ("label-studio", "y.json"), ("cvat", "z.xml"), ("png", "pngs")):
        done = call("export", name, *given, "--out", tmp_path / file)
        assert done.exit_code == 0, done.output
        assert f"{len(masks())} masks" in plain(done.stdout)
    assert len(COCO(tmp_path / "x.json").imgs) == len(masks())
    tasks = dict(read_label_studio(tmp_path / "y.json", NAMES))
    images = dict(read_cvat(tmp_path / "z.xml", NAMES))
    for name, mask in masks().items():
        assert np.array_equal(images[name], without_ignored(mask))
        assert np.array_equal(tasks.get(name, np.zeros_like(mask)), without_ignored(mask))
        assert np.array_equal(read_mask(tmp_path / "pngs" / name), mask)


def test_a_run_becomes_a_model_folder_and_an_onnx_file(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    run = run_of(tmp_path)
    done = call("export", "model", run, "--out", tmp_path / "model")
    assert done.exit_code == 0, done.output
    assert "Use it with `wsss predict" in plain(done.stdout)
    assert SegmentationModel.from_pretrained(tmp_path / "model").class_names == NAMES
    done = call("export", "onnx", tmp_path / "model", "--out", tmp_path / "model.onnx")
    assert done.exit_code == 0, done.output
    assert "differ from PyTorch's by at most" in plain(done.stdout)
    assert (tmp_path / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("name", "reads", "example"),
    [
        ("coco", "open_masks", "masks.json"),
        ("label-studio", "open_masks", "tasks.json"),
        ("cvat", "open_masks", "masks.xml"),
        ("onnx", "load_model", "model.onnx"),
    ],
)
def test_a_target_that_can_be_no_file_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reads: str, example: str
) -> None:
    def work(*given: object, **settings: object) -> None:
        raise AssertionError("something was read")

    for place in ("mask_source.open_masks", "model_folder.load_model"):
        if place.endswith(reads):
            monkeypatch.setattr(f"wsss.export.{place}", work)
    folder, file = tmp_path / "there", tmp_path / "file.txt"
    folder.mkdir()
    file.write_text("kept")
    for out, message in (
        (folder, f"{folder} is a folder. Name a file, as in {folder / example}."),
        (file / "below" / "x.json", f"since {file} is a file. Name a file in a folder."),
    ):
        refused = call("export", name, tmp_path / "masks", "--out", out)
        assert (refused.exit_code, message in plain(refused.stderr)) == (2, True), refused.output
    assert (file.read_text(), list(folder.iterdir())) == ("kept", [])


def test_mistakes_are_named(tmp_path: Path) -> None:
    source = mask_folder(tmp_path)
    model = small_model().save_pretrained(tmp_path / "model")
    for arguments, message in (
        (("coco", source.folder, "--out", tmp_path / "x.json"), "Give them with `--classes"),
        (("model", model, "--out", tmp_path / "m"), "holds no finished run"),
        (("onnx", tmp_path, "--out", tmp_path / "x.onnx"), "holds no segmentation model"),
    ):
        result = call("export", *arguments)
        assert result.exit_code in (1, 2)
        assert message in plain(result.stderr), result.output
    assert not (tmp_path / "x.json").exists()
