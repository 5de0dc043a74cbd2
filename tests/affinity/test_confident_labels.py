"""The rule that makes labels from two seeds, on maps made by hand."""

import pytest
import torch

from wsss.affinity.confident_labels import confident_labels
from wsss.errors import RecipeError, ShapeError
from wsss.types import IGNORE, ActivationMaps


class FakeCrf:
    """Believes what it is given; `answers` replaces the labels of both seeds."""

    def __init__(self, answers=None):
        self.answers, self.calls = answers, []

    def marginals(self, unaries):
        self.calls.append(unaries)
        if self.answers is None:
            return (-unaries).softmax(dim=-3)
        return torch.nn.functional.one_hot(self.answers, unaries.shape[-3]).movedim(-1, -3).float()


def maps_of(scores, class_ids, background=None):
    scores = torch.tensor(scores)[:, None]  # (M, 1, W)
    background = None if background is None else torch.tensor(background)[None]
    return ActivationMaps(torch.tensor(class_ids), scores, background)


def labels_of(maps, crf=None, foreground=0.30, background=0.05):
    crf = crf or FakeCrf()
    labels = confident_labels(crf, maps, foreground_score=foreground, background_score=background)
    assert labels.dtype == torch.uint8
    return labels[0].tolist()


def test_scores_between_the_two_limits_are_ignored():
    maps = maps_of([[0.90, 0.31, 0.29, 0.06, 0.04, 0.00]], [7])
    assert labels_of(maps) == [7, 7, IGNORE, IGNORE, 0, 0]


def test_a_score_that_equals_a_limit_counts_as_background():
    maps = maps_of([[0.25, 0.125]], [7])
    assert labels_of(maps, foreground=0.25, background=0.125) == [IGNORE, 0]


def test_the_best_class_is_the_label():
    maps = maps_of([[0.9, 0.5, 0.1], [0.4, 0.6, 0.2]], [2, 9])
    assert labels_of(maps) == [2, 9, IGNORE]


def test_where_the_strict_seed_is_background_the_other_decides():
    # all four cases that a CRF can leave: (strict, generous)
    answers = torch.tensor([[[1, 0, 0, 2]], [[1, 1, 0, 0]]])
    assert labels_of(maps_of([[0.0] * 4, [0.0] * 4], [3, 5]), FakeCrf(answers)) == [3, IGNORE, 0, 5]


def test_both_seeds_pass_the_crf_in_one_call_with_certainty():
    crf = FakeCrf()
    labels_of(maps_of([[0.9, 0.2], [0.1, 0.1]], [1, 4]), crf)
    [unaries] = crf.calls
    assert unaries.shape == (2, 3, 1, 2)
    expected = torch.tensor([0.15, 0.7, 0.15])
    torch.testing.assert_close((-unaries[0, :, 0, 0]).exp(), expected)
    torch.testing.assert_close((-unaries[0, :, 0, 1]).exp(), torch.tensor([0.7, 0.15, 0.15]))
    torch.testing.assert_close((-unaries[1, :, 0, 1]).exp(), expected)


def test_an_image_without_classes_is_background_and_needs_no_crf():
    maps = ActivationMaps(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3, 4))
    labels = confident_labels(None, maps, foreground_score=0.3, background_score=0.05)
    assert torch.equal(labels, torch.zeros(3, 4, dtype=torch.uint8))


def test_a_background_of_the_maps_own_must_agree_with_the_limits():
    scores = [[0.60, 0.40, 0.40, 0.10, 0.03, 0.03]]
    background = [0.40, 0.60, 0.20, 0.90, 0.97, 0.01]
    assert labels_of(maps_of(scores, [7], background)) == [7, IGNORE, 7, IGNORE, 0, IGNORE]


def test_limits_the_wrong_way_round_are_refused():
    maps = maps_of([[0.5]], [1])
    with pytest.raises(RecipeError, match="must not exceed `foreground_score`"):
        labels_of(maps, foreground=0.1, background=0.2)
    with pytest.raises(ShapeError, match="foreground_score"):
        labels_of(maps, foreground=1.5)
