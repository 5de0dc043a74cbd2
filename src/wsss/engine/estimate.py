"""What a run will take: time, memory and disk, from counts and a timed step of each network.

Rough on purpose (within about a factor of two): it answers "minutes or hours, and does it fit".
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from wsss.activation.extract import MAX_PIXELS, Pixels, capped_size, images_per_pass, scaled_size
from wsss.crf import PRESETS, CrfParameters, DenseCrf
from wsss.engine import provenance
from wsss.engine.answers_work import load_model
from wsss.engine.data_facts import DataFacts, data_facts, mean_pixels
from wsss.engine.method_work import tag_classifier_network
from wsss.engine.plan import plan
from wsss.engine.recipe import MethodSection, Recipe
from wsss.engine.stages import Silence, Stage, Workspace, stage_record, until_stage
from wsss.errors import WsssError
from wsss.methods.base import Frozen, Method
from wsss.models.clip import HuggingFaceTeacher, load_teacher
from wsss.models.saliency import load_detector
from wsss.questions.questions import all_templates, fill
from wsss.refiners.base import find_refiner
from wsss.segmentation import build
from wsss.segmentation.predict import best_classes, images_per_batch, probabilities
from wsss.training.config import TrainingConfig
from wsss.training.loop import Trainable
from wsss.training.seeding import preserved_random_states
from wsss.types import ActivationMaps, Batch, Sample

PROBE = "probe"  # id of all images of a timed step
PROBE_PIXELS = 1_500_000  # of one timed step: enough to be typical, small enough to be quick
PROBE_IMAGES = 16  # of one timed pass
SECONDS_PER_PIXEL = 1.2e-7  # decoding, drawing, scoring and writing an image, measured on one core
BYTES_PER_PIXEL = 0.5  # of a JPEG image with its masks, as the scenes tree holds them
LABELS_PER_IMAGE = 1.6  # VOC: 1.555
ANSWER_BYTES = 2000  # of an image's line in a file of answers, and of its final texts


@dataclass(frozen=True)
class StageEstimate:
    """One unfinished stage: its title, seconds, and bytes left on the disk."""

    title: str
    seconds: float
    disk_bytes: float


@dataclass(frozen=True)
class Estimate:
    """What the unfinished stages of a run will take.

    Args:
        stages: one entry each.
        memory_bytes: largest memory of the program (of the accelerator, where networks run on one).
        free_disk_bytes: room on the disk of the runs folder.
    """

    stages: tuple[StageEstimate, ...]
    memory_bytes: float
    free_disk_bytes: float

    @property
    def seconds(self) -> float:
        """All stages together."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def disk_bytes(self) -> float:
        """All stages together."""
        return sum(stage.disk_bytes for stage in self.stages)


@dataclass
class _Cost:
    seconds: float = 0.0
    disk_bytes: float = 0.0


def estimate(
    recipe: Recipe, *, seed: int = 0, runs: Path | str = "runs", until: str | None = None
) -> Estimate:
    """Estimate the stages of a run that are not finished; builds each network and times one step of it."""
    runs = Path(runs)
    workspace = Workspace(runs, recipe.data, provenance.default_device(), Silence())
    stages = until_stage(plan(recipe, seed, workspace), until)
    waiting = [stage for stage in stages if stage_record(workspace.folder(stage)) is None]
    prober = _Prober(recipe, workspace, data_facts(recipe, workspace))
    with preserved_random_states():
        costs = [(stage, prober.cost(stage)) for stage in waiting]
    place = runs if runs.exists() else Path()
    return Estimate(
        tuple(StageEstimate(stage.title, cost.seconds, cost.disk_bytes) for stage, cost in costs),
        prober.memory_bytes,
        float(shutil.disk_usage(place).free),
    )


class _Prober:
    """Times one step of each network, and keeps the largest memory."""

    def __init__(self, recipe: Recipe, workspace: Workspace, facts: DataFacts) -> None:
        self.recipe, self.workspace, self.facts = recipe, workspace, facts
        self.memory_bytes = _used_memory(workspace.device)

    def cost(self, stage: Stage) -> _Cost:
        """Seconds and bytes of one stage."""
        facts, images = self.facts, self.facts.train
        handling = images * facts.pixels * SECONDS_PER_PIXEL
        map_bytes = images * LABELS_PER_IMAGE * 2.0 * facts.pixels / 16
        if stage.kind == "data":
            count = facts.train + facts.val
            return _Cost(5 * count * facts.pixels * SECONDS_PER_PIXEL, count * facts.pixels * BYTES_PER_PIXEL)
        if stage.kind in ("train-method", "train-tag-classifier", "train-segmentation"):
            return self._training(stage)
        if stage.kind == "train-teacher" and self.recipe.train_teacher is not None:
            return self._teacher_training(self.recipe.train_teacher.training)
        if stage.kind == "finetune-teacher" and self.recipe.finetune_teacher is not None:
            return self._teacher_training(self.recipe.finetune_teacher.training)
        if stage.kind in ("ask-questions", "detect-saliency", "activate", "write-words"):
            return self._looking(stage, handling, map_bytes)
        if stage.kind in ("predict", "predict-crf"):
            pixels = facts.val * facts.pixels
            return _Cost(facts.val * self._prediction() + pixels * SECONDS_PER_PIXEL, pixels / 20)
        if stage.kind.startswith("refine-"):
            return self._refinement(stage, handling, 2 * map_bytes)
        if stage.kind == "pseudo-masks":
            return _Cost(handling, images * facts.pixels / 20)
        return _Cost(handling)

    def _looking(self, stage: Stage, handling: float, map_bytes: float) -> _Cost:
        """Stages that show images to a trained network."""
        images = self.facts.train
        if stage.kind == "ask-questions":
            return _Cost(handling + images * LABELS_PER_IMAGE * self._asking(), images * ANSWER_BYTES)
        if stage.kind == "detect-saliency":
            return _Cost(2 * handling + images * self._detection(), images * self.facts.pixels / 4)
        if stage.kind == "activate":
            return _Cost(handling + images * self._extraction(), 2 * map_bytes)
        passes = len(self.recipe.activation.scales) * (2 if self.recipe.activation.flip else 1)
        images, pixels = self.facts.scored, self.facts.pixels  # words are of the scored images alone
        each = pixels * SECONDS_PER_PIXEL + self._extraction() / passes
        return _Cost(images * each, images * pixels / 20)

    def _training(self, stage: Stage) -> _Cost:
        net, config = self._network(stage)

        def aligned(count: int, crop: int) -> dict[str, Tensor]:
            if stage.kind == "train-segmentation":
                return {"target": torch.zeros(count, crop, crop, dtype=torch.uint8)}
            names = net.pixel_inputs(net.config) if isinstance(net, Method) else ()
            return {name: torch.rand(count, crop, crop) for name in names}

        return self._training_of(net, config, aligned)

    def _training_of(
        self, net: nn.Module, config: TrainingConfig, aligned: Callable[[int, int], Mapping[str, Tensor]]
    ) -> _Cost:
        """A training, from one timed step; `aligned` gives the further inputs of so many crops of a size."""
        device, steps = (
            self.workspace.device,
            config.total_steps(max(1, self.facts.train // config.batch_size)),
        )
        net.to(device).train()
        crop, probed = config.augmentation.crop_size, _probed_images(config)
        batch = self._batch(probed, crop, aligned(probed, crop))

        def step() -> None:
            losses = cast(Trainable, net).losses(batch).values()
            torch.autograd.backward(torch.stack([loss.float() for loss in losses]).sum())

        before = _used_memory(device)
        seconds = _timed(step, device)
        grown = max(0.0, _used_memory(device) - before)
        share = config.batch_size / probed
        size = 4.0 * sum(p.numel() for p in net.parameters())
        self.memory_bytes = max(self.memory_bytes, before + grown * share + 2 * size)
        images = steps * config.accumulate * config.batch_size
        loading = images * crop**2 * SECONDS_PER_PIXEL / max(1, config.workers)
        return _Cost(images * seconds / probed + loading, size)

    def _refinement(self, stage: Stage, handling: float, map_bytes: float) -> _Cost:
        """What `fit` learns, and one image of the largest size refined."""
        section = self.recipe.refine[int(stage.name.split("-")[1])]
        refiner = find_refiner(section.name)(section.config, self.facts.class_names)
        device, images = self.workspace.device, self.facts.train
        training: TrainingConfig | None = getattr(section.config, "training", None)
        cost = _Cost(handling, map_bytes)
        rehearsed = None
        if training is not None:
            rehearsed = refiner.rehearse(_probed_images(training), training.augmentation.crop_size)
        if training is not None and rehearsed is not None:
            net, aligned = rehearsed
            trained = self._training_of(net, training, lambda count, crop: aligned)
            net.eval()
            cost.seconds += trained.seconds + images * self._inferred(
                getattr(section.config, "crf", PRESETS["irn"])
            )
            # labels, or two sets of scores, of every image stay as well
            cost.disk_bytes += trained.disk_bytes + map_bytes
        size = self.facts.largest
        maps = ActivationMaps(torch.tensor([1]), torch.full((1, *size), 0.5)).with_background(0.4)
        sample = Sample("probe", _smooth_image(size), np.ones(1, dtype=np.bool_))
        try:
            seconds = _timed(partial(refiner.refine, sample, maps.to(device)), device)
        except WsssError:  # a refiner that must be fitted and has no rehearsal: a guess
            return _Cost(cost.seconds + 10 * handling, cost.disk_bytes)
        together = torch.get_num_threads() if device.type == "cpu" else 1
        cost.seconds += images * seconds / together * self.facts.pixels / prod(size)
        return cost

    def _inferred(self, parameters: CrfParameters) -> float:
        """Seconds per image of a dense CRF on two sets of labels."""
        size, device = self.facts.largest, self.workspace.device
        image, unaries = _smooth_image(size), torch.zeros(2, 2, *size)
        seconds = _timed(lambda: DenseCrf(image, parameters, device=device).marginals(unaries), device)
        together = torch.get_num_threads() if device.type == "cpu" else 1
        return seconds / together * self.facts.pixels / prod(size)

    def _network(self, stage: Stage) -> tuple[nn.Module, TrainingConfig]:
        recipe, facts = self.recipe, self.facts
        if stage.kind == "train-segmentation":
            assert recipe.segmentation is not None
            return build(recipe.segmentation, facts.class_names), recipe.segmentation.training
        if stage.kind == "train-tag-classifier":
            assert recipe.tag_classifier is not None
            net = tag_classifier_network(recipe.tag_classifier, len(facts.class_names) - 1)
            return net, recipe.tag_classifier.training
        if stage.name == "initialise":
            assert recipe.initialise is not None
            return self._method(recipe.initialise.method), recipe.initialise.training
        assert recipe.method is not None
        assert recipe.training is not None
        return self._method(recipe.method), recipe.training

    def _method(self, section: MethodSection) -> Method:
        """An untrained method; helpers that other stages make are stood in for by what is there already."""
        config = section.config.with_class_texts(self.facts.classes)
        frozen = Frozen()
        if "teacher" in section.needs:
            frozen = Frozen(teacher=self._teacher(section))
        if "tag_classifier" in section.needs:
            assert self.recipe.tag_classifier is not None
            network = tag_classifier_network(self.recipe.tag_classifier, len(self.facts.class_names) - 1)
            frozen = Frozen(tag_classifier=network.eval())
        method = section.cls(config, self.facts.class_names, frozen)
        method.rehearse(PROBE)
        return method

    def _teacher(self, section: MethodSection) -> HuggingFaceTeacher:
        """The method's teacher; for one that is yet to be trained, the shipped one of about that size."""
        name = section.teacher if self.recipe.train_teacher is None else "embedded"
        return load_teacher(name, precision=section.teacher_precision).to(self.workspace.device)

    def _teacher_training(self, config: TrainingConfig) -> _Cost:
        """Forward and backward passes of the image encoder; texts cost little beside it."""
        assert self.recipe.method is not None
        teacher = self._teacher(self.recipe.method)
        images = torch.randn(8, 3, teacher.image_size, teacher.image_size, device=self.workspace.device)
        with torch.inference_mode():
            seconds = _timed(lambda: teacher.encode_images(images), self.workspace.device) / len(images)
        steps = config.total_steps(max(1, self.facts.train // config.batch_size))
        size = 4.0 * sum(p.numel() for p in teacher.parameters())
        return _Cost(3 * seconds * steps * config.batch_size * config.accumulate, size)

    def _asking(self) -> float:
        """Seconds for all questions about one class of one image."""
        section = self.recipe.method
        assert section is not None
        if section.vqa.is_oracle:
            return 0.0
        config: Any = section.config
        noun, model = self.facts.class_names[1], load_model(section.vqa, self.workspace.device)
        questions = [fill(template, noun) for template in all_templates(config.questions)]
        image = _smooth_image(self.facts.largest)
        return _timed(lambda: model.answer([image], [questions]), self.workspace.device)

    def _detection(self) -> float:
        """Seconds per image of the detector of salient objects, which has a size of its own to work at."""
        section = self.recipe.method
        assert section is not None
        source, device = section.saliency, self.workspace.device
        detector = load_detector(source.source, weights=source.weights, device=device)
        image = _smooth_image(self.facts.largest)
        return _timed(lambda: detector.detect([image]), device)

    def _batch(self, count: int, crop: int, aligned: Mapping[str, Tensor]) -> Batch:
        labels = torch.zeros(count, len(self.facts.class_names) - 1, dtype=torch.bool)
        labels[:, 0] = True
        labels[::2, -1] = True  # 1.5 classes an image
        batch = Batch(
            images=torch.randn(count, 3, crop, crop),
            image_labels=labels,
            image_ids=(PROBE,) * count,
            valid=torch.ones(count, crop, crop, dtype=torch.bool),
            aligned=aligned,
        )
        return batch.to(self.workspace.device)

    def _extraction(self) -> float:
        """Seconds per image: every scale, mirrored too."""
        assert self.recipe.method is not None
        config, device = self.recipe.activation, self.workspace.device
        method = self._method(self.recipe.method).to(device).eval()
        mirrored = 2 if config.flip else 1
        rates: dict[tuple[int, int], float] = {}  # scales of very large images may have the same size
        seconds = 0.0
        for scale in config.scales:
            sizes = [scaled_size(size, scale, config.max_pixels) for size in self.facts.sizes]
            largest = max(sizes, key=prod)
            if largest not in rates:
                together = min(config.batch_images, images_per_pass(largest, config, device))
                rates[largest] = self._inference(method.cams, largest, together * mirrored, mirrored)
            seconds += mirrored * rates[largest] * mean_pixels(sizes)
        return seconds

    def _prediction(self) -> float:
        """Seconds per image: every scale, mirrored too, and the masks at full size."""
        config, largest = self.recipe.segmentation, self.facts.largest
        assert config is not None
        network = build(config, self.facts.class_names).to(self.workspace.device).eval()

        def masks(images: Tensor) -> Tensor:
            scores = probabilities(network, images, scales=config.test_scales, flip=config.test_flip)
            return best_classes(scores, largest)

        seen = capped_size(largest, MAX_PIXELS)
        rate = self._inference(masks, seen, images_per_batch(largest, config.test_batch_size))
        return rate * mean_pixels([capped_size(size, MAX_PIXELS) for size in self.facts.sizes])

    def _inference(
        self, forward: Callable[[Tensor], object], size: tuple[int, int], together: int, at_least: int = 1
    ) -> float:
        """Seconds per pixel of images of one size; the largest size shows the memory.

        Args:
            forward: what is timed.
            size: (height, width).
            together: how many images are passed at once in the real work; the memory grows in proportion.
            at_least: how many can't be parted (an image and its mirror image).
        """
        device, pixels = self.workspace.device, prod(size)
        probed = max(at_least, min(PROBE_IMAGES, PROBE_PIXELS // pixels))
        before = _used_memory(device)
        images = torch.randn(probed, 3, *size, device=device)
        with torch.inference_mode():
            seconds = _timed(partial(forward, images), device)
        grown = max(0.0, _used_memory(device) - before)
        self.memory_bytes = max(self.memory_bytes, before + grown * max(1.0, together / probed))
        return seconds / (probed * pixels)


def _probed_images(config: TrainingConfig) -> int:
    """Images of one timed step; live batch norms need two."""
    return min(config.batch_size, max(2, PROBE_PIXELS // config.augmentation.crop_size**2))


def _smooth_image(size: tuple[int, int]) -> Pixels:
    """An image of soft colours, as easy for a dense CRF as a photograph."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = np.stack([np.sin(x / 23 + y / 37), np.sin(x / 11), np.cos(y / 17)], axis=-1)
    return (127 + 120 * waves).astype(np.uint8)


def _timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of three calls; of the first alone when it takes long."""
    fastest = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest = min(fastest, time.perf_counter() - start)
        if fastest > 2:
            break
    return fastest


def _used_memory(device: torch.device) -> float:
    """Largest memory so far: of the accelerator, or of this process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return provenance.peak_memory()
