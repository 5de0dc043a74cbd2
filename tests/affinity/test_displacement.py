"""Displacements: the branch, its losses against the field that they describe, and the mean."""

import numpy as np
import pytest
import torch
from tests.layers.faked_group import of_each

from wsss.affinity.displacement import (
    DisplacementBranch,
    centroids,
    displacement_losses,
    instances,
    mean_displacement,
)
from wsss.affinity.labels import pair_labels
from wsss.affinity.pairs import destinations, offsets, sources
from wsss.errors import StageError


def field(height, width, centre):
    """Vector from each cell to the centre; (2, h, w)."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([centre[0] - rows, centre[1] - columns]).float()


def test_a_perfect_field_has_no_loss():
    labels = torch.zeros(1, 9, 14, dtype=torch.uint8)
    labels[:, 2:7, 3:9] = 4
    displacement = torch.where(labels[:, None] == 4, field(9, 14, (4.0, 5.5)), torch.tensor(0.7))
    known = pair_labels(labels, 4)
    assert known.foreground.any()
    assert known.background.any()
    for shift in (0.0, 3.0):  # neither loss sees a constant; that is why the mean is subtracted
        losses = displacement_losses(displacement + shift, known, 4)
        assert [float(loss) for loss in losses] == pytest.approx([0, 0], abs=1e-6)


def test_a_zero_field_is_wrong_by_the_mean_offset():
    labels = torch.full((1, 6, 11), 2, dtype=torch.uint8)
    foreground, background = displacement_losses(torch.zeros(1, 2, 6, 11), pair_labels(labels, 3), 3)
    sums = [abs(dy) + abs(dx) for dy, dx in offsets(3)]
    assert float(foreground) == pytest.approx(sum(sums) / len(sums) / 2, rel=1e-5)
    assert float(background) == 0


def looped_losses(displacement, labels, radius):
    """Both losses of IRN's equations 8 and 9, coordinate by coordinate."""
    errors = {"foreground": [], "background": []}
    images, height, width = labels.shape
    for image in range(images):
        for y in range(height - (radius - 1)):
            for x in range(radius - 1, width - (radius - 1)):
                for dy, dx in offsets(radius):
                    here, there = int(labels[image, y, x]), int(labels[image, y + dy, x + dx])
                    if here != there or here == 255:
                        continue
                    target = (dy, dx) if here else (0, 0)
                    for axis in range(2):
                        one, other = (
                            displacement[image, axis, y, x],
                            displacement[image, axis, y + dy, x + dx],
                        )
                        errors["foreground" if here else "background"].append(
                            abs(float(one - other) - target[axis])
                        )
    return [sum(own) / (len(own) + 1e-5) for own in errors.values()]


@pytest.fixture
def fields():
    """Displacements and labels of three images; the last is ignored, the first has no background."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 2, 255])[torch.randint(0, 3, (3, 5, 8), generator=generator)]
    labels[0] = torch.where(labels[0] == 0, 2, labels[0])
    labels[2] = 255
    return torch.randn(3, 2, 5, 8, generator=generator), labels


@pytest.mark.parametrize("cut", [1, 2])
def test_the_averages_over_processes_are_the_losses_of_the_whole_batch(fields, cut, monkeypatch):
    displacement, labels = fields
    shares = (slice(0, cut), slice(cut, 3))
    found = of_each(
        monkeypatch,
        [
            lambda share=share: displacement_losses(displacement[share], pair_labels(labels[share], 3), 3)
            for share in shares
        ],
    )
    averages = [sum(map(float, own)) / 2 for own in zip(*found, strict=True)]
    assert averages == pytest.approx(looped_losses(displacement, labels, 3), rel=1e-5)


def test_one_process_has_the_losses_of_its_own_pairs_to_the_last_bit(fields):
    displacement, known = fields[0].requires_grad_(), pair_labels(fields[1], 3)
    here, foreground, background = sources(displacement, 3), torch.zeros(()), torch.zeros(())
    for number, offset in enumerate(offsets(3)):
        difference = here - destinations(displacement, offset, 3)
        errors = (difference - torch.tensor(offset).float()[:, None, None]).abs()
        foreground = foreground + torch.where(known.foreground[:, number, None], errors, 0.0).sum()
        errors = difference.abs()
        background = background + torch.where(known.background[:, number, None], errors, 0.0).sum()
    expected = (
        foreground / (2 * known.foreground.sum() + 1e-5),
        background / (2 * known.background.sum() + 1e-5),
    )
    found = displacement_losses(displacement, known, 3, known.totals())
    gradients = [torch.autograd.grad(sum(losses), displacement)[0] for losses in (found, expected)]
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert torch.equal(*gradients)


def test_coarse_taps_meet_before_the_grid():
    branch = DisplacementBranch((64, 256, 512, 1024, 2048), (4, 4, 8, 16, 16), 4)
    widths = [projection.convolution.out_channels for projection in branch.projections]
    groups = [projection.norm.num_groups for projection in branch.projections]
    assert (widths, groups) == ([64, 128, 256, 256, 256], [8, 16, 16, 16, 16])
    assert (branch.merge.convolution.in_channels, branch.last.convolution.in_channels) == (768, 448)


@pytest.mark.parametrize("strides", [(2, 4, 8, 8), (4, 4), (1, 2, 4)])
def test_taps_of_other_backbones_fit_too(strides):
    torch.manual_seed(0)
    branch = DisplacementBranch((16,) * len(strides), strides, 4)
    taps = [torch.randn(2, 16, -(-21 // stride), -(-35 // stride)) for stride in strides]
    assert branch(taps).shape == (2, 2, 6, 9)


def test_the_mean_is_that_of_the_batches():
    batches = [torch.full((2, 2, 3, 3), 1.0), torch.full((1, 2, 5, 4), 4.0)]
    assert mean_displacement(iter(batches)).tolist() == [2.5, 2.5]
    with pytest.raises(StageError, match="at least one image"):
        mean_displacement([])


def two_objects(height=12, width=20):
    """Cells of the left and of the right half point to the middle of their half."""
    left, right = field(height, width, (5.0, 4.0)), field(height, width, (6.0, 15.0))
    return torch.where(torch.arange(width) < 10, left, right)


def test_every_cell_finds_the_centre_that_it_points_to():
    found = centroids(two_objects(), iterations=1)
    assert found.shape == (2, 12, 20)
    assert (found[:, :, :10] == torch.tensor([5, 4])[:, None, None]).all()
    assert (found[:, :, 10:] == torch.tensor([6, 15])[:, None, None]).all()


def test_many_small_steps_reach_the_centre_too():
    found = centroids(0.05 * two_objects(), iterations=300)
    assert (found[:, :, :9] - torch.tensor([5, 4])[:, None, None]).abs().max() <= 1
    assert (found[:, :, 11:] - torch.tensor([6, 15])[:, None, None]).abs().max() <= 1


def test_steps_are_those_of_a_loop_and_stay_on_the_grid():
    generator = torch.Generator().manual_seed(0)
    displacement = 3 * torch.randn(2, 5, 7, dtype=torch.float64, generator=generator)
    found = centroids(displacement, iterations=4)
    values = displacement.numpy()
    for y in range(5):
        for x in range(7):
            place = np.array([y, x], dtype=np.float64)
            for _ in range(4):
                (y0, x0), (y1, x1) = np.floor(place).astype(int), np.ceil(place).astype(int)
                b, a = place - np.floor(place)
                upper = values[:, y0, x0] * (1 - a) + values[:, y0, x1] * a
                lower = values[:, y1, x0] * (1 - a) + values[:, y1, x1] * a
                place = np.clip(place + upper * (1 - b) + lower * b, 0, (4, 6))
            assert found[:, y, x].tolist() == np.round(place).astype(int).tolist()


def test_objects_with_centres_of_their_own_are_told_apart():
    numbers = instances(two_objects())
    assert numbers[:, :10].unique().tolist() == [0]
    assert numbers[:, 10:].unique().tolist() == [1]


def test_one_weak_region_is_one_object_and_the_rest_another():
    still = torch.zeros(2, 6, 8)
    assert not instances(still).any()
    still[0, :3, :] = -9.0  # these cells end in the first row, which is no weak region
    assert instances(still).tolist() == [[0] * 8] * 3 + [[1] * 8] * 3


def test_weak_cells_that_touch_at_a_corner_are_not_connected():
    displacement = torch.full((2, 2, 2), 9.0)
    displacement[:, 0, 0] = displacement[:, 1, 1] = 0
    assert instances(displacement).tolist() == [[0, 1], [1, 1]]
