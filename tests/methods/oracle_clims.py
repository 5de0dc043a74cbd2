"""CLIMS as slowly as it can be written: loops over images, classes and texts; float64; nothing shared."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def corner_weights(source: int, target: int) -> Tensor:
    """Matrix of a linear resize with aligned corners, entry by entry; (target, source)."""
    matrix = torch.zeros(target, source, dtype=torch.float64)
    for row in range(target):
        place = row * (source - 1) / (target - 1)
        low = min(math.floor(place), source - 1)
        high = min(low + 1, source - 1)
        matrix[row, low] += 1 - (place - low)
        matrix[row, high] += place - low
    return matrix


def resized(plane: Tensor, size: int) -> Tensor:
    return corner_weights(plane.shape[0], size) @ plane @ corner_weights(plane.shape[1], size).T


def cosine(a: Tensor, b: Tensor) -> Tensor:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (sum(x * x for x in a) ** 0.5 * sum(y * y for y in b) ** 0.5)


def clamped(value: Tensor) -> Tensor:
    return torch.clamp(value, 1e-4, 0.9999)


def clims_losses(
    images: Tensor,
    image_labels: Tensor,
    maps: Tensor,
    teacher,
    *,
    prompts: Sequence[str],
    backgrounds: Mapping[int, Sequence[str]],
    weights: Mapping[str, float],
    variant: str,
    class_weights: Mapping[int, float] | None = None,
    threshold: float = 0.26,
) -> dict[str, Tensor]:
    """All four terms of one step, `variant` "improved" or "camera_ready"; prompts are whole texts."""
    teacher = copy.deepcopy(teacher).double()
    size = teacher.image_size
    otm, btm, cbs = [], [], []
    for n in range(len(images)):
        for k in range(image_labels.shape[1]):
            if not image_labels[n, k]:
                continue
            p = resized(maps[n, k], size)
            inside, outside = [], []
            for colour in range(3):
                plane = resized(images[n, colour].double(), size)
                inside.append(plane * p)
                outside.append(plane * (1 - p))
            f_inside = teacher.encode_images(torch.stack(inside)[None])[0]
            f_outside = teacher.encode_images(torch.stack(outside)[None])[0]
            text = teacher.encode_texts([prompts[k]])[0]
            s_oo, s_bo = cosine(f_inside, text), cosine(f_outside, text)
            if variant == "improved":
                otm.append(-torch.log(clamped(s_oo)))
                btm.append(-torch.log(1 - clamped(s_bo)))
            else:
                weight = (class_weights or {}).get(k, 1.0)
                otm.append(weight * -torch.log(s_oo))
                btm.append(weight * -torch.log(1 - s_bo))
            prompt_terms = []
            for background in backgrounds.get(k, ()):
                s_ob = cosine(f_inside, teacher.encode_texts([background])[0])
                if variant == "improved":
                    if float(s_ob.detach()) > threshold:
                        prompt_terms.append(-torch.log(1 - s_ob))
                else:
                    prompt_terms.append(-torch.log(1 - s_ob) / len(backgrounds[k]))
            cbs += prompt_terms
    area = [maps[n, k, y, x] for n, k, y, x in torch.ones_like(maps).nonzero().tolist()]
    return {
        "OTM": weights["OTM"] * sum(otm) / len(otm),
        "BTM": weights["BTM"] * sum(btm) / len(btm),
        "CBS": weights["CBS"] * sum(cbs),
        "REG": weights["REG"] * sum(area) / len(area),
    }
