"""Digests of files' contents, read by a few threads; a file that stays as it is is read once per process."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from wsss.errors import DataError

THREADS: Final = 4  # reading and hashing both let go of Python's lock; more threads make no disk faster
SETTLED_NS: Final = 2_000_000_000  # file systems count time in steps, the coarsest of them in two seconds


def file_digests(paths: Sequence[Path]) -> tuple[str, ...]:
    """SHA-256 of each file's bytes, in order; hexadecimal.

    Raises:
        DataError: a file can't be read.
    """
    with ThreadPoolExecutor(THREADS) as threads:
        return tuple(threads.map(_digest, paths))


def png_digests(folder: Path) -> list[tuple[str, str]]:
    """Path below the folder and SHA-256 of every PNG file in it and in folders below it, in order.

    Raises:
        DataError: a file can't be read.
    """
    paths = [path for path in folder.rglob("*.png") if path.is_file() and not path.name.startswith(".")]
    names = [path.relative_to(folder).as_posix() for path in paths]
    return sorted(zip(names, file_digests(paths), strict=True))


def _digest(path: Path) -> str:
    try:
        status = path.stat()
        if time.time_ns() - status.st_ctime_ns < SETTLED_NS:  # another change might get the same times
            return _read(path)
        # the time of the last change to the file's entry can't be set back, unlike that to its content
        return _remembered(path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    except OSError as error:
        raise DataError(
            f"{path} can't be read ({error.strerror}). Put it back, correct its permissions, or remove it "
            "and its lines in tags and lists."
        ) from error


@functools.cache
def _remembered(path: Path, *status: int) -> str:
    return _read(path)


def _read(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()
