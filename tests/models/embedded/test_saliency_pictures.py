from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

from wsss.data.scenes import reserved, textures
from wsss.data.scenes.animals import SHAPES
from wsss.data.scenes.pen import Pen, Pose
from wsss.models.embedded import saliency_pictures
from wsss.models.embedded.compose import IMAGE_MEAN, IMAGE_STD, stream
from wsss.models.embedded.saliency_pictures import (
    PartPen,
    Pools,
    compose,
    draw_pools,
    recoloured,
)


@pytest.fixture(scope="module")
def pools() -> Pools:
    return draw_pools(3, things=40, grounds=10)


def test_no_shape_or_texture_of_the_benchmark_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = ast.parse(Path(saliency_pictures.__file__).read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("wsss.data.scenes")
        for alias in node.names
    }
    assert imported == {
        *("RESERVED_SHAPES", "RESERVED_TEXTURES", "BODY_COLOURS", "PATTERNS"),
        *("Colour", "Pen", "Point", "Pose", "lay_over"),
    }
    assert not set(reserved.RESERVED_SHAPES) & set(SHAPES)
    assert not set(reserved.RESERVED_TEXTURES) & set(textures.TEXTURES)

    def never(*_: object) -> None:
        raise AssertionError("a shape or texture of the benchmark was drawn")

    for name in SHAPES:
        monkeypatch.setitem(SHAPES, name, {"any": (never, 1.0)})
    for name in textures.TEXTURES:
        monkeypatch.setitem(textures.TEXTURES, name, never)
    draw_pools(0, things=8, grounds=10)


def test_pools_repeat_themselves_and_show_every_texture(pools: Pools) -> None:
    again = draw_pools(3, things=40, grounds=10)
    assert torch.equal(pools.things, again.things)
    assert torch.equal(pools.shadows, again.shadows)
    assert torch.equal(pools.grounds, again.grounds)
    assert not torch.equal(pools.things, draw_pools(4, things=40, grounds=10).things)
    covered = (pools.things[:, 3] >= 128).flatten(1).float().mean(dim=1)
    assert covered.min() > 0.005
    assert covered.min() < 0.06 < 0.2 < covered.max()  # small and large ones
    for number, name in enumerate(reserved.RESERVED_TEXTURES):
        rng = np.random.default_rng([3, 40 + number])
        drawn = reserved.RESERVED_TEXTURES[name](rng, 144, 144).round().clip(0, 255)
        assert np.array_equal(pools.grounds[number].permute(1, 2, 0).numpy(), drawn.astype(np.uint8)), name


def test_a_part_lies_where_its_frame_takes_it() -> None:
    pose, colours = Pose(48, 48, 60, 40), {"body": (200, 90, 80), "accent": (90, 90, 200)}
    part = PartPen(pose, **colours)
    part.frame = np.array([[0.5, 0.0, 0.25], [0.0, -0.5, 0.75]])
    part.box(0.0, 0.0, 1.0, 0.5)
    whole = Pen(pose, key=(0, 0, 0), **colours)
    whole.box(0.25, 0.5, 0.75, 0.75)
    rng = np.random.default_rng
    np.testing.assert_array_equal(part.finish(rng(0), "plain").alpha, whole.finish(rng(0), "plain").alpha)


def test_pictures_come_from_the_step_alone(pools: Pools) -> None:
    first, second = (compose(pools, 4, stream("test", 1)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], compose(pools, 4, stream("test", 2))[0])


def test_masks_are_what_things_cover(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a black ground, white things in plain light are white exactly where the mask is."""
    white = Pools(pools.things.clone(), torch.zeros_like(pools.shadows), torch.zeros_like(pools.grounds))
    white.things[:, :3] = 255
    white.things[:, 3] = torch.where(white.things[:, 3] >= 128, 255, 0).to(torch.uint8)
    monkeypatch.setattr(saliency_pictures, "recoloured", lambda pixels, _: pixels)
    monkeypatch.setattr(saliency_pictures, "_lit", lambda pictures, _: pictures)
    pictures, masks = compose(white, 32, stream("test", 3))
    seen = pictures * torch.tensor(IMAGE_STD).view(1, 3, 1, 1) + torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)
    torch.testing.assert_close(seen, masks.expand(-1, 3, -1, -1), atol=1e-5, rtol=0)
    shares = masks.mean(dim=(1, 2, 3))
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert shares.max() > 0.2


def test_some_pictures_show_nothing(pools: Pools) -> None:
    masks = compose(pools, 200, stream("test", 4))[1]
    empty = (masks.amax(dim=(1, 2, 3)) == 0).float().mean()
    assert 0.02 <= float(empty) <= 0.15


def test_other_colours_keep_the_edges() -> None:
    pixels = torch.zeros(64, 3, 1, 2)
    pixels[:, :, 0, 0] = torch.tensor([0.2, 0.5, 0.8])
    pixels[:, :, 0, 1] = torch.tensor([0.6, 0.5, 0.4])
    found = recoloured(pixels, stream("test", 5))
    assert 0 <= found.min() <= found.max() <= 1
    assert found[:, :, 0, 0].std(dim=0).min() > 0.05  # each picture has colours of its own
    distance = (found[:, :, 0, 0] - found[:, :, 0, 1]).abs().amax(dim=1)
    assert float((distance > 0.05).float().mean()) > 0.95
    flat = recoloured(torch.full((8, 3, 2, 2), 0.3), stream("test", 6))
    assert float(flat.std(dim=(2, 3)).max()) < 1e-6
