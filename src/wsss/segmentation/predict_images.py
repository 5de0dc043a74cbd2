"""Masks for any number of images: one after the other, to be gone on with, whatever some of them hold.

`predictions.json` in the output folder names the model, the settings and the folder that the images' names
start at, so that masks of two models or of other images are never mixed; a mask says itself which image it is
of. An image that can't be read or predicted is noted and the others go on.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from wsss.data.images import decode
from wsss.data.masks_png import read_mask
from wsss.errors import DataError, StageError, WsssError
from wsss.segmentation.image_list import OVERLAYS, ImageFile
from wsss.segmentation.model import PredictionSettings, SegmentationModel
from wsss.training.checkpoint import atomic_path, remove_leftovers, write_atomically
from wsss.training.journal import Progress
from wsss.types import BACKGROUND

MANIFEST: Final = "predictions.json"
IMAGES: Final = "images"  # of the manifest: where the images' names start
MOST_CLASSES: Final = 255  # with the background; 255 itself is no class
STRENGTH: Final = 0.55  # share of the class's colour in an overlay
_AHEAD: Final = 2  # images decoded while another is predicted
_EXPECTED: Final = (WsssError, ValueError, RuntimeError, MemoryError)  # of one image, not of the program
_IMAGE: Final = "image"  # text of a mask's file
_TAKEN: Final = (
    "Its mask {} is there already of an image of the same name and another extension. Rename one of the "
    "images, or give another output folder; if the image was renamed, delete the mask."
)

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Predicted:
    """What came of a call.

    Args:
        new: masks that were written.
        kept: masks that were there already.
        failures: by image name, why it has no mask.
    """

    new: int
    kept: int
    failures: dict[str, str]


def predict_images(
    model: SegmentationModel,
    images: Sequence[ImageFile],
    out: Path,
    settings: PredictionSettings,
    *,
    overlays: bool = False,
    progress: Progress | None = None,
) -> Predicted:
    """Write a mask for each image that has none yet.

    Args:
        model: on the device where it is to compute.
        images: any sizes.
        out: folder of the masks, `<name>.png` with the model's palette.
        settings: scales, flip, CRF and tiles.
        overlays: also write `overlays/<name>.jpg`, the mask's colours over the photograph.
        progress: called after each image with images done, images in all and a note.

    Raises:
        DataError: `out` holds masks of another model, of other settings, of images in another folder or of
            unknown origin.
        StageError: another process writes there.
        OSError: the disk is full, or nothing may be written.
    """
    out = Path(out)
    new = 0
    failures: dict[str, str] = {}
    with _alone_in(out):
        start = {IMAGES: images[0].base} if images else {}
        _claim(out, manifest(model, settings) | start)
        for folder in {
            (place / image.mask_name).parent for image in images for place in (out, out / OVERLAYS)
        }:
            remove_leftovers(folder)
        failures |= {i.name: _TAKEN.format(i.mask_name) for i in images if not may_have_mask(out, i)}
        missing = [i for i in images if i.name not in failures and _is_missing(i, out, overlays)]
        kept = len(images) - len(missing)
        for number, (image, decoding) in enumerate(_decoded(missing), start=1):
            try:
                new += _work(model, image, decoding, out, settings, overlays=overlays)
            except _EXPECTED as error:
                failures[image.name] = str(error) or type(error).__name__
            if progress is not None:
                progress(kept + number, len(images), image.mask_name)
    return Predicted(new, len(images) - new - len(failures), failures)


def manifest(model: SegmentationModel, settings: PredictionSettings) -> dict[str, Any]:
    """What `predictions.json` says of any images: who made the masks, and what their values mean."""
    flip = model.config.test_flip if settings.flip is None else settings.flip
    return {
        "format_version": 1,
        "model": model.fingerprint,
        "scales": list(settings.scales or model.config.test_scales),
        "flip": flip,
        "crf": settings.crf,
        "tile": settings.tile,
        "class_names": list(model.class_names),
        "colours": model.colours.tolist(),
    }


def overlay(image: Pixels, mask: Pixels, palette: Pixels) -> Pixels:
    """The mask's colours over a photograph; background stays as it is.

    Args:
        image: RGB, 0-255; (H, W, 3), uint8.
        mask: (H, W), uint8.
        palette: colours of the values; (256, 3), uint8.

    Returns:
        RGB; (H, W, 3), uint8.
    """
    blended = ((1 - STRENGTH) * image + STRENGTH * palette[mask]).round().astype(np.uint8)
    return np.where((mask == BACKGROUND)[..., None], image, blended)


def write_indexed(path: Path, mask: Pixels, palette: Pixels, *, image_name: str | None = None) -> None:
    """Write a mask (H, W) as an indexed PNG with `palette` (256, 3); the file is complete or absent.

    Args:
        path: the file.
        mask: values; (H, W), uint8.
        palette: RGB of the values 0-255; (256, 3), uint8.
        image_name: kept in the file as its text `image`, for `may_have_mask`.
    """
    picture = Image.fromarray(np.ascontiguousarray(mask))
    picture.putpalette(palette.tobytes())  # turns mode L into P
    texts = PngInfo()
    if image_name is not None:
        texts.add_text(_IMAGE, image_name)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=texts)


def may_have_mask(out: Path, image: ImageFile) -> bool:
    """Whether the mask in an image's place, if there is one, is not known as that of another image.

    `a.jpg` and `a.png` of one folder have one place. A mask that doesn't say is taken for the image's own.
    """
    try:
        with Image.open(out / image.mask_name, formats=("PNG",)) as picture:
            return bool(picture.info.get(_IMAGE, image.name) == image.name)
    except Exception:  # decoders raise almost anything on damaged files, and there may be none
        return True


def _work(
    model: SegmentationModel,
    image: ImageFile,
    decoding: Future[Pixels],
    out: Path,
    settings: PredictionSettings,
    *,
    overlays: bool,
) -> bool:
    """Make what is missing of one image; whether its mask is new."""
    try:
        pixels = decoding.result()
    except OSError as error:  # of reading; one of writing is no fault of the image
        raise DataError(
            f"Image {image.path} can't be read ({error}). Replace it or its permissions."
        ) from error
    path = out / image.mask_name
    is_new = not path.exists()
    if is_new:
        mask = model.predict(pixels, settings)
    else:
        mask = read_mask(path)
        if mask.shape != pixels.shape[:2]:
            raise DataError(f"{path} has another size than its image. Delete the mask to predict it again.")
    if overlays:
        with atomic_path(out / image.overlay_name) as temporary:
            picture = Image.fromarray(overlay(pixels, mask, model.palette))
            picture.save(temporary, format="JPEG", quality=90)
    if is_new:
        write_indexed(path, mask, model.palette, image_name=image.name)
    return is_new


def _is_missing(image: ImageFile, out: Path, overlays: bool) -> bool:
    return not (out / image.mask_name).exists() or (overlays and not (out / image.overlay_name).exists())


def _decoded(images: Sequence[ImageFile]) -> Iterator[tuple[ImageFile, Future[Pixels]]]:
    """Images with their pixels to come; the next ones are decoded meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[tuple[ImageFile, Future[Pixels]]] = deque()
        for image in images:
            waiting.append((image, pool.submit(decode, image.path)))
            if len(waiting) > _AHEAD:
                yield waiting.popleft()
        yield from waiting


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Hold the output folder; the system lets go when the process dies."""
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        raise StageError(
            f"Another process writes masks to {out}. Wait until it has finished, or give another folder."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _claim(out: Path, wanted: dict[str, Any]) -> None:
    """Make sure that all masks of the folder are of one model, of the same settings and of one folder."""
    found = read_manifest(out)
    if found is None:
        if any(not path.name.startswith(".") for path in out.rglob("*.png")):
            raise DataError(
                f"{out} holds PNG files, but no readable {MANIFEST} that says which model made them. "
                "Give another folder, or delete these files."
            )
        write_atomically(out / MANIFEST, (json.dumps(wanted, indent=1) + "\n").encode())
        return
    start = wanted.get(IMAGES)
    if start is not None and found.get(IMAGES, start) != start:  # older manifests don't say
        raise DataError(
            f"{out} holds masks of images below {found[IMAGES]}, and these are below {start}, so the same "
            "names may mean other images. Give another folder, or delete these masks."
        )
    different = [key for key, value in wanted.items() if key != IMAGES and found.get(key) != value]
    if different:
        raise DataError(
            f"{out} holds masks that were made otherwise ({', '.join(different)}). "
            "Give another folder, or delete these masks."
        )


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The folder's `predictions.json`; None where it is missing, damaged or none."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    names = found.get("class_names") if isinstance(found, dict) else None
    if not isinstance(names, list) or not 0 < len(names) <= MOST_CLASSES:
        return None
    return found if all(isinstance(name, str) for name in names) else None
