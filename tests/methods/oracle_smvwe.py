"""SMVWE as slowly as it can be written: loops over images, cells, words and classes; float64 throughout."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor


def softmax(scores: list[Tensor]) -> list[Tensor]:
    powers = [torch.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def margin(logits: list[Tensor], labels: list[bool]) -> Tensor:
    """-1/C sum of y log sigmoid(x) + (1 - y) log(1 - sigmoid(x))."""
    total = 0.0
    for x, y in zip(logits, labels, strict=True):
        total = total - (torch.log(1 / (1 + torch.exp(-x))) if y else torch.log(1 / (1 + torch.exp(x))))
    return total / len(logits)


def unit(vector: Tensor) -> Tensor:
    return vector / torch.sqrt((vector * vector).sum())


def smvwe_losses(
    features: Tensor,
    image_labels: Tensor,
    saliency: Tensor,
    weights: dict[str, Tensor],
    *,
    paper: bool = False,
    delta: float = 0.4,
    mu: float = 0.5,
) -> dict[str, Tensor]:
    """All terms of one step, unweighted; `paper` takes the equations as printed, but for the minus of eq. 8.

    Args:
        features: (B, D, h, w), float64.
        image_labels: (B, K).
        saliency: at full resolution, (B, H, W).
        weights: `classifier` (K + 1, D), `codebook` (W, D), `words` (W, D), `words_to_image` (K, W).
    """
    images, _, height, width = features.shape
    classes, cells = image_labels.shape[1], list(itertools.product(range(height), range(width)))
    step_y, step_x = saliency.shape[1] / height, saliency.shape[2] / width
    terms: dict[str, list[Tensor]] = {name: [] for name in ("classification", "words", "w2i", "saliency")}
    for n in range(images):
        labels = [bool(flag) for flag in image_labels[n]]
        logits = {
            c: [weights["classifier"][k] @ features[n, :, c[0], c[1]] for k in range(classes + 1)]
            for c in cells
        }
        mean = [sum(logits[c][k] for c in cells) / len(cells) for k in range(classes)]
        terms["classification"].append(margin(mean, labels))

        posterior = {}
        for c in cells:
            m, book = features[n, :, c[0], c[1]].detach(), list(weights["codebook"])
            if not paper:
                m, book = unit(m), [unit(b) for b in book]
            distances = [(m - b).abs().sum() for b in book]
            posterior[c] = softmax(distances if paper else [-d for d in distances])
        number = len(weights["codebook"])
        found = {max(range(number), key=lambda j, c=c: float(posterior[c][j].detach())) for c in cells}
        pooled = sum(features[n, :, c[0], c[1]] for c in cells) / len(cells)
        terms["words"].append(
            margin([word @ pooled for word in weights["words"]], [j in found for j in range(number)])
        )
        often = [sum(posterior[c][j] for c in cells) / len(cells) for j in range(number)]
        if not paper:
            often = [number * e for e in often]
        terms["w2i"].append(
            margin(
                [sum(w * e for w, e in zip(row, often, strict=True)) for row in weights["words_to_image"]],
                labels,
            )
        )

        maps = {c: softmax(logits[c]) for c in cells}
        shown = {(y, x): float(saliency[n, math.floor(y * step_y), math.floor(x * step_x)]) for y, x in cells}
        own, other = [], [] if paper else [classes]
        for k in range(classes):
            on = [c for c in cells if float(maps[c][k].detach()) > 0.5]
            area = len(on) + (0 if paper else 1e-4 * len(cells))
            overlap = sum(shown[c] > 0.5 for c in on) / area if area else 0.0
            if labels[k]:
                (own if overlap > delta else other).append(k)
        errors = []
        for c in cells:
            foreground = sum(maps[c][k] for k in own)
            background = sum(maps[c][k] for k in other)
            errors.append((shown[c] - ((1 - mu) * foreground + mu * (1 - background))) ** 2)
        terms["saliency"].append(sum(errors) / len(cells))
    names = {"w2i": "words_to_image"}
    return {names.get(name, name): sum(values) / images for name, values in terms.items()}
