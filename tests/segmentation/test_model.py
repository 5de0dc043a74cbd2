"""Models: they predict as the tested network, survive the way to a folder and back, refuse what is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from export.small_model import NAMES, noise, save_image, small_model, small_net
from wsss.crf import PRESETS, DenseCrf, unary_from_probabilities
from wsss.data.masks_png import read_mask
from wsss.errors import ShapeError, WeightsError
from wsss.segmentation import SegmentationConfig
from wsss.segmentation.model import PredictionSettings, SegmentationModel
from wsss.segmentation.predict import predict_folder
from wsss.segmentation.predict import probabilities as whole_probabilities
from wsss.types import Sample


class OneImage:
    """A data set of one image."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image

    def image_size(self, image_id: str) -> tuple[int, int]:
        return self.image.shape[:2]

    def sample(self, image_id: str) -> Sample:
        return Sample(image_id, self.image, np.zeros(3, dtype=bool))


def test_masks_are_those_of_the_tested_network(tmp_path: Path) -> None:
    model, image = small_model(), noise(70, 90)
    predict_folder(model.net, OneImage(image), ["x"], tmp_path, model.config, device="cpu")
    mask = model.predict(image)
    assert np.array_equal(mask, read_mask(tmp_path / "x.png"))
    assert len(np.unique(mask)) > 1
    assert mask.dtype == np.uint8
    assert np.array_equal(model.predict(save_image(tmp_path / "photo.png", image)), mask)


def test_probabilities_are_those_of_the_network_at_the_settings() -> None:
    model, image = small_model(), noise(40, 56)
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.net.mean, model.net.std))
    inputs = ((torch.from_numpy(image).permute(2, 0, 1).float() / 255 - mean) / std)[None]
    with torch.no_grad():
        own = whole_probabilities(model.net, inputs, flip=True)[0].numpy()
        other = whole_probabilities(model.net, inputs, scales=(1.0, 1.5), flip=False)[0].numpy()
    assert np.array_equal(model.probabilities(image), own)
    settings = PredictionSettings(scales=(1.0, 1.5), flip=False)
    assert np.array_equal(model.probabilities(image, settings), other)
    assert np.array_equal(model.predict(image, settings), other.argmax(0))


def test_a_dense_crf_follows_with_the_models_own_parameters() -> None:
    for given, parameters in ((None, PRESETS["deeplab_v2"]), ("irn", PRESETS["irn"])):
        model, image = small_model(dense_crf=given), noise(24, 32)
        plain = torch.from_numpy(model.probabilities(image))
        wanted = DenseCrf(image, parameters).marginals(unary_from_probabilities(plain)).clamp(0, 1)
        found = model.probabilities(image, PredictionSettings(crf=True))
        assert np.allclose(found, wanted.numpy(), atol=1e-5)


def test_only_images_of_more_pixels_than_a_tile_are_cut_up() -> None:
    model, image = small_model(test_flip=False), noise(96, 170)
    whole = model.probabilities(image)
    assert np.array_equal(model.probabilities(image, PredictionSettings(tile=128)), whole)  # 16,320 of 16,384
    seen = []
    logits = model.net.logits
    model.net.logits = lambda images: (seen.append(tuple(images.shape[2:])), logits(images))[1]
    large = noise(129, 150)
    tiled = model.predict(large, PredictionSettings(tile=128, scales=(1.0, 0.5)))
    assert tiled.shape == (129, 150)
    assert max(max(size) for size in seen) <= 128
    assert seen
    assert np.array_equal(
        tiled, model.probabilities(large, PredictionSettings(tile=128, scales=(1.0, 0.5))).argmax(0)
    )


def test_tiles_agree_with_the_whole_image_away_from_their_seams() -> None:
    model, image = small_model(test_flip=False), noise(256, 384, seed=5)
    whole = model.predict(image)
    tiled = model.predict(image, PredictionSettings(tile=192))
    assert (whole == tiled).mean() > 0.97


def test_a_folder_gives_the_same_model_back(tmp_path: Path) -> None:
    model = small_model()
    model.about = {"recipe_name": "mine"}
    folder = model.save_pretrained(tmp_path / "model")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    again = SegmentationModel.from_pretrained(folder)
    image = noise(50, 61)
    assert np.array_equal(again.probabilities(image), model.probabilities(image))
    assert (again.class_names, again.config, again.about) == (NAMES, model.config, model.about)
    assert again.fingerprint == model.fingerprint
    assert again.card == (folder / "README.md").read_text(encoding="utf-8")
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    again.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_other_weights_classes_colours_or_test_settings_are_another_model() -> None:
    model = small_model()
    net, config = model.net, model.config
    others = [
        small_model(seed=1),
        SegmentationModel(net, config, ("background", "x", *NAMES[2:])),
        SegmentationModel(net, config, NAMES, colours=np.eye(4, 3, dtype=np.uint8)),
        SegmentationModel(net, config.model_copy(update={"test_flip": False}), NAMES),
    ]
    assert len({model.fingerprint, *(other.fingerprint for other in others)}) == 5
    trained_otherwise = config.model_copy(update={"training": SegmentationConfig().training})
    assert SegmentationModel(net, trained_otherwise, NAMES).fingerprint == model.fingerprint


def test_names_and_colours_must_fit_the_network() -> None:
    config = SegmentationConfig(preset="scenes")
    with pytest.raises(ShapeError, match="the network's 4 classes; got 3 names"):
        SegmentationModel(small_net(config), config, NAMES[:3])
    with pytest.raises(ShapeError, match=r"must be \(H, W, 3\) uint8 RGB"):
        small_model().predict(np.zeros((4, 4), np.uint8))


def test_damaged_and_foreign_folders_are_one_clear_error(tmp_path: Path) -> None:
    folder = small_model().save_pretrained(tmp_path / "model")
    config, weights = (folder / "config.json").read_text(), (folder / "model.safetensors").read_bytes()

    def refused(message: str) -> None:
        with pytest.raises(WeightsError, match=message) as found:
            SegmentationModel.from_pretrained(folder)
        assert str(found.value).endswith(".")

    for change in (
        {"format_version": 2},
        {"class_names": ["background"]},
        {"class_names": [*NAMES, "one more"]},
        {"colours": [[0, 0, 300]] * 4},
        {"colours": [[0, 0, 30]] * 3},
        {"std": [0.2, 0.2, 0]},
        {"segmentation": {"network": "unknown"}},
        {"surprise": 1},
    ):
        (folder / "config.json").write_text(json.dumps({**json.loads(config), **change}))
        refused("is damaged or of another version")
    (folder / "config.json").write_text(config)
    for content in (b"", weights[:-10], b"\x80\x04pickle."):
        (folder / "model.safetensors").write_bytes(content)
        refused("is damaged or of another version")
    (folder / "model.safetensors").unlink()
    refused("There is no weights file")
    for content in ("{", "[" * 100_000, '{"model_type": "clip"}', "[]"):
        (folder / "config.json").write_text(content)
        refused("holds no segmentation model")
    with pytest.raises(WeightsError, match="holds no segmentation model"):
        SegmentationModel.from_pretrained(tmp_path / "nowhere")


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("mine")
    with pytest.raises(WeightsError, match="holds something else"):
        small_model().save_pretrained(tmp_path / "photos")
    assert (tmp_path / "photos" / "a.txt").read_text() == "mine"


def test_notebooks_see_the_facts_and_the_classes() -> None:
    model = small_model()
    assert "classes=4" in repr(model)
    page = model._repr_html_()
    assert "Zähler &lt;&amp;&gt;" in page
    assert "rgb(128,0,0)" in page  # colour of the first class in the VOC palette


@pytest.mark.parametrize("name", ["model.onnx", "masks/a.png", ".git/HEAD"])
def test_a_model_with_anything_beside_it_is_not_replaced(tmp_path: Path, name: str) -> None:
    folder = small_model().save_pretrained(tmp_path / "model")
    (folder / ".cache").mkdir()
    small_model().save_pretrained(folder)  # what a download leaves is no loss
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("mine")
    with pytest.raises(WeightsError, match=f"holds something else .{Path(name).parts[0]}"):
        small_model().save_pretrained(folder)
    assert (folder / name).read_text() == "mine"
