"""Writes `golden_marginals.npz`: two generated textured images, unaries, and the oracle's marginals.

python -m tests.crf.write_golden
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from tests.crf.oracle_crf import oracle_marginals

PARAMETERS = {"coarse": ((3.0, 3.0), (10.0, 50.0, 5.0)), "fine": ((3.0, 1.0), (4.0, 67.0, 3.0))}
LABELS = (2, 4, 21)
SIZES = {"coarse": (28, 40), "fine": (31, 33)}
FILE = Path(__file__).parent / "golden_marginals.npz"


def textured(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A few flat regions with texture on each; (H, W, 3), uint8."""
    regions = gaussian_filter(rng.normal(size=size), 6)
    regions = np.digitize(regions, np.quantile(regions, [0.3, 0.6, 0.8]))
    colours = rng.integers(30, 226, (4, 3))
    grain = gaussian_filter(rng.normal(size=(*size, 3)), (0.8, 0.8, 0)) * 18
    return np.clip(colours[regions] + grain, 0, 255).astype(np.uint8)


def probabilities(size: tuple[int, int], labels: int, rng: np.random.Generator) -> np.ndarray:
    """Blurred, noisy probabilities; (C, H, W), float32."""
    logits = gaussian_filter(rng.normal(size=(labels, *size)), (0, 3, 3)) * 12 + rng.normal(
        size=(labels, *size)
    )
    exponentials = np.exp(logits - logits.max(axis=0))
    return (exponentials / exponentials.sum(axis=0)).clip(1e-5, 1).astype(np.float32)


def main() -> None:
    rng = np.random.default_rng(11)
    arrays = {}
    for name, (smoothness, appearance) in PARAMETERS.items():
        image = textured(SIZES[name], rng)
        arrays[f"{name}_image"] = image
        for labels in LABELS:
            given = probabilities(SIZES[name], labels, rng).astype(np.float16)
            arrays[f"{name}_{labels}_probabilities"] = given
            unary = -np.log(given.astype(np.float64))
            found = oracle_marginals(image, unary, smoothness, appearance, 10)
            arrays[f"{name}_{labels}_marginals"] = np.round(found * 65535).astype(np.uint16)
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
