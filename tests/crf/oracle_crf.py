"""The dense CRF as plainly as it can be written: dictionaries and loops over pixels and lattice points.

Follows the published recipe step by step (Adams et al., Eurographics 2010; Krähenbühl and Koltun, NIPS 2011)
and shares nothing with the package.
"""

from __future__ import annotations

import math

import numpy as np


def elevated(feature: np.ndarray) -> np.ndarray:
    """The d features of a pixel in the d + 1 coordinates of the lattice's plane."""
    d = len(feature)
    # roundings as in the C++ code: positions and colours are whole numbers, so ties are frequent
    spread = float(np.float32((d + 1) * math.sqrt(2 / 3)))
    scales = [np.float32(spread / math.sqrt((i + 1) * (i + 2))) for i in range(d)]
    c = [np.float32(feature[i]) * scales[i] for i in range(d)]
    y, total = [], np.float32(0)
    for j in range(d, 0, -1):
        y.append(total - np.float32(j) * c[j - 1])
        total = total + c[j - 1]
    y = [total, *reversed(y)]
    return np.array(y, dtype=np.float32)


def simplex(feature: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
    """The d + 1 lattice points around a pixel, each with its barycentric weight."""
    d = len(feature)
    y = elevated(feature)
    v = [int(np.rint(np.float32(value) * (np.float32(1) / np.float32(d + 1)))) for value in y]
    r = [(d + 1) * value for value in v]
    rank = [0] * (d + 1)
    for i in range(d + 1):
        for j in range(i + 1, d + 1):
            if y[i] - r[i] < y[j] - r[j]:
                rank[i] += 1
            else:
                rank[j] += 1
    for i in range(d + 1):
        rank[i] += sum(v)
        if rank[i] < 0:
            rank[i] += d + 1
            r[i] += d + 1
        elif rank[i] > d:
            rank[i] -= d + 1
            r[i] -= d + 1
    b = [0.0] * (d + 2)
    for i in range(d + 1):
        t = float(y[i] - r[i]) / (d + 1)
        b[d - rank[i]] += t
        b[d + 1 - rank[i]] -= t
    b[0] += 1 + b[d + 1]
    points = []
    for k in range(d + 1):
        key = tuple(r[i] + k if rank[i] <= d - k else r[i] + k - (d + 1) for i in range(d))
        points.append((key, b[k]))
    return points


class OracleLattice:
    """Filters values of pixels with the lattice's approximation of a Gaussian."""

    def __init__(self, features: np.ndarray) -> None:
        self.d = features.shape[1]
        self.pixels = [simplex(feature) for feature in features]
        self.keys = {key for pixel in self.pixels for key, _ in pixel}

    def filter(self, values: np.ndarray) -> np.ndarray:
        d, columns = self.d, values.shape[1]
        lattice = {key: np.zeros(columns) for key in self.keys}
        for pixel, value in zip(self.pixels, values, strict=True):
            for key, weight in pixel:
                lattice[key] += weight * value
        for axis in range(d + 1):
            blurred = {}
            for key, value in lattice.items():
                before = tuple(x - 1 if i != axis else x + d for i, x in enumerate(key))
                after = tuple(x + 1 if i != axis else x - d for i, x in enumerate(key))
                zero = np.zeros(columns)
                blurred[key] = value + 0.5 * (lattice.get(before, zero) + lattice.get(after, zero))
            lattice = blurred
        alpha = 1 / (1 + 2.0**-d)
        return np.array([alpha * sum(weight * lattice[key] for key, weight in p) for p in self.pixels])


def oracle_marginals(
    image: np.ndarray,
    unary: np.ndarray,
    smoothness: tuple[float, float],
    appearance: tuple[float, float, float],
    iterations: int,
) -> np.ndarray:
    """Marginals (C, H, W) of an image (H, W, 3) and a unary (C, H, W) in nats.

    `smoothness` is (weight, xy std), `appearance` is (weight, xy std, rgb std).
    """
    count, height, width = unary.shape
    y, x = (axis.reshape(-1, 1).astype(np.float64) for axis in np.mgrid[:height, :width])
    colours = image.reshape(-1, 3).astype(np.float64)
    spatial = np.hstack([x, y]) / smoothness[1]
    bilateral = np.hstack([np.hstack([x, y]) / appearance[1], colours / appearance[2]])
    kernels = []
    for features, weight in ((spatial, smoothness[0]), (bilateral, appearance[0])):
        lattice = OracleLattice(features)
        norm = 1 / np.sqrt(lattice.filter(np.ones((height * width, 1))) + 1e-20)
        kernels.append((lattice, norm, weight))
    energy = unary.reshape(count, -1).T
    q = _softmax(-energy)
    for _ in range(iterations):
        q = _softmax(-energy + sum(w * n * lattice.filter(n * q) for lattice, n, w in kernels))
    return q.T.reshape(count, height, width)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
