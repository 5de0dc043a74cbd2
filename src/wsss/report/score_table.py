"""The table of scores: one row per recipe, one column per stage and background score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wsss.engine.passport import by_supervision
from wsss.report.figures import colour_class, difference_class, signed
from wsss.report.markup import Html, element, scrolling, together
from wsss.report.passports import SOURCE_NOTES, background_scores, mixing_note, passport, stage_title
from wsss.report.runs import OWN, RecipeRuns, Reported

PAPER_DATA: Final = {"voc": "VOC 2012", "coco": "COCO 2014"}
"""Kinds of data that the papers' numbers are of, with their names; beside other data they would mislead."""


@dataclass(frozen=True)
class Column:
    """One column of numbers.

    Args:
        stage: scored stage.
        source: who chose the background score.
        metric: miou or weak_to_full.
    """

    stage: str
    source: str
    metric: str = "miou"


def score_table(reported: Reported) -> Html:
    """MIoU of every recipe at every stage, with spread over seeds."""
    columns = _columns(reported)
    if not columns:
        return element(
            "p",
            "Nothing could be scored: the data set has no true masks, or the runs stopped before their first "
            "score. The pictures below show what was found.",
            class_="note",
        )
    best = {column: _best(reported, column) for column in columns}
    body: list[Html] = []
    groups = by_supervision(_supervision(entry) for entry in reported.entries)
    for supervision, words in groups:
        if len(groups) > 1:
            body.append(_subhead(f"{supervision}: {words}", len(columns) + 1))
        body += [
            element("tr", _name(entry), *(_cell(reported, entry, column, best[column]) for column in columns))
            for entry in reported.entries
            if _supervision(entry) == supervision
        ]
    shown = element(
        "table",
        element(
            "caption",
            "mIoU in per cent",
            ", mean ± standard deviation over seeds" if _has_seeds(reported) else None,
        ),
        element("thead", *_heading(reported, columns)),
        element("tbody", *body, *_gain_row(reported, columns)),
        class_="scores",
    )
    notes = _notes(columns, reported.baseline_and_last is not None)
    return together([mixing_note(reported), scrolling(shown, "Scores"), notes])


def _supervision(entry: RecipeRuns) -> str:
    return str(entry.first.record["supervision"])


def _subhead(words: str, columns: int) -> Html:
    """A row above the recipes of one supervision."""
    return element("tr", element("th", words, colspan=str(columns), scope="rowgroup", class_="group"))


def _columns(reported: Reported) -> list[Column]:
    columns = []
    for stage in reported.score_stages:
        columns += [Column(stage, source) for source in reported.sources(stage)]
    if any(metric == "weak_to_full" for _, _, metric, _ in reported.numbers.rows):
        columns.append(Column("segmentation", OWN, "weak_to_full"))
    return columns


def _heading(reported: Reported, columns: Sequence[Column]) -> list[Html]:
    """Stages above, background scores below."""
    groups: list[tuple[str, int]] = []
    for column in columns:
        title = "Weak ÷ full" if column.metric == "weak_to_full" else stage_title(column.stage)
        split = reported.split(column.stage)
        title = f"{title} · {split}" if split and column.metric == "miou" else title
        if groups and groups[-1][0] == title:
            groups[-1] = (title, groups[-1][1] + 1)
        else:
            groups.append((title, 1))
    upper = [
        element("th", title, colspan=str(count), scope="colgroup", class_="group") for title, count in groups
    ]
    lower = [
        element(
            "th",
            _source_name(column),
            scope="col",
            class_=column.source,
            title=SOURCE_NOTES.get(column.source),
        )
        for column in columns
    ]
    return [
        element("tr", element("th", "Method", rowspan="2", scope="col"), *upper),
        element("tr", *lower),
    ]


def _source_name(column: Column) -> str:
    if column.metric == "weak_to_full":
        return "ratio"
    if column.stage == "words":  # of words, the source says who named them
        return "best naming" if column.source == "oracle" else "own naming"
    return "" if column.source in ("none", OWN) else column.source


def _name(entry: RecipeRuns) -> Html:
    seeds = ", ".join(str(run.seed) for run in entry.runs)
    word = "seed" if len(entry.runs) == 1 else "seeds"
    label = element(
        "span", element("i", aria_hidden="true"), entry.label, class_=f"key {colour_class(entry.colour)}"
    )
    return element("th", label, element("small", f"{word} {seeds}"), scope="row")


def _cell(reported: Reported, entry: RecipeRuns, column: Column, best: RecipeRuns | None) -> Html:
    row = reported.numbers.row(entry, column.stage, column.metric, column.source)
    if row is None:
        return element("td", "–", class_=f"{column.source} nothing")
    if column.metric == "weak_to_full":
        return element(
            "td",
            f"{row['mean'] / 100:.2f}",
            title="Segmentation mIoU ÷ that of the network trained on true masks",
        )
    number = f"{row['mean']:.1f}"
    spread = row["standard_deviation"]
    levels = background_scores(entry, column.stage, column.source)
    notes = [
        None if spread is None else element("span", f" ± {spread:.1f}", class_="spread"),
        element("small", "at " + "–".join(dict.fromkeys((levels[0], levels[-1])))) if levels else None,
        _paper(reported, entry, column),
    ]
    return element(
        "td",
        element("strong" if entry is best else "span", number),
        *notes,
        class_=column.source,
        title=passport(entry, column.stage, column.source),
    )


def _paper(reported: Reported, entry: RecipeRuns, column: Column) -> Html | None:
    """The published number, only where it belongs to the same data."""
    record = entry.first.record
    data = PAPER_DATA.get(record["dataset_config"].get("kind"))
    if data is None:
        return None
    about = record["recipe"].get("about") or {}
    source = entry.source(column.stage, column.source)
    value = about.get("paper_values", {}).get(f"{column.stage}.{source}.miou")
    if value is None:
        return None
    return element("small", f"paper, {data} {reported.split(column.stage)}: {value:g}", class_="paper")


def _best(reported: Reported, column: Column) -> RecipeRuns | None:
    """The weakly supervised entry with the highest number; none where two share it, as shown."""
    scored = [
        (value, entry)
        for entry in reported.weak
        if (value := reported.numbers.mean(entry, column.stage, column.metric, column.source)) is not None
    ]
    if len(scored) < 2:
        return None
    (value, entry), (second, _) = sorted(scored, key=lambda pair: -pair[0])[:2]
    return entry if round(value, 1) > round(second, 1) else None


def _gain_row(reported: Reported, columns: Sequence[Column]) -> list[Html]:
    """Difference between the first and the last weakly supervised entry."""
    pair = reported.baseline_and_last
    if pair is None:
        return []
    first, last = pair
    cells = [_gain_cell(reported.numbers.gain(first, last, c.stage, c.source), c) for c in columns]
    return [element("tr", element("th", f"{last.label} − {first.label}", scope="row"), *cells, class_="gain")]


def _gain_cell(gain: Mapping[str, Any] | None, column: Column) -> Html:
    if gain is None or column.metric != "miou":
        return element("td", "", class_=column.source)
    interval = gain["interval"]
    words = None
    if interval is not None:
        ends = (signed(interval[0]), " … ", signed(interval[1]))
        words = element("small", *ends, title="95% of paired bootstrap resamples of the images")
    style = f"{column.source} {difference_class(gain['mean']) or ''}".strip()
    return element("td", signed(gain["mean"]), words, class_=style)


def _has_seeds(reported: Reported) -> bool:
    return any(len(entry.runs) > 1 for entry in reported.entries)


def _notes(columns: Sequence[Column], has_gains: bool) -> Html:
    sources = dict.fromkeys(column.source for column in columns if column.metric == "miou")
    words = [together([element("b", s), f": {SOURCE_NOTES[s]}"]) for s in sources if s in SOURCE_NOTES]
    parts: list[object] = []
    if words:
        parts += ["Background score — ", together(words, "; "), ". Pseudo masks never use the oracle."]
    if has_gains:
        parts.append(" The small interval under a difference holds 95% of paired resamples of the images.")
    if any(column.metric == "weak_to_full" for column in columns):
        parts.append(
            " Weak ÷ full: segmentation trained from tags, as a share of the same network trained on masks."
        )
    return element("p", *parts, class_="note")
