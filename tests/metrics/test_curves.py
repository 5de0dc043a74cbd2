from __future__ import annotations

import numpy as np
import pytest
import torch

import oracle_masks
from wsss.errors import ShapeError
from wsss.metrics.confusion import Confusion
from wsss.metrics.curves import (
    POWERS,
    THRESHOLDS,
    ScoreCurve,
    count_levels,
    masks_at,
    score_of_power,
    top_levels,
)
from wsss.types import IGNORE, ActivationMaps

CLASSES = 5


def random_maps(rng: np.random.Generator, size: tuple[int, int] = (12, 10)) -> ActivationMaps:
    """Scores on and between the thresholds, with ties among classes and with the background."""
    ids = np.sort(rng.choice(np.arange(1, CLASSES), rng.integers(0, CLASSES), replace=False))
    scores = rng.random((len(ids), *size)).astype(np.float32)
    on_grid = rng.random(scores.shape) < 0.5
    scores[on_grid] = rng.integers(0, 100, int(on_grid.sum())) / 100
    return ActivationMaps(torch.from_numpy(ids), torch.from_numpy(scores))


def test_masks_at_several_scores_are_those_of_the_maps() -> None:
    rng = np.random.default_rng(8)
    for scores in ([0.3], [0.0, 0.15, 0.473], [0.2, 0.99]):
        for _ in range(8):
            maps = random_maps(rng)
            found = masks_at(maps, scores)
            assert len(found) == len(scores)
            for score, mask in zip(scores, found, strict=True):
                assert mask.dtype == np.uint8
                assert np.array_equal(mask, maps.to_mask(score).numpy())


def test_one_pass_equals_one_evaluation_per_threshold() -> None:
    rng = np.random.default_rng(0)
    images = [(random_maps(rng), oracle_masks.random_masks(rng, CLASSES, (12, 10))[0]) for _ in range(6)]
    curve = ScoreCurve(CLASSES)
    for maps, mask in images:
        curve.add(count_levels(mask, mask != IGNORE, maps, num_labels=CLASSES))
    miou = curve.miou()
    for index, score in enumerate(THRESHOLDS):
        expected = Confusion.empty(CLASSES)
        for maps, mask in images:
            expected.add(mask, maps.to_mask(score).numpy())
        assert np.array_equal(curve.confusion(index).counts, expected.counts), score
        assert miou[index] == pytest.approx(expected.miou())
    assert curve.best() == int(np.argmax(miou))


def test_thresholds_need_not_be_even() -> None:
    rng = np.random.default_rng(1)
    maps, (mask, _) = random_maps(rng), oracle_masks.random_masks(rng, CLASSES, (12, 10))
    thresholds = (0.0, 0.123, 0.124, 0.7, 1.0)
    image = count_levels(mask, mask != IGNORE, maps, num_labels=CLASSES, thresholds=thresholds)
    for index, score in enumerate(thresholds):
        expected = oracle_masks.confusion(mask, maps.to_mask(score).numpy(), CLASSES)
        assert np.array_equal(image.at(index, CLASSES), expected)


def test_an_image_without_classes_is_all_background() -> None:
    maps = ActivationMaps(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3, 3))
    mask = np.eye(3, dtype=np.uint8)
    image = count_levels(mask, mask != IGNORE, maps, num_labels=2)
    assert image.at(0, 2).tolist() == [[6, 0], [3, 0]]


def test_labels_may_be_contexts() -> None:
    rng = np.random.default_rng(2)
    maps, (mask, _) = random_maps(rng), oracle_masks.random_masks(rng, CLASSES, (12, 10))
    context = rng.integers(0, 3, mask.shape).astype(np.uint8)
    image = count_levels(context, mask == 0, maps, num_labels=3)
    expected = oracle_masks.context_table(context, mask, maps.to_mask(0.4).numpy(), 3, CLASSES)
    assert np.array_equal(image.at(40, CLASSES), expected)


def test_levels_count_thresholds_strictly_below() -> None:
    scores = torch.tensor([[[0.0, 0.25, 0.5, 0.51]]])
    maps = ActivationMaps(torch.tensor([3]), scores)
    assert top_levels(maps, (0.0, 0.25, 0.5))[1].tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("power", [0.3, 1.0, 2.0, 7.5])
def test_a_power_background_is_a_constant_in_disguise(power: float) -> None:
    scores = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(1))
    maps = ActivationMaps(torch.tensor([1, 2, 7]), scores)
    by_power = maps.with_background_power(power).to_mask()
    assert torch.equal(by_power, maps.to_mask(score_of_power(power)))


def test_unsorted_thresholds_and_wrong_sizes_are_refused() -> None:
    with pytest.raises(ShapeError, match="ascend"):
        ScoreCurve(3, (0.2, 0.1))
    maps = ActivationMaps(torch.tensor([1]), torch.zeros(1, 4, 4))
    mask = np.zeros((4, 5), dtype=np.uint8)
    with pytest.raises(ShapeError, match="same size"):
        count_levels(mask, mask == 0, maps, num_labels=2)
    with pytest.raises(ShapeError, match="positive"):
        score_of_power(0)


def test_labels_beyond_the_list_are_refused_only_where_they_count() -> None:
    maps = ActivationMaps(torch.tensor([1]), torch.full((1, 1, 3), 0.5))
    mask = np.array([[0, 1, 2]], dtype=np.uint8)
    image = count_levels(mask, mask < 2, maps, num_labels=2, thresholds=(0.4, 0.6))
    assert [image.at(index, 2).tolist() for index in (0, 1)] == [[[0, 1], [0, 1]], [[1, 0], [1, 0]]]
    with pytest.raises(ShapeError, match="must hold 0…1 or 255; got 2"):
        count_levels(mask, mask < 3, maps, num_labels=2)


POWERS_TRIED = (0.5, *POWERS)


def test_all_powers_take_one_pass_too() -> None:
    rng = np.random.default_rng(4)
    images = [(random_maps(rng), oracle_masks.random_masks(rng, CLASSES, (12, 10))[0]) for _ in range(4)]
    images = [(maps, mask) for maps, mask in images if len(maps.class_ids)]
    of_power = {power: score_of_power(power) for power in POWERS_TRIED}
    curve = ScoreCurve(CLASSES, sorted(of_power.values()))
    for maps, mask in images:
        curve.add(count_levels(mask, mask != IGNORE, maps, num_labels=CLASSES, thresholds=curve.thresholds))
    for power, score in of_power.items():
        expected = np.zeros((CLASSES, CLASSES), dtype=np.int64)
        for maps, mask in images:
            scores, predicted = maps.scores.numpy().astype(np.float64), np.zeros_like(mask)
            for y, x in np.ndindex(mask.shape):
                row = int(scores[:, y, x].argmax())
                top = scores[row, y, x]
                if (1 - top) ** power < top:  # the background wins ties
                    predicted[y, x] = int(maps.class_ids[row])
            expected += oracle_masks.confusion(mask, predicted, CLASSES)
        assert np.array_equal(curve.confusion(curve.thresholds.index(score)).counts, expected), power


def test_powers_lower_the_background_one_after_the_other() -> None:
    scores = [score_of_power(power) for power in POWERS]
    assert scores == sorted(scores, reverse=True)
    for power, score in zip(POWERS, scores, strict=True):
        assert (1 - score) ** power == pytest.approx(score, abs=1e-10)


NEXT = float(np.nextafter(np.float32(0.5), np.float32(1)))


@pytest.mark.parametrize(
    "thresholds",
    [
        THRESHOLDS,
        tuple(sorted({*THRESHOLDS, 0.473, *(score_of_power(power) for power in POWERS)})),
        (0.0, 1.0),
        (0.5,),
        (0.3, 0.3001, 0.30013),
        (0.5, NEXT),  # closer than any table's cells: searched for
        (-0.5, 0.25, 1.5),
    ],
    ids=["grid", "grid and others", "ends", "one", "close", "neighbours", "outside"],
)
def test_levels_equal_counting_the_thresholds_below(thresholds: tuple[float, ...]) -> None:
    rng = np.random.default_rng(9)
    edges = np.array(thresholds, dtype=np.float32)
    around = [edges, np.nextafter(edges, np.float32(0)), np.nextafter(edges, np.float32(1))]
    values = np.concatenate([*around, rng.random(500, dtype=np.float32), [0, 1, NEXT]]).astype(np.float32)
    values = values.clip(0, 1)
    maps = ActivationMaps(torch.tensor([3]), torch.from_numpy(values)[None, None])
    expected = [[sum(value > edge for edge in edges) for value in values]]
    assert top_levels(maps, thresholds)[1].tolist() == expected
