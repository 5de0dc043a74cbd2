import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.errors import ShapeError, WeightsError
from wsss.layers.statistics import STATISTICS
from wsss.models.resnet import resnet101
from wsss.models.weights import read_weights
from wsss.segmentation import SegmentationConfig, build, without_weights
from wsss.segmentation.conventions import MEAN, STD, Conventions
from wsss.segmentation.deeplab import DeepLab
from wsss.segmentation.deeplab_v2 import AtrousPyramid
from wsss.segmentation.resnet101_deeplab import ResNet101DeepLab, resnet101_deeplab
from wsss.training.checkpoint import save_state

VOC = ("background", *(f"class{n}" for n in range(20)))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build(SegmentationConfig(), VOC)


def test_it_has_as_many_parameters_as_the_published_net(net):
    assert sum(p.numel() for p in net.parameters()) == 44_048_532
    norms = [p for m in net.modules() if isinstance(m, _BatchNorm) for p in m.parameters()]
    assert sum(p.numel() for p in norms) == 105_344
    assert not any(p.requires_grad for p in norms)
    assert len(net.state_dict()) == 632


def test_grids_of_the_scales_for_crops_of_321():
    def side(image_side):
        """Sizes of the strided layers alone: 7x7 stride 2, pooling rounded up, 1x1 stride 2."""
        with torch.device("meta"):
            backbone = ResNet101DeepLab()
            return backbone(torch.zeros(1, 3, image_side, image_side)).shape[-1]

    assert [side(s) for s in (321, 160, 240)] == [41, 21, 31]
    with torch.device("meta"):
        net = DeepLab(ResNet101DeepLab(), AtrousPyramid(2048, 21, (6, 12, 18, 24)), 21, scales=(0.5, 0.75))
        outputs = net.outputs(torch.zeros(1, 3, 321, 321))
    assert [tuple(o.shape[1:]) for o in outputs.values()] == [(21, n, n) for n in (41, 21, 31, 41)]


def test_every_block_of_a_dilated_stage_is_dilated_and_the_first_1x1_carries_the_stride(net):
    for number, dilation, stride in ((2, 1, 1), (3, 1, 2), (4, 2, 1), (5, 4, 1)):
        for index, block in enumerate(net.backbone.get_submodule(f"layer{number}").children()):
            assert block.conv3x3.conv.dilation == (dilation, dilation)
            assert block.conv3x3.conv.stride == (1, 1)
            assert block.reduce.conv.stride == ((stride, stride) if index == 0 else (1, 1))
            assert isinstance(block.shortcut, torch.nn.Identity) == (index > 0)


def test_images_reach_the_first_layer_as_bgr_levels_minus_the_caffe_mean(net):
    seen = []
    handle = net.backbone.layer1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    levels = torch.tensor([10.0, 20.0, 30.0])[None, :, None, None].expand(1, 3, 9, 9)
    mean, std = (torch.tensor(v)[:, None, None] for v in (net.mean, net.std))
    with torch.no_grad():
        net.logits((levels / 255 - mean) / std)
    handle.remove()
    expected = torch.tensor([30 - 104.008, 20 - 116.669, 10 - 122.675])
    assert torch.allclose(seen[0][0, :, 0, 0], expected, atol=1e-3)
    assert (net.mean, net.std) == (MEAN, STD)


def test_published_files_load_with_and_without_prefix(net, tmp_path):
    state = {f"base.{name}": value + 1 for name, value in net.backbone.state_dict().items()}
    state = {name: value for name, value in state.items() if "num_batches" not in name}
    state["base.aspp.c0.weight"] = torch.zeros(1)
    save_state(tmp_path / "init.safetensors", state)
    loaded = resnet101_deeplab(weights=tmp_path / "init.safetensors")
    name = "layer4.block23.conv3x3.conv.weight"
    assert torch.equal(loaded.state_dict()[name], net.backbone.state_dict()[name] + 1)
    del state["base.layer1.conv1.conv.weight"]
    save_state(tmp_path / "broken.safetensors", state)
    with pytest.raises(WeightsError, match=r"missing.*layer1.conv1"):
        resnet101_deeplab(weights=tmp_path / "broken.safetensors")


def test_other_output_strides_are_refused():
    with pytest.raises(ShapeError, match="must be 8"):
        resnet101_deeplab(output_stride=16)


def test_the_pyramid_has_the_published_size():
    assert sum(p.numel() for p in AtrousPyramid(2048, 21, (6, 12, 18, 24)).parameters()) == 4 * (
        2048 * 9 * 21 + 21
    )


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory):
    """Random weights in torchvision's layout, statistics of the batch norms included."""
    torch.manual_seed(1)
    net = resnet101()
    for layer in net.modules():
        if isinstance(layer, _BatchNorm):
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
            torch.nn.init.normal_(layer.running_mean, 0, 0.1)
    path = tmp_path_factory.mktemp("weights") / "resnet101.pth"
    torch.save(net.state_dict(), path)
    return path, net.eval()


def test_weights_of_torchvision_bring_their_stride_and_their_colours(torchvision_file):
    path, reference = torchvision_file
    net = build(SegmentationConfig(weights=str(path)), VOC)
    assert (net.mean, net.std) == STATISTICS["imagenet"]
    first = net.backbone.get_submodule("layer3").block1
    assert first.reduce.conv.stride == (1, 1)
    assert first.conv3x3.conv.stride == (2, 2)
    assert first.shortcut.conv.stride == (2, 2)
    images = torch.randn(1, 3, 33, 41)  # of 8 n + 1 pixels: the same sizes, rounded up or down
    with torch.no_grad():
        taps = net.backbone.eval().stages(images)
        features = reference.maxpool(reference.relu(reference.bn1(reference.conv1(images))))
        assert torch.allclose(taps[0], features, atol=1e-5)
        features = reference.layer2(reference.layer1(features))
        assert features.shape[-2:] == taps[2].shape[-2:] == (5, 6)
        torch.testing.assert_close(taps[2], features, rtol=1e-4, atol=1e-4)


def test_what_goes_with_the_weights_is_kept_where_their_file_is_not(torchvision_file):
    config = SegmentationConfig(weights=str(torchvision_file[0]))
    kept = without_weights(config, build(config, VOC))
    assert kept.weights is None
    again = SegmentationConfig.model_validate_json(kept.model_dump_json())
    with torch.device("meta"):
        net = build(again, VOC)
    assert net.backbone.get_submodule("layer3").block1.conv3x3.conv.stride == (2, 2)
    assert (net.mean, net.std) == STATISTICS["imagenet"]
    caffe = SegmentationConfig(conventions={"stride_in_1x1": False})
    assert caffe.conventions == Conventions(preprocess="bgr_levels", stride_in_1x1=False)


def test_dilated_stages_of_torchvisions_weights_equal_a_dilated_torchvision_network(torchvision_file):
    path, reference = torchvision_file
    for number, dilation in ((3, 2), (4, 4)):
        for block in reference.get_submodule(f"layer{number}"):
            block.conv2.stride, block.conv2.dilation, block.conv2.padding = (
                (1, 1),
                (dilation,) * 2,
                (dilation,) * 2,
            )
            if block.downsample is not None:
                block.downsample[0].stride = (1, 1)
    images = torch.randn(1, 3, 17, 17)
    with torch.no_grad():
        features = reference(images)
        torch.testing.assert_close(
            resnet101_deeplab(weights=path).eval()(images), features, rtol=1e-3, atol=1e-3
        )


def test_a_torchvision_net_inside_a_methods_checkpoint_keeps_its_conventions(torchvision_file, tmp_path):
    """The names prove whose it is, whatever stands before them."""
    state = {f"backbone.{name}": value for name, value in read_weights(torchvision_file[0]).items()}
    save_state(tmp_path / "cam.safetensors", state | {"classifier.weight": torch.zeros(3, 2048, 1, 1)})
    loaded = resnet101_deeplab(weights=tmp_path / "cam.safetensors")
    assert loaded.conventions == Conventions(preprocess="imagenet", stride_in_1x1=False)


def test_a_net_of_either_convention_must_be_told_which(net, tmp_path):
    state = {f"backbone.{name}": value for name, value in net.backbone.state_dict().items()}
    save_state(tmp_path / "ours.safetensors", state)
    with pytest.raises(WeightsError, match=r"segmentation\.conventions"):
        resnet101_deeplab(weights=tmp_path / "ours.safetensors")
    told = Conventions(preprocess="imagenet", stride_in_1x1=False)
    assert resnet101_deeplab(weights=tmp_path / "ours.safetensors", conventions=told).conventions == told
