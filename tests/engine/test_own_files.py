"""The record of what a command wrote: nothing else is replaced, and its own files always may be."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from wsss.engine.own_files import RECORD, OwnFiles
from wsss.errors import DataError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_what_was_written_may_be_replaced_until_somebody_changes_it(out: Path, images: Path) -> None:
    path = out / "masks" / "a.png"
    OwnFiles(out, images).write(path, b"first")
    assert json.loads((out / RECORD).read_text()) == {
        "images": str(images.resolve()),
        "files": {"masks/a.png": hashlib.sha256(b"first").hexdigest()},
    }
    OwnFiles(out, images).write(path, b"second")
    assert path.read_bytes() == b"second"
    path.write_bytes(b"corrected")
    with pytest.raises(DataError, match=r"a\.png was not written by `wsss label` as it is now, and would be"):
        OwnFiles(out, images).write(path, b"third")
    assert path.read_bytes() == b"corrected"
    path.unlink()
    OwnFiles(out, images).write(path, b"third")  # what is gone is no loss
    assert path.read_bytes() == b"third"


def test_files_of_others_are_named_and_counted(out: Path, images: Path) -> None:
    out.mkdir()
    for name in "cab":
        (out / name).write_bytes(b"mine")
    with pytest.raises(DataError, match=rf"^{out}/a was not .* as it is now, nor were 2 others, and would"):
        OwnFiles(out, images).claim([out / name for name in "cabd"])
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "c"]


def test_a_claimed_file_is_owned_whatever_it_holds_until_it_is_settled(out: Path, images: Path) -> None:
    paths = [out / "a", out / "b"]
    OwnFiles(out, images).claim(paths)
    paths[0].write_bytes(b"half")  # and here the process is killed
    own = OwnFiles(out, images)
    own.claim(paths)
    paths[0].write_bytes(b"whole")
    own.settle(paths)  # the other one was not written after all
    assert list(json.loads((out / RECORD).read_text())["files"]) == ["a"]
    paths[1].write_bytes(b"mine")
    with pytest.raises(DataError, match=r"/b was not written"):
        OwnFiles(out, images).check(paths)


def test_a_link_in_place_of_a_file_is_somebody_elses(out: Path, images: Path, tmp_path: Path) -> None:
    path = out / "a"
    OwnFiles(out, images).write(path, b"own")
    (tmp_path / "theirs").write_bytes(b"own")
    path.unlink()
    path.symlink_to(tmp_path / "theirs")
    with pytest.raises(DataError, match=r"/a was not written"):
        OwnFiles(out, images).check([path])
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"/a was not written"):
        OwnFiles(out, images).check([path])


def test_a_file_where_a_folder_is_to_be_made_is_named(out: Path, images: Path) -> None:
    out.write_bytes(b"a file")
    for path in (out / "a", out / "b" / "a"):
        with pytest.raises(DataError, match=rf"^{out} is a file where a folder is to be made"):
            OwnFiles(out, images).check([path])


def test_other_images_are_refused_unless_the_first_ones_have_moved(out: Path, images: Path) -> None:
    OwnFiles(out, images).write(out / "a", b"own")
    other = images.with_name("other")
    with pytest.raises(DataError, match=rf"holds what `wsss label` made of {images}"):
        OwnFiles(out, other)
    images.rename(other)
    OwnFiles(out, other).write(out / "a", b"again")
    assert json.loads((out / RECORD).read_text())["images"] == str(other)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 99_999, b'{"images": 1, "files": {}}', b'{"files": {}}']
)
def test_a_damaged_record_is_no_licence(out: Path, images: Path, text: bytes) -> None:
    out.mkdir()
    (out / RECORD).write_bytes(text)
    with pytest.raises(DataError, match=rf"{RECORD} must say which files .* can't be read\. Name another"):
        OwnFiles(out, images)
    assert (out / RECORD).read_bytes() == text
