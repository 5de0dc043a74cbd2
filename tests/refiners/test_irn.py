"""IRN as a refiner: fit on the tiny scenes, and a walk whose result is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from wsss.activation.store import MapStore
from wsss.affinity.boundary import IRNet
from wsss.affinity.pairs import offsets, path
from wsss.crf import CrfParameters
from wsss.data.dataset import WithoutMasks
from wsss.data.masks_png import read_mask
from wsss.errors import ShapeError, StageError
from wsss.models import build_backbone
from wsss.refiners import find_refiner
from wsss.refiners.irn import Irn, IrnConfig, normalised
from wsss.types import IGNORE, ActivationMaps, Sample

NAMES = ("background", "cat", "dog", "cow")
SMALL = {
    "backbone": "resnet_small",
    "backbone_weights": None,
    "backbone_trains": True,
    "radius": 4,
    "canvas": None,
    "crf": CrfParameters(iterations=1),
    "training": {"steps": 3, "batch_size": 4, "augmentation": {"crop_size": 64}},
}


def sample_of(height, width, name="image"):
    image = np.random.default_rng(height * width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Sample(name, image, np.ones(3, dtype=np.bool_))


def maps_of(height, width, class_ids=(1, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return ActivationMaps(
        torch.tensor(class_ids), torch.rand(len(class_ids), height, width, generator=generator)
    )


class Wall(nn.Module):
    """A boundary branch that gives these logits (2 B, h, w): of the images, then of their mirror images."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, taps):
        return self.logits


def fitted(logits=None, **values):
    """A refiner with a random network, or with fixed boundary logits."""
    torch.manual_seed(0)
    refiner = Irn(IrnConfig(**{**SMALL, **values}), NAMES)
    refiner._net = IRNet(build_backbone("resnet_small"), displacement=False).eval()
    if logits is not None:
        refiner._net.boundary = Wall(logits)
    return refiner


# ---- settings


def test_the_defaults_are_the_published_ones():
    config = IrnConfig()
    training = config.training
    assert (config.confident_foreground_score, config.confident_background_score) == (0.30, 0.05)
    assert (config.radius, config.walk_radius, config.affinity_power, config.num_doublings) == (10, 5, 10, 8)
    assert (training.epochs, training.batch_size, training.learning_rate) == (3, 32, 0.1)
    assert (training.momentum, training.weight_decay, training.power) == (1e-4, 1e-4, 0.9)
    assert (training.augmentation.crop_size, training.augmentation.scale) == (512, (0.5, 1.5))
    assert (training.augmentation.long_side, training.augmentation.flip) == (None, 0.5)
    assert find_refiner("irn") is Irn


def test_every_preset_is_valid_and_says_what_differs():
    configs = {name: IrnConfig(**values) for name, values in Irn.presets.items()}
    assert configs["irn"] == IrnConfig()
    assert configs["clims_coco"].confident_foreground_score == 0.35
    assert [name for name, config in configs.items() if config.canvas is None] == [
        "clims_improved",
        "clims_coco",
        "qa_clims",
    ]
    camera_ready = configs["clims_camera_ready"]
    assert not camera_ready.displacement
    assert camera_ready.training.augmentation.long_side == (320, 640)
    assert (camera_ready.training.augmentation.scale, camera_ready.training.epochs) == (None, 3)


def test_single_keys_of_the_training_change_nothing_else():
    config = IrnConfig(training={"steps": 7, "augmentation": {"crop_size": 256}})
    assert (config.training.steps, config.training.epochs, config.training.batch_size) == (7, None, 32)
    assert (config.training.augmentation.crop_size, config.training.augmentation.scale) == (256, (0.5, 1.5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"confident_background_score": 0.4}, "must not exceed"),
        ({"backbone_weights": None}, "frozen backbone of random weights"),
        ({"training": {"augmentation": {"crop_size": 64}}}, "at least 19 cells"),
    ],
)
def test_settings_that_can_not_work_are_refused_before_anything_starts(values, message):
    with pytest.raises(ValidationError, match=message):
        IrnConfig(**values)


# ---- fit


@pytest.fixture(scope="module")
def scene_maps(tiny_scenes, tmp_path_factory):
    """Maps that are right but for their blur; the last image has no class."""
    store = MapStore(tmp_path_factory.mktemp("maps"))
    ids = tiny_scenes.ids("train")
    for image_id in ids:
        mask = torch.from_numpy(tiny_scenes.sample(image_id, with_mask=True).mask)
        present = torch.from_numpy(tiny_scenes.image_labels(image_id)).nonzero().flatten() + 1
        if image_id == ids[-1]:
            present = present[:0]
        planes = (mask == present[:, None, None]).float()[None]
        scores = F.avg_pool2d(planes, 9, 4, 4)[0] if len(present) else torch.zeros(0, 16, 16)
        store.write(image_id, ActivationMaps(present, scores), image_size=mask.shape)
    return store


@pytest.fixture(scope="module")
def fit_folder(tiny_scenes, scene_maps, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    refiner = Irn(IrnConfig(**SMALL), tiny_scenes.class_names)
    dataset = WithoutMasks(tiny_scenes)  # reading a mask would fail
    refiner.fit(dataset, dataset.ids("train"), scene_maps, folder, seed=1)
    return folder


def written(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_fit_leaves_labels_network_and_mean_displacement(tiny_scenes, fit_folder):
    ids = tiny_scenes.ids("train")
    labels = {image_id: read_mask(fit_folder / "labels" / f"{image_id}.png") for image_id in ids}
    right = wrong = 0
    for image_id in ids[:-1]:
        mask = tiny_scenes.sample(image_id, with_mask=True).mask
        sure = labels[image_id] != IGNORE
        right += int((labels[image_id][sure] == mask[sure]).sum())
        wrong += int((labels[image_id][sure] != mask[sure]).sum())
    assert right > 9 * wrong
    assert right > 0.5 * 64 * 64 * len(ids)
    assert not labels[ids[-1]].any()  # no class: all background
    assert (fit_folder / "training" / "model.safetensors").is_file()
    stored = json.loads((fit_folder / "mean_displacement.json").read_text())
    assert all(math.isfinite(value) for value in stored["mean_displacement"])
    assert not list(fit_folder.rglob(".tmp-*"))


def test_a_second_fit_reads_what_is_there(tiny_scenes, scene_maps, fit_folder, monkeypatch):
    before = written(fit_folder)
    monkeypatch.setattr(type(tiny_scenes), "sample", lambda *_, **__: pytest.fail("an image was read"))
    refiner = Irn(IrnConfig(**SMALL), tiny_scenes.class_names)
    refiner.fit(tiny_scenes, tiny_scenes.ids("train"), MapStore(Path("nowhere")), fit_folder, seed=1)
    assert written(fit_folder) == before
    stored = json.loads((fit_folder / "mean_displacement.json").read_text())["mean_displacement"]
    assert refiner._net.mean_displacement.tolist() == pytest.approx(stored)
    assert not refiner._net.training


def test_displacements_have_mean_zero_over_the_training_images(tiny_scenes, scene_maps, fit_folder):
    refiner = Irn(IrnConfig(**SMALL), tiny_scenes.class_names)
    refiner.fit(tiny_scenes, tiny_scenes.ids("train"), scene_maps, fit_folder, seed=1)
    images = [tiny_scenes.sample(image_id).image for image_id in tiny_scenes.ids("train")]
    with torch.no_grad():
        displacement = refiner._net.displacements(normalised(images, "cpu"))
    torch.testing.assert_close(displacement.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)


def test_a_refiner_that_goes_on_gives_the_same_as_the_first(tiny_scenes, scene_maps, fit_folder, tmp_path):
    """Labels that are there are kept, and the training starts from the same weights."""
    ids = tiny_scenes.ids("train")
    for image_id in ids[:5]:
        target = tmp_path / "labels" / f"{image_id}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((fit_folder / "labels" / f"{image_id}.png").read_bytes())
    before = written(tmp_path)
    refiner = Irn(IrnConfig(**SMALL), tiny_scenes.class_names)
    refiner.fit(tiny_scenes, ids, scene_maps, tmp_path, seed=1)
    assert before.items() <= written(tmp_path).items()
    for name in ("training/model.safetensors", "mean_displacement.json"):
        assert (tmp_path / name).read_bytes() == (fit_folder / name).read_bytes()


def test_without_displacements_there_is_no_mean(tiny_scenes, scene_maps, tmp_path):
    refiner = Irn(IrnConfig(**{**SMALL, "displacement": False}), tiny_scenes.class_names)
    refiner.fit(tiny_scenes, tiny_scenes.ids("train"), scene_maps, tmp_path, seed=0)
    assert not (tmp_path / "mean_displacement.json").exists()
    image_id = tiny_scenes.ids("train")[0]
    refined = refiner.refine(tiny_scenes.sample(image_id), scene_maps.read(image_id, full_size=False))
    assert refined.size == (16, 16)


def test_images_that_fail_are_named_and_the_others_kept(tiny_scenes, tmp_path):
    refiner = Irn(IrnConfig(**SMALL), tiny_scenes.class_names)
    ids, store = tiny_scenes.ids("train")[:3], MapStore(tmp_path / "maps")
    for image_id in ids[1:]:
        store.write(image_id, ActivationMaps(torch.tensor([1]), torch.rand(1, 16, 16)), image_size=(64, 64))
    with pytest.raises(StageError, match=f"1 of 3 images has no confident labels; the first is {ids[0]}"):
        refiner.fit(tiny_scenes, ids, store, tmp_path / "fit", seed=0)
    assert len(list((tmp_path / "fit" / "labels").iterdir())) == 2


# ---- refine


def dense_walk(scores, boundary, radius, power, doublings):
    """T^(2^n) by squaring in float64, on the graph of all pairs within the radius."""
    height, width = boundary.shape
    affinity = torch.eye(height * width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            for dy, dx in offsets(radius):
                if y + dy < height and 0 <= x + dx < width:
                    value = 1 - max(float(boundary[y + a, x + b]) for a, b in path(dy, dx))
                    first, second = y * width + x, (y + dy) * width + x + dx
                    affinity[first, second] = affinity[second, first] = value
    transition = affinity**power
    transition /= transition.sum(dim=0, keepdim=True)
    for _ in range(doublings):
        transition = transition @ transition
    return ((scores * (1 - boundary)).flatten(1) @ transition).unflatten(1, (height, width))


def test_the_result_is_that_of_the_dense_walk():
    height, width, grid = 27, 42, (7, 11)
    logits = torch.randn(2, *grid, generator=torch.Generator().manual_seed(1)) - 1
    maps = maps_of(*grid)
    refined = fitted(logits, affinity_power=6, num_doublings=5).refine(sample_of(height, width), maps)

    boundary = ((logits[0] + logits[1].flip(1)) / 2).double().sigmoid()
    spread = dense_walk(maps.scores.double(), boundary, 5, 6, 5)
    whole = F.interpolate(spread[None], scale_factor=4, mode="bilinear", align_corners=False)
    whole = whole[0, :, :height, :width]
    expected = spread / whole.max()
    assert torch.equal(refined.class_ids, maps.class_ids)
    assert refined.background is None
    torch.testing.assert_close(refined.scores.double(), expected.clamp(max=1), atol=1e-4, rtol=1e-3)
    enlarged = refined.enlarged(4, height, width).scores.double()
    is_cut = F.max_pool2d((expected > 1).double(), 3, 1, 1).amax(dim=0).repeat_interleave(4, 0)
    is_kept = is_cut.repeat_interleave(4, 1)[:height, :width] == 0
    difference = (enlarged - whole / whole.max()).abs()
    assert difference[:, is_kept].max() < 1e-4
    assert difference.max() < 0.05


def test_a_wall_keeps_scores_in_their_region():
    """Two classes, each sure of a spot on its side: after the walk each fills its side, and no more."""
    logits = torch.full((1, 16, 16), -9.0)
    logits[:, :, 8] = 9.0
    both = torch.cat([logits, logits.flip(2)])
    scores = torch.zeros(2, 16, 16)
    scores[0, 4:8, 2:5], scores[1, 9:13, 11:14] = 1.0, 0.8
    maps = ActivationMaps(torch.tensor([1, 2]), scores)
    refined = fitted(both).refine(sample_of(64, 64), maps)
    left, right = refined.scores[:, :, :8], refined.scores[:, :, 9:]
    assert left[0].min() > 0.5
    assert right[1].min() > 0.3
    assert left[1].max() < 1e-3
    assert right[0].max() < 1e-3
    without = fitted(torch.full((2, 16, 16), -9.0)).refine(sample_of(64, 64), maps)
    assert without.scores[0, :, 9:].min() > 0.3


def test_enlarging_and_cropping_is_not_resizing():
    refined = fitted(torch.randn(2, 16, 19) - 2, num_doublings=3).refine(sample_of(61, 75), maps_of(16, 19))
    enlarged, resized = refined.enlarged(4, 61, 75), refined.resized(61, 75)
    assert float(enlarged.scores.max()) == pytest.approx(1, abs=0.03)
    differing = (enlarged.to_mask(0.25) != resized.to_mask(0.25)).float().mean()
    assert differing > 0.01


@pytest.mark.parametrize("canvas", [None, 32])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2), (37, 22), (33, 64), (1, 50)])
def test_any_size_of_image_and_maps_passes(height, width, canvas):
    refiner = fitted(canvas=canvas, num_doublings=2)
    grid = -(-height // 4), -(-width // 4)
    for size in (grid, (5, 6)):
        refined = refiner.refine(sample_of(height, width), maps_of(*size))
        assert refined.size == grid
        assert refined.scores.isfinite().all()
        assert refined.scores.max() > 0.9
        refined.enlarged(refiner.stride, height, width)


def test_images_without_classes_stay_without():
    refiner = fitted()
    empty = ActivationMaps(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 5, 5))
    assert refiner.refine(sample_of(18, 23), empty).scores.shape == (0, 5, 6)
    pair = refiner.refine_batch([sample_of(18, 23)] * 2, [empty, maps_of(5, 6)])
    assert [len(maps.class_ids) for maps in pair] == [0, 2]
    assert pair[0].size == pair[1].size == (5, 6)


def test_scores_of_zero_stay_zero():
    maps = ActivationMaps(torch.tensor([2]), torch.zeros(1, 5, 5))
    assert not fitted().refine(sample_of(20, 20), maps).scores.any()


@pytest.mark.parametrize("canvas", [None, 64])
def test_a_batch_gives_what_single_images_give(canvas):
    refiner = fitted(canvas=canvas, num_doublings=3)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 30, 41, 3)).astype(np.uint8)
    samples = [Sample(str(n), image, np.ones(3, dtype=np.bool_)) for n, image in enumerate(images)]
    maps = [maps_of(8, 11, seed=number) for number in range(3)]
    for sample, own, together in zip(samples, maps, refiner.refine_batch(samples, maps), strict=True):
        alone = refiner.refine(sample, own)
        torch.testing.assert_close(together.scores, alone.scores, atol=1e-5, rtol=1e-4)


def test_misuse_says_what_to_do():
    refiner = Irn(IrnConfig(**SMALL), NAMES)
    with pytest.raises(StageError, match="Call `fit`"):
        refiner.refine(sample_of(20, 20), maps_of(5, 5))
    with pytest.raises(ShapeError, match="class 4"):
        fitted().refine(sample_of(20, 20), maps_of(5, 5, class_ids=(1, 4)))
    with pytest.raises(ShapeError, match="images of one size"):
        fitted().refine_batch([sample_of(20, 20), sample_of(20, 24)], [maps_of(5, 5), maps_of(5, 6)])


def test_presets_have_the_values_of_their_papers() -> None:
    made = {name: IrnConfig.model_validate(values) for name, values in Irn.presets.items()}
    found = {
        name: (
            own.confident_foreground_score,
            own.confident_background_score,
            own.canvas,
            own.displacement,
            own.training.augmentation.long_side,
            own.training.augmentation.scale,
        )
        for name, own in made.items()
    }
    assert found == {
        "irn": (0.30, 0.05, 512, True, None, (0.5, 1.5)),
        "clims_improved": (0.30, 0.10, None, True, None, (0.5, 1.5)),
        "clims_coco": (0.35, 0.10, None, True, None, (0.5, 1.5)),
        "qa_clims": (0.30, 0.10, None, True, None, (0.5, 1.5)),
        "clims_camera_ready": (0.30, 0.05, 512, False, (320, 640), None),
    }
    for own in made.values():
        training = own.training
        assert (training.epochs, training.batch_size, training.learning_rate) == (3, 32, 0.1)
        assert (training.momentum, training.weight_decay, training.power) == (1e-4, 1e-4, 0.9)
        assert training.augmentation.crop_size == 512
        assert (own.radius, own.walk_radius, own.affinity_power, own.num_doublings) == (10, 5, 10, 8)
        assert (own.backbone, own.backbone_weights, own.grid_stride) == ("resnet50", "resnet50", 4)


def test_a_canvas_counts_in_the_size_of_batches() -> None:
    small = {"backbone": "resnet_small", "backbone_weights": None, "backbone_trains": True}
    canvas = Irn(IrnConfig(**small), ("background", "a"))
    without = Irn(IrnConfig(**small, canvas=None), ("background", "a"))
    assert (canvas.seen_pixels((96, 96)), without.seen_pixels((96, 96))) == (512**2, 96**2)
