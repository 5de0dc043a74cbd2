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
    rows = [
        ["–", *(results.text(first[m], MAPS) for m in methods), *(_plain(results, first[m]) for m in methods)]
    ]
    for words, found in sorted(chains.items(), key=lambda item: (item[0].count("then"), item[0])):
        cells = [_cells(results, found.get(method)) for method in methods]
        rows.append([words, *(maps for maps, _ in cells), *(network for _, network in cells)])
    names = [method.upper().replace("_", "-") for method in methods]
    head = ["refined by", *(f"{name} maps (gain)" for name in names)]
    head += [f"{name} network (÷ full)" for name in names]
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


def _cells(results: Results, found: tuple[str, Cell, bool] | None) -> tuple[str, str]:
    """Refined maps with their gain; behind the last refiner the network and its share of full supervision."""
    if found is None:
        return "–", ""
    recipe, cell, is_last = found
    gain = results.gain_of(results.by_seed(recipe, cell), results.by_seed(recipe, MAPS))
    return f"{results.text(recipe, cell)} ({gain})", _network(results, recipe) if is_last else ""


def _plain(results: Results, refined: str) -> str:
    """The network on maps that nothing refined: that of the recipe named after the method."""
    folder, method = refined.rpartition("/")[0], _method(results, refined)
    return _network(results, f"{folder}/{method}")


def _network(results: Results, recipe: str) -> str:
    source = _source(results, recipe, SEGMENTATION.stage)
    cell = Cell(SEGMENTATION.stage, source)
    if not results.by_seed(recipe, cell):
        return ""
    share = results.mean(recipe, Cell(SEGMENTATION.stage, source, "weak_to_full"))
    return results.text(recipe, cell) + ("" if share is None else f" ({share / 100:.2f})")


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
