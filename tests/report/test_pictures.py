from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from wsss.report.class_colours import class_colour
from wsss.report.images import (
    LARGE_SIDE,
    SMALL_SIDE,
    data_uri,
    map_picture,
    mask_picture,
    shown_size,
    thumbnail,
)


def photograph(height: int = 200, width: int = 180) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(64, 96), (SMALL_SIDE, 20), (213, 320), (3000, 10), (1, 1), (10, 4000)])
def test_pictures_fit_and_keep_their_shape(size: tuple[int, int]) -> None:
    height, width = shown_size(*size)
    assert min(height, width) >= 1
    assert max(height, width) <= max(LARGE_SIDE, 2 * SMALL_SIDE)
    if min(size) > 20:
        assert height / width == pytest.approx(size[0] / size[1], rel=0.02)
    image = np.zeros((*size, 3), dtype=np.uint8)
    assert thumbnail(image).shape == (height, width, 3)


def test_a_map_of_zeros_shows_no_colour_and_a_map_of_ones_its_class() -> None:
    image = photograph()
    empty = map_picture(image, [3], np.zeros((1, 200, 180), dtype=np.float32))
    assert (empty[..., 0] == empty[..., 1]).all()
    assert (empty == map_picture(image, [], np.zeros((0, 200, 180), dtype=np.float32))).all()
    full = map_picture(image, [3], np.ones((1, 200, 180), dtype=np.float32)).astype(int)
    wanted = np.array([int(class_colour(3)[i : i + 2], 16) for i in (1, 3, 5)])
    assert np.abs(full - wanted).mean() < 15


def test_the_stronger_class_gives_a_map_its_colour() -> None:
    scores = np.zeros((2, 200, 180), dtype=np.float32)
    scores[0, :, :90], scores[1, :, 90:] = 1.0, 1.0
    picture = map_picture(photograph(), [1, 2], scores).astype(int)
    assert picture[:, 0, 0].mean() > picture[:, 0, 2].mean()  # class 1 is red
    assert picture[:, -1, 2].mean() > picture[:, -1, 0].mean()  # class 2 is blue


def test_background_keeps_the_photograph_and_unsure_pixels_are_white() -> None:
    image = photograph()
    mask = np.zeros((200, 180), dtype=np.uint8)
    mask[:100] = 255
    picture = mask_picture(image, mask)
    assert (picture[150:, :, 0] == picture[150:, :, 2]).all()
    assert picture[:90].mean() > picture[150:].mean() + 30


def test_small_pictures_are_doubled_without_mixing_classes() -> None:
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[5:15, 5:15] = 1
    image = np.full((20, 20, 3), 128, dtype=np.uint8)
    picture = mask_picture(image, mask)
    assert picture.shape == (40, 40, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 3  # outside, inside, edge


def test_a_data_uri_holds_the_picture() -> None:
    picture = np.full((30, 40, 3), 77, dtype=np.uint8)
    kind, _, text = data_uri(picture).partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        assert image.format == "WEBP"
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - 77).max() <= 3
