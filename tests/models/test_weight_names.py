"""Names of published files: every name of the real networks has its place, and numbers arrive unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet101 as torchvision_resnet101
from torchvision.models import vgg16 as torchvision_vgg16

from models.weight_files import caffe_layer, caffe_v1_layer, write_caffe, write_mxnet
from wsss.errors import WeightsError
from wsss.models.caffe_model import CaffeLayer
from wsss.models.resnet import resnet101
from wsss.models.vgg16 import Vgg16, vgg16
from wsss.models.weight_formats import file_format, read_weights
from wsss.models.weight_names import from_caffe, from_mxnet, named_weights
from wsss.models.weights import backbone_state, load_backbone_weights
from wsss.models.wide_resnet38 import wide_resnet38
from wsss.segmentation.resnet101_deeplab import ResNet101DeepLab


def own_names(net: nn.Module) -> set[str]:
    return {name for name in net.state_dict() if not name.endswith("num_batches_tracked")}


# WideResNet-38 of mxnet


def ademxapp_names() -> dict[str, str]:
    """Each of the names in ademxapp's file of model A1, and ours."""
    names = {"arg:conv1a_weight": "conv1a.weight"}

    def add(block: str, ours: str, branches: list[str], *, has_shortcut: bool) -> None:
        for branch in branches:
            names[f"arg:res{block}_branch{branch}_weight"] = f"{ours}.conv_branch{branch}.weight"
            for kind, own in (("gamma", "weight"), ("beta", "bias")):
                names[f"arg:bn{block}_branch{branch}_{kind}"] = f"{ours}.bn_branch{branch}.{own}"
            for kind in ("mean", "var"):
                names[f"aux:bn{block}_branch{branch}_moving_{kind}"] = (
                    f"{ours}.bn_branch{branch}.running_{kind}"
                )
        if has_shortcut:
            names[f"arg:res{block}_branch1_weight"] = f"{ours}.conv_branch1.weight"

    for group, count in ((2, 3), (3, 3), (4, 6), (5, 3)):
        add(f"{group}a", f"b{group}", ["2a", "2b1"], has_shortcut=True)
        for number in range(1, count):
            add(f"{group}b{number}", f"b{group}_{number}", ["2a", "2b1"], has_shortcut=False)
    for group in (6, 7):
        add(f"{group}a", f"b{group}", ["2a", "2b1", "2b2"], has_shortcut=True)
    for kind, own in (
        ("arg:bn7_gamma", "weight"),
        ("arg:bn7_beta", "bias"),
        ("aux:bn7_moving_mean", "running_mean"),
        ("aux:bn7_moving_var", "running_var"),
    ):
        names[kind] = f"bn7.{own}"
    return names


def test_every_array_of_wide_resnet38_has_its_place() -> None:
    names = ademxapp_names()
    arrays = {name: np.full(1, number, np.float32) for number, name in enumerate(names)}
    classifier = {"arg:linear1000_weight": np.ones((2, 2), np.float32), "arg:linear1000_bias": np.ones(2)}
    named = named_weights(from_mxnet({**arrays, **classifier}))
    assert {ours: int(value) for ours, value in named.state.items()} == {
        ours: number for number, ours in enumerate(names.values())
    }
    assert set(named.left_out) == {"fc8.weight", "fc8.bias"}
    assert (named.preprocess, named.stride_in_1x1) == ("imagenet", None)
    with torch.device("meta"):
        net = wide_resnet38()
    assert set(named.state) == own_names(net)
    assert sum(name.endswith("running_mean") for name in named.state) == 37
    assert sum("conv" in name for name in named.state) == 43  # 44 with the classifier


def test_other_networks_of_mxnet_are_refused(tmp_path: Path) -> None:
    path = write_mxnet(tmp_path / "other.params", {"arg:stage1_unit1_conv1_weight": np.zeros(1, np.float32)})
    with pytest.raises(
        WeightsError, match=r"other\.params does not fit: `arg:stage1_unit1_conv1_weight` is no"
    ):
        read_weights(path)


class Narrow(nn.Module):
    """The first layers of WideResNet-38, with few channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1a = nn.Conv2d(3, 2, 3, bias=False)
        self.bn7 = nn.BatchNorm2d(2)


def test_a_file_of_mxnet_loads_and_its_classifier_is_left_out(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {
        "arg:conv1a_weight": generator.normal(size=(2, 3, 3, 3)).astype(np.float32),
        "arg:linear1000_weight": np.zeros((1000, 2), np.float32),
        "aux:bn7_moving_mean": generator.normal(size=2).astype(np.float32),
        "aux:bn7_moving_var": generator.uniform(size=2).astype(np.float32),
        "arg:bn7_gamma": generator.normal(size=2).astype(np.float32),
        "arg:bn7_beta": generator.normal(size=2).astype(np.float32),
    }
    path = write_mxnet(tmp_path / "a1.anything", arrays, "legacy")  # known by its first bytes
    assert file_format(path) == "mxnet"
    net = Narrow()
    loaded = load_backbone_weights(net, path)
    assert loaded.preprocess == "imagenet"
    assert np.array_equal(net.conv1a.weight.detach(), arrays["arg:conv1a_weight"])
    assert np.array_equal(net.bn7.running_var, arrays["aux:bn7_moving_var"])
    assert np.array_equal(net.bn7.bias.detach(), arrays["arg:bn7_beta"])


# VGG-16


def vgg_blobs(net: Vgg16) -> dict[str, list[np.ndarray]]:
    state = net.state_dict()
    names = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    return {name: [state[f"{name}.weight"].numpy(), state[f"{name}.bias"].numpy()] for name in names}


def test_a_whole_vgg16_of_caffe_loads_and_asks_for_caffes_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setitem(
        vgg16.__globals__, "GROUPS", ((2, 4), (2, 4), (3, 8), (3, 8), (3, 8))
    )  # real layers, narrow
    monkeypatch.setitem(vgg16.__globals__, "FC", 16)
    first = vgg16().eval()
    blobs = vgg_blobs(first)
    assert len(blobs) == 15
    layers = [caffe_v1_layer(name, 4, own) for name, own in blobs.items()]
    layers.append(caffe_v1_layer("fc8_voc12", 4, []))
    path = write_caffe(tmp_path / "vgg16_20M.caffemodel", layers)
    second = vgg16(weights=path).eval()
    assert all(value.equal(first.state_dict()[name]) for name, value in second.state_dict().items())
    assert second.caffe_input
    assert not first.caffe_input
    first.caffe_input = True
    images = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        assert second(images).equal(first(images))


def test_psas_names_mean_caffes_images_and_a_methods_checkpoint_says_nothing(tmp_path: Path) -> None:
    with torch.device("meta"):
        state = vgg16().state_dict()
    assert named_weights(state).preprocess == "bgr_levels"
    nested = {f"backbone.{name}": value for name, value in state.items()}
    assert named_weights(nested).preprocess == "unknown"
    told = named_weights(state, metadata={"preprocess": "imagenet"})
    assert told.preprocess == "imagenet"


@pytest.mark.parametrize("form", ["caffe", "torchvision"])
def test_the_plain_vgg16_is_refused_with_the_file_that_fits(tmp_path: Path, form: str) -> None:
    if form == "caffe":
        conv = caffe_layer("conv1_1", "Convolution", [np.zeros((1, 3, 3, 3)), np.zeros(1)])
        full = [caffe_layer(name, "InnerProduct", [np.zeros((4096, 1))]) for name in ("fc6", "fc7")]
        path = write_caffe(tmp_path / "plain.caffemodel", [conv, *full])
    else:
        with torch.device("meta"):
            state = torchvision_vgg16(weights=None).state_dict()
        path = tmp_path / "plain.pth"
        torch.save(
            {
                name: torch.zeros(1).as_strided(value.shape, (0,) * value.ndim)
                for name, value in state.items()
            },
            path,
        )
    with torch.device("meta"):
        net = vgg16()
    with pytest.raises(WeightsError, match=r"fc6.*plain VGG-16 \(4,096 channels\).*`vgg16_20M\.caffemodel`"):
        load_backbone_weights(net, path)
    found = backbone_state(path, "vgg16")
    assert "fc6.weight" in found.left_out
    assert "conv1_1.weight" in found.state


def test_the_convolutions_of_torchvisions_vgg16_get_caffes_names_in_order() -> None:
    with torch.device("meta"):
        theirs, ours = torchvision_vgg16(weights=None).state_dict(), vgg16().state_dict()
    found = named_weights(theirs, "vgg16")
    convolutions = {name: value.shape for name, value in ours.items() if name.startswith("conv")}
    assert {name: value.shape for name, value in found.state.items()} == convolutions
    assert list(found.state) == list(convolutions)
    assert found.preprocess == "imagenet"


# DeepLab's ResNet-101 of caffe


def caffe_units() -> list[tuple[str, str]]:
    """Names behind `res`, `bn` and `scale` in caffe's file, and ours, in the file's order."""
    blocks = {2: ["a", "b", "c"], 3: ["a", "b1", "b2", "b3"], 5: ["a", "b", "c"]}
    blocks[4] = ["a", *(f"b{number}" for number in range(1, 23))]
    units = []
    for stage in (2, 3, 4, 5):
        for number, block in enumerate(blocks[stage], start=1):
            ours = f"layer{stage}.block{number}"
            if block == "a":
                units.append((f"{stage}a_branch1", f"{ours}.shortcut"))
            for branch, unit in (("2a", "reduce"), ("2b", "conv3x3"), ("2c", "increase")):
                units.append((f"{stage}{block}_branch{branch}", f"{ours}.{unit}"))
    return units


def values(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.5, 2, count).astype(np.float32)


def unit_layers(name: str, conv: str, seed: int, factor: float = 4.0) -> list[CaffeLayer]:
    """Convolution, batch norm and scale of one unit, with one number for each channel."""
    return [
        CaffeLayer(conv, "Convolution", (values(2, seed).reshape(2, 1, 1, 1),)),
        CaffeLayer(
            f"bn{name}", "BatchNorm", (values(2, seed + 1), values(2, seed + 2), np.float32([factor]))
        ),
        CaffeLayer(f"scale{name}", "Scale", (values(2, seed + 3), values(2, seed + 4))),
    ]


def deeplab_layers() -> list[CaffeLayer]:
    layers = unit_layers("_conv1", "conv1", 0)
    for number, (theirs, _) in enumerate(caffe_units(), start=1):
        layers += unit_layers(theirs, f"res{theirs}", 10 * number)
    layers += [CaffeLayer(f"res075_{layer.name}", layer.type, layer.blobs) for layer in layers[:6]]
    layers += [CaffeLayer(f"bn2a_branch1_res05_{n}", "BatchNorm", layers[1].blobs) for n in "xy"]
    for number in range(4):
        blobs = (np.zeros((3, 1, 3, 3), np.float32), np.zeros(3, np.float32))
        layers.append(CaffeLayer(f"fc1_voc12_c{number}", "Convolution", blobs))
    return layers


def test_every_layer_of_deeplabs_resnet101_has_its_place() -> None:
    state = from_caffe(deeplab_layers())
    with torch.device("meta"):
        net = ResNet101DeepLab()
    heads = {f"aspp.c{number}.{kind}" for number in range(4) for kind in ("weight", "bias")}
    assert set(state) == own_names(net) | heads
    for number, (_, ours) in enumerate(caffe_units(), start=1):
        assert np.array_equal(state[f"{ours}.conv.weight"].reshape(-1), values(2, 10 * number)), ours
        assert np.allclose(state[f"{ours}.bn.running_mean"], values(2, 10 * number + 1) / 4), ours
        assert np.array_equal(state[f"{ours}.bn.bias"], values(2, 10 * number + 4)), ours
    named = named_weights(state)
    assert set(named.left_out) == heads
    assert (named.preprocess, named.stride_in_1x1) == ("bgr_levels", True)


def test_caffes_batch_norm_of_two_layers_is_one_of_ours() -> None:
    features = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    conv, norm, scale = unit_layers("2a_branch1", "res2a_branch1", 7, factor=0.25)
    mean, var = (torch.from_numpy(blob / 0.25).view(1, 2, 1, 1) for blob in norm.blobs[:2])
    gamma, beta = (torch.from_numpy(blob).view(1, 2, 1, 1) for blob in scale.blobs)
    expected = (features - mean) / (var + 1e-5).sqrt() * gamma + beta
    state = from_caffe([conv, norm, scale])
    unit = "layer2.block1.shortcut.bn"
    found = F.batch_norm(
        features,
        *(state[f"{unit}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")),
        training=False,
    )
    torch.testing.assert_close(found, expected)


def test_a_batch_norm_that_saw_nothing_has_zeros_as_in_caffe() -> None:
    state = from_caffe(unit_layers("2a_branch1", "res2a_branch1", 0, factor=0.0))
    assert state["layer2.block1.shortcut.bn.running_var"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layers: layers[2:], r"Layer `scale2a_branch1` must follow a BatchNorm layer"),
        (
            lambda layers: [layers[0], CaffeLayer("bn2a_branch1", "BatchNorm", layers[1].blobs[:2])],
            r"Layer `bn2a_branch1` \(BatchNorm\) must have 3 blobs; got 2",
        ),
        (
            lambda layers: [*layers, CaffeLayer("other_layer", "Convolution", layers[0].blobs)],
            "`other_layer` is no layer of DeepLab's ResNet-101",
        ),
        (lambda _: [CaffeLayer("ip1", "InnerProduct", ())], "network with layers.*ip1.*is not known"),
    ],
)
def test_layers_that_do_not_fit_are_named(change: object, message: str) -> None:
    layers = change(unit_layers("2a_branch1", "res2a_branch1", 0))  # type: ignore[operator]
    if layers and layers[0].type == "Scale":
        layers = [CaffeLayer("res2a_branch1", "Convolution", (np.zeros((2, 1, 1, 1)),)), *layers]
    with pytest.raises(WeightsError, match=message):
        from_caffe(layers)


# torchvision, deeplab-pytorch, and the prefixes of training programs


def test_torchvisions_resnet101_has_all_names_and_shapes_of_deeplabs() -> None:
    with torch.device("meta"):
        theirs, ours = torchvision_resnet101(weights=None).state_dict(), ResNet101DeepLab().state_dict()
        cams = resnet101().state_dict()
    found = named_weights(theirs, "resnet101_deeplab")
    assert {name: value.shape for name, value in found.state.items()} == {
        name: value.shape for name, value in ours.items()
    }
    assert (found.preprocess, found.stride_in_1x1) == ("imagenet", False)
    assert set(found.left_out) == {"fc.weight", "fc.bias"}
    assert set(named_weights(theirs, "resnet101").state) == set(cams)  # other networks: as it is


@pytest.mark.parametrize("prefix", ["", "base.", "module.", "module.base."])
def test_prefixes_of_deeplab_pytorch_are_cut(prefix: str) -> None:
    with torch.device("meta"):
        state = ResNet101DeepLab().state_dict()
    file = {f"{prefix}{name}": value for name, value in state.items()}
    file[f"{prefix}aspp.c0.weight"] = torch.zeros(1)
    found = named_weights(file, "resnet101_deeplab")
    assert set(found.state) == set(state)
    assert found.left_out == ("aspp.c0.weight",)
    assert (found.preprocess, found.stride_in_1x1) == ("bgr_levels", True)


@pytest.mark.parametrize("heads", [["fc8"], ["f8_3", "f8_4", "f8_5", "f9"]])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_files_of_psa_and_eps_give_their_backbone(prefix: str, heads: list[str]) -> None:
    with torch.device("meta"):
        state = wide_resnet38().state_dict()
    file: dict[str, Tensor] = {f"{prefix}{name}": value for name, value in state.items()}
    file |= {f"{prefix}{head}.weight": torch.zeros(1) for head in heads}
    found = named_weights(file)
    assert set(found.state) == set(state)
    assert found.left_out == tuple(f"{head}.weight" for head in heads)
    assert found.preprocess == "imagenet"


def test_weights_beside_an_optimiser_are_found_and_lists_are_refused(tmp_path: Path) -> None:
    net = Narrow()
    for key in ("state_dict", "model"):
        torch.save({"epoch": 3, key: net.state_dict()}, tmp_path / "train.pth")
        assert set(backbone_state(tmp_path / "train.pth").state) == set(net.state_dict())
    torch.save({"epoch": 3}, tmp_path / "train.pth")
    with pytest.raises(WeightsError, match="must hold named tensors"):
        backbone_state(tmp_path / "train.pth")
