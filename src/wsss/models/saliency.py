"""Saliency: what stands out in an image, whatever it is; the detectors, and maps for whole data sets.

Methods that learn from saliency (SMVWE) take it from a detector that was trained on other data. Three kinds
are known here: the one shipped with the package, a folder of the same format, and U2-Net through rembg. Maps
of any other detector are read as files, see `saliency_files`. A detector sees images alone.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from wsss.checks import nearest
from wsss.data.dataset import Dataset
from wsss.errors import ShapeError, WeightsError
from wsss.models.embedded.saliency_format import WORKING_SIZE, load_saliency_net, normalised
from wsss.models.saliency_files import check_saliency_folder, read_saliency, saliency_file, write_saliency
from wsss.models.weights import find_weights, sha256
from wsss.training.checkpoint import remove_leftovers
from wsss.training.journal import Progress

__all__ = [
    "EmbeddedDetector",
    "SaliencyDetector",
    "U2NetDetector",
    "check_saliency_folder",
    "detect_missing",
    "detect_to_folder",
    "load_detector",
    "read_saliency",
    "saliency_file",
    "write_saliency",
]

DETECTORS: Final = ("embedded", "u2net")
U2NET_FILE: Final = "u2net.onnx"

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) RGB


@runtime_checkable
class SaliencyDetector(Protocol):
    """A frozen model that tells how much each pixel stands out.

    Attributes:
        name: where it came from, for messages and reports.
        sha256: of its weights, hexadecimal.
    """

    name: str
    sha256: str

    def detect(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Saliency, (H, W) float32 in [0, 1], of RGB images, (H, W, 3) uint8 of any sizes, in their order."""


class EmbeddedDetector:
    """A detector of the embedded format: the shipped one, or one that was trained as it was.

    An image is resized (bilinear, aspect kept) until its longer side is the size at which the detector was
    trained, since things then have the sizes it knows; its saliency is resized back (bilinear). What the
    image and its mirror image give is averaged.

    Args:
        folder: holds `config.json` and `model.safetensors`.
        device: where the network runs.
        name: for messages and reports.
    """

    def __init__(self, folder: Path, *, device: torch.device, name: str) -> None:
        self.name, self.sha256 = name, sha256(folder)
        self._net = load_saliency_net(folder).to(device)
        self._device = device

    @torch.no_grad()
    def detect(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Saliency of each image at its own size; images of equal working size run together."""
        shrunk = [_at_working_size(_checked(image)) for image in images]
        groups: dict[tuple[int, ...], list[int]] = {}
        for number, pixels in enumerate(shrunk):
            groups.setdefault(pixels.shape, []).append(number)
        found: dict[int, np.ndarray] = {}
        for numbers in groups.values():
            stacked = torch.from_numpy(np.stack([shrunk[number] for number in numbers])).to(self._device)
            inputs = normalised(stacked)  # (B, 3, h, w)
            saliency = (self._net(inputs).sigmoid() + self._net(inputs.flip(3)).sigmoid().flip(3)) / 2
            for number, values in zip(numbers, saliency[:, 0].cpu().numpy(), strict=True):
                found[number] = _resized(values, images[number].shape[:2])
        return [found[number] for number in range(len(images))]


class U2NetDetector:
    """U2-Net through the package rembg, which is an optional extra.

    The weights are a local file; rembg is given its path, so it never looks for a download. rembg scales each
    map so that its least and greatest values are 0 and 1: an image without any thing gets a map all the same.
    Where onnxruntime offers a GPU, rembg chooses it by itself.

    Source: Qin et al., *U2-Net: Going Deeper with Nested U-Structure for Salient Object Detection*, Pattern
    Recognition 2020, https://arxiv.org/abs/2005.09007; https://github.com/danielgatis/rembg (320 x 320,
    mask alone, no alpha matting, no post-processing).

    Args:
        weights: path of `u2net.onnx`; None: where rembg keeps it.

    Raises:
        WeightsError: rembg or the file is missing.
    """

    name = "u2net"

    def __init__(self, weights: str | None = None) -> None:
        self._rembg = _rembg()
        self._weights = _u2net_file(weights)
        self.sha256 = sha256(self._weights)
        self._session: Any = None

    def detect(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Saliency of each image at its own size."""
        if self._session is None:  # reads 170 MB
            self._session = self._rembg.new_session("u2net_custom", model_path=str(self._weights))
        return [self._detect(_checked(image)) for image in images]

    def _detect(self, image: Pixels) -> np.ndarray:
        mask = self._rembg.remove(
            image, session=self._session, only_mask=True, alpha_matting=False, post_process_mask=False
        )
        saliency: np.ndarray = np.asarray(mask, np.float32) / np.float32(255)
        return saliency


def load_detector(name: str, *, weights: str | None = None, device: torch.device) -> SaliencyDetector:
    """The detector that `name` stands for; downloads nothing.

    Args:
        name: "embedded" (shipped), "u2net", or the folder of a detector in the embedded format.
        weights: file of u2net's weights; None: where rembg keeps them.
        device: where an embedded detector runs.

    Raises:
        WeightsError: no such detector, or its package or weights are missing.
    """
    if name == "u2net":
        return U2NetDetector(weights)
    if weights is not None:
        raise WeightsError(
            f"`weights` is the file of u2net's weights; got {weights} for the detector `{name}`. "
            "Leave it out, or choose `u2net`."
        )
    folder = Path(name).expanduser()
    if name == "embedded":
        folder = find_weights("embedded", embedded="saliency")
    elif not folder.is_dir():
        raise WeightsError(
            f"Unknown saliency detector `{name}`. {nearest(name, DETECTORS)} "
            "The folder of a detector that `wsss embedded train saliency` made also works."
        )
    return EmbeddedDetector(folder, device=device, name=name)


def detect_to_folder(
    detector: SaliencyDetector,
    dataset: Dataset,
    ids: Sequence[str],
    folder: Path,
    *,
    images_at_once: int = 16,
    alone: bool = True,
    progress: Progress | None = None,
) -> int:
    """Write the maps of a data set's images that are missing in `folder`; see `detect_missing`.

    Args:
        detector: sees the images alone; masks are never asked for.
        dataset: gives the images.
        ids: which of them.
        folder: gets `<id>.png`.
        images_at_once: images read and detected together; decides memory.
        alone: whether no other process writes into `folder`; what killed ones have left is then removed.
        progress: called with images done, images in all and a note.

    Returns:
        How many were detected now.
    """
    return detect_missing(
        detector,
        lambda image_id: dataset.sample(image_id).image,
        ids,
        folder,
        images_at_once=images_at_once,
        alone=alone,
        progress=progress,
    )


def detect_missing(
    detector: SaliencyDetector,
    read: Callable[[str], np.ndarray],
    ids: Sequence[str],
    folder: Path,
    *,
    images_at_once: int = 16,
    alone: bool = True,
    progress: Progress | None = None,
) -> int:
    """Write the maps that are missing in `folder`; a call that was interrupted is gone on with, file by file.

    Args:
        detector: any.
        read: gives the image of an id; (H, W, 3), uint8 RGB.
        ids: images that shall have a map.
        folder: gets `<id>.png`.
        images_at_once: images read and detected together; decides memory.
        alone: whether no other process writes into `folder`; what killed ones have left is then removed.
        progress: called with images done, images in all and a note.

    Returns:
        How many were detected now.
    """
    for parent in {saliency_file(folder, image_id).parent for image_id in ids} if alone else ():
        remove_leftovers(parent)
    missing = [image_id for image_id in ids if not saliency_file(folder, image_id).is_file()]
    for start in range(0, len(missing), images_at_once):
        if progress is not None:
            progress(len(ids) - len(missing) + start, len(ids), "images")
        group = missing[start : start + images_at_once]
        found = detector.detect([read(image_id) for image_id in group])
        for image_id, saliency in zip(group, found, strict=True):
            write_saliency(folder, image_id, saliency)
    if progress is not None:
        progress(len(ids), len(ids), "images")
    return len(missing)


def _checked(image: np.ndarray) -> Pixels:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ShapeError(
            f"Images must be (H, W, 3) uint8 RGB; got {image.shape} {image.dtype}. "
            "Read them with `wsss.data.images.decode`."
        )
    return image


def _at_working_size(image: Pixels) -> Pixels:
    height, width = image.shape[:2]
    scale = WORKING_SIZE / max(height, width)
    if scale == 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def _resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if values.shape != size:
        values = np.asarray(
            Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BILINEAR), np.float32
        )
    return values.clip(0.0, 1.0)


def _rembg() -> Any:
    try:
        return importlib.import_module("rembg")
    except (ImportError, SystemExit) as error:  # without onnxruntime, rembg ends the program
        raise WeightsError(
            f"The detector `u2net` needs the packages rembg and onnxruntime ({error or 'incomplete'}). Run "
            '`pip install "wsss[saliency]"`, or use the shipped detector `embedded`.'
        ) from error


def _u2net_file(weights: str | None) -> Path:
    """The weights' file: as given, or in the folder in which rembg keeps its models."""
    if weights is not None:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise WeightsError(f"There are no weights at {weights}. Correct the path of `{U2NET_FILE}`.")
        return path
    home = os.environ.get("U2NET_HOME") or Path(os.environ.get("XDG_DATA_HOME") or "~") / ".u2net"
    path = Path(home).expanduser() / U2NET_FILE
    if not path.is_file():
        raise WeightsError(
            f"U2-Net's weights are not on this machine (looked for {path}). Get {U2NET_FILE} from the "
            "releases of https://github.com/danielgatis/rembg, put it there, or name its path as `weights`."
        )
    return path
