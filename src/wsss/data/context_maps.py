"""Context maps: what the background of an image shows, for scores of co-occurrence only.

A map is a PNG of small numbers, or a MATLAB file of PASCAL-Context with the label (of 459) of every pixel.
The names of the numbers come from a JSON mapping or from PASCAL-Context's `labels.txt` (`59_labels.txt` for
maps of its 59 frequent classes). Scoring sees at most 255 of them, and 0 where none of them is shown.

Source:
    Mottaghi et al., "The Role of Context for Object Detection and Semantic Segmentation in the Wild",
    CVPR 2014. Each image has a file `<id>.mat` whose `LabelMap` holds 1-459.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from wsss.checks import nearest
from wsss.data.digests import file_digests
from wsss.data.masks_png import read_mask
from wsss.data.mat_files import UNREADABLE, read_variable
from wsss.errors import DataError

CONFUSED_WITH_VOC: Final = ("water", "track", "platform")
"""PASCAL-Context's names for what surrounds boats (water) and trains (track, platform): EPS, SMVWE."""

_LARGEST: Final = np.iinfo(np.uint16).max
_LINE: Final = re.compile(r"\s*(\d+)\s*:\s*(\S.*?)\s*")


@dataclass(frozen=True)
class ContextMaps:
    """A folder of maps that tell backgrounds apart.

    Args:
        folder: of the files `<id>.png` or `<id>.mat`.
        names: name of each value that scoring sees, 1-255.
        stored: value that scoring sees by the value in the files; None: the same.
    """

    folder: Path
    names: dict[int, str]
    stored: Mapping[int, int] | None = None

    def read(self, path: Path) -> np.ndarray:
        """The values of a map that have names, else 0; (H, W), uint8.

        Raises:
            DataError: the file is missing or damaged.
        """
        values = read_label_map(path) if path.suffix == ".mat" else read_mask(path)
        seen = {value: value for value in self.names} if self.stored is None else self.stored
        table = np.zeros(_LARGEST + 1, dtype=np.uint8)
        table[list(seen)] = list(seen.values())
        shown: np.ndarray = table[values]
        return shown

    def digests(self) -> list[tuple[str, str]]:
        """Name and SHA-256 of every map, in order; hexadecimal."""
        paths = [path for path in self.folder.rglob("*") if path.suffix in (".png", ".mat")]
        names = [path.relative_to(self.folder).as_posix() for path in paths]
        return sorted(zip(names, file_digests(paths), strict=True))


def read_label_map(path: Path) -> np.ndarray:
    """Read the labels of all pixels of a file of PASCAL-Context; (H, W), uint16.

    Raises:
        DataError: the file is missing, damaged or laid out otherwise.
    """
    try:
        values = np.asarray(read_variable(path, "LabelMap"))
        is_whole = np.array_equal(values, values.astype(np.uint16))
    except UNREADABLE as error:
        raise DataError(
            f"{path} must be a file of PASCAL-Context with the labels of all pixels as `LabelMap`; it can't "
            f"be read so ({error}). Replace it, or leave `context` out."
        ) from error
    if values.ndim != 2 or not is_whole:
        raise DataError(
            f"`LabelMap` in {path} must be (H, W) whole numbers up to {_LARGEST}; got {values.dtype} "
            f"{values.shape}. Replace the file."
        )
    return values.astype(np.uint16)


def open_context(folder: Path, names_file: Path, chosen: Sequence[str] | None = None) -> ContextMaps:
    """The maps of a folder, whose values a file names.

    Args:
        folder: of the maps.
        names_file: JSON mapping from values to names, or a text file with a line `value: name` for each.
        chosen: names to be told apart, which get the values 1, 2, …; None: all of a JSON mapping, those of
            `CONFUSED_WITH_VOC` of a text file.

    Raises:
        DataError: the names can't be read, or `chosen` has one that is not among them.
    """
    if names_file.suffix == ".txt":
        names = read_label_list(names_file)
        chosen = CONFUSED_WITH_VOC if chosen is None else chosen
    else:
        names = read_context_names(names_file)
    if chosen is None:
        return ContextMaps(folder, names)
    values = {name: value for value, name in names.items()}
    for name in chosen:
        if name not in values:
            raise DataError(
                f"`context_classes` names `{name}`. {nearest(name, values)} {names_file} lists all."
            )
    own = dict(enumerate(dict.fromkeys(chosen), start=1))
    return ContextMaps(folder, own, {values[name]: value for value, name in own.items()})


def read_label_list(path: Path) -> dict[int, str]:
    """Names by value, from lines `value: name` as in PASCAL-Context's `labels.txt`.

    Raises:
        DataError: the file is missing, or a line is none of that kind or repeats a value or name.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            f"Names of contexts can't be read from {path} ({error}). Correct `context_names`."
        ) from error
    names: dict[int, str] = {}
    for number, line in enumerate(lines, start=1):
        found = _LINE.fullmatch(line)
        if not line.strip():
            continue
        if found is None or not 0 <= int(found[1]) <= _LARGEST:
            raise DataError(
                f"{path}, line {number}, must be `value: name` with a value up to {_LARGEST}; got "
                f"{line[:60]!r}. Write for example `443: water`."
            )
        if int(found[1]) in names or found[2] in names.values():
            raise DataError(f"{path}, line {number}, repeats {line.strip()!r}. Name each value once.")
        names[int(found[1])] = found[2]
    names.pop(0, None)  # no context
    return names


def read_context_names(path: Path) -> dict[int, str]:
    """Names of the values 1-255 of context maps, from a JSON mapping; value 0 is no context.

    Raises:
        DataError: the file is missing or no such mapping.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        names = {int(value): str(name) for value, name in document.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} must be a JSON mapping from values to names; it can't be read so ({error}). "
            'Write for example `{"1": "sky"}`.'
        ) from error
    names.pop(0, None)
    if any(not 0 < value < 256 for value in names):
        raise DataError(
            f"{path} must name values 1-255 of 8-bit maps; got {sorted(names)}. Correct the keys."
        )
    return names
