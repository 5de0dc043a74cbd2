"""Which runs may stand in one table: those whose numbers mean the same.

Methods and their settings may differ, that is what is compared; data, splits and the way of testing may not.
`wsss compare --mix-protocols` puts other runs side by side all the same and says so, but never those of other
data sets or classes. docs/metrics.md says why each difference matters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wsss.engine.measurements import FinishedRun
from wsss.engine.passport import is_network, is_refined_network, passports_of
from wsss.engine.recipe import Recipe
from wsss.errors import RecipeError

ALWAYS: Final = ("name", "class_names")
"""What runs of one table share even where protocols are mixed: facts of run.json's `data`."""

DATA: Final = (*ALWAYS, "data_version", "train_split", "val_split", "maps_split")

MIX: Final = "Test both alike, or put them side by side all the same with `--mix-protocols`."

_MASKS: Final = ("words", "pseudo_masks")
"""Scored stages whose background score and scales are settings of the recipe, none of the test."""


@dataclass(frozen=True)
class Difference:
    """One way in which runs were not measured alike.

    Args:
        what: words for it, or the key of run.json's `data`.
        values: its distinct values as text, each with the first run that has it.
    """

    what: str
    values: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.what}: " + ", ".join(f"{_short(value)} ({run})" for value, run in self.values.items())


def protocol(run: FinishedRun) -> dict[str, str]:
    """How a run was measured: what must be equal where several runs have it, as text."""
    recipe = run.record["recipe"]
    facts = {key: _text(run.record["data"][key]) for key in DATA}
    for passport in passports_of(run):
        stage, is_fixed = passport.stage, passport.background_score_source == "fixed"
        facts[f"images scored of {stage}"] = f"{passport.images}"
        if is_refined_network(stage):
            facts["dense CRF on predictions"] = _text(recipe["segmentation"].get("dense_crf"))
        if is_network(stage):
            facts |= _scales("segmentation", passport.scales, passport.flip)
        elif stage not in _MASKS:
            facts |= _scales("maps", passport.scales, passport.flip)
            facts |= (
                {f"fixed background score of {stage}": f"{passport.background_score}"} if is_fixed else {}
            )
    return facts


def planned_protocol(recipe: Recipe) -> dict[str, str]:
    """What of a run's protocol its recipe tells before anything is run."""
    facts = {"train_split": recipe.data.train_split, "val_split": recipe.data.val_split}
    facts["maps_split"] = recipe.maps_split
    if recipe.method is not None:
        facts |= _scales("maps", recipe.activation.scales, recipe.activation.flip)
        facts["fixed background score of maps"] = f"{recipe.evaluation.fixed_background_score}"
    if recipe.segmentation is not None:
        facts |= _scales("segmentation", recipe.segmentation.test_scales, recipe.segmentation.test_flip)
    return facts


def differences(protocols: Iterable[tuple[str, Mapping[str, str]]]) -> tuple[Difference, ...]:
    """All ways in which runs, each given by name and protocol, were not measured alike."""
    found: dict[str, dict[str, str]] = {}
    for run, facts in protocols:
        for what, value in facts.items():
            found.setdefault(what, {}).setdefault(value, run)
    return tuple(Difference(what, values) for what, values in found.items() if len(values) > 1)


def run_differences(runs: Sequence[FinishedRun]) -> tuple[Difference, ...]:
    """All ways in which finished runs were not measured alike, those of the data first."""
    return differences((run.folder.name, protocol(run)) for run in runs)


def check_same_protocol(runs: Sequence[FinishedRun], *, mix_protocols: bool = False) -> tuple[str, ...]:
    """Refuse to compare runs whose numbers mean different things.

    Args:
        runs: finished runs.
        mix_protocols: put up with other splits and ways of testing.

    Returns:
        The differences that were put up with, in words.

    Raises:
        RecipeError: runs of one recipe have different settings; data sets or classes differ; or anything of
            the protocol does and `mix_protocols` is false.
    """
    _check_seeds(runs)
    found = run_differences(runs)
    for difference in found:
        if difference.what in ALWAYS:
            _refuse(difference, "Compare runs of the same data and classes only.")
        if not mix_protocols:
            _refuse(difference, MIX)
    return tuple(str(difference) for difference in found)


def check_planned(recipes: Sequence[Recipe]) -> None:
    """Refuse, before anything is run, to compare recipes that are not measured alike.

    Raises:
        RecipeError: splits, scales or the fixed background score differ.
    """
    for difference in differences((recipe.name, planned_protocol(recipe)) for recipe in recipes):
        _refuse(difference, MIX)


def check_same_data(runs: Sequence[FinishedRun]) -> None:
    """Refuse runs of different data or splits; ways of testing may differ.

    Raises:
        RecipeError: data, classes or splits differ, or runs of one recipe have different settings.
    """
    _check_seeds(runs)
    for difference in run_differences(runs):
        if difference.what in DATA:
            _refuse(difference, "Take runs of the same data and splits only.")


def _scales(tested: str, scales: Sequence[float], flip: bool) -> dict[str, str]:
    """Scales and mirroring of a test; the order of scales does not matter."""
    sizes = " ".join(f"{scale:g}" for scale in sorted(scales))
    return {f"scales of {tested}": sizes, f"flip of {tested}": "yes" if flip else "no"}


def _check_seeds(runs: Sequence[FinishedRun]) -> None:
    """Runs of one recipe must be its seeds."""
    recipes: dict[str, FinishedRun] = {}
    for run in runs:
        twin = recipes.setdefault(run.recipe_name, run)
        ours, theirs = _settings(twin), _settings(run)
        different = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        if different:
            raise RecipeError(
                f"{twin.folder.name} and {run.folder.name} are no seeds of one recipe: their "
                f"`{different[0]}` differ. Run {run.recipe_name} again for both seeds."
            )


def _settings(run: FinishedRun) -> dict[str, Any]:
    """The recipe's sections that decide its numbers."""
    return {key: value for key, value in run.record["recipe"].items() if key != "about"}


def _refuse(difference: Difference, advice: str) -> None:
    (first, run), (second, other) = list(difference.values.items())[:2]
    raise RecipeError(
        f"{run} and {other} can't be compared: their `{difference.what}` differ "
        f"({_short(first)} and {_short(second)}). {advice}"
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"
