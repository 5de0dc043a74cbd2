import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss.affinity.feature_affinity import (
    AffinityNet,
    block_means,
    cell_labels,
    grid_affinities,
    pair_affinities,
)
from wsss.affinity.pairs import destinations, offsets, overlap, sources
from wsss.affinity.random_walk import walk
from wsss.errors import ShapeError
from wsss.models import build_backbone
from wsss.models.backbone import Backbone
from wsss.types import IGNORE, Batch


class FakeBackbone(Backbone):
    """Four strided convolutions; the first tap is not used."""

    out_channels, output_stride, stage_channels, stage_strides = 6, 8, (3, 4, 5, 6), (2, 4, 8, 8)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(*channels, 3, stride, 1), nn.BatchNorm2d(channels[1]))
            for channels, stride in (((3, 3), 2), ((3, 4), 2), ((4, 5), 2), ((5, 6), 1))
        )

    def parts(self):
        return tuple((layer,) for layer in self.layers)


def batch_of(low, high, size=40):
    generator = torch.Generator().manual_seed(1)
    count = len(low)
    return Batch(
        torch.randn(count, 3, size, size, generator=generator),
        torch.zeros(count, 2, dtype=torch.bool),
        tuple(map(str, range(count))),
        torch.ones(count, size, size, dtype=torch.bool),
        {"low": low, "high": high},
    )


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(2)
    cells = torch.rand(2, 2, 3, 5, 5, generator=generator)
    cells[:, 0, :, 4] = 0  # the first image has padding below
    low, high = cells.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)
    return batch_of(low, high)


def slow_losses(features, labels, radius):
    """The three losses from features (B, D, h, w) and labels (B, h, w), pair by pair."""
    sums = {"background_pairs": [0.0, 0], "foreground_pairs": [0.0, 0], "different_pairs": [0.0, 0]}
    images, channels, height, width = features.shape
    for image in range(images):
        for y in range(height - (radius - 1)):
            for x in range(radius - 1, width - (radius - 1)):
                for dy, dx in offsets(radius):
                    one, other = (features[image, :, a, b].tolist() for a, b in ((y, x), (y + dy, x + dx)))
                    distance = sum(abs(a - b) for a, b in zip(one, other, strict=True)) / channels
                    affinity = math.exp(-distance)
                    here, there = int(labels[image, y, x]), int(labels[image, y + dy, x + dx])
                    if IGNORE in (here, there):
                        continue
                    if here != there:
                        name, loss = "different_pairs", -math.log(1 + 1e-5 - affinity)
                    else:
                        name = "foreground_pairs" if here else "background_pairs"
                        loss = -math.log(affinity + 1e-5)
                    sums[name][0] += loss
                    sums[name][1] += 1
    weights = {"background_pairs": 1 / 4, "foreground_pairs": 1 / 4, "different_pairs": 1 / 2}
    return {name: weights[name] * total / (count + 1e-5) for name, (total, count) in sums.items()}


# ---- labels


def test_cells_are_labelled_only_where_both_backgrounds_agree():
    """Cells: class 2 in both; nothing sure; background in both; class 1 against background; padding."""
    low = torch.tensor([[0.1, 0.6, 0.9, 0.2, 0.0], [0.2, 0.4, 0.1, 0.7, 0.0], [0.7, 0.0, 0.0, 0.1, 9e-6]])
    high = torch.tensor([[0.0, 0.2, 0.8, 0.9, 0.0], [0.2, 0.8, 0.1, 0.1, 0.0], [0.8, 0.0, 0.1, 0.0, 9e-6]])
    labels = cell_labels(low[None, :, None], high[None, :, None])
    assert labels.tolist() == [[[2, IGNORE, 0, 0, IGNORE]]]


def test_block_means_pad_with_zeros_at_the_right_and_bottom():
    planes = torch.ones(2, 5, 9)
    means = block_means(planes, 4)
    assert means.shape == (2, 2, 3)
    assert means[0].tolist() == [[1, 1, 0.25], [0.25, 0.25, 0.0625]]
    values = torch.rand(1, 3, 16, 24)
    assert torch.equal(block_means(values, 8), F.avg_pool2d(values, 8))
    assert block_means(torch.zeros(0, 5, 9), 4).shape == (0, 2, 3)


# ---- affinities


def test_affinities_are_those_of_a_loop_over_all_pairs():
    features = torch.randn(2, 3, 6, 9)
    found = pair_affinities(features, 4)
    assert found.shape == (2, len(offsets(4)), 3, 3)
    for image in range(2):
        for number, (dy, dx) in enumerate(offsets(4)):
            for y in range(3):
                for x in range(3):
                    one, other = features[image, :, y, 3 + x], features[image, :, y + dy, 3 + x + dx]
                    expected = math.exp(-float((one - other).abs().mean()))
                    assert float(found[image, number, y, x]) == pytest.approx(expected, rel=1e-5)


def test_gradients_of_affinities_are_those_of_autograd():
    features = torch.randn(2, 4, 6, 9, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: pair_affinities(values, 4), features)
    weights = torch.randn_like(pair_affinities(features, 4))
    (pair_affinities(features, 4) * weights).sum().backward()
    ours, features.grad = features.grad, None
    here = sources(features, 4)
    planes = [(here - destinations(features, offset, 4)).abs().mean(dim=1) for offset in offsets(4)]
    (torch.exp(-torch.stack(planes, dim=1)) * weights).sum().backward()
    assert torch.allclose(ours, features.grad)


def test_equal_features_have_affinity_one_and_no_gradient():
    features = torch.ones(1, 4, 5, 9, requires_grad=True)
    affinities = pair_affinities(features, 5)
    affinities.sum().backward()
    assert float(affinities.detach().min()) == 1
    assert float(features.grad.abs().max()) == 0


@pytest.mark.parametrize("size", [(20, 30), (6, 7), (3, 2), (1, 1)])
def test_improved_borders_hold_all_pairs_on_the_grid(size):
    features = torch.randn(4, *size)
    planes = grid_affinities(features, 5, "improved")
    for plane, offset in zip(planes, offsets(5), strict=True):
        here, there = overlap(features, offset)
        assert torch.allclose(overlap(plane, offset)[0], torch.exp(-(here - there).abs().mean(dim=0)))
        assert int((plane > 0).sum()) == here[0].numel()


def lonely_cells(planes):
    """(y, x) of the cells without any neighbour."""
    neighbours = torch.zeros(planes.shape[1:])
    for plane, offset in zip(planes, offsets(5), strict=True):
        weight, _ = overlap(plane, offset)
        here, there = overlap(neighbours, offset)
        here += weight
        there += weight
    return {(y, x) for y, x in (neighbours == 0).nonzero().tolist()}


def test_faithful_borders_leave_some_corner_cells_alone():
    planes = grid_affinities(torch.randn(4, 20, 30), 5, "faithful")
    alone = lonely_cells(planes)
    assert {(0, x) for x in range(30)} & alone == {(0, 0), (0, 1), (0, 2), (0, 3)}
    others = {(y, x) for y, x in alone if y > 0}
    assert 0 < len(others) < 12
    assert all(y >= 16 and (x < 4 or x >= 26) for y, x in others)
    assert lonely_cells(grid_affinities(torch.randn(4, 20, 30), 5, "improved")) == set()


def test_faithful_pairs_are_those_of_training():
    features = torch.randn(4, 8, 12)
    planes = grid_affinities(features, 5, "faithful")
    assert torch.equal(sources(planes, 5), pair_affinities(features[None], 5)[0])
    assert int((planes > 0).sum()) == len(offsets(5)) * 4 * 4
    assert not grid_affinities(torch.randn(4, 4, 30), 5, "faithful").any()  # too few rows for any pair
    assert not grid_affinities(torch.randn(4, 9, 8), 5, "faithful").any()


def test_mirrored_features_give_mirrored_walks():
    features, scores = torch.randn(4, 9, 12), torch.rand(2, 9, 12)
    settings = {"radius": 5, "affinity_power": 8, "num_doublings": 4}
    plain = walk(scores, grid_affinities(features, 5, "improved"), **settings)
    mirrored = walk(scores.flip(2), grid_affinities(features.flip(2), 5, "improved"), **settings)
    assert torch.allclose(mirrored.flip(2), plain, atol=1e-5)


# ---- network


def test_features_have_448_channels_on_a_grid_of_the_stride():
    net = AffinityNet(FakeBackbone(), radius=3).eval()
    images = torch.randn(2, 3, 40, 43)
    features = net.features(images)
    assert features.shape == (2, 448, 5, 6)
    taps = net.backbone.stages(images)[1:]
    heads = [F.elu(F.conv2d(tap, head[0].weight)) for tap, head in zip(taps, net.projections, strict=True)]
    assert [head.shape[1] for head in heads] == [64, 128, 256]
    heads[0] = F.interpolate(heads[0], size=(5, 6), mode="bilinear", align_corners=False)
    expected = F.elu(F.conv2d(torch.cat(heads, dim=1), net.mixing.weight))
    assert torch.allclose(features, expected, atol=1e-5)


def test_group_norms_of_8_16_and_32_groups_come_before_the_elu():
    net = AffinityNet(FakeBackbone(), group_norm=True)
    norms = [projection[1] for projection in net.projections]
    assert [norm.num_groups for norm in norms] == [8, 16, 32]
    assert all(isinstance(projection[2], nn.ELU) for projection in net.projections)


def test_new_layers_start_as_published():
    torch.manual_seed(0)
    net = AffinityNet(build_backbone("resnet_small"))
    for projection, channels in zip(net.projections, net.backbone.stage_channels[-3:], strict=True):
        assert float(projection[0].weight.detach().std()) == pytest.approx(math.sqrt(2 / channels), rel=0.05)
        assert projection[0].bias is None
    limit = 4 * math.sqrt(6 / (448 + 448))
    assert float(net.mixing.weight.detach().abs().max()) == pytest.approx(limit, rel=0.01)
    assert net.mixing.bias is None


def test_losses_are_those_of_a_loop_over_all_pairs(batch):
    net = AffinityNet(FakeBackbone(), radius=3)
    net.train()
    features = net.features(batch.images).detach()
    labels = cell_labels(*(F.avg_pool2d(batch.aligned[name], 8) for name in ("low", "high")))
    assert {0, IGNORE} < set(labels.unique().tolist())
    expected = slow_losses(features, labels, radius=3)
    losses = net.losses(batch)
    assert list(losses) == list(expected)
    for name, loss in losses.items():
        assert float(loss.detach()) == pytest.approx(expected[name], rel=1e-3), name
        assert expected[name] > 0


def test_losses_reach_every_trained_weight(batch):
    net = AffinityNet(FakeBackbone().freeze(until=0), radius=3, group_norm=True)
    sum(net.losses(batch).values()).backward()
    for name, parameter in net.named_parameters():
        is_trained = not name.startswith("backbone.layers.0.")
        assert (parameter.grad is not None) == is_trained, name
        if is_trained:
            assert bool(torch.isfinite(parameter.grad).all())


def test_a_batch_without_scores_is_an_error(batch):
    net = AffinityNet(FakeBackbone(), radius=3)
    batch.aligned.pop("high")
    with pytest.raises(ShapeError, match=r"`low` and `high`; got \['low'\]\. Give the loader"):
        net.losses(batch)


def test_a_backbone_of_two_taps_is_an_error():
    backbone = FakeBackbone()
    backbone.stage_channels, backbone.stage_strides = (3, 4), (2, 4)
    with pytest.raises(ShapeError, match="at least 3 taps; got 2"):
        AffinityNet(backbone)


def test_parameter_groups_are_those_of_psa():
    net = AffinityNet(FakeBackbone().freeze(until=0), group_norm=True)
    weights, biases, new = net.parameter_groups(0.1)
    assert [group["lr"] for group in (weights, biases, new)] == pytest.approx([0.1, 0.2, 1.0])
    assert biases["weight_decay"] == 0
    assert "weight_decay" not in weights
    assert "weight_decay" not in new
    names = {id(p): name for name, p in net.named_parameters()}
    found = [{names[id(p)] for p in group["params"]} for group in (weights, biases, new)]
    assert found[2] == {
        "projections.0.0.weight",
        "projections.1.0.weight",
        "projections.2.0.weight",
        "mixing.weight",
    }
    assert all(name.endswith("bias") for name in found[1])
    assert {"projections.0.1.weight"} < found[0]  # group norms go with the backbone
    assert {"projections.0.1.bias"} < found[1]
    everything = {name for name, p in net.named_parameters() if p.requires_grad}
    assert set.union(*found) == everything
    assert sum(map(len, found)) == len(everything)


def test_training_pulls_classes_apart(batch):
    torch.manual_seed(0)
    net = AffinityNet(FakeBackbone(), radius=3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02)
    first = None
    for _ in range(30):
        loss = sum(net.losses(batch).values())
        first = float(loss.detach()) if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.8 * first
