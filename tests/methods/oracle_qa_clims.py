"""QA-CLIMS as slowly as it can be written: loops over pairs and texts; float64; nothing shared or stable."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from tests.methods.oracle_clims import resized
from torch import Tensor


def norm(vector: Tensor) -> Tensor:
    return vector / sum(x * x for x in vector) ** 0.5


def dot(a: Tensor, b: Tensor) -> Tensor:
    return sum(x * y for x, y in zip(a, b, strict=True))


def qa_clims_losses(  # noqa: C901
    images: Tensor,
    image_labels: Tensor,
    maps: Tensor,
    teacher,
    *,
    texts: Mapping[tuple[int, int], tuple[str, Sequence[str], Sequence[str]]],
    weights: tuple[float, float, float],
    temperature: float = 0.7,
    omega: float | None = 0.1,
    mode: str = "token",
    mixing: str = "half",
    paper_brc: bool = False,
) -> dict[str, Tensor]:
    """FRC, BRC and REG of one step.

    `texts` gives for (image, column) the whole prompts of label, foreground and background; `maps` are p.
    """
    teacher = copy.deepcopy(teacher).double()
    size, patch = teacher.image_size, teacher.patch_size
    frc, brc = [], []
    for n in range(len(images)):
        for k in range(image_labels.shape[1]):
            if not image_labels[n, k]:
                continue
            label, foreground, background = texts[n, k]
            if not background:
                continue
            p = resized(maps[n, k], size)
            theta = max(float(value) for value in p.detach().flatten()) * (omega or 0.0)
            inside, outside = torch.ones_like(p), torch.ones_like(p)
            if omega is not None:
                for y in range(size):
                    for x in range(size):
                        inside[y, x] = 1.0 if p[y, x] >= theta else 0.0
                        outside[y, x] = 1 - inside[y, x]
            features = []
            for soft, hard in ((p, inside), (1 - p, outside)):
                region = torch.stack([resized(plane.double(), size) * soft for plane in images[n]])
                if mode in ("pixel", "both"):
                    region = region * hard
                if omega is None or mode == "pixel":
                    features.append(teacher.encode_images(region[None])[0])
                    continue
                tokens = torch.zeros(size // patch, size // patch, dtype=torch.float64)
                for y in range(size // patch):
                    for x in range(size // patch):
                        block = hard[y * patch : (y + 1) * patch, x * patch : (x + 1) * patch]
                        tokens[y, x] = math.ceil(float(block.mean()))
                features.append(teacher.encode_regions(region[None], tokens[None, None])[0])
            v_f, v_b = (norm(feature) for feature in features)
            encoded = [norm(feature) for feature in teacher.encode_texts([label, *foreground, *background])]
            e, u, t = encoded[0], encoded[1 : 1 + len(foreground)], encoded[1 + len(foreground) :]
            if mixing == "mean":
                own = (e + sum(u)) / (1 + len(u)) if u else e
            else:
                own = 0.5 * e + 0.5 * sum(u) / len(u) if u else e
            positive = torch.exp(dot(v_f, own) / temperature)
            frc.append(
                -torch.log(positive / (positive + sum(torch.exp(dot(v_f, b) / temperature) for b in t)))
            )
            if paper_brc:
                positive = torch.exp(sum(dot(v_b, b) for b in t) / len(t) / temperature)
            else:
                positive = sum(torch.exp(dot(v_b, b) / temperature) for b in t) / len(t)
            brc.append(-torch.log(positive / (positive + torch.exp(dot(v_b, own) / temperature))))
    zero = torch.zeros((), dtype=torch.float64)
    alpha, beta, gamma = weights
    return {
        "FRC": alpha * sum(frc, zero),
        "BRC": beta * sum(brc, zero),
        "REG": gamma * sum(maps.flatten()) / maps.numel(),
    }
