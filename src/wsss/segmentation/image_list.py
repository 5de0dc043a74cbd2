"""Which images a folder, a pattern, a list file or paths mean, and the names that they keep in outputs.

Names are paths below the folder that all images share, so images of the same file name in different folders
never meet, and nothing is written outside the output folder.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from wsss.data.image_folder import ImageFolder
from wsss.data.images import SUFFIXES
from wsss.errors import DataError

OVERLAYS: Final = "overlays"  # folder for pictures; they are JPEG files, so no mask is ever in their place
_LONGEST_PATH = 4_096  # letters; no system has longer ones


@dataclass(frozen=True)
class ImageFile:
    """One image to predict.

    Args:
        path: the file.
        name: its path below the folder that all images share, with forward slashes.
    """

    path: Path
    name: str

    @property
    def mask_name(self) -> str:
        """Its mask's path below the output folder."""
        return str(PurePosixPath(self.name).with_suffix(".png"))

    @property
    def overlay_name(self) -> str:
        """Its overlay's path below the output folder."""
        return str(PurePosixPath(OVERLAYS, self.name).with_suffix(".jpg"))

    @property
    def base(self) -> str:
        """The folder that its name starts at."""
        absolute = Path(os.path.abspath(self.path))  # noqa: PTH100  (links stay as they are written)
        return str(absolute.parents[len(PurePosixPath(self.name).parts) - 1])


def find_images(places: Sequence[str | Path], out: Path) -> tuple[ImageFile, ...]:
    """All images that `places` name, each once, in the order of their names.

    Args:
        places: folders (images in folders below count too), patterns such as `photos/**/*.jpg`, `.txt` files
            of one path a line (relative to that file; lines that begin with # are left out), image files.
        out: where masks go; never searched for images.

    Raises:
        DataError: a place is not there, nothing is found, a name can't be used for output files, two images
            would share a mask, or a mask or an overlay would replace an image.
    """
    bases: list[str] = []
    paths: list[str] = []
    for place in places:
        base, found = _named_by(str(place), out)
        bases.append(base)
        paths += found
    try:
        root = os.path.commonpath(bases)
    except ValueError:
        raise DataError(
            "The images are on several drives, so their names have no common folder. Run once for each drive."
        ) from None
    names = {Path(os.path.relpath(path, root)).as_posix(): Path(path) for path in paths}
    images = tuple(ImageFile(names[name], name) for name in sorted(names))
    _check_names(images, out)
    return images


def _named_by(place: str, out: Path) -> tuple[str, Iterable[str]]:
    """The folder that names start at, and absolute paths."""
    path = Path(place)
    if path.is_dir():
        folder = ImageFolder(path, without=[out])
        base = os.path.abspath(place)  # noqa: PTH100  (links stay as they are written)
        return base, [os.path.join(base, folder.relative(image_id)) for image_id in folder.ids]  # noqa: PTH118
    if path.is_file() and path.suffix.lower() == ".txt":
        found = _absolute(_lines(path), path.parent)
        return _shared_folder(found, os.path.abspath(path.parent)), found  # noqa: PTH100
    if not path.exists() and not glob.has_magic(place):
        raise DataError(
            f"There is no image, folder or list {place}. Correct the path; it starts at the folder that the "
            "command runs in."
        )
    if path.is_file() or not glob.has_magic(place):
        found = _absolute([place], Path())
        return os.path.dirname(found[0]), found  # noqa: PTH120
    found = _absolute(sorted(glob.glob(place, recursive=True)), Path())  # noqa: PTH207  (patterns may be absolute)
    found = [name for name in found if Path(name).suffix.lower() in SUFFIXES and Path(name).is_file()]
    if not found:
        raise DataError(f"No JPEG, PNG, BMP or WebP image matches {place}. Correct the pattern.")
    parts = Path(place).parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return os.path.abspath(Path(*parts[:fixed])), found  # noqa: PTH100


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(
            f"The list of images {path} can't be read ({error}). Save it as UTF-8 text."
        ) from error
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    unusable = next((line for line in found if len(line) > _LONGEST_PATH or not line.isprintable()), None)
    if unusable is not None:
        raise DataError(
            f"The list of images {path} holds {unusable[:80]!r}, which is no path. Write one path a line."
        )
    if not found:
        raise DataError(f"The list of images {path} names none. Write one path a line.")
    return found


def _absolute(names: Iterable[str], start: Path) -> list[str]:
    return [os.path.abspath(start / name) for name in names]  # noqa: PTH100


def _shared_folder(paths: Sequence[str], preferred: str) -> str:
    """`preferred` where all paths lie below it, else the deepest folder that holds them all."""
    try:
        if all(os.path.commonpath([preferred, path]) == preferred for path in paths):
            return preferred
        return os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    except ValueError:  # several drives; the caller says so
        return os.path.dirname(paths[0])  # noqa: PTH120


def _check_names(images: Sequence[ImageFile], out: Path) -> None:
    seen: dict[str, str] = {}
    inputs = {os.path.realpath(image.path) for image in images}
    for image in images:
        if (
            image.name == "."
            or not image.name.isprintable()
            or "\\" in image.name
            or image.name.startswith("../")
        ):
            raise DataError(
                f"Image {str(image.path)!r} has a name that can't be used for output files. Rename it "
                "without control characters and backslashes."
            )
        other = seen.setdefault(image.mask_name.casefold(), image.name)
        if other != image.name:
            raise DataError(
                f"The images {other} and {image.name} would have the same mask {image.mask_name}. "
                "Rename one, or predict them in two calls with two output folders."
            )
        for what, name in (("mask", image.mask_name), ("overlay", image.overlay_name)):
            if os.path.realpath(out / name) in inputs:
                raise DataError(
                    f"The {what} of {image.name} would replace an image, since {out} is where the images "
                    "are. Give another folder for the masks."
                )
