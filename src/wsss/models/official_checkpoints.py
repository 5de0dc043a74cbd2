"""Whole networks of class activation maps from their authors' checkpoints: backbone and classifier.

The networks of IRN, CLIMS and QA-CLIMS register every layer several times: as `resnet50`, as `stage1` …
`stage4`, and in the lists `backbone` and `newly_added`; the same tensors stand in their files under each of
these names. The classifier is `classifier`; that of PSA and EPS is `fc8`, whose last channel is the
background in EPS's case.

Source: the checkpoints' layouts in IRN (https://github.com/jiwoon-ahn/irn at a2ece00), CLIMS's improved code
(https://github.com/CVI-SZU/CLIMS), QA-CLIMS (https://github.com/CVI-SZU/QA-CLIMS), PSA
(https://github.com/jiwoon-ahn/psa at 9493e59) and EPS (https://github.com/halbielee/EPS at 0c2cdd0): facts.
Differs: the residual head of camera-ready CLIMS has no known names here; of such a file only the backbone is
read, by `wsss.models.weights.backbone_state`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from wsss.errors import WeightsError
from wsss.models.weight_names import named_weights, without_prefix
from wsss.models.weights import find_weights, read_weights

CLASSIFIERS: Final = ("classifier", "fc8")
_MEAN: Final = ".running_mean"


def cam_network_state(weights: str | Path) -> dict[str, Tensor]:
    """Backbone and classifier under the names of `Cam`, for `initialise` of CAM, CLIMS, QA-CLIMS or SMVWE.

    Args:
        weights: a checkpoint of IRN's, CLIMS's or QA-CLIMS's map network, of PSA's or EPS's classifier, or of
            one of our methods; what `find_weights` understands.

    Returns:
        `backbone.<name>`, and `classifier.weight`, (K, D, 1, 1). Batch norms that came without a counter of
        batches have one of 0.

    Raises:
        WeightsError: missing or damaged, no such network, or a classifier with a bias or another kernel.
    """
    path = find_weights(weights)
    return cam_state(read_weights(path), str(path))


def cam_state(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The same from tensors that were read; `name` is the file's, for messages."""
    plain = without_prefix(state, "module.")
    classifier = next((key for key in CLASSIFIERS if f"{key}.weight" in plain), None)
    if classifier is None:
        raise WeightsError(
            f"{name} must hold a classifier of maps, `classifier.weight` or `fc8.weight`; it holds "
            f"{sorted(plain)[:3]} and the like. For a backbone alone, name the backbone."
        )
    weight = plain[f"{classifier}.weight"]
    if weight.ndim != 4 or tuple(weight.shape[2:]) != (1, 1) or f"{classifier}.bias" in plain:
        raise WeightsError(
            f"`{classifier}.weight` in {name} must have shape (K, D, 1, 1) and no bias beside it; got "
            f"{tuple(weight.shape)}. Maps need the weights of a 1x1 convolution."
        )
    backbone = named_weights(
        {key: value for key, value in plain.items() if not key.startswith(f"{classifier}.")}
    ).state
    found = {f"backbone.{key}": value for key, value in backbone.items()}
    means = [key for key in found if key.endswith(_MEAN)]
    counters = {key.removesuffix(_MEAN) + ".num_batches_tracked": torch.tensor(0) for key in means}
    return {**counters, **found, "classifier.weight": weight}
