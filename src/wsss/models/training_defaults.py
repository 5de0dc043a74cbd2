"""Settings of a training that a model room suggests and a recipe may change one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsss.training.config import TrainingConfig


def merged(defaults: Mapping[str, Any], given: Any) -> Any:
    """`given` settings over `defaults`; either length, steps or epochs, replaces the other.

    Args:
        defaults: keys of `TrainingConfig`.
        given: a mapping from a recipe; anything else (a finished `TrainingConfig`) is left as it is.

    Example:
        >>> merged({"epochs": 20, "learning_rate": 5e-5}, {"steps": 10})
        {'learning_rate': 5e-05, 'steps': 10}
    """
    if not isinstance(given, Mapping):
        return given
    has_length = any(given.get(key) is not None for key in ("steps", "epochs"))
    kept = {key: value for key, value in defaults.items() if not (has_length and key in ("steps", "epochs"))}
    return {**kept, **given}


def training_with(defaults: Mapping[str, Any]) -> TrainingConfig:
    """The suggested settings as they stand."""
    return TrainingConfig.model_validate(dict(defaults))
