"""Where true masks come from: PNG files, the MATLAB files of SBD, or several of these in turn.

Only scoring and the fully supervised twin read them. `FileDataset` checks what they hold; COCO's masks, which
are drawn from annotations, are in `wsss.data.coco_masks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from wsss.data.digests import file_digests, png_digests
from wsss.data.image_folder import ImageFolder
from wsss.data.masks_png import read_mask
from wsss.data.sbd import read_sbd_mask
from wsss.errors import DataError


class TrueMasks(Protocol):
    """The true masks of a data set."""

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders whose files hold them, which no training may read."""

    def missing(self, ids: Sequence[str]) -> tuple[Path, ...]:
        """Files that should be there for these images and are not, in order. Reads no mask."""

    def read(self, image_id: str) -> tuple[np.ndarray, Path]:
        """The mask as its file has it, (H, W), uint8, and the file, for messages.

        Raises:
            DataError: the file is missing or damaged.
        """

    def digests(self) -> list[tuple[str, str]]:
        """Name and SHA-256 of every file, in a fixed order; hexadecimal."""


class PngMasks:
    """Masks `<id>.png` in one folder, or in a tree like that of the images.

    Args:
        folder: of the masks.
        images: the images that they belong to.
    """

    def __init__(self, folder: Path, images: ImageFolder) -> None:
        self._folder, self._images = folder, images

    @property
    def folders(self) -> tuple[Path, ...]:
        return (self._folder,)

    def missing(self, ids: Sequence[str]) -> tuple[Path, ...]:
        paths = [png_beside(self._folder, self._images, image_id) for image_id in ids]
        return tuple(path for path in paths if not path.is_file())

    def read(self, image_id: str) -> tuple[np.ndarray, Path]:
        path = png_beside(self._folder, self._images, image_id)
        return read_mask(path), path

    def digests(self) -> list[tuple[str, str]]:
        return png_digests(self._folder)


class SbdMasks:
    """Masks in SBD's files `<id>.mat`.

    Args:
        folder: SBD's `cls`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def folders(self) -> tuple[Path, ...]:
        return (self._folder,)

    def missing(self, ids: Sequence[str]) -> tuple[Path, ...]:
        return tuple(path for path in map(self._path, ids) if not path.is_file())

    def read(self, image_id: str) -> tuple[np.ndarray, Path]:
        path = self._path(image_id)
        return read_sbd_mask(path), path

    def digests(self) -> list[tuple[str, str]]:
        paths = sorted(self._folder.glob("*.mat"))
        return list(zip([path.name for path in paths], file_digests(paths), strict=True))

    def _path(self, image_id: str) -> Path:
        return self._folder / f"{image_id}.mat"


class FirstMasks:
    """For each image, the mask of the first source that has one.

    Args:
        sources: in order; at least one.
    """

    def __init__(self, sources: Sequence[TrueMasks]) -> None:
        if not sources:
            raise DataError("`sources` must name at least one source of masks; got none. Pass None instead.")
        self._sources = tuple(sources)

    @property
    def folders(self) -> tuple[Path, ...]:
        return tuple(folder for source in self._sources for folder in source.folders)

    def missing(self, ids: Sequence[str]) -> tuple[Path, ...]:
        named = (self._sources[0].missing([image_id]) for image_id in ids if self._source(image_id) is None)
        return tuple(path for paths in named for path in paths)

    def read(self, image_id: str) -> tuple[np.ndarray, Path]:
        return (self._source(image_id) or self._sources[0]).read(image_id)

    def digests(self) -> list[tuple[str, str]]:
        return [pair for source in self._sources for pair in source.digests()]

    def _source(self, image_id: str) -> TrueMasks | None:
        return next((source for source in self._sources if not source.missing([image_id])), None)


def png_beside(folder: Path, images: ImageFolder, image_id: str) -> Path:
    """The PNG of an image: in a tree like the images' own where it is there, else by the image's id."""
    mirrored = folder / PurePosixPath(images.relative(image_id)).with_suffix(".png")
    return mirrored if mirrored.is_file() else folder / f"{image_id}.png"
