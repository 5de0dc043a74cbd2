"""Colours of classes: all differ, and the first hundred differ to the eye."""

from __future__ import annotations

import numpy as np
import pytest

from wsss.report.class_colours import FIRST, class_colour, oklab


def test_every_class_has_a_colour_of_its_own() -> None:
    colours = [class_colour(class_id) for class_id in range(1, 301)]
    assert colours[: len(FIRST)] == list(FIRST)
    assert len(set(colours)) == 300
    assert all(len(colour) == 7 and int(colour[1:], 16) >= 0 for colour in colours)
    assert class_colour(371) == FIRST[0]  # they come again


@pytest.mark.parametrize(("number", "least"), [(21, 0.068), (80, 0.05)])
def test_colours_can_be_told_apart(number: int, least: float) -> None:
    places = oklab([class_colour(class_id) for class_id in range(1, number + 1)])
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    assert distances[~np.eye(number, dtype=bool)].min() > least


def test_oklab_is_that_of_its_source() -> None:
    found = oklab(["#ffffff", "#000000", "#ff0000", "#0000ff"])
    expected = [[1, 0, 0], [0, 0, 0], [0.627955, 0.224863, 0.125846], [0.452014, -0.032457, -0.311528]]
    np.testing.assert_allclose(found, expected, atol=2e-4)
