"""Tiles: they cover the image, overlap enough, and blended give what the whole image gives."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss.errors import ShapeError
from wsss.segmentation.tiles import ALIGNMENT, blend_weights, tile_spans, tiled_rows


@pytest.mark.parametrize(
    ("length", "tile"), [(1, 128), (128, 128), (129, 128), (300, 128), (1000, 200), (5000, 511)]
)
def test_tiles_cover_a_side_and_share_enough_pixels(length: int, tile: int) -> None:
    overlap = tile // 4
    spans = tile_spans(length, tile, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(stop - start <= tile and start % ALIGNMENT == 0 for start, stop in spans)
    for (_, stop), (start, _) in pairwise(spans):
        assert stop - start >= overlap
    if length <= tile:
        assert spans == [(0, length)]


def test_weights_of_two_tiles_sum_to_one_where_they_share_the_overlap() -> None:
    left, right = blend_weights((0, 100), 170, 30), blend_weights((70, 170), 170, 30)
    assert torch.allclose(left[70:] + right[:30], torch.ones(30))
    assert left[:70].eq(1).all()
    assert right[30:].eq(1).all()
    assert left[-7:].eq(0).all()  # a quarter of the overlap, where the network saw the tile's border
    assert right[:7].eq(0).all()
    assert blend_weights((0, 50), 50, 30).eq(1).all()


@pytest.mark.parametrize("size", [(300, 200), (129, 400), (100, 700)])
@pytest.mark.parametrize("stride", [1, 4])
def test_tiles_give_what_the_whole_image_gives_where_margins_exceed_the_receptive_field(
    size: tuple[int, int], stride: int
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 5, stride=stride, padding=2),
        nn.Tanh(),
        nn.Conv2d(6, 4, 3, padding=1 if stride == 1 else 0),
    )

    def predict(part: torch.Tensor) -> torch.Tensor:
        features = net[1](net[0](part[None]))
        if stride > 1:
            features = F.pad(features, (1, 1, 1, 1), mode="replicate")
        logits = F.interpolate(net[2](features), size=part.shape[1:], mode="bilinear", align_corners=False)
        return logits.softmax(1)[0]

    size = tuple(side // stride * stride for side in size)
    image = torch.randn(3, *size)
    with torch.no_grad():
        whole = predict(image)
        parts = list(tiled_rows(lambda rows, columns: predict(image[:, rows, columns]), size, 128, 64))
    blended = torch.cat(parts, dim=1)
    assert len(parts) == len(tile_spans(size[0], 128, 64))
    assert torch.allclose(blended, whole, atol=1e-5)
    assert torch.equal(blended.argmax(0), whole.argmax(0))


def test_a_constant_stays_constant_and_rows_come_from_top_to_bottom() -> None:
    rows = torch.arange(333.0)
    found = tiled_rows(
        lambda r, c: rows[r].expand(2, c.stop - c.start, -1).transpose(1, 2), (333, 250), 128, 32
    )
    assert torch.allclose(torch.cat(list(found), dim=1), rows[None, :, None].expand(2, 333, 250))


def test_a_tile_too_small_to_overlap_is_refused() -> None:
    with pytest.raises(ShapeError, match="at least 128 pixels; got 64"):
        tile_spans(500, 64, 16)
