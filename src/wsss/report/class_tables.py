"""Scores class by class: IoU, what is missed and what is false, and backgrounds taken for objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from wsss.report.class_colours import class_colour
from wsss.report.figures import bar, difference_class, legend, signed, swatch
from wsss.report.markup import Html, details, element, table, together
from wsss.report.passports import stage_title
from wsss.report.runs import OWN, RecipeRuns, Reported

PAIRS_SHOWN: Final = 10
SMALLEST_SHARE: Final = 0.02  # pairs below this share with every method are left out


def class_scores(reported: Reported) -> Html | None:
    """Per-class IoU with bars: the most telling stage first, the others to unfold."""
    stages = [(stage, source) for stage in reported.score_stages for source in reported.sources(stage)]
    if not stages:
        return None
    shown = main_score(reported)
    rest = [(stage, source) for stage, source in stages if (stage, source) != shown and source != "fixed"]
    return together(
        [
            element("h3", f"IoU per class: {score_name(reported, *shown)}"),
            _legend(reported, *shown),
            _iou_table(reported, *shown),
            *(
                details(f"The same for {score_name(reported, *each)}", _iou_table(reported, *each))
                for each in rest
            ),
        ]
    )


def main_score(reported: Reported) -> tuple[str, str]:
    """Stage and background score whose classes are looked at first: maps at their best, if there are any."""
    sources = {stage: reported.sources(stage) for stage in reported.score_stages}
    if "oracle" in sources.get("maps", ()):
        return "maps", "oracle"
    stage = next(iter(sources))
    return stage, sources[stage][-1]


def score_name(reported: Reported, stage: str, source: str) -> str:
    """A stage with its split and background score, for headings."""
    level = "" if source in ("none", OWN) else f", {source} background score"
    return f"{stage_title(stage).lower()} on {reported.split(stage)}{level}"


def class_key(reported: Reported, class_name: str) -> Html:
    """A class name with its colour in the pictures."""
    index = reported.class_names.index(class_name) if class_name in reported.class_names else 0
    style = f"background:{class_colour(index)}" if index else None
    return element("span", element("i", style=style, aria_hidden="true"), class_name, class_="key class")


def _legend(reported: Reported, stage: str, source: str) -> Html:
    return legend([swatch(entry.colour, entry.label) for entry in _with_scores(reported, stage, source)])


def _iou_table(reported: Reported, stage: str, source: str) -> Html:
    entries = _with_scores(reported, stage, source)
    pair = reported.baseline_and_last
    has_gain = pair is not None and all(entry in entries for entry in pair)
    rows = []
    for name in reported.class_names:
        values = {
            entry.label: reported.numbers.mean(entry, stage, f"iou:{name}", source) for entry in entries
        }
        bars = together([bar(values[entry.label], entry.colour, label=entry.label) for entry in entries])
        row: list[object] = [class_key(reported, name), element("td", bars, class_="bars")]
        if has_gain and pair is not None:
            row.append(_difference(values[pair[0].label], values[pair[1].label]))
        rows.append(row)
    head: list[object] = ["class", "IoU in per cent"]
    if has_gain and pair is not None:
        head.append(element("th", f"{pair[1].label} − {pair[0].label}", scope="col", class_="number"))
    return table(head, rows, class_="classes")


def _difference(first: float | None, last: float | None) -> Html:
    if first is None or last is None:
        return element("td", "–", class_="number")
    change = last - first
    return element("td", signed(change), class_=f"number {difference_class(change) or ''}".strip())


def _with_scores(reported: Reported, stage: str, source: str) -> list[RecipeRuns]:
    return [entry for entry in reported.entries if entry.scores(stage, source) is not None]


def diseases(reported: Reported) -> Html | None:
    """Missed and false pixels per class, of each entry's first seed."""
    if not reported.score_stages:
        return None
    stage, source = main_score(reported)
    entries = _with_scores(reported, stage, source)
    scored = {entry.label: entry.scores(stage, source) or {} for entry in entries}
    rows = []
    for name in reported.class_names[1:]:
        cells: list[object] = [class_key(reported, name)]
        for measure in ("under_activation", "over_activation"):
            values = {
                label: _percent((found.get(measure) or {}).get(name)) for label, found in scored.items()
            }
            bars = [bar(values[entry.label], entry.colour, label=entry.label) for entry in entries]
            cells.append(element("td", together(bars), class_="bars"))
        rows.append(cells)
    head = ("class", "missed: true pixels not found", "false: found pixels of something else")
    return together(
        [
            element("h3", f"What is missed and what is false: {score_name(reported, stage, source)}"),
            element(
                "p",
                "Under-activation is the share of a class's true pixels that its mask misses; "
                "over-activation is the share of its mask that lies on something else. "
                "Shorter is better in both columns. ",
                _seed_note(reported),
                class_="note",
            ),
            _legend(reported, stage, source),
            table(head, rows, class_="classes two"),
        ]
    )


def cooccurrence(reported: Reported) -> Html | None:
    """Backgrounds inside the masks of the classes that they come with."""
    if not reported.score_stages:
        return None
    stage, source = main_score(reported)
    entries = _with_scores(reported, stage, source)
    shares = {pair: _shares(entries, stage, source, pair) for pair in _pairs(entries, stage, source)}
    told = {
        pair: values
        for pair, values in shares.items()
        if any(value is not None and value >= 100 * SMALLEST_SHARE for value in values)
    }
    if not told:
        return None
    order = sorted(told, key=lambda pair: -(told[pair][0] or 0.0))
    rows = [_pair_row(reported, entries, pair, told[pair], stage, source) for pair in order]
    images = element("th", "images", scope="col", class_="number")
    head = ("background in class", "share of the class's mask, per cent", images)
    return together(
        [
            element("h3", "Backgrounds taken for objects"),
            element("p", _tell(reported, entries, told), class_="tell") if len(entries) > 1 else None,
            element(
                "p",
                "Share of the pixels found as a class that show a certain background; ",
                f"{score_name(reported, stage, source)}. {_seed_note(reported)}",
                class_="note",
            ),
            _legend(reported, stage, source),
            table(head, rows[:PAIRS_SHOWN], class_="classes"),
            _rest(head, rows[PAIRS_SHOWN:]),
        ]
    )  # fmt: skip


def _rest(head: Sequence[object], rows: Sequence[list[object]]) -> Html | None:
    return details(f"{len(rows)} more pairs", table(head, rows, class_="classes")) if rows else None


def _pairs(entries: Sequence[RecipeRuns], stage: str, source: str) -> dict[str, int]:
    """All pairs `class/context` with their number of images."""
    found: dict[str, int] = {}
    for entry in entries:
        pairs = (entry.scores(stage, source) or {}).get("cooccurrence") or {}
        found.update({pair: int(values.get("images", 0)) for pair, values in pairs.items()})
    return found


def _shares(entries: Sequence[RecipeRuns], stage: str, source: str, pair: str) -> list[float | None]:
    tables = [(entry.scores(stage, source) or {}).get("cooccurrence") or {} for entry in entries]
    return [_percent(values.get(pair, {}).get("share_of_foreground")) for values in tables]


def _pair_row(
    reported: Reported,
    entries: Sequence[RecipeRuns],
    pair: str,
    values: Sequence[float | None],
    stage: str,
    source: str,
) -> list[object]:
    class_name, _, context = pair.partition("/")
    bars = [bar(value, entry.colour, label=entry.label) for entry, value in zip(entries, values, strict=True)]
    images = _pairs(entries, stage, source)[pair]
    name = together([element("b", context), " in ", class_key(reported, class_name)])
    return [name, element("td", together(bars), class_="bars"), element("td", f"{images:,}", class_="number")]


def _tell(
    reported: Reported, entries: Sequence[RecipeRuns], told: Mapping[str, Sequence[float | None]]
) -> str:
    """The pair whose share fell most from the first to the last entry, in words."""
    weak = [entry for entry in entries if not entry.is_supervised]
    if len(weak) < 2:
        return ""
    first, last = entries.index(weak[0]), entries.index(weak[-1])
    known = {pair: v for pair, v in told.items() if v[first] is not None and v[last] is not None}
    if not known:
        return ""
    pair = max(known, key=lambda name: (known[name][first] or 0.0) - (known[name][last] or 0.0))
    before, after = known[pair][first], known[pair][last]
    class_name, _, context = pair.partition("/")
    return (
        f"{before:.0f}% of the pixels that {weak[0].label} took for {class_name} were {context}; "
        f"with {weak[-1].label} {after:.0f}%."
    )


def _seed_note(reported: Reported) -> str:
    several = any(len(entry.runs) > 1 for entry in reported.entries)
    return "Shown for the first seed of each recipe." if several else ""


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def other_scores(reported: Reported) -> Html | None:
    """MIoU of parts of the data: without single classes, on marked subsets of the images."""
    kinds = {"miou_without": "without {}", "miou_subset": "images: {}"}
    found: dict[tuple[str, str, str], None] = {}
    for _, stage, metric, source in reported.numbers.rows:
        if metric.partition(":")[0] in kinds:
            found[stage, source, metric] = None
    if not found:
        return None
    rows = []
    for stage, source, metric in found:
        kind, _, name = metric.partition(":")
        values = [reported.numbers.mean(entry, stage, metric, source) for entry in reported.entries]
        cells = [element("td", "–" if value is None else f"{value:.1f}", class_="number") for value in values]
        rows.append([kinds[kind].format(name.replace("_", " ")), score_name(reported, stage, source), *cells])
    head = ("mIoU", "of", *(entry.label for entry in reported.entries))
    return details("mIoU of parts of the data", table(head, rows, class_="fine"))
