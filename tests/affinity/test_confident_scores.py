import numpy as np
import pytest
import torch

from wsss.affinity.confident_scores import confident_scores, with_background
from wsss.crf import PRESETS, CrfParameters, DenseCrf
from wsss.errors import ShapeError
from wsss.types import ActivationMaps


class FakeCrf:
    """Gives softmax of the energies, and keeps them."""

    def marginals(self, unaries):
        self.unaries = unaries
        return (-unaries).softmax(dim=-3)


def maps_of(*planes):
    return ActivationMaps(torch.arange(1, len(planes) + 1), torch.tensor(planes))


def test_unaries_are_scores_beside_backgrounds_of_each_power():
    maps, crf = maps_of([[0.9, 0.2]], [[0.5, 0.0]]), FakeCrf()
    confident_scores(crf, maps, (4, 32))
    for unary, power in zip(crf.unaries, (4, 32), strict=True):
        expected = [[0.1**power, 0.8**power], [0.9, 0.2], [0.5, 0.0]]
        probabilities = np.clip(expected, 1e-5, 1)[:, None]
        assert unary.numpy() == pytest.approx(-np.log(probabilities), rel=1e-4)


def test_one_call_gives_what_two_crfs_give():
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3)).astype(np.uint8)
    maps = ActivationMaps(torch.tensor([2, 5]), torch.rand(2, 9, 11))
    both = confident_scores(DenseCrf(image, PRESETS["psa"]), maps, (4, 32))
    for found, power in zip(both, (4, 32), strict=True):
        [alone] = confident_scores(DenseCrf(image, PRESETS["psa"]), maps, (power,))
        assert torch.allclose(found.scores, alone.scores, atol=1e-5)
        assert torch.allclose(found.background + found.scores.sum(dim=0), torch.ones(9, 11), atol=1e-4)
        assert found.class_ids.tolist() == [2, 5]


def test_a_background_of_the_maps_is_not_used():
    maps = maps_of([[0.9, 0.2]])
    given = maps.with_background(0.7)
    assert torch.equal(with_background(given, 4), with_background(maps, 4))


def test_images_without_any_class_are_background_and_need_no_crf():
    found = confident_scores(
        None, ActivationMaps(torch.zeros(0, dtype=torch.long), torch.zeros(0, 3, 4)), (4, 32)
    )
    assert len(found) == 2
    assert all(maps.background.min() == 1 and maps.scores.shape == (0, 3, 4) for maps in found)


def test_classes_without_a_crf_are_an_error():
    with pytest.raises(ShapeError, match=r"Maps of classes \[1\] need the dense CRF"):
        confident_scores(None, maps_of([[0.9, 0.2]]), (4, 32))


def test_the_crf_aligns_scores_with_the_image():
    image = np.zeros((12, 16, 3), np.uint8)
    image[:, 8:] = 200
    scores = torch.full((1, 12, 16), 0.1)
    scores[0, :, 10:] = 0.9  # two columns short
    [found] = confident_scores(
        DenseCrf(image, CrfParameters()), ActivationMaps(torch.tensor([1]), scores), (4,)
    )
    assert found.scores[0, :, 8:].min() > 0.5
    assert found.scores[0, :, :8].max() < 0.5
