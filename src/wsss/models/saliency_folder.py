"""Saliency maps for a plain folder of images, which need no data set, tags or masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch

from wsss.data.image_folder import ImageFolder
from wsss.data.images import decode
from wsss.errors import DataError
from wsss.models.saliency import SaliencyDetector, detect_missing, load_detector
from wsss.training.checkpoint import write_atomically
from wsss.training.journal import Progress

CARD: Final = "saliency.json"  # names the detector that made a folder's maps


def detect_image_folder(
    images: Path,
    out: Path,
    *,
    device: torch.device,
    source: str = "embedded",
    weights: str | None = None,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Write a map for every image under a folder; a call that was interrupted is gone on with.

    Args:
        images: folder of images; those in folders below it count too.
        out: folder for the maps, `<image id>.png` each, and for `saliency.json`, which names the detector.
        device: where an embedded detector runs.
        source: detector, as `load_detector` understands it.
        weights: of u2net.
        progress: called with images done, images in all and a note.

    Returns:
        Maps that are new, and maps that were there already.

    Raises:
        DataError: no images, `out` is the folder of the images, or it holds maps of another detector or of
            an unknown one.
        WeightsError: no such detector.
    """
    images, out = Path(images), Path(out)
    if out.resolve() == images.resolve():
        raise DataError(
            f"{out} is the folder of the images themselves. Give another folder for the maps, such as "
            "`--out saliency`."
        )
    detector = load_detector(source, weights=weights, device=device)
    _check_detector(out, detector)
    found = ImageFolder(images, without=[out])
    write_atomically(out / CARD, (json.dumps(_card(detector), indent=1) + "\n").encode())
    made = detect_missing(
        detector, lambda image_id: decode(found.path(image_id)), found.ids, out, progress=progress
    )
    return made, len(found.ids) - made


def _card(detector: SaliencyDetector) -> dict[str, Any]:
    return {"detector": detector.name, "sha256": detector.sha256}


def _read_card(out: Path) -> dict[str, Any] | None:
    """The folder's card; None where it is missing, damaged or no card."""
    try:
        card = json.loads((out / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return card if isinstance(card, dict) and "sha256" in card else None


def _check_detector(out: Path, detector: SaliencyDetector) -> None:
    """Raise `DataError` if the folder's maps are, or may be, another detector's: mixtures are no data set."""
    made = _read_card(out)
    if made is None:
        there = [path for path in out.rglob("*.png") if not path.name.startswith(".")]
        if there:
            raise DataError(
                f"{out} holds {len(there):,} PNG files, but no readable {CARD} that says which detector made "
                "them. Give another folder, or delete these files."
            )
        return
    if made.get("sha256") != detector.sha256:
        raise DataError(
            f"{out} holds maps of the detector `{made.get('detector')}`, not of `{detector.name}` as it is "
            "now. Give another folder, or delete these maps."
        )
