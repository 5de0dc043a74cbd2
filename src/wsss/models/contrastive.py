"""Contrastive losses between images and texts, where one text may describe several images of a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.checks import check_shape


def multi_positive_loss(
    image_features: Tensor, text_features: Tensor, scale: Tensor, matches: Tensor
) -> Tensor:
    r"""Pull every matching image-text pair together against all texts and images that do not match.

    $$ L = \tfrac12 (L_{image} + L_{text}), \qquad
       L_{image} = \operatorname*{mean}_i \operatorname*{mean}_{t : (i,t) \in M}
           -\log \frac{e^{z_{it}}}{e^{z_{it}} + \sum_{u : (i,u) \notin M} e^{z_{iu}}},
       \qquad z_{it} = s\,\cos(x_i, y_t) $$

    $L_{text}$ is the same with images and texts exchanged. Every image weighs the same in the one and every
    text in the other, however many matches they have; those without a match only serve as negatives.
    Other positives of the same image or text are left out of its sum: they are no negatives. With the
    identity as `matches` this is CLIP's loss.

    Args:
        image_features: (B, E), any length.
        text_features: (T, E), any length.
        scale: factor s of cosines; scalar.
        matches: (B, T), bool; M, true where the text describes the image.

    Returns:
        Scalar, float32; 0 with a gradient of zero when nothing matches.

    Source:
        Radford et al., ICML 2021, https://arxiv.org/abs/2103.00020 (CLIP). Differs: several positives.
    """
    check_shape("matches", matches, (len(image_features), len(text_features)))
    images, texts = F.normalize(image_features.float(), dim=-1), F.normalize(text_features.float(), dim=-1)
    logits = scale.float() * images @ texts.T  # (B, T)
    return (_one_way(logits, matches) + _one_way(logits.T, matches.T)) / 2


def symmetric_loss(image_features: Tensor, text_features: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss as CLIMS fine-tunes with it: cross-entropy of images over texts plus of texts over images.

    The sum, not its half; the i-th text belongs to the i-th image alone, even where texts repeat.

    Args:
        image_features: (B, E), any length.
        text_features: (B, E), any length.
        scale: factor of cosines; scalar.

    Source:
        CLIMS (Xie et al., CVPR 2022), camera-ready code, fine-tuning of CLIP.
    """
    images, texts = F.normalize(image_features.float(), dim=-1), F.normalize(text_features.float(), dim=-1)
    logits = scale.float() * images @ texts.T  # (B, B)
    own = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)


def _one_way(logits: Tensor, matches: Tensor) -> Tensor:
    """Mean over rows with matches of the mean over them of -log(share among itself and the non-matches)."""
    negatives = logits.masked_fill(matches, float("-inf")).logsumexp(dim=1, keepdim=True)  # may be -inf
    losses = F.softplus(negatives - logits)  # log(1 + e^(negatives - match))
    counts = matches.sum(dim=1)
    means = losses.masked_fill(~matches, 0.0).sum(dim=1) / counts.clamp(min=1)
    return means.sum() / (counts > 0).sum().clamp(min=1)
