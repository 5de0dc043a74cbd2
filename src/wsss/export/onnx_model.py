"""A model as one ONNX file: any number of images of any size, normalisation inside.

Input `images`: (B, 3, H, W), float32, RGB in [0, 1]. Output `probabilities`: (B, C, H, W), in [0, 1], at the
images' size. The graph is the network at scale 1 without mirror images; scales, flip, CRF and tiles are the
caller's.
"""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import StageError, WeightsError
from wsss.export.target_file import check_target_file
from wsss.segmentation.base import SegmentationNet
from wsss.segmentation.model import SegmentationModel
from wsss.training.checkpoint import atomic_path

OPSET: Final = 18
TOLERANCE: Final = 1e-3  # largest difference of a probability from PyTorch's
CHECKED_SIZES: Final = ((2, 96, 128), (1, 127, 81))  # images, height, width; none of them is the traced one
_TRACED: Final = (2, 3, 112, 144)
EXAMPLE: Final = "model.onnx"  # for messages
_INPUT, _OUTPUT = "images", "probabilities"


class OnnxGraph(nn.Module):
    """What the ONNX file computes: normalisation, network, enlargement to the images' size, softmax."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: SegmentationNet) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(net.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(net.std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (B, C, H, W) for images (B, 3, H, W), RGB in [0, 1]."""
        logits = self.net.logits((images - self.mean) / self.std)
        logits = F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return logits.softmax(dim=1)


def export_onnx(model: SegmentationModel, path: Path, *, check: bool = True) -> float | None:
    """Write a model as an ONNX file, complete or absent.

    Class names, colours and the fingerprint are in the file's metadata.

    Args:
        model: any; its network is left on the CPU.
        path: the file.
        check: compare with PyTorch by onnxruntime, at two sizes and numbers of images.

    Returns:
        The largest difference of a probability; None without a check.

    Raises:
        WeightsError: onnx or onnxruntime is not installed.
        StageError: the network can't be exported, or the file computes something else.
        DataError: there can be no such file.
    """
    check_target_file(path, EXAMPLE)
    onnx = _package("onnx")
    runtime = _package("onnxruntime") if check else None
    graph = OnnxGraph(model.to("cpu").net).eval()
    with atomic_path(path) as temporary:
        _trace(graph, temporary)
        document = onnx.load(temporary)
        about = {
            "class_names": json.dumps(model.class_names, ensure_ascii=False),
            "colours": json.dumps(model.colours.tolist()),
            "input": "RGB in [0, 1], (B, 3, H, W)",
            "fingerprint": model.fingerprint,
        }
        onnx.helper.set_model_props(document, about)
        document.graph.output[0].type.tensor_type.shape.dim[1].dim_value = len(model.class_names)
        onnx.save(document, temporary)
        difference = None if runtime is None else _largest_difference(graph, temporary, runtime)
        if difference is not None and not difference <= TOLERANCE:
            raise StageError(
                f"The ONNX file computes something else than the network: probabilities differ by up to "
                f"{difference:.2g}, more than {TOLERANCE:g}. Try another version of onnxruntime; nothing was "
                "written."
            )
    return difference


def _trace(graph: OnnxGraph, path: Path) -> None:
    """Write the graph, its number and size of images left open."""
    shape = {0: "batch", 2: "height", 3: "width"}
    noise = torch.rand(_TRACED, generator=torch.Generator().manual_seed(0))
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the tracer, about sizes: they stay symbolic, and are checked
            torch.onnx.export(
                graph,
                (noise,),
                str(path),
                dynamo=False,  # the newer exporter can't do resizes by a factor of unknown sizes
                opset_version=OPSET,
                input_names=[_INPUT],
                output_names=[_OUTPUT],
                dynamic_axes={_INPUT: shape, _OUTPUT: shape},
            )
    except (RuntimeError, ValueError, TypeError) as error:
        raise StageError(
            f"The network can't be exported to ONNX ({str(error).strip().splitlines()[0]}). "
            "All networks of `wsss` but some of `smp` can."
        ) from error


def _largest_difference(graph: OnnxGraph, path: Path, runtime: Any) -> float:
    """Between the file's probabilities and PyTorch's, over noise of `CHECKED_SIZES`."""
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    largest = 0.0
    for count, height, width in CHECKED_SIZES:
        images = torch.rand((count, 3, height, width), generator=generator)
        with torch.no_grad():
            wanted = graph(images)
        found = torch.from_numpy(session.run([_OUTPUT], {_INPUT: images.numpy()})[0])
        if found.shape != wanted.shape:
            return float("inf")
        largest = max(largest, float((found - wanted).abs().max()))
    return largest


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise WeightsError(
            f'Exporting to ONNX needs the package {name}. Run `pip install "wsss[onnx]"`.'
        ) from error
