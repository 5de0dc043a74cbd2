"""Word maps: the visual word of every pixel, for methods that have a codebook, and what each word means.

The network sees each image once, in its own size. A word map is an image file of word numbers: indexed
colours up to 256 words, so that any viewer shows each word as a colour, 16-bit grey beyond.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from wsss.activation.extract import MAX_PIXELS, capped_size, resized
from wsss.data.dataset import Dataset
from wsss.data.masks_png import write_mask
from wsss.errors import DataError
from wsss.methods.base import Method
from wsss.training.checkpoint import atomic_path, write_atomically
from wsss.training.journal import Progress

CLASSES_FILE: Final = "words.json"  # written last
INDEXED_WORDS: Final = 256  # more don't fit 8 bits

Words = npt.NDArray[np.int64]


def write_words(
    method: Method,
    dataset: Dataset,
    ids: Sequence[str],
    folder: Path,
    *,
    num_words: int,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write `<image id>.png` for every image that has none yet, then `words.json`.

    Args:
        method: trained, with `word_labels` and `word_classes`; put into evaluation mode on `device`.
        dataset: gives images; neither labels nor masks are read.
        ids: images.
        folder: where to write.
        num_words: W.
        device: None: where the method is.
        progress: told after each image.

    Returns:
        How many images there are and how many words occur in them.
    """
    device = next(method.parameters()).device if device is None else torch.device(device)
    method.to(device).eval()
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(num_words, dtype=np.int64)
    for done, image_id in enumerate(ids, start=1):
        path = word_file(folder, image_id)
        if path.is_file():
            words = read_words(path)
        else:
            words = _words(method, dataset.sample(image_id).image, device)
            _write(path, words, num_words)
        pixels += np.bincount(words.ravel(), minlength=num_words)
        if progress is not None:
            progress(done, len(ids), "images")
    found = {"classes": method.word_classes().tolist(), "pixels": pixels.tolist()}
    write_atomically(folder / CLASSES_FILE, (json.dumps(found) + "\n").encode())
    return {"images": len(ids), "words": num_words, "used_words": int((pixels > 0).sum())}


def word_file(folder: Path, image_id: str) -> Path:
    """The word map of an image."""
    return folder / f"{image_id}.png"


def read_words(path: Path) -> Words:
    """Word numbers of a word map; (H, W), int64.

    Raises:
        DataError: the file is missing or unreadable.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return np.array(image).astype(np.int64)
    except Exception as error:  # decoders raise almost anything on damaged files
        raise DataError(
            f"There is no readable word map {path}. Delete it, and run the same command again."
        ) from error


def read_word_classes(folder: Path) -> Words:
    """What each word speaks for, 0…K, as the method itself says; (W,), int64."""
    found = json.loads((folder / CLASSES_FILE).read_text(encoding="utf-8"))
    return np.array(found["classes"], dtype=np.int64)


@torch.inference_mode()
def _words(method: Method, image: npt.NDArray[np.uint8], device: torch.device) -> Words:
    """The word of every pixel of an image: that of the nearest cell."""
    shown = resized(image, capped_size(image.shape[:2], MAX_PIXELS), Image.Resampling.BICUBIC)
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (method.mean, method.std))
    pixels = torch.from_numpy(np.ascontiguousarray(shown)).to(device).permute(2, 0, 1).float()
    labels = method.word_labels(((pixels / 255 - mean) / std)[None])  # (1, h, w)
    whole = F.interpolate(labels[None].float(), size=image.shape[:2], mode="nearest-exact")
    words: Words = whole[0, 0].long().cpu().numpy()  # float32 holds these numbers exactly
    return words


def _write(path: Path, words: Words, num_words: int) -> None:
    if num_words <= INDEXED_WORDS:
        write_mask(path, words.astype(np.uint8))
        return
    with atomic_path(path) as temporary:
        Image.fromarray(words.astype(np.uint16)).save(temporary, format="PNG")
