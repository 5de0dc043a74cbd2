"""Looks at every image file: can it be decoded, is it what its name says, are its pixels of a usual kind."""

from __future__ import annotations

import os
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from PIL import ExifTags, Image

from wsss.data.image_folder import ImageFolder
from wsss.data.image_work import work_on_images
from wsss.data.images import FORMATS, decode, image_size
from wsss.doctor.findings import Finding, about
from wsss.errors import WsssError
from wsss.training.journal import Progress

DECODED_WHEN_QUICK: Final = 300  # images, evenly spread
LARGE_PIXELS: Final = 24_000_000
SMALL_SIDE: Final = 32
NOT_READ: Final = frozenset({".tif", ".tiff", ".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".dng"})

_FORMAT_OF: Final = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP"}
_SAME_FORMAT: Final = {"MPO": "JPEG", "DIB": "BMP"}
_PNG_DEPTH: Final = 24  # place of a PNG file's bit depth
_ALPHA_MODES: Final = ("RGBA", "LA", "PA", "RGBa", "La")


@dataclass(frozen=True)
class ImageFacts:
    """What one file told.

    Args:
        size: (height, width) as it is decoded; None where it can't be.
        problem: why it can't be decoded, or "".
        format: what the content is, as Pillow names it; "" where unknown.
        marks: unusual things: codes of `MARKS`.
    """

    size: tuple[int, int] | None
    problem: str = ""
    format: str = ""
    marks: tuple[str, ...] = ()


MARKS: Final = {
    "exif-rotation": (
        "Images are stored lying, with an EXIF note that says how to turn them.",
        "wsss turns them when it reads them, so masks fit the turned image. Other programs may not: check "
        "that masks and images meet there.",
    ),
    "sixteen-bit": (
        "Images have 16 bits a channel.",
        "They are read with 8 bits, the full range scaled. Where all values are small, stretch them first.",
    ),
    "cmyk": (
        "Images are in CMYK, a format for print.",
        "They are converted without colour profiles, so colours may shift.",
    ),
    "palette": ("Images have a palette.", "They are converted to RGB. Make sure that they are no masks."),
    "alpha": ("Images have transparent parts.", "Transparent parts become white."),
    "animated": ("Files hold several images.", "Only the first one is read."),
}
"""Unusual things about pixels: what they are, and what becomes of them."""


def check_images(
    images: ImageFolder, *, max_pixels: int, quick: bool = False, progress: Progress | None = None
) -> tuple[dict[str, ImageFacts], list[Finding]]:
    """Read all files, several at once; memory does not grow with their number.

    Args:
        images: the files.
        max_pixels: larger ones are not decoded.
        quick: decode some of them only, read the headers of all.
        progress: told of images done and in all.

    Returns:
        What each file told, by id, and the findings.
    """
    ids = images.ids
    step = max(1, len(ids) // DECODED_WHEN_QUICK) if quick else 1
    decoded = set(ids[::step])
    facts: dict[str, ImageFacts] = {}
    lock = threading.Lock()

    def look(image_id: str) -> None:
        found = read_facts(images.path(image_id), max_pixels=max_pixels, decoded=image_id in decoded)
        with lock:
            facts[image_id] = found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks about single files are findings here
        work_on_images([[image_id] for image_id in ids], look, progress=progress)
    ordered = {image_id: facts[image_id] for image_id in ids}
    return ordered, [*_of_files(images, ordered), *_of_pixels(images, ordered), *_of_names(images)]


def read_facts(path: Path, *, max_pixels: int, decoded: bool = True) -> ImageFacts:
    """What one file tells; `decoded`: read its pixels too, which alone shows whether it is complete."""
    try:
        size = image_size(path, max_pixels=max_pixels)
        if decoded:
            height, width, _ = decode(path, max_pixels=max_pixels).shape
            size = height, width
        with Image.open(path, formats=FORMATS) as image:
            found = _SAME_FORMAT.get(image.format or "", image.format or "")
            return ImageFacts(size, "", found, _marks(image, path, size))
    except WsssError as error:
        return ImageFacts(None, str(error))
    except Exception as error:  # decoders raise almost anything on damaged files
        return ImageFacts(None, f"Image {path} can't be read ({type(error).__name__}).")


def _marks(image: Image.Image, path: Path, size: tuple[int, int]) -> tuple[str, ...]:
    found = {
        "exif-rotation": _is_turned(image, size),
        "sixteen-bit": image.mode.startswith("I") or _png_depth(image, path) == 16,
        "cmyk": image.mode == "CMYK",
        "palette": image.mode in ("P", "PA"),
        "alpha": image.mode in _ALPHA_MODES or "transparency" in image.info,
        "animated": getattr(image, "n_frames", 1) > 1 and image.format != "MPO",
    }
    return tuple(mark for mark, is_there in found.items() if is_there)


def _is_turned(image: Image.Image, size: tuple[int, int]) -> bool:
    """Whether EXIF says so; sides that were exchanged, or another orientation than 1."""
    if image.size[::-1] != size:
        return True
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1)) in range(2, 9)
    except Exception:  # damaged EXIF says nothing
        return False


def _png_depth(image: Image.Image, path: Path) -> int:
    if image.format != "PNG":
        return 8
    with path.open("rb") as file:
        return file.read(_PNG_DEPTH + 1)[-1]


def _of_files(images: ImageFolder, facts: dict[str, ImageFacts]) -> list[Finding]:
    broken = [image_id for image_id, found in facts.items() if found.problem]
    findings = []
    if broken:
        first = facts[broken[0]].problem
        findings = about(
            "error",
            "unreadable-image",
            f"Images can't be decoded. The first: {first}",
            "Replace these files, or remove them and their lines in the tags.",
            _names(images, broken),
        )
    wrong = [
        f"{images.relative(image_id)} (is {found.format})"
        for image_id, found in facts.items()
        if found.format and _FORMAT_OF[_suffix(images.relative(image_id))] != found.format
    ]
    return findings + about(
        "warning",
        "wrong-extension",
        "Names of files promise another format than they hold.",
        "wsss goes by the content; other programs may refuse them. Rename them.",
        wrong,
    )


def _of_pixels(images: ImageFolder, facts: dict[str, ImageFacts]) -> list[Finding]:
    findings: list[Finding] = []
    for mark, (what, advice) in MARKS.items():
        names = _names(images, (key for key, found in facts.items() if mark in found.marks))
        findings += about("note", mark, what, advice, names)

    def sized(is_meant: Callable[[int, int], bool]) -> Sequence[str]:
        return _names(images, (key for key, found in facts.items() if found.size and is_meant(*found.size)))

    findings += about(
        "note",
        "large-image",
        f"Images have more than {LARGE_PIXELS:,} pixels.",
        "Networks see them at a smaller size. Cut them into parts where small things matter.",
        sized(lambda height, width: height * width > LARGE_PIXELS),
    )
    findings += about(
        "warning",
        "small-image",
        f"Images have a side of less than {SMALL_SIDE} pixels.",
        "Networks see next to nothing in them. Leave them out, or use larger ones.",
        sized(lambda height, width: min(height, width) < SMALL_SIDE),
    )
    return findings


def _of_names(images: ImageFolder) -> list[Finding]:
    """Same names in several folders, and files beside the images that nothing reads."""
    by_stem: dict[str, list[str]] = defaultdict(list)
    for image_id in images.ids:
        by_stem[PurePosixPath(images.relative(image_id)).stem].append(images.relative(image_id))
    twins = [" = ".join(names[:2]) for names in by_stem.values() if len(names) > 1]
    findings = about(
        "note",
        "duplicate-name",
        "Images in several folders have the same name.",
        "Their ids are their paths; write the path into the tags.",
        twins,
    )
    return findings + about(
        "warning",
        "unread-format",
        "Images are of a format that is not read.",
        "Convert them to JPEG, PNG, BMP or WebP.",
        _others(images.folder),
    )


def _others(folder: Path) -> list[str]:
    found = []
    for current, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(current).relative_to(folder)
        found += [(below / name).as_posix() for name in sorted(files) if _suffix(name) in NOT_READ]
    return found


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _names(images: ImageFolder, ids: Iterable[str]) -> list[str]:
    return [images.relative(image_id) for image_id in ids]
