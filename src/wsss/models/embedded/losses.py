"""The losses of the embedded teacher, on scaled cosines and what the generator knows to be in each image."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.models.embedded.compose import Composites
from wsss.models.embedded.concepts import concepts
from wsss.models.embedded.masking import context_shares

UNDECIDED: Final = -100


def contrastive_losses(logits: Tensor, state: Tensor, rows: list[tuple[int, ...]]) -> dict[str, Tensor]:
    """The two halves of the loss.

    Args:
        logits: scaled cosines of images and captions; (B, T), caption i belongs to image i, the rest to none.
        state: which concepts each image shows: 1, 0, or -1 where undecided; (B, number of concepts).
        rows: concepts that each caption names; images whose caption names none take no part.
    """
    count = len(logits)
    needed = torch.zeros(len(rows), state.shape[1])
    for caption_row, named in enumerate(rows):
        needed[caption_row, list(named)] = 1.0
    is_negative = (state == 0).float() @ needed.T > 0  # (B, T)
    own = torch.eye(count, len(rows), dtype=torch.bool)
    kept = logits.masked_fill(~(is_negative | own), float("-inf"))
    has_caption = torch.tensor([len(named) > 0 for named in rows[:count]])
    used = has_caption.nonzero().flatten()
    image_loss = F.cross_entropy(kept[used], used)
    text_loss = F.cross_entropy(kept[:, :count].T[used], used)
    return {"image_to_text": 0.5 * image_loss, "text_to_image": 0.5 * text_loss}


def concept_losses(logits: Tensor, state: Tensor) -> dict[str, Tensor]:
    """Both halves again for the single concepts: every one that an image shows against all that it hides.

    Args:
        logits: scaled cosines of images and one text for each concept; (B, A).
        state: as in `contrastive_losses`; its first A columns are used.
    """
    state = state[:, : logits.shape[1]]
    losses = {}
    for name, values, shown, hidden in (
        ("image_to_concept", logits, state == 1, state == 0),
        ("concept_to_image", logits.T, (state == 1).T, (state == 0).T),
    ):
        against = values.masked_fill(~hidden, -1e4).logsumexp(dim=1, keepdim=True)
        each = F.softplus(against - values) * shown  # -log(e^s / (e^s + sum of e^hidden))
        counts = shown.sum(dim=1)
        losses[name] = 0.5 * (each.sum(dim=1) / counts.clamp_min(1)).sum() / (counts > 0).sum().clamp_min(1)
    return losses


def dense_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of patches against the concepts that fill them (ablation only).

    Args:
        logits: scaled cosines of patches and one text for each concept; (B, n, A).
        labels: as from `patch_concepts`; (B, n).
    """
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=UNDECIDED)


def patch_concepts(scenes: Composites, masks: Tensor, patch: int) -> Tensor:
    """The concept that fills each patch: "nothing" where masked, `UNDECIDED` where none fills half of it.

    Args:
        scenes: composed images.
        masks: (B, 1, H, W) in [0, 1].
        patch: side in pixels.

    Returns:
        Rows of the concept table, patches row by row; (B, N), int64.
    """
    table = concepts()
    classes = torch.from_numpy(table.kind_classes)[scenes.kinds.clamp_min(0)]  # (B, 2)
    labels = table.backgrounds.start - 1 + scenes.context  # distractors follow the backgrounds in both orders
    labels = torch.where(scenes.context == 0, table.nothing, labels)
    for slot in range(2):
        covered = scenes.instances[:, slot] > 0.5
        labels = torch.where(covered, table.classes.start + classes[:, slot, None, None], labels)

    def split(planes: Tensor) -> Tensor:
        return planes.unfold(1, patch, patch).unfold(2, patch, patch).reshape(-1, patch, patch)

    shares = context_shares(split(labels), split(masks[:, 0])[:, None], len(table))
    share, target = shares.max(dim=1)
    is_blank = shares.sum(dim=1) < 0.1
    target = torch.where(share > 0.5, target, UNDECIDED)
    return torch.where(is_blank, table.nothing, target).view(len(labels), -1)
