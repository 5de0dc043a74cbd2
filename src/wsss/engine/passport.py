"""What stands behind a number of a run: data, supervision, background score, test settings, weights, commit.

A number without these can't be compared with another. They are read from the run folder alone, shown beside
the numbers in the report, and part of what a comparison gives as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from wsss.engine.measurements import FinishedRun, Measurement
from wsss.engine.recipe import refined_stages

CRF_USERS: Final = ("dense_crf", "psa", "irn")

SUPERVISIONS: Final = {
    "I": "image tags",
    "I+S": "image tags and saliency maps",
    "I+L": "image tags and a language teacher",
    "I+L+S": "image tags, a language teacher and saliency maps",
    "F": "true masks",
}
"""What a run learned from, in the order of tables, in words."""

_CORRECTED: Final = re.compile(r"\+M\((\d+)\)")  # masks that people gave back


@dataclass(frozen=True)
class Passport:
    """What stands behind one number.

    Args:
        recipe: name of the recipe.
        method: name of the method.
        seed: of the trainings.
        run: name of the run folder.
        stage: maps, words, refined-<name>, pseudo_masks or segmentation.
        data: name of the data set.
        data_version: the generated world, or a digest of all files.
        split: whose masks scored it.
        images: how many images were counted.
        supervision: I, I+S, I+L or F; I+M(12) and the like with 12 corrected masks; an oracle is named.
        background_score_source: who chose the background score: fixed, oracle, automatic or none.
        background_score: the score, where there is one.
        crf: whether a dense CRF had a hand in the maps, or in what the network was trained on (PSA and IRN:
            in their labels).
        test_crf: whether a dense CRF refined what the network predicted.
        scales: image scales of the test.
        flip: whether mirrored images took part in the test.
        weights: sha256 of every weight file behind the number, by what it is for.
        commit: of the program that made the stage.
        hardware: where the stage was made.
        minutes: time of all stages up to this one.
    """

    recipe: str
    method: str
    seed: int
    run: str
    stage: str
    data: str
    data_version: str
    split: str
    images: int
    supervision: str
    background_score_source: str
    background_score: float | None
    crf: bool
    test_crf: bool
    scales: tuple[float, ...]
    flip: bool
    weights: Mapping[str, str]
    commit: str
    hardware: str
    minutes: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def passport_of(run: FinishedRun, measurement: Measurement) -> Passport:
    """What stands behind one number of a run."""
    record, recipe, stage = run.record, run.record["recipe"], measurement.stage
    made = next(entry for entry in record["stages"] if entry["score_stage"] == stage)
    scales, flip = testing(recipe, stage)
    return Passport(
        recipe=run.recipe_name,
        method=run.method,
        seed=run.seed,
        run=run.folder.name,
        stage=stage,
        data=str(record["data"]["name"]),
        data_version=str(record["data"]["data_version"]),
        split=measurement.split,
        images=measurement.images,
        supervision=str(record["supervision"]),
        background_score_source=measurement.background_score_source,
        background_score=measurement.background_score,
        crf=uses_crf(recipe, stage),
        test_crf=is_refined_network(stage),
        scales=scales,
        flip=flip,
        weights=_weights(record, stage),
        commit=str(made["commit"]),
        hardware=str(made["hardware"]),
        minutes=_minutes_until(record, stage),
    )


def passports_of(run: FinishedRun) -> tuple[Passport, ...]:
    """One for each mIoU of a run; its other metrics share them."""
    return tuple(passport_of(run, m) for m in run.measurements if m.metric == "miou")


def is_network(stage: str) -> bool:
    """Whether a scored stage is what a segmentation network predicts."""
    return stage.startswith("segmentation")


def is_refined_network(stage: str) -> bool:
    """Whether a dense CRF refined these predictions of a segmentation network."""
    return is_network(stage) and stage != "segmentation"


def testing(recipe: Mapping[str, Any], stage: str) -> tuple[tuple[float, ...], bool]:
    """Scales and mirroring that a stage's scores were made with."""
    if is_network(stage):
        scales, flip = recipe["segmentation"]["test_scales"], recipe["segmentation"]["test_flip"]
    else:
        scales, flip = recipe["activation"]["scales"], recipe["activation"]["flip"]
    return tuple(float(scale) for scale in scales), bool(flip)


def uses_crf(recipe: Mapping[str, Any], stage: str) -> bool:
    """Whether a dense CRF had a hand in the stage or in what it was made from (PSA and IRN: their labels)."""
    return any(name in CRF_USERS for name in _refiners_until(recipe, stage))


def by_supervision(supervisions: Iterable[str]) -> list[tuple[str, str]]:
    """Distinct supervisions in the order of tables, each with its words.

    Example:
        >>> by_supervision(["F", "I+L (oracle)", "I", "F"])[1]
        ('I+L (oracle)', 'image tags and a language teacher (oracle)')
    """
    kinds = list(SUPERVISIONS)

    def place(supervision: str) -> tuple[int, str]:
        kind = _CORRECTED.sub("", supervision).partition(" ")[0]
        return kinds.index(kind) if kind in kinds else kinds.index("F"), supervision

    found = []
    for supervision in sorted(set(supervisions), key=place):
        corrected = _CORRECTED.search(supervision)
        kind, space, remark = _CORRECTED.sub("", supervision).partition(" ")
        given = f", {corrected[1]} masks corrected by hand" if corrected else ""
        found.append((supervision, SUPERVISIONS.get(kind, kind) + given + space + remark))
    return found


def _refiners_until(recipe: Mapping[str, Any], stage: str) -> Sequence[str]:
    """Names of the refiners behind a stage."""
    if stage in ("maps", "words"):
        return ()
    names = [Path(section["name"]).stem for section in recipe["refine"]]
    stages = refined_stages(names)
    return names[: stages.index(stage) + 1] if stage in stages else names


def _weights(record: Mapping[str, Any], stage: str) -> dict[str, str]:
    """Of the run's weights those that the stage or what it was made from read."""
    later = set() if is_network(stage) else {"segmentation"}
    count = len(_refiners_until(record["recipe"], stage))
    later |= {f"refine {index}" for index in range(count, len(record["recipe"]["refine"]))}
    return {role: digest for role, digest in sorted(record["weights"].items()) if role not in later}


def _minutes_until(record: Mapping[str, Any], stage: str) -> float:
    """Time of all stages up to the scored one, also of those that an earlier run had finished."""
    seconds = 0.0
    for entry in record["stages"]:
        seconds += float(entry["seconds"])
        if entry["score_stage"] == stage:
            break
    return seconds / 60
