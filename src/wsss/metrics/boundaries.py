"""How well the edges of masks lie: boundary recall, precision and F1 within a tolerance.

The edge of a mask is where a class ends: per foreground class, the pixels at which the 4-neighbour Laplacian
of its binary mask is not 0. The Laplacian answers on both sides of an edge; the inner side is kept, pixels of
the class itself, so an edge is 1 pixel thick and no pixel of the background is one. Where two foreground
classes touch, each has its own edge. The image's border is no edge.

Recall is the share of true edge pixels that have a predicted one within r, precision the share of predicted
edge pixels that have a true one within r, whichever class they belong to. Pixels are summed over the data set
before any ratio is taken. r is given as a share of the image's diagonal.

Source:
    SMVWE (table 2) scores boundaries of pseudo masks so, and names a Laplacian edge detector but neither a
    tolerance nor the matching. 0.0075 of the diagonal is the tolerance of BSDS (Martin et al., TPAMI 2004),
    and of STEAL (Acuna et al., CVPR 2019), 0.02 that of the SBD benchmark (Hariharan et al., ICCV 2011).
    Differs: these benchmarks assign edge pixels one to one and draw curves over a threshold; masks have no
    threshold, and here the nearest edge counts, however many pixels share it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree
from typing_extensions import Self

from wsss.errors import ShapeError
from wsss.metrics.confusion import Counts, ratio
from wsss.types import BACKGROUND, IGNORE

TOLERANCES: Final = (0.0, 0.0075, 0.02)
"""Largest distance between matching edge pixels, as shares of the image's diagonal."""

MEASURES: Final = ("recall", "precision", "f1")

Edges = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class TrueEdges:
    """The true edges of one image, with what scoring several masks against them shares.

    Args:
        size: of the image, (height, width).
        pixels: row and column of each true edge pixel; (N, 2), int64.
        tree: the same, for finding the nearest of them.
        ignored: pixels that no mask has edges in or against; (H, W), bool; None: there are none.
    """

    size: tuple[int, ...]
    pixels: Counts
    tree: KDTree
    ignored: Edges | None

    @classmethod
    def of_mask(cls, mask: npt.NDArray[np.integer]) -> Self:
        """The edges of a true mask; (H, W), 0…K or 255 (ignored)."""
        pixels = np.argwhere(mask_edges(mask))
        return cls(mask.shape, pixels, KDTree(pixels), mask == IGNORE)

    @classmethod
    def of_boundaries(cls, boundaries: Edges) -> Self:
        """Edges that are known otherwise; (H, W), bool. Nothing is ignored."""
        pixels = np.argwhere(boundaries)
        return cls(boundaries.shape, pixels, KDTree(pixels), None)


class Boundaries:
    """Counts of edge pixels with and without a counterpart, at each of `TOLERANCES`.

    Example:
        >>> mask = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
        >>> counts = Boundaries()
        >>> counts.add(TrueEdges.of_mask(mask), np.roll(mask, 1, axis=1))
        >>> counts.summary()["0"]
        {'recall': 0.5, 'precision': 0.5, 'f1': 0.5}
    """

    def __init__(self) -> None:
        self.images = self.true_edges = self.predicted_edges = 0
        self.found: Counts = np.zeros(
            len(TOLERANCES), dtype=np.int64
        )  # true edge pixels with a predicted one
        self.right: Counts = np.zeros(len(TOLERANCES), dtype=np.int64)  # predicted ones with a true one

    def add(self, truth: TrueEdges | None, predicted_mask: npt.NDArray[np.integer]) -> None:
        """Count one image.

        A pixel that the truth ignores is ignored in the prediction too before its edges are taken, so a mask
        that is right wherever the truth is known has exactly the true edges.

        Args:
            truth: its true edges; None: they are not known, and the image does not count.
            predicted_mask: predicted classes, 0…K; (H, W), integer.

        Raises:
            ShapeError: the sizes differ.
        """
        if truth is None:
            return
        if predicted_mask.shape != truth.size:
            raise ShapeError(
                f"`predicted_mask` must have the size of the true edges, {truth.size}; got "
                f"{predicted_mask.shape}. Predict at the image's own size."
            )
        if truth.ignored is not None:
            predicted_mask = np.where(truth.ignored, IGNORE, predicted_mask)
        pixels = np.argwhere(mask_edges(predicted_mask))  # (M, 2)
        radii = np.array(TOLERANCES)[:, None] * math.hypot(*truth.size)
        # a tree of edge pixels alone is several times as fast as a distance transform of the image
        farthest = float(radii.max()) + 1
        to_predicted, _ = KDTree(pixels).query(truth.pixels, distance_upper_bound=farthest)  # (N,)
        to_true, _ = truth.tree.query(pixels, distance_upper_bound=farthest)  # (M,), infinite if farther
        self.found += (to_predicted <= radii).sum(axis=1)
        self.right += (to_true <= radii).sum(axis=1)
        self.images += 1
        self.true_edges += len(truth.pixels)
        self.predicted_edges += len(pixels)

    def __add__(self, other: Boundaries) -> Boundaries:
        """Both data sets together."""
        both = Boundaries()
        for part in (self, other):
            both.images += part.images
            both.true_edges += part.true_edges
            both.predicted_edges += part.predicted_edges
            both.found += part.found
            both.right += part.right
        return both

    def summary(self) -> dict[str, dict[str, float | None]]:
        """`{tolerance: {recall, precision, f1}}`, each in [0, 1].

        None where there is nothing to divide by: no true edge, or no predicted one. F1 needs both, and is 0
        where both are there and nothing matches.
        """
        recall, precision = ratio(self.found, self.true_edges), ratio(self.right, self.predicted_edges)
        total = recall + precision
        f1 = np.where(total == 0, 0.0, ratio(2 * recall * precision, total))
        columns = np.stack([recall, precision, f1], axis=1)  # (tolerances, measures)
        return {
            f"{tolerance:g}": {
                name: None if np.isnan(value) else float(value)
                for name, value in zip(MEASURES, row, strict=True)
            }
            for tolerance, row in zip(TOLERANCES, columns, strict=True)
        }


def mask_edges(mask: npt.NDArray[np.integer]) -> Edges:
    """Pixels of a foreground class that have one of their four neighbours outside it.

    Ignored neighbours and those beyond the image's border count as inside; ignored pixels are no edges.

    Args:
        mask: classes 0…K or 255; (H, W), integer.

    Returns:
        (H, W), bool.

    Example:
        >>> mask_edges(np.array([[0, 1, 1, 1], [0, 255, 1, 2]])).astype(int).tolist()
        [[0, 1, 0, 1], [0, 0, 1, 1]]
    """
    edges = np.zeros(mask.shape, dtype=np.bool_)
    known = mask != IGNORE
    for before, after in (
        (np.s_[:-1], np.s_[1:]),  # the row below
        (np.s_[:, :-1], np.s_[:, 1:]),  # the column to the right
    ):
        differs = (mask[before] != mask[after]) & known[before] & known[after]
        edges[before] |= differs
        edges[after] |= differs
    inner: Edges = edges & known & (mask != BACKGROUND)
    return inner
