"""`wsss submission`: a thin command; tests/test_dataset_pipelines.py packs the predictions of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cli.test_commands import call, plain
from data.tiny_trees import LISTS, SIZE, write_voc
from wsss.data.masks_png import write_mask
from wsss.export.voc_submission import check_submission


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "voc")


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    for image_id in LISTS["test"]:
        write_mask(tmp_path / "masks" / f"{image_id}.png", np.full(SIZE, 20, np.uint8))
    return tmp_path / "masks"


def test_a_folder_of_anybodys_masks_is_packed_and_checked(
    tree: Path, predictions: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "results.tar.gz"
    done = call("submission", predictions, "--out", archive, "--voc", tree, "--external-data")
    assert done.exit_code == 0, done.output
    assert f"{archive}: 2 masks for comp6." in plain(done.stdout)
    assert check_submission(archive).images == 2
    checked = call("submission", "--check", archive)
    assert checked.exit_code == 0, checked.output
    assert "Ids and sizes were not compared" in plain(checked.stdout)
    assert "not compared" not in plain(call("submission", "--check", archive, "--voc", tree).stdout)


def test_mistakes_are_named(tree: Path, predictions: Path, tmp_path: Path) -> None:
    archive = tmp_path / "results.tar.gz"
    archive.write_bytes(b"no archive")
    (tree / "ImageSets" / "Segmentation" / "test.txt").write_text("\n".join((*LISTS["test"], "2007_000001")))
    for arguments, message in (
        ((), "Give either predictions"),
        ((predictions, "--check", archive), "Give either predictions"),
        (("--check", archive, "--out", archive), "`--check` writes nothing"),
        ((predictions,), "Say where to write"),
        ((predictions, "--out", archive), "Say where the test images are"),
        ((predictions, "--out", archive, "--voc", tree), "2007_000001.png is missing"),
        ((predictions, "--out", archive, "--voc", tree.parent / "nowhere"), "There is no image folder"),
        (("--check", archive), "is no complete tar.gz file"),
    ):
        result = call("submission", *arguments)
        assert result.exit_code == 2, (message, result.output)
        assert message in plain(result.output)
    assert archive.read_bytes() == b"no archive"
