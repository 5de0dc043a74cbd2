"""Targets of exports: what can become a file passes, what can't is refused in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from export.small_model import mask_folder, small_model
from wsss.errors import DataError
from wsss.export.coco import write_coco
from wsss.export.cvat import write_cvat
from wsss.export.label_studio import write_label_studio
from wsss.export.onnx_model import export_onnx
from wsss.export.target_file import check_target_file


def test_a_new_file_an_old_one_and_one_in_folders_to_be_made_pass(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "old.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    for path in ("old.json", "new.json", tmp_path / "a" / "b" / "new.json", "a/new.json"):
        check_target_file(Path(path), "masks.json")
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]  # nothing was made


def test_a_folder_is_refused_with_a_file_in_it_as_advice(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path, tmp_path / "link", Path()):
        with pytest.raises(DataError, match=r"is a folder\. Name a file, as in .*tasks\.json\."):
            check_target_file(path, "tasks.json")


def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != tmp_path)
    with pytest.raises(DataError, match=f"since {tmp_path} may not be written by this user"):
        check_target_file(tmp_path / "deep" / "x.json", "x.json")


def test_each_export_looks_at_its_target_before_it_reads_anything(tmp_path: Path, monkeypatch) -> None:
    source = mask_folder(tmp_path)
    target = tmp_path / "there"
    target.mkdir()
    monkeypatch.setattr(type(source), "read", None)
    monkeypatch.setattr(type(source), "size", None)
    for write in (write_coco, write_cvat, write_label_studio):
        with pytest.raises(DataError, match="is a folder"):
            write(source, target)
    with pytest.raises(DataError, match=r"is a folder\. Name a file, as in .*model\.onnx"):
        export_onnx(small_model(), target)
    assert not list(target.iterdir())
    assert not list(tmp_path.glob(".*"))


def test_a_name_that_no_disk_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^No file can be called a+… \(.*\)\. Shorten it\."):
        check_target_file(tmp_path / ("a" * 999 + ".json"), "masks.json")
