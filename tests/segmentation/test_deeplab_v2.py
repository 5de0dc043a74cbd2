import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.errors import ShapeError
from wsss.models.backbone import Backbone
from wsss.segmentation import SegmentationConfig, build
from wsss.segmentation.deeplab import DeepLab
from wsss.segmentation.deeplab_v2 import AtrousPyramid, LargeFovPyramid
from wsss.segmentation.losses import cross_entropy, labels_at
from wsss.training.config import TrainingConfig
from wsss.training.loop import train
from wsss.types import IGNORE, Batch

NAMES = ("background", "cat", "dog")


class FakeBackbone(Backbone):
    """One strided convolution."""

    out_channels, output_stride, stage_channels, stage_strides = 8, 4, (8,), (4,)

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(3, 8, 7, 4, 3), nn.BatchNorm2d(8), nn.ReLU())

    def parts(self):
        return ((self.layer,),)


def deeplab(backbone=None, rates=(6, 12, 18, 24), scales=(0.5, 0.75), **options):
    backbone = backbone or FakeBackbone()
    return DeepLab(backbone, AtrousPyramid(8, 3, rates), 3, scales=scales, **options)


def batch_of(images, target):
    size = images.shape[-2:]
    labels = torch.zeros(len(images), 2, dtype=torch.bool)
    valid = torch.ones(len(images), *size, dtype=torch.bool)
    return Batch(images, labels, tuple(str(n) for n in range(len(images))), valid, {"target": target})


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (2, 33, 29), generator=generator).to(torch.uint8)
    target[:, :5] = IGNORE
    return batch_of(torch.randn(2, 3, 33, 29, generator=generator), target)


def test_the_pyramid_is_a_sum_of_dilated_convolutions_with_bias():
    pyramid = AtrousPyramid(5, 3, (1, 2, 4))
    features = torch.randn(2, 5, 9, 7)
    for branch in pyramid.branches:
        nn.init.normal_(branch.bias)
    expected = sum(
        F.conv2d(features, branch.weight, branch.bias, padding=rate, dilation=rate)
        for branch, rate in zip(pyramid.branches, (1, 2, 4), strict=True)
    )
    assert torch.allclose(pyramid(features), expected, atol=1e-5)


def test_the_pyramid_of_vgg_is_a_sum_of_large_fields_of_view():
    pyramid = LargeFovPyramid(3, 4, (1, 2, 4)).eval()
    features = torch.randn(2, 3, 9, 7)
    expected = torch.zeros(2, 4, 9, 7)
    for branch, rate in zip(pyramid.branches, (1, 2, 4), strict=True):
        hidden = F.conv2d(features, branch.fc6.weight, branch.fc6.bias, padding=rate, dilation=rate).relu()
        hidden = F.conv2d(hidden, branch.fc7.weight, branch.fc7.bias).relu()
        expected = expected + F.conv2d(hidden, branch.fc8.weight, branch.fc8.bias)
    assert torch.allclose(pyramid(features), expected, atol=1e-6)
    assert pyramid.new_layers() == [branch.fc8 for branch in pyramid.branches]


def test_the_pyramid_starts_small_and_without_bias():
    pyramid = AtrousPyramid(256, 21, (6, 12))
    assert float(pyramid.branches[0].weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert float(pyramid.branches[0].bias.detach().abs().max()) == 0


def test_outputs_are_the_scales_and_their_maximum(batch):
    net = deeplab(rates=(1, 2)).eval()
    outputs = net.outputs(batch.images)
    assert list(outputs) == ["scale_1", "scale_0.5", "scale_0.75", "scale_max"]
    whole = net.head(net.backbone(batch.images))
    candidates = [whole]
    for scale in (0.5, 0.75):
        images = F.interpolate(batch.images, scale_factor=scale, mode="bilinear", align_corners=False)
        logits = net.head(net.backbone(images))
        assert torch.equal(outputs[f"scale_{scale:g}"], logits)
        candidates.append(F.interpolate(logits, size=whole.shape[2:], mode="bilinear", align_corners=False))
    assert torch.equal(outputs["scale_max"], torch.maximum(torch.maximum(*candidates[:2]), candidates[2]))
    assert torch.equal(net.logits(batch.images), outputs["scale_max"])


def test_the_loss_is_one_cross_entropy_per_output_on_its_own_grid(batch):
    net = deeplab(rates=(1,)).eval()
    losses = net.losses(batch)
    for name, logits in net.outputs(batch.images).items():
        expected = cross_entropy(logits, labels_at(batch.aligned["target"], logits.shape[2:]))
        assert torch.equal(losses[name], expected)
    assert losses.keys() == net.outputs(batch.images).keys()


def test_the_loss_at_the_image_enlarges_the_logits(batch):
    net = deeplab(rates=(1,), scales=(), loss_at="image").eval()
    logits = F.interpolate(net.logits(batch.images), size=(33, 29), mode="bilinear", align_corners=False)
    assert torch.equal(net.losses(batch)["cross_entropy"], cross_entropy(logits, batch.aligned["target"]))


def test_a_batch_without_target_is_refused(batch):
    with pytest.raises(ShapeError, match="target"):
        deeplab().losses(Batch(batch.images, batch.image_labels, batch.image_ids, batch.valid))


def test_groups_have_rates_1_10_20_and_biases_do_not_decay():
    net = deeplab(FakeBackbone().freeze(batch_norm="frozen"), rates=(1, 2))
    groups = {group["lr"]: group for group in net.parameter_groups(1e-3) if "weight_decay" not in group}
    assert set(groups) == {1e-3, 1e-2}
    norms, biases, others = (g for g in net.parameter_groups(1e-3) if g.get("weight_decay") == 0.0)
    assert not norms["params"]
    assert {id(p) for p in biases["params"]} == {id(branch.bias) for branch in net.head.branches}
    assert biases["lr"] == pytest.approx(2e-2)
    assert [id(p) for p in others["params"]] == [id(net.backbone.layer[0].bias)]
    assert others["lr"] == pytest.approx(2e-3)
    assert {id(p) for p in groups[1e-2]["params"]} == {id(branch.weight) for branch in net.head.branches}


@pytest.mark.parametrize("mode", ["live", "frozen"])
def test_frozen_batch_norms_are_in_no_group_and_every_other_parameter_is_in_one(mode):
    net = deeplab(FakeBackbone().freeze(batch_norm=mode))
    grouped = [id(p) for group in net.parameter_groups(1.0) for p in group["params"]]
    norms = {id(p) for m in net.modules() if isinstance(m, _BatchNorm) for p in m.parameters()}
    everything = {id(p) for p in net.parameters()}
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == (everything if mode == "live" else everything - norms)


def test_frozen_batch_norms_do_not_move_in_training(batch):
    net = deeplab(FakeBackbone().freeze(batch_norm="frozen")).train()
    before = copy.deepcopy(net.state_dict())
    net.losses(batch)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("preset", ["scenes", "scenes_v1_vgg"])
def test_a_small_net_learns_four_images_by_heart(tmp_path, preset):
    generator = torch.Generator().manual_seed(1)
    target = torch.zeros(4, 32, 32, dtype=torch.uint8)
    images = 0.3 * torch.randn(4, 3, 32, 32, generator=generator)
    for index in range(4):
        top, left = 4 * index, 16 - 4 * index
        target[index, top : top + 14, left : left + 14] = 1 + index % 2
        images[index, index % 2, top : top + 14, left : left + 14] += 1
    whole = batch_of(images, target)

    class Four:
        steps_per_epoch = 1

        def epoch(self, epoch, first_step=0):
            yield whole

    torch.manual_seed(0)
    config = SegmentationConfig(preset=preset, rates=(1,) if "v1" in preset else (1, 2))
    net = build(config, NAMES)
    steps = 70 if "vgg" in preset else 40  # dropout and a coarse grid
    training = TrainingConfig(steps=steps, optimizer="adamw", learning_rate=3e-3, log_every=20)
    result = train(net, Four(), training, work_dir=tmp_path, seed=0)
    logits = F.interpolate(net.eval().logits(images), size=(32, 32), mode="bilinear", align_corners=False)
    assert float((logits.argmax(1) == target).float().mean()) > 0.95
    assert result.final_losses["cross_entropy"] < 0.2
