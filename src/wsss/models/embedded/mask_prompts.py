r"""Trains mask prompts for the embedded teacher, which makes it a mask-adapted CLIP.

The shipped teacher stays as it is; only the tokens that stand for patches outside a region are learned, from
the same pictures, masks and captions as the teacher itself and with the same losses. Regions are shown as
QA-CLIMS shows them: pixels times the soft mask, and tokens kept where a pixel of the patch reaches a share
omega of the largest. Half of the regions are outsides, whose mask is one minus a map q: there q decides,

$$ b = [q \ge \omega \max q], \qquad (q x, b) \ \text{inside}, \quad ((1 - q) x, 1 - b) \ \text{outside} $$

Source: OVSeg, Liang et al., CVPR 2023, https://arxiv.org/abs/2210.04150, section 3.3 (mask prompt tuning);
QA-CLIMS, section 4.1 and its code (regions).
Differs: the contrastive losses of the embedded teacher instead of OVSeg's over mask-category pairs; prompts
start as the tokens of an empty picture, not as zeros; the vision tower stays frozen unless it gets a rate.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.data.scenes.vocabulary import WORLD_VERSION
from wsss.errors import WeightsError
from wsss.models.clip import HuggingFaceTeacher, features_of, load_teacher
from wsss.models.embedded.checkpoints import Log, forget_checkpoint, train_steps
from wsss.models.embedded.compose import Pools, Progress, compose, draw_pools, stream
from wsss.models.embedded.concepts import choose_captions
from wsss.models.embedded.losses import concept_losses, contrastive_losses
from wsss.models.embedded.masking import draw_masks, visible_concepts
from wsss.models.mask_adapted import MaskAdaptedTeacher, token_masks
from wsss.models.teacher_folder import check_target, save_loaded

OMEGA: Final = 0.1  # QA-CLIMS
INITIAL_STD: Final = 0.02  # of the noise on the first prompts
CHECKPOINT_EVERY: Final = 100  # steps


@dataclass(frozen=True)
class PromptSettings:
    """How mask prompts are trained.

    Args:
        steps: optimiser updates.
        batch_size: images a step.
        learning_rate: of AdamW, at the end of the warm-up; cosine to zero.
        tower_rate: of the vision tower, likewise; 0 (default): it stays frozen. OVSeg trains both.
        warm_up: steps.
        depth: levels of prompts (OVSeg: 3).
        objects: scenes whose objects are drawn before training.
        backgrounds: backgrounds drawn before training.
    """

    steps: int = 300
    batch_size: int = 96
    learning_rate: float = 1e-2
    tower_rate: float = 0.0
    warm_up: int = 20
    depth: int = 3
    objects: int = 3000
    backgrounds: int = 1500


def train_mask_prompts(
    out_dir: str | Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    settings: PromptSettings | None = None,
    progress: Progress | None = None,
    log: Log | None = None,
) -> Path:
    """Learn mask prompts for the shipped teacher and write both as a mask-adapted teacher.

    An interrupted training goes on from its last checkpoint (beside `out_dir`) when it is started again.

    Args:
        out_dir: folder to write; replaced only when the training has ended.
        seed: of the pictures, the masks, the captions and the first prompts.
        steps: optimiser updates; None: as `settings` say.
        settings: how; None: the defaults.
        progress: called with (what is done, how many done, how many in all).
        log: called with the losses of every 50th step.

    Returns:
        `out_dir`, for `load_teacher`.

    Raises:
        WeightsError: `out_dir` holds something else than a teacher, or a depth that the teacher can't have.
    """
    out_dir = Path(out_dir)
    check_target(out_dir)
    given = {**asdict(settings or PromptSettings()), **({} if steps is None else {"steps": steps})}
    settings = PromptSettings(**given)
    teacher = _untrained(load_teacher("embedded"), settings.depth, seed)
    pools = draw_pools(seed, objects=settings.objects, backgrounds=settings.backgrounds, progress=progress)
    optimiser = _optimiser(teacher, settings)
    about = {
        "made_by": "mask prompts",
        "start": "embedded",
        "seed": seed,
        "world_version": WORLD_VERSION,
        **asdict(settings),
    }
    train_steps(
        out_dir,
        teacher,
        [optimiser],
        lambda step: _step(teacher, pools, optimiser, settings, seed=seed, step=step),
        about,
        steps=settings.steps,
        checkpoint_every=CHECKPOINT_EVERY,
        progress=progress,
        log=log,
    )
    save_loaded(out_dir, teacher, half=True, card=about)
    forget_checkpoint(out_dir)
    return out_dir


def region_tokens(masks: Tensor, is_outside: Tensor, patch: int) -> Tensor:
    """The tokens that QA-CLIMS would keep of regions with these soft masks.

    Args:
        masks: what pixels are multiplied with; (B, 1, S, S) in [0, 1].
        is_outside: whether the mask is one minus a map, and the map decides; (B,), bool. Where no patch would
            be left, the mask itself decides.
        patch: side of a patch in pixels.

    Returns:
        (B, 1, S / patch, S / patch), bool.
    """

    def reaching(planes: Tensor) -> Tensor:
        return planes >= OMEGA * planes.amax(dim=(2, 3), keepdim=True)

    inside, outside = reaching(masks), ~reaching(1 - masks)
    by_map = is_outside & outside.any(dim=3).any(dim=2).any(dim=1)
    return token_masks(torch.where(by_map[:, None, None, None], outside, inside), patch)


@torch.no_grad()
def _untrained(teacher: HuggingFaceTeacher, depth: int, seed: int) -> MaskAdaptedTeacher:
    """The teacher with prompts that are the tokens of an empty picture, and a little noise."""
    model: Any = teacher.model
    size, blocks = teacher.image_size, len(model.vision_model.encoder.layers)
    if not 1 <= depth <= blocks:
        raise WeightsError(f"`depth` must lie in 1 to {blocks}, the blocks of the teacher; got {depth}.")
    states = model.vision_model(
        pixel_values=torch.zeros(1, 3, size, size), output_hidden_states=True
    ).hidden_states  # the first before block 1, then after each block; (1, 1 + N, D)
    blank = model.vision_model.embeddings.patch_embedding(torch.zeros(1, 3, size, size))  # (1, D, g, g)
    levels = [blank.flatten(2).transpose(1, 2)[0], *(state[0, 1:] for state in states[1:depth])]
    first = torch.stack(levels)
    noise = torch.randn(first.shape, generator=stream("prompts", seed))
    return MaskAdaptedTeacher(
        model,
        teacher.tokenizer,
        first + INITIAL_STD * noise,
        mean=teacher.mean,
        std=teacher.std,
        prompt_template=teacher.prompt_template,
        name=teacher.name,
    )


def _optimiser(teacher: MaskAdaptedTeacher, settings: PromptSettings) -> torch.optim.Optimizer:
    """Of the prompts, and of the vision tower where it has a rate; nothing else needs a gradient."""
    groups = [{"params": [teacher.mask_embedding.requires_grad_(True)], "lr": settings.learning_rate}]
    if settings.tower_rate > 0:
        model: Any = teacher.model
        tower = [*model.vision_model.parameters(), *model.visual_projection.parameters()]
        groups.append(
            {"params": [weight.requires_grad_(True) for weight in tower], "lr": settings.tower_rate}
        )
    for group in groups:
        group["peak"] = group["lr"]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0)


def _step(
    teacher: MaskAdaptedTeacher,
    pools: Pools,
    optimiser: torch.optim.Optimizer,
    settings: PromptSettings,
    *,
    seed: int,
    step: int,
) -> dict[str, Tensor]:
    """One update; every random number comes from (seed, step)."""
    model: Any = teacher.model
    generator = stream("mask prompts", seed, step)
    scenes = compose(pools, settings.batch_size, generator)
    masks = draw_masks(scenes, generator)
    is_outside = torch.rand(len(masks), generator=generator) < 0.5
    tokens = region_tokens(masks, is_outside, teacher.patch_size)
    shown = tokens.repeat_interleave(teacher.patch_size, 2).repeat_interleave(teacher.patch_size, 3)
    state = visible_concepts(scenes, masks * shown)
    rows, texts = choose_captions(state.numpy(), np.random.default_rng([seed, step, 6]))
    with torch.no_grad():
        words = teacher.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        named = {key: words[key] for key in ("input_ids", "attention_mask")}
        text_features = F.normalize(features_of(model.get_text_features(**named)), dim=1)
        scale = model.logit_scale.exp()
    image_features = F.normalize(teacher.encode_regions(scenes.images * masks, tokens), dim=1)
    logits = scale * image_features @ text_features.T  # (B, B + A)
    losses = contrastive_losses(logits, state, rows)
    losses.update(concept_losses(logits[:, settings.batch_size :], state))
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(torch.stack(list(losses.values())).sum())
    rate = min(1.0, (step + 1) / settings.warm_up) * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    for group in optimiser.param_groups:
        torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
        group["lr"] = group["peak"] * rate
    optimiser.step()
    return losses
