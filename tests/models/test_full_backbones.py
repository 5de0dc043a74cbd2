"""WideResNet-38, VGG-16 and timm's networks: sizes, taps against plain recomputations, freezing, weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from wsss.errors import RecipeError, ShapeError, WeightsError
from wsss.layers.cam_backbone import freeze_batch_norm_affine
from wsss.methods.base import Frozen
from wsss.methods.cam import Cam, CamConfig
from wsss.models import build_backbone, weights
from wsss.models.backbone import Backbone
from wsss.models.timm_backbone import timm_backbone
from wsss.models.vgg16 import vgg16
from wsss.models.wide_resnet38 import WideResNet38, wide_resnet38
from wsss.types import Batch

TIMM_NAMES = (  # one of each kind of feature network, and of each kind of names
    "resnet10t",
    "convnext_atto",
    "mobilenetv3_small_050",
    "swin_tiny_patch4_window7_224",
    "vit_tiny_patch16_224",
    "pit_ti_224",
)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def without_gradient(net: nn.Module) -> set[str]:
    return {name for name, parameter in net.named_parameters() if parameter.grad is None}


def assert_taps_are_as_announced(net: Backbone, taps: list[Tensor], size: int) -> None:
    assert tuple(tap.shape[1] for tap in taps) == net.stage_channels
    assert tuple(size // tap.shape[2] for tap in taps) == net.stage_strides
    assert (net.stage_channels[-1], net.stage_strides[-1]) == (net.out_channels, net.output_stride)


# WideResNet-38


@pytest.fixture(scope="module")
def wide() -> WideResNet38:
    """One network for all tests that don't change it, with batch norms that do something."""
    torch.manual_seed(0)
    net = wide_resnet38(batch_norm="frozen", freeze_until=1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return net


def plain_wide_resnet38(state: dict[str, Tensor], images: Tensor) -> dict[str, Tensor]:
    """PSA's forward pass, block after block, from section 3 of the paper and the table of PSA's network."""

    def activated(name: str, x: Tensor) -> Tensor:
        scale = state[f"{name}.weight"] / (state[f"{name}.running_var"] + 1e-5).sqrt()
        shift = state[f"{name}.bias"] - scale * state[f"{name}.running_mean"]
        return (x * scale[:, None, None] + shift[:, None, None]).clamp(min=0)

    def convolved(name: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        padding = dilation if weight.shape[-1] == 3 else 0
        return F.conv2d(x, weight, stride=stride, padding=padding, dilation=dilation)

    def block(name: str, x: Tensor, stride: int, first_dilation: int, dilation: int) -> Tensor:
        a = activated(f"{name}.bn_branch2a", x)
        branch = convolved(f"{name}.conv_branch2a", a, stride, first_dilation)
        branch = activated(f"{name}.bn_branch2b1", branch)
        branch = convolved(f"{name}.conv_branch2b1", branch, 1, dilation)
        shortcut = x
        if name in ("b2", "b3", "b4", "b5"):
            shortcut = convolved(f"{name}.conv_branch1", a, stride)
        return shortcut + branch

    def bottleneck(name: str, x: Tensor) -> Tensor:
        a = activated(f"{name}.bn_branch2a", x)
        branch = activated(f"{name}.bn_branch2b1", convolved(f"{name}.conv_branch2a", a))
        branch = activated(f"{name}.bn_branch2b2", convolved(f"{name}.conv_branch2b1", branch, 1, 4))
        return convolved(f"{name}.conv_branch1", a) + convolved(f"{name}.conv_branch2b2", branch)

    taps = {}
    x = convolved("conv1a", images)
    taps["b2"] = activated("b2.bn_branch2a", x)
    for name in ("b2", "b2_1", "b2_2"):
        x = block(name, x, 2 if name == "b2" else 1, 1, 1)
    taps["b3"] = activated("b3.bn_branch2a", x)
    for name in ("b3", "b3_1", "b3_2"):
        x = block(name, x, 2 if name == "b3" else 1, 1, 1)
    taps["b4"] = activated("b4.bn_branch2a", x)
    for name in ("b4", "b4_1", "b4_2", "b4_3", "b4_4", "b4_5"):
        x = block(name, x, 2 if name == "b4" else 1, 1, 1)
    taps["conv4"] = activated("b5.bn_branch2a", x)
    x = block("b5", x, 1, 1, 2)
    x = block("b5_1", x, 1, 2, 2)
    x = block("b5_2", x, 1, 2, 2)
    taps["conv5"] = activated("b6.bn_branch2a", x)
    x = bottleneck("b7", bottleneck("b6", x))
    taps["conv6"] = activated("bn7", x)
    return taps


def test_wide_resnet38_has_the_parameters_layers_and_sizes_of_the_reference() -> None:
    with torch.device("meta"):
        net = wide_resnet38().eval()
        taps = net.stages(torch.zeros(1, 3, 448, 448))
        assert net(torch.zeros(1, 3, 321, 321)).shape == (1, 4096, 41, 41)
    assert parameters(net) == 105_070_912
    assert sum(isinstance(module, nn.Conv2d) for module in net.modules()) == 43  # 44 with the classifier
    assert sum(isinstance(module, nn.BatchNorm2d) for module in net.modules()) == 37
    assert not any(name.endswith("bias") and "bn" not in name for name, _ in net.named_parameters())
    assert [module.p for module in net.modules() if isinstance(module, nn.Dropout2d)] == [0.3, 0.3, 0.5, 0.5]
    assert_taps_are_as_announced(net, taps, 448)
    assert [tuple(tap.shape[1:]) for tap in taps[-3:]] == [(512, 56, 56), (1024, 56, 56), (4096, 56, 56)]


def test_wide_resnet38_has_the_names_of_the_published_weights() -> None:
    with torch.device("meta"):
        net = wide_resnet38()
    blocks = [f"b{group}{suffix}" for group in (2, 3, 5) for suffix in ("", "_1", "_2")]
    blocks += ["b4", *(f"b4_{number}" for number in range(1, 6))]
    expected = {"conv1a.weight"}
    norms = {"bn7"}
    for name in blocks:
        expected |= {f"{name}.conv_branch{branch}.weight" for branch in ("2a", "2b1")}
        norms |= {f"{name}.bn_branch{branch}" for branch in ("2a", "2b1")}
    for name in ("b6", "b7"):
        expected |= {f"{name}.conv_branch{branch}.weight" for branch in ("2a", "2b1", "2b2")}
        norms |= {f"{name}.bn_branch{branch}" for branch in ("2a", "2b1", "2b2")}
    expected |= {f"b{group}.conv_branch1.weight" for group in range(2, 8)}
    expected |= {f"{n}.{v}" for n in norms for v in ("weight", "bias", "running_mean", "running_var")}
    assert {name for name in net.state_dict() if "num_batches" not in name} == expected


def test_every_tap_of_wide_resnet38_is_that_of_a_plain_recomputation(wide: WideResNet38) -> None:
    images = torch.randn(2, 3, 32, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        taps = wide.eval().stages(images)
        expected = plain_wide_resnet38(wide.state_dict(), images)
        assert wide(images).equal(taps[-1])
    for tap, (name, value) in zip(taps, expected.items(), strict=True):
        assert value.std() > 0.01, name  # a tap of zeros would prove nothing
        torch.testing.assert_close(tap, value, rtol=1e-3, atol=1e-4 * float(value.max()), msg=name)


def test_wide_resnet38_activates_every_block_once(wide: WideResNet38) -> None:
    calls: list[str] = []
    norms = [(name, m) for name, m in wide.named_modules() if isinstance(m, nn.BatchNorm2d)]
    handles = [m.register_forward_hook(lambda *_, name=name: calls.append(name)) for name, m in norms]
    with torch.no_grad():
        wide.eval().stages(torch.zeros(1, 3, 16, 16))
    for handle in handles:
        handle.remove()
    assert sorted(calls) == sorted(name for name, _ in norms)


def test_psas_frozen_parts_of_wide_resnet38_get_no_gradient_and_its_batch_norms_never_move(
    wide: WideResNet38,
) -> None:
    before = {name: value.clone() for name, value in wide.named_buffers()}
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    wide.train()(images).mean().backward()
    frozen = {name.split(".")[0] for name in without_gradient(wide)}
    assert frozen == {"conv1a", "b2", "b2_1", "b2_2"}
    assert without_gradient(wide) == {n for n, p in wide.named_parameters() if not p.requires_grad}
    assert images.grad is None  # cut behind b2_2
    assert all(value.equal(before[name]) for name, value in wide.named_buffers())
    wide.zero_grad(set_to_none=True)


def test_frozen_affine_parameters_leave_only_convolutions_to_train() -> None:
    with torch.device("meta"):
        net = wide_resnet38(batch_norm="frozen", freeze_until=1)
    freeze_batch_norm_affine(net)
    trained = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
    assert all("conv_branch" in name for name in trained)
    assert len(trained) == 43 - 1 - 7  # conv1a, and b2 … b2_2 with their one 1x1 shortcut


def test_wide_resnet38_can_be_frozen_as_a_whole(wide: WideResNet38) -> None:
    whole = copy.copy(wide)  # shares everything but the number
    whole.freeze_until = 5
    assert not whole.eval()(torch.zeros(1, 3, 16, 16)).requires_grad
    assert wide.freeze_until == 1


# VGG-16


def plain_vgg16(state: dict[str, Tensor], x: Tensor, *, fc6_dilation: int, pool5: bool) -> list[Tensor]:
    """DeepLab's VGG-16: outputs of the five groups of convolutions, and of fc7."""

    def convolved(name: str, x: Tensor, dilation: int = 1, padding: int = 1) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.conv2d(x, weight, bias, padding=padding * dilation, dilation=dilation).clamp(min=0)

    def pooled(x: Tensor, stride: int) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
        windows = padded.unfold(2, 3, stride).unfold(3, 3, stride)
        return windows.amax(dim=(-1, -2))

    taps = []
    for group, names in enumerate(("12", "12", "123", "123", "123"), start=1):
        for number in names:
            x = convolved(f"conv{group}_{number}", x, dilation=2 if group == 5 else 1)
        taps.append(x)
        if group < 5:
            x = pooled(x, 2 if group < 4 else 1)
    if pool5:
        x = pooled(x, 1)
        x = F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).sum(dim=(-1, -2)) / 9
    x = convolved("fc7", convolved("fc6", x, dilation=fc6_dilation), padding=0)
    return [*taps, x]


def test_vgg16_has_the_parameters_names_and_sizes_of_the_reference() -> None:
    with torch.device("meta"):
        net = vgg16().eval()
        taps = net.stages(torch.zeros(1, 3, 448, 448))
        assert net(torch.zeros(1, 3, 321, 321)).shape == (1, 1024, 41, 41)
    assert parameters(net) == 14_714_688 + 512 * 1024 * 9 + 1024 + 1024 * 1024 + 1024
    names = [
        f"conv{group}_{n}" for group, count in enumerate((2, 2, 3, 3, 3), 1) for n in range(1, count + 1)
    ]
    expected = {f"{name}.{kind}" for name in (*names, "fc6", "fc7") for kind in ("weight", "bias")}
    assert set(net.state_dict()) == expected
    assert_taps_are_as_announced(net, taps, 448)
    assert [tuple(tap.shape[1:]) for tap in taps[-3:]] == [(512, 56, 56), (512, 56, 56), (1024, 56, 56)]


@pytest.mark.parametrize(("fc6_dilation", "pool5"), [(1, False), (4, False), (12, True)])
def test_every_tap_of_vgg16_is_that_of_a_plain_recomputation(fc6_dilation: int, pool5: bool) -> None:
    torch.manual_seed(0)
    net = vgg16(fc6_dilation=fc6_dilation, pool5=pool5).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.1, 0.1)
        images = torch.randn(1, 3, 40, 33)
        taps = net.stages(images)
        expected = plain_vgg16(net.state_dict(), images, fc6_dilation=fc6_dilation, pool5=pool5)
    for tap, value in zip(taps, expected, strict=True):
        assert value.std() > 0
        torch.testing.assert_close(tap, value, rtol=1e-3, atol=1e-5)


def test_the_first_tap_of_vgg16_is_torchvisions() -> None:
    torch.manual_seed(0)
    reference = make_layers(cfgs["D"])[:4].eval()
    net = vgg16().eval()
    net.conv1_1.load_state_dict(reference[0].state_dict())
    net.conv1_2.load_state_dict(reference[2].state_dict())
    images = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(net.stages(images)[0], reference(images))


def test_caffe_input_turns_imagenets_statistics_into_bgr_levels_minus_the_mean() -> None:
    torch.manual_seed(0)
    net = vgg16(caffe_input=True).eval()
    levels = torch.randint(0, 256, (1, 3, 16, 16)).float()  # RGB
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    caffe = levels[:, [2, 1, 0]] - torch.tensor([104.008, 116.669, 122.675]).view(3, 1, 1)
    with torch.no_grad():
        features = net((levels / 255 - mean) / std)
        net.caffe_input = False
        torch.testing.assert_close(features, net(caffe), rtol=1e-3, atol=1e-3)


def test_psas_frozen_parts_of_vgg16_get_no_gradient_and_the_others_do() -> None:
    net = vgg16(freeze_until=1).train()
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    net(images).mean().backward()
    frozen = {name.split(".")[0] for name in without_gradient(net)}
    assert frozen == {"conv1_1", "conv1_2", "conv2_1", "conv2_2"}
    assert images.grad is None


def test_dropout_behind_fc6_drops_channels_in_psas_form_and_single_values_in_deeplabs() -> None:
    torch.manual_seed(0)
    features = torch.ones(1, 64, 8, 8)
    with torch.device("meta"):
        channels, values = vgg16().train().drop6, vgg16(pool5=True).train().drop6
    assert set(channels(features).mean(dim=(2, 3)).unique().tolist()) == {0.0, 2.0}
    assert len(values(features).mean(dim=(2, 3)).unique()) > 2


def test_vgg16_weights_survive_a_file_and_a_classifier_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = vgg16()
    state = {**first.state_dict(), "fc8.weight": torch.zeros(20, 1024, 1, 1)}
    safetensors.torch.save_file(state, tmp_path / "vgg16.safetensors")
    second = vgg16(weights=tmp_path / "vgg16.safetensors", freeze_stem=True)
    assert all(value.equal(first.state_dict()[name]) for name, value in second.state_dict().items())
    with pytest.raises(WeightsError, match="does not fit WideResNet38"), torch.device("meta"):
        wide_resnet38(weights=tmp_path / "vgg16.safetensors")


# timm


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_taps_of_timms_networks_are_timms_own_and_as_announced(name: str) -> None:
    net = timm_backbone(name).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        taps, own = net.stages(images), list(net.net(images))
        assert net(images).equal(taps[-1])
    assert_taps_are_as_announced(net, taps, 224)
    if own[0].shape != taps[0].shape:  # channels last
        own = [tap.permute(0, 3, 1, 2) for tap in own]
    assert all(tap.equal(value) for tap, value in zip(taps, own, strict=True))


def test_taps_of_timm_resnet18_are_those_of_the_whole_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = timm.create_model("resnet18", pretrained=False).eval()
    torch.save(whole.state_dict(), tmp_path / "resnet18.pth")
    net = build_backbone("timm/resnet18", weights=tmp_path / "resnet18.pth").eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = whole.act1(whole.bn1(whole.conv1(images)))
        expected = [features]
        features = whole.maxpool(features)
        for layer in (whole.layer1, whole.layer2, whole.layer3, whole.layer4):
            features = layer(features)
            expected.append(features)
        taps = net.stages(images)
    assert net.stage_channels == (64, 64, 128, 256, 512)
    assert all(tap.equal(value) for tap, value in zip(taps, expected, strict=True))


def test_timms_output_stride_is_passed_on() -> None:
    net = build_backbone("timm/resnet10t", output_stride=16).eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 512, 4, 4)
    assert net.output_stride == 16
    with torch.device("meta"):  # it knows no such option, and needs none
        assert build_backbone("timm/vit_tiny_patch16_224", output_stride=16).stage_strides == (16, 16, 16)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_transformers_take_images_of_other_sizes(name: str) -> None:
    net = timm_backbone(name).eval()
    with torch.no_grad():
        features = net(torch.zeros(1, 3, 96, 128))
    assert features.shape == (1, net.out_channels, 96 // net.output_stride, 128 // net.output_stride)


@pytest.mark.parametrize(
    ("name", "until", "frozen", "trained"),
    [
        ("resnet10t", 1, {"conv1", "bn1", "layer1"}, {"layer2", "layer3", "layer4"}),
        ("convnext_atto", 0, {"stem_0", "stem_1", "stages_0"}, {"stages_1", "stages_2", "stages_3"}),
        ("mobilenetv3_small_050", 0, {"conv_stem", "bn1"}, {"blocks"}),
        ("vit_tiny_patch16_224", 0, {"cls_token", "pos_embed", "patch_embed", "blocks"}, {"blocks"}),
        ("pit_ti_224", 1, {"pos_embed", "cls_token", "patch_embed", "transformers"}, {"transformers"}),
    ],
)
def test_timms_frozen_stages_get_no_gradient_and_the_others_do(
    name: str, until: int, frozen: set[str], trained: set[str]
) -> None:
    net = timm_backbone(name, freeze_until=until).train()
    inner = net.net.get_submodule({"vit": "model", "pit": "body"}.get(name[:3], ""))
    images = torch.randn(2, 3, 224, 224, requires_grad=True)
    net(images).square().mean().backward()
    assert images.grad is None
    fixed = {n for n, p in inner.named_parameters() if not p.requires_grad}
    unused = {"norm.weight", "norm.bias"} if name.startswith("pit") else set()  # behind the last features
    assert without_gradient(inner) - unused == fixed
    assert {n.split(".")[0] for n in fixed} == frozen
    assert {n.split(".")[0] for n, p in inner.named_parameters() if p.grad is not None} == trained
    if name.startswith("vit"):  # stage 0 is timm's third last block
        blocks = {n.split(".")[1] for n, p in inner.named_parameters() if p.grad is not None}
        assert blocks == {"10", "11"}


def test_frozen_batch_norms_of_timm_never_move_and_freezing_again_moves_the_cut() -> None:
    net = timm_backbone("resnet10t", batch_norm="frozen", freeze_until=3).train()
    before = {name: value.clone() for name, value in net.named_buffers()}
    images = torch.randn(2, 3, 64, 64)
    taps = net.stages(images)
    assert [tap.requires_grad for tap in taps] == [False] * 4 + [True]
    assert all(value.equal(before[name]) for name, value in net.named_buffers())
    again = copy.deepcopy(net).requires_grad_(True).freeze(until=0)
    assert [tap.requires_grad for tap in again.stages(images)] == [False] + [True] * 4
    assert [tap.requires_grad for tap in net.stages(images)] == [False] * 4 + [True]


@pytest.mark.parametrize("name", ["convnext_atto", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_weights_of_timm_come_from_a_whole_network_or_from_a_backbone(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = timm.create_model(name, pretrained=False).state_dict()
    safetensors.torch.save_file(whole, tmp_path / "model.safetensors")
    net = timm_backbone(name, weights=tmp_path)  # a folder, as the cache of Hugging Face has it
    flat = {key.replace(".", "_"): value for key, value in whole.items()}
    for key, value in net.state_dict().items():
        assert value.equal(flat[key.removeprefix("net.").removeprefix("model.").replace(".", "_")])
    nested = {f"backbone.{key}": value for key, value in net.state_dict().items()}
    torch.save({**nested, "classifier.weight": torch.zeros(3, 3)}, tmp_path / "method.pth")
    again = timm_backbone(name, weights=tmp_path / "method.pth")
    assert all(value.equal(net.state_dict()[key]) for key, value in again.state_dict().items())


def test_a_hugging_face_id_is_looked_up_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = timm.create_model("resnet10t", pretrained=False).state_dict()
    safetensors.torch.save_file(whole, tmp_path / "model.safetensors")
    asked: list[tuple[str, str | None]] = []

    def snapshot(repository: str, revision: str | None) -> Path:
        asked.append((repository, revision))
        return tmp_path

    monkeypatch.setattr(weights, "_cached_snapshot", snapshot)
    net = build_backbone("timm/resnet10t.c3_in1k", weights="timm/resnet10t.c3_in1k")
    assert asked == [("timm/resnet10t.c3_in1k", None)]
    assert net.state_dict()["net.layer4.0.conv1.weight"].equal(whole["layer4.0.conv1.weight"])


def test_weights_of_another_network_of_timm_are_refused(tmp_path: Path) -> None:
    other = timm.create_model("mobilenetv3_small_050", pretrained=False).state_dict()
    safetensors.torch.save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"does not fit timm's resnet10t: \d+ of \d+ tensors are missing"):
        timm_backbone("resnet10t", weights=tmp_path / "other.safetensors")
    whole = timm.create_model("resnet10t", pretrained=False).state_dict()
    whole["layer3.0.conv1.weight"] = torch.zeros(1)
    torch.save(whole, tmp_path / "damaged.pth")
    with pytest.raises(WeightsError, match=r"1 have other shapes \['layer3.0.conv1.weight'\]"):
        timm_backbone("resnet10t", weights=tmp_path / "damaged.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"must hold `model.safetensors`"):
        timm_backbone("resnet10t", weights=tmp_path / "empty")


def test_unknown_names_strides_and_stages_are_refused_with_the_choices() -> None:
    with pytest.raises(RecipeError, match=r"Did you mean `wide_resnet38`.*`timm/convnext_tiny`"):
        build_backbone("wideresnet38")
    with pytest.raises(RecipeError, match=r"timm has no network `resnet181`. Did you mean `resnet18"):
        build_backbone("timm/resnet181")
    with pytest.raises(RecipeError, match=r"Did you mean `resnet18.a1_in1k`"):
        build_backbone("timm/resnet18.a1in1k")
    with (
        pytest.raises(ShapeError, match=r"8 can't be had from timm's dla34, whose own is 32"),
        torch.device("meta"),
    ):
        build_backbone("timm/dla34", output_stride=8)
    with pytest.raises(ShapeError, match=r"stage number in 0…4"), torch.device("meta"):
        build_backbone("timm/resnet10t", freeze_until=5)
    for name in ("wide_resnet38", "vgg16"):
        with pytest.raises(ShapeError, match="must be 8; got 16"):
            build_backbone(name, output_stride=16)
        with pytest.raises(ShapeError, match=r"stage number in 0…5"), torch.device("meta"):
            build_backbone(name, freeze_until=6)
    with pytest.raises(ShapeError, match=r"`fc6_dilation` must be at least 1; got 0"):
        vgg16(fc6_dilation=0)


def test_a_network_of_timm_without_features_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(*_arguments: object, **_options: object) -> nn.Module:
        raise RuntimeError("features_only not implemented")

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(RecipeError, match=r"timm's resnet10t offers no features .*not implemented"):
        build_backbone("timm/resnet10t")


# In a method


@pytest.mark.parametrize(
    ("name", "stride"),
    [("wide_resnet38", 8), ("vgg16", 8), ("timm/resnet18", 32), ("timm/convnext_atto", 32)],
)
def test_cam_gives_maps_on_the_backbones_grid(name: str, stride: int) -> None:
    config = CamConfig(backbone=name, backbone_weights=None, freeze_until=1)
    with torch.device("meta"):  # shapes alone: the values are the backbones'
        method = Cam(config, ("background", "boat", "train"), Frozen()).eval()
        maps = method.cams(torch.zeros(2, 3, 96, 64))
    assert maps.shape == (2, 2, 96 // stride, 64 // stride)


def test_cam_trains_on_a_network_of_timm() -> None:
    torch.manual_seed(0)
    config = CamConfig(backbone="timm/resnet10t", backbone_weights=None, freeze_until=0, output_stride=16)
    method = Cam(config, ("background", "boat", "train"), Frozen()).train()
    labels = torch.tensor([[True, False], [False, True]])
    batch = Batch(torch.randn(2, 3, 64, 64), labels, ("a", "b"), torch.ones(2, 64, 64, dtype=torch.bool))
    method.losses(batch)["classification"].backward()
    groups = method.parameter_groups(0.1)
    assert all(p.grad is not None for group in groups for p in group["params"])
    assert method.cams(batch.images).shape == (2, 2, 4, 4)
