import pytest
import torch

from wsss.affinity.pairs import offsets, overlap
from wsss.affinity.random_walk import walk
from wsss.errors import ShapeError


def random_affinities(radius, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(len(offsets(radius)), *size, generator=generator) ** 0.2


def feature_affinities(features, radius):
    """exp(-|f_i - f_j|) of all pairs on the grid (h, w)."""
    planes = torch.zeros(len(offsets(radius)), *features.shape)
    for plane, offset in zip(planes, offsets(radius), strict=True):
        here, there = overlap(features, offset)
        overlap(plane, offset)[0].copy_(torch.exp(-(here - there).abs()))
    return planes


def dense_transition(affinities, radius, affinity_power):
    """The N x N matrix of the papers, in float64, by Python loops."""
    _, height, width = affinities.shape
    matrix = torch.eye(height * width, dtype=torch.float64)
    for number, (dy, dx) in enumerate(offsets(radius)):
        for y in range(height):
            for x in range(width):
                if y + dy < height and 0 <= x + dx < width:
                    one, other = y * width + x, (y + dy) * width + x + dx
                    matrix[one, other] = matrix[other, one] = float(affinities[number, y, x])
    powers = matrix**affinity_power
    return powers / powers.sum(dim=0, keepdim=True)


def dense_walk(scores, affinities, *, radius, affinity_power, num_doublings):
    transition = dense_transition(affinities, radius, affinity_power)
    for _ in range(num_doublings):
        transition = transition @ transition
    return (scores.double().flatten(1) @ transition).view_as(scores)


@pytest.mark.parametrize(
    ("size", "radius", "power", "doublings"),
    [((12, 15), 5, 8, 8), ((9, 7), 5, 10, 8), ((3, 2), 5, 10, 8), ((2, 9), 10, 1, 0), ((1, 1), 5, 8, 8)],
)
def test_walks_are_those_of_the_dense_matrix_in_double_precision(size, radius, power, doublings):
    affinities = random_affinities(radius, size)
    scores = torch.rand(2, *size, generator=torch.Generator().manual_seed(1))
    settings = {"radius": radius, "affinity_power": power, "num_doublings": doublings}
    found = walk(scores, affinities, **settings)
    assert found.dtype == torch.float32
    assert (found - dense_walk(scores, affinities, **settings)).abs().max() < 1e-5


def test_double_precision_stays_double():
    affinities, scores = random_affinities(5, (6, 7)).double(), torch.rand(1, 6, 7).double()
    settings = {"radius": 5, "affinity_power": 10, "num_doublings": 6}
    found = walk(scores, affinities, **settings)
    assert (found - dense_walk(scores, affinities, **settings)).abs().max() < 1e-12


def test_unit_scores_give_the_rows_of_a_column_stochastic_matrix():
    affinities = random_affinities(3, (4, 5))
    units = torch.eye(20).view(20, 4, 5)
    transition = walk(units, affinities, radius=3, affinity_power=2, num_doublings=0).flatten(1)
    assert torch.allclose(transition.sum(dim=0), torch.ones(20), atol=1e-5)
    assert (transition - dense_transition(affinities, 3, 2)).abs().max() < 1e-6


def test_constant_scores_stay_as_they_are():
    constants = torch.tensor([0.0, 0.3, 1.0])[:, None, None].expand(3, 20, 30)
    walked = walk(constants, random_affinities(5, (20, 30)), radius=5, affinity_power=8, num_doublings=8)
    assert torch.allclose(walked, constants, atol=1e-5)
    assert float(walked[0].max()) < 1e-9


def test_a_mirrored_image_gives_mirrored_scores():
    features, scores = torch.randn(11, 14), torch.rand(2, 11, 14)
    settings = {"radius": 5, "affinity_power": 8, "num_doublings": 8}
    plain = walk(scores, feature_affinities(features, 5), **settings)
    mirrored = walk(scores.flip(2), feature_affinities(features.flip(1), 5), **settings)
    assert torch.allclose(mirrored.flip(2), plain, atol=1e-5)


def test_scores_keep_to_their_region():
    features = torch.zeros(12, 16)
    features[:, 7:] = 20
    scores = torch.zeros(1, 12, 16)
    scores[0, 5, 2] = 1
    affinities = feature_affinities(features, 5)
    walked = walk(scores, affinities, radius=5, affinity_power=8, num_doublings=8)[0]
    assert float(walked[:, :7].min()) > 0.5 / (12 * 7)
    assert float(walked[:, 7:].max()) < 1e-9


def test_entries_that_leave_the_grid_are_not_read():
    affinities = random_affinities(5, (6, 8))
    changed = affinities.clone()
    for plane, offset in zip(changed, offsets(5), strict=True):
        outside = torch.ones(6, 8, dtype=torch.bool)
        overlap(outside, offset)[0].fill_(False)
        plane[outside] = float("nan")
    scores = torch.rand(1, 6, 8)
    settings = {"radius": 5, "affinity_power": 8, "num_doublings": 4}
    assert torch.equal(walk(scores, affinities, **settings), walk(scores, changed, **settings))


def test_no_number_of_a_fading_walk_is_denormal(monkeypatch):
    affinities = random_affinities(5, (40, 40)) * 0.02  # to the 10th power about 1e-17 and less
    scores = torch.zeros(1, 40, 40)
    scores[0, 0, 0] = 1
    seen = []
    multiply_add = torch.Tensor.addcmul_

    def watched(target, weight, read):
        product = weight * read
        multiply_add(target, weight, read)
        seen.append(any(bool(((t != 0) & (t.abs() < 1.2e-38)).any()) for t in (weight, product, target)))
        return target

    monkeypatch.setattr(torch.Tensor, "addcmul_", watched)
    walked = walk(scores, affinities, radius=5, affinity_power=10, num_doublings=5)
    assert len(seen) == 33 * 68
    assert not any(seen)
    assert float(walked.sum()) == pytest.approx(1, abs=1e-4)


def test_no_scores_and_no_affinity_are_fine():
    affinities = torch.zeros(34, 3, 4)
    assert walk(torch.zeros(0, 3, 4), affinities, radius=5, affinity_power=8, num_doublings=8).shape == (
        0,
        3,
        4,
    )
    scores = torch.rand(2, 3, 4)
    walked = walk(scores, affinities, radius=5, affinity_power=8, num_doublings=8)
    assert torch.allclose(walked, scores, atol=1e-6)


def test_affinities_of_another_grid_or_radius_are_an_error():
    for shape in ((34, 3, 5), (10, 3, 4), (34, 12)):
        with pytest.raises(ShapeError, match="P = 34 pairs for radius 5"):
            walk(torch.rand(2, 3, 4), torch.rand(shape), radius=5, affinity_power=8, num_doublings=8)


@pytest.mark.gpu
def test_accelerators_walk_the_same_way():
    affinities, scores = random_affinities(5, (30, 40)), torch.rand(3, 30, 40)
    settings = {"radius": 5, "affinity_power": 10, "num_doublings": 8}
    found = walk(scores.to("cuda"), affinities.to("cuda"), **settings)
    assert found.device.type == "cuda"
    assert torch.allclose(found.cpu(), walk(scores, affinities, **settings), atol=1e-5)
