"""Reads weights files of any known format: told apart by their first bytes, where those can tell."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError  # what torch raises when a file holds more than tensors
from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor

from wsss.errors import WeightsError
from wsss.models.caffe_model import read_caffe_model
from wsss.models.mxnet_params import is_mxnet, read_mxnet_params
from wsss.models.weight_names import from_caffe, from_mxnet
from wsss.training.checkpoint import load_state

Format: TypeAlias = Literal["safetensors", "pytorch", "mxnet", "caffe"]
SUFFIXES: Final = (".safetensors", ".pth", ".pt", ".bin", ".params", ".caffemodel")
_NESTED: Final = ("state_dict", "model")  # where training programs put the weights beside other things


def file_format(path: Path) -> Format:
    """The format of a weights file.

    Raises:
        WeightsError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}. Correct the path.")
    with path.open("rb") as file:
        begin = file.read(16)
    if path.suffix == ".safetensors" or begin[8:9] == b"{":
        return "safetensors"
    if is_mxnet(begin) or path.suffix == ".params":
        return "mxnet"
    return "caffe" if path.suffix == ".caffemodel" else "pytorch"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a weights file, on the CPU; never runs code from the file.

    Args:
        path: `.safetensors`, `.pth` or `.pt`, with the names in the file; `.params` of mxnet and
            `.caffemodel`, with our names (see `weight_names`), since these hold no state dicts.

    Raises:
        WeightsError: missing, damaged, more than plain tensors, or of an unknown network of mxnet or caffe.
    """
    return read_with_metadata(path)[0]


def read_with_metadata(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The same, and the text that a safetensors file may hold beside its tensors."""
    path = Path(path)
    kind = file_format(path)
    if kind == "safetensors":
        return _read_safetensors(path)
    if kind == "pytorch":
        return _read_pytorch(path), {}
    try:
        return from_mxnet(read_mxnet_params(path)) if kind == "mxnet" else from_caffe(
            read_caffe_model(path)
        ), {}
    except WeightsError as error:
        if str(path) in str(error):
            raise
        raise WeightsError(f"{path} does not fit: {error}") from error


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        state, metadata = load_state(path)
    except ValueError as error:
        raise WeightsError(
            f"{path} holds a text beside its tensors that can't be understood ({error}). Get the file again."
        ) from error
    if not isinstance(metadata, dict):
        raise WeightsError(
            f"{path} must hold named texts beside its tensors; got {type(metadata).__name__}. "
            "Get the file again."
        )
    return state, {str(name): str(text) for name, text in metadata.items()}


def _read_pytorch(path: Path) -> dict[str, Tensor]:
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise WeightsError(
            f"{path} is damaged or holds more than tensors ({type(error).__name__}). "
            "Use a file with a plain state dict."
        ) from error
    if isinstance(state, dict):
        nested = (state[key] for key in _NESTED if isinstance(state.get(key), dict))
        state = next(nested, state)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} must hold named tensors; got {type(state).__name__}. Save a state dict.")
    return dict(state)
