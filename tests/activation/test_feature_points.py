from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wsss.activation.feature_points import class_cosines, features_and_weights, first_with, point_cosines
from wsss.errors import DataError, StageError
from wsss.types import Sample

RED, BLUE = (255, 0, 0), (0, 0, 255)


class Colours(nn.Module):
    """Features are mean colours of 2 x 2 pixels; the weights of each class are given."""

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, weights: list[list[float]]) -> None:
        super().__init__()
        self.num_foreground = len(weights)
        self.backbone = nn.AvgPool2d(2)
        self.classifier = nn.Conv2d(3, len(weights), 1, bias=False)
        self.classifier.weight.data = torch.tensor(weights)[:, :, None, None]


def half_red() -> Sample:
    """An object of class 1, red, on the left; blue background on the right."""
    image = np.zeros((8, 12, 3), np.uint8)
    image[:, :6], image[:, 6:] = RED, BLUE
    mask = np.zeros((8, 12), np.uint8)
    mask[:, :6] = 1
    return Sample("half", image, np.array([True, False, False]), mask)


def test_cosines_are_those_of_the_known_features_and_weights():
    method: Any = Colours([[2.0, 0.0, 0.0], [0.0, 0.0, -3.0], [1.0, 0.0, 1.0]])
    found = point_cosines(method, half_red(), 1, count=5, seed=3)
    diagonal = 1 / math.sqrt(2)
    expected = [[0.0] * 5 + [1.0] * 5, [0.0] * 10, [diagonal] * 10]  # -1 is clipped to 0
    assert found.cosines.numpy() == pytest.approx(np.array(expected), abs=1e-6)
    assert found.of_object == pytest.approx(1.0)
    assert found.of_other_classes == pytest.approx(diagonal / 2)
    assert found.of_background == pytest.approx(0.0)


def test_points_are_of_the_background_first_then_of_the_object_and_follow_the_seed():
    method: Any = Colours([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    sample = half_red()
    found = point_cosines(method, sample, 1, count=6, seed=1)
    assert sample.mask is not None
    assert [int(sample.mask[point]) for point in found.points] == [0] * 6 + [1] * 6
    assert len(set(found.points)) == 12
    assert point_cosines(method, sample, 1, count=6, seed=1).points == found.points
    assert point_cosines(method, sample, 1, count=6, seed=2).points != found.points


def test_a_point_takes_the_cell_that_holds_it():
    features = torch.arange(2 * 3, dtype=torch.float32).reshape(1, 2, 3) - 2.5  # sign tells the cell's half
    weights = torch.tensor([[1.0]])
    size = (4, 9)
    for row in range(4):
        for column in range(9):
            value = float(features[0, row // 2, column // 3])
            cosine = class_cosines(features, weights, [(row, column)], size)
            assert float(cosine[0, 0]) == (1.0 if value > 0 else 0.0)


def test_the_background_channel_behind_the_classes_is_left_out():
    method: Any = Colours([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    method.num_foreground = 2  # as in SMVWE, whose last channel is the background
    _, weights = features_and_weights(method, half_red().image)
    assert weights.tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_what_has_no_points_says_so():
    method: Any = Colours([[1.0, 0.0, 0.0]])
    sample = half_red()
    with pytest.raises(DataError, match="100 points of class 0 are wanted in half; got 48 pixels"):
        point_cosines(method, sample, 1, count=100)
    with pytest.raises(DataError, match="has no true mask"):
        point_cosines(method, Sample("x", sample.image, sample.image_labels), 1)
    other: Any = nn.Identity()
    with pytest.raises(StageError, match="Identity has none"):
        features_and_weights(other, sample.image)


def test_the_chosen_image_shows_the_class_alone(tiny_scenes: Any):
    for class_id in range(1, len(tiny_scenes.class_names)):
        chosen = first_with(tiny_scenes, "train", class_id)
        alone = [
            image_id
            for image_id in tiny_scenes.ids("train")
            if np.flatnonzero(tiny_scenes.image_labels(image_id)).tolist() == [class_id - 1]
        ]
        assert chosen == (alone[0] if alone else None)
