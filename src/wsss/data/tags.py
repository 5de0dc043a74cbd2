"""Tags files: which classes each image holds, as CSV.

```
image,labels,scene
holiday/0001.jpg,cat|dog,grass|sky
0002,,road
```
`image` is an id or a path, with or without extension; `labels` are class names or synonyms separated by `|`,
and an empty cell means that no class is present. The column `scene`, which may be left out, holds words for
the visible background. An image without a row is untagged: nothing is known of it, and it is not trained on.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from wsss.checks import nearest
from wsss.data.classes import LABEL_SEPARATOR, ClassList
from wsss.data.image_folder import ImageFolder, MissingImages
from wsss.errors import DataError

logger = logging.getLogger(__name__)

_REQUIRED: Final = ("image", "labels")
_OPTIONAL: Final = ("scene",)
_OTHER_DELIMITERS: Final = {";": "semicolons", "\t": "tabs"}


class Labels(Protocol):
    """Where a data set's image-level labels come from."""

    def classes_of(self, image_id: str) -> tuple[int, ...] | None:
        """Places 0…K-1 of the classes present; None for an untagged image."""

    def scene_words(self, image_id: str) -> tuple[str, ...]:
        """Words for the visible background; empty where there are none."""

    def digest(self) -> str:
        """Changes when any label changes; hexadecimal."""


@dataclass(frozen=True)
class TagRow:
    """One row of a tags file, its words not yet looked up.

    Args:
        line: where it stands, from 1.
        image: as written.
        labels: as written, without repetition.
        scene: as written, without repetition.
    """

    line: int
    image: str
    labels: tuple[str, ...]
    scene: tuple[str, ...]


@dataclass(frozen=True)
class TagTable:
    """Labels from a tags file.

    Args:
        labels: places 0…K-1 of the classes present, ascending, by image id.
        scenes: words for the background, by image id.
    """

    labels: dict[str, tuple[int, ...]]
    scenes: dict[str, tuple[str, ...]]

    def classes_of(self, image_id: str) -> tuple[int, ...] | None:
        return self.labels.get(image_id)

    def scene_words(self, image_id: str) -> tuple[str, ...]:
        return self.scenes.get(image_id, ())

    def digest(self) -> str:
        rows = sorted((key, found, self.scenes.get(key, ())) for key, found in self.labels.items())
        return hashlib.sha256(repr(rows).encode()).hexdigest()


def read_tag_rows(path: Path) -> tuple[TagRow, ...]:
    """Read a tags file; UTF-8, with or without byte order mark, any line ends.

    Raises:
        DataError: the file is missing or not as the module describes it; names file and line.
    """
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    try:
        header = _header(next(reader, []), path)
        return tuple(
            _row(header, cells, path, reader.line_num)
            for cells in reader
            if any(cell.strip() for cell in cells)
        )
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}, is no valid CSV ({error}). Check its quotation marks."
        ) from error


def labels_of_rows(rows: Sequence[TagRow]) -> dict[str, int]:
    """Every label that occurs, with the line where it occurs first."""
    found: dict[str, int] = {}
    for row in rows:
        for label in row.labels:
            found.setdefault(label, row.line)
    return found


def tag_table(
    rows: Sequence[TagRow],
    path: Path,
    images: ImageFolder,
    classes: ClassList,
    *,
    missing_images: MissingImages = "error",
) -> TagTable:
    """Look up the images and classes of a tags file.

    Args:
        rows: what `read_tag_rows` gave.
        path: the tags file, for messages.
        images: the images of the data set.
        classes: the classes of the data set.
        missing_images: whether rows of images that are not there are an error or left out.

    Raises:
        DataError: an unknown image or class, or two different rows for one image; names file and line.
    """
    table = TagTable({}, {})
    lines: dict[str, int] = {}
    missing: list[TagRow] = []
    for row in rows:
        place = f"{path}, line {row.line}"
        present = tuple(sorted({classes.require(label, place) for label in row.labels}))
        image_id = images.find(row.image, place)
        if image_id is None:
            missing.append(row)
            continue
        if image_id in lines and (table.labels[image_id], table.scenes[image_id]) != (present, row.scene):
            raise DataError(
                f"{path} tags `{image_id}` differently in lines {lines[image_id]} and {row.line}. "
                f"Write one row with all labels, separated by `{LABEL_SEPARATOR}`."
            )
        lines.setdefault(image_id, row.line)
        table.labels[image_id], table.scenes[image_id] = present, row.scene
    report_missing([(row.image, row.line) for row in missing], path, images, missing_images)
    return table


def report_missing(
    missing: Sequence[tuple[str, int]], path: Path, images: ImageFolder, missing_images: MissingImages
) -> None:
    """Raise `DataError`, or log a warning, about names in `path` (with their lines) that have no image."""
    if not missing:
        return
    name, line = missing[0]
    others = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
    if missing_images == "error":
        raise DataError(
            f"{path}, line {line}, names the image `{name}`{others}, which is not under {images.folder}. "
            "Add the image, delete the line, or set `missing_images: skip` in the data section."
        )
    logger.warning("%s names %d images that are not under %s; left out.", path, len(missing), images.folder)


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(
            f"There is no tags file {path}. Correct `tags` in the data section; its columns are "
            "`image,labels`."
        ) from None
    except OSError as error:
        raise DataError(f"Tags file {path} can't be read ({error.strerror}). Correct `tags`.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"Tags file {path} is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        ) from error


def _header(cells: Sequence[str], path: Path) -> tuple[str, ...]:
    """Column names in lower case, checked."""
    names = tuple(cell.strip().lower() for cell in cells)
    if len(names) == 1:
        for delimiter, word in _OTHER_DELIMITERS.items():
            if delimiter in names[0]:
                raise DataError(
                    f"{path} separates its columns by {word}; expected commas. Save it as "
                    "comma-separated CSV with "
                    f"labels separated by `{LABEL_SEPARATOR}`."
                )
    for required in _REQUIRED:
        if names.count(required) != 1:
            raise DataError(
                f"{path} must begin with a line of column names that holds `image` and `labels` once each; "
                f"got `{','.join(cells)[:80]}`. Write `image,labels` or `image,labels,scene` as its "
                "first line."
            )
    for name in names:
        if name not in (*_REQUIRED, *_OPTIONAL):
            logger.warning(
                "%s: column `%s` is not used. %s", path, name, nearest(name, (*_REQUIRED, *_OPTIONAL))
            )
    return names


def _row(header: Sequence[str], cells: Sequence[str], path: Path, line: int) -> TagRow:
    needed = 1 + max(header.index(name) for name in _REQUIRED)
    if not needed <= len(cells) <= len(header):
        raise DataError(
            f"{path}, line {line}, must have {len(header)} cells like the first line; got "
            f"{len(cells)}. Separate several "
            f"labels by `{LABEL_SEPARATOR}`; where no class is present, leave the cell empty but keep "
            "its comma."
        )
    values = dict(zip(header, cells, strict=False))
    image = values["image"].strip()
    if not image:
        raise DataError(f"{path}, line {line}, names no image. Fill its `image` cell or delete the line.")
    return TagRow(line, image, _words(values["labels"]), _words(values.get("scene", "")))


def _words(cell: str) -> tuple[str, ...]:
    words = (word.strip() for word in cell.split(LABEL_SEPARATOR))
    return tuple(dict.fromkeys(word for word in words if word))
