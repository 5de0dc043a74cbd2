"""Numbers of finished runs, one by one, read from run folders only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from wsss.engine.run import read_run, read_scores
from wsss.metrics.boundaries import MEASURES

BACKGROUND_NAME: Final = "background"


@dataclass(frozen=True)
class Measurement:
    """One number of one run.

    Args:
        stage: maps, refined-<name>, pseudo_masks or segmentation.
        split: whose masks scored it.
        metric: miou, iou:<class>, miou_without:<class>, miou_subset:<name>, over_activation,
            under_activation, cooccurrence:<class/context>, confusion_ratio:<class/context>, weak_to_full,
            boundary_recall@<tolerance>, boundary_precision@<tolerance>, boundary_f1@<tolerance>.
        background_score_source: fixed, oracle, automatic or none.
        background_score: the score itself, where there is one.
        value: percent; a confusion ratio times 100, which may be above 100.
        images: how many images were counted.
    """

    stage: str
    split: str
    metric: str
    background_score_source: str
    background_score: float | None
    value: float
    images: int


@dataclass(frozen=True)
class FinishedRun:
    """A run folder that was read.

    Args:
        folder: the run folder.
        record: its run.json.
        measurements: its numbers.
    """

    folder: Path
    record: Mapping[str, Any]
    measurements: tuple[Measurement, ...]

    @property
    def recipe_name(self) -> str:
        return str(self.record["recipe_name"])

    @property
    def method(self) -> str:
        return str(self.record["method"])

    @property
    def seed(self) -> int:
        return int(self.record["seed"])

    @property
    def is_supervised(self) -> bool:
        """Whether its segmentation network was trained on true masks."""
        return str(self.record["supervision"]) == "F"

    def per_image(self, stage: str) -> Path | None:
        """The per-image counts of a scored stage."""
        for entry in self.record["stages"]:
            if entry["score_stage"] == stage and entry["scores"]:
                return (self.folder / str(entry["scores"])).resolve().with_name("per_image.npz")
        return None


def finished_run(folder: Path | str) -> FinishedRun:
    """Read a run folder and all its scores.

    Raises:
        StageError: no finished run, or scores are missing.
    """
    folder, record = Path(folder), read_run(folder)
    numbers: list[Measurement] = []
    for stage in record["stages"]:
        scores = read_scores(folder, stage)
        if scores is not None:
            numbers += _of_scores(str(stage["score_stage"]), str(stage["split"]), scores)
    return FinishedRun(folder, record, tuple(numbers))


def _of_scores(stage: str, split: str, scores: Mapping[str, Any]) -> Iterator[Measurement]:
    for entry in scores["entries"]:
        source, level = entry["background_score_source"], entry["background_score"]
        for metric, value in _of_entry(entry):
            if value is not None:
                images = _images(entry, metric, int(scores["images"]))
                yield Measurement(stage, split, metric, source, level, 100 * float(value), images)


def _images(entry: Mapping[str, Any], metric: str, scored: int) -> int:
    """How many images a metric was counted on: a few of those that were scored for two of them."""
    kind, _, name = metric.partition(":")
    if kind.startswith("boundary"):
        return int(entry.get("boundary_images", scored))
    return int(entry["cooccurrence"][name]["images"]) if kind == "confusion_ratio" else scored


def _of_entry(entry: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    yield "miou", entry["miou"]
    for name, value in entry["iou"].items():
        yield f"iou:{name}", value
    for kind in ("miou_without", "miou_subset"):
        for name, value in entry.get(kind, {}).items():
            yield f"{kind}:{name}", value
    for metric in ("over_activation", "under_activation"):
        known = [v for name, v in entry.get(metric, {}).items() if v is not None and name != BACKGROUND_NAME]
        yield metric, fmean(known) if known else None
    for pair, found in most_frequent_pairs(entry.get("cooccurrence") or {}).items():
        yield f"cooccurrence:{pair}", found["share_of_foreground"]
        yield f"confusion_ratio:{pair}", found["confusion_ratio"]
    for tolerance, found in (entry.get("boundary") or {}).items():  # older scores have none
        for name in MEASURES:
            yield f"boundary_{name}@{tolerance}", found[name]


def most_frequent_pairs(cooccurrence: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Of each class, the `class/context` pair that most images show."""
    best: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for pair, found in cooccurrence.items():
        name = pair.partition("/")[0]
        if name not in best or found["images"] > best[name][1]["images"]:
            best[name] = pair, found
    return dict(best.values())


def with_weak_to_full(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The same runs; each weakly supervised segmentation also as a share of its fully supervised twin.

    The twin is a run among `runs` of the same data, seed and segmentation settings with true masks as target.
    """
    twins = {_twin_key(run): _segmentation_miou(run) for run in runs if run.is_supervised}
    completed = []
    for run in runs:
        own, full = _segmentation_miou(run), twins.get(_twin_key(run))
        if not run.is_supervised and own is not None and full is not None and full.value > 0:
            ratio = Measurement(
                "segmentation",
                own.split,
                "weak_to_full",
                own.background_score_source,
                own.background_score,
                100 * own.value / full.value,
                own.images,
            )
            run = FinishedRun(run.folder, run.record, (*run.measurements, ratio))
        completed.append(run)
    return completed


def _segmentation_miou(run: FinishedRun) -> Measurement | None:
    return next((m for m in run.measurements if m.stage == "segmentation" and m.metric == "miou"), None)


def twin_settings(segmentation: Mapping[str, Any] | None) -> str:
    """What a segmentation network and its fully supervised twin must share, from a recipe's section.

    Args:
        segmentation: the section with all defaults, as in run.json.
    """
    settings = dict(segmentation or {})
    for key in ("target", "dense_crf"):  # the ratio is that of the networks' own predictions
        settings.pop(key, None)
    return repr(sorted(settings.items()))


def _twin_key(run: FinishedRun) -> tuple[Any, ...]:
    data, settings = run.record["data"], twin_settings(run.record["recipe"]["segmentation"])
    return data["name"], data["data_version"], data["val_split"], run.seed, settings
