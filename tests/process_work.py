"""What one process of a run does, as a script for a launcher; a test calls `work` itself for one process.

python process_work.py TREE OUT             train every method and network, extract, refine and find words
python process_work.py TREE OUT failing     the second process can't read an image
python process_work.py TREE OUT dying       the second process ends without a word
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tests import masked_networks
from tests.fakes import FakeTeacher
from torch import nn

from wsss.activation.extract import ExtractConfig, extract
from wsss.activation.refine import refine_images
from wsss.activation.store import MapStore
from wsss.affinity import taps
from wsss.data import ScenesConfig, open_dataset
from wsss.data.loaders import TrainingBatches
from wsss.data.transforms import Augmentation
from wsss.engine import answers_work, map_work, saliency_work
from wsss.errors import DataError, WsssError
from wsss.methods import Frozen, Method, find_method
from wsss.refiners.base import Refiner, RefinerConfig
from wsss.training.config import TrainingConfig
from wsss.training.loop import train
from wsss.training.processes import is_main_process, num_processes, process_number
from wsss.training.seeding import seed_everything
from wsss.types import ActivationMaps, Sample

resnet_small: Any = importlib.import_module(
    "wsss.models.resnet_small"
)  # the package has a function of that name

SCENES = {"world": 7, "train": 12, "val": 6, "size": 64}  # as in conftest
NET: dict[str, Any] = {"backbone": "resnet_small", "batch_norm": "live", "freeze_until": None}
PAIRS: dict[str, Any] = {"logit_offset": 1.0, "head_rate": 1.0}
MATCHING: dict[str, Any] = {**PAIRS, "similarity": "shifted", "cbs_threshold": None}
PER_PAIR: dict[str, Any] = {"cbs_reduction": "per_pair", "reference_pairs": 2.0}
QUESTIONS: dict[str, Any] = {**PAIRS, "texts": "tags", "omega": None}
TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    "cam": ("cam", {}),
    "clims": ("clims", MATCHING),
    "clims-per-pair": ("clims", {**MATCHING, **PER_PAIR, "class_weights": {"boat": 2.0}}),
    "qa_clims": ("qa_clims", QUESTIONS),
    "qa_clims-per-pair": ("qa_clims", {**QUESTIONS, "pair_reduction": "per_pair"}),
    "smvwe": ("smvwe", {"num_words": 16, "train_batch_norm": True}),
}
BATCH_SIZE, STEPS = 4, 6
TRAINING = TrainingConfig(
    steps=STEPS, batch_size=BATCH_SIZE, learning_rate=2e-3, momentum=0.9, log_every=1,
    augmentation=Augmentation(crop_size=64, scale=(0.8, 1.2)),
)  # fmt: skip


class Sparse:
    """A data set with tags for every fifth image only: most shares of a batch have no pair."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def image_labels(self, image_id: str) -> np.ndarray:
        labels = self._dataset.image_labels(image_id)
        return labels if int(image_id[-5:]) % 5 == 0 else np.zeros_like(labels)


class Halved(Refiner):
    """Works on two images at once, whose result depends on both."""

    Config = RefinerConfig
    together = 2

    def refine(self, sample: Sample, maps: ActivationMaps) -> ActivationMaps:
        return self.refine_batch([sample], [maps])[0]

    def refine_batch(self, samples: Sequence[Sample], maps: Sequence[ActivationMaps]) -> list[ActivationMaps]:
        factor = 1 / (1 + float(np.mean([sample.image.mean() for sample in samples])) / 255)
        return [ActivationMaps(own.class_ids, own.scores * factor).with_background(0.3) for own in maps]


def saliency(dataset: Any, image_id: str) -> dict[str, np.ndarray]:
    return {"saliency": dataset.sample(image_id).image.mean(axis=2, dtype=np.float32) / 255}


def batches_of(
    dataset: Any, seed: int, rank: int, world: int, method: Method | None = None
) -> TrainingBatches:
    return TrainingBatches(
        dataset,
        dataset.ids("train"),
        TRAINING.augmentation,
        batch_size=BATCH_SIZE,
        seed=seed,
        mean=(0.5,) * 3 if method is None else method.mean,
        std=(0.5,) * 3 if method is None else method.std,
        aligned=lambda image_id: saliency(dataset, image_id),
        rank=rank,
        world=world,
    )


def smooth(network: nn.Module) -> None:
    """Make activations smooth: a number within rounding of ReLU's kink would give a step another gradient."""
    resnet_small.F = taps.F = SimpleNamespace(**{**vars(F), "relu": F.gelu})
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.GELU())


def trained(name: str, dataset: Any, out: Path) -> Method:
    """The method after its training; leaves `<name>/`."""
    of, settings = TRAININGS[name]
    seed_everything(0)
    cls = find_method(of)
    teacher = FakeTeacher(towards=0.2)
    method = cls(
        cls.Config(backbone_weights=None, **NET, **settings), dataset.class_names, Frozen(teacher=teacher)
    )
    smooth(method)
    method.prepare(dataset, dataset.ids("train"), out / f"texts-{name}-{process_number()}")
    batches = batches_of(dataset, 3, process_number(), num_processes(), method)
    train(method, batches, TRAINING, work_dir=out / name, seed=3)
    return method


def networks(out: Path) -> None:
    """Train what learns from masks; each network leaves its folder."""
    for name, untrained in masked_networks.NETWORKS.items():
        seed_everything(0)
        net = untrained()
        smooth(net)
        batches = masked_networks.MaskedBatches(process_number(), num_processes())
        train(net, batches, masked_networks.TRAINING, work_dir=out / name, seed=3)


def work(tree: Path, out: Path) -> None:
    """Everything that several processes share."""
    torch.set_num_threads(1)
    networks(out)
    dataset = open_dataset(ScenesConfig(**SCENES), root=tree)
    methods = {name: trained(name, Sparse(dataset), out) for name in TRAININGS}
    seed_everything(5)
    network = find_method("smvwe")
    fresh = network(network.Config(backbone_weights=None, **NET, num_words=16), dataset.class_names, Frozen())
    assert not any(isinstance(part, nn.SyncBatchNorm) for part in methods["cam"].modules())
    ids, maps, refined = dataset.ids("train"), MapStore(out / "maps"), MapStore(out / "refined")
    extract(fresh, dataset, ids, maps, ExtractConfig(scales=(1.0, 0.5), batch_images=3))
    refine_images(Halved(RefinerConfig(), dataset.class_names), dataset, ids, maps, refined)
    words(fresh, dataset, out)
    questions(dataset, out)
    salient(dataset, out)


def words(method: Method, dataset: Any, out: Path) -> None:
    """The work of the engine's stage, with a method that is there already."""
    map_work.trained_method = lambda *_: method
    recipe: Any = SimpleNamespace(method=SimpleNamespace(num_words=16), maps_split="train")
    place: Any = SimpleNamespace(dataset=dataset, device=torch.device("cpu"))
    facts = map_work.write_word_maps(recipe, None, {}, out, place, lambda *_: None)
    assert bool(facts) == is_main_process()


def questions(dataset: Any, out: Path) -> None:
    """The work of the engine's stage: the generator answers, about few images at once."""
    config = find_method("qa_clims").Config(**NET).with_class_texts(dataset.classes)
    answers_work.IMAGES_AT_ONCE = 3
    section, ids, device = answers_work.VqaSection(model="oracle"), dataset.ids("train"), torch.device("cpu")
    folders = out / "shared", out / "answers"
    facts = answers_work.ask_questions(section, config, dataset, ids, *folders, device, lambda *_: None)
    assert bool(facts) == is_main_process()
    assert not is_main_process() or len(list(folders[0].glob("*.jsonl"))) == 1


def salient(dataset: Any, out: Path) -> None:
    """The work of the engine's stage: the small detector in the package, a few images at once."""
    saliency_work.IMAGES_AT_ONCE = 3
    section, ids, device = saliency_work.SaliencySection(), dataset.ids("train"), torch.device("cpu")
    (out / "saliency").mkdir(exist_ok=True)
    facts = saliency_work.detect_saliency(section, dataset, ids, out / "saliency", device, lambda *_: None)
    assert bool(facts) == is_main_process()


def fail(tree: Path, out: Path) -> None:
    """The second process can't read an image, which all report; then it dies in the middle of a training."""
    dataset = open_dataset(ScenesConfig(**SCENES), root=tree)
    cls = find_method("cam")
    method = cls(cls.Config(backbone_weights=None, **NET), dataset.class_names, Frozen())
    honest = dataset.sample

    def sample(image_id: str, **options: Any) -> Sample:
        if image_id.endswith("5"):
            raise DataError(f"{image_id} is damaged.")
        return honest(image_id, **options)

    def dying(image_id: str, **options: Any) -> Sample:
        os._exit(7)

    if process_number() == 1:
        dataset.sample = sample
    config = ExtractConfig(scales=(1.0,), batch_images=3)
    try:
        extract(method, dataset, dataset.ids("train"), MapStore(out / "maps"), config)
    except WsssError as error:
        tell(error)
    if process_number() == 1:
        dataset.sample = dying
    batches = batches_of(dataset, 0, process_number(), num_processes(), method)
    train(method, batches, TRAINING, work_dir=out / "training", seed=0)


def tell(error: WsssError) -> None:
    sys.stderr.write(f"process {process_number()}: {type(error).__name__}: {error}\n")


def main() -> None:
    tree, out = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        (fail if "failing" in sys.argv else work)(tree, out)
    except WsssError as error:
        tell(error)
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
