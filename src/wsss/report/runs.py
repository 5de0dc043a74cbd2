"""Run folders as the report sees them: recipes with their seeds, stages, scores and numbers.

Reads files only. All numbers come from `scores.json` files and from the engine's comparison of them; nothing
is scored here. Runs whose numbers mean different things (other data, classes or splits) are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from wsss.data import DataConfig, open_dataset
from wsss.data.dataset import Dataset
from wsss.engine.compare import compare_runs
from wsss.engine.measurements import FinishedRun, finished_run
from wsss.engine.run import read_scores
from wsss.errors import RecipeError, WsssError
from wsss.methods.base import list_methods
from wsss.report.labels import METHODS, recipe_label

SOURCES: Final = ("fixed", "automatic", "oracle", "none")
"""Who chose a background score, in the order of tables."""

OWN: Final = "own"
"""Stands for the one background score that masks were made with, whoever chose it."""

MASK_STAGES: Final = ("pseudo_masks", "segmentation", "segmentation_crf")
"""Scored stages whose results are masks: they have one score each, maps have one per background score."""


@dataclass(frozen=True)
class StageFolder:
    """One entry of run.json's `stages`.

    Args:
        folder: what the stage wrote.
        seconds: how long it took when it was run.
        scores: its `scores.json`; None where it was not scored.
        score_folder: where that lies, with `per_image.npz`.
        score_stage: maps, refined-<name>, pseudo_masks or segmentation; None where it was not scored.
        split: whose masks scored it.
    """

    name: str
    title: str
    folder: Path
    seconds: float
    scores: Mapping[str, Any] | None
    score_folder: Path | None
    score_stage: str | None
    split: str | None

    def entry(self, source: str) -> Mapping[str, Any] | None:
        """The scores at the background score that `source` chose; `OWN`: at the only one."""
        entries = self.scores["entries"] if self.scores else []
        if source == OWN:
            return entries[0] if entries else None
        return next((entry for entry in entries if entry["background_score_source"] == source), None)

    @property
    def own_source(self) -> str:
        """Who chose the background score of the masks."""
        entry = self.entry(OWN)
        return str(entry["background_score_source"]) if entry else "none"


@dataclass(frozen=True)
class ReportedRun:
    """One run: a recipe with one seed.

    Args:
        finished: the run as the engine reads it.
        stages: its stages in order.
    """

    finished: FinishedRun
    stages: tuple[StageFolder, ...]

    @property
    def record(self) -> Mapping[str, Any]:
        """Its run.json."""
        return self.finished.record

    @property
    def seed(self) -> int:
        return self.finished.seed

    def stage(self, name: str) -> StageFolder | None:
        """The stage called `name`, if the run has it."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def scored(self, score_stage: str) -> StageFolder | None:
        """The stage scored as `score_stage`, if the run has its scores."""
        return next(
            (stage for stage in self.stages if stage.scores and stage.score_stage == score_stage), None
        )


@dataclass(frozen=True)
class RecipeRuns:
    """One recipe with its seeds: a row of the tables and a colour of the figures.

    Args:
        label: short name for readers.
        recipe_name: name of the recipe.
        colour: number of its colour; -1 for a network trained on true masks.
        runs: one per seed.
    """

    label: str
    recipe_name: str
    colour: int
    runs: tuple[ReportedRun, ...]

    @property
    def first(self) -> ReportedRun:
        """The run whose pictures and single-seed figures are shown."""
        return self.runs[0]

    @property
    def is_supervised(self) -> bool:
        """Whether it was trained on true masks."""
        return self.colour < 0

    def scores(self, score_stage: str, source: str) -> Mapping[str, Any] | None:
        """Scores of the first seed at a background score."""
        stage = self.first.scored(score_stage)
        return stage.entry(source) if stage else None

    def source(self, score_stage: str, source: str) -> str:
        """`source`, or for `OWN` the one behind the masks of a stage."""
        stage = self.first.scored(score_stage)
        return stage.own_source if source == OWN and stage else source


@dataclass(frozen=True)
class Numbers:
    """The engine's comparison, ready for looking up.

    Args:
        rows: numbers over seeds by (recipe, stage, metric, background score source).
        gains: gains over the first recipe by (recipe, stage, background score source).
    """

    rows: Mapping[tuple[str, str, str, str], Mapping[str, Any]]
    gains: Mapping[tuple[str, str, str], Mapping[str, Any]]

    @classmethod
    def from_comparison(cls, comparison: Mapping[str, Any]) -> Numbers:
        """Index what `wsss.engine.compare.Comparison.to_dict` gives."""
        rows = {
            (row["recipe"], row["stage"], row["metric"], row["background_score_source"]): row
            for row in comparison["rows"]
        }
        gains = {
            (gain["recipe"], gain["stage"], gain["background_score_source"]): gain
            for gain in comparison["gains"]
        }
        return cls(rows, gains)

    def row(self, entry: RecipeRuns, stage: str, metric: str, source: str) -> Mapping[str, Any] | None:
        """One number over the seeds of `entry`: `mean`, `standard_deviation`, `by_seed`, in percent."""
        return self.rows.get((entry.recipe_name, stage, metric, entry.source(stage, source)))

    def gain(self, first: RecipeRuns, last: RecipeRuns, stage: str, source: str) -> Mapping[str, Any] | None:
        """MIoU of `last` minus that of `first`, in points, with its interval."""
        gain = self.gains.get((last.recipe_name, stage, last.source(stage, source)))
        return gain if gain is not None and gain["over"] == first.recipe_name else None

    def mean(self, entry: RecipeRuns, stage: str, metric: str, source: str) -> float | None:
        """Its mean over seeds, in percent."""
        row = self.row(entry, stage, metric, source)
        return None if row is None else float(row["mean"])


@dataclass(frozen=True)
class Reported:
    """Everything the page speaks of.

    Args:
        entries: recipes in the order of the run folders; the first is the baseline.
        numbers: their numbers over seeds.
        dataset: the data set with its images; None where it can't be opened.
        dataset_problem: why not.
    """

    entries: tuple[RecipeRuns, ...]
    numbers: Numbers
    dataset: Dataset | None
    dataset_problem: str

    @property
    def data(self) -> Mapping[str, Any]:
        """Data set name, classes and splits, the same for all runs."""
        found: Mapping[str, Any] = self.entries[0].first.record["data"]
        return found

    @property
    def class_names(self) -> tuple[str, ...]:
        """K + 1 names, the first "background"."""
        return tuple(self.data["class_names"])

    @property
    def weak(self) -> tuple[RecipeRuns, ...]:
        """Entries that were trained without masks."""
        return tuple(entry for entry in self.entries if not entry.is_supervised)

    @property
    def baseline_and_last(self) -> tuple[RecipeRuns, RecipeRuns] | None:
        """What differences are taken between; None where there is nothing to compare."""
        weak = self.weak
        return (weak[0], weak[-1]) if len(weak) > 1 else None

    @property
    def score_stages(self) -> tuple[str, ...]:
        """Scored stages of any run, in the order of the pipeline."""
        found = {
            stage.score_stage: None
            for entry in self.entries
            for run in entry.runs
            for stage in run.stages
            if stage.scores and stage.score_stage
        }
        maps = (name for name in found if name not in MASK_STAGES)
        return (*maps, *(name for name in MASK_STAGES if name in found))

    def sources(self, score_stage: str) -> tuple[str, ...]:
        """Who chose the background scores of a stage's maps, over all runs; `OWN` for masks."""
        if score_stage in MASK_STAGES:
            return (OWN,)
        stages = [run.scored(score_stage) for entry in self.entries for run in entry.runs]
        return tuple(source for source in SOURCES if any(stage and stage.entry(source) for stage in stages))

    def split(self, score_stage: str) -> str:
        """Whose masks scored a stage."""
        stages = [run.scored(score_stage) for entry in self.entries for run in entry.runs]
        return next((str(stage.split) for stage in stages if stage), "")


def read_reported(run_folders: Sequence[Path | str], comparison: Mapping[str, Any] | None = None) -> Reported:
    """Read run folders.

    Args:
        run_folders: at least one; several of one recipe are its seeds.
        comparison: their `Comparison.to_dict()`, where it is known already.

    Raises:
        StageError: a folder holds no finished run, or its scores are missing.
        RecipeError: no folder is given, or the runs can't be compared.
    """
    folders = [Path(folder) for folder in dict.fromkeys(run_folders)]
    if not folders:
        raise RecipeError(
            "`run_folders` is empty. Name at least one folder of a finished run, such as runs/demo-cam-seed0."
        )
    runs = [_read_run(folder) for folder in folders]
    if comparison is None:
        comparison = compare_runs(folders).to_dict()
    dataset, problem = _open(runs[0])
    return Reported(_entries(runs), Numbers.from_comparison(comparison), dataset, problem)


def _read_run(folder: Path) -> ReportedRun:
    finished = finished_run(folder)
    stages = []
    for entry in finished.record["stages"]:
        scores = read_scores(folder, entry)
        score_folder = (folder / entry["scores"]).resolve().parent if scores is not None else None
        stages.append(
            StageFolder(
                name=entry["name"],
                title=entry["title"],
                folder=(folder / entry["folder"]).resolve(),
                seconds=float(entry["seconds"]),
                scores=scores,
                score_folder=score_folder,
                score_stage=entry["score_stage"],
                split=entry["split"],
            )
        )
    return ReportedRun(finished, tuple(stages))


def _entries(runs: Sequence[ReportedRun]) -> tuple[RecipeRuns, ...]:
    by_recipe: dict[str, list[ReportedRun]] = {}
    for run in runs:
        by_recipe.setdefault(run.finished.recipe_name, []).append(run)
    methods = [group[0].finished.method for group in by_recipe.values()]
    entries: list[RecipeRuns] = []
    for (name, group), method in zip(by_recipe.items(), methods, strict=True):
        label = method_label(method) if methods.count(method) == 1 else recipe_label(name)
        if "(oracle)" in str(group[0].record["supervision"]) and "oracle" not in label:
            label += " (oracle)"  # its answers know more than the tags
        colour = -1 if group[0].finished.is_supervised else sum(not entry.is_supervised for entry in entries)
        ordered = sorted(group, key=lambda run: run.seed)
        entries.append(RecipeRuns(label, name, colour, tuple(ordered)))
    return tuple(entries)


def method_label(method: str) -> str:
    """A method's name as papers write it: `qa_clims` becomes QA-CLIMS."""
    if method == "supervised":
        return "fully supervised"
    return METHODS.get(method) or (method.replace("_", "-").upper() if method in list_methods() else method)


def _open(run: ReportedRun) -> tuple[Dataset | None, str]:
    """The data set of a run, or why it can't be opened (moved, deleted)."""
    record = run.record
    root = (run.finished.folder / record["data_root"]).resolve() if record["data_root"] else None
    try:
        config: Any = TypeAdapter(DataConfig).validate_python(record["dataset_config"])
        return open_dataset(config, root=root), ""
    except (WsssError, OSError, ValueError) as error:
        return None, " ".join(str(error).split())
