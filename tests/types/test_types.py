"""Oracles for the central types: slow loops and invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsss.errors import ShapeError
from wsss.types import ActivationMaps, Batch, Sample


def loop_mask(scores: np.ndarray, ids: list[int], background: np.ndarray) -> np.ndarray:
    mask = np.zeros(background.shape, dtype=np.uint8)
    for y, x in np.ndindex(*background.shape):
        best, label = background[y, x], 0
        for row, class_id in enumerate(ids):
            if scores[row, y, x] > best:
                best, label = scores[row, y, x], class_id
        mask[y, x] = label
    return mask


def some_maps(seed: int = 0, present: tuple[int, ...] = (2, 5, 7)) -> ActivationMaps:
    generator = torch.Generator().manual_seed(seed)
    # coarse values, so that ties happen
    scores = torch.randint(0, 5, (len(present), 9, 13), generator=generator) / 4
    return ActivationMaps(torch.tensor(present), scores)


@pytest.mark.parametrize("score", [0.0, 0.25, 0.5, 1.0])
def test_masks_equal_a_pixel_loop_and_ties_go_to_the_background(score: float) -> None:
    maps = some_maps()
    expected = loop_mask(
        maps.scores.numpy(), maps.class_ids.tolist(), np.full((9, 13), score, dtype=np.float32)
    )
    assert np.array_equal(maps.to_mask(score).numpy(), expected)


def test_background_power_equals_its_formula() -> None:
    maps = some_maps(1)
    power = maps.with_background_power(4.0)
    assert power.background is not None
    expected = (1 - maps.scores.numpy().max(axis=0)) ** 4
    assert np.allclose(power.background.numpy(), expected, atol=1e-7)
    assert np.array_equal(
        power.to_mask().numpy(), loop_mask(maps.scores.numpy(), [2, 5, 7], power.background.numpy())
    )


def test_column_c_becomes_class_c_plus_1_and_absent_classes_never_appear() -> None:
    cams = torch.rand(4, 6, 8, generator=torch.Generator().manual_seed(3)) * 7
    maps = ActivationMaps.from_cams(cams, torch.tensor([False, True, False, True]))
    assert maps.class_ids.tolist() == [2, 4]
    for row, column in enumerate((1, 3)):
        peak = float(cams[column].max())
        assert torch.allclose(maps.scores[row], cams[column] / (peak + 1e-5))
    assert set(maps.to_mask(0.3).unique().tolist()) <= {0, 2, 4}


def test_an_image_without_classes_is_all_background() -> None:
    maps = ActivationMaps.from_cams(torch.rand(3, 4, 5), torch.zeros(3, dtype=torch.bool))
    assert maps.scores.shape == (0, 4, 5)
    assert not maps.to_mask(0.0).any()
    assert not maps.with_background_power(2).to_mask().any()
    assert maps.resized(7, 9).size == (7, 9)


def test_classes_keep_their_scores_when_others_join() -> None:
    cams = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(4))
    alone = ActivationMaps.from_cams(cams, torch.tensor([False, True, False]))
    together = ActivationMaps.from_cams(cams, torch.tensor([True, True, True]))
    assert torch.equal(alone.scores[0], together.scores[1])


def test_resizing_commutes_with_a_mirror() -> None:
    maps = some_maps(5)
    flipped = ActivationMaps(maps.class_ids, maps.scores.flip(-1))
    assert torch.allclose(maps.resized(20, 31).scores.flip(-1), flipped.resized(20, 31).scores, atol=1e-6)


@pytest.mark.parametrize(
    ("class_ids", "scores", "fragment"),
    [
        ([1], torch.zeros(2, 3, 3), "one row per class id"),
        ([2, 1], torch.zeros(2, 3, 3), "ascend"),
        ([0], torch.zeros(1, 3, 3), "ascend"),
        ([255], torch.zeros(1, 3, 3), "ascend"),
        ([1], torch.full((1, 3, 3), 1.5), r"\[0, 1\]"),
        ([1], torch.full((1, 3, 3), float("nan")), r"\[0, 1\]"),
    ],
)
def test_wrong_maps_are_refused(class_ids: list[int], scores: torch.Tensor, fragment: str) -> None:
    with pytest.raises(ShapeError, match=fragment):
        ActivationMaps(torch.tensor(class_ids), scores)


def test_exactly_one_background_score() -> None:
    maps = some_maps()
    with pytest.raises(ShapeError, match="exactly one background score"):
        maps.to_mask()
    with pytest.raises(ShapeError, match="exactly one background score"):
        maps.with_background(0.2).to_mask(0.3)
    with pytest.raises(ShapeError, match="must lie in"):
        maps.with_background(1.2)


def test_samples_check_themselves_and_lose_their_mask() -> None:
    image, labels = np.zeros((4, 5, 3), np.uint8), np.zeros(2, bool)
    sample = Sample("a", image, labels, np.zeros((4, 5), np.uint8))
    assert sample.without_mask().mask is None
    with pytest.raises(ShapeError, match="`mask` of a"):
        Sample("a", image, labels, np.zeros((5, 4), np.uint8))
    with pytest.raises(ShapeError, match="`image` of a"):
        Sample("a", image.astype(np.float32), labels)
    with pytest.raises(ShapeError, match="`image_labels` of a"):
        Sample("a", image, labels.astype(np.int64))


def test_a_batch_moves_all_its_tensors() -> None:
    batch = Batch(
        torch.zeros(1, 3, 2, 2),
        torch.zeros(1, 4, dtype=torch.bool),
        ("a",),
        torch.ones(1, 2, 2) > 0,
        {"t": torch.ones(1)},
    )
    moved = batch.to("meta")
    assert {moved.images.device.type, moved.valid.device.type, moved.aligned["t"].device.type} == {"meta"}
    assert moved.image_ids == ("a",)


def test_reduced_maps_are_means_of_blocks_that_repeat_the_border() -> None:
    planes = torch.arange(35.0).reshape(1, 5, 7) / 35
    maps = ActivationMaps(torch.tensor([2]), planes, 1 - planes[0])
    found = maps.reduced(4)
    assert found.size == (2, 2)
    for row in range(2):
        for column in range(2):
            cells = [
                float(planes[0, min(4 * row + dy, 4), min(4 * column + dx, 6)])
                for dy in range(4)
                for dx in range(4)
            ]
            assert float(found.scores[0, row, column]) == pytest.approx(sum(cells) / 16)
    torch.testing.assert_close(found.background, 1 - found.scores[0])
    assert ActivationMaps(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 5, 7)).reduced(4).size == (2, 2)


def test_enlarged_maps_are_cropped_and_must_cover_the_image() -> None:
    maps = ActivationMaps(torch.tensor([2]), torch.rand(1, 2, 2))
    assert maps.enlarged(4, 5, 8).size == (5, 8)
    with pytest.raises(ShapeError, match="does not cover an image of 9 x 8"):
        maps.enlarged(4, 9, 8)
