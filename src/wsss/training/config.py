"""Settings of one training: how long, how fast, on what batches, in which precision."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from wsss.data.transforms import Augmentation
from wsss.training.schedule import Schedule, factor

_WITHOUT_EFFECT: Final = frozenset({"workers", "checkpoint_seconds", "log_every", "tensorboard"})

# of each row at most one may be set: a given one puts aside what the defaults say
_ALTERNATIVES: Final = (("steps", "epochs"), ("long_side", "scale", "scale_choices"))


def merged_settings(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` laid over `defaults`, section by section.

    Example:
        >>> merged_settings({"training": {"epochs": 3, "batch_size": 8}}, {"training": {"steps": 50}})
        {'training': {'batch_size': 8, 'steps': 50}}
    """
    merged = dict(defaults)
    for alternatives in _ALTERNATIVES:
        if any(values.get(key) is not None for key in alternatives):
            merged = {key: value for key, value in merged.items() if key not in alternatives}
    for key, value in values.items():
        below = merged.get(key)
        is_nested = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merged_settings(below, value) if is_nested else value  # type: ignore[arg-type]
    return merged


class TrainingConfig(BaseModel):
    """How a method, an affinity net or a segmentation net is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int | None = Field(None, ge=1, description="Optimiser steps; give either this or `epochs`.")
    epochs: int | None = Field(None, ge=1, description="Passes over the data; give either this or `steps`.")
    batch_size: int = Field(16, ge=1, description="Images per batch over all processes (IRN, CLIMS: 16).")
    accumulate: int = Field(
        1, ge=1, description="Batches whose gradients make one optimiser step (DeepLab's iter_size: 2)."
    )
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="Optimiser (all published methods: sgd).")
    learning_rate: float = Field(
        0.1, gt=0, description="First learning rate per step; a network's groups may multiply it (IRN: 0.1)."
    )
    momentum: float = Field(
        1e-4,
        ge=0,
        lt=1,
        description="Momentum of sgd, dampening 0. The reference code of PSA, IRN, EPS, SEAM, VWE and CLIMS "
        "passes its weight decay where momentum is expected, so their published value is the weight decay; "
        "0.9 would make every step about ten times larger. DeepLab: 0.9.",
    )
    betas: tuple[float, float] = Field((0.9, 0.999), description="Moment decay rates of adamw.")
    weight_decay: float = Field(
        1e-4, ge=0, description="Weight decay of groups that set none of their own (IRN, CLIMS: 1e-4)."
    )
    schedule: Schedule = Field("poly", description="How the learning rate falls (published: poly).")
    power: float = Field(0.9, gt=0, description="Exponent of the poly schedule (published: 0.9).")
    schedule_hold: int = Field(
        1, ge=1, description="The learning rate is refreshed every so many steps (DeepLab: 10)."
    )
    warmup_steps: int = Field(0, ge=0, description="Steps of linear rise before the schedule (published: 0).")
    clip_norm: float | None = Field(
        None, gt=0, description="Largest gradient norm; larger ones are scaled down (published: none)."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16 runs the networks under autocast; weights stay float32."
    )
    channels_last: bool = Field(
        False, description="Keep feature maps channels-last: often faster, same result up to rounding."
    )
    deterministic: bool = Field(
        False, description="Prefer bit-reproducible operations (slower on accelerators; CPUs need it not)."
    )
    augmentation: Augmentation = Field(
        default_factory=lambda: Augmentation.model_validate({}),
        description="Random geometry and colour of training images.",
    )
    drop_last: bool = Field(True, description="Leave out the last, smaller batch of an epoch (CLIMS: yes).")
    workers: int = Field(0, ge=0, description="Processes that decode and augment; 0: the training process.")
    checkpoint_seconds: float = Field(30.0, ge=0, description="Seconds between checkpoints; 0: every step.")
    log_every: int = Field(10, ge=1, description="Steps per line of log.jsonl and per collapse check.")
    tensorboard: bool = Field(False, description="Also write TensorBoard events into `tensorboard/`.")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(
                f"exactly one of `steps` and `epochs` must be given; got steps={self.steps} and "
                f"epochs={self.epochs}. Remove one, or give one."
            )
        return self

    def total_steps(self, batches_per_epoch: int) -> int:
        """Optimiser steps of the whole training, at least 1."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, self.epochs * batches_per_epoch // self.accumulate)

    def fingerprint(self, seed: int) -> str:
        """Changes with the seed and with every setting that changes the trained weights; hexadecimal."""
        settings = self.model_dump(mode="json", exclude=set(_WITHOUT_EFFECT))
        return hashlib.sha256(json.dumps([settings, seed], sort_keys=True).encode()).hexdigest()[:16]

    def rate_factor(self, step: int, total: int) -> float:
        """What each group's first learning rate is multiplied by at `step`."""
        return factor(
            step,
            total,
            schedule=self.schedule,
            power=self.power,
            hold=self.schedule_hold,
            warmup=self.warmup_steps,
        )
