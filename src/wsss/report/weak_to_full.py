"""The share of full supervision that published segmentations reach, where no run has it yet.

A run has its weak-to-full ratio only if it is published or compared together with its fully supervised twin.
Here it is taken from the rows of a results file, seed by seed, for segmentations without one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Final

from wsss.engine.measurements import twin_settings
from wsss.engine.recipe import load_recipe
from wsss.errors import RecipeError

RATIO: Final = "weak_to_full"
FULL: Final = "F"
SHARED: Final = ("split", "seed", "scales", "flip", "data_version")
"""Columns in which a segmentation and its twin agree, besides the settings of the network."""


def with_weak_to_full(rows: Sequence[Mapping[str, str]]) -> tuple[Mapping[str, str], ...]:
    """The rows of one data set, and a ratio for each weakly supervised segmentation that has none.

    The twin is a fully supervised segmentation of the same seed, split, data and network. Settings of the
    network are those of the recipes; rows of recipes that are not there get no ratio.

    Args:
        rows: rows of a results file, values as text.
    """
    scored = [row for row in rows if (row["stage"], row["metric"]) == ("segmentation", "miou")]
    full = [row for row in scored if row["supervision"] == FULL]
    known = {(row["recipe"], row["seed"]) for row in rows if row["metric"] == RATIO}
    found: list[Mapping[str, str]] = []
    for row in scored:
        if row["supervision"] != FULL and (row["recipe"], row["seed"]) not in known:
            twin = next((other for other in full if _is_twin(row, other)), None)
            if twin is not None and float(twin["value"]) > 0:
                value = 100 * float(row["value"]) / float(twin["value"])
                found.append({**row, "metric": RATIO, "value": f"{value:.2f}", "paper_value": ""})
    return (*rows, *found)


def _is_twin(row: Mapping[str, str], other: Mapping[str, str]) -> bool:
    if any(row[name] != other[name] for name in SHARED):
        return False
    own, full = _network(row["recipe"]), _network(other["recipe"])
    return own == full != ""


@functools.cache
def _network(recipe: str) -> str:
    """Settings of the recipe's segmentation network; empty where there is no such recipe or network."""
    try:
        section = load_recipe(recipe).resolved()["segmentation"]
    except RecipeError:
        return ""
    return twin_settings(section) if section else ""
