"""Maps over one setting: what recipes reach that differ in nothing but one number of their method."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from wsss.report.curves import SOURCE_WORDS
from wsss.report.figures import Line, Mark, Plot, colour_class, legend, mark_key, plot
from wsss.report.markup import Html, element, together
from wsss.report.runs import RecipeRuns, Reported

STAGE: Final = "maps"
NOT_BEHIND_MAPS: Final = ("name", "about", "refine", "segmentation")  # sections that change no map
FEWEST_VALUES: Final = 3
OFF: Final = "off"
COLOURS: Final = {"fixed": 2, "automatic": 1, "oracle": 0}
LABEL_ROOM: Final = 0.05  # of the axis; labels nearer than this would run into each other

Value: TypeAlias = float | None
"""A setting's value; None: null, which switches most settings off."""


@dataclass(frozen=True)
class Series:
    """Recipes that differ in one setting of their method.

    Args:
        setting: its name, with dots in sections such as `vqa.beams`.
        entries: the recipes by value, null first, then ascending.
    """

    setting: str
    entries: Mapping[Value, RecipeRuns]

    @property
    def numbers(self) -> list[float]:
        """The values that are no null, ascending."""
        return [value for value in self.entries if value is not None]

    @property
    def places(self) -> dict[Value, float]:
        """Where each value stands on the axis: null apart from the numbers, to their left."""
        low, high = min(self.numbers), max(self.numbers)
        return {value: low - (high - low) / 4 if value is None else value for value in self.entries}


def setting_curve(reported: Reported) -> Html | None:
    """MIoU of maps over the one setting in which recipes differ; nothing with fewer than three values."""
    series = find_series(reported)
    if series is None:
        return None
    sources = _sources(reported)
    told: list[str] = []
    lines: list[Line] = []
    marks: list[Mark] = []
    for source in reversed(sources):  # the automatic score, which counts, is not hidden by its near bound
        lines += _lines(reported, series, source)
        own = list(_marks(reported, series, source))
        marks += own
        told += [mark.note for mark in own]
    places = list(series.places.values())
    edge = 0.05 * (places[-1] - places[0])
    description = f"mIoU of maps over {series.setting}. {'; '.join(told)}."
    drawn = plot(
        Plot(
            lines,
            series.setting,
            "mIoU, per cent",
            description,
            marks,
            x_limits=(places[0] - edge, places[-1] + edge),
            x_ticks=_tick_words(series),
        )
    )
    keys = [
        element("span", mark_key(source, SOURCE_WORDS[source]), class_=colour_class(COLOURS[source]))
        for source in sources
    ]
    caption = element("figcaption", f"Maps over {series.setting}, on {reported.split(STAGE)}")
    figure = element("figure", caption, legend(keys), drawn, class_="wide setting")
    return together([element("p", _note(reported, series), class_="note"), figure])


def find_series(reported: Reported) -> Series | None:
    """The most recipes whose maps are scored and that differ in one number, or null, of their method.

    All else that maps depend on is the same. Of recipes with equal values, the first is taken.
    """
    found: dict[tuple[str, str], dict[Value, RecipeRuns]] = {}
    for entry in reported.weak:
        if not any(reported.numbers.row(entry, STAGE, "miou", source) for source in _sources(reported)):
            continue
        recipe = dict(entry.first.record["recipe"])
        method = dict(_flat(recipe.pop("method") or {}))
        rest = {key: value for key, value in recipe.items() if key not in NOT_BEHIND_MAPS}
        for setting, value in method.items():
            if not _is_value(value):
                continue
            others = {key: other for key, other in method.items() if key != setting}
            same = json.dumps([others, rest], sort_keys=True)
            found.setdefault((setting, same), {}).setdefault(value, entry)
    (setting, _), entries = max(found.items(), key=lambda item: len(item[1]), default=(("", ""), {}))
    if len(entries) < FEWEST_VALUES:
        return None
    ordered = sorted(entries, key=lambda value: -math.inf if value is None else value)
    return Series(setting, {value: entries[value] for value in ordered})


def _sources(reported: Reported) -> tuple[str, ...]:
    if STAGE not in reported.score_stages:
        return ()
    return tuple(source for source in SOURCE_WORDS if source in reported.sources(STAGE))


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Settings of sections within sections, under names with dots."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _is_value(value: Any) -> bool:
    """Whether it has a place on the axis; true and false have none."""
    if isinstance(value, bool):
        return False
    return value is None or (isinstance(value, (int, float)) and math.isfinite(value))


def _lines(reported: Reported, series: Series, source: str) -> Iterator[Line]:
    """The means, null not joined to them, and a bar of one standard deviation to each side."""
    places, points = series.places, []
    cap = 0.008 * (max(places.values()) - min(places.values()))
    for value, entry in series.entries.items():
        row = reported.numbers.row(entry, STAGE, "miou", source)
        if row is None:
            continue
        x, y, spread = places[value], float(row["mean"]), row["standard_deviation"]
        if value is not None:
            points.append((x, y))
        if spread:
            low, high = y - spread, y + spread
            upright = [(x - cap, low), (x + cap, low), (x, low), (x, high), (x - cap, high), (x + cap, high)]
            yield Line(upright, COLOURS[source], is_faint=True)
    yield Line(points, COLOURS[source])


def _marks(reported: Reported, series: Series, source: str) -> Iterator[Mark]:
    for value, entry in series.entries.items():
        row = reported.numbers.row(entry, STAGE, "miou", source)
        if row is None:
            continue
        spread = row["standard_deviation"]
        number = f"{row['mean']:.1f}" + ("" if spread is None else f" ± {spread:.1f}")
        note = f"{source}, {series.setting} {_word(value)} ({entry.label}): {number}"
        yield Mark(series.places[value], float(row["mean"]), source, COLOURS[source], note)


def _word(value: Value) -> str:
    return OFF if value is None else f"{value:g}"


def _tick_words(series: Series) -> dict[float, str]:
    """The values below the axis, without those that would run into the one before."""
    places = series.places
    room = LABEL_ROOM * (max(places.values()) - min(places.values()))
    shown: dict[float, str] = {}
    for value, place in places.items():
        if not shown or place - max(shown) >= room:
            shown[place] = _word(value)
    return shown


def _note(reported: Reported, series: Series) -> str:
    labels = [entry.label for entry in series.entries.values()]
    parts = [f"What makes the maps of {_listed(labels)} is the same but for {series.setting}."]
    if None in series.entries:
        parts.append(f"“{OFF}” stands for null.")
    rows = [
        reported.numbers.row(entry, STAGE, "miou", source)
        for entry in series.entries.values()
        for source in _sources(reported)
    ]
    if any(row and row["standard_deviation"] is not None for row in rows):
        parts.append("Points are means over seeds, bars reach one standard deviation to each side.")
    return " ".join(parts)


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
