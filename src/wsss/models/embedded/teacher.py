r"""Trains the embedded teacher: a tiny CLIP for the words and pictures of the generated world.

Contrastive loss over a batch of masked images and their captions, with captions that also fit another image
of the batch left out of its negatives:

$$ L = -\tfrac12 \sum_i \log \frac{e^{s_{ii}}}{e^{s_{ii}} + \sum_{j \in N_i} e^{s_{ij}}}
       -\tfrac12 \sum_i \log \frac{e^{s_{ii}}}{e^{s_{ii}} + \sum_{j : i \in N_j} e^{s_{ji}}} $$

s is the cosine times the learned scale; N_i are the captions that certainly do not fit image i. One caption
for each concept joins the columns of the first sum, and the same loss runs again over those alone, each image
being matched with every concept that it shows. Three variants: `contrastive` (the shipped one), `dense` (an
auxiliary patch-to-concept loss from the generator's pixel labels) and `exact` (objects and backgrounds cut
out along their true masks).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, PreTrainedTokenizerFast

from wsss.checks import nearest
from wsss.data.scenes.vocabulary import WORLD_VERSION
from wsss.errors import WeightsError
from wsss.models.embedded.checkpoints import Log, forget_checkpoint, train_steps
from wsss.models.embedded.clip_format import LARGEST_SCALE, SIZES, new_clip, new_tokenizer, save_clip
from wsss.models.embedded.compose import Pools, Progress, compose, draw_pools, stream
from wsss.models.embedded.concepts import choose_captions
from wsss.models.embedded.losses import concept_losses, contrastive_losses, dense_loss, patch_concepts
from wsss.models.embedded.masking import draw_masks, visible_concepts
from wsss.models.embedded.optimiser import block_optimisers, cosine_share, update
from wsss.models.teacher_folder import check_target

__all__ = ["VARIANTS", "ClipSettings", "Log", "Progress", "encode_images", "train_clip"]

VARIANTS: Final = ("contrastive", "dense", "exact")
CHECKPOINT_EVERY: Final = 200
THINNED_SHARE: Final = 0.75  # of the steps look at KEPT_PATCHES of the 64 patches only
KEPT_PATCHES: Final = 36
PATCH: Final = SIZES.patch_size


@dataclass(frozen=True)
class ClipSettings:
    """How the teacher is trained.

    Args:
        steps: optimiser updates.
        batch_size: images a step.
        learning_rate: of AdamW, at the end of the warm-up; cosine to zero.
        matrix_rate: of the matrices inside the towers' blocks, likewise.
        warm_up: steps.
        weight_decay: on weights with two axes or more.
        objects: scenes whose objects are drawn before training.
        backgrounds: backgrounds drawn before training.
        dense_weight: of the auxiliary loss in the variant `dense`.
    """

    steps: int = 1200
    batch_size: int = 128
    learning_rate: float = 1e-3
    matrix_rate: float = 3e-3
    warm_up: int = 100
    weight_decay: float = 0.01
    objects: int = 10000
    backgrounds: int = 5000
    dense_weight: float = 0.5


def train_clip(
    out_dir: str | Path,
    *,
    seed: int = 0,
    variant: str = "contrastive",
    steps: int | None = None,
    batch_size: int | None = None,
    objects: int | None = None,
    progress: Progress | None = None,
    log: Log | None = None,
) -> Path:
    """Train a teacher from nothing and write it as a Hugging Face folder.

    An interrupted training goes on from its last checkpoint (beside `out_dir`) when it is started again.

    Args:
        out_dir: folder to write; replaced only when the training has ended.
        seed: of the pictures, the masks, the captions and the weights.
        variant: contrastive, dense or exact; see above.
        steps: optimiser updates; the default is what the shipped teacher was trained with.
        batch_size: images a step.
        objects: scenes whose objects are drawn before training; backgrounds are half as many.
        progress: called with (what is done, how many done, how many in all).
        log: called with the losses of every 50th step.

    Returns:
        `out_dir`.

    Raises:
        WeightsError: an unknown variant, or `out_dir` holds something else than a teacher.
    """
    if variant not in VARIANTS:
        raise WeightsError(
            f"`variant` must be one of {', '.join(VARIANTS)}; got `{variant}`. {nearest(variant, VARIANTS)}"
        )
    check_target(Path(out_dir))
    given = {"steps": steps, "batch_size": batch_size, "objects": objects}
    chosen = {name: value for name, value in given.items() if value is not None}
    if objects is not None:
        chosen["backgrounds"] = max(4, objects // 2)
    settings = ClipSettings(**chosen)
    about: dict[str, Any] = {
        "variant": variant,
        "seed": seed,
        "world_version": WORLD_VERSION,
        **asdict(settings),
    }
    pools = draw_pools(seed, objects=settings.objects, backgrounds=settings.backgrounds, progress=progress)
    model, tokenizer = new_clip(seed), new_tokenizer()
    out_dir = Path(out_dir)
    optimisers = block_optimisers(
        model,
        learning_rate=settings.learning_rate,
        matrix_rate=settings.matrix_rate,
        weight_decay=settings.weight_decay,
    )
    train_steps(
        out_dir,
        model,
        optimisers,
        lambda step: _step(
            model, tokenizer, pools, optimisers, settings, variant=variant, seed=seed, step=step
        ),
        about,
        steps=settings.steps,
        checkpoint_every=CHECKPOINT_EVERY,
        progress=progress,
        log=log,
    )
    save_clip(out_dir, model, about)
    forget_checkpoint(out_dir)
    return out_dir


def _step(
    model: CLIPModel,
    tokenizer: PreTrainedTokenizerFast,
    pools: Pools,
    optimisers: Sequence[torch.optim.Optimizer],
    settings: ClipSettings,
    *,
    variant: str,
    seed: int,
    step: int,
) -> dict[str, Tensor]:
    """One update; every random number comes from (seed, step), so a resumed training is the same training."""
    generator = stream("teacher", seed, step)
    scenes = compose(pools, settings.batch_size, generator)
    masks = draw_masks(scenes, generator, exact=variant == "exact")
    state = visible_concepts(scenes, masks)
    rows, texts = choose_captions(state.numpy(), np.random.default_rng([seed, step, 5]))
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    text_features = F.normalize(model.get_text_features(**tokens).pooler_output, dim=1)
    kept = KEPT_PATCHES if step < THINNED_SHARE * settings.steps else None
    image_features, patch_features, places = encode_images(model, scenes.images, masks, kept, generator)
    scale = model.logit_scale.exp()
    losses = contrastive_losses(scale * image_features @ text_features.T, state, rows)
    losses.update(concept_losses(scale * image_features @ text_features[settings.batch_size :].T, state))
    if variant == "dense":
        anchors = text_features[settings.batch_size :]
        labels = patch_concepts(scenes, masks, PATCH).gather(1, places)
        dense = dense_loss(scale * patch_features @ anchors.T, labels)
        losses["dense"] = settings.dense_weight * dense
    share = cosine_share(step, settings.steps, settings.warm_up)
    update(model, optimisers, torch.stack(list(losses.values())).sum(), share)
    with torch.no_grad():
        model.logit_scale.clamp_(max=math.log(LARGEST_SCALE))
    return losses


def encode_images(
    model: CLIPModel, images: Tensor, masks: Tensor, kept: int | None, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Unit features of masked images (B, E) and of n patches (B, n, E), and the places of these (B, n).

    With `kept`, only so many patches of each image are looked at, blank ones being left out first (FLIP,
    Li et al., CVPR 2023): training goes faster, and its last part sees everything.
    """
    tower = model.vision_model
    hidden = tower.embeddings(images * masks)  # (B, 1 + N, D)
    count = hidden.shape[1] - 1
    places = torch.arange(count).expand(len(images), -1)
    if kept is not None:
        shown = F.max_pool2d(masks, PATCH).flatten(1) > 0.02
        places = (torch.rand(shown.shape, generator=generator) + shown).topk(kept, dim=1).indices
        rows = places[..., None].expand(-1, -1, hidden.shape[2])
        hidden = torch.cat([hidden[:, :1], hidden[:, 1:].gather(1, rows)], dim=1)  # (B, 1 + n, D)
    states = tower.encoder(inputs_embeds=tower.pre_layrnorm(hidden)).last_hidden_state
    features = F.normalize(model.visual_projection(tower.post_layernorm(states)), dim=2)
    return features[:, 0], features[:, 1:], places
