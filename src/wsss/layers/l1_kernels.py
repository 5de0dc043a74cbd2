"""L1 distances of all pairs on a CPU: loops compiled by numba when first used.

They release Python's lock and work on ranges, so that threads share them. torch's own distance is several
times slower here, and its gradient more so (benchmarks/visual_words.py). Everything is float32.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import torch
from numba import njit
from torch import Tensor

BLOCK: Final = 64  # rows of features that stay in the fastest cache while all words pass them
SUMS_IN_ANY_ORDER: Final = {"reassoc", "contract", "nsz"}  # NaN stays NaN, unlike with all of fast maths


def distances(features: Tensor, words: Tensor) -> Tensor:
    """Sum of absolute differences of every pair.

    Args:
        features: (N, D), float32, on the CPU.
        words: (W, D), float32, on the CPU.

    Returns:
        (N, W), float32.
    """
    found = torch.empty(len(features), len(words))
    arrays = _arrays(features, words, found)
    _share(lambda start, stop: _distances(*arrays, start, stop), len(features))
    return found


def gradient_of_words(features: Tensor, words: Tensor, gradient: Tensor) -> Tensor:
    """What the words (W, D) get from the gradient (N, W) of distances; equal numbers give nothing."""
    found = torch.zeros_like(words, memory_format=torch.contiguous_format)
    arrays = _arrays(features, words, gradient, found)
    _share(lambda start, stop: _gradient_of_words(*arrays, start, stop), len(words))
    return found


def gradient_of_features(features: Tensor, words: Tensor, gradient: Tensor) -> Tensor:
    """What the features (N, D) get from the gradient (N, W); equal numbers give nothing."""
    found = torch.zeros_like(features, memory_format=torch.contiguous_format)
    arrays = _arrays(features, words, gradient, found)
    _share(lambda start, stop: _gradient_of_features(*arrays, start, stop), len(features))
    return found


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def _share(work: Callable[[int, int], None], count: int) -> None:
    """Give each of torch's threads its range."""
    threads = max(1, min(torch.get_num_threads(), count))
    edges = [count * part // threads for part in range(threads + 1)]
    if threads == 1:
        work(0, count)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))


@njit(nogil=True, cache=True, fastmath=SUMS_IN_ANY_ORDER, error_model="numpy")
def _distances(features: Any, words: Any, found: Any, start: int, stop: int) -> None:
    channels = features.shape[1]
    for i in range(start, stop):
        for j in range(words.shape[0]):
            total = np.float32(0)
            for k in range(channels):
                total += abs(features[i, k] - words[j, k])
            found[i, j] = total


@njit(nogil=True, cache=True, fastmath=SUMS_IN_ANY_ORDER, error_model="numpy")
def _gradient_of_words(features: Any, words: Any, gradient: Any, found: Any, start: int, stop: int) -> None:
    count, channels = features.shape
    for first in range(0, count, BLOCK):
        for j in range(start, stop):
            for i in range(first, min(count, first + BLOCK)):
                slope = gradient[i, j]
                for k in range(channels):
                    apart = words[j, k] - features[i, k]
                    found[j, k] += slope if apart > 0 else (-slope if apart < 0 else np.float32(0))


@njit(nogil=True, cache=True, fastmath=SUMS_IN_ANY_ORDER, error_model="numpy")
def _gradient_of_features(
    features: Any, words: Any, gradient: Any, found: Any, start: int, stop: int
) -> None:
    channels = features.shape[1]
    for i in range(start, stop):
        for j in range(words.shape[0]):
            slope = gradient[i, j]
            for k in range(channels):
                apart = features[i, k] - words[j, k]
                found[i, k] += slope if apart > 0 else (-slope if apart < 0 else np.float32(0))
