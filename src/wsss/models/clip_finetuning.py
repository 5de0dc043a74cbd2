"""Fine-tunes an image-text teacher on a data set's images and tags, as camera-ready CLIMS does with CLIP.

Each image is paired with a caption that lists its tags; both towers and the factor of cosines train. Any CLIP
or SigLIP checkpoint can be the start, and the result is a checkpoint of the same kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch.nn.functional as F
from accelerate import PartialState
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from wsss.data.dataset import Dataset
from wsss.data.loaders import TrainingBatches
from wsss.errors import DataError, WeightsError
from wsss.models.captions import caption
from wsss.models.clip import HuggingFaceTeacher, features_of, load_teacher
from wsss.models.contrastive import symmetric_loss
from wsss.models.mask_adapted import MaskAdaptedTeacher
from wsss.models.teacher_folder import read_card, save_loaded
from wsss.models.training_defaults import merged, training_with
from wsss.training.config import TrainingConfig
from wsss.training.journal import Progress
from wsss.training.loop import train
from wsss.training.seeding import seed_everything
from wsss.types import Batch

TRAINING: Final[dict[str, Any]] = {  # CLIMS, camera-ready code
    "epochs": 20,
    "batch_size": 16,
    "optimizer": "sgd",
    "learning_rate": 5e-5,
    "momentum": 0.9,
    "weight_decay": 1e-3,
    "schedule": "cosine",
    "drop_last": False,
    "augmentation": {"crop_size": 448, "long_side": [320, 640]},
}


class FinetuneConfig(BaseModel):
    """Fine-tuning of the teacher; defaults as in the camera-ready code of CLIMS for VOC 2012."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: TrainingConfig = Field(
        default_factory=lambda: training_with(TRAINING),
        description="Length, rates and so on; keys that are not given keep the values of CLIMS (20 epochs of "
        "batches of 16, SGD with momentum 0.9, rate 5e-5, cosine, weight decay 1e-3; the paper says 3e-3).",
    )
    caption_template: str = Field(
        "a photo of {}",
        pattern=r"^[^{}]*\{\}[^{}]*$",
        description="Caption around the list of names (CLIMS).",
    )
    names: dict[str, str] = Field(
        {}, description="Names in captions, by class; else the class's own name (CLIMS: VOC's raw spelling)."
    )

    @field_validator("training", mode="before")
    @classmethod
    def _over_defaults(cls, value: Any) -> Any:
        return merged(TRAINING, value)


class CaptionMatching(nn.Module):
    """A teacher's model while it learns which caption belongs to which image of a batch.

    Args:
        teacher: its model is trained in place.
        names: the name in captions of each foreground class.
        template: caption around the list of names.

    Source:
        Xie et al., CLIMS, CVPR 2022, section 4.1, camera-ready code.
        Differs: float32 weights (the code keeps float16 ones and casts around the optimiser's step).
    """

    def __init__(self, teacher: HuggingFaceTeacher, names: Sequence[str], template: str) -> None:
        super().__init__()
        self.model: Any = teacher.model.requires_grad_(True)
        self.names, self.template = tuple(names), template
        self._teacher = [teacher]  # in a list: its model is registered once only

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of images over captions plus of captions over images; captions may repeat."""
        size = self._teacher[0].image_size
        images = F.interpolate(batch.images, size=(size, size), mode="bilinear", align_corners=True)
        tokens = self._teacher[0].tokenize([self.caption_of(row) for row in batch.image_labels])
        tokens = {key: value.to(images.device) for key, value in tokens.items()}
        image_features = features_of(self.model.get_image_features(pixel_values=images))
        text_features = features_of(self.model.get_text_features(**tokens))
        scale = self.model.logit_scale.exp().squeeze()
        return {"caption_matching": symmetric_loss(image_features, text_features, scale)}

    def caption_of(self, image_labels: Tensor) -> str:
        """The caption of an image with these labels (K,)."""
        return caption([self.names[column] for column in image_labels.nonzero().flatten()], self.template)

    def parameter_groups(self, base_lr: float) -> list[dict[str, Any]]:
        """All parameters alike."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": base_lr}]


def finetune(
    teacher: str | Path,
    dataset: Dataset,
    ids: Sequence[str],
    config: FinetuneConfig,
    folder: Path,
    *,
    seed: int,
    progress: Progress | None = None,
) -> Path:
    """Fine-tune a teacher on tagged images; goes on after an interruption, returns at once when done.

    Args:
        teacher: what `load_teacher` understands.
        dataset: images and tags; pass `WithoutMasks(dataset)`.
        ids: training images; those without any tag are left out, since no caption can be made for them.
        config: length, rates, captions.
        folder: work folder; the checkpoint appears in its subfolder `teacher`, the log is `log.jsonl`.
        seed: decides order and augmentation.
        progress: called with steps done and in all.

    Returns:
        The checkpoint's folder, for `load_teacher`.

    Raises:
        WeightsError: the teacher is not here, or has mask prompts.
        DataError: no image has a tag, or a name is given for an unknown class.
    """
    folder = Path(folder)
    target, card = folder / "teacher", _card(teacher, config, seed)
    if (target / "model.safetensors").is_file() and _says(target, card):
        return target
    names = _names(dataset, config.names)
    used = [image_id for image_id in ids if dataset.image_labels(image_id).any()]
    if not used:
        raise DataError(f"No training image of {dataset.name} has a tag, so no caption can be made.")
    state = PartialState()
    seed_everything(seed)
    start = load_teacher(teacher)
    if isinstance(start, MaskAdaptedTeacher):
        raise WeightsError(
            f"Teacher {start.name} has mask prompts, which fine-tuning on whole images would lose. "
            "Fine-tune the CLIP that it was made of."
        )
    batches = TrainingBatches(
        dataset,
        used,
        config.training.augmentation,
        batch_size=config.training.batch_size,
        seed=seed,
        mean=start.mean,
        std=start.std,
        drop_last=config.training.drop_last,
        workers=config.training.workers,
        rank=state.process_index,
        world=state.num_processes,
    )
    matching = CaptionMatching(start, names, config.caption_template)
    train(matching, batches, config.training, work_dir=folder, seed=seed, progress=progress)
    if state.is_main_process:
        save_loaded(target, start, card=card)
        (folder / "model.safetensors").unlink(missing_ok=True)  # the checkpoint holds the same weights
    state.wait_for_everyone()
    return target


def _card(teacher: str | Path, config: FinetuneConfig, seed: int) -> dict[str, Any]:
    settings = config.model_dump(mode="json")
    return {"made_by": "fine-tuning on tags", "start": str(teacher), "settings": settings, "seed": seed}


def _says(target: Path, card: Mapping[str, Any]) -> bool:
    found = read_card(target)
    return all(found.get(key) == value for key, value in card.items())


def _names(dataset: Dataset, given: Mapping[str, str]) -> tuple[str, ...]:
    """A name for each foreground class."""
    foreground = dataset.class_names[1:]
    unknown = sorted(set(given) - set(foreground))
    if unknown:
        raise DataError(
            f"`names` speaks of {unknown}, which are no classes of {dataset.name}. Correct the names."
        )
    return tuple(given.get(name, name) for name in foreground)
