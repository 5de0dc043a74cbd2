"""Work of the segmentation stages: train on pseudo masks (fully supervised twin: on true ones), predict."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from wsss.crf import CrfParameters
from wsss.data.dataset import Dataset, WithoutMasks
from wsss.data.loaders import TrainingBatches
from wsss.data.masks_png import read_mask
from wsss.engine.fingerprint import file_fingerprint
from wsss.engine.method_work import training_ids
from wsss.engine.recipe import Recipe
from wsss.engine.stages import Stage, Workspace
from wsss.errors import DataError
from wsss.models import weights
from wsss.segmentation import SegmentationConfig, build
from wsss.segmentation.predict import predict_folder
from wsss.training.checkpoint import load_state
from wsss.training.journal import Progress
from wsss.training.loop import train
from wsss.training.processes import num_processes, process_number
from wsss.training.seeding import seed_everything

TESTING: Final = {"test_scales", "test_flip", "test_batch_size"}


def training_settings(config: SegmentationConfig) -> dict[str, Any]:
    """What decides the trained network."""
    return config.model_dump(mode="json", exclude={*TESTING, "dense_crf", "preset"})


def prediction_settings(config: SegmentationConfig) -> dict[str, Any]:
    """What decides the predictions of a trained network, before a dense CRF."""
    return config.model_dump(mode="json", include=TESTING)


def initial_weights(config: SegmentationConfig) -> tuple[str, ...]:
    """Fingerprint of the weights that the backbone starts from."""
    return () if config.weights is None else (weights.sha256(weights.find_weights(config.weights)),)


def train_network(
    recipe: Recipe,
    seed: int,
    pseudo_masks: Stage | None,
    folder: Path,
    workspace: Workspace,
    progress: Progress,
) -> dict[str, Any]:
    """Train the segmentation network; only `target: masks` lets it see true masks."""
    config = recipe.segmentation
    assert config is not None
    split = recipe.data.train_split
    if pseudo_masks is None:
        dataset = workspace.dataset
        ids = supervised_ids(dataset, split)
        read_target = partial(true_target, dataset)
    else:
        dataset = WithoutMasks(workspace.dataset)
        ids = training_ids(dataset, split)
        read_target = partial(pseudo_target, workspace.folder(pseudo_masks) / "pseudo_masks")
    seed_everything(seed)
    net = build(config, dataset.class_names)
    batches = TrainingBatches(
        WithoutMasks(workspace.dataset),
        ids,
        config.training.augmentation,
        batch_size=config.training.batch_size,
        seed=seed,
        mean=net.mean,
        std=net.std,
        aligned=read_target,
        drop_last=config.training.drop_last,
        workers=config.training.workers,
        rank=process_number(),
        world=num_processes(),
    )
    result = train(net, batches, config.training, work_dir=folder, seed=seed, progress=progress)
    return {
        "seconds": result.seconds,
        "steps": result.steps,
        "final_losses": result.final_losses,
        "images": len(ids),
        "sha256": file_fingerprint(folder / "model.safetensors"),
    }


def pseudo_target(folder: Path, image_id: str) -> dict[str, np.ndarray]:
    """The pseudo mask of an image, as the loader wants it."""
    return {"target": read_mask(folder / f"{image_id}.png")}


def true_target(dataset: Dataset, image_id: str) -> dict[str, np.ndarray]:
    """The true mask of an image, as the loader wants it."""
    mask = dataset.sample(image_id, with_mask=True).mask
    if mask is None:
        raise DataError(
            f"Image {image_id} of {dataset.name} has no mask. Supervised training needs one for every image."
        )
    return {"target": mask}


def predict(
    recipe: Recipe,
    trained: Stage,
    dense_crf: CrfParameters | None,
    folder: Path,
    workspace: Workspace,
    progress: Progress,
) -> dict[str, Any]:
    """Predict the masks of the validation images, with a dense CRF behind the network where one is given."""
    config = recipe.segmentation
    assert config is not None
    dataset = WithoutMasks(workspace.dataset)
    net = build(config, dataset.class_names)
    state, _ = load_state(workspace.folder(trained) / "model.safetensors")
    net.load_state_dict(state)
    ids = dataset.ids(recipe.data.val_split)
    predict_folder(
        net,
        dataset,
        ids,
        folder / "predictions",
        config,
        device=workspace.device,
        dense_crf=dense_crf,
        progress=progress,
    )
    return {"images": len(ids)}


def supervised_ids(dataset: Dataset, split: str) -> tuple[str, ...]:
    """The split's images, for training on their true masks.

    Raises:
        DataError: not all of them have a mask.
    """
    ids = dataset.ids(split)
    missing = dataset.missing_masks(ids)
    if len(missing) == len(ids):
        raise DataError(
            f"Split `{split}` of {dataset.name} has no masks, so nothing can be trained on them. "
            "Set `segmentation.target: pseudo_masks`, or say where the masks are."
        )
    if missing:
        raise DataError(
            f"Split `{split}` of {dataset.name} can't be trained on with `segmentation.target: masks`: "
            f"{len(missing):,} of its {len(ids):,} images {'has' if len(missing) == 1 else 'have'} no mask, "
            f"the first missing file is {missing[0]}. Add the masks, or leave such images out of the "
            "split's list."
        )
    return ids
