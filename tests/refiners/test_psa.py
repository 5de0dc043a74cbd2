"""PSA as a refiner: fit on the tiny scenes, and walks whose result is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from wsss.activation.store import MapStore
from wsss.affinity.feature_affinity import AffinityNet, pair_affinities
from wsss.affinity.labels import mean_over, pair_labels
from wsss.crf import CrfParameters
from wsss.data.dataset import WithoutMasks
from wsss.errors import DataError, RecipeError, ShapeError, StageError
from wsss.models import build_backbone
from wsss.refiners import find_refiner
from wsss.refiners.psa import Psa, PsaConfig, read_scores
from wsss.training.config import TrainingConfig
from wsss.types import ActivationMaps, Sample

NAMES = ("background", "cat", "dog", "cow")
SMALL = {
    "backbone": "resnet_small",
    "backbone_weights": None,
    "batch_norm": "live",
    "freeze_until": None,
    "output_stride": 4,
    "grid_stride": 4,
    "crf": CrfParameters(iterations=1),
    "training": {"steps": 3, "batch_size": 4, "learning_rate": 0.01, "augmentation": {"crop_size": 64}},
}


def sample_of(height, width, name="image"):
    image = np.random.default_rng(height * width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Sample(name, image, np.ones(3, dtype=np.bool_))


def maps_of(height, width, class_ids=(1, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(len(class_ids), height, width, generator=generator)
    return ActivationMaps(torch.tensor(class_ids, dtype=torch.long), scores)


def fitted(**values):
    """A refiner with a random network."""
    torch.manual_seed(0)
    refiner = Psa(PsaConfig(**{**SMALL, **values}), NAMES)
    net = AffinityNet(
        build_backbone("resnet_small", output_stride=4),
        grid_stride=refiner.stride,
        radius=refiner.config.radius,
    )
    refiner._net = net.eval()
    return refiner


class Plain(AffinityNet):
    """Features are the mean colours of the cells."""

    def features(self, images):
        return 3 * F.avg_pool2d(images, self.grid_stride)


# ---- settings


def test_the_defaults_are_the_published_ones():
    config = PsaConfig()
    training = config.training
    assert (config.low_power, config.background_power, config.high_power) == (4, 16, 32)
    assert (config.radius, config.affinity_power, config.num_doublings, config.grid_stride) == (5, 8, 8, 8)
    assert (config.crf.appearance_xy_std, config.crf.appearance_rgb_std) == (80, 13)
    assert (training.epochs, training.batch_size, training.learning_rate) == (8, 8, 0.1)
    assert (training.momentum, training.weight_decay, training.schedule) == (5e-4, 5e-4, "poly")
    crop = training.augmentation
    assert (crop.crop_size, crop.long_side, crop.scale, crop.pad, crop.flip) == (
        448,
        None,
        None,
        "black",
        0.5,
    )
    assert crop.jitter is not None
    assert find_refiner("psa") is Psa


@pytest.mark.parametrize("preset", Psa.presets)
def test_presets_are_whole_settings(preset):
    config = PsaConfig(**Psa.presets[preset])
    assert config.borders == "faithful"
    assert config.group_norm == (config.backbone == "vgg16")


def test_the_vgg_preset_builds_psas_network():
    config = PsaConfig(**{**Psa.presets["vgg16"], "backbone_weights": None, "batch_norm": "live"})
    net = Psa(config, NAMES)._untrained(with_weights=False)
    assert net.backbone.fc6.dilation == (4, 4)
    assert [projection[0].in_channels for projection in net.projections] == [512, 512, 1024]
    frozen = {name for name, p in net.backbone.named_parameters() if not p.requires_grad}
    assert frozen == {f"conv{n}.{kind}" for n in ("1_1", "1_2", "2_1", "2_2") for kind in ("weight", "bias")}


def test_training_settings_that_are_not_given_keep_their_published_values():
    training = PsaConfig(training={"steps": 7, "augmentation": {"crop_size": 96}}).training
    assert (training.steps, training.epochs, training.batch_size) == (7, None, 8)
    assert (training.augmentation.crop_size, training.augmentation.pad) == (96, "black")
    scaled = PsaConfig(training={"augmentation": {"scale": (0.8, 1.2), "jitter": None}}).training.augmentation
    assert (scaled.scale, scaled.long_side, scaled.jitter) == ((0.8, 1.2), None, None)
    whole = TrainingConfig(steps=3)
    assert PsaConfig(training=whole).training is whole


def test_settings_that_can_not_learn_are_errors():
    with pytest.raises(ValidationError, match="random weights can't learn with frozen batch norms"):
        PsaConfig(backbone_weights=None)
    with pytest.raises(ValidationError, match="at least 9 cells of 8 pixels"):
        PsaConfig(training={"augmentation": {"crop_size": 64}})
    refiner = Psa(PsaConfig(**SMALL, backbone_options={"fc6_dilation": 4}), NAMES)
    with pytest.raises(RecipeError, match=r"do not fit the backbone `resnet_small` \(.*fc6_dilation"):
        refiner._untrained(with_weights=False)


def test_frozen_batch_norms_do_not_train_at_all():
    refiner = Psa(PsaConfig(**{**SMALL, "backbone_weights": "file", "batch_norm": "frozen"}), NAMES)
    net = refiner._untrained(with_weights=False).train()
    norms = [m for m in net.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(not norm.training and not norm.weight.requires_grad for norm in norms)


# ---- refine


@pytest.mark.parametrize("borders", ["improved", "faithful"])
@pytest.mark.parametrize("size", [(33, 47), (40, 64), (64, 13), (1, 1), (3, 70), (9, 2)])
def test_any_image_size_gives_maps_on_the_grid(size, borders):
    refiner = fitted(borders=borders)
    refined = refiner.refine(sample_of(*size), maps_of(*size))
    assert refined.class_ids.tolist() == [1, 3]
    assert refined.size == (-(-size[0] // 4), -(-size[1] // 4))
    assert refined.background.shape == refined.size
    assert refined.enlarged(refiner.stride, *size).size == size


def test_one_pixel_keeps_its_scores():
    maps = maps_of(1, 1)
    refined = fitted().refine(sample_of(1, 1), maps)
    # the rest of its cell is padding
    assert refined.scores.flatten().tolist() == pytest.approx((maps.scores.flatten() / 16).tolist(), abs=1e-5)


def test_images_without_any_class_are_background():
    refined = fitted().refine(sample_of(21, 30), maps_of(21, 30, ()))
    assert refined.scores.shape == (0, 6, 8)
    assert float(refined.background.min()) == 1


def test_scores_keep_to_their_region_and_fill_it():
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, 28:] = 255
    scores = torch.zeros(1, 48, 64)
    scores[0, 16:24, 8:16] = 1
    refiner = fitted()
    refiner._net = Plain(build_backbone("resnet_small", output_stride=4), grid_stride=4).eval()
    sample = Sample("two regions", image, np.ones(3, dtype=np.bool_))
    refined = refiner.refine(sample, ActivationMaps(torch.tensor([2]), scores))
    inside, outside = refined.scores[0, :, :7], refined.scores[0, :, 7:]
    assert float(outside.max()) < 1e-6
    assert float(inside.min()) > 0.3 * float(inside.max()) > 0
    assert float(refined.background[:, 7:].min()) > 0.999


def test_walked_scores_are_means_of_block_means():
    """Without features every walk goes on long enough to forget where it came from."""
    refiner = fitted(num_doublings=12)
    refiner._net = Plain(build_backbone("resnet_small", output_stride=4), grid_stride=4).eval()
    sample = Sample("flat", np.full((24, 24, 3), 90, np.uint8), np.ones(3, dtype=np.bool_))
    maps = maps_of(24, 24)
    refined = refiner.refine(sample, maps)
    for plane in (*refined.scores, refined.background):
        assert float(plane.max() - plane.min()) < 1e-3
    whole = maps.with_background_power(16)
    assert float(refined.background.mean()) == pytest.approx(float(whole.background.mean()), rel=0.5)


def test_a_given_background_is_not_used():
    refiner, sample, maps = fitted(), sample_of(20, 24), maps_of(20, 24)
    plain, given = refiner.refine(sample, maps), refiner.refine(sample, maps.with_background(0.9))
    assert torch.equal(plain.background, given.background)


def test_maps_of_another_size_are_resized():
    refiner, sample = fitted(), sample_of(20, 24)
    maps = maps_of(5, 6)
    assert torch.equal(
        refiner.refine(sample, maps).scores, refiner.refine(sample, maps.resized(20, 24)).scores
    )


def test_mirrored_images_give_mirrored_maps():
    refiner = fitted()
    refiner._net = Plain(build_backbone("resnet_small", output_stride=4), grid_stride=4).eval()
    sample, maps = sample_of(24, 32), maps_of(24, 32)
    mirrored = Sample("mirrored", sample.image[:, ::-1].copy(), sample.image_labels)
    refined = refiner.refine(mirrored, ActivationMaps(maps.class_ids, maps.scores.flip(2)))
    assert torch.allclose(refined.scores.flip(2), refiner.refine(sample, maps).scores, atol=1e-5)


def test_batches_give_what_single_images_give():
    refiner = fitted()
    samples = [sample_of(30, 44, str(number)) for number in range(3)]
    maps = [maps_of(30, 44, classes, seed) for seed, classes in enumerate(((1,), (), (2, 3)))]
    for sample, own, together in zip(samples, maps, refiner.refine_batch(samples, maps), strict=True):
        alone = refiner.refine(sample, own)
        assert torch.equal(together.class_ids, own.class_ids)
        assert torch.allclose(together.scores, alone.scores, atol=1e-5)
        assert torch.allclose(together.background, alone.background, atol=1e-5)


def test_misuse_is_explained():
    refiner = Psa(PsaConfig(**SMALL), NAMES)
    with pytest.raises(StageError, match="must learn affinities first"):
        refiner.refine(sample_of(20, 20), maps_of(20, 20))
    with pytest.raises(ShapeError, match="one size"):
        fitted().refine_batch([sample_of(20, 20), sample_of(20, 24)], [maps_of(20, 20), maps_of(20, 24)])
    with pytest.raises(ShapeError, match="only 3 foreground classes"):
        fitted().refine(sample_of(20, 20), maps_of(20, 20, (2, 4)))


# ---- fit


@pytest.fixture(scope="module")
def scenes(tiny_scenes, tmp_path_factory):
    """Training images, masks out of reach, with maps that know nearly everything; the first has no class."""
    store = MapStore(tmp_path_factory.mktemp("psa") / "maps")
    ids = tiny_scenes.ids("train")
    for number, image_id in enumerate(ids):
        mask = torch.from_numpy(tiny_scenes.sample(image_id, with_mask=True).mask)
        present = torch.from_numpy(np.flatnonzero(tiny_scenes.image_labels(image_id)) + 1)
        present = present[:0] if number == 0 else present
        scores = torch.stack([0.02 + 0.96 * (mask == value) for value in present]) if len(present) else None
        scores = torch.zeros(0, *mask.shape) if scores is None else scores
        store.write(image_id, ActivationMaps(present, scores), image_size=mask.shape)
    return WithoutMasks(tiny_scenes), ids, store


def test_fit_separates_classes_goes_on_and_reads_no_mask(scenes, tiny_scenes, tmp_path):
    dataset, ids, store = scenes
    training = {
        "steps": 40,
        "batch_size": 4,
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "augmentation": {"crop_size": 64, "jitter": None},
    }
    config = PsaConfig(**{**SMALL, "training": training})
    refiner = Psa(config, dataset.class_names)
    calls = []
    refiner.fit(dataset, ids, store, tmp_path, seed=1, progress=lambda *values: calls.append(values))
    assert calls[0][1:] == (12, "images")
    assert MapStore(tmp_path / "low").ids() == MapStore(tmp_path / "high").ids() == tuple(sorted(ids))
    net = refiner._net
    assert not net.training
    together, apart = [], []
    for image_id in ids[1:]:
        sample = tiny_scenes.sample(image_id, with_mask=True)
        pixels = torch.from_numpy(sample.image)[None]
        with torch.no_grad():
            affinities = pair_affinities(refiner._features(net, pixels), 5)
        labels = torch.from_numpy(sample.mask[2::4, 2::4].astype(np.int64))[None]
        known = pair_labels(labels, 5)
        together.append(float(mean_over(affinities, known.background | known.foreground)))
        apart.append(float(mean_over(affinities, known.different)))
    assert np.mean(together) > 0.5
    assert np.mean(apart) < 0.5 * np.mean(together)

    again = Psa(config, dataset.class_names)
    again.fit(dataset, ids, store, tmp_path, seed=1)  # returns at once
    sample, maps = dataset.sample(ids[1]), store.read(ids[1])
    assert torch.equal(again.refine(sample, maps).scores, refiner.refine(sample, maps).scores)


def test_scores_that_are_there_are_kept(scenes, tmp_path):
    dataset, ids, store = scenes
    refiner = Psa(PsaConfig(**SMALL), dataset.class_names)
    refiner.fit(dataset, ids, store, tmp_path, seed=1)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.npz")}
    (tmp_path / "training" / "model.safetensors").unlink()
    gone = MapStore(tmp_path / "low").path(ids[2])
    gone.unlink()
    Psa(PsaConfig(**SMALL), dataset.class_names).fit(dataset, ids, store, tmp_path, seed=1)
    changed = {path for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert changed == {gone, MapStore(tmp_path / "high").path(ids[2])}


def test_images_without_maps_are_reported_and_cost_no_other(scenes, tmp_path):
    dataset, ids, store = scenes
    few = MapStore(tmp_path / "few")
    for image_id in ids[:4]:
        few.write(image_id, store.read(image_id), image_size=store.image_size(image_id))
    refiner = Psa(PsaConfig(**SMALL), dataset.class_names)
    with pytest.raises(StageError, match="8 of 12 images have no confident scores"):
        refiner.fit(dataset, ids, few, tmp_path / "work", seed=1)
    assert len(MapStore(tmp_path / "work" / "high").ids()) == 4


def test_scores_are_read_as_equally_many_planes(tmp_path):
    maps = maps_of(6, 7).with_background(0.5)
    for name in ("low", "high"):
        MapStore(tmp_path / name).write("image", maps, image_size=(6, 7))
    found = read_scores(tmp_path, 5, "image")
    assert list(found) == ["low", "high"]
    assert found["low"].shape == (5, 6, 7)
    assert found["low"].dtype == np.float16
    assert not found["low"][3:].any()
    assert found["high"][1:3] == pytest.approx(maps.scores.numpy(), abs=1e-3)
    with pytest.raises(DataError, match="image hold 2 classes, but no image has tags of more than 1"):
        read_scores(tmp_path, 2, "image")
