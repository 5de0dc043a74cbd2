"""Files that are complete or absent, and training states as safetensors.

Every artefact of the library is written under a temporary name in its own folder and then renamed, so a
killed process leaves no half-written file under a final name. States hold tensors and text, never pickles.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from wsss.errors import WeightsError

TEMPORARY_PREFIX: Final = ".tmp-"  # a file of this prefix is what a killed process left; it means nothing
_METADATA_KEY: Final = "wsss"  # one key: safetensors gives several keys in no fixed order


@contextmanager
def atomic_path(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, delete it on an exception.

    The temporary name keeps the suffix of `path`, since some writers choose their format by it. Missing
    parent folders are made.

    Args:
        path: the final name; an existing file is replaced.
        durable: also wait until the file is on the disk, so that it outlives a power failure and not only
            a killed process.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{path.name[-100:]}")
    try:
        yield temporary
        if durable:
            _flush(temporary)
        os.replace(temporary, path)  # noqa: PTH105  (Path.replace is the same call)
        if durable:
            _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder` to fill; it takes that place on success and is deleted else.

    Whatever `folder` held is replaced. Missing parent folders are made.
    """
    folder = Path(folder)
    temporary = folder.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{folder.name}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_atomically(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write `data` to `path` so that the file is complete or unchanged at every moment."""
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files and folders of a killed process in `folder`; only where one process writes."""
    for leftover in Path(folder).glob(f"{TEMPORARY_PREFIX}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def save_state(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors and text as one safetensors file, atomically and durably.

    The same state and metadata give the same bytes.

    Args:
        path: where to write.
        state: named tensors on any device; tensors may share memory.
        metadata: text stored beside them.
    """
    tensors = {name: _owned(tensor) for name, tensor in state.items()}
    text = json.dumps(dict(metadata or {}), sort_keys=True)
    with atomic_path(path, durable=True) as temporary:
        write_tensors(temporary, tensors, {_METADATA_KEY: text})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file as it is.

    Raises:
        OSError: the file can't be written, with the system's number of the error; safetensors raises an
            exception of its own for that.
    """
    try:
        safetensors.torch.save_file(dict(tensors), path, dict(metadata))
    except safetensors.SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise OSError(f"{path} can't be written: {error}") from error
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `save_state` wrote: tensors on the CPU, and the metadata.

    Files of other programs are read too; their metadata is given as it stands.

    Raises:
        WeightsError: the file is missing or is no safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            f"There is no weights file {path}. Run the stage that makes it, or correct the path."
        )
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (no mapping)
            metadata = dict(opened.metadata() or {})
    except safetensors.SafetensorError as error:
        raise WeightsError(
            f"{path} is no readable safetensors file ({error}). Delete it and run again."
        ) from error
    return tensors, json.loads(metadata[_METADATA_KEY]) if _METADATA_KEY in metadata else metadata


def pack(
    module: nn.Module, optimizer: torch.optim.Optimizer, random_states: Sequence[Mapping[str, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All that a training needs to go on: tensors, and the optimiser's other values as text.

    Args:
        module: weights and buffers become `model.<name>`.
        optimizer: its state becomes `optimizer.<parameter>.<name>`.
        random_states: one of `seeding.capture_random_states` per process: `random.<rank>.<name>`.
    """
    tensors = {f"model.{name}": value for name, value in module.state_dict().items()}
    others: dict[str, dict[str, Any]] = {}
    for index, state in optimizer.state_dict()["state"].items():
        others[str(index)] = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
        tensors |= {
            f"optimizer.{index}.{name}": value
            for name, value in state.items()
            if name not in others[str(index)]
        }
    for rank, states in enumerate(random_states):
        tensors |= {f"random.{rank}.{name}": value for name, value in states.items()}
    return tensors, {"optimizer": json.dumps(others, sort_keys=True)}


def unpack(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> list[dict[str, Tensor]]:
    """Put what `pack` gave into `module` and `optimizer`; return the random states of each process.

    Raises:
        RuntimeError, ValueError: the state belongs to another network or optimiser.
    """
    module.load_state_dict(_under("model.", tensors))
    optimizer_state: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in json.loads(metadata["optimizer"]).items()
    }
    for key, value in _under("optimizer.", tensors).items():
        index, name = key.split(".", 1)
        optimizer_state[int(index)][name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": optimizer_state, "param_groups": groups})
    random_states: list[dict[str, Tensor]] = []
    for key, value in sorted(_under("random.", tensors).items(), key=lambda item: int(item[0].split(".")[0])):
        rank, name = key.split(".", 1)
        if int(rank) == len(random_states):
            random_states.append({})
        random_states[-1][name] = value
    return random_states


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _owned(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU: safetensors refuses tensors that share memory."""
    return tensor.detach().to("cpu", copy=True).contiguous(memory_format=torch.contiguous_format)


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders, and needs no such call for a rename
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows flushes writers only
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
