"""Class lists: from `classes.json` or `classes.yaml`, from plain names, or from the tags themselves.

A classes file is one of

```yaml
[cat, dog]                              # names in label order: cat is 1, dog is 2
```
```yaml
classes:                                # names, or mappings of which only `name` must be given
  - name: dining table
    display: Dining table               # shown to people
    prompt: wooden table                # noun put into the prompt template of a language teacher
    synonyms: [diningtable, table]      # other spellings in tags and annotations
    background_texts: [floor, wall]     # what tends to surround it
background: [grass, sky, water]         # background texts of every class that gives none of its own
background_names: [grass, sky, water]   # words for surroundings, for information only
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from wsss.checks import nearest
from wsss.data.yaml_text import parse_yaml
from wsss.errors import DataError
from wsss.types import BACKGROUND, MAX_FOREGROUND, ClassInfo

BACKGROUND_NAME: Final = "background"
LABEL_SEPARATOR: Final = "|"
_KEYS: Final = ("classes", "background", "background_names")


@dataclass(frozen=True)
class ClassList:
    """The foreground classes of a data set, in label order.

    Args:
        infos: what is known of the K classes.
        source: where they come from, for messages.

    Raises:
        DataError: a name is empty, reserved or used twice, or there are too many classes or none.
    """

    infos: tuple[ClassInfo, ...]
    source: str
    _exact: dict[str, int] = field(init=False, repr=False, compare=False)
    _relaxed: dict[str, int | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= len(self.infos) <= MAX_FOREGROUND:
            raise DataError(
                f"{self.source} must give 1 to {MAX_FOREGROUND} foreground classes (masks have 8 bits); "
                f"got {len(self.infos)}. Correct the list."
            )
        exact: dict[str, int] = {}
        for index, info in enumerate(self.infos):
            for word in (info.name, *info.synonyms):
                self._check_word(word, index, exact)
                exact[word] = index
        relaxed: dict[str, int | None] = {}
        for word, index in exact.items():
            key = _relax(word)
            relaxed[key] = index if relaxed.get(key, index) == index else None  # None: ambiguous
        object.__setattr__(self, "_exact", exact)
        object.__setattr__(self, "_relaxed", relaxed)

    def _check_word(self, word: str, index: int, taken: Mapping[str, int]) -> None:
        name = self.infos[index].name
        if not word or word != word.strip() or not word.isprintable() or LABEL_SEPARATOR in word:
            raise DataError(
                f"A class name or synonym in {self.source} must be printable text without "
                f"`{LABEL_SEPARATOR}` and "
                f"without spaces at its ends; got {word!r}. Correct it."
            )
        if word.casefold() == BACKGROUND_NAME:
            raise DataError(
                f"`{word}` in {self.source} is class {BACKGROUND}, which is always there. List "
                "foreground classes only."
            )
        if word in taken:
            other = self.infos[taken[word]].name
            raise DataError(
                f"`{word}` in {self.source} stands for `{other}` and for `{name}`, or stands there twice. "
                "Names and synonyms must be unique."
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """K + 1 names, the first "background"."""
        return (BACKGROUND_NAME, *(info.name for info in self.infos))

    def __len__(self) -> int:
        return len(self.infos)

    def index(self, label: str) -> int | None:
        """Place 0…K-1 of the class that `label` names; None if there is none.

        Names and synonyms count; failing that, case, spaces, hyphens and underscores are overlooked where
        that leaves one class.
        """
        if label in self._exact:
            return self._exact[label]
        return self._relaxed.get(_relax(label))

    def require(self, label: str, place: str) -> int:
        """As `index`, for a label found at `place`.

        Raises:
            DataError: no class is called so; names `place` and the nearest class.
        """
        found = self.index(label)
        if found is None:
            names = [info.name for info in self.infos]
            raise DataError(
                f"Unknown class `{label}` in {place}. {nearest(label, self._exact)} Correct it, or add "
                "the class or a "
                f"synonym to {self.source} ({len(names)} classes)."
            )
        return found


def read_classes(path: Path) -> ClassList:
    """Read a classes file; the module's text shows its forms.

    A first entry "background" is accepted and left out: it is class 0 anyway.

    Raises:
        DataError: the file is missing or not as described.
    """
    document = _read_document(path)
    shared: tuple[str, ...] = ()
    if isinstance(document, Mapping):
        for key in document:
            if key not in _KEYS:
                raise DataError(f"Unknown key `{key}` in {path}. {nearest(str(key), _KEYS)}")
        shared = _texts(document.get("background") or [], f"`background` in {path}")
        _texts(document.get("background_names") or [], f"`background_names` in {path}")
        document = document.get("classes")
    if not isinstance(document, Sequence) or isinstance(document, str):
        raise DataError(
            f"{path} must hold a list of classes, alone or under the key `classes`; "
            f"got {type(document).__name__}. Write for example `classes: [cat, dog]`."
        )
    infos = [_info(entry, number, path) for number, entry in enumerate(document, start=1)]
    if infos and infos[0].name.casefold() == BACKGROUND_NAME:
        infos = infos[1:]
    return ClassList(
        tuple(info if info.background_texts else replace(info, background_texts=shared) for info in infos),
        source=str(path),
    )


def named_classes(names: Sequence[str], source: str) -> ClassList:
    """Classes of which nothing but the names is known."""
    return ClassList(tuple(ClassInfo(name) for name in names), source=source)


def classes_of_tags(labels: Mapping[str, int], source: str) -> ClassList:
    """The classes that occur in tags, sorted by name.

    Args:
        labels: every label with a line where it stands.
        source: the tags file, for messages.

    Raises:
        DataError: two labels differ in case, spaces, hyphens or underscores only, or there is none.
    """
    if not labels:
        raise DataError(
            f"{source} names no class at all. Fill its `labels` column, or give a classes file as `classes`."
        )
    seen: dict[str, str] = {}
    for label in sorted(labels):
        other = seen.setdefault(_relax(label), label)
        if other != label:
            raise DataError(
                f"`{other}` (line {labels[other]}) and `{label}` (line {labels[label]}) in {source} "
                "differ in spelling "
                "only. Write them alike, or give a classes file with synonyms as `classes`."
            )
    return named_classes(sorted(labels), source)


def _relax(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter not in " _-")


def _read_document(path: Path) -> Any:
    if path.suffix.lower() not in (".json", ".yaml", ".yml"):
        raise DataError(f"A classes file must end in .json, .yaml or .yml; got {path}. Rename it.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text) if path.suffix.lower() == ".json" else parse_yaml(text)
    except FileNotFoundError:
        raise DataError(f"There is no classes file {path}. Correct `classes` in the data section.") from None
    except OSError as error:
        raise DataError(
            f"Classes file {path} can't be read ({error.strerror}). Correct `classes`."
        ) from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"Classes file {path} can't be understood: {reason}. Correct it there.") from error


def _info(entry: Any, number: int, path: Path) -> ClassInfo:
    place = f"class {number} of {path}"
    if not isinstance(entry, Mapping):
        return ClassInfo(_text(entry, place))
    known = [item.name for item in fields(ClassInfo)]
    for key in entry:
        if key not in known:
            raise DataError(f"Unknown key `{key}` in {place}. {nearest(str(key), known)}")
    if "name" not in entry:
        raise DataError(f"Key `name` is missing in {place}. Give the name that tags use.")
    texts = {key: _text(entry.get(key) or "", f"`{key}` of {place}") for key in ("name", "display", "prompt")}
    lists = {
        key: _texts(entry.get(key) or [], f"`{key}` of {place}") for key in ("synonyms", "background_texts")
    }
    return ClassInfo(**texts, **lists)  # type: ignore[arg-type]


def _texts(values: Any, place: str) -> tuple[str, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise DataError(f"{place} must be a list of texts; got {values!r}. Write it as `[one, two]`.")
    return tuple(_text(value, place) for value in values)


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise DataError(
            f"{place} must be text; got {value!r}. Put it into quotes (YAML reads no, on and 1 otherwise)."
        )
    return value
