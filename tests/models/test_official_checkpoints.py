"""Checkpoints of IRN, CLIMS, QA-CLIMS, PSA and EPS: their networks' maps, under our names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import ResNet as TorchvisionResNet
from torchvision.models import resnet50 as torchvision_resnet50

from wsss.errors import WeightsError
from wsss.methods.base import Frozen
from wsss.methods.cam import Cam, CamConfig
from wsss.models.official_checkpoints import cam_network_state
from wsss.models.weights import backbone_state

CLASSES = ("background", "boat", "train", "cat")


def irn_resnet() -> TorchvisionResNet:
    """Torchvision's network with the strides of IRN's and CLIMS's: the last stage keeps the size."""
    torch.manual_seed(0)
    net = torchvision_resnet50(weights=None).eval()
    for layer in (net.layer4[0].conv2, net.layer4[0].downsample[0]):
        layer.stride = (1, 1)
    return net


def official_file(net: TorchvisionResNet, classifier: Tensor, *, counters: bool = True) -> dict[str, Tensor]:
    """A state dict with the aliases of the authors' networks: stages, lists, and the network itself."""
    body = {name: value for name, value in net.state_dict().items() if not name.startswith("fc.")}
    if not counters:
        body = {name: value for name, value in body.items() if not name.endswith("num_batches_tracked")}
    state = {f"resnet50.{name}": value for name, value in body.items()}
    places = {"conv1": "stage1.0", "bn1": "stage1.1", "layer1": "stage1.4"}
    places |= {f"layer{number}": f"stage{number}.0" for number in (2, 3, 4)}
    for name, value in body.items():
        top, _, rest = name.partition(".")
        state[f"{places[top]}.{rest}"] = value
        stage, _, inner = places[top].partition(".")
        state[f"backbone.{int(stage[-1]) - 1}.{inner}.{rest}"] = value
    return state | {"classifier.weight": classifier, "newly_added.0.weight": classifier}


def test_an_official_network_starts_a_method_and_gives_its_maps(tmp_path: Path) -> None:
    net = irn_resnet()
    classifier = torch.randn(3, 2048, 1, 1)
    file = official_file(net, classifier, counters=False)  # as old programs wrote it
    torch.save({f"module.{name}": value for name, value in file.items()}, tmp_path / "res50_clims.pth")
    method = Cam(CamConfig(backbone_weights=None), CLASSES, Frozen()).eval()
    method.initialise(cam_network_state(tmp_path / "res50_clims.pth"))
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        features = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        assert features.shape == (1, 2048, 4, 6)
        torch.testing.assert_close(method.cams(images), F.relu(F.conv2d(features, classifier)))


def test_the_backbone_alone_is_that_under_resnet50(tmp_path: Path) -> None:
    with torch.device("meta"):
        net = torchvision_resnet50(weights=None)
        state = official_file(net, torch.zeros(3, 2048, 1, 1))
    small = {name: torch.full((1,), float(len(name))) for name in state}
    small |= {name: torch.full((1,), -1.0) for name in small if name.startswith(("stage", "backbone."))}
    torch.save(small, tmp_path / "official.pth")
    found = backbone_state(tmp_path / "official.pth")
    assert set(found.state) == {name for name in net.state_dict() if not name.startswith("fc.")}
    assert all((value > 0).all() for value in found.state.values())
    assert (found.preprocess, found.stride_in_1x1) == ("unknown", None)


def test_classifiers_of_psa_and_eps_become_ours(tmp_path: Path) -> None:
    state = {
        "conv1a.weight": torch.ones(1),
        "bn7.running_mean": torch.ones(2),
        "fc8.weight": torch.ones(21, 4, 1, 1),
    }
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "eps.pth")
    found = cam_network_state(tmp_path / "eps.pth")
    assert set(found) == {
        "backbone.conv1a.weight",
        "backbone.bn7.running_mean",
        "backbone.bn7.num_batches_tracked",
        "classifier.weight",
    }
    assert found["classifier.weight"].shape == (21, 4, 1, 1)
    assert found["backbone.bn7.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"conv1.weight": torch.ones(1)}, r"must hold a classifier of maps, `classifier\.weight` or"),
        (
            {"classifier.weight": torch.ones(3, 4)},
            r"shape \(K, D, 1, 1\) and no bias beside it; got \(3, 4\)",
        ),
        (
            {"fc8.weight": torch.ones(3, 4, 1, 1), "fc8.bias": torch.ones(3)},
            r"`fc8\.weight` in .*no bias beside it",
        ),
    ],
)
def test_other_files_are_refused(tmp_path: Path, state: dict[str, Tensor], message: str) -> None:
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=message):
        cam_network_state(tmp_path / "other.pth")
