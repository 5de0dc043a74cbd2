from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from wsss.activation.extract import capped_size, scaled_size
from wsss.crf import PRESETS, CrfParameters, DenseCrf, unary_from_probabilities
from wsss.data.masks_png import read_mask
from wsss.segmentation import SegmentationConfig
from wsss.segmentation.base import SegmentationNet
from wsss.segmentation.predict import (
    _scales_of_shrunk,
    best_classes,
    crf_marginals,
    predict_folder,
    probabilities,
)
from wsss.types import Sample


class Colours(SegmentationNet):
    """Says the strongest colour of each 2x2 cell; counts what it sees."""

    def __init__(self):
        super().__init__(3)
        self.seen = []

    def outputs(self, images):
        self.seen.append(tuple(images.shape))
        return {"cross_entropy": F.avg_pool2d(images, 2, ceil_mode=True)}

    def parameter_groups(self, base_lr):
        return []


class Pictures:
    """Random images of a few sizes; every id has one size."""

    sizes: ClassVar = {"a": (8, 10), "b": (7, 5), "c": (8, 10), "d": (8, 10), "folder/e": (7, 5)}

    def image_size(self, image_id):
        return self.sizes[image_id]

    def sample(self, image_id, *, with_mask=False):
        assert not with_mask
        rng = np.random.default_rng(sum(map(ord, image_id)))
        image = rng.integers(0, 256, (*self.sizes[image_id], 3)).astype(np.uint8)
        return Sample(image_id, image, np.zeros(2, dtype=bool))


CONFIG = SegmentationConfig(preset="scenes", test_flip=False, test_batch_size=2)


def predicted(folder, net=None, config=CONFIG, **options):
    net = net or Colours()
    predict_folder(net, Pictures(), tuple(Pictures.sizes), folder, config, device="cpu", **options)
    return net


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.png")}


def test_each_mask_has_its_images_own_size_and_the_best_class_of_enlarged_logits(tmp_path):
    net = predicted(tmp_path)
    for image_id, size in Pictures.sizes.items():
        mask = read_mask(tmp_path / f"{image_id}.png")
        image = torch.from_numpy(Pictures().sample(image_id).image).permute(2, 0, 1).float() / 255
        image = (image - torch.tensor(net.mean)[:, None, None]) / torch.tensor(net.std)[:, None, None]
        logits = F.interpolate(net.logits(image[None]), size=size, mode="bilinear", align_corners=False)
        assert np.array_equal(mask, logits[0].argmax(0).numpy())
    assert Image.open(tmp_path / "a.png").mode == "P"


def test_images_of_equal_size_share_batches(tmp_path):
    assert sorted(predicted(tmp_path).seen) == [(1, 3, 8, 10), (2, 3, 7, 5), (2, 3, 8, 10)]


def test_an_interrupted_prediction_goes_on_to_the_same_files(tmp_path):
    predicted(tmp_path)
    whole = files(tmp_path)
    assert predicted(tmp_path).seen == []
    (tmp_path / "c.png").unlink()
    again = predicted(tmp_path)
    assert again.seen == [(2, 3, 8, 10)]  # its batch as before, so not even rounding differs
    assert files(tmp_path) == whole


def test_progress_counts_images(tmp_path):
    calls = []
    predicted(tmp_path, progress=lambda *call: calls.append(call[:2]))
    assert calls == [(2, 5), (3, 5), (5, 5)]


def test_flip_and_scales_average_probabilities():
    net, images = Colours(), torch.randn(2, 3, 8, 12)
    expected = torch.zeros(2, 3, 8, 12)
    for scale in (1.0, 0.5):
        for flip in (False, True):
            scaled = F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
            scaled = scaled.flip(3) if flip else scaled
            logits = F.avg_pool2d(scaled, 2)
            logits = logits.flip(3) if flip else logits
            logits = F.interpolate(logits, size=(8, 12), mode="bilinear", align_corners=False)
            expected += logits.softmax(1) / 4
    result = probabilities(net, images, scales=(1.0, 0.5), flip=True)
    assert torch.allclose(result, expected, atol=1e-6)
    assert torch.allclose(result.sum(1), torch.ones(2, 8, 12), atol=1e-5)


def test_with_flip_a_mirrored_image_gives_the_mirrored_answer():
    net, images = Colours(), torch.randn(1, 3, 9, 7)
    mirrored = probabilities(net, images.flip(3), flip=True).flip(3)
    assert torch.allclose(mirrored, probabilities(net, images, flip=True), atol=1e-6)


def test_huge_images_come_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr("wsss.segmentation.predict._MOST_PIXELS", 100)
    assert {shape[0] for shape in predicted(tmp_path).seen if shape[2] == 8} == {1}


def test_up_to_the_cap_masks_are_the_same_bytes(tmp_path, monkeypatch):
    predicted(tmp_path / "free")
    monkeypatch.setattr("wsss.segmentation.predict.MAX_PIXELS", 8 * 10)
    predicted(tmp_path / "capped")
    assert files(tmp_path / "capped") == files(tmp_path / "free")


def test_the_network_never_sees_more_pixels_than_the_cap(tmp_path, monkeypatch):
    monkeypatch.setattr("wsss.segmentation.predict.MAX_PIXELS", 40)
    config = CONFIG.model_copy(update={"test_scales": (0.5, 1.0, 2.0), "test_flip": True})
    seen = predicted(tmp_path, config=config).seen
    assert {shape[2:] for shape in seen} == {(4, 5), (5, 7), (4, 2), (7, 5)}  # half of (8, 10), not of (5, 7)
    for image_id, size in Pictures.sizes.items():
        assert read_mask(tmp_path / f"{image_id}.png").shape == size


@pytest.mark.parametrize(
    ("scale", "shown"),
    [
        (320 / 4032, (240, 320)),
        (0.5, (1512, 2016)),
        (0.9, (1773, 2364)),
        (1.0, (1773, 2364)),
        (2, (1773, 2364)),
    ],
)
def test_scales_are_those_of_the_whole_image_though_it_is_shrunk_first(scale, shown):
    size, most = (3024, 4032), 2**22
    seen = capped_size(size, most)
    (of_shrunk,) = _scales_of_shrunk((scale,), size, seen)
    assert scaled_size(seen, of_shrunk, most) == shown
    assert _scales_of_shrunk((scale,), size, size) == (scale,)


def test_the_network_sees_a_large_image_at_the_scale_of_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(Pictures, "sizes", {"a": (48, 64)})
    monkeypatch.setattr("wsss.segmentation.predict.MAX_PIXELS", 24 * 32)
    config = CONFIG.model_copy(update={"test_scales": (8 / 64,)})
    assert predicted(tmp_path, config=config).seen == [(1, 3, 6, 8)]


def test_shrunk_images_of_two_halves_get_masks_of_two_halves(tmp_path, monkeypatch):
    image = np.zeros((32, 64, 3), dtype=np.uint8)
    image[:, :32, 0], image[:, 32:, 2] = 200, 200
    sample = Sample("a", image, np.zeros(2, dtype=bool))
    monkeypatch.setattr(Pictures, "sizes", {"a": image.shape[:2]})
    monkeypatch.setattr(Pictures, "sample", lambda *_, **__: sample)
    monkeypatch.setattr("wsss.segmentation.predict.MAX_PIXELS", 8 * 16)
    assert predicted(tmp_path).seen == [(1, 3, 8, 16)]
    expected = np.repeat([[0] * 32 + [2] * 32], 32, axis=0)
    assert np.array_equal(read_mask(tmp_path / "a.png"), expected)


def test_the_best_class_is_that_of_all_classes_enlarged_at_once():
    scores = torch.randn(2, 4, 5, 6).softmax(1)
    enlarged = F.interpolate(scores, size=(13, 16), mode="bilinear", align_corners=False)
    assert torch.equal(best_classes(scores, (13, 16)), enlarged.argmax(1).to(torch.uint8))
    assert torch.equal(best_classes(scores, (5, 6)), scores.argmax(1).to(torch.uint8))
    even = torch.full((1, 3, 2, 2), 1 / 3)
    assert not best_classes(even, (4, 4)).any()  # the first of equals


@pytest.mark.parametrize("size", [(1, 1), (3, 1)])
def test_tiny_images_are_predicted(tmp_path, size, monkeypatch):
    monkeypatch.setattr(Pictures, "sizes", {"a": size})
    predicted(tmp_path, config=CONFIG.model_copy(update={"test_scales": (0.25, 1.0)}))
    assert read_mask(tmp_path / "a.png").shape == size


CRF = CrfParameters(appearance_xy_std=5, appearance_rgb_std=40, iterations=3)


def test_a_dense_crf_refines_each_image_by_itself():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 8, 10, 3)).astype(np.uint8)
    scores = torch.randn(2, 3, 8, 10).softmax(1)
    found = crf_marginals(scores, images, CRF)
    for image, score, marginals in zip(images, scores, found, strict=True):
        by_hand = DenseCrf(image, CRF).marginals(-score.clamp(1e-5, 1).log())
        assert torch.allclose(marginals, by_hand, atol=1e-6)
    assert torch.allclose(found.sum(1), torch.ones(2, 8, 10), atol=1e-5)
    assert torch.allclose(
        crf_marginals(scores, images, PRESETS["deeplab_v2"].model_copy(update={"iterations": 0})),
        scores,
        atol=1e-4,
    )


def test_masks_after_a_dense_crf_are_those_of_the_crf_called_by_hand(tmp_path):
    net = predicted(tmp_path / "crf", dense_crf=CRF)
    predicted(tmp_path / "plain")
    for image_id in Pictures.sizes:
        pixels = Pictures().sample(image_id).image
        images = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        images = (images - torch.tensor(net.mean)[:, None, None]) / torch.tensor(net.std)[:, None, None]
        scores = probabilities(net, images[None])[0]
        marginals = DenseCrf(pixels, CRF).marginals(unary_from_probabilities(scores))
        expected = marginals.argmax(0).numpy()
        assert np.array_equal(read_mask(tmp_path / "crf" / f"{image_id}.png"), expected)
    assert files(tmp_path / "crf") != files(tmp_path / "plain")


def test_large_images_are_refined_at_the_size_that_the_network_saw(tmp_path, monkeypatch):
    monkeypatch.setattr("wsss.segmentation.predict.MAX_PIXELS", 40)
    predicted(tmp_path, dense_crf=CRF)
    for image_id, size in Pictures.sizes.items():
        assert read_mask(tmp_path / f"{image_id}.png").shape == size
