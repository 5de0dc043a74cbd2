"""Matching of image regions with texts: pairs, region images, cosines and what losses make of them.

A method multiplies an image with a map and asks a frozen image-text model (`models.clip.ImageTextTeacher`)
what the region shows. Everything here is pure mathematics on tensors; cosines and losses are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.checks import check_shape

LOWEST: Final = 1e-4  # published clamp of cosines before the logarithm (CLIMS, improved code)
HIGHEST: Final = 0.9999
KNEE: Final = 0.05  # where the mapping "tangent" leaves the logarithm

Mapping: TypeAlias = Literal["clamp", "raw", "shifted", "tangent"]


class Pairs(NamedTuple):
    """All (image, present class) pairs of a batch, image after image.

    Args:
        image: which image of the batch; (P,), int64.
        column: which foreground column, 0…K-1; (P,), int64.
    """

    image: Tensor
    column: Tensor

    def __len__(self) -> int:
        """P; 0 when no image of the batch has a label."""
        return len(self.image)


def positive_pairs(image_labels: Tensor) -> Pairs:
    """Find the positions of true labels (B, K), row by row; bool, or numbers that are true above 0.5.

    Example:
        >>> pairs = positive_pairs(torch.tensor([[True, False], [False, False], [True, True]]))
        >>> pairs.image.tolist(), pairs.column.tolist()
        ([0, 2, 2], [0, 0, 1])
    """
    present = image_labels if image_labels.dtype == torch.bool else image_labels > 0.5
    image, column = present.nonzero(as_tuple=True)
    return Pairs(image, column)


def of_pairs(maps: Tensor, pairs: Pairs) -> Tensor:
    """Pick the maps of the pairs: (B, K, h, w) -> (P, 1, h, w). Comes before any upsampling."""
    return maps[pairs.image, pairs.column][:, None]


def resized_with_corners(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, C, h, w) to `size`: bilinear, align_corners=True, no antialias (CLIMS, in training only)."""
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=True)


def renormalised(
    images: Tensor, of: tuple[Sequence[float], Sequence[float]], to: tuple[Sequence[float], Sequence[float]]
) -> Tensor:
    """Change normalised images (B, 3, H, W) from one (mean, std) to another: exact, affine per colour."""
    if tuple(map(tuple, of)) == tuple(map(tuple, to)):
        return images
    (mean_of, std_of), (mean_to, std_to) = (
        [images.new_tensor(list(values)).reshape(3, 1, 1) for values in statistics] for statistics in (of, to)
    )
    return images * (std_of / std_to) + (mean_of - mean_to) / std_to


def region_images(images: Tensor, maps: Tensor) -> Tensor:
    """Keep one region of each image by multiplying it with a soft map; the rest becomes the mean colour.

    Args:
        images: images of the pairs, normalised before masking, so that zero is the mean colour; (P, 3, S, S).
        maps: (P, 1, S, S), in [0, 1]; 1 - maps for the complement. Gradients flow through them.

    Returns:
        (P, 3, S, S).
    """
    check_shape("maps", maps, (images.shape[0], 1, *images.shape[2:]), "One map per image, of its size.")
    return images * maps


def full_precision(device: torch.device) -> torch.autocast:
    """A context without autocast: bfloat16 is 2e-3 coarse at the thresholds of cosines."""
    return torch.autocast(device.type, enabled=False)


def unit(features: Tensor) -> Tensor:
    """Scale features (N, E) to unit length, in float32; a zero vector stays zero."""
    return F.normalize(features.float(), dim=-1)


def attraction(similarity: Tensor, mapping: Mapping) -> Tensor:
    """Penalise low similarity: -log m(s), element by element, finite for every cosine in [-1, 1].

    The `mapping` m is one of:
        clamp: s limited to [1e-4, 0.9999]; no gradient outside (improved CLIMS).
        raw: s, kept above 1e-4 (camera-ready CLIMS, whose logarithm is NaN for negative cosines).
        shifted: (s + 1) / 2, for teachers whose cosines are often negative.
        tangent: s above 0.05, below it the logarithm goes on as its tangent, so a gradient remains.
    """
    if mapping == "tangent":
        return _log_with_tangent(similarity).neg()
    return _mapped(similarity, mapping).clamp(min=LOWEST).log().neg()


def repulsion(similarity: Tensor, mapping: Mapping) -> Tensor:
    """Penalise high similarity: -log(1 - m(s)), element by element; mappings as in `attraction`."""
    if mapping == "tangent":
        return _log_with_tangent(1 - similarity).neg()
    return (1 - _mapped(similarity, mapping)).clamp(min=LOWEST).log().neg()


def _mapped(similarity: Tensor, mapping: Mapping) -> Tensor:
    return MAPPINGS[mapping](similarity.float())


def _log_with_tangent(value: Tensor) -> Tensor:
    value = value.float()
    line = (value - KNEE) / KNEE + torch.tensor(KNEE).log().item()
    return torch.where(value > KNEE, value.clamp(min=KNEE).log(), line)


MAPPINGS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "clamp": lambda similarity: similarity.clamp(LOWEST, HIGHEST),
    "raw": lambda similarity: similarity,
    "shifted": lambda similarity: (similarity + 1) / 2,
}
