import sys

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.errors import RecipeError, WeightsError
from wsss.segmentation import SegmentationConfig, build
from wsss.segmentation.smp_network import PACKAGE
from wsss.training.checkpoint import save_state
from wsss.types import IGNORE, Batch

NAMES = ("background", "cat", "dog")


def config(**changes):
    settings = {"preset": "scenes", "network": "smp", "smp": {"encoder": "resnet18"}, "loss_at": "grid"}
    return SegmentationConfig(**{**settings, **changes})


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(WeightsError, match=r'pip install "wsss\[segmentation\]"'):
        build(config(), NAMES)


@pytest.fixture(scope="module")
def smp():
    return pytest.importorskip(PACKAGE, reason=f"{PACKAGE} is not installed")


def test_logits_have_the_images_size_and_equal_the_packages_own(smp):
    torch.manual_seed(0)
    net = build(config(), NAMES).eval()
    images = torch.randn(2, 3, 40, 50)
    padded = torch.zeros(2, 3, 64, 64)
    padded[..., :40, :50] = images
    own = smp.Unet("resnet18", encoder_weights=None, classes=3).eval()
    own.load_state_dict(net.net.state_dict())
    with torch.no_grad():
        assert torch.allclose(net.logits(images), own(padded)[..., :40, :50], atol=1e-5)


def test_the_loss_reaches_every_trained_parameter_and_groups_have_each_once(smp):
    net = build(config(head_rate=10.0), NAMES)
    target = torch.randint(0, 3, (2, 32, 32)).to(torch.uint8)
    target[:, :3] = IGNORE
    labels, valid = torch.zeros(2, 2, dtype=torch.bool), torch.ones(2, 32, 32, dtype=torch.bool)
    batch = Batch(torch.randn(2, 3, 32, 32), labels, ("a", "b"), valid, {"target": target})
    (loss,) = net.losses(batch).values()
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())
    groups = net.parameter_groups(1e-3)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in net.parameters())
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    for name, parameter in net.net.named_parameters():
        assert rates[id(parameter)] == pytest.approx(1e-3 if name.startswith("encoder.") else 1e-2)


def test_frozen_batch_norms_of_the_encoder_never_move(smp):
    net = build(config(batch_norm="frozen"), NAMES).train()
    frozen = [layer for layer in net.net.encoder.modules() if isinstance(layer, _BatchNorm)]
    assert frozen
    assert not any(layer.training or layer.weight.requires_grad for layer in frozen)
    assert any(layer.training for layer in net.net.decoder.modules() if isinstance(layer, _BatchNorm))
    grouped = {id(p) for group in net.parameter_groups(1.0) for p in group["params"]}
    assert grouped == {id(p) for p in net.parameters() if p.requires_grad}


def test_a_local_file_starts_the_encoder(smp, tmp_path):
    state = {name: value + 1 for name, value in build(config(), NAMES).net.encoder.state_dict().items()}
    save_state(tmp_path / "encoder.safetensors", {**state, "fc.weight": torch.zeros(2, 2)})
    net = build(config(weights=str(tmp_path / "encoder.safetensors")), NAMES)
    loaded = net.net.encoder.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items() if "num_" not in name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "Unett"}, r"`smp.architecture` must .* got `Unett`.*`Unet`"),
        ({"encoder": "resnet43"}, r"`smp.encoder` must .* got `resnet43`.*resnet34"),
        ({"options": {"encoder_weights": "imagenet"}}, r"can't set `encoder_weights`"),
        ({"options": {"decoder_channels": (8, 8)}}, r"can build.*Look up the arguments of Unet"),
    ],
)
def test_mistakes_are_named(smp, settings, message):
    with pytest.raises(RecipeError, match=message):
        build(config(smp=settings), NAMES)


def test_the_network_can_be_built_without_computing(smp):
    with torch.device("meta"):
        net = build(config(smp={"architecture": "FPN", "encoder": "resnet18"}), NAMES)
    assert all(parameter.is_meta for parameter in net.parameters())


def test_settings_of_the_package_belong_to_its_networks_alone():
    with pytest.raises(ValueError, match="`smp` is given, but `network` is another"):
        SegmentationConfig(smp={})
    assert SegmentationConfig(network="smp").smp.architecture == "Unet"
