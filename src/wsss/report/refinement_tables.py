"""Tables of refined maps: what each refiner and each chain of refiners adds to the maps of each method."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from wsss.engine.recipe import load_recipe, refined_stages
from wsss.errors import RecipeError
from wsss.report.markdown_table import markdown
from wsss.report.result_rows import Cell, Results

REFINED: Final = "refined-"
WORDS: Final = {"dense_crf": "dense CRF", "psa": "PSA", "irn": "IRN"}
MAPS: Final = Cell("maps", "automatic")
SEGMENTATION: Final = Cell("segmentation")
RATIO: Final = Cell("segmentation", metric="weak_to_full")


def is_refined(results: Results, recipe: str) -> bool:
    """Whether the recipe refines its maps."""
    return any(row["recipe"] == recipe and row["stage"].startswith(REFINED) for row in results.rows)


def refinement(results: Results) -> str:
    """One row per chain of refiners: maps of each method, gains over them, networks trained on the result.

    All numbers are at background scores that were chosen without masks.
    """
    refined = [recipe for recipe in results.recipes if is_refined(results, recipe) and "+" not in recipe]
    methods = list(dict.fromkeys(_method(results, recipe) for recipe in refined))
    chains: dict[str, dict[str, tuple[str, Cell, bool]]] = {}
    for recipe in refined:
        steps = _steps(results, recipe)
        for place, stage in enumerate(refined_stages(steps)):
            words = ", then ".join(WORDS.get(step, step) for step in steps[: place + 1])
            cell = Cell(stage, _source(results, recipe, stage))
            is_last = place == len(steps) - 1
            found = chains.setdefault(words, {})
            if is_last or _method(results, recipe) not in found:
                found[_method(results, recipe)] = (recipe, cell, is_last)
    first = {method: next(r for r in refined if _method(results, r) == method) for method in methods}
    rows = [["–", *(text for m in methods for text in (results.text(first[m], MAPS), "", "", ""))]]
    rows += [
        [words, *(text for m in methods for text in _cells(results, found.get(m)))]
        for words, found in sorted(chains.items(), key=lambda item: (item[0].count("then"), item[0]))
    ]
    names = [method.upper().replace("_", "-") for method in methods]
    head = [
        "refined by",
        *(text for name in names for text in (f"{name} maps", "gain", "segmentation", "÷ full")),
    ]
    return markdown(*_without_empty_columns(head, rows)) if refined else ""


def photographs(path: Path) -> str:
    """Degraded true masks of photographs before and after the dense CRF, at one constant background score."""
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["background_score_source"] == "fixed"]
    presets = list(dict.fromkeys(row["preset"] for row in rows))
    table = []
    for degradation in dict.fromkeys(row["degradation"] for row in rows):
        own = {row["preset"]: row for row in rows if row["degradation"] == degradation}
        before = float(own[presets[0]]["miou_before"])
        after = [float(own[preset]["miou_after"]) for preset in presets]
        cells = [f"{value:.1f} ({value - before:+.1f})".replace("-", "−") for value in after]
        table.append([degradation, f"{before:.1f}", *cells])
    return markdown(["degradation", "before", *(f"`{preset}`" for preset in presets)], table)


def _cells(results: Results, found: tuple[str, Cell, bool] | None) -> list[str]:
    """Refined maps, their gain; behind the last refiner the network and its share of full supervision."""
    if found is None:
        return ["–", "", "", ""]
    recipe, cell, is_last = found
    ours, before = results.by_seed(recipe, cell), results.by_seed(recipe, MAPS)
    gain = results.gain_of(ours, before)
    network, ratio = "", ""
    if is_last and results.by_seed(recipe, SEGMENTATION):
        network = results.text(recipe, SEGMENTATION)
        share = results.mean(recipe, RATIO)
        ratio = "" if share is None else f"{share / 100:.2f}"
    return [results.text(recipe, cell), gain, network, ratio]


def _without_empty_columns(
    head: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    kept = [place for place in range(len(head)) if any(row[place] not in ("", "–") for row in rows)]
    kept = sorted({0, *kept})
    return [head[place] for place in kept], [[row[place] for place in kept] for row in rows]


def _steps(results: Results, recipe: str) -> list[str]:
    """The recipe's refiners in order; of a recipe that is not there, those of its rows."""
    try:
        return [section.short_name for section in load_recipe(recipe).refine]
    except RecipeError:
        stages = [row["stage"] for row in results.rows if row["recipe"] == recipe]
        return [s.removeprefix(REFINED) for s in dict.fromkeys(stages) if s.startswith(REFINED)]


def _method(results: Results, recipe: str) -> str:
    return next(row["method"] for row in results.rows if row["recipe"] == recipe)


def _source(results: Results, recipe: str, stage: str) -> str:
    """Automatic where a background score had to be chosen, else none."""
    return "automatic" if results.by_seed(recipe, Cell(stage, "automatic")) else "none"
