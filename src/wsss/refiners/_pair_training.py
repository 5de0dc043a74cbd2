"""What refiners that learn from pairs of cells share: a dense CRF for each image, and the training itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from wsss.activation.store import MapStore
from wsss.crf import CrfParameters, DenseCrf
from wsss.data.dataset import Dataset
from wsss.data.loaders import Aligned, TrainingBatches
from wsss.layers.statistics import STATISTICS, Statistics
from wsss.refiners.base import seen_image
from wsss.training.config import TrainingConfig
from wsss.training.journal import Progress
from wsss.training.loop import Trainable, train
from wsss.training.processes import num_processes, process_number
from wsss.types import ActivationMaps


def maps_with_crf(
    maps: MapStore,
    dataset: Dataset,
    image_id: str,
    parameters: CrfParameters,
    *,
    max_pixels: int,
    device: torch.device | str,
) -> tuple[ActivationMaps, DenseCrf | None, tuple[int, int]]:
    """Full-size maps of an image, the dense CRF on it, and its (height, width).

    Maps and CRF of a larger image than `max_pixels` are those of the image shrunk. There is no CRF without
    any class.
    """
    sample = dataset.sample(image_id)
    size = (sample.image.shape[0], sample.image.shape[1])
    found = maps.read(image_id, full_size=True, image_size=size)
    if not len(found.class_ids):
        return found, None, size
    image = seen_image(sample, max_pixels)
    return found.resized(*image.shape[:2]), DenseCrf(image, parameters, device=device), size


def train_on_pairs(
    net: Trainable,
    dataset: Dataset,
    ids: Sequence[str],
    config: TrainingConfig,
    *,
    statistics: Statistics,
    aligned: Aligned,
    work_dir: Path,
    seed: int,
    device: torch.device | str,
    progress: Progress | None,
) -> None:
    """Train a network on images and what `aligned` knows of their pixels; leaves it on `device`."""
    mean, std = STATISTICS[statistics]
    batches = TrainingBatches(
        dataset,
        ids,
        config.augmentation,
        batch_size=config.batch_size,
        seed=seed,
        mean=mean,
        std=std,
        aligned=aligned,
        drop_last=config.drop_last,
        workers=config.workers,
        rank=process_number(),
        world=num_processes(),
    )
    train(net, batches, config, work_dir=work_dir, seed=seed, progress=progress)
    assert isinstance(net, nn.Module)
    net.to(device).eval().requires_grad_(False)
