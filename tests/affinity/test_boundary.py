"""IRN's network: sizes of the published one, losses against loops, frozen and trained backbones, canvas."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from wsss.affinity.boundary import IRNet, flip_averaged_boundary, on_canvas, on_grid
from wsss.affinity.pairs import offsets, path
from wsss.errors import ShapeError, StageError
from wsss.models import build_backbone
from wsss.types import IGNORE, Batch


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def batch_of(images, labels):
    size, count = images.shape[-2:], len(images)
    valid = torch.ones(count, *size, dtype=torch.bool)
    aligned = {} if labels is None else {"labels": labels}
    present = torch.zeros(count, 2, dtype=torch.bool)
    return Batch(images, present, tuple(str(number) for number in range(count)), valid, aligned)


class Fixed(nn.Module):
    """A branch that gives its parameter, whatever the taps are."""

    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, taps):
        return self.value


def fixed_net(logits, displacement, radius):
    net = IRNet(build_backbone("resnet_small"), radius=radius)
    net.boundary, net.displacement = Fixed(logits), Fixed(displacement)
    return net


def test_resnet50_has_the_published_numbers_of_parameters():
    with torch.device("meta"):
        net = IRNet(build_backbone("resnet50"))
    assert parameters(net.boundary) == 125_409
    assert parameters(net.displacement) == 1_269_120
    trained = {id(p) for group in net.parameter_groups(0.1) for p in group["params"]}
    assert len(trained) == len([*net.boundary.parameters(), *net.displacement.parameters()])
    assert [group["lr"] for group in net.parameter_groups(0.1)] == [0.1, 1.0]


def published(net, taps):
    """Boundary logits and displacement as the reference's graph gives them, written out for ResNet-50."""

    def block(layer, tap, factor=1):
        values = layer.norm(layer.convolution(tap))
        if factor > 1:
            values = nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False)(values)
        return F.relu(values)

    def cropped(values, like):
        return values[..., : like.shape[2], : like.shape[3]]

    edges = net.boundary.projections
    first, second = block(edges[0], taps[0]), block(edges[1], taps[1])
    others = [block(edges[n], taps[n], factor) for n, factor in ((2, 2), (3, 4), (4, 4))]
    logits = net.boundary.boundary(torch.cat([first, second, *(cropped(o, second) for o in others)], dim=1))

    layers = net.displacement.projections
    one, two, three = (block(layers[n], taps[n]) for n in range(3))
    four, five = (cropped(block(layers[n], taps[n], 2), three) for n in (3, 4))
    up = cropped(block(net.displacement.merge, torch.cat([three, four, five], dim=1), 2), two)
    last = block(net.displacement.last, torch.cat([one, two, up], dim=1))
    return logits[:, 0], net.displacement.displacement(last)


def test_resnet50_gives_what_the_published_graph_gives():
    torch.manual_seed(0)
    net = IRNet(build_backbone("resnet50")).eval()
    images = torch.randn(2, 3, 75, 61)
    with torch.no_grad():
        taps = net.taps(images)
        logits, displacement = published(net, taps)
        assert logits.shape == (2, 19, 16)
        torch.testing.assert_close(net.boundary(taps), logits)
        torch.testing.assert_close(net.displacements(images), displacement)
        net.mean_displacement.copy_(torch.tensor([1.0, -2.0]))
        shifted = displacement - torch.tensor([1.0, -2.0])[:, None, None]
        torch.testing.assert_close(net.displacements(images), shifted)


@pytest.mark.parametrize(
    ("name", "options", "grid_stride"),
    [
        ("resnet50", {}, 4),
        ("resnet_small", {}, 4),
        ("resnet_small", {}, 2),
        ("resnet_small", {"output_stride": 4}, 4),
        ("vgg_small", {}, 4),
    ],
)
def test_the_grid_has_one_cell_for_each_stride_of_odd_images(name, options, grid_stride):
    with torch.device("meta"):
        net = IRNet(build_backbone(name, **options), grid_stride=grid_stride)
        for height, width in ((97, 65), (75, 130), (96, 64)):
            grid = -(-height // grid_stride), -(-width // grid_stride)
            images = torch.zeros(2, 3, height, width)
            taps = net.taps(images)
            if name != "vgg_small":  # its pooling drops the last row of odd sizes
                assert net.boundary(taps).shape == (2, *grid)
                assert net.displacements(images).shape == (2, 2, *grid)
            assert flip_averaged_boundary(net, images, None).shape == (2, *grid)


def looped_losses(logits, displacement, labels, radius):
    """The losses of IRN, section 4, pair by pair."""
    boundary = logits.sigmoid()
    sums = dict.fromkeys(("background", "foreground", "different", "foreground_d", "background_d"), 0.0)
    counts = dict.fromkeys(("background", "foreground", "different"), 0)
    batch, height, width = labels.shape
    reach = radius - 1
    for image in range(batch):
        for dy, dx in offsets(radius):
            for y in range(height - reach):
                for x in range(reach, width - reach):
                    first, second = int(labels[image, y, x]), int(labels[image, y + dy, x + dx])
                    if IGNORE in (first, second):
                        continue
                    affinity = (
                        1
                        - torch.stack([boundary[image, y + a, x + b] for a, b in path(dy, dx)])
                        .max(dim=0)
                        .values
                    )
                    kind = "different"
                    if first == second:
                        kind = "foreground" if first else "background"
                        error = displacement[image, :, y, x] - displacement[image, :, y + dy, x + dx]
                        target = torch.tensor([dy, dx]).to(error) if first else torch.zeros(2).to(error)
                        sums[f"{kind}_d"] = sums[f"{kind}_d"] + (error - target).abs().sum()
                    counts[kind] += 1
                    share = 1 + 1e-5 - affinity if kind == "different" else affinity + 1e-5
                    sums[kind] = sums[kind] - torch.log(share)
    means = {kind: sums[kind] / (count + 1e-5) for kind, count in counts.items()}
    positive = 0.5 * means["background"] + 0.5 * means["foreground"]
    field = sum(sums[f"{kind}_d"] / (2 * counts[kind] + 1e-5) for kind in ("foreground", "background"))
    return (positive + means["different"]) / 2, field / 2


def test_the_losses_are_those_of_a_loop_over_all_pairs():
    generator = torch.Generator().manual_seed(0)
    radius, shape = 3, (2, 5, 7)
    logits = torch.randn(shape, generator=generator)
    displacement = torch.randn(2, 2, 5, 7, generator=generator)
    labels = torch.tensor([0, 0, 1, 2, IGNORE], dtype=torch.uint8)
    labels = labels[torch.randint(5, shape, generator=generator)]
    net = fixed_net(logits.clone(), displacement.clone(), radius)
    losses = net.losses(batch_of(torch.zeros(2, 3, 20, 28), labels))
    given = [logits.clone().requires_grad_(), displacement.clone().requires_grad_()]
    pairs, field = looped_losses(*given, labels, radius)
    names = ("background_pairs", "foreground_pairs", "different_pairs")
    torch.testing.assert_close(sum(losses[name] for name in names), pairs)
    torch.testing.assert_close(losses["foreground_displacement"] + losses["background_displacement"], field)
    assert len(losses) == 5
    sum(losses.values()).backward()
    (pairs + field).backward()
    torch.testing.assert_close(net.boundary.value.grad, given[0].grad)
    torch.testing.assert_close(net.displacement.value.grad, given[1].grad)


def test_without_known_pairs_the_losses_are_zero_and_finite():
    net = fixed_net(torch.full((1, 5, 7), 40.0), torch.randn(1, 2, 5, 7), 3)  # a boundary of exactly 1
    losses = net.losses(
        batch_of(torch.zeros(1, 3, 20, 28), torch.full((1, 20, 28), IGNORE, dtype=torch.uint8))
    )
    sum(losses.values()).backward()
    assert [float(loss.detach()) for loss in losses.values()] == [0.0] * 5
    assert net.boundary.value.grad.isfinite().all()


def test_a_perfect_boundary_costs_nothing_and_its_absence_much():
    labels = torch.zeros(1, 24, 40, dtype=torch.uint8)
    labels[:, :, 20:] = 3
    labels[:, :, 16:20] = IGNORE  # the wall's own column
    wall = torch.full((1, 6, 10), -20.0)
    wall[:, :, 4] = 20.0
    images = torch.zeros(1, 3, 24, 40)
    for logits, is_good in ((wall, True), (torch.full((1, 6, 10), -20.0), False)):
        net = fixed_net(logits, torch.zeros(1, 2, 6, 10), 4)
        net.displacement = None
        with torch.no_grad():
            losses = net.losses(batch_of(images, labels))
        assert set(losses) == {"background_pairs", "foreground_pairs", "different_pairs"}
        assert float(losses["background_pairs"] + losses["foreground_pairs"]) == pytest.approx(0, abs=1e-4)
        expected = 0.0 if is_good else -math.log(1e-5) / 2
        assert float(losses["different_pairs"]) == pytest.approx(expected, abs=1e-2)


def test_labels_are_reduced_as_pil_reduces_them():
    labels = np.random.default_rng(0).integers(0, 256, (64, 48)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(labels).resize((12, 16), Image.Resampling.NEAREST))
    assert np.array_equal(on_grid(torch.from_numpy(labels)[None], (16, 12))[0].numpy(), expected)
    assert np.array_equal(expected, labels[2::4, 2::4])


def test_a_frozen_backbone_is_left_alone():
    torch.manual_seed(0)
    net = IRNet(build_backbone("resnet_small"), radius=3).train()
    assert not any(module.training for module in net.backbone.modules())
    before = {name: value.clone() for name, value in net.backbone.state_dict().items()}
    labels = torch.randint(0, 2, (2, 32, 32)).to(torch.uint8)
    sum(net.losses(batch_of(torch.randn(2, 3, 32, 32), labels)).values()).backward()
    optimizer = torch.optim.SGD(net.parameter_groups(0.1), lr=0.1)
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in net.backbone.state_dict().items())
    assert all(p.grad is None for p in net.backbone.parameters())
    assert all(p.grad is not None for p in net.boundary.parameters())


def test_a_trained_backbone_shares_the_rate_of_the_boundary():
    torch.manual_seed(0)
    net = IRNet(build_backbone("resnet_small"), radius=3, displacement=False, backbone_trains=True).train()
    labels = torch.randint(0, 2, (2, 32, 32)).to(torch.uint8)
    sum(net.losses(batch_of(torch.randn(2, 3, 32, 32), labels)).values()).backward()
    assert all(p.grad is not None for p in net.parameters())
    slow, fast = net.parameter_groups(0.1)
    assert (slow["lr"], len(slow["params"])) == (0.1, len(list(net.parameters())))
    assert fast["params"] == []


def test_mirrored_images_have_mirrored_boundaries():
    torch.manual_seed(0)
    net = IRNet(build_backbone("resnet_small"), displacement=False).eval()
    images = torch.randn(2, 3, 40, 48)
    with torch.no_grad():
        straight, mirrored = (flip_averaged_boundary(net, x, None) for x in (images, images.flip(3)))
        torch.testing.assert_close(straight, mirrored.flip(2))
        alone = torch.cat([flip_averaged_boundary(net, image[None], 64) for image in images])
        together = flip_averaged_boundary(net, images, 64)
    assert together.shape == (2, 10, 12)
    torch.testing.assert_close(alone, together)
    assert (together - straight).abs().max() > 1e-3  # group norms see the canvas


@pytest.mark.parametrize(
    ("size", "canvas", "expected"),
    [
        ((375, 500), 512, (512, 512)),
        ((512, 513), 512, (512, 528)),
        ((640, 480), 512, (640, 512)),
        ((375, 500), None, (375, 500)),
        ((1, 20), None, (8, 20)),
    ],
)
def test_the_canvas_pads_and_never_crops(size, canvas, expected):
    images = torch.rand(1, 3, *size) + 1
    padded = on_canvas(images, canvas, least=8)
    assert tuple(padded.shape[-2:]) == expected
    assert torch.equal(padded[..., : size[0], : size[1]], images)
    assert float(padded.sum()) == pytest.approx(float(images.sum()), rel=1e-5)


def test_misuse_says_what_to_do():
    with pytest.raises(ShapeError, match=r"grid_stride.*\[2, 4, 8\].*got 3"):
        IRNet(build_backbone("resnet_small"), grid_stride=3)
    net = IRNet(build_backbone("resnet_small"), displacement=False)
    with pytest.raises(ShapeError, match="must hold confident labels; got nothing"):
        net.losses(batch_of(torch.zeros(1, 3, 96, 96), None))
    with pytest.raises(StageError, match="no displacement branch"):
        net.displacements(torch.zeros(1, 3, 32, 32))
