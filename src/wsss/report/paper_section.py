"""The papers' part of the page: tables and figures with own numbers, the paper's in columns of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

import numpy as np

from wsss.data.dataset import Dataset
from wsss.engine.papers import Exhibit
from wsss.errors import WsssError
from wsss.report.class_colours import class_colour
from wsss.report.class_tables import class_key
from wsss.report.figures import Line, Mark, Plot, bar, legend, plot, signed, swatch
from wsss.report.images import mask_picture, pointed_picture, thumbnail
from wsss.report.markup import Html, element, table, together
from wsss.report.paper_tables import OFF, class_numbers, curves, paper_table
from wsss.report.result_rows import Results
from wsss.report.runs import Reported
from wsss.report.tiles import entry_tiles, tile

NOTE: Final = (
    "Own numbers are means over seeds ± standard deviations. Columns headed “paper” hold what the paper "
    "reports, of the data that the heading names, with pretrained weights and mostly of single runs. They "
    "can't be compared with own numbers one by one; differences between rows can, and below each table it is "
    "said which of them come out."
)
BACKGROUND_POINT: Final = (240, 200, 0)  # colours of the paper's stars
OBJECT_POINT: Final = (40, 90, 230)


def paper_section(
    reported: Reported, exhibits: Sequence[Exhibit], results: Results, point_files: Sequence[Path] = ()
) -> Html | None:
    """All exhibits one after the other; nothing where there are none.

    Args:
        reported: the runs, for pictures.
        exhibits: what is shown.
        results: numbers of the runs, those of points among them.
        point_files: `points.json` of runs whose features were compared with class weights.
    """
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in point_files]
    shown = [_exhibit(reported, exhibit, results, documents) for exhibit in exhibits]
    return together([element("p", NOTE, class_="note"), *shown]) if shown else None


def _exhibit(
    reported: Reported, exhibit: Exhibit, results: Results, documents: Sequence[Mapping[str, Any]]
) -> Html:
    found = paper_table(exhibit, results)
    if exhibit.kind == "curves":
        figure = _curves(exhibit, results)
    elif exhibit.kind == "classes":
        figure = _bars(reported, exhibit, results)
    elif exhibit.kind == "pictures":
        figure = _pictures(reported, exhibit)
    elif exhibit.kind == "points":
        figure = _points(reported, exhibit, documents)
    else:
        figure = None
    parts = [
        element("h3", f"{exhibit.paper_title}, {exhibit.heading}: {exhibit.title}"),
        element("p", element("b", "The paper. "), exhibit.says, class_="note"),
        figure,
        element("p", "No numbers yet.", class_="note") if found is None else _table(found.head, found.rows),
        element("ul", *(element("li", trend) for trend in found.trends)) if found and found.trends else None,
    ]
    return element("section", *parts, class_="exhibit")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    shown = [[row[0], *(element("td", cell, class_="number") for cell in row[1:])] for row in rows]
    heads = [head[0], *(element("th", title, scope="col", class_="number") for title in head[1:])]
    return table(heads, shown)


def _curves(exhibit: Exhibit, results: Results) -> Html | None:
    """One small plot per series: means, joined, and a bar of one standard deviation to each side."""
    found = curves(exhibit, results)
    means = [fmean(values.values()) for points in found.values() for values in points.values()]
    figures = []
    for colour, (name, points) in enumerate(found.items()):
        numbers = [x for x in points if x is not None]
        step = (max(numbers) - min(numbers)) / 4 or 1.0
        places = {x: min(numbers) - step if x is None else x for x in points}
        lines = [Line([(places[x], fmean(points[x].values())) for x in numbers], colour)]
        marks = []
        for x, values in points.items():
            mean, word = fmean(values.values()), OFF if x is None else f"{x:g}"
            note = f"{name}, {exhibit.axis} {word}: {mean:.1f}"
            if len(values) > 1:
                spread = stdev(values.values())
                note += f" ± {spread:.1f}"
                lines.append(
                    Line([(places[x], mean - spread), (places[x], mean + spread)], colour, is_faint=True)
                )
            marks.append(Mark(places[x], mean, "oracle", colour, note))
        content = Plot(
            lines,
            exhibit.axis,
            "mIoU, per cent",
            "; ".join(mark.note for mark in marks),
            marks,
            x_limits=(min(places.values()) - step / 4, max(places.values()) + step / 4),
            x_ticks={place: OFF if x is None else f"{x:g}" for x, place in places.items()},
            # one scale for all series, so that flat curves look flat
            y_from=min(means) - 5,
            y_to=max(means) + 5,
            is_small=True,
        )
        figures.append(element("figure", element("figcaption", name), plot(content), class_="small"))
    return element("div", *figures, class_="multiples") if figures else None


def _bars(reported: Reported, exhibit: Exhibit, results: Results) -> Html | None:
    """One line per class, one bar per row, and the gain of the last row over the first."""
    rows, numbers = class_numbers(exhibit, results)
    if len(rows) < 2:
        return None
    lines = []
    for name, values in numbers.items():
        means = [fmean(known.values()) if known else None for known in values]
        bars = [bar(mean, place, label=rows[place].label) for place, mean in enumerate(means)]
        first, last = means[0], means[-1]
        gain = signed(None if first is None or last is None else last - first)
        key = class_key(reported, name) if name in reported.class_names else name
        shown = element("td", together(bars), class_="bars")
        lines.append([key, shown, element("td", gain, class_="number")])
    difference = element("th", f"{rows[-1].label} − {rows[0].label}", scope="col", class_="number")
    keys = legend([swatch(place, row.label) for place, row in enumerate(rows)])
    return together([keys, table(("class", "IoU in per cent", difference), lines, class_="classes")])


def _pictures(reported: Reported, exhibit: Exhibit) -> Html | None:
    """For each class the first training image that shows it alone, with every row's map of it."""
    dataset = reported.dataset
    if dataset is None:
        return element("p", f"The images can't be shown: {reported.dataset_problem}", class_="note")
    entries = {entry.recipe_name: entry for entry in reported.entries}
    split = str(reported.data.get("maps_split") or reported.data["train_split"])
    shown = []
    for class_id, image_id in _first_alone(dataset, split):
        sample = dataset.sample(image_id, with_mask=dataset.has_masks(split))
        tiles = [tile("input", thumbnail(sample.image), f"photograph of {reported.class_names[class_id]}")]
        for row in exhibit.rows:
            if row.recipe in entries:
                entry = replace(entries[row.recipe], label=row.label.partition(",")[0])
                tiles += entry_tiles(entry, row.picture, image_id, sample.image)
        if sample.mask is not None:
            tiles.append(tile("truth", mask_picture(sample.image, sample.mask), "true mask"))
        key = class_key(reported, reported.class_names[class_id])
        header = element("header", key, element("code", image_id))
        shown.append(element("article", header, element("div", *tiles, class_="tiles"), class_="example"))
    note = "Of each class the first training image that shows nothing else; maps are of the first seed."
    return together([element("p", note, class_="note"), *shown]) if shown else None


def _first_alone(dataset: Dataset, split: str) -> Iterator[tuple[int, str]]:
    """Each class with the first image that shows it alone."""
    found: dict[int, str] = {}
    for image_id in dataset.ids(split):
        present = np.flatnonzero(dataset.image_labels(image_id)) + 1
        if len(present) == 1:
            found.setdefault(int(present[0]), image_id)
    yield from sorted(found.items())


def _points(reported: Reported, exhibit: Exhibit, documents: Sequence[Mapping[str, Any]]) -> Html | None:
    """Images with their points, and the cosines of each point's feature with each class's weights."""
    parts = []
    for row in exhibit.rows:
        own = [document for document in documents if document["recipe"] == row.recipe]
        if own:
            first = min(own, key=lambda document: int(document["seed"]))
            parts += [_matrix(reported, row.label, first["class_names"], image) for image in first["images"]]
    if not parts:
        return None
    note = (
        "The first half of the points lies on the background (yellow), the other on the object (blue). The "
        "darker a cell, the nearer to 1 is the cosine of the point's feature with the class's weights; those "
        "below 0 count as 0. Shown for the first seed; the table has the means of all."
    )
    return together([element("p", note, class_="note"), *parts])


def _matrix(reported: Reported, label: str, class_names: Sequence[str], image: Mapping[str, Any]) -> Html:
    picture = _pointed(reported.dataset, image)
    count = len(image["points"])
    rows = []
    for name, cosines in zip(class_names, image["cosines"], strict=True):
        colour = class_colour(class_names.index(name) + 1)
        cells = [
            element(
                "td",
                element("i", style=f"background:{colour};opacity:{value:.2f}"),
                title=f"{name}, point {place}: {value:.2f}",
                class_="cosine",
            )
            for place, value in enumerate(cosines)
        ]
        rows.append([element("b", name) if name == image["class_name"] else name, *cells])
    matrix = table(("class", *map(str, range(count))), rows, class_="matrix")
    header = element("header", f"{label}, {image['class_name']}", element("code", image["image_id"]))
    return element("article", header, element("div", picture, matrix, class_="points"), class_="example")


def _pointed(dataset: Dataset | None, image: Mapping[str, Any]) -> Html | None:
    if dataset is None:
        return None
    try:
        sample = dataset.sample(image["image_id"], with_mask=False)
    except WsssError:
        return None
    points = [(int(row), int(column)) for row, column in image["points"]]
    half = len(points) // 2
    colours = [BACKGROUND_POINT] * half + [OBJECT_POINT] * (len(points) - half)
    shown = pointed_picture(sample.image, points, colours)
    return tile("points", shown, f"{half} points on the background and {len(points) - half} on the object")
