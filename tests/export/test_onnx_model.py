"""ONNX files compute what PyTorch computes, at any size and number of images."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from export.small_model import NAMES, noise, small_model
from wsss.errors import StageError, WeightsError
from wsss.export import onnx_model
from wsss.export.onnx_model import export_onnx
from wsss.segmentation.model import PredictionSettings, SegmentationModel

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SETTINGS = (
    {},
    {"scales": (0.5, 0.75)},
    {"preset": "scenes_v1_resnet"},
    {"preset": "scenes_v1_vgg"},
    {"preset": "scenes_v2_vgg"},
)


def model_of(settings: dict[str, object]) -> SegmentationModel:
    from wsss.segmentation import SegmentationConfig, build

    torch.manual_seed(0)
    config = SegmentationConfig(**{"preset": "scenes", **settings})  # type: ignore[arg-type]
    return SegmentationModel(build(config, NAMES), config, NAMES)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_file_gives_pytorchs_probabilities(settings: dict[str, object], tmp_path: Path) -> None:
    model = model_of(settings)
    assert export_onnx(model, tmp_path / "model.onnx") < 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    plain = PredictionSettings(scales=(1.0,), flip=False)
    for count, height, width in ((1, 64, 96), (3, 97, 75)):
        images = np.stack([noise(height, width, seed) for seed in range(count)])
        inputs = images.transpose(0, 3, 1, 2).astype(np.float32) / 255
        found = session.run(["probabilities"], {"images": inputs})[0]
        assert found.shape == (count, 4, height, width)
        for image, scores in zip(images, found, strict=True):
            assert np.allclose(scores, model.probabilities(image, plain), atol=1e-4)


def test_the_file_names_classes_and_open_sizes(tmp_path: Path) -> None:
    model = small_model()
    export_onnx(model, tmp_path / "model.onnx", check=False)
    document = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(document)
    about = {entry.key: entry.value for entry in document.metadata_props}
    assert json.loads(about["class_names"]) == list(NAMES)
    assert json.loads(about["colours"]) == model.colours.tolist()
    assert about["fingerprint"] == model.fingerprint
    for value, channels in ((document.graph.input[0], 3), (document.graph.output[0], 4)):
        sizes = value.type.tensor_type.shape.dim
        assert [size.dim_param or size.dim_value for size in sizes] == [
            "batch",
            channels,
            "height",
            "width",
        ]


def test_a_file_that_computes_something_else_is_not_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(onnx_model, "_largest_difference", lambda *_: 0.3)
    with pytest.raises(StageError, match=r"differ by up to 0\.3"):
        export_onnx(small_model(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_check_sees_other_weights_and_other_sizes(tmp_path: Path) -> None:
    model, other = small_model(), small_model(seed=1)
    export_onnx(model, tmp_path / "model.onnx")
    graph = onnx_model.OnnxGraph(other.net).eval()
    assert onnx_model._largest_difference(graph, tmp_path / "model.onnx", onnxruntime) > 0.1


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch) -> None:
    real = importlib.import_module

    def without(name: str) -> object:
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr("wsss.export.onnx_model.importlib.import_module", without)
    with pytest.raises(
        WeightsError, match=r'needs the package onnxruntime\. Run `pip install "wsss\[onnx\]"`'
    ):
        export_onnx(small_model(), tmp_path / "model.onnx")
    assert export_onnx(small_model(), tmp_path / "model.onnx", check=False) is None


@pytest.mark.slow
def test_the_published_network_is_exported_too(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(onnx_model, "CHECKED_SIZES", ((1, 65, 81),))
    assert export_onnx(model_of({"preset": "voc12"}), tmp_path / "model.onnx") < 1e-3
