"""The file of answers: JSON Lines, a header and one line per image and class, to be read and edited by hand.

| line  | content                                                                                  |
|-------|------------------------------------------------------------------------------------------|
| first | `format`, `version`, `model`, `sha256`, `settings`, `dataset`, `questions`               |
| other | `image_id`, `class`, `noun`, and `answers`: question in full -> answer as the model gave it |
|       | `image`, if known: digest of the image file that was looked at                           |

Several lines may speak of one image and class: they add up, and the later answer to a question counts. Where
they name different image files, the image was replaced: what was said before is dropped.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from wsss.errors import DataError, RecipeError
from wsss.questions.questions import Questions, check_questions, fill

logger = logging.getLogger(__name__)

FORMAT: Final = "wsss answers"
VERSION: Final = 1
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"  # some editors begin a UTF-8 file with it


@dataclass(frozen=True)
class Header:
    """Who answered what about which data set.

    Args:
        model: name of the model.
        sha256: digest of its weights; None where there are none.
        settings: how it decoded; JSON values.
        dataset: name of the data set.
        questions: the templates asked last, by group.
    """

    model: str
    sha256: str | None
    settings: Mapping[str, Any]
    dataset: str
    questions: Questions

    def line(self) -> str:
        """The header as the first line of a file."""
        return _json_line(
            {
                "format": FORMAT,
                "version": VERSION,
                "model": self.model,
                "sha256": self.sha256,
                "settings": dict(self.settings),
                "dataset": self.dataset,
                "questions": {group: list(templates) for group, templates in self.questions.items()},
            }
        )

    def is_same_source(self, other: Header) -> bool:
        """Whether the same model with the same settings spoke of the same data set."""
        are_known = self.sha256 is not None and other.sha256 is not None  # weights may have several names
        own, others = (
            (header.sha256, are_known or header.model, dict(header.settings), header.dataset)
            for header in (self, other)
        )
        return own == others


@dataclass(frozen=True)
class Answers:
    """All answers of one file.

    Args:
        path: the file, for messages.
        header: its first line.
        pairs: (image id, class name) -> question in full -> answer.
        nouns: (image id, class name) -> noun of the last line on that pair.
        images: (image id, class name) -> digest of the image file that was looked at, where known.
    """

    path: Path
    header: Header
    pairs: dict[tuple[str, str], dict[str, str]]
    nouns: dict[tuple[str, str], str]
    images: dict[tuple[str, str], str] = field(default_factory=dict)

    def of(self, image_id: str, class_name: str, noun: str, templates: Sequence[str]) -> tuple[str, ...]:
        """Answers to `templates` about one class of one image, in their order, as the model gave them.

        Args:
            image_id: the image.
            class_name: the data set's name of the class.
            noun: what the questions call it.
            templates: questions with `{}` for the noun.

        Raises:
            DataError: one of them was not answered.
        """
        answers = self.pairs.get((image_id, class_name), {})
        questions = [fill(template, noun) for template in templates]
        missing = [question for question in questions if question not in answers]
        if missing:
            raise DataError(
                f"{self.path} lacks {len(missing)} of {len(questions)} answers on the class `{class_name}` "
                f"of {image_id}, first to {missing[0]!r}. Ask again with this file: only what is missing is "
                "asked."
            )
        return tuple(answers[question] for question in questions)


def pair_line(
    image_id: str, class_name: str, noun: str, answers: Mapping[str, str], image: str | None = None
) -> str:
    """One line of the file: `answers` is question in full -> answer, `image` the digest of the image file."""
    entry: dict[str, Any] = {"image_id": image_id, "class": class_name, "noun": noun}
    if image is not None:
        entry["image"] = image
    return _json_line({**entry, "answers": dict(answers)})


def read_answers(path: Path) -> Answers:
    """Read a file of answers.

    A last line that was cut off (no line end, no valid JSON) is left out with a warning.

    Raises:
        DataError: the file is missing or not UTF-8, or a line is not as it must be; the line is named.
    """
    path = Path(path)
    _check_is_file(path)
    content = path.read_bytes()
    kept = content[: complete_length(content)]
    if len(kept) < len(content):
        logger.warning("The last line of %s was cut off and is left out.", path)
    lines = kept.removeprefix(BYTE_ORDER_MARK).split(b"\n")
    entries = [
        (_entry(line, f"{path}, line {n}"), n) for n, line in enumerate(lines, start=1) if line.strip()
    ]
    if not entries or "format" not in entries[0][0]:
        raise DataError(_no_header(path))
    (first, number), *others = entries
    answers = Answers(path, _header(first, f"{path}, line {number}"), {}, {}, {})
    for entry, number in others:
        _add(answers, entry, f"{path}, line {number}")
    return answers


def read_header(path: Path) -> Header:
    """Read who answered, and none of the answers.

    Raises:
        DataError: the file is missing, or does not begin with a header as it must be.
    """
    path = Path(path)
    _check_is_file(path)
    with path.open("rb") as file:
        if file.read(len(BYTE_ORDER_MARK)) != BYTE_ORDER_MARK:
            file.seek(0)
        number, line = next(((n, line) for n, line in enumerate(file, start=1) if line.strip()), (0, b""))
    where = f"{path}, line {number}"
    # a first line that was cut off counts for none, as in `read_answers`
    if not complete_length(line) or "format" not in (entry := _entry(line.rstrip(b"\n"), where)):
        raise DataError(_no_header(path))
    return _header(entry, where)


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"There is no answers file {path}. Ask the questions first, or correct the path.")


def _add(answers: Answers, entry: Mapping[str, Any], where: str) -> None:
    """Take up one line on a pair."""
    if "format" in entry:
        raise DataError(f"{where}: a second header. Keep one header, as the first line of the file.")
    pair = (_value(entry, "image_id", str, where), _value(entry, "class", str, where))
    answers.nouns[pair] = _value(entry, "noun", str, where)
    if "image" in entry:
        image = _value(entry, "image", str, where)
        if answers.images.setdefault(pair, image) != image:
            answers.images[pair] = image
            answers.pairs.pop(pair, None)
    answers.pairs.setdefault(pair, {}).update(_pair_answers(entry, where))


def complete_length(content: bytes) -> int:
    """Bytes of a file before a last line that was cut off; all of them where it is whole."""
    start = content.rfind(b"\n") + 1
    try:
        if content[start:].strip():
            json.loads(content[start:].removeprefix(BYTE_ORDER_MARK))
    except ValueError:
        return start
    return len(content)


def _json_line(entry: Mapping[str, Any]) -> str:
    text = json.dumps(entry, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 can't hold
        text = json.dumps(entry)
    return text + "\n"


def _no_header(path: Path) -> str:
    return (
        f"{path} must begin with a header line, an object with `format`: {FORMAT!r}; it has none there. "
        "Put the header back, or move the file away and ask again."
    )


def _entry(line: bytes, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 ({error}). Save the file as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where} is no valid JSON ({error}). Correct the line, or delete it and ask again."
        ) from error
    if not isinstance(entry, dict):
        raise DataError(f"{where} must be an object in braces; got {type(entry).__name__}. Correct the line.")
    return entry


def _value(entry: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """`entry[name]`, which must be of type `kind`."""
    value = entry.get(name)
    if isinstance(value, kind):
        return value
    expected = "a text in quotes" if kind is str else "an object in braces"
    got = json.dumps(value, ensure_ascii=False)[:80] if name in entry else "nothing"
    raise DataError(f"{where}: `{name}` must be {expected}; got {got}. Correct the line.")


def _pair_answers(entry: Mapping[str, Any], where: str) -> dict[str, str]:
    answers: dict[str, Any] = _value(entry, "answers", dict, where)
    return {question: _value(answers, question, str, f"{where}, `answers`") for question in answers}


def _header(entry: Mapping[str, Any], where: str) -> Header:
    found = (entry["format"], entry.get("version"))
    if found != (FORMAT, VERSION):
        raise DataError(
            f"{where}: expected a header of format {FORMAT!r}, version {VERSION}; got {found[0]!r}, version "
            f"{found[1]!r}. Use a file of this release, or ask again into a new file."
        )
    digest = None if entry.get("sha256") is None else _value(entry, "sha256", str, where)
    groups: dict[str, Any] = _value(entry, "questions", dict, where)
    for group, templates in groups.items():
        if not isinstance(templates, list) or not all(isinstance(text, str) for text in templates):
            raise DataError(f"{where}: `questions.{group}` must be a list of texts. Correct the line.")
    questions = {group: tuple(templates) for group, templates in groups.items()}
    try:
        check_questions(questions)
    except RecipeError as error:
        raise DataError(f"{where}: {error}") from error
    return Header(
        model=_value(entry, "model", str, where),
        sha256=digest,
        settings=_value(entry, "settings", dict, where),
        dataset=_value(entry, "dataset", str, where),
        questions=questions,
    )
