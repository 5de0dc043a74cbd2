"""Seeds and random states: one number decides a run; a checkpoint holds where its randomness stands."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def derived_seed(*parts: int | str) -> int:
    """A seed that depends on all `parts` and their order; 0 <= seed < 2**63, the same on every machine.

    Example:
        >>> derived_seed(0, "augmentation", 3) == derived_seed(0, "augmentation", 3)
        True
    """
    text = json.dumps([part if isinstance(part, str) else int(part) for part in parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (libraries still draw from numpy's global generator)
    torch.manual_seed(seed)


def capture_random_states() -> dict[str, Tensor]:
    """The global random states as byte tensors: `python`, `numpy`, `torch` and, if there is one, `cuda`."""
    version, numbers, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    states = {
        "python": _to_bytes([version, list(numbers), gauss]),
        "numpy": _to_bytes([np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)]),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, Tensor]) -> None:
    """Put back what `capture_random_states` gave; a `cuda` state needs a CUDA device, else it is left out."""
    version, numbers, gauss = _from_bytes(states["python"])
    random.setstate((version, tuple(numbers), gauss))
    keys, position, has_gauss, cached = _from_bytes(states["numpy"])
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


@contextmanager
def preserved_random_states() -> Iterator[None]:
    """Leave the global random states as they were, whatever the block draws."""
    states = capture_random_states()
    try:
        yield
    finally:
        restore_random_states(states)


@contextmanager
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """Within the block, have torch choose bit-reproducible operations where it knows them."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if enabled:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=warn_only)
        torch.backends.cudnn.benchmark = before[1]


def _to_bytes(value: object) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _from_bytes(value: Tensor) -> list[Any]:
    loaded: list[Any] = json.loads(bytes(value.cpu().numpy().tobytes()))
    return loaded
