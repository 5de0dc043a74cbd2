"""Fully connected conditional random fields: permutohedral lattice and mean-field inference."""

from wsss.crf.mean_field import DenseCrf
from wsss.crf.parameters import PRESETS, CrfParameters
from wsss.crf.unary import unary_from_labels, unary_from_logits, unary_from_probabilities

__all__ = [
    "PRESETS",
    "CrfParameters",
    "DenseCrf",
    "unary_from_labels",
    "unary_from_logits",
    "unary_from_probabilities",
]
