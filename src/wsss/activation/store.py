"""Activation maps on disk: one `.npz` per image, without pickle, written atomically.

Two resolutions are normalised separately, as the reference code does, so both are kept: `scores` at the map
stride as they are, and what the full-size maps are recomputed from: the cams of each scale, summed with their
mirror image, at feature resolution (a few kB where full-size maps take a megabyte). docs/file-formats.md
lists the arrays and says who reads which resolution.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.errors import DataError, ShapeError
from wsss.training.checkpoint import TEMPORARY_PREFIX, write_atomically
from wsss.types import ActivationMaps

CANVAS_MULTIPLE: Final = 16  # IRN: full-size maps are enlarged to a multiple of 16, then cropped
SUFFIX: Final = ".npz"
_NO_PEAK: Final = 1e-30  # below this a class has no activation anywhere
_ARRAYS: Final = {
    "class_ids": ("iu", 1),
    "scores": ("f", 3),
    "image_size": ("iu", 1),
    "background": ("f", 2),
    "full_size": ("f", 3),
    "peaks": ("f", 1),
    "stride": ("iu", 0),
}
"""Kind of numbers and number of axes; those of each scale, `scale_<n>`, are like `scores`."""
_MOST_PIXELS: Final = 2**31  # of an image; a larger size is no size


class MapStore:
    """A folder of activation maps, one file per image.

    Args:
        folder: made when the first maps are written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, image_id: str) -> Path:
        """File of an image; ids may hold `/`, which become folders."""
        return self.folder / f"{image_id}{SUFFIX}"

    def __contains__(self, image_id: str) -> bool:
        return self.path(image_id).is_file()

    def __repr__(self) -> str:
        return f"MapStore({self.folder.as_posix()!r}, {len(self.ids()):,} images)"

    def ids(self) -> tuple[str, ...]:
        """Ids of all stored images, sorted."""
        files = (
            path.relative_to(self.folder).as_posix()[: -len(SUFFIX)]
            for path in self.folder.rglob(f"*{SUFFIX}")
            if not path.name.startswith(TEMPORARY_PREFIX)
        )
        return tuple(sorted(files))

    def write(
        self,
        image_id: str,
        maps: ActivationMaps,
        *,
        image_size: tuple[int, int],
        per_scale: Sequence[Tensor] | None = None,
        full_size: Tensor | None = None,
        stride: int | None = None,
    ) -> None:
        """Store the maps of one image.

        Args:
            image_id: the image's name in its data set.
            maps: maps at any resolution: at the map stride with `per_scale`, else what every reader gets.
            image_size: (height, width) of the image.
            per_scale: cams of the present classes at each scale, summed with their mirror image, not
                normalised; each (M, h_s, w_s).
            full_size: full-size scores that nothing smaller gives back (imported maps); (M, H, W) in [0, 1].
            stride: image pixels per cell, for maps that become full-size by `ActivationMaps.enlarged`
                (refined on a grid); None: other sizes than the image's are resized.
        """
        arrays: dict[str, Any] = {
            "class_ids": maps.class_ids.cpu().numpy().astype(np.int16),
            "scores": maps.scores.cpu().numpy().astype(np.float16),
            "image_size": np.array(image_size, dtype=np.int32),
        }
        if maps.background is not None:
            arrays["background"] = maps.background.cpu().numpy().astype(np.float16)
        if stride is not None and stride > 1:
            arrays["stride"] = np.int32(stride)
        if full_size is not None:
            arrays["full_size"] = full_size.cpu().numpy().astype(np.float16)
        if per_scale:
            peaks = torch.stack([_peaks(cams) for cams in per_scale]).amax(dim=0)  # (M,)
            arrays["peaks"] = peaks.cpu().numpy().astype(np.float32)
            for number, cams in enumerate(per_scale):
                # relative to the class's peak: float16 neither overflows nor loses faint classes
                relative = cams.float() / peaks.clamp(min=_NO_PEAK)[:, None, None]
                arrays[f"scale_{number}"] = relative.cpu().numpy().astype(np.float16)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_atomically(self.path(image_id), buffer.getvalue())

    def read(
        self, image_id: str, *, full_size: bool = True, image_size: tuple[int, int] | None = None
    ) -> ActivationMaps:
        """Maps of one image, on the CPU.

        Args:
            image_id: which image.
            full_size: maps of the image's own size, normalised there; else as stored (at the map stride).
            image_size: (height, width) that the image has; None: it is not known here.

        Raises:
            DataError: no maps are stored, the file is damaged, or it belongs to an image of another size.
        """
        arrays = self._arrays(image_id)
        height, width = (int(side) for side in arrays["image_size"])
        if image_size not in (None, (height, width)):
            raise DataError(
                f"The maps of {image_id} belong to an image of {height} x {width} (height x width), but it "
                f"has {image_size} now. Make the maps again."
            )
        try:
            return _built(arrays, (height, width), full_size=full_size)
        except (ShapeError, IndexError, ValueError) as error:
            raise DataError(_damaged(self.path(image_id), str(error))) from error

    def stride(self, image_id: str) -> int | None:
        """Image pixels per cell of maps that were refined on a grid; None for others."""
        stride = self._arrays(image_id).get("stride")
        return None if stride is None else int(stride)

    def image_size(self, image_id: str) -> tuple[int, int]:
        """(height, width) of the image that the maps belong to."""
        height, width = self._arrays(image_id)["image_size"]
        return int(height), int(width)

    def _arrays(self, image_id: str) -> dict[str, npt.NDArray[Any]]:
        path = self.path(image_id)
        if not path.is_file():
            raise DataError(
                f"There are no maps of {image_id} in {self.folder}. Run `wsss activate` to make them."
            )
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            _check_arrays(arrays)
        except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, KeyError) as error:
            raise DataError(_damaged(path, str(error))) from error
        return arrays


def _check_arrays(arrays: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless all arrays are there, of the right kinds and numbers of axes."""
    missing = {"class_ids", "scores", "image_size"} - arrays.keys()
    if missing:
        raise ValueError(f"it lacks {sorted(missing)}")
    for name, array in arrays.items():
        kinds, axes = _ARRAYS["scores" if name.startswith("scale_") else name]
        if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds or array.ndim != axes:
            raise ValueError(f"`{name}` must have {axes} axes of {'floats' if kinds == 'f' else 'integers'}")
    sides = [int(side) for side in arrays["image_size"]]
    if len(sides) != 2 or min(sides) < 1 or sides[0] * sides[1] > _MOST_PIXELS:
        raise ValueError(f"`image_size` must be height and width; got {sides}")
    if "stride" in arrays and arrays["stride"] < 1:
        raise ValueError(f"`stride` must be at least 1; got {arrays['stride']}")


def _built(
    arrays: Mapping[str, npt.NDArray[Any]], image_size: tuple[int, int], *, full_size: bool
) -> ActivationMaps:
    """Maps of what a file holds."""
    height, width = image_size
    class_ids = torch.from_numpy(arrays["class_ids"].astype(np.int64))
    if full_size and "peaks" in arrays:
        peaks = torch.from_numpy(arrays["peaks"])[:, None, None]
        scales = sorted((name for name in arrays if name.startswith("scale_")), key=_number)
        per_scale = [torch.from_numpy(arrays[name]).float() * peaks for name in scales]
        if any(0 in scale.shape[1:] for scale in per_scale):
            raise ShapeError("a scale has no cells")
        return ActivationMaps.from_present_cams(sum_full_size(per_scale, image_size), class_ids)
    background = arrays.get("background")
    stored = "full_size" if full_size and "full_size" in arrays else "scores"
    maps = ActivationMaps(
        class_ids,
        torch.from_numpy(arrays[stored]).float(),
        None if background is None else torch.from_numpy(background).float(),
    )
    if full_size and "stride" in arrays:
        return maps.enlarged(int(arrays["stride"]), height, width)
    return maps.resized(height, width) if full_size and maps.size != (height, width) else maps


def sum_full_size(per_scale: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
    """Sum the cams of all scales at full size: enlarge to a multiple of 16, then crop at the top left.

    Args:
        per_scale: each (M, h_s, w_s).
        image_size: (H, W).

    Returns:
        (M, H, W), not normalised.
    """
    height, width = image_size
    canvas = tuple(-(-side // CANVAS_MULTIPLE) * CANVAS_MULTIPLE for side in image_size)
    return sum_resized(per_scale, (canvas[0], canvas[1]))[:, :height, :width]


def sum_strided(per_scale: Sequence[Tensor], image_size: tuple[int, int], stride: int) -> Tensor:
    """Sum the cams of all scales on a grid of one cell per `stride` pixels; (M, ceil(H/s), ceil(W/s))."""
    height, width = image_size
    return sum_resized(per_scale, ((height - 1) // stride + 1, (width - 1) // stride + 1))


def sum_resized(per_scale: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Resize the cams of all scales bilinearly (align_corners=False) to `size` and sum them; (M, h, w)."""
    total = per_scale[0].new_zeros((len(per_scale[0]), *size), dtype=torch.float32)
    if not len(total):
        return total
    for cams in per_scale:
        total += F.interpolate(cams[None].float(), size=size, mode="bilinear", align_corners=False)[0]
    return total


def _peaks(cams: Tensor) -> Tensor:
    if cams.ndim != 3:
        raise ShapeError(
            f"`per_scale` must hold (M, h, w) cams; got {tuple(cams.shape)}. Pass one image's cams."
        )
    return cams.float().flatten(1).amax(dim=1) if cams.numel() else torch.zeros(len(cams))


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is no whole maps file ({reason}). Delete it and run the same command again to remake it."
