"""What a file holds, what it fits, and the same weights written as safetensors."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from models.weight_files import caffe_layer, write_caffe
from wsss.errors import WeightsError
from wsss.models.weight_conversion import convert_weights, describe_weights
from wsss.models.weights import backbone_state, load_backbone_weights
from wsss.training.checkpoint import load_state


class NarrowVgg(nn.Module):
    """One layer with a name of VGG-16."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1_1 = nn.Conv2d(3, 2, 3)


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.norm = nn.BatchNorm2d(2)


NETWORKS = {"vgg16": NarrowVgg, "flat": Flat}


@pytest.fixture
def caffe_file(tmp_path: Path) -> Path:
    blobs = [np.random.default_rng(0).normal(size=size).astype(np.float32) for size in ((2, 3, 3, 3), (2,))]
    head = caffe_layer("fc8", "Convolution", [np.zeros((4, 2, 1, 1))])
    return write_caffe(tmp_path / "net.caffemodel", [caffe_layer("conv1_1", "Convolution", blobs), head])


def test_a_file_is_described_and_tried_on_the_networks(caffe_file: Path) -> None:
    found = describe_weights(caffe_file, NETWORKS)
    assert found.format == "caffe"
    assert found.sha256 == hashlib.sha256(caffe_file.read_bytes()).hexdigest()
    assert (found.tensors, found.numbers) == (3, 54 + 2 + 8)
    assert found.fits == ("vgg16", "cam")
    assert (found.preprocess, found.stride_in_1x1, found.left_out) == ("bgr_levels", None, ("fc8.weight",))


def test_a_file_that_fits_nothing_says_so(tmp_path: Path) -> None:
    safetensors.torch.save_file({"x": torch.ones(2, 3)}, tmp_path / "x.safetensors")
    found = describe_weights(tmp_path / "x.safetensors", NETWORKS)
    assert (found.format, found.tensors, found.numbers, found.fits) == ("safetensors", 1, 6, ())


def test_a_converted_file_holds_the_same_and_remembers_its_images(caffe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "vgg.safetensors"
    convert_weights(caffe_file, "vgg16", out, NETWORKS)
    before, after = NarrowVgg(), NarrowVgg()
    load_backbone_weights(before, caffe_file)
    loaded = load_backbone_weights(after, out)
    assert all(value.equal(after.state_dict()[name]) for name, value in before.state_dict().items())
    assert loaded.preprocess == "bgr_levels"
    assert load_state(out)[1] == {
        "network": "vgg16",
        "preprocess": "bgr_levels",
        "source": "net.caffemodel",
        "sha256": hashlib.sha256(caffe_file.read_bytes()).hexdigest(),
    }
    first = out.read_bytes()
    convert_weights(caffe_file, "vgg16", out, NETWORKS)
    assert out.read_bytes() == first


def test_a_whole_network_of_maps_is_converted_with_its_classifier(tmp_path: Path) -> None:
    state: dict[str, Tensor] = {f"module.{name}": value for name, value in Flat().state_dict().items()}
    torch.save({**state, "module.fc8.weight": torch.ones(5, 2, 1, 1)}, tmp_path / "psa.pth")
    convert_weights(tmp_path / "psa.pth", "cam", tmp_path / "cam.safetensors", NETWORKS)
    found = load_state(tmp_path / "cam.safetensors")[0]
    assert set(found) == {*(f"backbone.{name}" for name in Flat().state_dict()), "classifier.weight"}
    assert set(backbone_state(tmp_path / "cam.safetensors").state) == set(Flat().state_dict())


@pytest.mark.parametrize(
    ("network", "out", "message"),
    [
        ("vgg", "out.safetensors", "There is no network `vgg`. Did you mean `vgg16`"),
        ("vgg16", "out.pth", r"with the ending \.safetensors; got"),
        ("flat", "out.safetensors", r"does not fit flat: missing \['conv\.bias'.*surplus \['conv1_1\.bias'"),
    ],
)
def test_what_cannot_be_converted_is_refused(
    caffe_file: Path, tmp_path: Path, network: str, out: str, message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        convert_weights(caffe_file, network, tmp_path / out, NETWORKS)
    assert not (tmp_path / out).exists()


def test_a_file_never_replaces_itself_and_an_unknown_backbone_is_no_network_of_maps(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"y": torch.ones(1), "classifier.weight": torch.ones(2, 1, 1, 1)}, path)
    with pytest.raises(WeightsError, match="must be another file"):
        convert_weights(path, "flat", path, NETWORKS)
    with pytest.raises(WeightsError, match="its backbone is none of vgg16, flat"):
        convert_weights(path, "cam", tmp_path / "b.safetensors", NETWORKS)


@pytest.mark.parametrize("text", ["no json", "[1]", "3"])
def test_foreign_text_beside_the_tensors_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"wsss": text})
    with pytest.raises(WeightsError, match=r"x\.safetensors .*beside its tensors.*Get the file again"):
        describe_weights(path, NETWORKS)
