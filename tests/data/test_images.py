import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.data import images
from wsss.data.images import decode, image_size
from wsss.errors import DataError


@pytest.fixture
def picture():
    """RGB values that say where they come from; (20, 30, 3)."""
    rows, columns = np.mgrid[0:20, 0:30]
    return np.stack([rows * 10, columns * 8, (rows + columns) * 4], axis=-1).astype(np.uint8)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def turned_by_loops(values: np.ndarray, orientation: int) -> np.ndarray:
    """What EXIF says: which stored row and column each upright pixel is, one pixel after the other."""
    height, width = values.shape[:2]
    upright = np.zeros_like(values if orientation < 5 else values.transpose(1, 0, 2))
    for row in range(upright.shape[0]):
        for column in range(upright.shape[1]):
            up, left = height - 1 - row, width - 1 - column
            across_up, across_left = height - 1 - column, width - 1 - row
            stored = {
                1: (row, column),
                2: (row, left),
                3: (up, left),
                4: (up, column),
                5: (column, row),
                6: (across_up, row),
                7: (across_up, across_left),
                8: (column, across_left),
            }[orientation]
            upright[row, column] = values[stored]
    return upright


def exif(orientation: int) -> bytes:
    data = Image.Exif()
    data[0x0112] = orientation
    return data.tobytes()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".jpg", ".PNG"])
def test_every_format_is_read(tmp_path: Path, picture, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    Image.fromarray(picture).save(path, lossless=True, quality=100)
    decoded = decode(path)
    assert decoded.dtype == np.uint8
    assert decoded.flags.writeable
    assert np.abs(decoded.astype(int) - picture).max() <= (8 if suffix == ".jpg" else 0)
    assert image_size(path) == (20, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_exif_orientation_is_applied_and_known_from_the_header(
    tmp_path, picture, orientation, suffix
) -> None:
    path = tmp_path / f"image{suffix}"
    Image.fromarray(picture).save(path, lossless=True, exif=exif(orientation))
    decoded = decode(path)
    assert np.array_equal(decoded, turned_by_loops(picture, orientation))
    assert image_size(path) == decoded.shape[:2]


def test_jpeg_orientation_agrees_with_the_header(tmp_path: Path, picture) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(picture).save(path, quality=100, subsampling=0, exif=exif(6))
    assert image_size(path) == decode(path).shape[:2] == (30, 20)
    assert np.abs(decode(path).astype(int) - turned_by_loops(picture, 6)).max() <= 8


def test_png_orientation_is_found_behind_the_pixels(tmp_path: Path, picture) -> None:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    whole = file.getvalue()
    path = tmp_path / "late.png"
    path.write_bytes(whole[:-12] + chunk(b"eXIf", exif(8).removeprefix(b"Exif\x00\x00")) + whole[-12:])
    assert np.array_equal(decode(path), turned_by_loops(picture, 8))
    assert image_size(path) == (30, 20)


def test_damaged_exif_is_ignored(tmp_path: Path, picture) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(picture).save(path, exif=b"Exif\x00\x00MM\x00*nonsense")
    assert np.array_equal(decode(path), picture)
    assert image_size(path) == (20, 30)


def test_pixels_are_never_decoded_for_the_size(tmp_path: Path, picture, monkeypatch) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(picture).save(path)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("decoded"))
    assert image_size(path) == (20, 30)


def test_grey_and_binary_images_become_rgb(tmp_path: Path, picture) -> None:
    Image.fromarray(picture[..., 0]).save(tmp_path / "grey.png")
    assert np.array_equal(decode(tmp_path / "grey.png"), picture[..., [0, 0, 0]])
    Image.fromarray(picture[..., 0] > 90).save(tmp_path / "binary.png")
    expected = np.where(picture[..., :1] > 90, 255, 0).repeat(3, axis=2)
    assert np.array_equal(decode(tmp_path / "binary.png"), expected)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    decoded = decode(tmp_path / "deep.png")
    assert np.array_equal(decoded[..., 0], np.round(values / 257).astype(np.uint8))
    assert np.array_equal(decoded[..., 0], decoded[..., 2])


def test_transparent_parts_become_white(tmp_path: Path, picture) -> None:
    alpha = np.zeros((20, 30, 1), np.uint8)
    alpha[:10] = 255
    alpha[10] = 128
    Image.fromarray(np.concatenate([picture, alpha], axis=2)).save(tmp_path / "rgba.png")
    decoded = decode(tmp_path / "rgba.png")
    assert np.array_equal(decoded[:10], picture[:10])
    assert (decoded[11:] == 255).all()
    assert np.abs(decoded[10] - (picture[10] * (128 / 255) + 255 * (127 / 255))).max() < 1.01


def test_palette_images_keep_colours_and_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 2]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "palette.png")
    assert decode(tmp_path / "palette.png").tolist() == [
        [[10, 20, 30], [40, 50, 60]],
        [[70, 80, 90], [70, 80, 90]],
    ]
    image.save(tmp_path / "holes.png", transparency=2)
    assert decode(tmp_path / "holes.png").tolist() == [[[10, 20, 30], [40, 50, 60]], [[255] * 3, [255] * 3]]


def test_cmyk_jpeg_is_converted(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=100)
    assert np.abs(decode(tmp_path / "print.jpg")[8, 8].astype(int) - [255, 0, 0]).max() <= 4


@pytest.mark.parametrize("use", [decode, image_size])
def test_missing_empty_and_foreign_files_are_named_with_a_mend(tmp_path: Path, use) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image at all")
    Image.new("RGB", (4, 4)).save(tmp_path / "other.gif")
    (tmp_path / "folder.png").mkdir()
    for name, words in {
        "gone.jpg": "There is no image",
        "empty.jpg": "empty",
        "text.jpg": "no readable",
        "other.gif": "no readable",
        "folder.png": "is a folder",
    }.items():
        with pytest.raises(DataError, match=words) as caught:
            use(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_cut_and_corrupt_files_end_in_one_clear_error(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"image{suffix}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    for share in (0.02, 0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError) as caught:
            decode(path)
        assert str(path) in str(caught.value)
        assert "Replace" in str(caught.value)


def test_a_flipped_byte_in_a_png_is_noticed(tmp_path: Path, picture) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(picture).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"image\.png is damaged"):
        decode(path)


@pytest.mark.parametrize("use", [decode, image_size])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, use) -> None:
    path = tmp_path / "bomb.png"
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    with pytest.raises(DataError, match=r"bomb\.png must have at most 80,000,000 pixels.*`max_pixels`"):
        use(path)


def test_the_limit_can_be_lowered_and_raised(tmp_path: Path, picture, monkeypatch) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(picture).save(path)
    with pytest.raises(DataError, match="at most 599 pixels; got 20 x 30"):
        decode(path, max_pixels=599)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow would refuse 600 pixels
    with pytest.raises(DataError, match="far more"):
        decode(path, max_pixels=100)
    assert decode(path, max_pixels=1000).shape == (20, 30, 3)


def test_pillows_limit_is_wider_than_ours() -> None:
    assert Image.MAX_IMAGE_PIXELS is None or images.MAX_PIXELS < Image.MAX_IMAGE_PIXELS
