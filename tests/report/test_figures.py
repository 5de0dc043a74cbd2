from __future__ import annotations

import itertools
import re

import pytest
from html_check import Page

from wsss.report.figures import Line, Mark, Plot, bar, colour_class, plot, signed, thinned, ticks


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 100), (12.3, 87.9), (-3, 5), (1e-6, 3e-6), (0, 12345), (0.5, 0.50001)]
)
@pytest.mark.parametrize("count", [2, 3, 6])
def test_ticks_are_few_round_and_evenly_spaced(low: float, high: float, count: int) -> None:
    inside, around = ticks(low, high, count), ticks(low, high, count, covers=True)
    assert len(inside) <= count + 1
    assert len(around) <= count + 3
    tolerance = 1e-6 * (high - low)
    assert all(low - tolerance <= tick <= high + tolerance for tick in inside)
    assert around[0] <= low + tolerance
    assert around[-1] >= high - tolerance
    steps = {round((b - a) / (high - low), 6) for a, b in itertools.pairwise(around)}
    assert len(steps) <= 1


def test_thinned_points_keep_both_ends_and_their_order() -> None:
    points = [(float(x), float(x % 7)) for x in range(1000)]
    kept = thinned(points, 50)
    assert len(kept) == 50
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert kept == sorted(set(kept))
    assert thinned(points[:50], 50) == points[:50]


def test_points_lie_where_the_axes_say() -> None:
    marks = [Mark(0.25, 50.0, "oracle", 0, "here")]
    drawn = plot(
        Plot([Line([(0.0, 0.0), (1.0, 100.0)], 0)], "x", "y", "words", marks, x_limits=(0, 1), y_from=0)
    )
    assert 'd="M0.00 100.00L100.00 0.00"' in drawn
    assert 'style="left:25.00%;top:50.00%"' in drawn
    assert not Page(drawn).problems
    assert 'aria-label="words"' in drawn


def test_a_plot_of_one_point_or_of_equal_values_is_drawn() -> None:
    for points in ([(3.0, 2.0)], [(1.0, 2.0), (2.0, 2.0)]):
        drawn = plot(Plot([Line(points, 0)], "x", "y", "words"))
        numbers = re.findall(r"(?:left|top):(-?[\d.]+)%", drawn)
        assert numbers
        assert all(-1 <= float(number) <= 101 for number in numbers)
    assert plot(Plot([Line([], 0)], "x", "y", "words")) == ""


def test_bars_stay_in_their_room() -> None:
    assert "width:50.0%" in bar(50.0, 0)
    assert "width:100.0%" in bar(250.0, 0)
    assert "width:0.0%" in bar(-4.0, 0)
    assert "–" in Page(bar(None, 0)).words


def test_signs_are_minus_signs() -> None:
    assert [signed(value) for value in (1.25, -1.25, 0.0, None)] == ["+1.2", "−1.2", "+0.0", "–"]


def test_colours_repeat_and_true_masks_have_their_own() -> None:
    assert colour_class(0) == colour_class(8) == "c0"
    assert len({colour_class(number) for number in range(-2, 8)}) == 10
