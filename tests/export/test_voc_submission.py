"""Archives for VOC's server: their exact layout, what must not get into one, and what a check must find."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.tiny_trees import LISTS, SIZE, write_voc
from wsss.data.masks_png import voc_palette, write_mask
from wsss.errors import DataError
from wsss.export import voc_submission
from wsss.export.voc_submission import check_submission, test_sizes, write_submission

FOLDER = "results/VOC2012/Segmentation/comp5_test_cls"
OTHER = FOLDER.replace("5", "6")
FIRST, SECOND = LISTS["test"]

test_sizes.__test__ = False  # a function of the package, not a test


@pytest.fixture
def sizes(tmp_path: Path) -> dict[str, tuple[int, int]]:
    return test_sizes(write_voc(tmp_path / "voc"))


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    for number, image_id in enumerate(LISTS["test"]):
        mask = np.random.default_rng(number).integers(0, 21, SIZE).astype(np.uint8)
        write_mask(tmp_path / "predictions" / f"{image_id}.png", mask)
    return tmp_path / "predictions"


def entries(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}


def test_the_sizes_are_those_of_the_listed_images(sizes: dict[str, tuple[int, int]]) -> None:
    assert sizes == dict.fromkeys(LISTS["test"], SIZE)


def test_an_archive_has_the_servers_layout(sizes, predictions: Path, tmp_path: Path) -> None:
    write_mask(predictions / "2007_000001.png", np.zeros(SIZE, np.uint8))  # of another split: not packed
    found = write_submission(predictions, tmp_path / "out" / "results.tar.gz", sizes)
    assert (found.competition, found.images) == ("comp5", 2)
    files = entries(tmp_path / "out" / "results.tar.gz")
    assert list(files) == [f"{FOLDER}/{image_id}.png" for image_id in sorted(LISTS["test"])]
    for number, image_id in enumerate(LISTS["test"]):
        content = files[f"{FOLDER}/{image_id}.png"]
        assert (content[24], content[25]) == (8, 3)  # bits and colour type in the PNG's header
        with Image.open(io.BytesIO(content)) as image:
            assert (image.mode, image.size) == ("P", SIZE[::-1])
            assert image.getpalette()[:768] == voc_palette().ravel().tolist()
            expected = np.random.default_rng(number).integers(0, 21, SIZE)
            assert np.array_equal(np.array(image), expected)
    checked = check_submission(tmp_path / "out" / "results.tar.gz", sizes)
    assert checked == found


def test_external_data_make_it_comp6_and_equal_predictions_equal_bytes(
    sizes, predictions: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one.tar.gz", tmp_path / "two.tgz"
    assert write_submission(predictions, one, sizes, external_data=True).competition == "comp6"
    write_submission(predictions, two, sizes, external_data=True)
    assert one.read_bytes() == two.read_bytes()
    assert all(name.startswith("results/VOC2012/Segmentation/comp6_test_cls/") for name in entries(one))
    assert check_submission(one).competition == "comp6"
    assert not check_submission(one).is_compared


def test_grey_predictions_get_the_palette(sizes, predictions: Path, tmp_path: Path) -> None:
    Image.new("L", SIZE[::-1], 7).save(predictions / f"{FIRST}.png")
    write_submission(predictions, tmp_path / "a.tar.gz", sizes)
    with Image.open(io.BytesIO(entries(tmp_path / "a.tar.gz")[f"{FOLDER}/{FIRST}.png"])) as image:
        assert image.convert("RGB").getpixel((0, 0)) == tuple(voc_palette()[7].tolist())


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (None, r"2008_000020\.png is missing"),
        (np.full(SIZE, 255, np.uint8), r"must hold 0-20 only; got 255"),
        (np.full(SIZE, 21, np.uint8), r"must hold 0-20 only; got 21"),
        (np.zeros(SIZE[::-1], np.uint8), r"must be 48 x 64 \(height x width\) like its image; got 64 x 48"),
    ],
)
def test_nothing_is_written_unless_all_is_right(
    sizes, predictions: Path, tmp_path: Path, mask: np.ndarray | None, words: str
) -> None:
    path = predictions / f"{FIRST}.png"
    path.unlink()
    if mask is not None:
        write_mask(path, mask)
    with pytest.raises(DataError, match=words):
        write_submission(predictions, tmp_path / "results.tar.gz", sizes)
    (predictions / f"{SECOND}.png").unlink()
    with pytest.raises(DataError, match=rf"{words} \(and 1 more\)"):
        write_submission(predictions, tmp_path / "results.tar.gz", sizes)
    assert not list(tmp_path.glob("*.gz")) + list(tmp_path.glob(".tmp-*"))


def test_wrong_names_and_lists_are_refused(sizes, predictions: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must end in \.tar\.gz"):
        write_submission(predictions, tmp_path / "results.zip", sizes)
    with pytest.raises(DataError, match="names no image"):
        write_submission(predictions, tmp_path / "a.tar.gz", {})
    Image.new("RGB", SIZE[::-1]).save(predictions / f"{FIRST}.png")
    with pytest.raises(DataError, match="must be an indexed"):
        write_submission(predictions, tmp_path / "a.tar.gz", sizes)


def png(mask: np.ndarray, mode: str = "P", palette: np.ndarray | None = None) -> bytes:
    image = Image.fromarray(mask)
    if mode == "P":
        image.putpalette((voc_palette() if palette is None else palette).tobytes())
    stream = io.BytesIO()
    (image if mode == "P" else image.convert(mode)).save(stream, format="PNG")
    return stream.getvalue()


GOOD = png(np.full(SIZE, 3, np.uint8))


def packed(path: Path, change: Callable[[tarfile.TarFile], None]) -> Path:
    """An archive with both masks and what `change` adds."""
    with tarfile.open(path, "w:gz") as tar:
        for image_id in LISTS["test"]:
            add(tar, f"{FOLDER}/{image_id}.png", GOOD)
        change(tar)
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes = GOOD, kind: bytes = tarfile.REGTYPE) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, len(content) if kind == tarfile.REGTYPE else 0
    member.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    tar.addfile(member, io.BytesIO(content) if kind == tarfile.REGTYPE else None)


def test_folders_above_the_masks_do_no_harm(sizes, tmp_path: Path) -> None:
    def with_folders(tar: tarfile.TarFile) -> None:
        kit = "results/VOC2012/Main"  # of another competition
        for name in ("results", "./results/VOC2012", "results/VOC2012/Segmentation/", FOLDER, kit):
            add(tar, name, kind=tarfile.DIRTYPE)

    assert check_submission(packed(tmp_path / "a.tar.gz", with_folders), sizes).images == 2


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("../../evil.png", tarfile.REGTYPE, r"entry '\.\./\.\./evil\.png' is no mask"),
        (f"{FOLDER}/../{FIRST}.png", tarfile.REGTYPE, "is no mask"),
        (f"/{FOLDER}/{FIRST}.png", tarfile.REGTYPE, "is no mask"),
        (f"{FOLDER}/{FIRST}.jpg", tarfile.REGTYPE, "is no mask"),
        (f"{FOLDER}/x/2008_000099.png", tarfile.REGTYPE, "is no mask"),
        (f"{FOLDER}/2008_000099.png", tarfile.SYMTYPE, "is no mask"),
        (f"{FOLDER}/2008_000099.png", tarfile.LNKTYPE, "is no mask"),
        (f"{FOLDER}/2008_000099.png", tarfile.FIFOTYPE, "is no mask"),
        (f"{FOLDER}/2008_000099.png", tarfile.REGTYPE, "2008_000099 is not on the test list"),
        (f"{FOLDER}/{FIRST}.png", tarfile.REGTYPE, rf"{FIRST}\.png is there twice"),
        (
            f"{OTHER}/2008_000099.png",
            tarfile.REGTYPE,
            "2008_000099 is not on the test list",
        ),
        ("../up", tarfile.DIRTYPE, "folder '../up' has no place there"),
        ("other", tarfile.DIRTYPE, "folder 'other' has no place there"),
    ],
)
def test_entries_that_do_not_belong_there_are_found(
    sizes, tmp_path: Path, name: str, kind: bytes, words: str
) -> None:
    archive = packed(tmp_path / "a.tar.gz", lambda tar: add(tar, name, kind=kind))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=words):
        check_submission(archive, sizes)
    assert sorted(tmp_path.rglob("*")) == before  # nothing is extracted


def test_masks_of_two_competitions_are_found(tmp_path: Path) -> None:
    other = f"{OTHER}/2008_000099.png"
    with pytest.raises(DataError, match="masks of one competition"):
        check_submission(packed(tmp_path / "a.tar.gz", lambda tar: add(tar, other)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (png(np.zeros(SIZE, np.uint8), "L"), "is no 8-bit indexed PNG"),
        (png(np.zeros(SIZE, np.uint8), "RGB"), "is no 8-bit indexed PNG"),
        (png(np.full(SIZE, 255, np.uint8)), "must hold 0-20 only; got 255"),
        (png(np.zeros((10, 20), np.uint8)), "must be 48 x 64"),
        (png(np.zeros(SIZE, np.uint8), palette=255 - voc_palette()), "must have the VOC palette"),
        (GOOD[:60], "is no readable PNG file"),
        (b"", "is no readable PNG file"),
        (b"GIF89a" + bytes(60), "is no readable PNG file"),
        (bytes((16 << 20) + 1), "far too large for a mask"),
        (png(np.zeros((5000, 4000), np.uint8)), "far too large for a mask"),
    ],
)
def test_what_is_no_mask_is_found(sizes, tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        add(tar, f"{FOLDER}/{FIRST}.png", content)
        add(tar, f"{FOLDER}/{SECOND}.png")
    with pytest.raises(DataError, match=words):
        check_submission(path, sizes)


def test_missing_masks_and_damaged_archives_are_found(sizes, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        add(tar, f"{FOLDER}/{FIRST}.png")
    with pytest.raises(DataError, match=rf"{SECOND}\.png is missing"):
        check_submission(path, sizes)
    assert check_submission(path).images == 1
    whole = packed(path, lambda tar: None).read_bytes()
    for damaged in (b"", whole[:40], whole[:-30], gzip.compress(b"no tar"), b"no gzip at all"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"is no complete tar\.gz file|can't be submitted"):
            check_submission(path, sizes)
    path.unlink()
    with pytest.raises(DataError, match="There is no archive"):
        check_submission(path, sizes)


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE, fill: bytes = b"") -> bytes:
    """An entry that says it has `size` bytes, and has `fill`."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT) + fill + bytes(-len(fill) % 512)


MASK = f"{FOLDER}/{FIRST}.png"
BOMBS = {
    "a huge mask": (header(MASK, 300 << 20), "far too large for a mask (314,572,800 bytes)"),
    "a terabyte": (header(MASK, 1 << 40), "far too large for a mask"),
    "a negative size": (header(MASK, -512), "far too large for a mask (-512 bytes)"),
    "a huge file elsewhere": (header("x", 300 << 20), "far too large for a mask"),
    "a huge long name": (header("x", 300 << 20, tarfile.GNUTYPE_LONGNAME), "far too large for its header"),
    "a huge note": (header("x", 300 << 20, tarfile.XHDTYPE), "far too large for its header"),
    "notes without end": (
        header("x", 9, tarfile.XGLTYPE, b"9 a=bcde\n") * 50 + header(FOLDER, 0, tarfile.DIRTYPE),
        "it has more than 40 entries",
    ),
    "entries without end": (header(FOLDER, 0, tarfile.DIRTYPE) * 50, "it has more than 40 entries"),
    "nothing but zeros": (header(FOLDER, 0, tarfile.DIRTYPE), "it unpacks to more than 8,388,608 bytes"),
}


@pytest.fixture(scope="module")
def zeros() -> bytes:
    """300 MB, compressed."""
    packed = io.BytesIO()
    with gzip.open(packed, "wb", 1) as stream:
        for _ in range(300):
            stream.write(bytes(1 << 20))
    return packed.getvalue()


@pytest.mark.parametrize(("start", "words"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_before_it_fills_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zeros: bytes, start: bytes, words: str
) -> None:
    monkeypatch.setattr(voc_submission, "MOST_BYTES", 8 << 20)
    monkeypatch.setattr(voc_submission, "MOST_HEADERS", 40)
    archive = tmp_path / "bomb.tar.gz"
    archive.write_bytes(gzip.compress(start) + zeros)  # files of gzip may be joined
    assert archive.stat().st_size < 2 << 20
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            check_submission(archive)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert words in str(caught.value)
    assert "Write it again with `wsss submission`." in str(caught.value)
    assert most < 10 << 20  # bytes, of 300 MB


def test_sparse_and_renamed_entries_get_no_larger(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    note = b"28 size=9999999999999999999\n"
    renamed = header("x", len(note), tarfile.XHDTYPE, note) + header(MASK, len(GOOD), fill=GOOD)
    archive.write_bytes(gzip.compress(renamed + bytes(10_240)))
    with pytest.raises(DataError, match=r"ends too early"):
        check_submission(archive)
    sparse = bytearray(header(MASK, 0, tarfile.GNUTYPE_SPARSE))
    sparse[483:495] = b"77777777777\0"  # the size that it is to have: 8 GB
    archive.write_bytes(gzip.compress(bytes(sparse) + bytes(10_240)))
    with pytest.raises(DataError, match=r"is no mask|is no complete"):
        check_submission(archive)


def test_a_whole_archive_of_vocs_size_stays_far_below_the_limits() -> None:
    rows = 500 * 501  # each row of a PNG has a byte of its own
    assert rows * 1.01 + 2_000 < voc_submission.LARGEST_FILE
    assert voc_submission.TEST_IMAGES * (rows * 1.01 + 2_000) < voc_submission.MOST_BYTES
    assert voc_submission.LARGEST_MASK >= 500 * 500
    assert 2 * (voc_submission.TEST_IMAGES + 5) < voc_submission.MOST_HEADERS
