"""Pairs of nearby grid cells: their offsets, the cells between them, and both ends as views of a map.

A pair is a source cell and a destination `offset` = (dy, dx) away. Offsets point down, or right within a row,
so that every unordered pair within the radius occurs once. In training, PSA and IRN take as sources only
cells all of whose destinations lie on the grid: rows 0…h - radius, columns radius - 1…w - radius.
"""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor

from wsss.errors import ShapeError


@lru_cache(maxsize=32)
def offsets(radius: int) -> tuple[tuple[int, int], ...]:
    """All (dy, dx) of destinations nearer than `radius` cells, each unordered pair once.

    Args:
        radius: in cells, exclusive; at least 2 (PSA: 5, IRN: 10 in training and 5 in the walk).

    Returns:
        P offsets: (0, 1…radius - 1), then those of the rows below; 34 for radius 5, 152 for radius 10.

    Raises:
        ShapeError: the radius is less than 2, so that there is no pair.

    Source:
        Ahn and Kwak, CVPR 2018, equation 4, https://arxiv.org/abs/1803.10464; the order is that of the code.
        Differs: none.

    Example:
        >>> offsets(2)
        ((0, 1), (1, -1), (1, 0), (1, 1))
    """
    if radius < 2:
        raise ShapeError(f"`radius` must be at least 2 cells; got {radius}. PSA and IRN walk with 5.")
    right = [(0, dx) for dx in range(1, radius)]
    below = [
        (dy, dx)
        for dy in range(1, radius)
        for dx in range(1 - radius, radius)
        if dy * dy + dx * dx < radius * radius
    ]
    return (*right, *below)


@lru_cache(maxsize=1024)
def path(dy: int, dx: int) -> tuple[tuple[int, int], ...]:
    """Cells on the way from (0, 0) to (`dy`, `dx`), both ends included.

    They lie within the bounding box of the two ends, less than one cell from the straight line between them.

    Args:
        dy: rows to the destination.
        dx: columns to the destination.

    Returns:
        (y, x) of the cells, row by row; 242 in all for the offsets of radius 5, 2134 for radius 10.

    Source:
        Ahn et al., CVPR 2019, section 4.2.1, https://arxiv.org/abs/1904.05044 (misc/indexing.py at a2ece00).
        Differs: none.

    Example:
        >>> path(0, 2)
        ((0, 0), (0, 1), (0, 2))
    """
    squared = dy * dy + dx * dx
    return tuple(
        (y, x)
        for y in range(min(0, dy), max(0, dy) + 1)
        for x in range(min(0, dx), max(0, dx) + 1)
        # |cross product| / length is the distance from the line; integers make the comparison exact
        if (y * dx - x * dy) ** 2 < squared or squared == 0
    )


def sources(values: Tensor, radius: int) -> Tensor:
    """The cells all of whose destinations lie on the grid, as a view.

    Args:
        values: one value or vector per cell; (…, h, w).
        radius: in cells.

    Returns:
        (…, h', w') with h' = h - (radius - 1) and w' = w - 2 (radius - 1).

    Raises:
        ShapeError: the grid is too small to hold one such cell.
    """
    return destinations(values, (0, 0), radius)


def destinations(values: Tensor, offset: tuple[int, int], radius: int) -> Tensor:
    """What lies `offset` away from each of the `sources`, as a view.

    Args:
        values: one value or vector per cell; (…, h, w).
        offset: one of `offsets(radius)`, or a cell on the `path` to one.
        radius: in cells.

    Returns:
        (…, h', w'), as large as `sources(values, radius)`.

    Raises:
        ShapeError: the grid is too small, or the offset reaches beyond the radius.
    """
    reach = radius - 1
    (height, width), (dy, dx) = values.shape[-2:], offset
    rows, columns = height - reach, width - 2 * reach
    if rows < 1 or columns < 1:
        raise ShapeError(
            f"A grid for pairs of radius {radius} must have at least {reach + 1} x {2 * reach + 1} cells; "
            f"got {height} x {width}. Choose a larger crop or a smaller radius."
        )
    if not (0 <= dy <= reach and -reach <= dx <= reach):
        raise ShapeError(
            f"`offset` must lie within 0…{reach} rows and ±{reach} columns; got {offset}. "
            f"Take it from `offsets({radius})`."
        )
    return values[..., dy : dy + rows, reach + dx : reach + dx + columns]


def overlap(values: Tensor, offset: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """All cells whose destination lies on the grid, and those destinations, as views.

    Args:
        values: one value or vector per cell; (…, h, w).
        offset: (dy, dx) with dy >= 0.

    Returns:
        Two views (…, h - dy, w - |dx|); empty where the grid is smaller than the offset.
    """
    (height, width), (dy, dx) = values.shape[-2:], offset
    rows, columns, left = max(0, height - dy), max(0, width - abs(dx)), max(0, -dx)
    here = values[..., :rows, left : left + columns]
    there = values[..., dy : dy + rows, left + dx : left + dx + columns]
    return here, there
