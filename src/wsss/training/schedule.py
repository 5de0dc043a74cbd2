"""Learning rates as factors of the first one: set before step t = 0, 1, …, T - 1.

The field's poly schedule is lr_t = lr_0 (1 - t / T)^power with power 0.9. DeepLab refreshes it only every ten
steps (`hold`).
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

Schedule: TypeAlias = Literal["poly", "cosine", "constant"]


def poly(step: float, total: float, power: float = 0.9) -> float:
    """(1 - step / total)^power; 0 from `total` on.

    Example:
        >>> round(poly(50, 100), 5)
        0.53589
    """
    return float(max(0.0, 1 - step / total) ** power)


def cosine(step: float, total: float) -> float:
    """Half a cosine from 1 at step 0 to 0 at `total`."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))


def factor(
    step: int, total: int, *, schedule: Schedule = "poly", power: float = 0.9, hold: int = 1, warmup: int = 0
) -> float:
    """What the first learning rate is multiplied by at one step.

    Args:
        step: t, from 0.
        total: T, number of optimiser steps of the whole training.
        schedule: how the rate falls after the warm-up.
        power: exponent of poly.
        hold: the rate is refreshed only at every `hold`-th step.
        warmup: number of first steps over which the rate rises linearly, (t + 1) / warmup; the schedule
            itself then runs over the remaining steps.
    """
    if step < warmup:
        return (step + 1) / warmup
    after, remaining = (step - warmup) // hold * hold, max(1, total - warmup)
    if schedule == "poly":
        return poly(after, remaining, power)
    return cosine(after, remaining) if schedule == "cosine" else 1.0
