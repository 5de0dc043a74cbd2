r"""Trains the embedded VQA: a tiny BLIP that answers the 16 questions about the generated world.

An image is encoded once and asked several questions. With its tokens v, a question q and the answer's
tokens a_1, ..., a_T (the last ends the answer), the loss is the usual one of a decoder,

$$ L = - \tfrac1T \sum_t \log p(a_t \mid a_1, \ldots, a_{t-1}, q, v), $$

averaged over questions. A helping loss makes each image token tell what its patch shows: the cross-entropy
between a linear layer's guess, thrown away afterwards, and the shares of the patch's pixels that belong to
each class, background and distractor. Without it, 200-400 steps did not teach which background belongs to the
object that a question names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BlipForQuestionAnswering, CLIPModel, PreTrainedTokenizerFast

from wsss.data.scenes.vocabulary import WORLD_VERSION, vocabulary
from wsss.models.embedded import CLIP_FOLDER
from wsss.models.embedded.checkpoints import Log, forget_checkpoint, train_steps
from wsss.models.embedded.compose import Progress, stream
from wsss.models.embedded.optimiser import block_optimisers, cosine_share, update
from wsss.models.embedded.vqa_format import (
    check_vqa_target,
    new_vqa,
    new_vqa_tokenizer,
    save_vqa,
    start_from_teacher,
)
from wsss.models.embedded.vqa_pictures import (
    PATCH,
    SHOWN,
    TOPICS,
    Pictures,
    answer_words,
    draw_pictures,
    normalised,
    photograph,
)

CHECKPOINT_EVERY: Final = 200
SPLIT: Final = "vqa-training"
TOPIC_WEIGHTS: Final = {  # how often each is asked: what is hard to see, more; what needs no image, seldom
    "above": 2.5, "under": 2.5, "behind": 1.5, "around": 1.5, "next": 3.0, "left": 3.0, "right": 3.0,
    "scene": 0.7, "environment": 0.7, "place": 0.7, "kind": 3.0, "type": 3.0,
    "alias": 0.3, "name": 0.3, "alias_word": 0.3, "alias_name": 0.3,
}  # fmt: skip

HELPER_SHARE: Final = 3.0  # of the learning rate, for the layer that tells what patches show
LEAST: Final = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class VqaSettings:
    """How the VQA is trained.

    Args:
        steps: optimiser updates.
        batch_size: images a step.
        questions: asked about each image.
        learning_rate: of AdamW, at the end of the warm-up; cosine to zero.
        matrix_rate: of the matrices inside the blocks, likewise.
        warm_up: steps.
        weight_decay: on weights with two axes or more.
        pictures: scenes drawn before training.
        tower_share: of both rates, for the vision tower; or it forgets what it brought before questions
            can ask for it.
        pair_weight: how much more often a scene with two classes is shown than one with one.
        patch_weight: of the helping loss.
    """

    steps: int = 1200
    batch_size: int = 64
    questions: int = 8
    learning_rate: float = 2e-3
    matrix_rate: float = 1e-2
    warm_up: int = 50
    weight_decay: float = 0.01
    pictures: int = 20000
    tower_share: float = 0.3
    pair_weight: int = 3
    patch_weight: float = 1.0


class _Learner(nn.Module):
    """The VQA, and the layer that tells from an image token what its patch shows."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.vqa = new_vqa(seed)
        self.patches = nn.Linear(int(self.vqa.config.vision_config.hidden_size), SHOWN)
        nn.init.zeros_(self.patches.weight)
        nn.init.zeros_(self.patches.bias)


@dataclass(frozen=True, eq=False)
class _Texts:
    """Token ids of every question, (16, 8, L) with its mask, and of every answer, (A, T)."""

    questions: Tensor
    question_masks: Tensor
    answers: Tensor


def train_vqa(
    out_dir: str | Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    batch_size: int | None = None,
    pictures: int | None = None,
    progress: Progress | None = None,
    log: Log | None = None,
) -> Path:
    """Train a VQA and write it as a Hugging Face folder.

    The vision tower starts from the shipped teacher's. An interrupted training goes on from its last
    checkpoint (beside `out_dir`) when it is started again.

    Args:
        out_dir: folder to write; replaced only when the training has ended.
        seed: of the pictures, the questions and the weights.
        steps: optimiser updates; the default is what the shipped VQA was trained with.
        batch_size: images a step.
        pictures: scenes drawn before training.
        progress: called with (what is done, how many done, how many in all).
        log: called with the loss of every 50th step.

    Returns:
        `out_dir`.

    Raises:
        WeightsError: `out_dir` holds something else than a VQA.
    """
    out_dir = Path(out_dir)
    check_vqa_target(out_dir)
    given = {"steps": steps, "batch_size": batch_size, "pictures": pictures}
    settings = VqaSettings(**{name: value for name, value in given.items() if value is not None})
    about: dict[str, Any] = {
        "command": f"wsss embedded train vqa --seed {seed}",
        "seed": seed,
        "world_version": WORLD_VERSION,
        "split": SPLIT,
        "vision_tower_from": "the embedded CLIP",
        **asdict(settings),
        "topic_weights": TOPIC_WEIGHTS,
    }
    scenes = draw_pictures(seed, SPLIT, settings.pictures, progress=progress)
    model, texts = _Learner(seed), tokenised(new_vqa_tokenizer())
    teacher = CLIPModel.from_pretrained(str(CLIP_FOLDER), dtype=torch.float32, local_files_only=True)
    start_from_teacher(model.vqa, teacher, normalised(scenes.images[:64]))
    optimisers = block_optimisers(
        model,
        learning_rate=settings.learning_rate,
        matrix_rate=settings.matrix_rate,
        weight_decay=settings.weight_decay,
        shares={"vqa.vision_model.": settings.tower_share, "patches.": HELPER_SHARE},
    )
    train_steps(
        out_dir,
        model,
        optimisers,
        lambda step: _step(model, texts, scenes, optimisers, settings, seed=seed, step=step),
        about,
        steps=settings.steps,
        checkpoint_every=CHECKPOINT_EVERY,
        progress=progress,
        log=log,
    )
    save_vqa(out_dir, model.vqa, about)
    forget_checkpoint(out_dir)
    return out_dir


def tokenised(tokenizer: PreTrainedTokenizerFast) -> _Texts:
    """Every question and every answer of the world, as token ids."""
    words = vocabulary()
    asked = [template.format(item.name) for template, _ in words.questions for item in words.classes]
    found = tokenizer(asked, padding=True, return_tensors="pt")
    shape = (len(words.questions), len(words.classes), -1)
    answers = tokenizer(list(answer_words()), padding=True, return_tensors="pt").input_ids
    return _Texts(found.input_ids.view(shape), found.attention_mask.view(shape), answers)


def _step(
    model: _Learner,
    texts: _Texts,
    scenes: Pictures,
    optimisers: Sequence[torch.optim.Optimizer],
    settings: VqaSettings,
    *,
    seed: int,
    step: int,
) -> dict[str, Tensor]:
    """One update; every random number comes from (seed, step), so a resumed training is the same training."""
    generator = stream("vqa", seed, step)
    has_two = scenes.classes[:, 1] >= 0
    weights = 1.0 + (settings.pair_weight - 1) * has_two
    rows = torch.multinomial(weights, settings.batch_size, replacement=True, generator=generator)
    is_mirrored = torch.rand(settings.batch_size, generator=generator) < 0.5
    pixels = photograph(scenes.images[rows], is_mirrored, generator)
    topics, classes, answers = ask(scenes, rows, is_mirrored, settings.questions, generator)
    seen = model.vqa.vision_model(pixel_values=pixels).last_hidden_state  # (B, 1 + N, D)
    losses = {
        "answer": answer_loss(model.vqa, texts, seen, topics, classes, answers),
        "patch": settings.patch_weight * _patch_loss(model, seen, scenes.patches[rows], is_mirrored),
    }
    share = cosine_share(step, settings.steps, settings.warm_up)
    update(model, optimisers, torch.stack(list(losses.values())).sum(), share)
    return losses


def _patch_loss(model: _Learner, seen: Tensor, patches: Tensor, is_mirrored: Tensor) -> Tensor:
    """Cross-entropy of what the tokens of patches tell and what the patches, (B, h, w, 24), show."""
    patches = torch.where(is_mirrored[:, None, None, None], patches.flip(2), patches).flatten(1, 2).float()
    told = model.patches(seen[:, 1:]).log_softmax(dim=2)  # (B, N, 24)
    loss: Tensor = -(told * patches).sum(dim=2).mean() / PATCH**2
    return loss


def ask(
    scenes: Pictures, rows: Tensor, is_mirrored: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose `count` questions about each image: topics, classes and right answers; (B, count) each."""
    weights = torch.tensor([TOPIC_WEIGHTS[topic] for topic in TOPICS]).expand(len(rows), -1)
    topics = torch.multinomial(weights, count, generator=generator)
    second = torch.rand(len(rows), count, generator=generator) < 0.5
    slots = (second & (scenes.classes[rows, 1] >= 0)[:, None]).long()
    classes = scenes.classes[rows[:, None], slots]
    answers = scenes.answers[rows[:, None], is_mirrored.long()[:, None], slots, topics]
    return topics, classes, answers


def answer_loss(
    model: BlipForQuestionAnswering,
    texts: _Texts,
    seen: Tensor,
    topics: Tensor,
    classes: Tensor,
    answers: Tensor,
) -> Tensor:
    """Mean next-token loss of the answers; `seen` is (B, 1 + N, D), all others are (B, Q)."""
    mask = texts.question_masks[topics, classes]  # (B, Q, L)
    count, length = mask.shape[1:]
    own = torch.eye(count, dtype=torch.bool).repeat_interleave(length, 0).repeat_interleave(length, 1)
    together = own & (mask.flatten(1) > 0)[:, None]  # (B, QL, QL): a question reads its own words only
    read = model.text_encoder(
        input_ids=texts.questions[topics, classes].flatten(1),
        position_ids=torch.arange(length).repeat(count)[None],
        attention_mask=torch.where(together, 0.0, LEAST)[:, None],
        encoder_hidden_states=seen,
    ).last_hidden_state
    read = read.unflatten(1, (count, length)).flatten(0, 1)  # (BQ, L, D)
    mask, answers = mask.flatten(0, 1), answers.flatten()
    said = texts.answers[answers]
    logits = model.text_decoder(
        input_ids=said[:, :-1], encoder_hidden_states=read, encoder_attention_mask=mask
    ).logits
    return F.cross_entropy(
        logits.flatten(0, 1), said[:, 1:].flatten(), ignore_index=model.decoder_pad_token_id
    )
