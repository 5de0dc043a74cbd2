"""Which files of an output folder `wsss label` wrote itself: it replaces and deletes those, and no others.

A record beside them, `label-files.json`, names each with the digest of what was written. The digest of what
is about to be written joins it first: a call that was interrupted in between goes on, and what somebody
changed since is still seen.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from wsss.data.digests import file_digests
from wsss.errors import DataError
from wsss.training.checkpoint import write_atomically

RECORD: Final = "label-files.json"


class _Record(BaseModel):
    """The record's text."""

    model_config = ConfigDict(strict=True, extra="forbid")

    images: str
    files: dict[str, list[str]]  # by path below the folder: digest of what it holds, or may hold by now


class OwnFiles:
    """The files that `wsss label` wrote below a folder.

    Args:
        folder: the output folder; it need not be there.
        images: folder of the images that are labelled.

    Raises:
        DataError: the folder belongs to other images, or its record is damaged.
    """

    def __init__(self, folder: Path, images: Path) -> None:
        self._folder, self._images = folder, str(images.resolve())
        self._files: dict[str, list[str]] = {}
        self._intended: dict[str, str | None] = {}
        path = folder / RECORD
        if not os.path.lexists(path):
            return
        try:
            record = _Record.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise DataError(
                f"{path} must say which files `wsss label` wrote, and can't be read. Name another output "
                "folder."
            ) from error
        # images that were moved or renamed are the same ones
        if record.images != self._images and Path(record.images).is_dir():
            raise DataError(
                f"{folder} holds what `wsss label` made of {record.images}, and it would be replaced; the "
                f"images are in {images} now. Name another output folder."
            )
        self._files = record.files

    def check(self, paths: Iterable[Path]) -> None:
        """Make sure that nothing is lost where these files are written or deleted.

        Args:
            paths: below the folder; those that are not there do no harm.

        Raises:
            DataError: one is there that was not written here, or was changed since, or a file stands where
                its folder is to be.
        """
        there = []
        for path in dict.fromkeys(paths):
            self._check_parents(path)
            if os.path.lexists(path):
                there.append(path)
        others = [
            path
            for path in there
            if path.is_symlink() or not path.is_file() or self._name(path) not in self._files
        ]
        known = [path for path in there if path not in set(others)]
        for path, digest in zip(known, file_digests(known), strict=True):
            if digest not in self._files[self._name(path)]:
                others.append(path)
        if others:
            more = f", nor were {len(others) - 1:,} others" if len(others) > 1 else ""
            raise DataError(
                f"{min(others)} was not written by `wsss label` as it is now{more}, and would be replaced. "
                "Move what is yours elsewhere, or name another output folder."
            )

    def claim(self, intended: Mapping[Path, str | None]) -> None:
        """Note what is about to be written and deleted.

        Args:
            intended: SHA-256 of what each file shall hold; None: it shall be gone.

        Raises:
            DataError: as `check`.
        """
        self.check(intended)
        for path, digest in intended.items():
            name = self._name(path)
            self._intended[name] = digest
            held = [*self._files.get(name, ()), *([digest] if digest else ())]
            self._files[name] = list(dict.fromkeys(held))
        self._write()

    def settle(self) -> None:
        """Note that all that was claimed is done."""
        for name, digest in self._intended.items():
            if digest is None:
                self._files.pop(name, None)
            else:
                self._files[name] = [digest]
        self._intended.clear()
        self._write()

    def write(self, path: Path, data: bytes) -> None:
        """Write one file."""
        self.claim({path: hashlib.sha256(data).hexdigest()})
        write_atomically(path, data)
        self.settle()

    def place(self, sources: Mapping[Path, Path]) -> None:
        """Move finished files to where they belong.

        Args:
            sources: by place; on the same disk.
        """
        self.claim(dict(zip(sources, file_digests(list(sources.values())), strict=True)))
        for path, source in sources.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            source.replace(path)
        self.settle()

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _write(self) -> None:
        record = {"images": self._images, "files": dict(sorted(self._files.items()))}
        write_atomically(self._folder / RECORD, (json.dumps(record, indent=1) + "\n").encode())

    def _check_parents(self, path: Path) -> None:
        for parent in path.parents:
            if os.path.lexists(parent) and not parent.is_dir():
                raise DataError(
                    f"{parent} is a file where a folder is to be made. Name another output folder."
                )
            if parent == self._folder:
                return
