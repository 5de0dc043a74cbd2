"""Signals against loops over pixels, and on masks whose fault is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from wsss.review.signals import (
    SIZE_FLOOR,
    agreement,
    disagreement,
    explained_variance,
    mask_signals,
    mixed_tags,
    outline_strength,
    scale_masks,
    unusual_sizes,
)
from wsss.types import ActivationMaps

H, W = 12, 15


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def any_mask(rng: np.random.Generator) -> np.ndarray:
    return rng.choice(np.array([0, 0, 2, 5, 255], np.uint8), size=(H, W))


def image(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (H, W, 3), dtype=np.uint8)


def slow_agreement(first: np.ndarray, second: np.ndarray, tags: tuple[int, ...]) -> float:
    found = []
    for label in (0, *tags):
        both = either = 0
        for one, other in zip(first.flat, second.flat, strict=True):
            both += one == label and other == label
            either += one == label or other == label
        if either:
            found.append(both / either)
    return sum(found) / len(found) if found else 0.0


def test_agreement_is_the_mean_iou_of_background_and_tags(rng):
    for _ in range(5):
        first, second = any_mask(rng), any_mask(rng)
        assert agreement(first, second, (2, 5)) == pytest.approx(slow_agreement(first, second, (2, 5)))


def test_disagreement_is_a_mean_and_needs_another_opinion(rng):
    mask, others = any_mask(rng), [any_mask(rng) for _ in range(3)]
    expected = 1 - np.mean([slow_agreement(mask, other, (2, 5)) for other in others])
    assert disagreement(mask, others, (2, 5)) == pytest.approx(expected)
    assert disagreement(mask, [], (2, 5)) is None
    sure = np.where(mask == 255, 0, mask).astype(np.uint8)
    assert disagreement(sure, [sure], (2, 5)) == 0


def slow_variance(pixels: np.ndarray, inside: np.ndarray) -> float:
    """Between the two sides over all, from sums of squares within the sides."""
    flat, side = pixels.reshape(-1, 3).astype(float), inside.ravel()
    total = sum(((p - flat.mean(axis=0)) ** 2).sum() for p in flat)
    within = 0.0
    for value in (False, True):
        group = flat[side == value]
        within += sum(((p - group.mean(axis=0)) ** 2).sum() for p in group)
    return 1 - within / total


def test_explained_variance_is_what_lies_between_the_sides(rng):
    pixels, inside = image(rng), rng.random((H, W)) < 0.3
    assert explained_variance(pixels, inside) == pytest.approx(slow_variance(pixels, inside))
    two = np.where(inside[..., None], np.uint8(200), np.uint8(20)).repeat(3, axis=2)
    assert explained_variance(two, inside) == pytest.approx(1)
    assert explained_variance(pixels, np.zeros((H, W), bool)) == 0


def test_an_outline_on_an_edge_is_stronger_than_one_beside_it(rng):
    picture = rng.integers(90, 110, (20, 20, 3)).astype(np.uint8)
    picture[:, 10:] += 100
    mask = np.zeros((20, 20), np.uint8)
    mask[:, 10:] = 3
    beside = np.roll(mask, 5, axis=1)
    on, off = outline_strength(picture, mask), outline_strength(picture, beside)
    assert on > 3 * off > 0
    steps = slow_steps(picture.mean(axis=2))
    assert on == pytest.approx(np.mean(steps[:, 10]) / steps.mean(), rel=1e-6)
    assert outline_strength(picture, np.zeros_like(mask)) == 0
    assert outline_strength(np.full_like(picture, 7), mask) == 0


def slow_steps(grey: np.ndarray) -> np.ndarray:
    """Gradient of a Gaussian of one pixel, borders mirrored, as a sum over neighbours."""
    reach = 4
    near = np.arange(-reach, reach + 1)
    bell = np.exp(-(near**2) / 2)
    bell /= bell.sum()
    slope = -near * bell
    padded = np.pad(grey, reach, mode="symmetric")
    found = np.zeros_like(grey)
    for row in range(grey.shape[0]):
        for column in range(grey.shape[1]):
            window = padded[row : row + 2 * reach + 1, column : column + 2 * reach + 1]
            down, across = slope @ window @ bell, bell @ window @ slope
            found[row, column] = np.hypot(down, across)
    return found


def test_mask_signals_count_pixels(rng):
    mask = np.zeros((10, 10), np.uint8)
    mask[:3, :4] = 2
    mask[5, 5] = 5
    mask[9] = 255
    found = mask_signals(mask, (2, 5), rng.integers(0, 256, (10, 10, 3), dtype=np.uint8))
    assert found["missing"] == pytest.approx(-0.01)
    assert found["foreground"] == pytest.approx(0.13)
    assert mask_signals(mask, (2, 7), np.zeros((10, 10, 3), np.uint8))["missing"] == 0


def test_mixed_tags_are_told_by_the_foreground_alone():
    scores = torch.tensor([[[0.9, 0.6], [0.1, 0.0]], [[0.3, 0.7], [0.2, 0.0]], [[0.1, 0.1], [0.0, 0.0]]])
    maps = ActivationMaps(torch.tensor([1, 3, 4]), scores)
    mask = maps.to_mask(0.5).numpy()
    assert mask.tolist() == [[1, 3], [0, 0]]
    assert mixed_tags(mask, maps) == pytest.approx((0.3 + 0.6) / 2)
    mask[0, 0] = 255
    assert mixed_tags(mask, maps) == pytest.approx(0.6)
    assert mixed_tags(np.zeros_like(mask), maps) == 0
    assert mixed_tags(mask, ActivationMaps(maps.class_ids[:1], scores[:1])) == 0


def test_each_scale_gives_its_own_mask():
    left, right = torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)
    left[..., :2], right[..., 2:] = 3.0, 0.5
    masks = scale_masks([left, right], torch.tensor([4]), (16, 32), 0.5)
    expected = np.zeros((16, 32), np.uint8)
    expected[:, :16] = 4
    assert (masks[0] == expected).all()
    assert (masks[1] == expected[:, ::-1]).all()
    assert scale_masks([left[:0]], torch.zeros(0, dtype=torch.int64), (16, 32), 0.5) == []


def test_sizes_are_unusual_on_both_sides_of_the_median():
    found = unusual_sizes({"nothing": 0.0, "half": 0.15, "usual": 0.3, "much": 0.6, "all": 1.0})
    assert found["usual"] == 0
    assert found["nothing"] == pytest.approx(math.log((0.3 + SIZE_FLOOR) / SIZE_FLOOR))
    assert found["all"] > found["much"] > 0
    assert found["nothing"] > found["half"] > 0
    assert unusual_sizes({}) == {}
