"""Walks of several images at once are the walks of each."""

import pytest
import torch

from wsss.affinity.joint_walk import walk_together
from wsss.affinity.pairs import offsets
from wsss.affinity.random_walk import walk
from wsss.errors import ShapeError

SETTINGS = {"radius": 4, "affinity_power": 2.0, "num_doublings": 4}


@pytest.mark.parametrize("size", [(6, 9), (2, 3), (1, 1)])
def test_images_do_not_see_each_other(size):
    generator = torch.Generator().manual_seed(0)
    # pairs that leave a grid have affinities too: nobody may read them
    affinities = torch.rand(3, len(offsets(4)), *size, generator=generator)
    scores = [torch.rand(number, *size, generator=generator) for number in (2, 0, 5)]
    before = affinities.clone()
    together = walk_together(scores, affinities, **SETTINGS)
    assert torch.equal(affinities, before)
    for found, own, planes in zip(together, scores, affinities, strict=True):
        torch.testing.assert_close(found, walk(own, planes, **SETTINGS))


def test_sizes_must_agree():
    assert walk_together([], torch.zeros(0, len(offsets(4)), 5, 5), **SETTINGS) == []
    with pytest.raises(ShapeError, match="images of one size"):
        walk_together([torch.rand(1, 5, 5)], torch.rand(2, len(offsets(4)), 5, 5), **SETTINGS)
    with pytest.raises(ShapeError, match="images of one size"):
        walk_together([torch.rand(1, 5, 4)], torch.rand(1, len(offsets(4)), 5, 5), **SETTINGS)
