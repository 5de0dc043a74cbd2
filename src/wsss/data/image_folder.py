"""The images under a folder, their ids, and how ids in other files find them.

An image's id is its file name without extension where that is unique, else its path below the folder without
extension. Ids become names of output files, so they never leave the folder they are put into.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from wsss.data.digests import file_digests
from wsss.data.images import SUFFIXES
from wsss.errors import DataError

MissingImages = Literal["error", "skip"]


class ImageFolder:
    """All images anywhere under a folder, found once.

    Hidden files and folders are left out.

    Args:
        folder: where to look.
        without: folders inside that hold masks or the like and no images.

    Raises:
        DataError: the folder is missing or holds no image, or two images would have the same id.
    """

    def __init__(self, folder: Path, *, without: Collection[Path] = ()) -> None:
        if not folder.is_dir():
            raise DataError(f"There is no image folder {folder}. Correct the path in the data section.")
        self.folder = folder
        found = sorted(_walk(folder, {os.path.realpath(path) for path in without}))
        if not found:
            raise DataError(
                f"There is no JPEG, PNG, BMP or WebP image under {folder}. Correct the path in the "
                "data section."
            )
        by_stem: dict[str, list[str]] = defaultdict(list)
        for name in found:
            by_stem[PurePosixPath(name).stem].append(name)
        self._relative: dict[str, str] = {}
        for name in found:
            stem = PurePosixPath(name).stem
            self._add(stem if len(by_stem[stem]) == 1 else str(PurePosixPath(name).with_suffix("")), name)
        self._by_stem = by_stem
        self._by_path = {name: image_id for image_id, name in self._relative.items()}
        self._by_path |= {
            str(PurePosixPath(name).with_suffix("")): key for key, name in self._relative.items()
        }

    def _add(self, image_id: str, name: str) -> None:
        if not image_id.isprintable() or "\\" in image_id:
            raise DataError(
                f"Image {self.folder / name!r} has a name that can't be used for output files. "
                "Rename it without control characters and backslashes."
            )
        if image_id in self._relative:
            raise DataError(
                f"{self.folder / self._relative[image_id]} and {self.folder / name} would have the same id "
                f"`{image_id}`. Rename or remove one."
            )
        self._relative[image_id] = name

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids in the order of their files' paths."""
        return tuple(self._relative)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._relative

    def path(self, image_id: str) -> Path:
        """The image's file.

        Raises:
            DataError: there is no such image.
        """
        return self.folder / self.relative(image_id)

    def relative(self, image_id: str) -> str:
        """The image's path below the folder, with forward slashes."""
        if image_id not in self._relative:
            raise DataError(
                f"There is no image `{image_id}` under {self.folder}. Pass an id that the data set lists."
            )
        return self._relative[image_id]

    def find(self, written: str, place: str) -> str | None:
        """The id of the image that `written` names; None if there is none.

        Args:
            written: an id or a path below the folder, with or without extension.
            place: file and line where it stands, for messages.

        Raises:
            DataError: `written` leaves the folder, or names several images.
        """
        path = PurePosixPath(written.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or path.as_posix()[1:2] == ":":
            raise DataError(
                f"`{written}` in {place} leads out of the data folder. Write an image's name, or its "
                f"path below {self.folder}."
            )
        bare = str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else str(path)
        for name in dict.fromkeys((str(path), bare)):
            if name in self._relative:
                return name
            if name in self._by_path:
                return self._by_path[name]
            candidates = self._by_stem.get(name, [])
            if len(candidates) > 1:
                raise DataError(
                    f"`{written}` in {place} may be {candidates[0]} or {candidates[1]}. "
                    f"Write the path below {self.folder}."
                )
        return None

    def digests(self) -> tuple[tuple[str, str], ...]:
        """Path below the folder and SHA-256 of every image, in order."""
        names = tuple(self._relative.values())
        return tuple(zip(names, file_digests([self.folder / name for name in names]), strict=True))


def _walk(folder: Path, without: Collection[str]) -> Iterator[str]:
    """Paths of images below `folder`, with forward slashes; links are followed, once each."""
    seen = {os.path.realpath(folder)}
    for current, folders, files in os.walk(folder, followlinks=True):
        kept = []
        for name in folders:
            real = os.path.realpath(Path(current) / name)
            if not name.startswith(".") and real not in without and real not in seen:
                seen.add(real)
                kept.append(name)
        folders[:] = sorted(kept)
        below = Path(current).relative_to(folder)
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield (below / name).as_posix()
