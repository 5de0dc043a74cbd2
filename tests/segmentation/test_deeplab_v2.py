import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.errors import RecipeError, ShapeError
from wsss.models.backbone import Backbone
from wsss.segmentation import SegmentationConfig, build
from wsss.segmentation.deeplab_v2 import AtrousPyramid, DeepLabV2
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


def test_the_pyramid_starts_small_and_without_bias():
    pyramid = AtrousPyramid(256, 21, (6, 12))
    assert float(pyramid.branches[0].weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert float(pyramid.branches[0].bias.detach().abs().max()) == 0


def test_outputs_are_the_scales_and_their_maximum(batch):
    net = DeepLabV2(FakeBackbone(), 3, rates=(1, 2)).eval()
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
    net = DeepLabV2(FakeBackbone(), 3, rates=(1,)).eval()
    losses = net.losses(batch)
    for name, logits in net.outputs(batch.images).items():
        expected = cross_entropy(logits, labels_at(batch.aligned["target"], logits.shape[2:]))
        assert torch.equal(losses[name], expected)
    assert losses.keys() == net.outputs(batch.images).keys()


def test_the_loss_at_the_image_enlarges_the_logits(batch):
    net = DeepLabV2(FakeBackbone(), 3, rates=(1,), scales=(), loss_at="image").eval()
    logits = F.interpolate(net.logits(batch.images), size=(33, 29), mode="bilinear", align_corners=False)
    assert torch.equal(net.losses(batch)["cross_entropy"], cross_entropy(logits, batch.aligned["target"]))


def test_a_batch_without_target_is_refused(batch):
    with pytest.raises(ShapeError, match="target"):
        DeepLabV2(FakeBackbone(), 3).losses(
            Batch(batch.images, batch.image_labels, batch.image_ids, batch.valid)
        )


def test_groups_have_rates_1_10_20_and_biases_do_not_decay():
    net = DeepLabV2(FakeBackbone().freeze(batch_norm="frozen"), 3, rates=(1, 2))
    groups = {group["lr"]: group for group in net.parameter_groups(1e-3) if "weight_decay" not in group}
    assert set(groups) == {1e-3, 1e-2}
    undecayed = [group for group in net.parameter_groups(1e-3) if group.get("weight_decay") == 0.0]
    assert {id(p) for p in undecayed[-1]["params"]} == {id(branch.bias) for branch in net.head.branches}
    assert undecayed[-1]["lr"] == pytest.approx(2e-2)
    assert {id(p) for p in groups[1e-2]["params"]} == {id(branch.weight) for branch in net.head.branches}


@pytest.mark.parametrize("mode", ["live", "frozen"])
def test_frozen_batch_norms_are_in_no_group_and_every_other_parameter_is_in_one(mode):
    net = DeepLabV2(FakeBackbone().freeze(batch_norm=mode), 3)
    grouped = [id(p) for group in net.parameter_groups(1.0) for p in group["params"]]
    norms = {id(p) for m in net.modules() if isinstance(m, _BatchNorm) for p in m.parameters()}
    everything = {id(p) for p in net.parameters()}
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == (everything if mode == "live" else everything - norms)


def test_frozen_batch_norms_do_not_move_in_training(batch):
    net = DeepLabV2(FakeBackbone().freeze(batch_norm="frozen"), 3).train()
    before = copy.deepcopy(net.state_dict())
    net.losses(batch)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_small_net_learns_four_images_by_heart(tmp_path):
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
    config = SegmentationConfig(preset="scenes", rates=(1, 2))
    net = build(config, NAMES)
    training = TrainingConfig(steps=40, optimizer="adamw", learning_rate=3e-3, log_every=20)
    result = train(net, Four(), training, work_dir=tmp_path, seed=0)
    logits = F.interpolate(net.eval().logits(images), size=(32, 32), mode="bilinear", align_corners=False)
    assert float((logits.argmax(1) == target).float().mean()) > 0.95
    assert result.final_losses["cross_entropy"] < 0.2


def test_presets_fill_what_is_not_given():
    published = SegmentationConfig()
    assert published.rates == (6, 12, 18, 24)
    assert (published.training.steps, published.training.momentum) == (20_000, 0.9)
    assert (published.training.batch_size, published.training.accumulate) == (5, 2)
    scenes = SegmentationConfig(
        preset="scenes", rates=(1,), training={"steps": 7, "augmentation": {"long_side": (9, 9)}}
    )
    assert scenes.backbone == "resnet_small"
    assert (scenes.rates, scenes.training.steps, scenes.training.epochs) == ((1,), 7, None)
    assert (scenes.training.optimizer, scenes.training.augmentation.scale) == ("adamw", None)


@pytest.mark.parametrize("preset", ["voc12", "scenes"])
def test_a_resolved_configuration_resolves_to_itself(preset):
    config = SegmentationConfig(preset=preset, training={"steps": 3})
    assert SegmentationConfig.model_validate(config.model_dump()) == config
    assert SegmentationConfig.model_validate_json(config.model_dump_json()) == config


def test_mistakes_in_the_configuration_are_refused():
    with pytest.raises(ValueError, match="unknown"):
        SegmentationConfig(unknown=1)
    with pytest.raises(ValueError, match="preset"):
        SegmentationConfig(preset="coco")
    with pytest.raises(ValueError, match="exactly one"):
        SegmentationConfig(training={"steps": 1, "epochs": 1})
    with pytest.raises((ShapeError, RecipeError), match="output_stride"):
        build(SegmentationConfig(preset="scenes", output_stride=3), NAMES)
