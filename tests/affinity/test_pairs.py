import math

import pytest
import torch

from wsss.affinity.pairs import destinations, offsets, overlap, path, sources
from wsss.errors import ShapeError


@pytest.mark.parametrize(("radius", "pairs", "cells"), [(5, 34, 242), (10, 152, 2134)])
def test_numbers_of_pairs_and_path_cells_are_those_of_the_reference_code(radius, pairs, cells):
    assert len(offsets(radius)) == pairs
    assert sum(len(path(*offset)) for offset in offsets(radius)) == cells


@pytest.mark.parametrize("radius", [2, 3, 5, 7])
def test_offsets_hold_every_unordered_pair_within_the_radius_once(radius):
    both = {(dy, dx) for dy, dx in offsets(radius)} | {(-dy, -dx) for dy, dx in offsets(radius)}
    reach = range(-radius, radius + 1)
    disc = {(dy, dx) for dy in reach for dx in reach if 0 < math.hypot(dy, dx) < radius}
    assert both == disc
    assert len(offsets(radius)) * 2 == len(disc)


def test_offsets_start_within_the_row_and_then_go_down_row_by_row():
    rows = ((0, (1, 2)), (1, (-2, -1, 0, 1, 2)), (2, (-2, -1, 0, 1, 2)))
    assert offsets(3) == tuple((dy, dx) for dy, columns in rows for dx in columns)


def test_a_radius_without_any_pair_is_an_error():
    with pytest.raises(ShapeError, match="at least 2 cells; got 1"):
        offsets(1)


@pytest.mark.parametrize("offset", offsets(6))
def test_paths_hold_all_cells_of_the_box_nearer_than_one_to_the_line(offset):
    dy, dx = offset
    expected = set()
    for y in range(min(0, dy), max(0, dy) + 1):
        for x in range(min(0, dx), max(0, dx) + 1):
            distance = abs(y * dx - x * dy) / math.sqrt(dy * dy + dx * dx)
            if distance < 1 - 1e-9:
                expected.add((y, x))
    assert set(path(dy, dx)) == expected
    assert len(path(dy, dx)) == len(expected)
    assert {(0, 0), (dy, dx)} <= expected


@pytest.mark.parametrize("offset", offsets(5))
def test_paths_of_mirrored_offsets_are_mirrored(offset):
    dy, dx = offset
    assert {(y, -x) for y, x in path(dy, dx)} == set(path(dy, -dx))
    assert {(x, y) for y, x in path(dy, dx)} == set(path(dx, dy))


def test_sources_and_destinations_are_the_cells_that_the_offset_says():
    grid = torch.arange(9 * 13).view(1, 9, 13)
    here = sources(grid, 5)
    assert here.shape == (1, 5, 5)
    for dy, dx in offsets(5):
        there = destinations(grid, (dy, dx), 5)
        for y in range(5):
            for x in range(5):
                assert here[0, y, x] == grid[0, y, 4 + x]
                assert there[0, y, x] == grid[0, y + dy, 4 + x + dx]
    assert here.data_ptr() == grid[..., 4:].data_ptr()


def test_a_grid_of_56_cells_has_as_many_sources_as_in_the_papers():
    assert sources(torch.zeros(56, 56), 5).shape == (52, 48)
    assert sources(torch.zeros(128, 128), 10).shape == (119, 110)


def test_grids_smaller_than_the_radius_and_foreign_offsets_are_errors():
    assert sources(torch.zeros(5, 9), 5).shape == (1, 1)
    for size in ((4, 9), (5, 8), (1, 1)):
        with pytest.raises(ShapeError, match=r"at least 5 x 9 cells; got \d x \d\. Choose"):
            sources(torch.zeros(size), 5)
    for offset in ((5, 0), (-1, 0), (0, 5), (0, -5)):
        with pytest.raises(ShapeError, match="`offset` must lie within"):
            destinations(torch.zeros(9, 13), offset, 5)


@pytest.mark.parametrize("size", [(6, 7), (3, 2), (1, 1), (1, 9)])
def test_overlap_holds_every_pair_on_the_grid_once(size):
    grid = torch.arange(size[0] * size[1]).view(size)
    for dy, dx in offsets(5):
        here, there = overlap(grid, (dy, dx))
        found = list(zip(here.flatten().tolist(), there.flatten().tolist(), strict=True))
        expected = [
            (int(grid[y, x]), int(grid[y + dy, x + dx]))
            for y in range(size[0])
            for x in range(size[1])
            if y + dy < size[0] and 0 <= x + dx < size[1]
        ]
        assert found == expected
