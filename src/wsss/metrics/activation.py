"""How much of a class is missed and how much of its mask is false: the two diseases of activation maps.

Over-activation = FP / (TP + FP): the share of a class's mask that lies on something else (1 - precision).
Under-activation = FN / (TP + FN): the share of a class's true pixels that its mask misses (1 - recall).
Both lie in [0, 1]. Papers often give the unbounded ratios FP / TP and FN / TP instead (CLIMS, SEAM and
others); with o and u the shares above these are o / (1 - o) and u / (1 - u): `false_to_true` and
`missed_to_true`.
"""

from __future__ import annotations

from wsss.metrics.confusion import Confusion, Scores, ratio


def over_activation(confusion: Confusion) -> Scores:
    """FP / (TP + FP) per class; (C,), in [0, 1], NaN for a class never predicted."""
    return 1 - confusion.precision()


def under_activation(confusion: Confusion) -> Scores:
    """FN / (TP + FN) per class; (C,), in [0, 1], NaN for a class without true pixels."""
    return 1 - confusion.recall()


def false_to_true(confusion: Confusion) -> Scores:
    """The papers' over-activation FP / TP per class; (C,), NaN where nothing was found."""
    found = confusion.true_positives
    return ratio(confusion.predicted_pixels - found, found)


def missed_to_true(confusion: Confusion) -> Scores:
    """The papers' under-activation FN / TP per class; (C,), NaN where nothing was found."""
    found = confusion.true_positives
    return ratio(confusion.true_pixels - found, found)
