r"""How well saliency maps show what stands out: mean absolute error and F-measure.

Counts are added up over all images before precision and recall are taken, so a picture counts by its pixels
and one without any thing needs no convention of its own:

$$ F_\beta(t) = \frac{(1 + \beta^2) P_t R_t}{\beta^2 P_t + R_t}, \qquad \beta^2 = 0.3, $$

with P_t and R_t the precision and recall of all pixels whose saliency is over t. Maps are read as they lie in
8-bit files: a pixel's level is its saliency times 255, rounded, and the thresholds are 0/255, 1/255, …,
254/255.

Source: Achanta et al., *Frequency-tuned Salient Region Detection*, CVPR 2009 (F-measure, beta^2 = 0.3).
Differs: others take P and R of each image and average these; both are nearly equal where things are of about
one size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from wsss.errors import ShapeError

BETA_SQUARED: Final = 0.3
LEVELS: Final = 256
HALF: Final = 127  # number of the threshold 127/255: a level over it is a saliency of 0.5 or more


@dataclass(frozen=True)
class SaliencyScores:
    """Scores of a set of maps, each in [0, 1]; the F-measures are NaN where nothing stands out anywhere.

    Args:
        mean_absolute_error: of saliency against 0 and 1, over all pixels.
        best_f: highest F-measure of the 255 thresholds.
        best_threshold: the lowest threshold that reaches it.
        half_f: F-measure of what has a saliency of 0.5 or more.
    """

    mean_absolute_error: float
    best_f: float
    best_threshold: float
    half_f: float


class SaliencyCounts:
    """Adds up pixels of images by level and truth."""

    def __init__(self) -> None:
        self._levels = np.zeros((2, LEVELS), dtype=np.int64)  # by truth and level
        self._error = 0.0

    def add(self, saliency: np.ndarray, covered: np.ndarray, *, counted: np.ndarray | None = None) -> None:
        """Add one image.

        Args:
            saliency: (H, W), float in [0, 1].
            covered: what truly stands out; (H, W), bool.
            counted: pixels that count; (H, W), bool; None: all.

        Raises:
            ShapeError: sizes differ, or saliency leaves [0, 1].
        """
        if saliency.shape != covered.shape or saliency.ndim != 2:
            raise ShapeError(
                f"`saliency` and `covered` must be (H, W) of one size; got {saliency.shape} and "
                f"{covered.shape}. Resize the map to its image."
            )
        if saliency.size and not (saliency.min() >= 0 and saliency.max() <= 1):
            raise ShapeError(
                f"`saliency` must lie in [0, 1]; got {saliency.min():g} to {saliency.max():g}. "
                "Divide 8-bit values by 255."
            )
        kept = np.ones(saliency.shape, bool) if counted is None else counted
        values, truth = saliency[kept].astype(np.float64), covered[kept].astype(bool)
        cells = np.floor(values * (LEVELS - 1) + 0.5).astype(np.int64) + LEVELS * truth
        self._levels += np.bincount(cells, minlength=2 * LEVELS).reshape(2, LEVELS)
        self._error += float(np.abs(values - truth).sum())

    def scores(self) -> SaliencyScores:
        """Scores of all images added so far; NaN before the first."""
        total = int(self._levels.sum())
        over = self._levels[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]  # level > threshold; (2, 255)
        things = int(self._levels[1].sum())
        if total == 0 or things == 0:
            error = self._error / total if total else float("nan")
            return SaliencyScores(error, float("nan"), float("nan"), float("nan"))
        f = f_measure(over[1], over.sum(axis=0), things)
        best = int(f.argmax())
        return SaliencyScores(self._error / total, float(f[best]), best / (LEVELS - 1), float(f[HALF]))


def f_measure(hits: np.ndarray, found: np.ndarray, things: int) -> np.ndarray:
    """The F-measure with beta^2 = 0.3; 0 where nothing right was found.

    Args:
        hits: pixels found and right; (T,).
        found: all pixels found; (T,).
        things: pixels that were to be found, at least one.

    Example:
        >>> f_measure(np.array([30, 0]), np.array([40, 0]), 60).round(4).tolist()
        [0.6724, 0.0]
    """
    # (1 + b) P R / (b P + R) with P = hits / found and R = hits / things, free of divisions by zero
    scores: np.ndarray = ((1 + BETA_SQUARED) * hits / (BETA_SQUARED * things + found)).clip(0.0, 1.0)
    return scores
