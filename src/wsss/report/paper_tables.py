"""Tables of the papers from own numbers: means and spread over seeds beside what the paper reports.

The paper's numbers are of other data with pretrained weights, so they stand in columns of their own, whose
heading says of what they are. Below a table it is said which of the paper's differences come out and which
do not; differences of numbers that were made with unlike things are given, but not judged. Numbers are
looked up and laid out here; nothing is scored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
        papers: for places of own numbers, the place of the paper's number of the same thing.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    trends: tuple[str, ...]
    papers: Mapping[int, int] = field(default_factory=dict)


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


def cell_of(column: Column, row: Row, metric: str = "miou") -> Cell:
    """What a column asks of a row."""
    return Cell(column.stage_of(row), column.source_of(row), metric)


def by_seed(results: Results, column: Column, row: Row) -> dict[int, float]:
    """One number of one row by seed, in per cent; of several metrics the mean, for seeds that have all."""
    cells = [cell_of(column, row, metric) for metric in column.metrics]
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
    recipes = {column.recipe_of(row) for row in rows}
    own = Results(tuple(row for row in results.rows if row["recipe"] in recipes))
    names = dict.fromkeys(name for row in rows for name in own.metrics("iou:", cell_of(column, row)))
    metrics = {name: f"iou:{name}" for name in names} | {"mean": "miou"}
    numbers = {
        name: [own.by_seed(column.recipe_of(row), cell_of(column, row, metric)) for row in rows]
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
        row.label: {column.title: by_seed(results, column, row) for column in exhibit.columns}
        for row in exhibit.rows
    }
    rows = [row for row in exhibit.rows if any(cells[row.label].values())]
    if len(rows) < FEWEST_ROWS:
        return None
    titles = [c.title for c in exhibit.columns if any(cells[row.label][c.title] for row in rows)]
    paper = [c.title for c in exhibit.columns if any(c.title in row.paper for row in rows)]
    head = ["", *titles, "seeds", *_paper_heads(exhibit, paper)]
    body = [
        (
            row.label,
            *(spread(list(cells[row.label][title].values())) for title in titles),
            _seeds(cells[row.label].values()),
            *(_paper_number(row, title) for title in paper),
        )
        for row in rows
    ]
    trends = [trend for title in paper for trend in _trends(title, exhibit, cells, is_only=len(paper) == 1)]
    first = len(titles) + 2  # behind the labels and the seeds
    papers = {1 + titles.index(t): first + place for place, t in enumerate(paper) if t in titles}
    return PaperTable(tuple(head), tuple(body), tuple(trends), papers)


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
            *(_paper_number(row, name) for row in told),
        )
        for name, of_class in numbers.items()
    ]
    first, last = rows[0].label, rows[-1].label
    means = {name: _means(of_class[0], of_class[-1]) for name, of_class in numbers.items() if name != "mean"}
    lost = [name for name, pair in means.items() if pair is not None and pair[1] <= pair[0]]
    others = f"not so: {', '.join(lost)}" if lost else "no class loses"
    gained = f"{len(means) - len(lost)} of {len(means)} classes"
    trend = f"{gained} are higher with {last} than with {first}; {others}."
    papers = {1 + rows.index(row): 1 + len(rows) + place for place, row in enumerate(told)}
    return PaperTable(tuple(head), tuple(body), (trend,), papers)


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
    title: str, exhibit: Exhibit, cells: Mapping[str, Mapping[str, dict[int, float]]], *, is_only: bool
) -> Iterator[str]:
    """Whether each difference that the paper reports between a row and what it is compared with comes out."""
    pairs = [(row, base) for row in exhibit.rows if title in row.paper for base in exhibit.bases(row, title)]
    for row, base in pairs:
        ours, theirs = cells[row.label][title], cells[base.label][title]
        gains = [ours[seed] - theirs[seed] for seed in sorted(set(ours) & set(theirs))]
        wanted = row.paper[title] - base.paper[title]
        if gains and wanted:
            where = "" if is_only else f" ({title})"
            published = f"{wanted:+.1f}".replace("-", "−")
            made = row.made_by(title), base.made_by(title)
            unlike = f", where more differs ({made[0]}; {made[1]})" if made[0] != made[1] else ""
            said = "" if unlike else f", {verdict(gains, wanted)}"
            yield (
                f"{row.label} − {base.label}{where}: {published} in the paper{unlike}, "
                f"{spread(gains, signed=True)} here{said}."
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


def _paper_number(row: Row, title: str) -> str:
    """The paper's number and what it was made with; a dash where the paper has none."""
    made = row.made_by(title)
    return f"{row.paper[title]:.1f}{f' ({made})' if made else ''}" if title in row.paper else NONE


def _seeds(cells: Iterable[Mapping[int, float]]) -> str:
    """How many seeds the numbers are of; a range where they differ."""
    counts = sorted({len(values) for values in cells if values})
    return NONE if not counts else "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))


def _means(first: Mapping[int, float], last: Mapping[int, float]) -> tuple[float, float] | None:
    return (fmean(first.values()), fmean(last.values())) if first and last else None


def _word(x: float | None) -> str:
    return OFF if x is None else f"{x:g}"
