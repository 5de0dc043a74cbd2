"""Curves as inline SVG, bars as styled HTML: small, crisp at any size, coloured by the page's theme.

Only lines are SVG, stretched to the room there is; all text and all marks are HTML placed in percent of the
plot, so that letters keep their size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from wsss.report.markup import Html, element, text, together

MARKS: Final = {
    "fixed": "M-4-4H4V4H-4Z",
    "automatic": "M0-5.6L5.6 0L0 5.6L-5.6 0Z",
    "oracle": "M0-5A5 5 0 1 1 0 5A5 5 0 1 1 0-5Z",
}
"""Shapes that stand for who chose a background score."""

FULL: Final = -1
"""Colour number of networks trained on true masks."""

INK: Final = -2
"""Colour number of the text colour."""

MAX_POINTS: Final = 240  # more points than pixels would only make the page larger


@dataclass(frozen=True)
class Line:
    """One line of a plot.

    Args:
        points: (x, y), ascending in x.
        colour: number of the entry's colour, `FULL` or `INK`.
        is_faint: drawn thin, as one of several of its kind.
    """

    points: Sequence[tuple[float, float]]
    colour: int
    is_faint: bool = False


@dataclass(frozen=True)
class Mark:
    """One marked point.

    Args:
        shape: a key of `MARKS`.
        note: what the point is, shown when the pointer rests on it.
    """

    x: float
    y: float
    shape: str
    colour: int
    note: str


@dataclass(frozen=True)
class Plot:
    """Lines over two axes.

    Args:
        lines: drawn in order.
        x_label: name and unit of the horizontal axis.
        y_label: name and unit of the vertical axis.
        description: the whole plot in words, for those who don't see it.
        marks: drawn over the lines.
        x_limits: ends of the horizontal axis; none: those of the points.
        x_ticks: places on the horizontal axis and what is written there; none: round numbers.
        y_from: lower end of the vertical axis; none: that of the points.
        y_to: upper end of the vertical axis; none: that of the points.
        is_small: one of several side by side.
    """

    lines: Sequence[Line]
    x_label: str
    y_label: str
    description: str
    marks: Sequence[Mark] = field(default=())
    x_limits: tuple[float, float] | None = None
    x_ticks: Mapping[float, str] | None = None
    y_from: float | None = None
    y_to: float | None = None
    is_small: bool = False


def colour_class(colour: int) -> str:
    """The style class of an entry's colour; there are eight, then they repeat."""
    return {FULL: "full", INK: "ink"}.get(colour) or f"c{colour % 8}"


def plot(content: Plot) -> Html:
    """Draw a plot; nothing where no line has a point."""
    points = [point for line in content.lines for point in line.points]
    if not points:
        return Html("")
    low_x, high_x = content.x_limits or _span([x for x, _ in points])
    x_ticks = content.x_ticks or _numbered(ticks(low_x, high_x, 4 if content.is_small else 6))
    values = [y for _, y in points] + [mark.y for mark in content.marks]
    ends = [end for end in (content.y_from, content.y_to) if end is not None]
    low, high = _span([*values, *ends])
    y_ticks = ticks(low, high, 3 if content.is_small else 5, covers=True)
    low_y, high_y = min(y_ticks[0], low), max(y_ticks[-1], high)

    def place(x: float, y: float) -> tuple[float, float]:
        return 100 * (x - low_x) / (high_x - low_x), 100 * (high_y - y) / (high_y - low_y)

    lines = [
        _polyline([place(x, y) for x, y in thinned(line.points)], line)
        for line in content.lines
        if line.points
    ]
    grid = [_path(f"M0 {place(low_x, tick)[1]:.2f}H100", "grid") for tick in y_ticks]
    drawing = element(
        "svg",
        *grid,
        *lines,
        viewBox="0 0 100 100",
        preserveAspectRatio="none",
        aria_hidden="true",
        focusable="false",
    )
    labels = [
        _tick("ytick", f"top:{place(low_x, tick)[1]:.2f}%", words)
        for tick, words in _numbered(y_ticks).items()
    ]
    labels += [_tick("xtick", f"left:{place(tick, low_y)[0]:.2f}%", words) for tick, words in x_ticks.items()]
    marks = [_mark(mark, *place(mark.x, mark.y)) for mark in content.marks]
    return element(
        "div",
        element("div", content.y_label, class_="yname", aria_hidden="true"),
        element("div", drawing, *labels, *marks, class_="area"),
        element("div", content.x_label, class_="xname", aria_hidden="true"),
        class_="plot small" if content.is_small else "plot",
        role="img",
        aria_label=content.description,
    )


def ticks(low: float, high: float, count: int, *, covers: bool = False) -> list[float]:
    """About `count` round numbers from `low` to `high`.

    Args:
        low: lower end.
        high: upper end, above `low`.
        count: how many are wanted, at least 2.
        covers: whether the first and last may lie outside, so that they enclose the range.

    Example:
        >>> ticks(0, 100, 6)
        [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    rough = (high - low) / max(1, count - 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(s * magnitude for s in (1, 2, 2.5, 5, 10) if s * magnitude >= rough * 0.999)
    outward = 1e-9 if covers else -1e-9
    first = math.floor(low / step + outward) if covers else math.ceil(low / step + outward)
    last = math.ceil(high / step - outward) if covers else math.floor(high / step - outward)
    return [round(number * step, 10) for number in range(first, last + 1)]


def thinned(points: Sequence[tuple[float, float]], limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most `limit` of the points, evenly spaced, the first and the last among them."""
    if len(points) <= limit:
        return list(points)
    step = (len(points) - 1) / (limit - 1)
    return [points[round(number * step)] for number in range(limit)]


def bar(value: float | None, colour: int, *, label: str = "", whole: float = 100.0) -> Html:
    """A horizontal bar with its number.

    Args:
        value: length; None shows that there is none.
        colour: number of the entry's colour.
        label: whose bar it is, for those who don't see colours.
        whole: value of a bar that fills its room.
    """
    number = "–" if value is None else f"{value:.1f}"
    width = 0.0 if value is None else max(0.0, min(100.0, 100 * value / whole))
    return element(
        "span",
        element("span", f"{label} ", class_="unseen") if label else None,
        element("span", element("i", style=f"width:{width:.1f}%"), class_="track", aria_hidden="true"),
        element("b", number),
        class_=f"bar {colour_class(colour)}",
        title=f"{label}: {number}" if label else None,
    )


def swatch(colour: int, label: object) -> Html:
    """One entry of a legend."""
    return element("span", element("i", aria_hidden="true"), label, class_=f"key {colour_class(colour)}")


def mark_key(shape: str, label: object) -> Html:
    """One entry of the legend of marks."""
    return element("span", _shape(shape), label, class_="key shape")


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _polyline(points: Sequence[tuple[float, float]], line: Line) -> Html:
    moves = "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points)
    return _path(moves, f"line {colour_class(line.colour)}{' faint' if line.is_faint else ''}")


def _path(moves: str, class_: str) -> Html:
    return element("path", d=moves, class_=class_, vector_effect="non-scaling-stroke")


def _numbered(values: Sequence[float]) -> dict[float, str]:
    return {value: f"{value:g}" for value in values}


def _tick(class_: str, style: str, words: str) -> Html:
    return element("span", words, class_=class_, style=style, aria_hidden="true")


def _mark(mark: Mark, left: float, top: float) -> Html:
    return element(
        "span",
        _shape(mark.shape),
        class_=f"mark {colour_class(mark.colour)}",
        style=f"left:{left:.2f}%;top:{top:.2f}%",
        title=mark.note,
    )


def _shape(shape: str) -> Html:
    return element(
        "svg",
        element("path", d=MARKS[shape]),
        viewBox="-7 -7 14 14",
        width="14",
        height="14",
        aria_hidden="true",
    )


def legend(items: Sequence[Html]) -> Html:
    """Keys in a row."""
    return element("div", together(items, " "), class_="legend")


def difference_class(value: float | None) -> str | None:
    """The style class of a difference, by its sign as it is shown."""
    if value is None or round(value, 1) == 0:
        return None
    return "gained" if value > 0 else "lost"


def signed(value: float | None, digits: int = 1) -> Html:
    """A difference in points with its sign; a dash where there is none.

    Example:
        >>> signed(-2.0)
        '−2.0'
    """
    return text("–" if value is None else f"{value:+.{digits}f}".replace("-", "−"))
