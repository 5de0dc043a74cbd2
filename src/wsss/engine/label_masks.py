"""The masks of a labelled folder: one for every image, from its tags or from the network."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss.data import Dataset
from wsss.data.digests import file_digests
from wsss.data.masks_png import read_mask
from wsss.data.splits import ALL
from wsss.training.checkpoint import remove_leftovers, write_atomically
from wsss.training.journal import Progress


@dataclass(frozen=True)
class ClassRow:
    """How one class came out.

    Args:
        name: of the class.
        tagged: images whose tags name it.
        found: those of them whose mask shows it.
        share: mean share of their pixels that are the class, in [0, 1]; None without such images.
    """

    name: str
    tagged: int
    found: int
    share: float | None


def touched_masks(dataset: Dataset, target: Path) -> tuple[Path, ...]:
    """All masks that are written, and those there for other images, which are deleted."""
    written = [target / f"{image_id}.png" for image_id in dataset.ids(ALL)]
    return tuple(dict.fromkeys((*written, *_visible_masks(target))))


def intended_masks(
    dataset: Dataset, from_maps: Path, from_network: Path, target: Path
) -> dict[Path, str | None]:
    """The digest of every mask that is to be there; None for those of images that are gone."""
    sources = _sources(dataset, from_maps, from_network)
    digests = file_digests(list(sources.values()))
    written = {target / f"{image_id}.png": digest for image_id, digest in zip(sources, digests, strict=True)}
    return dict.fromkeys(_visible_masks(target)) | written


def write_masks(
    dataset: Dataset, from_maps: Path, from_network: Path, target: Path, progress: Progress
) -> tuple[tuple[ClassRow, ...], tuple[int, int]]:
    """One mask per image; rows of the classes, and how many masks came from tags and from the network."""
    names, sources = dataset.class_names, _sources(dataset, from_maps, from_network)
    tagged, found, shares = (np.zeros(len(names)) for _ in range(3))
    by_tags = 0
    _make_room(target, {target / f"{image_id}.png" for image_id in sources})
    for done, (image_id, source) in enumerate(sources.items(), start=1):
        path = target / f"{image_id}.png"
        write_atomically(path, source.read_bytes())
        if dataset.is_tagged(image_id):
            by_tags += 1
            mask = read_mask(path)
            present = np.flatnonzero(dataset.image_labels(image_id)) + 1
            pixels = np.bincount(mask.ravel(), minlength=256)[present]
            tagged[present] += 1
            found[present] += pixels > 0
            shares[present] += pixels / mask.size
        progress(done, len(sources), "masks")
    rows = tuple(
        ClassRow(name, int(count), int(seen), float(share / count) if count else None)
        for name, count, seen, share in zip(names[1:], tagged[1:], found[1:], shares[1:], strict=True)
    )
    return rows, (by_tags, len(sources) - by_tags)


def _sources(dataset: Dataset, from_maps: Path, from_network: Path) -> dict[str, Path]:
    """The mask that each image gets: that of its tags, or the network's where it has none."""
    return {
        image_id: (from_maps if dataset.is_tagged(image_id) else from_network) / f"{image_id}.png"
        for image_id in dataset.ids(ALL)
    }


def _make_room(target: Path, paths: Collection[Path]) -> None:
    """Make the folders of these masks, and delete what an earlier call left for images that are gone."""
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
    for path in _visible_masks(target):
        if path not in paths:
            path.unlink()


def _visible_masks(target: Path) -> list[Path]:
    """Masks that are there, whoever wrote them; hidden files are what systems and killed processes left."""
    return [path for path in target.rglob("*.png") if not path.name.startswith(".")]
