"""Random region masks: what an image-text model must have seen to judge the regions that a method shows it.

CLIMS and its kin multiply an image with a soft map, in normalised space, so that what is removed becomes the
mean colour. A model trained on whole images only has never met such inputs.
"""

from __future__ import annotations

from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["full", "soft", "blob", "box"]
KINDS: Final[tuple[Kind, ...]] = ("full", "soft", "blob", "box")
_FINEST: Final = 8  # cells of the finest noise along a side


def random_region_masks(
    count: int,
    size: int,
    *,
    shares: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.1),
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw masks that show parts of images.

    Args:
        count: N.
        size: S, pixels.
        shares: how often each kind is drawn, relative to the others:
            full (everything shown), soft (smooth noise through a sigmoid, never quite 0 or 1),
            blob (smooth noise cut at a random level: irregular regions), box (a soft-edged rectangle).
        device: where the masks are made.
        generator: source of randomness; None: torch's global one.

    Returns:
        (N, 1, S, S), in [0, 1]; 1 shows the pixel.
    """
    weights = torch.tensor(shares, dtype=torch.float32, device=device)
    kinds = torch.multinomial(weights, count, replacement=True, generator=generator)
    noise = smooth_noise(count, size, device=device, generator=generator)
    area = 0.15 + 0.7 * torch.rand(count, 1, 1, 1, device=device, generator=generator)
    level = _quantile(noise, 1 - area)
    slope = 1 + 3 * torch.rand(count, 1, 1, 1, device=device, generator=generator)
    soft = torch.sigmoid(slope * (noise - level))
    blob = (noise > level).float()
    box = _boxes(count, size, area, device=device, generator=generator)
    stacked = torch.stack([torch.ones_like(soft), soft, blob, box])  # (kinds, N, 1, S, S)
    return stacked[kinds, torch.arange(count, device=device)]


def smooth_noise(
    count: int, size: int, *, device: torch.device | str = "cpu", generator: torch.Generator | None = None
) -> Tensor:
    """Smooth random fields (N, 1, S, S) of mean 0 and standard deviation 1: two octaves of resized noise."""
    fields = torch.zeros(count, 1, size, size, device=device)
    for cells, weight in ((4, 1.0), (_FINEST, 0.5)):
        coarse = torch.randn(count, 1, cells, cells, device=device, generator=generator)
        fields += weight * F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    return (fields - fields.mean(dim=(2, 3), keepdim=True)) / fields.std(dim=(2, 3), keepdim=True)


def _quantile(fields: Tensor, share: Tensor) -> Tensor:
    """The level below which each field (N, 1, S, S) lies on the given share (N, 1, 1, 1) of its pixels."""
    ordered = fields.flatten(1).sort(dim=1).values
    place = (share.flatten() * (ordered.shape[1] - 1)).long()
    return ordered.gather(1, place[:, None])[:, :, None, None]


def _boxes(
    count: int, size: int, area: Tensor, *, device: torch.device | str, generator: torch.Generator | None
) -> Tensor:
    """Rectangles of about the given share of the image, sides 1:2 to 2:1, with edges of a few pixels."""
    ratio = torch.exp2(2 * torch.rand(count, 1, 1, 1, device=device, generator=generator) - 1)
    height, width = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    places = (torch.arange(size, device=device) + 0.5) / size
    edge = 2.0 / size

    def interval(length: Tensor, along: Tensor) -> Tensor:
        start = torch.rand(count, 1, 1, 1, device=device, generator=generator) * (1 - length)
        return torch.sigmoid((along - start) / edge) * torch.sigmoid((start + length - along) / edge)

    return interval(height, places[:, None]) * interval(width, places[None, :])
