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
        "files": {"masks/a.png": [digest(b"first")]},
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
        OwnFiles(out, images).check([out / name for name in "cabd"])
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "c"]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_killed_call_owns_what_was_there_and_what_it_meant_to_write_and_no_more(
    out: Path, images: Path
) -> None:
    paths = [out / name for name in "abcd"]
    for path in paths[:3]:
        OwnFiles(out, images).write(path, b"old")
    intended = {**dict.fromkeys(paths[:2], digest(b"new")), paths[2]: None, paths[3]: digest(b"new")}
    OwnFiles(out, images).claim(intended)
    paths[0].write_bytes(b"new")
    paths[2].unlink()  # and here the process is killed
    OwnFiles(out, images).check(paths)
    for path in paths:
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(b"mine")
        with pytest.raises(DataError, match=rf"/{path.name} was not written"):
            OwnFiles(out, images).check(paths)
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)
    own = OwnFiles(out, images)
    own.claim(intended)
    for path in (paths[1], paths[3]):
        path.write_bytes(b"new")
    own.settle()
    files = json.loads((out / RECORD).read_text())["files"]
    assert files == {name: [digest(b"new")] for name in "abd"}


def test_finished_files_are_moved_to_their_place(out: Path, images: Path) -> None:
    (out / "new").mkdir(parents=True)
    (out / "new" / "a").write_bytes(b"whole")
    OwnFiles(out, images).place({out / "below" / "a": out / "new" / "a"})
    assert (out / "below" / "a").read_bytes() == b"whole"
    assert not (out / "new" / "a").exists()
    (out / "new" / "a").write_bytes(b"next")
    (out / "below" / "a").write_bytes(b"mine")
    with pytest.raises(DataError, match="was not written"):
        OwnFiles(out, images).place({out / "below" / "a": out / "new" / "a"})


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
