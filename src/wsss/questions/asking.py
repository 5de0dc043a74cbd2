"""Asks about the classes in the images what was not asked yet, and writes answers down as they come.

Answers are kept under the full text of their question, so other templates or nouns ask only what is new.

Source: QA-CLIMS, Deng et al., ACM MM 2023, https://arxiv.org/abs/2401.09883, Section 3.2.
Differs: all questions about all classes of an image are asked together, so each image is decoded once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from wsss.data.dataset import Dataset
from wsss.errors import RecipeError, StageError
from wsss.questions.answers import (
    BYTE_ORDER_MARK,
    Answers,
    Header,
    complete_length,
    pair_line,
    read_answers,
)
from wsss.questions.questions import Questions, all_templates, check_questions, fill
from wsss.questions.sources import Asked, OracleSource, Source, VqaSource
from wsss.training.checkpoint import write_atomically
from wsss.training.journal import Progress

__all__ = ["OracleSource", "Source", "VqaSource", "ask"]

logger = logging.getLogger(__name__)

IMAGES_AT_ONCE: Final = 16  # what an interruption can cost


def ask(
    dataset: Dataset,
    ids: Sequence[str],
    source: Source,
    path: Path,
    *,
    questions: Questions,
    nouns: Mapping[str, str],
    digests: Mapping[str, str] | None = None,
    images_at_once: int = IMAGES_AT_ONCE,
    progress: Progress | None = None,
) -> Answers:
    """Ask every template about every class present in the images, as far as `path` lacks the answers.

    The file grows by whole lines, batch by batch, so an interrupted call goes on where it stopped. Answers of
    another model, with other settings or about another data set, are never mixed: the old file is kept as
    `<name>.before-<digest>.jsonl` and everything is asked anew.

    Args:
        dataset: images and their labels.
        ids: images; those without tags are passed over.
        source: who answers.
        path: the file of answers, made if needed; nobody else may write to it meanwhile.
        questions: templates by group.
        nouns: class name -> what the questions call it, at least for the classes present.
        digests: image id -> digest of its file; answers about another file under the same id don't count.
        images_at_once: images that are decoded, asked about and written down together.
        progress: told how many of the images are finished.

    Returns:
        All answers of the file.

    Raises:
        RecipeError: a class has no noun, or a template is not valid.
        DataError: the file is broken; the message names the line.
        StageError: the source didn't answer what it was asked.
    """
    path = Path(path)
    if images_at_once < 1:
        raise RecipeError(f"`images_at_once` must be at least 1; got {images_at_once}.")
    header = Header(
        model=source.name,
        sha256=source.sha256,
        settings=json.loads(json.dumps(dict(source.settings))),
        dataset=dataset.name,
        questions=check_questions(questions),
    )
    wanted = {image_id: None for image_id in ids if dataset.is_tagged(image_id)}
    answers = _opened(path, header)
    templates, digest_of = all_templates(questions), dict(digests or {})
    missing: dict[str, list[Asked]] = {}
    for image_id in wanted:
        asked = _missing(answers, image_id, _present(dataset, image_id), nouns, templates, digest_of)
        if asked:
            missing[image_id] = asked
    total, done = len(wanted), len(wanted) - len(missing)
    if progress is not None:
        progress(done, total, "images")
    for batch in _batches(missing, images_at_once):
        asked_now = {image_id: missing[image_id] for image_id in batch}
        _append(path, _lines(dataset, source, asked_now, nouns, digest_of))
        done += len(batch)
        if progress is not None:
            progress(done, total, "images")
    return read_answers(path) if missing else answers


def _opened(path: Path, header: Header) -> Answers:
    """The answers there so far, in a file that has this header and can be appended to."""
    if path.is_file() and path.stat().st_size > 0:
        _repair(path)
        answers = read_answers(path)
        if header.is_same_source(answers.header):
            if answers.header.questions != header.questions:
                _replace_header(path, header)
            return replace(answers, header=header)
        kept = _put_aside(path)
        logger.warning(
            "%s holds answers of %s about %s, and now %s is asked about %s, or with other weights or "
            "settings. They are kept as %s; everything is asked anew.",
            *(path, answers.header.model, answers.header.dataset, header.model, header.dataset, kept.name),
        )
    write_atomically(path, header.line().encode(), durable=True)
    return Answers(path, header, {}, {})


def _repair(path: Path) -> None:
    """Cut off a last line that an interruption left incomplete; end a complete one without a line end."""
    content = path.read_bytes()
    length = complete_length(content)
    if 0 < length < len(content):
        logger.warning("The last line of %s was cut off; what it held is asked again.", path)
        with path.open("r+b") as file:
            file.truncate(length)
            os.fsync(file.fileno())
    elif not content.endswith(b"\n") and length:
        _append(path, ["\n"])


def _replace_header(path: Path, header: Header) -> None:
    _, _, lines = path.read_bytes().removeprefix(BYTE_ORDER_MARK).lstrip().partition(b"\n")
    write_atomically(path, header.line().encode() + lines, durable=True)


def _put_aside(path: Path) -> Path:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return path.rename(path.with_name(f"{path.stem}.before-{digest}{path.suffix}"))


def _present(dataset: Dataset, image_id: str) -> list[str]:
    columns = np.flatnonzero(dataset.image_labels(image_id))
    return [dataset.class_names[column + 1] for column in columns]


def _missing(
    answers: Answers,
    image_id: str,
    present: Sequence[str],
    nouns: Mapping[str, str],
    templates: Sequence[str],
    digests: Mapping[str, str],
) -> list[Asked]:
    """What was not asked yet about an image."""
    asked = []
    for class_name in present:
        if class_name not in nouns:
            raise RecipeError(
                f"`nouns` has nothing for the class `{class_name}` of image {image_id}. "
                "Give every class the noun that its questions use."
            )
        pair = (image_id, class_name)
        was = answers.images.get(pair)
        is_other = was is not None and digests.get(image_id, was) != was
        answered = {} if is_other else answers.pairs.get(pair, {})
        for template in templates:
            question = fill(template, nouns[class_name])
            if question not in answered:
                asked.append(Asked(class_name, template, question))
    return asked


def _batches(ids: Mapping[str, Any], size: int) -> Iterator[list[str]]:
    waiting = iter(ids)
    while batch := list(islice(waiting, size)):
        yield batch


def _lines(
    dataset: Dataset,
    source: Source,
    asked: Mapping[str, Sequence[Asked]],
    nouns: Mapping[str, str],
    digests: Mapping[str, str],
) -> list[str]:
    """Ask about a batch of images; one line per image and class."""
    images = [dataset.sample(image_id).image for image_id in asked] if source.needs_images else []
    given = source.answers(list(asked), images, list(asked.values()))
    expected = [len(own) for own in asked.values()]
    if [sum(isinstance(answer, str) for answer in own) for own in given] != expected:
        raise StageError(
            f"{source.name} was asked {expected} questions about {len(expected)} images and gave "
            f"{[len(own) for own in given]} answers. It must answer each question with one text."
        )
    lines = []
    for (image_id, questions), own in zip(asked.items(), given, strict=True):
        by_class: dict[str, dict[str, str]] = {}
        for item, answer in zip(questions, own, strict=True):
            by_class.setdefault(item.class_name, {})[item.question] = answer
        digest = digests.get(image_id)
        lines += [
            pair_line(image_id, name, nouns[name], answers, digest) for name, answers in by_class.items()
        ]
    return lines


def _append(path: Path, lines: Sequence[str]) -> None:
    """Add lines so that they outlive a power failure."""
    with path.open("ab") as file:
        file.write("".join(lines).encode())
        file.flush()
        os.fsync(file.fileno())
