"""Trains a small CLIP-format teacher from the tags and scene words of any data set: `wsss teacher train`.

For data whose words no public CLIP knows. The result is a checkpoint folder that `load_teacher` loads, with
how well it names held-out images written on its card. True masks are never read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from accelerate import PartialState
from pydantic import BaseModel, ConfigDict, Field, model_validator

from wsss.data.dataset import Dataset, WithoutMasks, tagged_ids
from wsss.data.loaders import TrainingBatches
from wsss.errors import DataError
from wsss.models.captions import caption
from wsss.models.clip import load_teacher
from wsss.models.contrastive_teacher import LARGEST_CAPTION, TEMPLATES, ContrastiveTeacher
from wsss.models.retrieval import Retrieval, word_retrieval
from wsss.models.teacher_folder import check_target, read_card, save_teacher
from wsss.models.tiny_clip import TinyClipConfig, tiny_clip, word_tokenizer
from wsss.models.training_defaults import merged, training_with
from wsss.training.config import TrainingConfig
from wsss.training.journal import Progress
from wsss.training.loop import train
from wsss.training.seeding import derived_seed, seed_everything

MEAN: Final = (0.485, 0.456, 0.406)  # ImageNet's, as of the networks whose images it will judge
STD: Final = (0.229, 0.224, 0.225)
TRAINING: Final[dict[str, Any]] = {
    "steps": 1200,
    "batch_size": 64,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "betas": [0.9, 0.98],
    "weight_decay": 0.05,
    "schedule": "cosine",
    "warmup_steps": 50,
    "clip_norm": 1.0,
}


class TeacherConfig(BaseModel):
    """A teacher trained from scratch; defaults for some hundred images, eight minutes on two cores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: TinyClipConfig = Field(default_factory=lambda: TinyClipConfig(), description="Size of the model.")
    training: TrainingConfig = Field(
        default_factory=lambda: training_with({**TRAINING, "augmentation": _augmentation(64)}),
        description="Length, rates and so on; keys that are not given keep this module's values. Without an "
        "`augmentation`, crops of the model's size are cut from images of 1 to 2 times that length.",
    )
    mask_shares: tuple[float, float, float, float] = Field(
        (0.3, 0.3, 0.3, 0.1),
        description="How often an image is shown whole, softly masked, in blobs, in a box; relative numbers.",
    )
    mixed_share: float = Field(0.3, ge=0, le=1, description="Share of images mixed with another one.")
    largest_scale: float = Field(20.0, gt=0, description="Upper limit of the learned factor of cosines.")
    held_out_share: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of training images kept for checking where there is no other split.",
    )

    @model_validator(mode="before")
    @classmethod
    def _suggested_training(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        training = merged(TRAINING, values.get("training", {}))
        if isinstance(training, dict):
            model = values.get("model", {})
            default = TinyClipConfig.model_fields["image_size"].default
            size = model.get("image_size", default) if isinstance(model, Mapping) else model.image_size
            training.setdefault("augmentation", _augmentation(size))
        return {**values, "training": training}


def _augmentation(size: Any) -> dict[str, Any]:
    """Crops that suit a model of this size."""
    if not isinstance(size, int):  # the model's own validation says so
        return {}
    return {"crop_size": size, "long_side": [size, 2 * size], "jitter": {}}


@dataclass(frozen=True)
class TrainedTeacher:
    """What `train_teacher` made.

    Args:
        folder: the checkpoint, for `load_teacher`.
        words: what it was taught to name.
        images: training images.
        held_out: agreement with the words of images that it was not trained on; None where there are none.
    """

    folder: Path
    words: tuple[str, ...]
    images: int
    held_out: Retrieval | None


def train_teacher(
    dataset: Dataset,
    folder: Path,
    config: TeacherConfig,
    *,
    split: str = "train",
    held_out_split: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> TrainedTeacher:
    """Train a teacher on a split's tags and scene words; goes on after an interruption.

    Args:
        dataset: images, tags and scene words; masks are not read.
        folder: the checkpoint's folder; work goes on in `<folder>-training` beside it, which keeps the log.
        config: model, training, regions.
        split: training images.
        held_out_split: images for checking; None: a share of `split` that is not trained on.
        seed: decides first weights, held-out images, order and augmentation.
        progress: called with steps done and in all.

    Returns:
        The teacher; a finished one of the same settings is returned as it is.

    Raises:
        DataError: fewer than two words or images are known.
        WeightsError: `folder` holds something else than a teacher.
    """
    data, folder = WithoutMasks(dataset), Path(folder)
    check_target(folder)
    known = {image_id: words_of(data, image_id) for image_id in tagged_ids(data, split)}
    known, held_out = _divided(data, known, held_out_split, config.held_out_share, seed)
    vocabulary = tuple(sorted({word for words in known.values() for word in words}))
    if len(vocabulary) < 2 or len(known) < 2:
        raise DataError(
            f"A teacher needs at least two words and two images; split `{split}` of {data.name} has "
            f"{len(vocabulary)} and {len(known)}. Add tags, or a `scene` column to the tags file."
        )
    card = _card(data, config, seed, vocabulary, tuple(known))
    if not _is_finished(folder, card):
        _train(data, known, folder, config, card, seed=seed, progress=progress)
    agreement = word_retrieval(load_teacher(folder), data, held_out) if held_out else None
    return TrainedTeacher(folder, vocabulary, len(known), agreement)


def words_of(dataset: Dataset, image_id: str) -> tuple[str, ...]:
    """What is known of an image: its classes, as prompts name them, and its scene words; each once."""
    labels = dataset.image_labels(image_id)
    classes = [
        info.prompt or info.name
        for info, is_present in zip(dataset.classes, labels, strict=True)
        if is_present
    ]
    return tuple(dict.fromkeys([*classes, *dataset.scene_words(image_id)]))


def _train(
    data: Dataset,
    known: Mapping[str, Sequence[str]],
    folder: Path,
    config: TeacherConfig,
    card: Mapping[str, Any],
    *,
    seed: int,
    progress: Progress | None,
) -> None:
    """Train, write the checkpoint, and leave only the log in the work folder."""
    state, work = PartialState(), folder.with_name(f"{folder.name}-training")
    size = min(config.training.batch_size, len(known))
    training = config.training.model_copy(update={"batch_size": size})
    seed_everything(seed)
    tokenizer = _tokenizer(card["words"], config.model.context_length)
    model = tiny_clip(
        config.model.model_copy(update={"context_length": tokenizer.model_max_length}), tokenizer
    )
    teacher = ContrastiveTeacher(
        model,
        tokenizer,
        known,
        mask_shares=config.mask_shares,
        mixed_share=config.mixed_share,
        largest_scale=config.largest_scale,
    )
    batches = TrainingBatches(
        data,
        tuple(known),
        training.augmentation,
        batch_size=size,
        seed=seed,
        mean=MEAN,
        std=STD,
        drop_last=training.drop_last,
        workers=training.workers,
        rank=state.process_index,
        world=state.num_processes,
    )
    train(teacher, batches, training, work_dir=work, seed=seed, progress=progress)
    if state.is_main_process:
        save_teacher(folder, model, tokenizer, mean=MEAN, std=STD, prompt_template=TEMPLATES[0], card=card)
        (work / "model.safetensors").unlink()  # the checkpoint holds the same weights
    state.wait_for_everyone()


def _tokenizer(words: Sequence[str], context_length: int) -> Any:
    """Knows the templates and `words`, and holds captions of the longest of them."""
    texts = [caption([*words, "and"], template) for template in TEMPLATES]
    tokenizer = word_tokenizer([*texts, "a, b"], context_length)
    lengths = sorted(len(tokenizer(word)["input_ids"]) - 2 for word in words)
    frame = len(tokenizer(max(TEMPLATES, key=len).format(""))["input_ids"])
    needed = frame + sum(lengths[-LARGEST_CAPTION:]) + LARGEST_CAPTION  # commas and "and"
    return tokenizer if needed <= context_length else word_tokenizer([*texts, "a, b"], needed)


def _divided(
    data: Dataset,
    known: dict[str, tuple[str, ...]],
    held_out_split: str | None,
    share: float,
    seed: int,
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Words of the training images, and of the images for checking."""
    if held_out_split is not None:
        ids = [image_id for image_id in tagged_ids(data, held_out_split) if image_id not in known]
        return known, {image_id: words_of(data, image_id) for image_id in ids}
    order = np.random.default_rng(derived_seed(seed, "held out")).permutation(len(known))
    chosen = {list(known)[place] for place in order[: int(share * len(known))]}
    return (
        {image_id: words for image_id, words in known.items() if image_id not in chosen},
        {image_id: words for image_id, words in known.items() if image_id in chosen},
    )


def _card(
    data: Dataset, config: TeacherConfig, seed: int, words: Sequence[str], ids: Sequence[str]
) -> dict[str, Any]:
    return {
        "made_by": "training from tags and scene words",
        "data": data.name,
        "data_fingerprint": data.fingerprint(),
        "images": len(ids),
        "words": list(words),
        "settings": config.model_dump(mode="json"),
        "seed": seed,
    }


def _is_finished(folder: Path, card: Mapping[str, Any]) -> bool:
    if not (folder / "model.safetensors").is_file():
        return False
    found = read_card(folder)
    return all(found.get(key) == value for key, value in card.items())
