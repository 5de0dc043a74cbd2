import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.data.masks_png import read_mask, voc_palette, write_mask
from wsss.errors import DataError, ShapeError


def test_a_mask_survives_writing_and_reading(tmp_path: Path) -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(8, 32)
    write_mask(tmp_path / "deep" / "mask.png", mask)
    assert np.array_equal(read_mask(tmp_path / "deep" / "mask.png"), mask)
    with Image.open(tmp_path / "deep" / "mask.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image.convert("RGB")), voc_palette()[mask])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["mask.png"]


def test_small_values_keep_the_whole_palette(tmp_path: Path) -> None:
    write_mask(tmp_path / "mask.png", np.array([[0, 1]], np.uint8)[:, ::-1])
    assert read_mask(tmp_path / "mask.png").tolist() == [[1, 0]]


def test_the_palette_is_that_of_voc() -> None:
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        8: (64, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
    }
    for value, colour in known.items():
        assert tuple(voc_palette()[value].tolist()) == colour
    assert voc_palette()[255].tolist() == [224, 224, 192]
    assert len({tuple(colour) for colour in voc_palette().tolist()}) == 256


def test_grey_masks_and_few_bits_are_read(tmp_path: Path) -> None:
    values = np.array([[0, 1], [3, 2]], np.uint8)
    Image.fromarray(values).save(tmp_path / "grey.png")
    assert np.array_equal(read_mask(tmp_path / "grey.png"), values)
    image = Image.fromarray(values)
    image.putpalette([0, 0, 0, 9, 9, 9, 8, 8, 8, 7, 7, 7])
    image.save(tmp_path / "bits.png", bits=2)
    assert np.array_equal(read_mask(tmp_path / "bits.png"), values)


GREY, INDEXED = 0, 3  # colour types of the PNG specification


def png(values: np.ndarray, depth: int, colour_type: int) -> bytes:
    """A PNG file written bit by bit, so that no other library's idea of `values` comes in between."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape
    bits = (values[..., None] >> np.arange(depth - 1, -1, -1)) & 1  # (H, W, depth), highest bit first
    rows = np.packbits(bits.reshape(height, width * depth), axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)  # filter 0: bytes as they are
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    colours = chunk(b"PLTE", bytes(range(200, 200 - 3, -1)) * 2**depth) if colour_type == INDEXED else b""
    parts = (chunk(b"IHDR", header), colours, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("colour_type", [GREY, INDEXED], ids=["grey", "indexed"])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_values_are_read_as_they_stand_whatever_their_bits(
    depth: int, colour_type: int, tmp_path: Path
) -> None:
    values = np.random.default_rng(depth).integers(0, 2**depth, (5, 7), dtype=np.uint8)
    values[0, :2] = 0, 2**depth - 1
    (tmp_path / "mask.png").write_bytes(png(values, depth, colour_type))
    found = read_mask(tmp_path / "mask.png")
    assert found.dtype == np.uint8
    assert np.array_equal(found, values)


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(png(np.ones((2, 3), np.uint16), 16, GREY))
    with pytest.raises(DataError, match=r"mask\.png must be an indexed"):
        read_mask(tmp_path / "mask.png")


def test_colours_instead_of_values_are_refused(tmp_path: Path) -> None:
    for mode in ("RGB", "RGBA", "I;16", "LA"):
        Image.new(mode, (3, 3)).save(tmp_path / "mask.png")
        with pytest.raises(
            DataError, match=rf"mask\.png must be an indexed .* got mode {mode}.*class numbers"
        ):
            read_mask(tmp_path / "mask.png")


def test_missing_empty_and_damaged_masks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    with pytest.raises(DataError, match=r"There is no mask .*mask\.png"):
        read_mask(path)
    path.touch()
    with pytest.raises(DataError, match=r"mask\.png is empty"):
        read_mask(path)
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (50, 50), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DataError, match=r"mask\.png is no readable PNG"):
        read_mask(path)


def test_only_eight_bit_planes_are_written(tmp_path: Path) -> None:
    for wrong in (np.zeros((2, 2), np.int64), np.zeros((2, 2, 3), np.uint8), np.zeros((0, 2), np.uint8)):
        with pytest.raises(ShapeError, match="uint8"):
            write_mask(tmp_path / "mask.png", wrong)
    assert not list(tmp_path.iterdir())
