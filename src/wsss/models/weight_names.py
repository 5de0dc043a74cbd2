"""From the names of published weights files to the names of our networks: rules on names, no files.

| published as | network | what differs |
|---|---|---|
| mxnet, ademxapp's model A1 | wide_resnet38 | `res2a_branch2a_weight` and the like |
| caffe, VGG-16 | vgg16 | blobs of layers; the plain network has another fc6 and fc7 |
| caffe, DeepLab V2's ResNet-101 | resnet101_deeplab | blobs; batch norm in two layers, sums to be divided |
| deeplab-pytorch | resnet101_deeplab | `base.` before each name |
| torchvision, VGG-16 | vgg16, but for fc6 and fc7 | numbers instead of names |
| torchvision, ResNet | resnet50, resnet101; resnet101_deeplab | names; stride and input of the latter |
| PSA, EPS, IRN | wide_resnet38, vgg16, resnet50 | `module.` of data-parallel training, heads |

What a network's names cannot say goes with them in `NamedWeights`: which images the weights want, and where
bottlenecks have their stride.

Source: the loading code of PSA (https://github.com/jiwoon-ahn/psa at 9493e59) and deeplab-pytorch
(https://github.com/kazuto1011/deeplab-pytorch at 4219467): facts of names alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsss.errors import WeightsError
from wsss.models.caffe_model import CaffeLayer

Array = npt.NDArray[Any]
Preprocess: TypeAlias = Literal["imagenet", "bgr_levels", "unknown"]
PREPROCESSES: Final = ("imagenet", "bgr_levels", "unknown")

HEADS: Final = ("fc.", "fc8.", "f8_3.", "f8_4.", "f8_5.", "f9.", "aspp.")  # classifiers, PSA's affinity net
DEEPLAB: Final = "resnet101_deeplab"
VGG_FC: Final = ("fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias")
PLAIN_VGG: Final = (
    "Its fc6 and fc7 are those of the plain VGG-16 (4,096 channels), which DeepLab's of 1,024 channels can't "
    "take; `vgg16_20M.caffemodel` holds the reduced ones."
)
_PLAIN_FC: Final = 4096
_SHARED_BRANCHES: Final = ("res075", "res05")  # the same weights again, for smaller images
_MXNET_NORM: Final = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_var": "running_var",
}
_MXNET_CONV: Final = re.compile(r"res(\d)(a|b\d+)_(branch\w+)_weight")
_MXNET_BN: Final = re.compile(rf"bn(\d)(a|b\d+)_(branch\w+?)_({'|'.join(_MXNET_NORM)})")
_CAFFE_UNIT: Final = re.compile(r"(?:res|bn|scale)(\d)(a|b|c|b\d+)_branch(1|2a|2b|2c)")
_CAFFE_UNITS: Final = {"1": "shortcut", "2a": "reduce", "2b": "conv3x3", "2c": "increase"}
_TORCHVISION: Final = re.compile(r"layer(\d)\.(\d+)\.(conv\d|bn\d|downsample\.\d)\.(\w+)")
_TORCHVISION_UNITS: Final = {
    "conv1": "reduce.conv",
    "bn1": "reduce.bn",
    "conv2": "conv3x3.conv",
    "bn2": "conv3x3.bn",
    "conv3": "increase.conv",
    "bn3": "increase.bn",
    "downsample.0": "shortcut.conv",
    "downsample.1": "shortcut.bn",
}
_VGG_PLACES: Final = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # convolutions in `features`
_VGG_NAMES: Final = tuple(
    f"conv{group}_{number}"
    for group, count in enumerate((2, 2, 3, 3, 3), 1)
    for number in range(1, count + 1)
)


@dataclass(frozen=True)
class NamedWeights:
    """Weights of a backbone under our names, and what the names can't say.

    Attributes:
        state: named tensors of the backbone alone.
        preprocess: the images that the weights want: "imagenet" (RGB, ImageNet's statistics), "bgr_levels"
            (caffe: BGR, 0…255, minus the mean colour), or "unknown" (what they were trained with).
        stride_in_1x1: whether bottlenecks with a stride have it in their first 1x1 convolution (caffe) and
            not in the 3x3 one (torchvision); None where that is unknown or no question.
        left_out: names of the file's heads, which a backbone has no place for.
        note: one sentence on what is missing and why, or "".
    """

    state: dict[str, Tensor] = field(repr=False)
    preprocess: Preprocess = "unknown"
    stride_in_1x1: bool | None = None
    left_out: tuple[str, ...] = ()
    note: str = ""


def named_weights(
    state: Mapping[str, Tensor], network: str | None = None, metadata: Mapping[str, str] | None = None
) -> NamedWeights:
    """A backbone's weights under our names, from a state dict of any known layout.

    Args:
        state: names of PyTorch files, or what `from_mxnet` and `from_caffe` made.
        network: the backbone they are for; it matters for weights of torchvision, which "resnet101_deeplab"
            and "vgg16" take under other names.
        metadata: text that stood beside them; `preprocess` and `stride_in_1x1`, as a conversion writes them,
            are believed.
    """
    plain = without_prefix(state, "module.")
    official, nested = _under("resnet50.", plain), _under("backbone.", plain)
    if official:  # the other names of IRN's and CLIMS's networks are aliases of these
        plain = official
    elif nested:
        plain = nested
    else:
        plain = without_prefix(plain, "base.")
    preprocess, stride = _conventions(plain)
    either = {"layer1.conv1.conv.weight", "conv1_1.weight"} & set(plain)
    if official or (nested and either):
        # CLIMS's networks may see CLIP's statistics, and ours of caffe's names follow either convention
        preprocess, stride = "unknown", None if nested else stride
    if network == "vgg16" and is_torchvision_vgg(plain):
        plain = vgg16_from_torchvision(plain)
    note = PLAIN_VGG if _is_plain_vgg(plain) else ""
    heads = HEADS + (VGG_FC if note else ())
    left_out = tuple(name for name in plain if name.startswith(heads))
    kept = {name: value for name, value in plain.items() if not name.startswith(heads)}
    if network == DEEPLAB and is_torchvision_resnet(kept):
        kept = deeplab_from_torchvision(kept)
    told = metadata or {}
    if told.get("preprocess") in PREPROCESSES:
        preprocess = told["preprocess"]  # type: ignore[assignment]
    if told.get("stride_in_1x1") in ("true", "false"):
        stride = told["stride_in_1x1"] == "true"
    return NamedWeights(kept, preprocess, stride, left_out, note)


def _conventions(state: Mapping[str, Tensor]) -> tuple[Preprocess, bool | None]:
    """Images and stride that go with a layout of names."""
    if "layer1.conv1.conv.weight" in state:
        return "bgr_levels", True
    if "conv1_1.weight" in state:
        return "bgr_levels", None
    if is_torchvision_resnet(state):
        return "imagenet", False
    if "conv1a.weight" in state or is_torchvision_vgg(state):
        return "imagenet", None
    return "unknown", None


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The same tensors; `prefix` is cut from the names if all of them have it."""
    if state and all(name.startswith(prefix) for name in state):
        return _under(prefix, state)
    return dict(state)


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


# mxnet


def from_mxnet(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    """Weights of WideResNet-38 from ademxapp's names; the classifier of 1,000 classes becomes `fc8`.

    Args:
        arrays: names with or without `arg:` and `aux:`, such as `arg:res2a_branch2a_weight`.

    Raises:
        WeightsError: a name that the network does not have.
    """
    state: dict[str, Tensor] = {}
    for full, array in arrays.items():
        name = full.removeprefix("arg:").removeprefix("aux:")
        ours = _from_mxnet_name(name)
        if ours is None:
            raise WeightsError(
                f"`{full}` is no name of WideResNet-38 (ademxapp's model A1), such as "
                "`arg:res2a_branch2a_weight`. No other network of mxnet is known; use A1's file."
            )
        state[ours] = torch.from_numpy(array)
    return state


def _from_mxnet_name(name: str) -> str | None:
    if name == "conv1a_weight":
        return "conv1a.weight"
    if found := re.fullmatch(r"linear1000_(weight|bias)", name):
        return f"fc8.{found[1]}"
    if found := re.fullmatch(rf"bn7_({'|'.join(_MXNET_NORM)})", name):
        return f"bn7.{_MXNET_NORM[found[1]]}"
    if found := _MXNET_CONV.fullmatch(name):
        return f"{_mxnet_block(found)}.conv_{found[3]}.weight"
    if found := _MXNET_BN.fullmatch(name):
        return f"{_mxnet_block(found)}.bn_{found[3]}.{_MXNET_NORM[found[4]]}"
    return None


def _mxnet_block(found: re.Match[str]) -> str:
    """Block a of group 4 is `b4`, its block b3 is `b4_3`."""
    return f"b{found[1]}" if found[2] == "a" else f"b{found[1]}_{found[2][1:]}"


# caffe


def from_caffe(layers: Sequence[CaffeLayer]) -> dict[str, Tensor]:
    """Weights of VGG-16 or of DeepLab's ResNet-101 from the layers of caffe.

    Raises:
        WeightsError: layers of another network, or with other blobs than theirs.
    """
    names = {layer.name for layer in layers}
    if "conv1_1" in names:
        return _vgg16_from_caffe(layers)
    if "res2a_branch1" in names:
        return _deeplab_from_caffe(layers)
    raise WeightsError(
        f"The caffe network with layers {sorted(names)[:4]} is not known: VGG-16 has a layer `conv1_1`, "
        "DeepLab's ResNet-101 a layer `res2a_branch1`. Use a file of one of these."
    )


def _vgg16_from_caffe(layers: Sequence[CaffeLayer]) -> dict[str, Tensor]:
    """Layers keep their names: conv1_1 … fc8; blobs are weight and bias."""
    state: dict[str, Tensor] = {}
    for layer in layers:
        state |= _convolution(layer, layer.name)
    return state


def _deeplab_from_caffe(layers: Sequence[CaffeLayer]) -> dict[str, Tensor]:
    """Convolutions, and batch norms of two layers each: BatchNorm (sums) and Scale (factor and shift)."""
    state: dict[str, Tensor] = {}
    norm: str | None = None  # the batch norm that the next Scale layer belongs to
    for layer in layers:
        if any(branch in layer.name for branch in _SHARED_BRANCHES):
            continue
        if layer.type == "BatchNorm":
            norm = f"{_deeplab_unit(layer.name)}.bn"
            state |= _statistics(layer, norm)
        elif layer.type == "Scale":
            if norm is None:
                raise WeightsError(
                    f"Layer `{layer.name}` must follow a BatchNorm layer; it follows none. Use another copy."
                )
            state |= _named_blobs(layer, norm, ("weight", "bias"))
            norm = None
        elif found := re.fullmatch(r"fc1_voc12_c(\d)", layer.name):
            state |= _convolution(layer, f"aspp.c{found[1]}")
        elif layer.name.startswith("fc"):
            state |= _convolution(layer, "fc")
        else:
            state |= _convolution(layer, f"{_deeplab_unit(layer.name)}.conv")
    return state


def _deeplab_unit(name: str) -> str:
    """Where a layer of caffe's ResNet-101 stands in ours: `res4b22_branch2a` is `layer4.block23.reduce`."""
    if name in ("conv1", "bn_conv1", "scale_conv1"):
        return "layer1.conv1"
    found = _CAFFE_UNIT.fullmatch(name)
    if found is None:
        raise WeightsError(
            f"`{name}` is no layer of DeepLab's ResNet-101, such as `res4b22_branch2a`. Use its file."
        )
    letter = found[2]
    block = "abc".index(letter) + 1 if len(letter) == 1 else int(letter[1:]) + 1
    return f"layer{found[1]}.block{block}.{_CAFFE_UNITS[found[3]]}"


def _statistics(layer: CaffeLayer, norm: str) -> dict[str, Tensor]:
    """Mean and variance: caffe keeps sums and, in its third blob, what they are to be divided by."""
    found = _named_blobs(layer, norm, ("running_mean", "running_var", "factor"))
    factor = float(found.pop(f"{norm}.factor"))
    return {name: value / factor if factor else value * 0 for name, value in found.items()}


def _convolution(layer: CaffeLayer, name: str) -> dict[str, Tensor]:
    return _named_blobs(layer, name, ("weight", "bias")[: len(layer.blobs)])


def _named_blobs(layer: CaffeLayer, name: str, kinds: Sequence[str]) -> dict[str, Tensor]:
    """Blobs as tensors; all but weights of convolutions are vectors, whatever sizes old files give them."""
    if not kinds or len(kinds) != len(layer.blobs):
        raise WeightsError(
            f"Layer `{layer.name}` ({layer.type}) must have {len(kinds) or '1 or 2'} blobs; "
            f"got {len(layer.blobs)}. Use another copy of the file."
        )
    state = {}
    for kind, blob in zip(kinds, layer.blobs, strict=True):
        is_kernel = kind == "weight" and layer.type not in ("Scale", "BatchNorm")
        values = blob.astype(np.float32, copy=False)
        state[f"{name}.{kind}"] = torch.from_numpy(values if is_kernel else values.reshape(-1))
    return state


# torchvision


def is_torchvision_resnet(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of torchvision's ResNets with bottlenecks."""
    return "conv1.weight" in state and "layer1.0.conv3.weight" in state


def deeplab_from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Torchvision's ResNet-101 under the names of DeepLab's; other tensors keep theirs.

    The names alone are changed. The strides stay torchvision's, in the 3x3 convolutions, and the weights want
    RGB images of ImageNet's statistics as before.
    """
    renamed = {}
    for name, value in state.items():
        found, stem = _TORCHVISION.fullmatch(name), re.fullmatch(r"(conv|bn)1\.(\w+)", name)
        if found and found[3] in _TORCHVISION_UNITS:
            unit = _TORCHVISION_UNITS[found[3]]
            renamed[f"layer{int(found[1]) + 1}.block{int(found[2]) + 1}.{unit}.{found[4]}"] = value
        else:
            renamed[f"layer1.conv1.{stem[1]}.{stem[2]}" if stem else name] = value
    return renamed


def is_torchvision_vgg(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of torchvision's VGG-16 without batch norm."""
    return "features.28.weight" in state and "features.1.weight" not in state


def vgg16_from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Torchvision's VGG-16 under caffe's names; its classifier becomes fc6, fc7 and fc8."""
    layers = {f"features.{place}": name for place, name in zip(_VGG_PLACES, _VGG_NAMES, strict=True)}
    layers |= {"classifier.0": "fc6", "classifier.3": "fc7", "classifier.6": "fc8"}
    renamed = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        renamed[f"{layers.get(layer, layer)}.{kind}"] = value
    return renamed


def _is_plain_vgg(state: Mapping[str, Tensor]) -> bool:
    """Whether fc6 is that of the classifier of 224 x 224 pixels, of which DeepLab's was made."""
    return "conv1_1.weight" in state and "fc6.weight" in state and _PLAIN_FC in state["fc6.weight"].shape
