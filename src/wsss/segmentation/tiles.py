"""Images too large for one pass of a network: overlapping tiles whose probabilities are blended.

Tiles start at multiples of `ALIGNMENT` pixels, so that they share the grid of the network's features. In the
overlap of two tiles the outer quarter of each counts nothing, since a network sees the border of its input
there and not the neighbouring pixels; over the middle half one tile fades into the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor

from wsss.errors import ShapeError

ALIGNMENT: Final = 32  # pixels; a multiple of every output stride here
LEAST_TILE: Final = 128  # pixels; below, there would be more overlap than tile

Span = tuple[int, int]
"""First pixel of a tile along one side, and the pixel behind its last."""


def tile_spans(length: int, tile: int, overlap: int) -> list[Span]:
    """Where tiles lie along one side of an image: evenly spread, covering all of it.

    Args:
        length: of the side, in pixels.
        tile: most pixels of a tile, at least `LEAST_TILE`.
        overlap: least pixels that neighbours share, at most a quarter of `tile`.

    Raises:
        ShapeError: tiles are too small to overlap.

    Example:
        >>> tile_spans(100, 128, 32), tile_spans(300, 128, 32)
        ([(0, 100)], [(0, 128), (64, 192), (128, 256), (192, 300)])
    """
    if tile < LEAST_TILE:
        raise ShapeError(
            f"`tile` must be at least {LEAST_TILE} pixels; got {tile}. Larger tiles see more of each thing; "
            "512 to 2048 are usual."
        )
    if length <= tile:
        return [(0, length)]
    steps = -(-(length - tile) // (tile - overlap - ALIGNMENT))  # rounding up a start takes from the overlap
    starts = [-(-(length - tile) * step // (steps * ALIGNMENT)) * ALIGNMENT for step in range(steps + 1)]
    return [(start, min(start + tile, length)) for start in starts]


def blend_weights(span: Span, length: int, overlap: int) -> Tensor:
    """How much each pixel of a tile counts along one side; (span,), in [0, 1].

    One inside and at the image's own borders; towards other tiles it falls over half the overlap to zero, and
    is zero over the last quarter. Where two tiles share just `overlap` pixels, their weights sum to one.
    """
    start, stop = span
    places = torch.arange(start, stop, dtype=torch.float64)
    weights = torch.ones_like(places)
    for is_inner, distance in ((start > 0, places - start), (stop < length, stop - 1 - places)):
        if is_inner:
            weights = weights.minimum((distance + 0.5 - overlap / 4) / (overlap / 2))
    return weights.clamp(0, 1).float()


def tiled_rows(
    predict: Callable[[slice, slice], Tensor], size: tuple[int, int], tile: int, overlap: int
) -> Iterator[Tensor]:
    """Blend the probabilities of tiles, and give the image's rows from top to bottom as they are finished.

    Only the rows of one band of tiles are held at a time, however tall the image.

    Args:
        predict: gives the probabilities of the part of the image in these rows and columns, (C, h, w).
        size: (H, W) of the image.
        tile: most pixels of a tile's side.
        overlap: least pixels that neighbours share.

    Yields:
        (C, rows, W), in [0, 1]; one after the other they make (C, H, W).
    """
    rows, columns = (tile_spans(length, tile, overlap) for length in size)
    down, across = (
        [blend_weights(span, length, overlap) for span in spans]
        for spans, length in zip((rows, columns), size, strict=True)
    )
    totals = _sums(rows, down, size[0])[:, None], _sums(columns, across, size[1])  # (H, 1), (W,)
    carried: Tensor | None = None
    for row, ((top, bottom), (following, _)) in enumerate(pairwise([*rows, (size[0], size[0])])):
        band: Tensor | None = None  # (C, bottom - top, W)
        for column, (left, right) in enumerate(columns):
            part = predict(slice(top, bottom), slice(left, right))  # (C, h, w)
            if band is None:
                band = part.new_zeros((len(part), bottom - top, size[1]))
                if carried is not None:
                    band[:, : carried.shape[1]] = carried
            weights = down[row][:, None] * across[column]  # (h, w)
            band[:, :, left:right] += part * weights.to(part.device)
        assert band is not None
        done = following - top
        carried = band[:, done:]
        yield band[:, :done] / (totals[0][top:following] * totals[1]).to(band.device)


def _sums(spans: list[Span], weights: list[Tensor], length: int) -> Tensor:
    """Sum of all tiles' weights at each pixel along one side; (length,)."""
    total = torch.zeros(length)
    for (start, stop), values in zip(spans, weights, strict=True):
        total[start:stop] += values
    return total
