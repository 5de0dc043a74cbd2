import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss.segmentation import SegmentationConfig, build
from wsss.segmentation.deeplab_v1 import LargeFov, WideResNetHead
from wsss.segmentation.deeplab_v2 import AtrousPyramid

VOC = ("background", *(f"class{n}" for n in range(20)))


def slow_convolution(features, layer):
    """One output at a time: the sum over taps that lie inside the image."""
    weight, bias, (rate, _) = layer.weight.detach(), layer.bias.detach(), layer.dilation
    reach = layer.kernel_size[0] // 2
    batch, _, height, width = features.shape
    out = bias[None, :, None, None].repeat(batch, 1, height, width)
    for y in range(height):
        for x in range(width):
            for i in range(-reach, reach + 1):
                for j in range(-reach, reach + 1):
                    row, column = y + i * rate, x + j * rate
                    if 0 <= row < height and 0 <= column < width:
                        taps = weight[:, :, i + reach, j + reach]
                        out[:, :, y, x] += features[:, :, row, column] @ taps.T
    return out


def with_random_biases(head):
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.bias)
    return head.eval()


def test_the_large_field_of_view_is_three_convolutions_the_first_dilated():
    torch.manual_seed(0)
    head, features = with_random_biases(LargeFov(3, 4, 2)), torch.randn(2, 3, 7, 6)
    hidden = slow_convolution(features, head.fc6).clamp(min=0)
    expected = slow_convolution(slow_convolution(hidden, head.fc7).clamp(min=0), head.fc8)
    assert torch.allclose(head(features), expected, atol=1e-5)


def test_in_training_half_the_values_behind_fc6_and_fc7_are_dropped():
    torch.manual_seed(0)
    head = LargeFov(2, 3, 1)
    for layer, value in ((head.fc6, 1.0), (head.fc8, 1 / 16)):
        nn.init.constant_(layer.weight, 0)
        nn.init.constant_(layer.bias, value if layer is head.fc6 else 0)
    nn.init.constant_(head.fc7.weight, 0)
    for channel in range(4):
        head.fc7.weight.data[channel, channel] = 1
    nn.init.zeros_(head.fc7.bias)
    nn.init.constant_(head.fc8.weight, 0.25)
    found = head.train()(torch.zeros(64, 2, 8, 8)).detach()
    # a value survives both dropouts with probability 1/4, and is then 4
    assert set(found.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert float(found.mean()) == pytest.approx(1, abs=0.05)


def test_the_head_of_wide_resnet_is_two_dilated_convolutions_with_a_relu_between():
    torch.manual_seed(0)
    head, features = with_random_biases(WideResNetHead(3, 4, 2)), torch.randn(1, 3, 5, 6)
    hidden = slow_convolution(features, head.hidden).clamp(min=0)
    assert hidden.shape[1] == 512
    assert torch.allclose(head(features), slow_convolution(hidden, head.classifier), atol=1e-4)


def test_published_sizes_of_the_heads():
    def count(module):
        return sum(p.numel() for p in module.parameters())

    fc6, fc7 = 512 * 9 * 1024 + 1024, 1024 * 1024 + 1024
    assert count(LargeFov(512, 21, 12)) == fc6 + fc7 + 1024 * 21 + 21
    assert count(WideResNetHead(4096, 21, 12)) == 4096 * 9 * 512 + 512 + 512 * 9 * 21 + 21
    assert all(layer.dilation == (12, 12) for layer in WideResNetHead(8, 3, 12).children())


@pytest.mark.parametrize(
    ("preset", "backbone", "head", "parameters"),
    [
        ("vgg16_v1", None, LargeFov, 20_483_904 + 1024 * 21 + 21),
        ("resnet38_v1", None, WideResNetHead, 105_070_912 + 4096 * 9 * 512 + 512 + 512 * 9 * 21 + 21),
        ("resnet101_v1", None, AtrousPyramid, 42_500_160 + 2048 * 9 * 21 + 21),
        ("scenes_v1_vgg", "resnet50", AtrousPyramid, None),
        ("scenes_v1_vgg", None, LargeFov, None),
        ("scenes_v1_resnet", None, AtrousPyramid, None),
    ],
)
def test_each_backbone_has_its_head_of_one_dilation(preset, backbone, head, parameters):
    given = {} if backbone is None else {"backbone": backbone, "output_stride": None}
    with torch.device("meta"):
        net = build(SegmentationConfig(preset=preset, **given), VOC)
        (logits,) = net.outputs(torch.zeros(2, 3, 33, 33)).values()
    assert type(net.head) is head
    assert logits.shape[:2] == (2, 21)
    assert parameters is None or sum(p.numel() for p in net.parameters()) == parameters


def test_more_than_one_dilation_is_refused():
    with pytest.raises(ValueError, match=r"`rates` of deeplab_v1 must be one dilation.*rates: \[12\]"):
        SegmentationConfig(network="deeplab_v1")


def test_new_layers_start_small_and_without_bias():
    for layer in (LargeFov(64, 21, 2).fc8, WideResNetHead(8, 21, 2).classifier):
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
        assert float(layer.bias.detach().abs().max()) == 0


def test_given_weights_start_fc6_and_fc7():
    other = LargeFov(4, 3, 1)
    start = {name: value for name, value in other.state_dict().items() if not name.startswith("fc8")}
    head = LargeFov(4, 5, 2, start)
    assert all(torch.equal(head.state_dict()[name], value) for name, value in start.items())
    features = torch.randn(1, 4, 5, 5)
    hidden = F.conv2d(features, start["fc6.weight"], start["fc6.bias"], padding=2, dilation=2).relu()
    hidden = F.conv2d(hidden, start["fc7.weight"], start["fc7.bias"]).relu()
    assert torch.allclose(head.eval()(features), head.fc8(hidden), atol=1e-6)
