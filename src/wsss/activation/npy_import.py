"""Reads the `.npy` activation maps of the CLIMS, QA-CLIMS and IRN code, which are pickles, behind an opt-in.

Two dialects, one pickled dictionary per image:

| key      | IRN, improved CLIMS, QA-CLIMS             | camera-ready CLIMS                                 |
|----------|-------------------------------------------|----------------------------------------------------|
| keys     | (M,) 0-based classes, torch tensor        | (M + 1,) numpy: 0, then classes in the label space |
| cam      | (M, ceil(H/4), ceil(W/4)), torch          | the same                                           |
| full size| `high_res` (M, H, W), numpy               | `hr_cam` (M, H, W), numpy                          |

Unpickling goes through a reader that can rebuild arrays, tensors, dictionaries and plain values only.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from wsss.activation.store import MapStore
from wsss.errors import DataError, WsssError
from wsss.training.journal import Progress
from wsss.types import ActivationMaps


@dataclass(frozen=True, eq=False)
class ImportedMaps:
    """Maps of one image in the two resolutions of the reference code.

    Args:
        low_resolution: one cell per 4 pixels.
        full_size: of the image's size, normalised on its own.
    """

    low_resolution: ActivationMaps
    full_size: ActivationMaps


def read_npy(path: Path, *, allow_pickle: bool = False) -> ImportedMaps:
    """Read one `.npy` maps file of either dialect.

    Args:
        path: the file.
        allow_pickle: must be True: the format is a pickle.

    Raises:
        DataError: no opt-in, or the file is of neither dialect or holds anything but arrays.
    """
    if not allow_pickle:
        raise DataError(
            f"{path} is a pickle, which is read only on request. Pass `allow_pickle=True`; "
            "only arrays are rebuilt from it, no code runs."
        )
    try:
        content = _unpickle(path)
    except (pickle.UnpicklingError, OSError, EOFError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(
            f"{path} is no maps file of a reference implementation ({error}). Export it again."
        ) from error
    return _maps(path, content)


def import_npy(
    folder: Path,
    store: MapStore,
    *,
    ids: Sequence[str] | None = None,
    allow_pickle: bool = False,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Copy a folder of `.npy` maps into a store; images that it holds already are left out.

    Args:
        folder: holds `<image id>.npy`.
        store: where maps go.
        ids: which images; None: all of the folder.
        allow_pickle: see `read_npy`.
        progress: told after each image.

    Returns:
        The ids of all images asked for.
    """
    names = tuple(sorted(path.stem for path in Path(folder).glob("*.npy"))) if ids is None else tuple(ids)
    if not names:
        raise DataError(
            f"There are no .npy files in {folder}. Name the folder that the reference code wrote to."
        )
    for done, image_id in enumerate(names, start=1):
        if image_id not in store:
            maps = read_npy(Path(folder) / f"{image_id}.npy", allow_pickle=allow_pickle)
            size = maps.full_size.size
            store.write(image_id, maps.low_resolution, image_size=size, full_size=maps.full_size.scores)
        if progress is not None:
            progress(done, len(names), "images")
    return names


def _tensor_bytes(data: bytes) -> Any:
    """Stand-in for torch's own loader of storages inside pickles, which would run any code."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _allowed() -> dict[tuple[str, str], Callable[..., Any]]:
    """What a pickle of arrays and tensors names."""
    multiarray: Any = getattr(np, "_core", None) or np.core  # numpy 2 and 1 keep it in different places
    multiarray = multiarray.multiarray
    allowed: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
        ("torch.storage", "_load_from_bytes"): _tensor_bytes,
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed[module, "_reconstruct"] = multiarray._reconstruct
        allowed[module, "scalar"] = multiarray.scalar
    return allowed


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array") from None


_ALLOWED: Final = _allowed()


def _unpickle(path: Path) -> Any:
    with Path(path).open("rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"unknown .npy version {version}")
        shape, _, dtype = read_header(file)
        if shape != () or not dtype.hasobject:
            raise ValueError(f"expected one pickled dictionary, got an array {shape} {dtype}")
        return _ArrayUnpickler(file).load().item()


def _maps(path: Path, content: Any) -> ImportedMaps:
    """Tell the dialects apart and check that shapes agree."""
    name = "hr_cam" if isinstance(content, dict) and "hr_cam" in content else "high_res"
    if not isinstance(content, dict) or {"keys", "cam", name} - content.keys():
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise DataError(
            f"{path} must hold `keys`, `cam` and `high_res` or `hr_cam`; got {found}. "
            "Export it again with full-size maps."
        )
    keys = torch.as_tensor(content["keys"]).flatten().to(torch.int64)
    low, full = (torch.as_tensor(content[key]).float() for key in ("cam", name))
    if name == "hr_cam":
        is_prepended = len(keys) == len(low) + 1 and int(keys[0]) == 0
        class_ids = keys[1:]
    else:
        is_prepended = len(keys) == len(low)  # this dialect prepends nothing
        class_ids = keys + 1
    if not is_prepended or len(full) != len(low):
        raise DataError(
            f"{path}: `keys` {keys.tolist()} don't fit {len(low)} low-resolution and {len(full)} full-size "
            f"maps in the dialect of `{name}`. Export it again."
        )
    order = class_ids.argsort()
    try:
        return ImportedMaps(_ordered(class_ids, low, order), _ordered(class_ids, full, order))
    except WsssError as error:
        raise DataError(f"{path}: {error}") from error


def _ordered(class_ids: Tensor, scores: Tensor, order: Tensor) -> ActivationMaps:
    return ActivationMaps(class_ids[order], scores[order])
