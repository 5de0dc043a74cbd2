import hashlib
import os
import time
from pathlib import Path

import pytest

from wsss.data import digests
from wsss.data.digests import file_digests, png_digests
from wsss.errors import DataError


def settled(path: Path) -> None:
    """Wait until the file's times are older than the clock's steps."""
    while time.time_ns() - path.stat().st_ctime_ns < digests.SETTLED_NS:
        time.sleep(0.1)


def test_digests_are_those_of_the_bytes_in_order(tmp_path: Path) -> None:
    contents = [bytes([number]) * size for number, size in enumerate((0, 1, 100, 3_000_000))]
    paths = [tmp_path / str(number) for number in range(4)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    assert file_digests(paths) == tuple(hashlib.sha256(content).hexdigest() for content in contents)
    assert file_digests([]) == ()


def test_a_change_right_after_a_digest_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a"
    seen = set()
    for number in range(20):
        path.write_bytes(bytes([number]))
        seen.add(file_digests([path]))
    assert len(seen) == 20


def test_a_file_that_stays_as_it_is_is_read_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(digests, "SETTLED_NS", 50_000_000)
    path, read = tmp_path / "a", []
    original = digests._read
    monkeypatch.setattr(digests, "_read", lambda path: read.append(path) or original(path))
    path.write_bytes(b"1")
    settled(path)
    before = path.stat()
    assert file_digests([path]) == file_digests([path])
    assert read == [path]
    path.write_bytes(b"2")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps times
    settled(path)
    assert file_digests([path]) == (hashlib.sha256(b"2").hexdigest(),)


def test_png_files_of_a_tree_are_named_by_their_place(tmp_path: Path) -> None:
    (tmp_path / "below" / "deep").mkdir(parents=True)
    contents = {"b.png": b"1", "below/a.png": b"2", "below/deep/c.png": b"3"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in ("notes.txt", ".tmp-1-b.png", "below/.tmp-2-a.png"):
        (tmp_path / name).write_bytes(b"no part of it")
    expected = [(name, hashlib.sha256(content).hexdigest()) for name, content in sorted(contents.items())]
    assert png_digests(tmp_path) == expected


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg can't be read"):
        file_digests([tmp_path / "gone.jpg"])
