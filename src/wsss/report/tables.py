"""Tables of published numbers in Markdown, made from `results/*.csv` and kept between markers.

```
<!-- results:scenes -->
<!-- /results -->
```
`python -m wsss.report.tables README.md docs` fills every such place in the files and folders that it is
given; a test fails when a table differs from the numbers. Numbers are means over seeds ± standard deviation.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from wsss.checks import nearest
from wsss.errors import DataError
from wsss.report.ablation_tables import ABLATIONS, MAPS
from wsss.report.benchmark_tables import memory, scaling, speed
from wsss.report.boundary_tables import boundaries, confusions
from wsss.report.labels import METHODS, recipe_label
from wsss.report.markdown_table import markdown
from wsss.report.paper_tables import PAPER_VIEWS, exhibit_markdown
from wsss.report.refinement_tables import is_refined, photographs, refinement
from wsss.report.result_rows import Cell, Results
from wsss.training.checkpoint import write_atomically

BLOCK: Final = re.compile(r"(<!-- results:([\w/-]+) -->\n)(.*?)(<!-- /results -->)", re.DOTALL)
"""A place for a table: opening marker, name, table, closing marker."""

PAPER: Final = "paper/"
"""What names of tables of the papers begin with in markers."""

PARTS: Final = ("/eps", "/vwe")
"""Recipes that are parts of a method; they have tables of their own."""

STAGES: Final = {
    "maps, fixed": Cell("maps", "fixed"),
    "maps, automatic": Cell("maps", "automatic"),
    "maps, *oracle*": MAPS,
    "pseudo masks": Cell("pseudo_masks"),
    "segmentation": Cell("segmentation"),
    "segmentation + CRF": Cell("segmentation_crf"),
}


def results_markdown(results_csv: Path | str, view: str = "stages") -> str:
    """One table from a results file; empty while there are no numbers for it.

    Args:
        results_csv: `results/<data set>.csv`, or `results/benchmarks.csv` for views of `BENCHMARKS`.
        view: a key of `VIEWS` or `BENCHMARKS`.

    Raises:
        DataError: no such view, or the file has other columns.
    """
    if view in BENCHMARKS:
        return BENCHMARKS[view](Path(results_csv))
    if view not in VIEWS:
        raise DataError(f"There is no table `{view}`. {nearest(view, VIEWS)}")
    return VIEWS[view](Results.read(Path(results_csv)))


def table_named(name: str, results_folder: Path | str) -> str:
    """The table of a marker: `scenes` (stages), `scenes-losses`, `paper/clims-table3`, `benchmarks`, ….

    Raises:
        DataError: no such table.
        RecipeError: no such table of a paper.
    """
    folder = Path(results_folder)
    if name.startswith(PAPER):
        return exhibit_markdown(name.removeprefix(PAPER), folder)
    if name in BENCHMARKS:
        return results_markdown(folder / "benchmarks.csv", name)
    if name == "refine-photographs":
        return photographs(folder / "refine_photographs.csv")
    if name == "ablation":
        return results_markdown(folder / "scenes.csv", "losses")
    data, _, view = name.rpartition("-")
    if view in VIEWS:
        return results_markdown(folder / f"{data}.csv", view)
    return results_markdown(folder / f"{name}.csv")


def update_markdown(path: Path | str, results_folder: Path | str) -> bool:
    """Fill the tables of one Markdown file; returns whether it changed.

    Raises:
        DataError: a marker names no table.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    filled = filled_markdown(text, results_folder)
    if filled != text:
        write_atomically(path, filled.encode())
    return filled != text


def filled_markdown(text: str, results_folder: Path | str) -> str:
    """`text` with its tables as the numbers in `results_folder` say.

    Raises:
        DataError: a marker names no table.
    """

    def fill(place: re.Match[str]) -> str:
        return f"{place[1]}{table_named(place[2], results_folder)}{place[4]}"

    return BLOCK.sub(fill, text)


def stages(results: Results) -> str:
    """One row per method, one column per stage: the headline of a data set."""
    recipes = _main_recipes(results)
    columns = {name: cell for name, cell in STAGES.items() if any(results.by_seed(r, cell) for r in recipes)}
    ratio = Cell("segmentation", metric="weak_to_full")
    rows = [
        [_label(results, recipe), *(results.text(recipe, cell) for cell in columns.values())]
        for recipe in recipes
    ]
    head = ["", *columns]
    if any(results.by_seed(recipe, ratio) for recipe in recipes):
        head.append("weak ÷ full")
        for row, recipe in zip(rows, recipes, strict=True):
            value = results.mean(recipe, ratio)
            row.append("–" if value is None else f"{value / 100:.2f}")
    for name in results.metrics("miou_without:", MAPS):
        head.append(f"segmentation without {name}")
        for row, recipe in zip(rows, recipes, strict=True):
            row.append(results.text(recipe, Cell("segmentation", metric=f"miou_without:{name}")))
    weak = [recipe for recipe in recipes if results.by_seed(recipe, MAPS)]
    for before, after in _compared(results, weak):
        gains = [results.gain(after, before, cell) for cell in columns.values()]
        rest = [""] * (len(head) - 1 - len(gains))
        rows.append([f"*{_label(results, after)} − {_label(results, before)}*", *gains, *rest])
    return markdown(head, rows)


def classes(results: Results) -> str:
    """IoU per class of the maps, and the gain of each method over the one before."""
    recipes = [recipe for recipe in _main_recipes(results) if results.by_seed(recipe, MAPS)]
    labels = [_label(results, recipe) for recipe in recipes]
    rows = []
    for name in results.metrics("iou:", MAPS):
        cell = Cell(MAPS.stage, MAPS.source, f"iou:{name}")
        gains = [results.gain(after, before, cell) for before, after in _compared(results, recipes)]
        rows.append([name, *(results.text(recipe, cell) for recipe in recipes), *gains])
    pairs = [[_label(results, recipe) for recipe in pair] for pair in _compared(results, recipes)]
    return markdown(["class", *labels, *(f"{after} − {before}" for before, after in pairs)], rows)


def surroundings(results: Results) -> str:
    """MIoU of the marked subsets of images beside that of all images."""
    recipes = [recipe for recipe in _main_recipes(results) if results.by_seed(recipe, MAPS)]
    subsets = results.metrics("miou_subset:", MAPS)
    rows = []
    for recipe in recipes:
        cells = [MAPS, *(Cell(MAPS.stage, MAPS.source, f"miou_subset:{name}") for name in subsets)]
        rows.append([_label(results, recipe), *(results.text(recipe, cell) for cell in cells)])
    head = ["maps, *oracle*", "all images", *(f"images with {name.replace('_', ' ')}" for name in subsets)]
    return markdown(head, rows if subsets else [])


BENCHMARKS: Final[Mapping[str, Callable[[Path], str]]] = {
    "benchmarks": speed,
    "benchmarks-memory": memory,
    "benchmarks-scaling": scaling,
}

VIEWS: Final[Mapping[str, Callable[[Results], str]]] = {
    "stages": stages,
    **ABLATIONS,
    "classes": classes,
    "surroundings": surroundings,
    "boundaries": boundaries,
    "confusions": confusions,
    "refinement": refinement,
    **PAPER_VIEWS,
}


def _main_recipes(results: Results) -> list[str]:
    """Recipes of headline tables: no ablation, part, demonstration, refinement or second network.

    The supervised one comes last.
    """
    left_out = ("ablation", "demo", "+", "-v1-", "-v2-", *PARTS)
    shown = [r for r in results.recipes if not any(w in r for w in left_out) and not is_refined(results, r)]
    return sorted(shown, key=lambda recipe: (_method(results, recipe) == "supervised", shown.index(recipe)))


def _compared(results: Results, recipes: Sequence[str]) -> list[tuple[str, str]]:
    """Each method and what it is compared with: the one before it; with saliency its base or the first."""
    by_tags = [recipe for recipe in recipes if not _sees_saliency(results, recipe)]
    pairs = list(pairwise(by_tags))
    for recipe in recipes:
        if _sees_saliency(results, recipe):
            base = max((other for other in by_tags if recipe.startswith(f"{other}_")), default=recipes[0])
            pairs += [(base, recipe)] if base != recipe else []
    return pairs


def _sees_saliency(results: Results, recipe: str) -> bool:
    return _supervision(results, recipe).endswith("S")


def _supervision(results: Results, recipe: str) -> str:
    return next(row["supervision"] for row in results.rows if row["recipe"] == recipe)


def _method(results: Results, recipe: str) -> str:
    return next(row["method"] for row in results.rows if row["recipe"] == recipe)


def _label(results: Results, recipe: str) -> str:
    method = _method(results, recipe)
    if method == "supervised":
        return "fully supervised"
    same = [other for other in _main_recipes(results) if _method(results, other) == method]
    own = METHODS.get(method) or method.replace("_", "-").upper()
    name = own if len(same) < 2 else recipe_label(recipe)
    return f"{name} ({_supervision(results, recipe)})" if _sees_saliency(results, recipe) else name


def main(places: Sequence[str], results_folder: Path | str = "results") -> None:
    """Fill the tables of Markdown files, and of all Markdown files in folders."""
    for place in map(Path, places):
        for path in sorted(place.rglob("*.md")) if place.is_dir() else [place]:
            update_markdown(path, results_folder)


if __name__ == "__main__":
    main(sys.argv[1:])
