"""Fingerprints: short names for "this stage, with these settings, on these inputs".

Two stages with the same fingerprint give the same result, so the result is kept once and shared by every
recipe and seed that asks for it. Settings that can't change a result (workers, logging, devices) stay out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

WITHOUT_EFFECT: Final = frozenset({"workers", "tensorboard", "log_every", "checkpoint_seconds", "loaders"})
"""Keys of settings that never change a result."""


def canonical(value: Any) -> Any:
    """`value` as plain JSON types without the settings that can't change a result.

    Example:
        >>> canonical({"b": (1, Path("x")), "workers": 4})
        {'b': [1, 'x']}
    """
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items() if key not in WITHOUT_EFFECT}
    if isinstance(value, (str, bool, int, float)) or value is None:
        return value
    if isinstance(value, (set, frozenset)):
        return sorted(canonical(item) for item in value)
    if isinstance(value, Sequence):
        return [canonical(item) for item in value]
    return str(value)


def fingerprint(
    kind: str, settings: Mapping[str, Any], inputs: Iterable[str], *, seed: int | None, version: int
) -> str:
    """Hash of everything that decides a stage's result; 16 hexadecimal digits.

    Args:
        kind: what the stage does, for example `train-method`.
        settings: resolved settings; anything `canonical` understands.
        inputs: fingerprints of the stages, data and weights that the stage reads.
        seed: the run's seed where the stage uses it, else None.
        version: raised by hand when the code of this kind of stage gives other results than before.
    """
    text = json.dumps(
        {
            "kind": kind,
            "settings": canonical(settings),
            "inputs": list(inputs),
            "seed": seed,
            "version": version,
        },
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_fingerprint(path: Path) -> str:
    """sha256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
