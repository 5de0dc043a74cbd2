"""Splits: named lists of image ids, from files or drawn once from the tagged images."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from wsss.checks import nearest
from wsss.data.image_folder import ImageFolder, MissingImages
from wsss.data.tags import report_missing
from wsss.errors import DataError

ALL: Final = "all"  # every image of the data set, unless a list of that name exists
_FIRST: Final = re.compile(r"(?P<split>.+)_first_(?P<count>[1-9]\d*)")


class Splits:
    """Splits of a data set; a list file is read when its split is first asked for.

    `<split>_first_<n>`, such as `train_first_10000`, is the first n images of a split: the name that goes
    into scores and reports says so.

    Args:
        images: the images that lists may name.
        lists: list file by split name.
        drawn: ids by split name, where there are no list files.
        first_word_only: whether a line's first word is the id (VOC), or the whole line (names with spaces).
        missing_images: whether listed images that are not there are an error or left out.
        advice: sentence for a reader who asks for a split that could be there and is not, by split name.
    """

    def __init__(
        self,
        images: ImageFolder,
        *,
        lists: Mapping[str, Path] | None = None,
        drawn: Mapping[str, tuple[str, ...]] | None = None,
        first_word_only: bool = False,
        missing_images: MissingImages = "error",
        advice: Mapping[str, str] | None = None,
    ) -> None:
        self._images = images
        self._lists = dict(lists or {})
        self._ids = dict(drawn or {})
        self._advice = dict(advice or {})
        self._first_word_only = first_word_only
        self._missing_images: MissingImages = missing_images

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all splits, sorted."""
        return tuple(sorted({*self._lists, *self._ids, ALL}))

    def ids(self, split: str) -> tuple[str, ...]:
        """Ids of a split, each once, in the list's order.

        Raises:
            DataError: there is no such split, its list is empty, or it names an unknown image.
        """
        part = _FIRST.fullmatch(split)
        if split in self._ids:
            return self._ids[split]
        if part is not None and split not in self._lists:
            return self._first(split, part["split"], int(part["count"]))
        self._ids[split] = self._found(split)
        return self._ids[split]

    def digest(self) -> str:
        """Changes when a split changes; hexadecimal."""
        found = hashlib.sha256()
        for name in self.names:
            if name in self._lists:  # bytes, not ids: an unused broken list does no harm
                found.update(repr((name, _read_bytes(self._lists[name]))).encode())
            else:
                found.update(repr((name, self.ids(name))).encode())
        return found.hexdigest()

    def _found(self, split: str) -> tuple[str, ...]:
        if split in self._lists:
            return self._read(self._lists[split])
        if split == ALL:
            return self._images.ids
        raise DataError(
            f"There is no split `{split}`. {self._advice.get(split) or nearest(split, self.names)}"
        )

    def _first(self, split: str, whole: str, count: int) -> tuple[str, ...]:
        ids = self.ids(whole)
        if count > len(ids):
            raise DataError(
                f"Split `{split}` must have {count:,} images; got {len(ids):,} in `{whole}`. "
                "Name a smaller number, or the whole split."
            )
        return ids[:count]

    def _read(self, path: Path) -> tuple[str, ...]:
        try:
            text = _read_bytes(path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"Split list {path} is not UTF-8 text (byte {error.start}). Save it as UTF-8."
            ) from error
        ids: dict[str, None] = {}
        missing: list[tuple[str, int]] = []
        for line, content in enumerate(text.split("\n"), start=1):
            words = content.split(maxsplit=1 if self._first_word_only else 0)
            if not words:
                continue
            written = words[0].strip()
            image_id = self._images.find(written, f"{path}, line {line}")
            if image_id is None:
                missing.append((written, line))
            else:
                ids[image_id] = None
        report_missing(missing, path, self._images, self._missing_images)
        if not ids:
            raise DataError(f"Split list {path} names no image that is there. Write one image id per line.")
        return tuple(ids)


def lists_in(folder: Path) -> dict[str, Path]:
    """The list files `<split>.txt` of a folder, by split name.

    Raises:
        DataError: the folder is missing or holds none.
    """
    found = {path.stem: path for path in sorted(folder.glob("*.txt")) if not path.name.startswith(".")}
    if not found:
        raise DataError(
            f"Expected split lists such as train.txt (one image id per line) in {folder}; got none. "
            "Correct the path in the data section, or write the lists."
        )
    return found


def drawn_split(ids: Sequence[str], fraction: float, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divide `ids` into (the rest, a random `fraction`), both in the given order.

    Which images are drawn depends on their ids and the seed alone, so one more image moves few others.
    """
    by_chance = sorted(ids, key=lambda image_id: hashlib.sha256(f"{seed}:{image_id}".encode()).digest())
    drawn = set(by_chance[: round(fraction * len(ids))])
    return tuple(i for i in ids if i not in drawn), tuple(i for i in ids if i in drawn)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"Split list {path} can't be read ({error.strerror}). Correct `splits` in the data section."
        ) from error
