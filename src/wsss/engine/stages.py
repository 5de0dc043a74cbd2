"""Stages: work with a fingerprint, done once, in a folder that several runs share.

A stage's folder is `<runs>/stages/<kind>-<fingerprint>/`; its `stage.json` is written last and proves that
the stage is finished. A finished stage is never redone; an interrupted one goes on, because everything that a
stage calls resumes inside its folder. A lock keeps two runs from working in one folder at once.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from filelock import FileLock, Timeout

from wsss.data import DataConfig, open_dataset
from wsss.data.dataset import Dataset
from wsss.engine import provenance
from wsss.engine.fingerprint import canonical, fingerprint
from wsss.errors import RecipeError, StageError
from wsss.training.checkpoint import remove_leftovers, write_atomically
from wsss.training.journal import Progress
from wsss.training.processes import everyone_agrees, is_main_process, wait_for_everyone

VERSIONS: Final[dict[str, int]] = {
    "data": 1,
    "train-tag-classifier": 1,
    "train-teacher": 1,
    "finetune-teacher": 1,
    "ask-questions": 1,
    "detect-saliency": 1,
    "prepare": 1,
    "train-method": 1,
    "take-weights": 1,
    "write-words": 1,
    "activate": 1,
    "refine": 1,
    "choose-score": 1,
    "pseudo-masks": 1,
    "train-segmentation": 1,
    "predict": 1,
    "predict-crf": 1,
    "score": 2,
}
"""Raised by hand when the code of a kind of stage gives other results than before."""


class Listener(Protocol):
    """Someone who follows a run, such as the command line."""

    def started(self, title: str) -> Progress:
        """A stage begins; the answer is told of its progress."""

    def finished(self, title: str, seconds: float) -> None:
        """The stage is done."""

    def skipped(self, title: str) -> None:
        """The stage was done before."""

    def note(self, text: str) -> None:
        """One sentence that a reader should see."""


class Silence:
    """A listener that ignores everything."""

    def started(self, title: str) -> Progress:
        return lambda done, total, note: None

    def finished(self, title: str, seconds: float) -> None:
        return

    def skipped(self, title: str) -> None:
        return

    def note(self, text: str) -> None:
        return


@dataclass(frozen=True, eq=False)
class Stage:
    """One part of a run.

    Args:
        name: what the run calls it, for example `initialise`.
        kind: what it does, for example `train-method`; with the fingerprint, its folder's name.
        title: for people.
        settings: resolved settings that decide the result.
        inputs: the stages whose folders it reads.
        work: does the work inside the given folder and returns facts for `stage.json`.
        reads: fingerprints of data and weights that are no stages.
        seed: the run's seed where the work uses it.
        every_process: whether all processes of a distributed run take part (training,
            work on images); else only the first.
        scores: for a scoring stage, what it scores (maps, pseudo_masks, segmentation, segmentation_crf,
            refined-<name>).
        split: for a scoring stage, the split whose masks it reads.
    """

    name: str
    kind: str
    title: str
    settings: Mapping[str, Any]
    inputs: tuple[Stage, ...]
    work: Callable[[Path, Workspace, Progress], Mapping[str, Any] | None]
    reads: tuple[str, ...] = ()
    seed: int | None = None
    every_process: bool = False
    scores: str | None = None
    split: str | None = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """Decided by settings, inputs, seed and the code's version."""
        kind = "score" if self.scores else "refine" if self.kind.startswith("refine-") else self.kind
        inputs = (*(stage.fingerprint for stage in self.inputs), *self.reads)
        return fingerprint(self.kind, self.settings, inputs, seed=self.seed, version=VERSIONS[kind])

    @property
    def folder_name(self) -> str:
        """`<kind>-<fingerprint>`."""
        return f"{self.kind}-{self.fingerprint}"


def until_stage(stages: tuple[Stage, ...], until: str | None) -> tuple[Stage, ...]:
    """The stages up to and including `until` (and its scoring).

    Raises:
        RecipeError: the recipe has no such stage.
    """
    if until is None or until == "evaluate":
        return stages
    places = [i for i, stage in enumerate(stages) if not stage.scores and _is_named(stage, until)]
    if not places:
        names = ", ".join(f"`{stage.name}`" for stage in stages if not stage.scores)
        raise RecipeError(f"This recipe has no stage `{until}`. It has {names}.")
    last = places[-1]
    while last + 1 < len(stages) and (stages[last + 1].scores or stages[last + 1].kind == "choose-score"):
        last += 1
    return stages[: last + 1]


def _is_named(stage: Stage, name: str) -> bool:
    return stage.name == name or (name == "refine" and stage.name.startswith("refine-"))


class Workspace:
    """Where stages work: the runs folder, the data and the device.

    Args:
        runs: the runs folder.
        data: the recipe's data section.
        device: where networks run.
        listener: follows the stages.
    """

    def __init__(self, runs: Path, data: DataConfig, device: torch.device, listener: Listener) -> None:
        self.runs = runs
        self.data = data
        self.device = device
        self.listener = listener
        self.data_stage: Stage | None = None

    def folder(self, stage: Stage) -> Path:
        """The stage's folder, finished or not."""
        return self.runs / "stages" / stage.folder_name

    @property
    def tree(self) -> Path | None:
        """The generated data tree, where the data are generated."""
        return None if self.data_stage is None else self.folder(self.data_stage) / "tree"

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data set with its masks; whoever trains wraps it in `WithoutMasks`."""
        return open_dataset(self.data, root=self.tree)


def stage_record(folder: Path) -> dict[str, Any] | None:
    """The `stage.json` of a finished stage's folder; None while unfinished."""
    path = folder / "stage.json"
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StageError(
            f"{path} is damaged: {error}. Delete the folder {folder.name} and run again."
        ) from error
    return record


def complete(stage: Stage, workspace: Workspace) -> dict[str, Any]:
    """Finish `stage` unless it is finished, and return its record.

    Raises:
        WsssError: whatever the stage's work raises; what it had done stays for the next attempt.
    """
    folder = workspace.folder(stage)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, workspace.listener) if is_main_process() else contextlib.nullcontext():
        record = stage_record(folder)
        if everyone_agrees(record is not None):
            workspace.listener.skipped(stage.title)
        elif is_main_process():
            record = _work(stage, folder, workspace)
        elif stage.every_process:
            wait_for_everyone()  # until the first has cleaned up
            stage.work(folder, workspace, Silence().started(stage.title))
        wait_for_everyone()
    record = record or stage_record(folder)
    assert record is not None
    return record


def _work(stage: Stage, folder: Path, workspace: Workspace) -> dict[str, Any]:
    for place in (folder, *folder.glob("*/"), *folder.glob("*/*/")):
        if place.is_dir():  # before Python 3.11 the pattern finds files too
            remove_leftovers(place)
    if stage.every_process:
        wait_for_everyone()
    progress = workspace.listener.started(stage.title)
    started, clock = provenance.now(), time.perf_counter()
    facts = dict(stage.work(folder, workspace, progress) or {})
    seconds = float(facts.pop("seconds", time.perf_counter() - clock))
    record = {
        "kind": stage.kind,
        "title": stage.title,
        "fingerprint": stage.fingerprint,
        "settings": canonical(stage.settings),
        "inputs": [other.folder_name for other in stage.inputs],
        "reads": list(stage.reads),
        "seed": stage.seed,
        "scores": stage.scores,
        "split": stage.split,
        "commit": provenance.commit(),
        "version": provenance.version(),
        "device": str(workspace.device),
        "hardware": provenance.hardware(workspace.device),
        "started": started,
        "seconds": round(seconds, 3),
        "facts": facts,
    }
    write_atomically(folder / "stage.json", (json.dumps(record, indent=1) + "\n").encode(), durable=True)
    workspace.listener.finished(stage.title, seconds)
    return record


@contextlib.contextmanager
def _locked(folder: Path, listener: Listener) -> Iterator[None]:
    """Alone in the folder; the system lets go when the process dies."""
    locks = folder.parent / ".locks"
    locks.mkdir(exist_ok=True)
    lock = FileLock(locks / f"{folder.name}.lock")
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        listener.note(f"Another run works in {folder.name}; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
