"""Asking a question answering model about the training images, and reading what it answered.

Answers are shared: all runs of one runs folder that ask the same model with the same settings about the same
data keep them in one file, so that another set of questions asks only what is new. Several processes ask
about images of their own, each into a file beside it; the first process puts these together.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import torch
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from wsss.data.dataset import Dataset, WithoutMasks
from wsss.data.image_work import of_everyone
from wsss.data.scenes_dataset import ScenesDataset
from wsss.engine.fingerprint import fingerprint
from wsss.methods.base import MethodConfig
from wsss.models import weights
from wsss.models.vqa import HuggingFaceVqa, load_vqa
from wsss.questions.answers import Answers, complete_length, read_answers, read_header
from wsss.questions.asking import IMAGES_AT_ONCE, OracleSource, Source, VqaSource, ask
from wsss.training.checkpoint import write_atomically
from wsss.training.journal import Progress
from wsss.training.processes import (
    is_main_process,
    num_processes,
    own_share,
    process_number,
    wait_for_everyone,
)

logger = logging.getLogger(__name__)

ORACLE: Final = OracleSource.name
PART: Final = "-process"  # of a name: what one of several processes has asked


class VqaSection(BaseModel):
    """The model that answers questions about images, and how it is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        "embedded",
        description="embedded, a BLIP checkpoint (folder or id), or oracle: the generator's own answers, for "
        "ablation on generated scenes only.",
    )
    answers_file: str | None = Field(
        None, description="Answers that are there already (docs/file-formats.md); nothing is asked."
    )
    image_size: int | None = Field(
        None, ge=16, description="Side of the model's input in pixels; null: its own (BLIP base: 480)."
    )
    beams: int = Field(3, ge=1, description="Beams of the search for an answer (published: 3).")
    max_length: int = Field(10, ge=2, description="Tokens of an answer, the start included (published: 10).")
    min_length: int = Field(1, ge=1, description="Least tokens of an answer (published: 1).")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="Of the model's encoders.")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.answers_file is not None and self.model != "embedded":
            raise ValueError("`model` and `answers_file` exclude each other; give one of them")
        if self.min_length > self.max_length:
            raise ValueError(f"`min_length` must be at most `max_length` ({self.max_length})")
        return self

    @property
    def is_oracle(self) -> bool:
        """Whether the generator itself answers."""
        return self.answers_file is None and self.model == ORACLE

    @property
    def knows_the_truth(self) -> bool:
        """Whether the answers are the generator's, asked now or kept in the file that is named."""
        if self.answers_file is not None and Path(self.answers_file).is_file():
            return read_header(Path(self.answers_file)).model == ORACLE
        return self.is_oracle

    @property
    def weights(self) -> Path | None:
        """The model's weights; None where no model is asked.

        Raises:
            WeightsError: they are not on this machine.
        """
        if self.answers_file is not None or self.is_oracle:
            return None
        return weights.find_weights(self.model, embedded="vqa")


def asking_settings(section: VqaSection, config: MethodConfig, split: str) -> dict[str, Any]:
    """What decides the answers, besides images and weights."""
    return {
        "vqa": section.model_dump(mode="json", exclude={"answers_file"}),
        "method": config.model_dump(mode="json", include={"questions", "prompts", "class_prompts"}),
        "split": split,
    }


def ask_questions(
    section: VqaSection,
    config: Any,
    dataset: Dataset,
    ids: tuple[str, ...],
    shared: Path,
    folder: Path,
    device: torch.device,
    progress: Progress,
) -> dict[str, Any]:
    """Ask everything that is missing; leaves `answers.jsonl`.

    Several processes leave the file that one would: each asks about batches of images of its own.

    Args:
        section: whom to ask, and how.
        config: the method's configuration with `questions` and the data set's `class_prompts`.
        dataset: the data set as it is; only the oracle looks at more than images and tags.
        ids: images that are asked about.
        shared: folder that several runs keep answers in.
        folder: of the stage.
        device: where the model runs.
        progress: follows the work.
    """
    source = answer_source(section, dataset, device)
    shared.mkdir(parents=True, exist_ok=True)
    place = shared / f"answers-{_key(source, dataset)}.jsonl"
    own, part = _own_part(dataset, ids, place)
    asking = partial(ask, WithoutMasks(dataset), questions=config.questions, nouns=config.class_prompts)
    with FileLock(place.with_suffix(".lock")) if is_main_process() else nullcontext():
        if is_main_process():
            _put_together(ids, place)  # what an interrupted run of several processes has left
            if num_processes() > 1:
                asking((), source, place)  # makes the file, or mends it
        wait_for_everyone()
        if part != place:
            write_atomically(part, place.read_bytes())
        digests = dict(zip(own, dataset.image_digests(own), strict=True))
        asking(own, source, part, digests=digests, progress=of_everyone(progress, len(ids)))
        wait_for_everyone()
        if not is_main_process():
            return {}
        _put_together(ids, place)
        write_atomically(folder / "answers.jsonl", place.read_bytes())
    digest = None if section.weights is None else weights.sha256(section.weights)
    pairs = len(read_answers(place).pairs)
    return {"images": len(ids), "pairs": pairs, "model": source.name, "sha256": digest}


def _own_part(dataset: Dataset, ids: Sequence[str], place: Path) -> tuple[tuple[str, ...], Path]:
    """The images that this process asks about, and the file that it writes; all and `place` for one alone.

    Batches of images are what one process would ask about together.
    """
    if num_processes() == 1:
        return tuple(ids), place
    asked = [image_id for image_id in ids if dataset.image_labels(image_id).any()]
    batches = [asked[start : start + IMAGES_AT_ONCE] for start in range(0, len(asked), IMAGES_AT_ONCE)]
    own = tuple(image_id for batch in own_share(batches) for image_id in batch)
    return own, place.with_name(f"{place.stem}{PART}{process_number()}.jsonl")


def _put_together(ids: Sequence[str], place: Path) -> None:
    """Move the new lines of all processes' files into `place`, in the order of the images."""
    parts = sorted(place.parent.glob(f"{place.stem}{PART}*.jsonl"))
    if not parts:
        return
    known = place.read_bytes() if place.is_file() else b""
    known = known[: complete_length(known)]
    if known and not known.endswith(b"\n"):
        known += b"\n"
    lines = set(known.splitlines(keepends=True))
    order = {image_id: number for number, image_id in enumerate(ids)}
    new: list[tuple[int, bytes]] = []
    for part in parts:
        content = part.read_bytes()
        for line in content[: complete_length(content)].splitlines(keepends=True):
            if line not in lines:
                lines.add(line)
                new.append((order.get(json.loads(line).get("image_id"), len(order)), line))
    new.sort(key=lambda entry: entry[0])  # stable: classes and questions stay as they were asked
    write_atomically(place, known + b"".join(line for _, line in new), durable=True)
    for part in parts:
        part.unlink()


def answer_source(section: VqaSection, dataset: Dataset, device: torch.device) -> Source:
    """Whoever answers."""
    if not section.is_oracle:
        assert section.weights is not None
        return VqaSource(load_model(section, device), sha256=weights.sha256(section.weights))
    assert isinstance(dataset, ScenesDataset)  # recipes are checked for it
    return OracleSource(dataset.metadata)


def load_model(section: VqaSection, device: torch.device) -> HuggingFaceVqa:
    """The question answering model of a recipe, frozen, on the device."""
    settings = section.model_dump(exclude={"model", "answers_file"})
    return load_vqa(section.model, **settings).to(device)


def read_stage_answers(section: VqaSection, folder: Path | None, dataset: str) -> Answers:
    """The answers that a method trains with: of its stage, or of the file that the recipe names."""
    if section.answers_file is not None:
        path = Path(section.answers_file)
        answers = read_answers(path)
        if answers.header.dataset != dataset:
            logger.warning(
                "%s speaks of the data set %s, and this one is %s.",
                *(answers.path, answers.header.dataset, dataset),
            )
        return answers
    assert folder is not None  # recipes that ask have a stage for it
    return read_answers(folder / "answers.jsonl")


def _key(source: Source, dataset: Dataset) -> str:
    """Which shared file: one for each model, way of asking, and data set."""
    asked = {"model": source.sha256 or source.name, "settings": source.settings, "dataset": dataset.name}
    return fingerprint("answers", asked, (), seed=None, version=1)
