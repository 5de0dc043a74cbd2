"""Boundaries and co-occurring backgrounds: where masks end, and what they take for the object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wsss.metrics.boundaries import MEASURES, TOLERANCES
from wsss.report.class_tables import main_score, score_name
from wsss.report.figures import colour_class
from wsss.report.markdown_table import markdown
from wsss.report.markup import Html, details, element, scrolling, together
from wsss.report.result_rows import Cell, Results
from wsss.report.runs import RecipeRuns, Reported

WORDS: Final = {"recall": "recall", "precision": "precision", "f1": "F1"}
RATIO: Final = "confusion_ratio:"
PAIRS_SHOWN: Final = 6  # two columns each; the others unfold

RECIPES: Final = {
    "CAM": ("cam", "cam-crf"),
    "EPS": ("eps",),
    "CLIMS": ("clims", "clims-crf"),
    "SMVWE": ("smvwe",),
    "QA-CLIMS": ("qa_clims",),
}
"""Rows of the published tables: the first recipe with numbers, whose maps are the method's own."""


@dataclass(frozen=True)
class Group:
    """Columns under a common heading.

    Args:
        title: the heading.
        columns: name of each metric, and the words for it.
    """

    title: str
    columns: Mapping[str, str]


def boundary_scores(reported: Reported) -> Html | None:
    """Edges and co-occurring backgrounds of every recipe; nothing where no run has such numbers.

    The most telling stage stands first, the others unfold.
    """
    if not reported.score_stages:
        return None
    stages = [(stage, source) for stage in reported.score_stages for source in reported.sources(stage)]
    shown = main_score(reported)
    rest = [each for each in stages if each != shown and each[1] != "fixed"]
    unfolded = [(each, _tables(reported, *each)) for each in rest]
    parts = [
        _tables(reported, *shown),
        *(details(f"The same for {score_name(reported, *each)}", found) for each, found in unfolded if found),
    ]
    return together(parts) if any(parts) else None


def boundaries(results: Results) -> str:
    """Boundary recall, precision and F1 of each method's maps, at each tolerance, as Markdown."""
    cells = [Cell("maps", "oracle", metric) for tolerance in TOLERANCES for metric in _metrics(tolerance)]
    rows = []
    for label, recipe in _measured(results, cells).items():
        seeds = max((results.seeds(recipe, cell) for cell in cells), key=int)
        rows.append([label, *(results.text(recipe, cell) for cell in cells), seeds])
    head = [f"{WORDS[name]}, r = {tolerance:g}" for tolerance in TOLERANCES for name in MEASURES]
    return markdown(["maps, *oracle*", *head, "seeds"], rows)


def confusions(results: Results) -> str:
    """Confusion ratio of each class with the background that comes with it most often, as Markdown."""
    pairs = results.metrics(RATIO, Cell("maps", "oracle"))
    cells = [Cell("maps", "oracle", f"{RATIO}{pair}") for pair in pairs]
    rows = [
        [label, *(results.text(recipe, cell) for cell in cells)]
        for label, recipe in _measured(results, cells).items()
    ]
    names = [" on ".join(pair.split("/")) for pair in pairs]
    return markdown(["confusion ratio of maps, *oracle*", *names], rows)


def _measured(results: Results, cells: Sequence[Cell]) -> dict[str, str]:
    """The recipe behind each row, where any has numbers."""
    found = {}
    for label, names in RECIPES.items():
        recipes = [recipe for name in names if (recipe := results.recipe_named(name))]
        measured = [recipe for recipe in recipes if any(results.by_seed(recipe, cell) for cell in cells)]
        if measured:
            found[label] = measured[0]
    return found


def _metrics(tolerance: float) -> dict[str, str]:
    return {f"boundary_{name}@{tolerance:g}": f"{WORDS[name]} ↑" for name in MEASURES}


def _tables(reported: Reported, stage: str, source: str) -> Html | None:
    parts = [_edges(reported, stage, source), _pairs(reported, stage, source)]
    return together(parts) if any(parts) else None


def _edges(reported: Reported, stage: str, source: str) -> Html | None:
    groups = [
        Group("exact" if tolerance == 0 else f"within {tolerance:g} of the diagonal", _metrics(tolerance))
        for tolerance in TOLERANCES
    ]
    shown = _grouped(reported, stage, source, groups)
    if shown is None:
        return None
    return together(
        [
            element("h3", f"Boundaries: {score_name(reported, stage, source)}"),
            element(
                "p",
                "Recall is the share of the true edges' pixels with a predicted edge nearby, precision that "
                "of the predicted ones with a true edge nearby, whichever class it belongs to; per cent, "
                f"higher is better. True edges are those of {_truth(reported, stage, source)}.",
                class_="note",
            ),
            shown,
        ]
    )


def _pairs(reported: Reported, stage: str, source: str) -> Html | None:
    groups = [
        Group(
            f"{context} in {class_name}",
            {f"{RATIO}{class_name}/{context}": "confusion ratio ↓", f"iou:{class_name}": "IoU ↑"},
        )
        for class_name, _, context in (pair.partition("/") for pair in _by_ratio(reported, stage, source))
    ]
    shown = _grouped(reported, stage, source, groups[:PAIRS_SHOWN])
    if shown is None:
        return None
    more = _grouped(reported, stage, source, groups[PAIRS_SHOWN:])
    return together(
        [
            element("h3", f"Co-occurring background: {score_name(reported, stage, source)}"),
            element(
                "p",
                "The confusion ratio is the background of the named kind that was taken for the class, in "
                "per cent of the class's pixels that were found, over the images that show both; it may be "
                "above 100, and lower is better. Beside it the IoU of the class over all images, where "
                "higher is better. Each class stands with the background that comes with it most often.",
                class_="note",
            ),
            shown,
            details(f"{len(groups) - PAIRS_SHOWN} more pairs", more) if more else None,
        ]
    )


def _by_ratio(reported: Reported, stage: str, source: str) -> list[str]:
    """Pairs `class/context` that have a confusion ratio, the highest mean first."""
    sums: dict[str, float] = {}
    for entry in reported.entries:
        wanted = (entry.recipe_name, stage, entry.source(stage, source))
        for (recipe, of, metric, by), row in reported.numbers.rows.items():
            if (recipe, of, by) == wanted and metric.startswith(RATIO):
                pair = metric.removeprefix(RATIO)
                sums[pair] = sums.get(pair, 0.0) + float(row["mean"])
    return sorted(sums, key=lambda pair: -sums[pair])


def _truth(reported: Reported, stage: str, source: str) -> str:
    """What the true edges were taken from, and in how many images; of each recipe where they differ."""
    labels: dict[str, dict[str, None]] = {}  # of the recipes, each once and in order
    for entry in reported.entries:
        for scored in (run.scored(stage) for run in entry.runs):
            scores = scored.entry(source) if scored else None
            if scores and scores.get("boundary"):
                labels.setdefault(_truth_of(scores), {})[entry.label] = None
    if len(labels) == 1:
        return next(iter(labels))
    return "; ".join(f"{truth} ({', '.join(names)})" for truth, names in labels.items())


def _truth_of(scores: Mapping[str, Any]) -> str:
    if scores.get("boundary_source") != "sbd":
        return "the true masks"
    images = scores.get("boundary_images")  # older scores don't say
    return "SBD" if images is None else f"SBD, in the {images:,} scored images that it annotates"


def _grouped(reported: Reported, stage: str, source: str, groups: Sequence[Group]) -> Html | None:
    """One row per recipe that has one of the first columns' numbers; nothing without such a recipe."""
    metrics = [metric for group in groups for metric in group.columns]
    telling = [next(iter(group.columns)) for group in groups]
    entries = [
        entry
        for entry in reported.entries
        if any(reported.numbers.row(entry, stage, metric, source) for metric in telling)
    ]
    if not entries:
        return None
    upper = [
        element("th", group.title, colspan=str(len(group.columns)), scope="colgroup", class_="group")
        for group in groups
    ]
    lower = [element("th", words, scope="col") for group in groups for words in group.columns.values()]
    body = [
        element(
            "tr",
            _name(entry),
            *(_number(reported, entry, stage, metric, source=source) for metric in metrics),
        )
        for entry in entries
    ]
    head = (
        element("tr", element("th", "Method", rowspan="2", scope="col"), *upper),
        element("tr", *lower),
    )
    shown = element("table", element("thead", *head), element("tbody", *body), class_="scores")
    return scrolling(shown, "Table")


def _name(entry: RecipeRuns) -> Html:
    key = (element("i", aria_hidden="true"), entry.label)
    return element("th", element("span", *key, class_=f"key {colour_class(entry.colour)}"), scope="row")


def _number(reported: Reported, entry: RecipeRuns, stage: str, metric: str, *, source: str) -> Html:
    """Mean and standard deviation over seeds."""
    row = reported.numbers.row(entry, stage, metric, source)
    if row is None:
        return element("td", "–", class_="nothing")
    spread = row["standard_deviation"]
    small = None if spread is None else element("span", f" ± {spread:.1f}", class_="spread")
    return element("td", f"{row['mean']:.1f}", small)
