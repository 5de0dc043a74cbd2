"""What is in a weights file, which of our networks it fits, and the same weights as a safetensors file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import torch
from torch import Tensor, nn

from wsss.checks import nearest
from wsss.errors import WeightsError
from wsss.models.official_checkpoints import cam_state
from wsss.models.weight_formats import Format, file_format, read_with_metadata
from wsss.models.weight_names import NamedWeights, Preprocess, named_weights
from wsss.models.weights import misfit, sha256
from wsss.training.checkpoint import save_state

CAM: Final = "cam"  # a whole network of class activation maps, on any of the backbones

Networks: TypeAlias = Mapping[str, Callable[[], nn.Module]]


@dataclass(frozen=True)
class WeightsFile:
    """What a weights file holds.

    Attributes:
        format: how it is written.
        sha256: of the file, hexadecimal.
        tensors: how many there are, aliases included.
        numbers: how many numbers these hold together.
        fits: our networks that can take it; "cam" where a classifier of maps is there too.
        preprocess, stride_in_1x1, left_out, note: see `NamedWeights`, for the first network that it fits.
    """

    format: Format
    sha256: str
    tensors: int
    numbers: int
    fits: tuple[str, ...]
    preprocess: Preprocess
    stride_in_1x1: bool | None
    left_out: tuple[str, ...]
    note: str


def describe_weights(path: Path, networks: Networks) -> WeightsFile:
    """Read a weights file and try it on our networks, whose own weights are never made.

    Args:
        path: a file of any known format.
        networks: functions that build the backbones, by name.

    Raises:
        WeightsError: missing or damaged, or of an unknown network of mxnet or caffe.
    """
    path = Path(path)
    state, metadata = read_with_metadata(path)
    named = {name: named_weights(state, name, metadata) for name in networks}
    fits = [name for name in networks if not misfit(named[name].state, _state(networks[name]))]
    explained = (found for found in named.values() if found.note)
    first = named[fits[0]] if fits else next(explained, named_weights(state, None, metadata))
    if fits and _is_cam(state):
        fits.append(CAM)
    return WeightsFile(
        format=file_format(path),
        sha256=sha256(path),
        tensors=len(state),
        numbers=sum(value.numel() for value in state.values()),
        fits=tuple(fits),
        preprocess=first.preprocess,
        stride_in_1x1=first.stride_in_1x1,
        left_out=first.left_out,
        note=first.note,
    )


def convert_weights(path: Path, network: str, out: Path, networks: Networks) -> NamedWeights:
    """Write a file's weights as safetensors under the names of one of our networks.

    Beside the tensors stands what their names can't say: images, strides, and the digest of the source.

    Args:
        path: a file of any known format.
        network: one of `networks`, or "cam" for backbone and classifier together.
        out: a `.safetensors` file; an older one is replaced.
        networks: functions that build the backbones, by name.

    Returns:
        What was written.

    Raises:
        WeightsError: no such network, weights that do not fit it, or an impossible `out`.
    """
    path, out = Path(path), Path(out)
    if network not in (*networks, CAM):
        raise WeightsError(f"There is no network `{network}`. {nearest(network, (*networks, CAM))}")
    if out.suffix != ".safetensors" or out.resolve() == path.resolve():
        raise WeightsError(f"`out` must be another file, with the ending .safetensors; got {out}. Rename it.")
    state, metadata = read_with_metadata(path)
    named = named_weights(state, None if network == CAM else network, metadata)
    if network == CAM:
        found = cam_state(state, str(path))
        problems = [misfit(_backbone(found), _state(build)) for build in networks.values()]
        problem = "" if "" in problems else "its backbone is none of " + ", ".join(networks)
        named = NamedWeights(found, named.preprocess, named.stride_in_1x1)
    else:
        problem = misfit(named.state, _state(networks[network]))
    if problem:
        raise WeightsError(
            f"{path} does not fit {network}: {problem}. "
            f"{named.note or 'See `wsss weights show FILE` for the networks that it fits.'}"
        )
    facts = {"network": network, "preprocess": named.preprocess, "source": path.name, "sha256": sha256(path)}
    if named.stride_in_1x1 is not None:
        facts["stride_in_1x1"] = str(named.stride_in_1x1).lower()
    save_state(out, named.state, facts)
    return named


def _state(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """Names and shapes of a network, without memory for its weights."""
    with torch.device("meta"):
        return build().state_dict()


def _backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")
    }


def _is_cam(state: Mapping[str, Tensor]) -> bool:
    try:
        cam_state(state, "")
    except WeightsError:
        return False
    return True
