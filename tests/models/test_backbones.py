"""Backbones: sizes, frozen parts, batch-norm modes, taps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wsss.errors import RecipeError, ShapeError
from wsss.models import BACKBONES, build_backbone
from wsss.models.resnet import resnet50, resnet101
from wsss.models.resnet_small import resnet_small
from wsss.models.vgg_small import TagClassifier, vgg_small
from wsss.types import Batch


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def running_statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.named_buffers() if "running" in name}


def moved(module: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {
        name for name, value in module.named_buffers() if "running" in name and not value.equal(before[name])
    }


def test_resnet50_has_the_size_and_parameters_of_the_reference() -> None:
    net = resnet50()
    with torch.no_grad():
        taps = net.eval().stages(torch.zeros(1, 3, 512, 512))
    assert [tuple(tap.shape[1:]) for tap in taps] == [
        (64, 128, 128),
        (256, 128, 128),
        (512, 64, 64),
        (1024, 32, 32),
        (2048, 32, 32),
    ]
    assert (net.out_channels, net.output_stride) == (2048, 16)
    assert parameters(net) + parameters(nn.Conv2d(2048, 20, 1, bias=False)) == 23_548_992
    assert all(module.dilation == (1, 1) for module in net.modules() if isinstance(module, nn.Conv2d))


def test_resnet50_gives_the_features_of_torchvisions_network_at_stride_32() -> None:
    from torchvision.models import resnet50 as torchvision_resnet50

    torch.manual_seed(0)
    reference = torchvision_resnet50(weights=None)
    net = resnet50(output_stride=32)
    own = net.state_dict()
    net.load_state_dict({name: value for name, value in reference.state_dict().items() if name in own})
    reference.fc, reference.avgpool = nn.Identity(), nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = reference.eval()(images).reshape(2, 2048, 2, 2)
        torch.testing.assert_close(net.eval()(images), expected)


def test_stride_8_dilates_all_but_the_first_block_of_the_last_stages() -> None:
    net = resnet50(output_stride=8)
    dilations = [
        [block.conv2.dilation[0] for block in stage] for stage in (net.layer2, net.layer3, net.layer4)
    ]
    assert dilations == [[1] * 4, [1] + [2] * 5, [1, 2, 2]]
    with torch.no_grad():
        assert net.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 2048, 8, 8)


def test_resnet101_has_torchvisions_parameters() -> None:
    assert parameters(resnet101()) == 42_500_160  # without fc


def test_irns_classifier_trains_58_affine_tensors_and_nothing_before_layer3() -> None:
    net = resnet50(batch_norm="frozen", freeze_until=2).train()
    images = torch.randn(2, 3, 64, 64, requires_grad=True)
    net(images).mean().backward()
    assert images.grad is None  # the gradient is cut behind layer2
    with_gradient = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
    assert {name.split(".")[0] for name in with_gradient} == {"layer3", "layer4"}
    affine = [
        parameter
        for module in net.modules()
        if isinstance(module, nn.BatchNorm2d)
        for parameter in module.parameters()
        if parameter.grad is not None
    ]
    assert len(affine) == 58


@pytest.mark.parametrize("name", sorted(set(BACKBONES) - {"resnet101"}))  # the same code as resnet50
def test_running_statistics_never_move_when_frozen_and_move_when_live(name: str) -> None:
    images = torch.randn(2, 3, 64, 64)
    frozen = build_backbone(name, batch_norm="frozen")
    before = running_statistics(frozen)
    frozen.train()(images)
    assert not moved(frozen, before)
    assert frozen.training
    live = build_backbone(name, batch_norm="live", freeze_stem=True)
    before = running_statistics(live)
    live.train()(images)
    assert moved(live, before) == set(before)  # the frozen stem's too


@pytest.mark.parametrize("name", ["resnet_small", "vgg_small"])
def test_a_frozen_stem_has_no_gradient_and_everything_else_has(name: str) -> None:
    net = build_backbone(name, freeze_stem=True)
    net(torch.randn(2, 3, 32, 32)).mean().backward()
    without = {parameter_name for parameter_name, p in net.named_parameters() if p.grad is None}
    assert without
    assert {parameter_name.split(".")[0] for parameter_name in without} <= {"stem", "stage0"}


@pytest.mark.parametrize("name", sorted(set(BACKBONES) - {"resnet101"}))  # the same code as resnet50
def test_every_backbone_switches_mode_and_returns_itself(name: str) -> None:
    net = build_backbone(name)
    assert net.train() is net
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    assert net.freeze(batch_norm="frozen") is net


@pytest.mark.parametrize("name", ["resnet50", "resnet_small", "vgg_small"])
def test_taps_have_the_announced_channels_and_sizes(name: str) -> None:
    net = build_backbone(name).eval()
    with torch.no_grad():
        taps = net.stages(torch.zeros(1, 3, 64, 64))
        assert taps[-1].equal(net(torch.zeros(1, 3, 64, 64)))
    assert tuple(tap.shape[1] for tap in taps) == net.stage_channels
    assert tuple(64 // tap.shape[2] for tap in taps) == net.stage_strides
    assert net.stage_channels[-1] == net.out_channels
    assert net.stage_strides[-1] == net.output_stride


def test_the_small_resnet_is_small_and_reaches_stride_4() -> None:
    assert 500_000 <= parameters(resnet_small()) <= 1_200_000
    net = resnet_small(output_stride=4).eval()
    with torch.no_grad():
        taps = net.stages(torch.zeros(2, 3, 97, 96))  # odd sizes are fine
    assert taps[-1].shape == (2, 128, 25, 24)
    assert net.stage_strides == (2, 4, 4, 8, 4)
    assert 500_000 <= parameters(net) <= 1_200_000


def test_channels_last_gives_the_same_features() -> None:
    torch.manual_seed(0)
    net, images = resnet_small(output_stride=4).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
        other = net.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-5)


def test_unknown_names_strides_and_stages_are_refused_with_the_choices() -> None:
    with pytest.raises(RecipeError, match="Did you mean `resnet50`"):
        build_backbone("resnet5")
    with pytest.raises(ShapeError, match="must be 4 or 8; got 16"):
        build_backbone("resnet_small", output_stride=16)
    with pytest.raises(ShapeError, match=r"one of \[8, 16, 32\]"):
        build_backbone("resnet50", output_stride=4)
    with pytest.raises(ShapeError, match="stage number in 0…3"):
        build_backbone("vgg_small", freeze_until=4)


def test_the_tag_classifier_learns_tags_and_passes_gradients_to_its_input() -> None:
    torch.manual_seed(0)
    classifier = TagClassifier(vgg_small(), num_foreground=2)
    images = torch.randn(16, 3, 32, 32)
    labels = torch.stack([images[:, 0].mean(dim=(1, 2)) > 0, images[:, 2].mean(dim=(1, 2)) > 0], dim=1)
    images[:, 0] += 2 * labels[:, :1, None].float() - 1
    images[:, 2] += 2 * labels[:, 1:, None].float() - 1
    batch = Batch(images, labels, tuple("abcdefghijklmnop"), torch.ones(16, 32, 32, dtype=torch.bool))
    optimiser = torch.optim.AdamW(classifier.parameter_groups(1e-2))
    losses = []
    for _ in range(15):
        loss = classifier.losses(batch)["classification"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    probe = images[:1].clone().requires_grad_(True)
    classifier.requires_grad_(False).eval()(probe).sum().backward()
    assert probe.grad is not None
    assert probe.grad.abs().sum() > 0
