"""Archives for the evaluation server of PASCAL VOC 2012, which alone knows the masks of the test split.

An archive holds `results/VOC2012/Segmentation/comp5_test_cls/<id>.png` for every image of the test list
(comp6 where other data than VOC's were learned from): 8-bit indexed PNG files with the VOC palette, of the
images' sizes, with values 0-20 only. The server takes few archives a week, so everything is checked before
one is written, and again on demand. Nothing is ever extracted, and an archive that unpacks to far more than
masks of VOC's images can take is refused before it fills the memory or takes its time.

Source:
    The PASCAL VOC 2012 development kit, section on results files for segmentation.
"""

from __future__ import annotations

import gzip
import io
import itertools
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from wsss.data.image_folder import ImageFolder
from wsss.data.images import image_size
from wsss.data.masks_png import read_mask, voc_palette
from wsss.data.splits import Splits, lists_in
from wsss.data.voc import VOC_CLASSES
from wsss.engine.run import read_run
from wsss.errors import DataError
from wsss.training.checkpoint import atomic_path

TEST_IMAGES: Final = 1_456
OWN_DATA, EXTERNAL_DATA = "comp5", "comp6"

MOST_HEADERS: Final = 4_000  # an entry has one, or two where its name is long; 1,456 masks need fewer
LARGEST_NOTE: Final = 1 << 12  # bytes of a header that only says more of the next entry
MOST_BYTES: Final = (
    1 << 29
)  # of an unpacked archive; 1,456 masks of 500 x 500 pixels take 0.37 GB uncompressed
LARGEST_FILE: Final = 1 << 20  # bytes of a mask; one of VOC's largest images takes 0.25 MB uncompressed
LARGEST_MASK: Final = 1 << 20  # pixels; VOC's largest images have a quarter of that

_FOLDER: Final = "results/VOC2012/Segmentation/{}_test_cls"
_PLACE: Final = re.compile(r"results/VOC2012/Segmentation/(comp[56])_test_cls/([A-Za-z0-9_-]+)\.png")
_PIECE: Final = 1 << 20
_MOST_ENDS: Final = 100  # times that the end is read
_NUM_CLASSES: Final = len(VOC_CLASSES) + 1
_INDEXED: Final = (8, 3)  # bit depth and colour type of the PNG specification

Sizes = Mapping[str, tuple[int, int]]
"""(height, width) of every image of the test list, by id."""


@dataclass(frozen=True)
class Submission:
    """What an archive holds.

    Args:
        competition: comp5 (VOC's data only) or comp6.
        images: number of predicted masks.
        is_compared: whether ids and sizes were compared with those of the test images.
    """

    competition: str
    images: int
    is_compared: bool


def test_sizes(root: Path) -> dict[str, tuple[int, int]]:
    """Sizes of the test images of a VOC tree, in the order of `ImageSets/Segmentation/test.txt`.

    Raises:
        DataError: the tree lacks the list or an image.
    """
    images = ImageFolder(root / "JPEGImages")
    splits = Splits(images, lists=lists_in(root / "ImageSets" / "Segmentation"), first_word_only=True)
    return {image_id: image_size(images.path(image_id)) for image_id in splits.ids("test")}


def predictions_of_run(run: Path) -> tuple[Path, Path]:
    """The folder of a run's predictions of the test split, and the VOC tree that they are of.

    Those behind a dense CRF are taken where the run has any.

    Raises:
        DataError: the run is not of a VOC tree, or predicted no test images.
        StageError: there is no finished run.
    """
    record = read_run(run)
    data = record["dataset_config"]
    if data["kind"] != "voc":
        raise DataError(f"VOC's server judges `kind: voc` only; {run} is of `{data['kind']}`.")
    made = {stage["name"]: stage["folder"] for stage in record["stages"]}
    folder = made.get("predict-crf") or made.get("predict")
    if folder is None or data["val_split"] != "test":
        got = "none" if folder is None else f"those of `{data['val_split']}`"
        raise DataError(
            f"{run} must hold predictions of the split `test`; got {got}. Run its recipe again with "
            "`--set data.val_split=test`: what is trained already is taken over."
        )
    return (run / folder / "predictions").resolve(), Path(data["root"])


def check_competition(run: Path, *, external_data: bool) -> None:
    """Refuse comp5, which is for VOC's data alone, for a run that learned from more.

    Raises:
        DataError: the run read pretrained weights, or was guided by language or saliency.
    """
    record = read_run(run)
    if not external_data and (record["weights"] or "+" in record["supervision"]):
        what = ", ".join(sorted(record["weights"])) or f"supervision {record['supervision']}"
        raise DataError(
            f"{run} learned from more than VOC's data ({what}), which comp5 does not allow. "
            "Give `--external-data`: the archive becomes one of comp6."
        )


def write_submission(
    predictions: Path,
    out: Path,
    sizes: Sizes,
    *,
    external_data: bool = False,
    progress: Callable[[int, int, str], object] | None = None,
) -> Submission:
    """Check all predictions, then write the archive; the same predictions give the same bytes.

    Args:
        predictions: holds `<id>.png`, indexed or grey, of class numbers.
        out: the archive, `.tar.gz` or `.tgz`; replaced where it is there.
        sizes: of all test images.
        external_data: whether more than VOC's own data was learned from (comp6 in place of comp5).
        progress: told after each image.

    Raises:
        DataError: predictions are missing, or one has another size or other values; nothing is written.
    """
    if not out.name.endswith((".tar.gz", ".tgz")):
        raise DataError(f"An archive's name must end in .tar.gz or .tgz; got {out.name}. Change `--out`.")
    if not sizes:
        raise DataError("The test list names no image. Name the tree of PASCAL VOC 2012's test images.")
    files: dict[str, bytes] = {}
    problems: list[str] = []
    for done, (image_id, size) in enumerate(sorted(sizes.items()), start=1):
        path = predictions / f"{image_id}.png"
        mask = read_mask(path) if path.is_file() else None
        problem = f"{path.name} is missing" if mask is None else _problem(path.name, mask, size)
        if problem is not None:
            problems.append(problem)
        elif mask is not None:
            files[image_id] = _encoded(mask)
        if progress is not None:
            progress(done, len(sizes), "images")
    _raise(problems, f"{predictions} can't be submitted")
    competition = EXTERNAL_DATA if external_data else OWN_DATA
    with atomic_path(out) as temporary:
        temporary.write_bytes(_archive(_FOLDER.format(competition), files))
    return Submission(competition, len(files), is_compared=True)


def check_submission(archive: Path, sizes: Sizes | None = None) -> Submission:
    """Check an archive without extracting anything.

    Args:
        archive: a gzip-compressed tar file.
        sizes: of all test images; None: only names and contents are checked.

    Raises:
        DataError: it can't be read, holds anything but masks in one place, or not those of the test images.
    """
    if not archive.is_file():
        raise DataError(f"There is no archive {archive}. Name a file that `wsss submission --out` wrote.")
    found: dict[str, str] = {}
    problems: list[str] = []
    try:
        with gzip.open(archive) as unpacked:
            stream: Any = _Bounded(unpacked)
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_header_class()) as tar:  # forwards only
                for member in tar:
                    problem = _member_problem(tar, member, found, sizes)
                    if problem is not None:
                        problems.append(problem)
            while stream.read(_PIECE):  # up to the checksum, which comes last
                pass
    except _TooMuchError as error:
        first = f", and {problems[0]}" if problems else ""
        raise DataError(
            f"Archive {archive} must hold masks of VOC's {TEST_IMAGES:,} test images and no more: {error}"
            f"{first}. Write it again with `wsss submission`."
        ) from error
    except Exception as error:  # decoders raise almost anything on damaged files
        raise DataError(
            f"Archive {archive} is no complete tar.gz file ({type(error).__name__}: {error}). Write it again "
            "with `wsss submission`."
        ) from error
    competitions = sorted(set(found.values()))
    if len(competitions) != 1:
        problems.append(f"it must hold masks of one competition; got {competitions or 'none'}")
    if sizes is not None:
        problems += [f"{image_id}.png is missing" for image_id in sorted(sizes.keys() - found.keys())]
    _raise(problems, f"Archive {archive} can't be submitted")
    return Submission(competitions[0], len(found), is_compared=sizes is not None)


class _TooMuchError(Exception):
    """An archive holds more than masks of VOC's test images can take."""


class _Bounded:
    """What a file unpacks to, up to `MOST_BYTES`.

    Args:
        file: gives the unpacked bytes.
    """

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file, self._left, self._ends = file, MOST_BYTES, 0

    def read(self, size: int) -> bytes:
        """The next bytes."""
        found = self._file.read(size)
        self._left -= len(found)
        if self._left < 0:
            raise _TooMuchError(f"it unpacks to more than {MOST_BYTES:,} bytes")
        self._ends += not found
        if self._ends > _MOST_ENDS:  # whoever skips an entry that promises more than there is reads on and on
            raise EOFError("an entry ends too early")
        return found


def _header_class() -> type[tarfile.TarInfo]:
    """Reads headers, and refuses one too many, or what is far too large for a mask before it is unpacked."""
    seen = itertools.count(1)

    class Header(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, *arguments: Any, **named: Any) -> Any:
            header = super().frombuf(*arguments, **named)
            if next(seen) > MOST_HEADERS:
                raise _TooMuchError(f"it has more than {MOST_HEADERS:,} entries")
            is_note = header.type not in tarfile.REGULAR_TYPES  # nor do links and folders hold anything
            if not 0 <= header.size <= (LARGEST_NOTE if is_note else LARGEST_FILE):
                what = "its header" if is_note else "a mask"
                raise _TooMuchError(
                    f"{header.name[:100]!r} is far too large for {what} ({header.size:,} bytes)"
                )
            return header

    return Header


def _member_problem(
    tar: tarfile.TarFile, member: tarfile.TarInfo, found: dict[str, str], sizes: Sizes | None
) -> str | None:
    """What is wrong with one entry; notes its image in `found`."""
    name = member.name.removeprefix("./")
    if member.isdir():
        parts = [f"{_FOLDER.format(c)}/" for c in (OWN_DATA, EXTERNAL_DATA)]
        is_above = name in ("", ".") or any(part.startswith(f"{name.rstrip('/')}/") for part in parts)
        # the development kit has folders for VOC's other competitions, empty ones do no harm
        is_kit = name.startswith("results/VOC2012/") and ".." not in name.split("/")
        return None if is_above or is_kit else f"folder {name!r} has no place there"
    place = _PLACE.fullmatch(name)
    if place is None or not member.isreg() or member.issparse():
        return f"entry {name!r} is no mask in {_FOLDER.format('comp5')}"
    competition, image_id = place.groups()
    if image_id in found:
        return f"{image_id}.png is there twice"
    found[image_id] = competition
    if sizes is not None and image_id not in sizes:
        return f"{image_id} is not on the test list"
    # the size in the header was looked at already, but a second header may give another
    stream = tar.extractfile(member) if 0 <= member.size <= LARGEST_FILE else None
    if stream is None:
        return f"{image_id}.png is far too large for a mask ({member.size:,} bytes)"
    return _file_problem(f"{image_id}.png", stream.read(), sizes[image_id] if sizes is not None else None)


def _file_problem(name: str, content: bytes, size: tuple[int, int] | None) -> str | None:
    """What is wrong with the bytes of a mask."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if tuple(content[24:26]) != _INDEXED:
                return f"{name} is no 8-bit indexed PNG"
            if image.width * image.height > LARGEST_MASK:
                return f"{name} is far too large for a mask ({image.height} x {image.width} pixels)"
            mask = np.array(image)
            palette = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)[:_NUM_CLASSES]
    except Exception as error:
        return f"{name} is no readable PNG file ({type(error).__name__})"
    problem = _problem(name, mask, size or mask.shape)
    if problem is None and not np.array_equal(palette, voc_palette()[: len(palette)]):
        return f"{name} must have the VOC palette"
    return problem


def _problem(name: str, mask: np.ndarray, size: Sequence[int]) -> str | None:
    """What is wrong with the values of a mask."""
    if mask.shape != tuple(size):
        return (
            f"{name} must be {size[0]} x {size[1]} (height x width) like its image; got {mask.shape[0]} x "
            f"{mask.shape[1]}"
        )
    if mask.max() >= _NUM_CLASSES:
        return f"{name} must hold 0-{_NUM_CLASSES - 1} only; got {mask.max()}"
    return None


def _raise(problems: Sequence[str], what: str) -> None:
    if problems:
        others = f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""
        raise DataError(f"{what}: {problems[0]}{others}. Mend or predict these images, and try again.")


def _encoded(mask: np.ndarray) -> bytes:
    image = Image.fromarray(np.ascontiguousarray(mask))
    image.putpalette(voc_palette().tobytes())
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def _archive(folder: str, files: Mapping[str, bytes]) -> bytes:
    """A tar.gz without times and owners."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, filename="") as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for image_id, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{image_id}.png")
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()
