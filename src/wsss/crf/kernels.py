"""The dense CRF on a CPU: loops over pixels and lattice points, compiled by numba when first used.

The kernels release Python's lock and work on ranges, so that threads share them; nothing is compiled at
installation, and what was compiled is kept in numba's cache on the disk. They compute in float32 and in the
order of the reference (the lattice is in `lattice`, the mean field in `mean_field`, both also for
accelerators).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

_EMPTY = np.int32(-1)
_BLOCK = 64  # pixels whose exponentials are taken together, in the fastest cache


@njit(nogil=True, cache=True)
def embed(
    axes: Any,
    features: Any,
    scales: Any,
    lowest: Any,
    strides: Any,
    keys: Any,
    weights: Any,
    start: int,
    stop: int,
) -> None:
    """Packed keys and barycentric weights of the lattice points around pixels `start`…`stop`.

    Args:
        axes: a tuple of length d, which tells the compiler how often its loops run.
        features: (P, d), float32.
        scales: factor of each feature; (d,), float32.
        lowest: smallest value of each key's coordinate; (d,), int64.
        strides: place value of each coordinate in a packed key; (d,), int64.
        keys: gets packed keys; (P, d + 1), int64.
        weights: gets barycentric weights; (P, d + 1), float32.
        start: first pixel.
        stop: behind the last pixel.
    """
    d = len(axes)
    y = np.empty(d + 1, np.float32)
    r = np.empty(d + 1, np.int32)
    rank = np.empty(d + 1, np.int32)
    b = np.empty(d + 2, np.float32)
    for p in range(start, stop):
        total = np.float32(0)
        for i in range(d, 0, -1):
            c = features[p, i - 1] * scales[i - 1]
            y[i] = total - np.float32(i) * c
            total += c
        y[0] = total
        _find_simplex(axes, y, r, rank)
        _barycentric(axes, y, r, rank, b)
        base = np.int64(0)
        for i in range(d):
            base += (np.int64(r[i]) - lowest[i]) * strides[i]
        for k in range(d + 1):
            key = base
            for i in range(d):
                key += (k if rank[i] <= d - k else k - (d + 1)) * strides[i]
            keys[p, k] = key
            weights[p, k] = b[k]


@njit(nogil=True, cache=True)
def _find_simplex(axes: Any, y: Any, r: Any, rank: Any) -> None:
    """Nearest point `r` of remainder 0, and the order of the differences to it, which names y's simplex."""
    d = len(axes)
    reciprocal = np.float32(1) / np.float32(d + 1)
    shift = 0
    for i in range(d + 1):
        v = np.int32(np.rint(y[i] * reciprocal))  # halves to even, as the reference's SSE build
        r[i] = v * (d + 1)
        shift += v
    rank[:] = shift
    for i in range(d):
        for j in range(i + 1, d + 1):
            if y[i] - np.float32(r[i]) < y[j] - np.float32(r[j]):
                rank[i] += 1
            else:
                rank[j] += 1
    for i in range(d + 1):
        turn = np.int32(rank[i] < 0) - np.int32(rank[i] > d)
        rank[i] += turn * (d + 1)
        r[i] += turn * (d + 1)


@njit(nogil=True, cache=True)
def _barycentric(axes: Any, y: Any, r: Any, rank: Any, b: Any) -> None:
    """Weights b[0]…b[d] of the simplex's corners."""
    d = len(axes)
    b[:] = 0
    for i in range(d + 1):
        t = (y[i] - np.float32(r[i])) / np.float32(d + 1)
        b[d - rank[i]] += t
        b[d + 1 - rank[i]] -= t
    b[0] += np.float32(1) + b[d + 1]


@njit(nogil=True, cache=True, inline="always")
def _slot(key: Any, mask: Any) -> Any:
    """First place of a key in a table of mask + 1 places (Fibonacci hashing)."""
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64(mixed >> np.uint64(29)) & mask


@njit(nogil=True, cache=True)
def number_points(keys: Any, vertices: Any, points: Any) -> tuple[Any, Any, int]:
    """Number the different keys in order of appearance.

    Args:
        keys: (P, d + 1), int64.
        vertices: gets the number of each key; (P, d + 1), int32.
        points: gets the keys of the points; as long as there are keys, int64.

    Returns:
        A hash table of the keys (keys and numbers), and the number of points M.
    """
    size = np.int64(1) << 16
    table, numbers = np.empty(size, np.int64), np.full(size, _EMPTY)
    count = 0
    corners = keys.shape[1]
    for p in range(keys.shape[0]):
        for k in range(corners):
            key = keys[p, k]
            place = _slot(key, size - 1)
            while numbers[place] != _EMPTY and table[place] != key:
                place = (place + 1) & (size - 1)
            if numbers[place] == _EMPTY:
                table[place] = key
                numbers[place] = count
                points[count] = key
                vertices[p, k] = count
                count += 1
                if 3 * count > size:  # keep it sparse: look-ups stay short
                    size *= 4
                    table, numbers = np.empty(size, np.int64), np.full(size, _EMPTY)
                    for number in range(count):
                        place = _slot(points[number], size - 1)
                        while numbers[place] != _EMPTY:
                            place = (place + 1) & (size - 1)
                        table[place] = points[number]
                        numbers[place] = number
            else:
                vertices[p, k] = numbers[place]
    return table, numbers, count


@njit(nogil=True, cache=True)
def find_neighbours(points: Any, table: Any, numbers: Any, moves: Any, neighbours: Any) -> None:
    """Number of the point one step before and after each point along each axis.

    Args:
        points: packed keys; (M,), int64.
        table: hash table's keys.
        numbers: hash table's numbers.
        moves: what a step forward along each axis adds to a packed key; (d + 1,), int64.
        neighbours: filled with M, which stands for none; gets the numbers; (d + 1, M, 2), int32.
    """
    mask = np.int64(len(table) - 1)
    for axis in range(len(moves)):
        for point in range(len(points)):
            key = points[point] + moves[axis]
            place = _slot(key, mask)
            while numbers[place] != _EMPTY and table[place] != key:
                place = (place + 1) & mask
            if numbers[place] != _EMPTY:  # the two are each other's neighbours
                neighbours[axis, point, 1] = numbers[place]
                neighbours[axis, numbers[place], 0] = point


# `unrolled` is a tuple as long as the values have columns, where these are few: its length is known to the
# compiler, which makes the innermost loops about twice as fast. It is empty for many columns.


@njit(nogil=True, cache=True, fastmath=True)
def splat(
    vertices: Any, weights: Any, values: Any, lattice: Any, unrolled: Any, start: int, stop: int
) -> None:
    """Add the values (P, C) of pixels `start`…`stop` to the lattice (M + 1, C)."""
    columns = len(unrolled) if len(unrolled) > 0 else values.shape[1]
    for p in range(start, stop):
        for k in range(vertices.shape[1]):
            v, w = vertices[p, k], weights[p, k]
            for c in range(columns):
                lattice[v, c] += w * values[p, c]


@njit(nogil=True, cache=True, fastmath=True)
def blur(neighbours: Any, old: Any, new: Any, unrolled: Any, start: int, stop: int) -> None:
    """One axis of the blur of points `start`…`stop`: old + (before + after) / 2; row M of `old` is zero."""
    columns = len(unrolled) if len(unrolled) > 0 else old.shape[1]
    for m in range(start, stop):
        before, after = neighbours[m, 0], neighbours[m, 1]
        for c in range(columns):
            new[m, c] = old[m, c] + np.float32(0.5) * (old[before, c] + old[after, c])


@njit(nogil=True, cache=True, fastmath=True)
def add_slice(
    vertices: Any, weights: Any, lattice: Any, values: Any, unrolled: Any, start: int, stop: int
) -> None:
    """Add the lattice's values (M + 1, C) to those (P, C) of pixels `start`…`stop`."""
    columns = len(unrolled) if len(unrolled) > 0 else values.shape[1]
    for p in range(start, stop):
        for k in range(vertices.shape[1]):
            v, w = vertices[p, k], weights[p, k]
            for c in range(columns):
                values[p, c] += w * lattice[v, c]


@njit(nogil=True, cache=True, fastmath=True, inline="always")
def _exp(x: Any) -> Any:
    """e^x for x <= 0 to a relative 2e-7: whole powers of two, and a polynomial for the rest.

    Unlike a call of the C library, it is done for several numbers at once; the coefficients are those of
    Cephes' expf.
    """
    x = max(x, np.float32(-87))
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1)
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


# Slices, not offsets, in the loops below: indices that count from 0 need no check for negative ones, without
# which several columns are done at once.


@njit(nogil=True, cache=True, fastmath=True)
def softmax(values: Any, labels: int, groups: int, start: int, stop: int) -> None:
    """Softmax over each of `groups` groups of `labels` columns of pixels `start`…`stop`, in place.

    Columns behind the last group become 0.
    """
    width, flat = values.shape[1], values.reshape(-1)
    for begin in range(start, stop, _BLOCK):
        end = min(begin + _BLOCK, stop)
        for p in range(begin, end):
            for group in range(groups):
                _subtract_largest(values[p, group * labels : (group + 1) * labels])
            values[p, groups * labels :] = 0
        block = flat[begin * width : end * width]
        for i in range(len(block)):
            block[i] = _exp(block[i])
        for p in range(begin, end):
            for group in range(groups):
                _divide_by_sum(values[p, group * labels : (group + 1) * labels])
            values[p, groups * labels :] = 0


@njit(nogil=True, cache=True, fastmath=True)
def _subtract_largest(row: Any) -> None:
    top = row[0]
    for c in range(len(row)):
        top = max(top, row[c])
    for c in range(len(row)):
        row[c] -= top


@njit(nogil=True, cache=True, fastmath=True)
def _divide_by_sum(row: Any) -> None:
    total = np.float32(0)
    for c in range(len(row)):
        total += row[c]
    share = np.float32(1) / total
    for c in range(len(row)):
        row[c] *= share
