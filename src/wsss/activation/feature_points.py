"""Features at single points beside the weight vectors of the classes (CLIMS, figure 6).

Shows whether a trained network's features cluster by class: points of an object should look like the weights
of its class, points of the surroundings like those of none. True masks say only which points are which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.data.dataset import Dataset
from wsss.errors import DataError, StageError
from wsss.methods.base import Method
from wsss.types import BACKGROUND, Sample

POINTS: Final = 10  # of the object, and as many of the background (CLIMS, figure 6)


@dataclass(frozen=True)
class PointCosines:
    """One image's points and what their features look like.

    Args:
        image_id: the image.
        class_id: 1…K, the class of the object's points.
        points: (row, column) in pixels: first those of the background, then as many of the object.
        cosines: cosine of each class's weights with the feature at each point, (K, P), float32 in [0, 1].
    """

    image_id: str
    class_id: int
    points: tuple[tuple[int, int], ...]
    cosines: Tensor

    @property
    def of_object(self) -> float:
        """Mean cosine of the object's points with the weights of their class."""
        return float(self.cosines[self.class_id - 1, len(self.points) // 2 :].mean())

    @property
    def of_other_classes(self) -> float:
        """Mean cosine of the object's points with the weights of the other classes; 0 without others."""
        others = [k for k in range(len(self.cosines)) if k != self.class_id - 1]
        return float(self.cosines[others, len(self.points) // 2 :].mean()) if others else 0.0

    @property
    def of_background(self) -> float:
        """Mean cosine of the background's points with the weights of the object's class."""
        return float(self.cosines[self.class_id - 1, : len(self.points) // 2].mean())


def point_cosines(
    method: Method, sample: Sample, class_id: int, *, count: int = POINTS, seed: int = 0
) -> PointCosines:
    r"""Compare features at random points of one image with each class's weight vector.

    $$ c_{k,u} = \min(1, \max(0, \cos(w_k, z(u)))) $$

    with the weight vector w_k of class k in the last 1 x 1 layer and the feature z(u) of the cell that holds
    point u, at the image's own size.

    Args:
        method: trained; put into evaluation mode.
        sample: an image with its true mask.
        class_id: 1…K, the object's class.
        count: points of the object, and of the background.
        seed: of the draw.

    Raises:
        DataError: the image has no mask, or too few pixels of one of both kinds.
        StageError: the method has no `backbone` and `classifier` to compare.

    Source:
        Xie et al., CVPR 2022, figure 6 and the paragraph on feature representations.
        Differs: points are drawn at random from all background pixels, where the authors chose them by hand
        from the railway; "truncated and normalised" is read as clipped to [0, 1].
    """
    if sample.mask is None:
        raise DataError(f"{sample.image_id} has no true mask, so its points have no class. Take another.")
    rng = np.random.default_rng(seed)
    points = (
        *_drawn(sample, BACKGROUND, count, rng),
        *_drawn(sample, class_id, count, rng),
    )
    features, weights = features_and_weights(method, sample.image)
    cosines = class_cosines(features, weights, points, sample.mask.shape)
    return PointCosines(sample.image_id, class_id, points, cosines.cpu())


def features_and_weights(method: Method, image: npt.NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Features (D, h, w) of an image (H, W, 3) and the weight vectors (K, D) of the foreground classes.

    Raises:
        StageError: the method keeps them under other names than `backbone`, `head` and `classifier`.
    """
    backbone, classifier = getattr(method, "backbone", None), getattr(method, "classifier", None)
    if not (isinstance(backbone, nn.Module) and isinstance(classifier, nn.Conv2d)):
        raise StageError(
            f"Features are compared with the weights of a method's `classifier`, a convolution behind its "
            f"`backbone`; {type(method).__name__} has none. Take cam, clims, qa_clims or smvwe."
        )
    method.eval()
    device = classifier.weight.device
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (method.mean, method.std))
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1).float() / 255
    with torch.inference_mode():
        features = getattr(method, "head", nn.Identity())(backbone(((pixels - mean) / std)[None]))[0]
    names = method.num_foreground
    # the background's own channel stands last in SMVWE and first in the bottleneck head of CLIMS
    first = len(classifier.weight) - names if hasattr(method, "head") else 0
    return features, classifier.weight.detach()[first : first + names, :, 0, 0]  # (D, h, w), (K, D)


def class_cosines(
    features: Tensor, weights: Tensor, points: Sequence[tuple[int, int]], size: tuple[int, ...]
) -> Tensor:
    """Cosines of class weights with features at points, clipped to [0, 1].

    Args:
        features: (D, h, w).
        weights: one vector per class; (K, D).
        points: P of (row, column), in pixels of the image.
        size: (height, width) of the image.

    Returns:
        (K, P), float32 in [0, 1].
    """
    (height, width), (rows, columns) = size, features.shape[1:]
    at = [(row * rows // height, column * columns // width) for row, column in points]
    seen = torch.stack([features[:, row, column] for row, column in at]).float()  # (P, D)
    return (F.normalize(weights.float(), dim=1) @ F.normalize(seen, dim=1).T).clamp(0, 1)


def first_with(dataset: Dataset, split: str, class_id: int, count: int = POINTS) -> str | None:
    """The first image of a split that shows this class alone, in enough pixels; None where there is none.

    Args:
        dataset: with true masks.
        split: of its images.
        class_id: 1…K.
        count: pixels that class and background must have at least.
    """
    for image_id in dataset.ids(split):
        labels = dataset.image_labels(image_id)
        if labels[class_id - 1] and labels.sum() == 1:
            mask = dataset.sample(image_id, with_mask=True).mask
            if mask is not None and min((mask == kind).sum() for kind in (class_id, BACKGROUND)) >= count:
                return image_id
    return None


def _drawn(
    sample: Sample, class_id: int, count: int, rng: np.random.Generator
) -> tuple[tuple[int, int], ...]:
    """`count` different pixels of one class, in the order of the draw."""
    assert sample.mask is not None
    places = np.argwhere(sample.mask == class_id)
    if len(places) < count:
        raise DataError(
            f"{count} points of class {class_id} are wanted in {sample.image_id}; got {len(places)} pixels. "
            "Take an image with a larger object."
        )
    chosen = places[rng.choice(len(places), count, replace=False)]
    return tuple((int(row), int(column)) for row, column in chosen)
