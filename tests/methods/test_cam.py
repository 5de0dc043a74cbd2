from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.methods.base import Frozen
from wsss.methods.cam import Cam, CamConfig
from wsss.types import Batch

NAMES = ("background", "boat", "train", "sofa")
SMALL = {"backbone": "resnet_small", "backbone_weights": None}


def batch_of(labels: Tensor, size: int = 32) -> Batch:
    images = torch.randn(len(labels), 3, size, size, generator=torch.Generator().manual_seed(1))
    return Batch(images, labels, ("a",) * len(labels), torch.ones(len(labels), size, size, dtype=torch.bool))


def test_the_loss_is_the_multi_label_soft_margin_of_averaged_features() -> None:
    torch.manual_seed(0)
    method = Cam(CamConfig(**SMALL), NAMES, Frozen()).eval()
    labels = torch.tensor([[True, False, True], [False, False, False]])
    batch = batch_of(labels)
    features = method.backbone(batch.images)
    total = 0.0
    for n in range(2):
        for k in range(3):
            logit = sum(
                float(method.classifier.weight[k, d, 0, 0].detach() * features[n, d].detach().mean())
                for d in range(features.shape[1])
            )
            sigmoid = 1 / (1 + math.exp(-logit))
            total -= math.log(sigmoid if labels[n, k] else 1 - sigmoid)
    assert float(method.losses(batch)["classification"].detach()) == pytest.approx(total / 6, rel=1e-5)


def test_defaults_are_irns() -> None:
    with torch.device("meta"):
        method = Cam(CamConfig(backbone_weights=None), ("background", *map(str, range(20))), Frozen())
    trained = {name for name, p in method.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in method.parameters()) == 23_548_992
    assert not any(
        name.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1", "backbone.layer2"))
        for name in trained
    )
    affine = [name for name in trained if "bn" in name or "downsample.1" in name]
    assert len(affine) == 58
    assert not any(m.training for m in method.train().modules() if isinstance(m, _BatchNorm))
    backbone, head = method.parameter_groups(0.1)
    assert head["lr"] == pytest.approx(1.0)
    assert [p.shape for p in head["params"]] == [(20, 2048, 1, 1)]
    assert len(backbone["params"]) == len(trained) - 1


def test_the_camera_ready_baseline_trains_convolutions_only() -> None:
    config = CamConfig(**{**Cam.presets["clims_camera_ready"], "backbone_weights": None})
    with torch.device("meta"):
        method = Cam(config, NAMES, Frozen())
    backbone, head = method.parameter_groups(0.01)
    assert (len(backbone["params"]), len(head["params"])) == (53, 1)
    assert method.mean[0] == pytest.approx(0.48145466)


def test_loss_is_float32_under_autocast() -> None:
    method = Cam(CamConfig(**SMALL), NAMES, Frozen())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method.losses(batch_of(torch.ones(2, 3, dtype=torch.bool)))["classification"]
    assert loss.dtype == torch.float32


def test_maps_are_relu_of_the_classifier_on_every_cell() -> None:
    method = Cam(CamConfig(**SMALL, output_stride=4), NAMES, Frozen()).eval()
    images = batch_of(torch.ones(2, 3, dtype=torch.bool)).images
    features, weight = method.backbone(images), method.classifier.weight[:, :, 0, 0]
    expected = torch.einsum("kd,bdhw->bkhw", weight, features).clamp(min=0)
    assert expected.shape == (2, 3, 8, 8)
    assert torch.allclose(method.cams(images), expected, atol=1e-5)
