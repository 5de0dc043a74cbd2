from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from html_check import Page
from PIL import Image

from wsss.report.class_colours import class_colour
from wsss.report.embedded_maps import LONGEST, EmbeddedMaps
from wsss.types import ActivationMaps


def invented(class_ids: list[int], height: int, width: int) -> ActivationMaps:
    generator = torch.Generator().manual_seed(3)
    return ActivationMaps(
        torch.tensor(class_ids), torch.rand((len(class_ids), height, width), generator=generator)
    )


def slow_mask(class_ids: list[int], levels: np.ndarray, score: float) -> np.ndarray:
    """The highest of [score, maps] pixel by pixel; ties go to the background, then to the lower class."""
    mask = np.zeros(levels.shape[1:], dtype=np.uint8)
    for row, column in np.ndindex(*mask.shape):
        best = score
        for class_id, plane in zip(class_ids, levels, strict=True):
            if plane[row, column] / 255 > best:
                best, mask[row, column] = plane[row, column] / 255, class_id
    return mask


@pytest.mark.parametrize("score", [0.0, 0.2, 0.37, 0.6, 0.99])
def test_masks_are_the_argmax_of_the_embedded_levels(score: float) -> None:
    class_ids = [2, 5, 9]
    embedded = EmbeddedMaps.of(invented(class_ids, 20, 30))
    embedded.levels[:, 0, 0] = 51  # exactly 0.2, of all classes
    embedded.levels[:, 0, 1] = 0
    assert (embedded.mask(score) == slow_mask(class_ids, embedded.levels, score)).all()


def test_levels_are_scores_and_give_nearly_the_masks_of_the_maps() -> None:
    maps = invented([1, 3], 40, 60)
    embedded = EmbeddedMaps.of(maps)
    assert embedded.levels.dtype == np.uint8
    assert np.abs(embedded.levels / 255 - maps.scores.numpy()).max() <= 0.5 / 255 + 1e-6
    assert (embedded.mask(0.5) == maps.to_mask(0.5).numpy()).mean() > 0.98


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (96, 96), (64, 10), (2000, 3)])
def test_large_maps_are_reduced_and_small_ones_are_not(size: tuple[int, int]) -> None:
    height, width = EmbeddedMaps.of(invented([4], *size)).levels.shape[1:]
    assert min(height, width) >= 1
    assert max(height, width) == min(LONGEST, max(size))
    if min(size) > 50:
        assert height / width == pytest.approx(size[0] / size[1], rel=0.02)


def test_the_layer_carries_its_levels_and_shows_the_mask() -> None:
    class_ids = [2, 7]
    embedded = EmbeddedMaps.of(invented(class_ids, 12, 16))
    [(_, layer)] = Page(embedded.layer(0.4, "mask of CAM map", 1)).tags
    sent = np.frombuffer(base64.b64decode(str(layer["data-maps"])), dtype=np.uint8)
    assert (sent.reshape(2, 12, 16) == embedded.levels).all()
    assert (layer["width"], layer["height"]) == ("16", "12")
    assert layer["data-classes"] == "2 7"
    assert str(layer["data-colours"]).split() == [class_colour(class_id) for class_id in class_ids]
    assert layer["alt"] == "mask of CAM map at background score 0.40"
    shown = decoded(str(layer["src"]))
    mask = slow_mask(class_ids, embedded.levels, 0.4)
    assert (shown[..., 3] == np.where(mask, 255, 0)).all()
    for class_id in class_ids:
        colour = [int(class_colour(class_id)[at : at + 2], 16) for at in (1, 3, 5)]
        assert (shown[mask == class_id][:, :3] == colour).all()


def test_an_image_without_classes_is_all_background() -> None:
    embedded = EmbeddedMaps.of(ActivationMaps(torch.zeros(0, dtype=torch.int64), torch.zeros((0, 5, 6))))
    assert (embedded.mask(0.0) == 0).all()
    assert 'data-maps=""' in embedded.layer(0.1, "mask", 0)


def decoded(uri: str) -> np.ndarray:
    """RGBA of a PNG data URI."""
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGBA"))
