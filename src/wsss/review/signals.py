r"""Signs that a pseudo mask is wrong, each from the mask, its maps and the photograph alone.

Every signal is larger where there is more reason to look. None needs a true mask, a weight or a threshold
that was fitted: what counts is the order of the images (see `ranking`).

| signal        | what it measures, per image                                                          |
|---------------|--------------------------------------------------------------------------------------|
| `missing`     | -(least share of the image among its tags): a tag that is not found gives 0          |
| `size`        | distance of log(share of foreground) from the median image: nearly nothing, or all   |
| `mixed`       | mean second-best score inside the foreground: two tags claim the same pixels          |
| `colour`      | -(share of the image's colour variance that foreground and background explain)        |
| `outline`     | -(mean step of brightness along the outline, over that of the whole image)           |
| `scales`      | 1 - mean IoU with the masks that the maps of each image scale give on their own      |
| `refinement`  | 1 - mean IoU with the mask that the maps give before any refiner                     |
| `methods`     | 1 - mean IoU with the masks of other runs                                            |

The last three need more than one opinion and are left out where there is none. Maps keep each scale summed
with its mirror image (docs/file-formats.md), so mirror images are no opinion of their own. How far a mask
falls into pieces, and how small the lead of the best score is, were tried and dropped (docs/review.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from wsss.activation.store import sum_full_size
from wsss.types import BACKGROUND, IGNORE, ActivationMaps

Mask = npt.NDArray[np.uint8]
"""(H, W), label space of the library."""

SIGNALS: Final = (
    *("missing", "size", "mixed", "colour", "outline"),
    *("scales", "refinement", "methods"),
)
SIZE_FLOOR: Final = 0.005  # share of an image below which sizes are all called nothing
EDGE_STD: Final = 1.0  # of the Gaussian behind steps of brightness, in pixels


def mask_signals(mask: Mask, tags: Sequence[int], image: npt.NDArray[np.uint8]) -> dict[str, float]:
    """`missing`, `colour`, `outline`, and `foreground` from which `size` follows.

    Args:
        mask: the pseudo mask.
        tags: classes that the image is tagged with, at least one.
        image: RGB; (H, W, 3), uint8.
    """
    inside = foreground(mask)
    return {
        "missing": -min(class_share(mask, tag) for tag in tags),
        "foreground": float(inside.mean()),
        "colour": -explained_variance(image, inside),
        "outline": -outline_strength(image, mask),
    }


def mixed_tags(mask: Mask, maps: ActivationMaps) -> float:
    """`mixed`: mean score of the second-best tag inside the foreground; 0 for one tag, or no foreground.

    Args:
        mask: the pseudo mask.
        maps: full-size maps that it was made from.
    """
    inside = torch.from_numpy(foreground(mask))
    if len(maps.scores) < 2 or not bool(inside.any()):
        return 0.0
    return float(maps.scores[:, inside].topk(2, dim=0).values[1].mean())


def disagreement(mask: Mask, others: Sequence[Mask], tags: Sequence[int]) -> float | None:
    """1 - IoU with other masks of the same image, averaged over them; None where there are none.

    Args:
        mask: the pseudo mask.
        others: of the same size.
        tags: classes that the image is tagged with; background counts as well.
    """
    return 1.0 - float(np.mean([agreement(mask, other, tags) for other in others])) if others else None


def agreement(first: Mask, second: Mask, tags: Sequence[int]) -> float:
    """IoU of two masks, averaged over background and tags that either shows; pixels of 255 never agree."""
    found = []
    for label in (BACKGROUND, *tags):
        one, other = first == label, second == label
        union = np.count_nonzero(one | other)
        if union:
            found.append(np.count_nonzero(one & other) / union)
    return float(np.mean(found)) if found else 0.0


def scale_masks(
    per_scale: Sequence[Tensor], class_ids: Tensor, size: tuple[int, int], background_score: float
) -> list[Mask]:
    """The mask that each image scale's maps give on their own.

    Args:
        per_scale: cams of the present classes at each scale, not normalised; each (M, h_s, w_s).
        class_ids: the M classes.
        size: (height, width) of the image.
        background_score: constant score of class 0.
    """
    masks = []
    for cams in per_scale if len(class_ids) else ():
        maps = ActivationMaps.from_present_cams(sum_full_size([cams], size), class_ids)
        masks.append(maps.to_mask(background_score).numpy())
    return masks


def unusual_sizes(shares: Mapping[str, float]) -> dict[str, float]:
    """`size` of every image from its share of foreground: the distance of its logarithm from the median's."""
    logs = np.log(np.array(list(shares.values()), dtype=np.float64) + SIZE_FLOOR)
    return dict(zip(shares, np.abs(logs - np.median(logs)).tolist(), strict=True)) if len(logs) else {}


def foreground(mask: Mask) -> npt.NDArray[np.bool_]:
    """Pixels of any class; unsure ones (255) are none."""
    inside: npt.NDArray[np.bool_] = (mask != BACKGROUND) & (mask != IGNORE)
    return inside


def class_share(mask: Mask, label: int) -> float:
    """Share of the image that a class takes, in [0, 1]."""
    return float((mask == label).mean())


def explained_variance(image: npt.NDArray[np.uint8], inside: npt.NDArray[np.bool_]) -> float:
    """Share of the colour variance that lies between two sides, in [0, 1]; 0 where one of them is empty."""
    colours = image.reshape(-1, 3).astype(np.float64)
    colours -= colours.mean(axis=0)
    variance, one = float((colours**2).sum()), inside.ravel()
    count, total = int(one.sum()), one.size
    if variance == 0 or count in (0, total):
        return 0.0
    # the colours sum to zero, so both sides' sums have the same length
    between = float((colours[one].sum(axis=0) ** 2).sum()) * total / (count * (total - count))
    return min(1.0, between / variance)


def outline_strength(image: npt.NDArray[np.uint8], mask: Mask) -> float:
    """Mean step of brightness where labels change, over that of the whole image; 0 without an outline.

    Args:
        image: RGB; (H, W, 3), uint8.
        mask: each pixel counts that has another label than the one above it or to its left.
    """
    changes = np.zeros(mask.shape, dtype=bool)
    changes[1:] |= mask[1:] != mask[:-1]
    changes[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    steps = ndimage.gaussian_gradient_magnitude(image.mean(axis=2), EDGE_STD)  # (H, W)
    usual = float(steps.mean())
    return float(steps[changes].mean()) / usual if changes.any() and usual > 0 else 0.0
