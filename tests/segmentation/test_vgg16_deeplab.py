import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import vgg16

from wsss.errors import ShapeError, WeightsError
from wsss.layers.statistics import STATISTICS
from wsss.models.vgg16 import GROUPS, Vgg16
from wsss.segmentation import SegmentationConfig, build
from wsss.segmentation.conventions import MEAN, STD
from wsss.segmentation.vgg16_deeplab import Vgg16DeepLab, vgg16_deeplab
from wsss.training.checkpoint import load_state, save_state

VOC = ("background", *(f"class{n}" for n in range(20)))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    net = Vgg16(pool5=True)
    path = tmp_path_factory.mktemp("weights") / "vgg16.safetensors"
    save_state(path, net.state_dict())
    return path


def test_it_is_the_network_of_caffe_step_by_step(weights):
    net = vgg16_deeplab(weights=weights).eval()
    levels = torch.randint(0, 256, (1, 3, 26, 28)).float()
    caffe = levels.flip(1) - torch.tensor([104.008, 116.669, 122.675])[:, None, None]
    state = net.state_dict()
    features = caffe
    for group, (count, _) in enumerate(GROUPS, start=1):
        for number in range(1, count + 1):
            name, rate = f"conv{group}_{number}", 2 if group == 5 else 1
            features = F.conv2d(
                features, state[f"{name}.weight"], state[f"{name}.bias"], padding=rate, dilation=rate
            ).relu()
        stride = 2 if group < 4 else 1
        features = F.max_pool2d(features, 3, stride, 1, ceil_mode=True)
    expected = F.avg_pool2d(features, 3, 1, 1)
    mean, std = (torch.tensor(values)[:, None, None] for values in net.conventions.statistics)
    with torch.no_grad():
        found = net((levels / 255 - mean) / std)
    assert found.shape == (1, 512, math.ceil(26 / 8) + 1, math.ceil(28 / 8) + 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    assert net.conventions.statistics == (MEAN, STD)


def test_crops_of_321_give_grids_of_41_and_sizes_are_rounded_up():
    with torch.device("meta"):
        net = Vgg16DeepLab()
        assert net(torch.zeros(1, 3, 321, 321)).shape == (1, 512, 41, 41)
        assert net(torch.zeros(1, 3, 322, 330)).shape[-2:] == (42, 43)
        assert Vgg16(pool5=True)(torch.zeros(1, 3, 322, 330)).shape[-2:] == (41, 42)


def test_taps_are_as_announced():
    net = Vgg16DeepLab()
    taps = net.stages(torch.zeros(1, 3, 33, 33))
    assert tuple(tap.shape[1] for tap in taps) == net.stage_channels
    assert [tap.shape[-1] for tap in taps] == [32 // stride + 1 for stride in net.stage_strides]
    assert sum(p.numel() for p in net.parameters()) == 14_714_688


@pytest.mark.parametrize("preset", ["vgg16_v1", "vgg16_v2"])
def test_fc6_and_fc7_of_the_file_start_the_heads_branches(preset, weights):
    net = build(SegmentationConfig(preset=preset, weights=str(weights)), VOC)
    branches = [net.head] if preset == "vgg16_v1" else net.head.branches
    published = vgg16_deeplab(weights=weights).fc
    assert set(published) == {"fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias"}
    assert [b.fc6.dilation[0] for b in branches] == ([12] if preset == "vgg16_v1" else [6, 12, 18, 24])
    for branch in branches:
        assert all(torch.equal(branch.state_dict()[name], value) for name, value in published.items())
    assert not torch.equal(branches[0].fc8.weight, branches[-1].fc8.weight) or len(branches) == 1
    assert (net.mean, net.std) == (MEAN, STD)
    assert not any("fc" in name for name in net.backbone.state_dict())


def test_rates_of_caffe_1_2_10_20_with_each_parameter_once():
    with torch.device("meta"):
        net = build(SegmentationConfig(preset="vgg16_v2"), VOC)
    groups = net.parameter_groups(1e-3)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in net.parameters())
    rates = {id(p): (group["lr"], group.get("weight_decay")) for group in groups for p in group["params"]}
    for name, parameter in net.named_parameters():
        is_new, is_bias = ".fc8." in name, name.endswith("bias")
        rate = 1e-3 * (10 if is_new else 1) * (2 if is_bias else 1)
        assert rates[id(parameter)] == (pytest.approx(rate), 0.0 if is_bias else None), name


def test_torchvisions_weights_bring_their_colours_but_no_fc(tmp_path, caplog):
    torch.manual_seed(1)
    with torch.device("meta"):
        own = vgg16(weights=None).state_dict()
    small = {name: torch.randn(value.shape) for name, value in own.items() if "features" in name}
    plain = {n: torch.zeros(1).expand(value.shape) for n, value in own.items() if "classifier" in n}
    save_state(tmp_path / "vgg16.safetensors", small)
    net = vgg16_deeplab(weights=tmp_path / "vgg16.safetensors")
    assert net.fc == {}
    assert "random weights" in caplog.text
    assert net.conventions.statistics == STATISTICS["imagenet"]
    assert torch.equal(net.state_dict()["conv5_3.weight"], small["features.28.weight"])
    images, seen = torch.randn(1, 3, 9, 9), []
    net.get_submodule("conv1_1").register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    net(images)
    assert torch.equal(seen[0], images)
    torch.save({**small, **plain}, tmp_path / "whole.pth")
    assert vgg16_deeplab(weights=tmp_path / "whole.pth").fc == {}


def test_weights_of_another_network_are_refused(tmp_path, weights):
    state = {name: value for name, value in load_state(weights)[0].items() if "conv3" not in name}
    save_state(tmp_path / "broken.safetensors", state)
    with pytest.raises(WeightsError, match=r"does not fit vgg16: missing \['conv3_1"):
        vgg16_deeplab(weights=tmp_path / "broken.safetensors")


def test_other_output_strides_are_refused():
    with pytest.raises(ShapeError, match="must be 8"):
        vgg16_deeplab(output_stride=16)
