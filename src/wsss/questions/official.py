"""Turns the published answer files of QA-CLIMS, which are pickles, into a file of answers, behind an opt-in.

A published file holds image id -> class name -> {`vqa`: [(template, raw answer), …], `answers`: […]}, where
`answers` are lemmatised; only raw answers are taken. Unpickling goes through a reader that can rebuild
dictionaries, lists, texts and numbers only.

Source: QA-CLIMS, Deng et al., ACM MM 2023, https://arxiv.org/abs/2401.09883, and the files of its code.
"""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from wsss.checks import nearest
from wsss.errors import DataError, RecipeError
from wsss.layers.class_texts import spelling
from wsss.questions.answers import Answers, Header, pair_line, read_answers
from wsss.questions.questions import check_questions, fill, published_questions
from wsss.training.checkpoint import write_atomically

OTHER_GROUP: Final = "other"  # of templates that were not published


class _Given(NamedTuple):
    image_id: str
    noun: str
    template: str
    answer: str


def import_official(
    paths: Path | Sequence[Path],
    target: Path,
    *,
    allow_pickle: bool = False,
    dataset_name: str,
    class_names: Sequence[str] | None = None,
) -> Answers:
    """Write the answers of one or several published files, which add up, to one file of answers.

    Args:
        paths: pickled answer files; one, or those of foreground and background.
        target: the file of answers to write; it must not be there.
        allow_pickle: must be True: the format is a pickle.
        dataset_name: name of the data set that they speak of.
        class_names: the data set's own names of its foreground classes; the files' spelling stays the noun
            of the questions. None: keep the files' names.

    Returns:
        What `target` now holds.

    Raises:
        DataError: no opt-in, `target` is there, or a file is of another format or names unknown classes.
    """
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not allow_pickle:
        raise DataError(
            f"{', '.join(map(str, files))}: a pickle is read only on request. Pass `allow_pickle=True`; "
            "only plain values are rebuilt from it, no code runs."
        )
    if Path(target).exists():
        raise DataError(f"{target} is there already. Move it away, or name another target.")
    own = None if class_names is None else {spelling(name): name for name in class_names}
    pairs: dict[tuple[str, str], dict[str, str]] = {}
    nouns: dict[tuple[str, str], str] = {}
    templates: dict[str, None] = {}
    for path in files:
        for given in _answers(path, _unpickled(path)):
            pair = (given.image_id, _own_name(path, given.noun, own))
            pairs.setdefault(pair, {})[fill(given.template, given.noun)] = given.answer
            nouns[pair] = given.noun
            templates[given.template] = None
    header = Header(
        model="imported",
        sha256=None,
        settings={
            "source": ", ".join(path.name for path in files),
            "sha256": ", ".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in files),
        },
        dataset=dataset_name,
        questions=_grouped(files, list(templates)),
    )
    lines = [pair_line(*pair, nouns[pair], answers) for pair, answers in pairs.items()]
    write_atomically(Path(target), "".join([header.line(), *lines]).encode(), durable=True)
    return read_answers(Path(target))


def _allowed() -> dict[tuple[str, str], Callable[..., Any]]:
    """What a pickle of plain values may name; numpy's entries rebuild its texts and numbers."""
    multiarray: Any = getattr(np, "_core", None) or np.core  # numpy 2 and 1 keep it in different places
    allowed: dict[tuple[str, str], Callable[..., Any]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("collections", "defaultdict"): defaultdict,
        ("numpy", "dtype"): np.dtype,
    }
    for module in ("builtins", "__builtin__"):
        allowed[module, "dict"] = dict
        allowed[module, "list"] = list
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed[module, "scalar"] = multiarray.multiarray.scalar
    return allowed


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no plain value") from None


_ALLOWED: Final = _allowed()
_BROKEN: Final = (
    *(pickle.UnpicklingError, EOFError, LookupError, ValueError, TypeError, AttributeError),
    *(ArithmeticError, MemoryError, RuntimeError),
)


def _unpickled(path: Path) -> Any:
    if not path.is_file():
        raise DataError(f"There is no file {path}. Correct the path.")
    with path.open("rb") as file:
        try:
            return _PlainUnpickler(file).load()
        except _BROKEN as error:
            raise DataError(f"{path} is no answers file of QA-CLIMS ({error}). Get it again.") from error


def _answers(path: Path, content: Any) -> Iterator[_Given]:
    for image_id, classes in _items(path, content, "image ids"):
        for noun, entry in _items(path, classes, f"the classes of {image_id}"):
            where = f"{path}: `vqa` of class {noun} of image {image_id}"
            pairs = entry.get("vqa") if isinstance(entry, Mapping) else None
            if not isinstance(pairs, list | tuple):
                raise DataError(f"{where} must be a list; got {type(pairs).__name__}. Get the file again.")
            for pair in pairs:
                is_pair = isinstance(pair, list | tuple) and len(pair) == 2
                if not is_pair or not all(isinstance(text, str) for text in pair):
                    raise DataError(f"{where} must hold pairs of texts; got {pair!r}. Get the file again.")
                yield _Given(str(image_id), str(noun), str(pair[0]), str(pair[1]))


def _items(path: Path, content: Any, what: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise DataError(
            f"{path} must hold {what} as texts in a dictionary; got {type(content).__name__}. "
            "Name an answers file of QA-CLIMS, not its feature cache."
        )
    yield from content.items()


def _own_name(path: Path, noun: str, own: Mapping[str, str] | None) -> str:
    if own is None:
        return noun
    if spelling(noun) not in own:
        raise DataError(
            f"{path} speaks of the class `{noun}`, which the data set doesn't have. "
            f"{nearest(noun, own.values())}"
        )
    return own[spelling(noun)]


def _grouped(files: Sequence[Path], templates: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The templates found, in the published groups where they are known."""
    groups = {
        group: tuple(template for template in known if template in templates)
        for group, known in published_questions().items()
    }
    known = {template for own in groups.values() for template in own}
    groups[OTHER_GROUP] = tuple(template for template in templates if template not in known)
    try:
        return check_questions({group: own for group, own in groups.items() if own})
    except RecipeError as error:
        raise DataError(f"{', '.join(map(str, files))}: {error}") from error
