"""Tables of the papers from own numbers: means and spread over seeds beside what the paper reports.

The paper's numbers are of other data with pretrained weights, so they stand in columns of their own, whose
heading says of what they are. Below a table it is said which of the paper's differences come out and which
do not. Numbers are looked up and laid out here; nothing is scored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Final

from wsss.engine.compare import gain_counts
from wsss.engine.papers import Column, Exhibit, Row, find_exhibits
from wsss.report.markdown_table import markdown
from wsss.report.result_rows import Cell, Results, spread

NONE: Final = "–"
OFF: Final = "off"
FEWEST_ROWS: Final = 2  # with less there is nothing to compare


@dataclass(frozen=True)
class PaperTable:
    """An exhibit as text.

    Args:
        head: column headings; the first names the rows.
        rows: cells.
        trends: sentences on what comes out as in the paper and what does not.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    trends: tuple[str, ...]


def with_points(results: Results, files: Sequence[Path]) -> Results:
    """The results and, as stage `points`, the means of features at points, in per cent.

    Args:
        results: numbers of runs.
        files: each a `points.json` of `wsss.engine.papers.measure_points`.
    """
    rows = []
    for path in files:
        document = json.loads(path.read_text(encoding="utf-8"))
        shared = {"recipe": document["recipe"], "seed": str(document["seed"]), "stage": "points"}
        for metric, value in document["means"].items():
            own = {"metric": metric, "value": repr(100 * value), "background_score_source": "none"}
            rows.append({**shared, **own})
    return Results((*results.rows, *rows))


def by_seed(results: Results, column: Column, row: Row) -> dict[int, float]:
    """One number of one row by seed, in per cent; of several metrics the mean, for seeds that have all."""
    cells = [Cell(column.stage, column.source, metric) for metric in column.metrics]
    found = [results.by_seed(column.recipe_of(row), cell) for cell in cells]
    seeds = sorted(set.intersection(*(set(values) for values in found)))
    return {seed: fmean(values[seed] for values in found) for seed in seeds}


def paper_table(exhibit: Exhibit, results: Results) -> PaperTable | None:
    """The exhibit's table; None while fewer than two of its rows have numbers."""
    if exhibit.kind == "classes":
        return _of_classes(exhibit, results)
    if exhibit.kind == "curves":
        return _of_curves(exhibit, results)
    return _of_rows(exhibit, results)


def paper_markdown(exhibit: Exhibit, results: Results) -> str:
    """The exhibit's table in Markdown; empty while there are no numbers. Trends are left to the text."""
    found = paper_table(exhibit, results)
    if found is None:
        return ""
    head = [title.replace(", oracle", ", *oracle*") for title in found.head]
    return markdown(head, found.rows)


def published(exhibit: Exhibit, results_folder: Path | str) -> Results:
    """The published numbers that an exhibit needs, from `results/<data set>.csv`."""
    names = dict.fromkeys(recipe.partition("/")[0] for recipe in exhibit.recipes)
    read = [Results.read(Path(results_folder) / f"{name}.csv") for name in names]
    return Results(tuple(row for results in read for row in results.rows))


def exhibit_markdown(name: str, results_folder: Path | str) -> str:
    """The table of one exhibit, such as `clims-table3`, from published numbers.

    Raises:
        RecipeError: there is no such exhibit.
    """
    exhibit = find_exhibits(name)[0]
    return paper_markdown(exhibit, published(exhibit, results_folder))


def clims_weights(results: Results) -> str:
    """CLIMS with each of its four weights a little smaller or larger, as in the paper's figure 5."""
    return paper_markdown(find_exhibits("clims-figure5")[0], results)


def background_suppression(results: Results) -> str:
    """Boats and trains with and without CBS, as in the CLIMS paper's table 4."""
    return paper_markdown(find_exhibits("clims-table4")[0], results)


def smvwe_networks(results: Results) -> str:
    """Segmentation networks trained on one set of masks, as in the SMVWE paper's tables 3 and 4."""
    vgg, resnet = find_exhibits("smvwe-table3")[0], find_exhibits("smvwe-table4")[0]
    return paper_markdown(replace(vgg, rows=(*vgg.rows, *resnet.rows)), results)


PAPER_VIEWS: Final[Mapping[str, Callable[[Results], str]]] = {
    "clims_weights": clims_weights,
    "background_suppression": background_suppression,
    "smvwe_networks": smvwe_networks,
}


def class_numbers(exhibit: Exhibit, results: Results) -> tuple[list[Row], dict[str, list[dict[int, float]]]]:
    """Rows with numbers, and by class the IoU of each row by seed; the mean over classes stands last."""
    column = exhibit.columns[0]
    rows = [row for row in exhibit.rows if by_seed(results, column, row)]
    recipes = {row.recipe for row in rows}
    own = Results(tuple(row for row in results.rows if row["recipe"] in recipes))
    names = own.metrics("iou:", Cell(column.stage, column.source))
    metrics = {name: f"iou:{name}" for name in names} | {"mean": "miou"}
    numbers = {
        name: [own.by_seed(row.recipe, Cell(column.stage, column.source, metric)) for row in rows]
        for name, metric in metrics.items()
    }
    return rows, numbers


def curves(exhibit: Exhibit, results: Results) -> dict[str, dict[float | None, dict[int, float]]]:
    """For each series its values by seed at each x that has any; x None (off) first, then ascending."""
    found: dict[str, dict[float | None, dict[int, float]]] = {}
    for row in sorted(exhibit.rows, key=lambda row: -1.0 if row.x is None else row.x):
        values = by_seed(results, exhibit.columns[0], row)
        if values:
            found.setdefault(row.series, {})[row.x] = values
    known = {name: points for name, points in found.items() if len(points) >= FEWEST_ROWS}
    order = dict.fromkeys(row.series for row in exhibit.rows)
    return {name: known[name] for name in order if name in known}


def _of_rows(exhibit: Exhibit, results: Results) -> PaperTable | None:
    cells = {
        row.recipe: {column.title: by_seed(results, column, row) for column in exhibit.columns}
        for row in exhibit.rows
    }
    rows = [row for row in exhibit.rows if any(cells[row.recipe].values())]
    if len(rows) < FEWEST_ROWS:
        return None
    titles = [c.title for c in exhibit.columns if any(cells[row.recipe][c.title] for row in rows)]
    paper = [c.title for c in exhibit.columns if any(c.title in row.paper for row in rows)]
    head = ["", *titles, "seeds", *_paper_heads(exhibit, paper)]
    body = [
        (
            row.label,
            *(spread(list(cells[row.recipe][title].values())) for title in titles),
            _seeds(cells[row.recipe].values()),
            *(f"{row.paper[title]:.1f}" if title in row.paper else NONE for title in paper),
        )
        for row in rows
    ]
    trends = [trend for title in paper for trend in _trends(title, rows, cells, is_only=len(paper) == 1)]
    return PaperTable(tuple(head), tuple(body), tuple(trends))


def _of_classes(exhibit: Exhibit, results: Results) -> PaperTable | None:
    rows, numbers = class_numbers(exhibit, results)
    if len(rows) < FEWEST_ROWS:
        return None
    told = [row for row in rows if row.paper]
    head = ["class", *(row.label for row in rows), *_paper_heads(exhibit, [row.label for row in told])]
    body = [
        (
            name,
            *(spread(list(values.values())) for values in of_class),
            *(f"{row.paper[name]:.1f}" if name in row.paper else NONE for row in told),
        )
        for name, of_class in numbers.items()
    ]
    first, last = rows[0].label, rows[-1].label
    means = {name: _means(of_class[0], of_class[-1]) for name, of_class in numbers.items() if name != "mean"}
    lost = [name for name, pair in means.items() if pair is not None and pair[1] <= pair[0]]
    others = f"not so: {', '.join(lost)}" if lost else "no class loses"
    gained = f"{len(means) - len(lost)} of {len(means)} classes"
    trend = f"{gained} are higher with {last} than with {first}; {others}."
    return PaperTable(tuple(head), tuple(body), (trend,))


def _of_curves(exhibit: Exhibit, results: Results) -> PaperTable | None:
    found = curves(exhibit, results)
    if not found:
        return None
    places = {x for points in found.values() for x in points}
    body = [
        (
            _word(x),
            *(spread(list(points.get(x, {}).values())) for points in found.values()),
            _seeds([points.get(x, {}) for points in found.values()]),
        )
        for x in sorted(places, key=lambda x: -1.0 if x is None else x)
    ]
    trends = []
    for name, points in found.items():
        means = {x: fmean(values.values()) for x, values in points.items()}
        best = max(means, key=lambda x: means[x])
        low, high = min(means.values()), max(means.values())
        trends.append(
            f"{name}: means lie between {low:.1f} and {high:.1f}, {high - low:.1f} points apart; "
            f"the best is at {_word(best)}."
        )
    return PaperTable((exhibit.axis, *found, "seeds"), tuple(body), tuple(trends))


def _trends(
    title: str, rows: Sequence[Row], cells: Mapping[str, Mapping[str, dict[int, float]]], *, is_only: bool
) -> Iterator[str]:
    """Whether each difference between neighbouring rows that the paper reports comes out."""
    told = [row for row in rows if title in row.paper]
    for before, after in pairwise(told):
        ours, theirs = cells[after.recipe][title], cells[before.recipe][title]
        gains = [ours[seed] - theirs[seed] for seed in sorted(set(ours) & set(theirs))]
        wanted = after.paper[title] - before.paper[title]
        if gains and wanted:
            where = "" if is_only else f" ({title})"
            published = f"{wanted:+.1f}".replace("-", "−")
            yield (
                f"{after.label} − {before.label}{where}: {published} in the paper, "
                f"{spread(gains, signed=True)} here, {verdict(gains, wanted)}."
            )


def verdict(gains: Sequence[float], wanted: float) -> str:
    """In words, whether differences have the sign of the paper's.

    Args:
        gains: own differences, seed by seed; at least one.
        wanted: the paper's difference.

    Example:
        >>> verdict([2.0, 2.5, 1.5], 4.1)
        'as in the paper'
        >>> verdict([-2.0, -2.5, -1.5], 4.1)
        'not as in the paper'
    """
    towards = [gain if wanted > 0 else -gain for gain in gains]
    counts = gain_counts(towards)
    if counts is None:
        return f"{'as' if towards[0] > 0 else 'not as'} in the paper, on one seed"
    if counts:
        return "as in the paper"
    if max(towards) <= 0:
        return "not as in the paper"
    if fmean(towards) > 0:
        return "as in the paper in the mean, but too uncertain to count"
    return "not as in the paper in the mean, and seeds differ"


def _paper_heads(exhibit: Exhibit, titles: Sequence[str]) -> list[str]:
    if len(titles) == 1 and exhibit.kind != "classes":
        return [f"paper, {exhibit.where}"]
    return [f"paper, {exhibit.where}: {title}" for title in titles]


def _seeds(cells: Iterable[Mapping[int, float]]) -> str:
    """How many seeds the numbers are of; a range where they differ."""
    counts = sorted({len(values) for values in cells if values})
    return NONE if not counts else "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))


def _means(first: Mapping[int, float], last: Mapping[int, float]) -> tuple[float, float] | None:
    return (fmean(first.values()), fmean(last.values())) if first and last else None


def _word(x: float | None) -> str:
    return OFF if x is None else f"{x:g}"
