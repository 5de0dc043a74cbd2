"""The values that travel between the rooms of the library, and the label space they share.

Label space, everywhere (masks, maps, class lists, files, reports): 0 background, 1…K foreground,
255 ignore. Column c of a method's `cams` is class c + 1; that shift happens in one place only,
`ActivationMaps.from_cams`. Masks and images on disk and in a `Sample` are numpy arrays; what a network
or refiner touches is a torch tensor on the device it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.errors import ShapeError

BACKGROUND: Final = 0
IGNORE: Final = 255
MAX_FOREGROUND: Final = IGNORE - 1  # an 8-bit mask holds 0, 1…254 and 255
MAP_EPSILON: Final = 1e-5  # added to the per-class maximum before dividing (IRN, CLIMS, QA-CLIMS)


@dataclass(frozen=True)
class Paper:
    """Where a method or refiner was published.

    Args:
        venue: empty: a method of this project, in no paper; `url` is then of what it builds on.
    """

    title: str
    venue: str
    year: int
    url: str
    code: str = ""


@dataclass(frozen=True)
class ClassInfo:
    """One foreground class: its name and the texts that speak of it.

    Args:
        name: the name used in tags, class lists and reports.
        display: the name shown to people; `name` when empty.
        prompt: the noun put into a prompt template; `name` when empty.
        synonyms: other spellings accepted in tags files.
        background_texts: names of backgrounds that tend to occur with this class.
    """

    name: str
    display: str = ""
    prompt: str = ""
    synonyms: tuple[str, ...] = ()
    background_texts: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its image-level labels, and its mask where the data set has one.

    Args:
        image_id: the image's name in its data set.
        image: RGB, 0-255; (H, W, 3), uint8.
        image_labels: which foreground classes are present; (K,), bool.
        mask: true classes in the label space above; (H, W), uint8. Training of methods and refiners
            never receives it.
    """

    image_id: str
    image: np.ndarray
    image_labels: np.ndarray
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ShapeError(
                f"`image` of {self.image_id} must be (H, W, 3) uint8; "
                f"got {self.image.shape} {self.image.dtype}. Convert it to 8-bit RGB."
            )
        if self.image_labels.ndim != 1 or self.image_labels.dtype != np.bool_:
            raise ShapeError(
                f"`image_labels` of {self.image_id} must be (K,) bool; "
                f"got {self.image_labels.shape} {self.image_labels.dtype}. Pass one flag per class."
            )
        if self.mask is not None and (self.mask.shape != self.image.shape[:2] or self.mask.dtype != np.uint8):
            raise ShapeError(
                f"`mask` of {self.image_id} must be {self.image.shape[:2]} uint8 like its image; "
                f"got {self.mask.shape} {self.mask.dtype}. Check that they belong together."
            )

    def without_mask(self) -> Sample:
        """The same sample as training may see it."""
        return replace(self, mask=None)

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        present = (np.flatnonzero(self.image_labels) + 1).tolist()
        return (
            f"Sample({self.image_id!r}, {height} x {width} pixels, classes {present} of "
            f"{len(self.image_labels)}, {'no mask' if self.mask is None else 'with mask'})"
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """What one training step sees.

    Args:
        images: normalised pixels; (B, 3, H, W).
        image_labels: (B, K), bool.
        image_ids: B names.
        valid: false where the crop padded; (B, H, W), bool.
        aligned: named per-pixel inputs that shared the image's resize, flip and crop
            (for example `target`, (B, H, W) uint8, in segmentation training; `saliency`).
    """

    images: Tensor
    image_labels: Tensor
    image_ids: tuple[str, ...]
    valid: Tensor
    aligned: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        return Batch(
            images=self.images.to(device, non_blocking=True),
            image_labels=self.image_labels.to(device, non_blocking=True),
            image_ids=self.image_ids,
            valid=self.valid.to(device, non_blocking=True),
            aligned={name: value.to(device, non_blocking=True) for name, value in self.aligned.items()},
        )

    def __repr__(self) -> str:
        height, width = self.images.shape[-2:]
        also = "".join(f", {name}" for name in self.aligned)
        return (
            f"Batch({len(self.images)} images of {height} x {width} pixels, {self.image_labels.shape[-1]} "
            f"classes{also}, {self.images.device})"
        )


@dataclass(frozen=True, eq=False)
class ActivationMaps:
    """Normalised scores of the classes present in one image: the currency of the middle of the pipeline.

    Args:
        class_ids: ascending values in 1…K; (M,), int64. M may be 0.
        scores: (M, H, W), float32 in [0, 1].
        background: score of class 0; (H, W), float32 in [0, 1]; None while unknown.
    """

    class_ids: Tensor
    scores: Tensor
    background: Tensor | None = None

    def __post_init__(self) -> None:
        ids, scores = self.class_ids, self.scores
        if ids.ndim != 1 or scores.ndim != 3 or len(ids) != len(scores):
            raise ShapeError(
                f"`scores` must be (M, H, W) with one row per class id; got {tuple(scores.shape)} for "
                f"{tuple(ids.shape)} class ids. Keep only the rows of classes present in the image."
            )
        if len(ids) and (
            int(ids.min()) < 1 or int(ids.max()) > MAX_FOREGROUND or bool((ids[1:] <= ids[:-1]).any())
        ):
            raise ShapeError(
                f"`class_ids` must ascend within 1…{MAX_FOREGROUND}; got {ids.tolist()}. "
                "0 is background and 255 is ignore; neither has a row."
            )
        for name, value in (("scores", scores), ("background", self.background)):
            if value is None or value.numel() == 0:
                continue
            low, high = (float(limit) for limit in torch.aminmax(value))
            if not (low >= 0.0 and high <= 1.0):  # also false for NaN
                raise ShapeError(
                    f"`{name}` must lie in [0, 1]; got {low:.4g} to {high:.4g}. "
                    "Make maps with `ActivationMaps.from_cams`, which normalises them."
                )
        if self.background is not None and self.background.shape != scores.shape[1:]:
            raise ShapeError(
                f"`background` must be {tuple(scores.shape[1:])} like the scores; "
                f"got {tuple(self.background.shape)}. Resize both together with `resized`."
            )

    @classmethod
    def from_cams(cls, cams: Tensor, image_labels: Tensor) -> ActivationMaps:
        """Keep the present classes of `cams` and divide each by its own maximum + 1e-5.

        Args:
            cams: non-negative activations of all foreground classes; (K, H, W).
            image_labels: classes present; (K,), bool.
        """
        if cams.ndim != 3 or image_labels.shape != cams.shape[:1]:
            raise ShapeError(
                f"`cams` must be (K, H, W) with K image labels; got {tuple(cams.shape)} and "
                f"{tuple(image_labels.shape)}. Pass the maps of one image."
            )
        present = image_labels.nonzero().flatten().to(cams.device)
        return cls.from_present_cams(cams[present].float(), present + 1)

    @classmethod
    def from_present_cams(cls, cams: Tensor, class_ids: Tensor) -> ActivationMaps:
        """Normalise `cams` (M, H, W) that were already restricted to the present `class_ids` (M,)."""
        peaks = cams.flatten(1).amax(dim=1) if cams.numel() else cams.new_zeros(len(cams))
        return cls(class_ids, cams / (peaks + MAP_EPSILON)[:, None, None])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.scores.shape[1]), int(self.scores.shape[2])

    def resized(self, height: int, width: int) -> ActivationMaps:
        """Resize scores and background bilinearly (align_corners=False)."""

        def resize(planes: Tensor) -> Tensor:
            if planes.shape[0] == 0:
                return planes.new_zeros((0, height, width))
            resized = F.interpolate(planes[None], size=(height, width), mode="bilinear", align_corners=False)
            return resized[0].clamp(0, 1)

        background = None if self.background is None else resize(self.background[None])[0]
        return ActivationMaps(self.class_ids, resize(self.scores), background)

    def enlarged(self, stride: int, height: int, width: int) -> ActivationMaps:
        """Maps of the image's size from a grid of one cell per `stride` pixels: enlarge, then crop.

        Not the same as `resized` where the image's sides are no multiples of the stride (IRN, PSA).
        """

        def enlarge(planes: Tensor) -> Tensor:
            if planes.shape[0] == 0:
                return planes.new_zeros((0, height, width))
            size = (planes.shape[1] * stride, planes.shape[2] * stride)
            whole = F.interpolate(planes[None], size=size, mode="bilinear", align_corners=False)
            return whole[0, :, :height, :width].clamp(0, 1)

        if self.size[0] * stride < height or self.size[1] * stride < width:
            raise ShapeError(
                f"A grid of {self.size[0]} x {self.size[1]} cells of {stride} pixels does not cover an image "
                f"of {height} x {width}. Use `resized`."
            )
        background = None if self.background is None else enlarge(self.background[None])[0]
        return ActivationMaps(self.class_ids, enlarge(self.scores), background)

    def reduced(self, stride: int) -> ActivationMaps:
        """Maps on a grid of one cell per `stride` pixels: means of blocks; the last repeat the border.

        The way back from `enlarged`; cells lie where a network's of that stride do.
        """

        def reduce(planes: Tensor) -> Tensor:
            height, width = (-(-side // stride) for side in planes.shape[1:])
            if planes.shape[0] == 0:
                return planes.new_zeros((0, height, width))
            missing = (0, -planes.shape[2] % stride, 0, -planes.shape[1] % stride)
            return F.avg_pool2d(F.pad(planes[None], missing, mode="replicate"), stride)[0].clamp(0, 1)

        background = None if self.background is None else reduce(self.background[None])[0]
        return ActivationMaps(self.class_ids, reduce(self.scores), background)

    def with_background(self, score: float) -> ActivationMaps:
        """Set a constant background score (IRN, CLIMS, EPS)."""
        if not 0.0 <= score <= 1.0:
            raise ShapeError(
                f"`score` must lie in [0, 1]; got {score}. Background scores compete with maps in [0, 1]."
            )
        return replace(self, background=self.scores.new_full(self.scores.shape[1:], score))

    def with_background_power(self, power: float) -> ActivationMaps:
        """Set the background to (1 - max score)^power (PSA); 1 everywhere when no class is present."""
        if power <= 0:
            raise ShapeError(f"`power` must be positive; got {power}.")
        top = self.scores.amax(dim=0) if len(self.scores) else self.scores.new_zeros(self.scores.shape[1:])
        return replace(self, background=(1 - top).clamp(0, 1) ** power)

    def to_mask(self, background_score: float | None = None) -> Tensor:
        """The highest-scoring class of each pixel; ties go to the background, then to the lower class.

        Args:
            background_score: constant score of class 0; needed when `background` is None, an error otherwise.

        Returns:
            (H, W), uint8, values 0…K.

        Raises:
            ShapeError: no background score is known, or two are.
        """
        if (self.background is None) == (background_score is None):
            state = "unknown" if self.background is None else "already part of the maps"
            raise ShapeError(
                f"`to_mask` needs exactly one background score; the maps' own is {state}, "
                f"and `background_score` is {background_score}. Pass it for raw maps only."
            )
        maps = self if background_score is None else self.with_background(background_score)
        ids = torch.cat([self.class_ids.new_zeros(1), self.class_ids])
        return ids[maps.to_positions()].to(torch.uint8)

    def to_positions(self) -> Tensor:
        """Like `to_mask`, but positions in the list of background and present classes; (H, W), int64, 0…M."""
        if self.background is None:
            raise ShapeError("`to_positions` needs maps with a background. Set one with `with_background`.")
        winner = torch.cat([self.background[None], self.scores]).argmax(dim=0)
        # torch.argmax does not promise the first of equal values
        top = self.scores.amax(dim=0) if len(self.scores) else torch.zeros_like(self.background)
        return torch.where(self.background >= top, torch.zeros_like(winner), winner)

    def to(self, device: torch.device | str) -> ActivationMaps:
        """The same maps on `device`."""
        background = None if self.background is None else self.background.to(device)
        return ActivationMaps(self.class_ids.to(device), self.scores.to(device), background)

    def __repr__(self) -> str:
        height, width = self.size
        background = "unknown" if self.background is None else _span(self.background)
        return (
            f"ActivationMaps(classes {self.class_ids.tolist()}, {height} x {width}, "
            f"scores {_span(self.scores)}, background {background}, {self.scores.device})"
        )


def _span(values: Tensor) -> str:
    """Smallest and largest value, for people."""
    if not values.numel():
        return "none"
    low, high = (f"{float(limit):.2f}" for limit in torch.aminmax(values))
    return low if low == high else f"{low} to {high}"
