"""Pictures of the review page."""

from __future__ import annotations

import numpy as np

from wsss.report.class_colours import class_colour
from wsss.review.pictures import GROUND, flat, overlay, page_size, photograph


def rgb(label: int) -> list[int]:
    return [int(class_colour(label)[at : at + 2], 16) for at in (1, 3, 5)]


def test_small_images_grow_by_whole_numbers_and_large_ones_shrink():
    image = np.arange(64 * 48 * 3, dtype=np.uint8).reshape(64, 48, 3)
    assert (photograph(image) == image.repeat(4, axis=0).repeat(4, axis=1)).all()
    assert page_size(1000, 500) == (420, 210)
    assert page_size(1, 4000) == (1, 420)


def test_the_mask_alone_shows_each_class_in_its_colour():
    mask = np.zeros((240, 240), np.uint8)
    mask[:80], mask[80:100] = 3, 255
    picture = flat(np.zeros((240, 240, 3), np.uint8), mask)
    assert picture[40, 40].tolist() == rgb(3)
    assert picture[90, 90].tolist() == [255, 255, 255]
    assert picture[200, 200].tolist() == [GROUND] * 3


def test_the_overlay_keeps_the_background_and_outlines_regions():
    image = np.full((240, 240, 3), 100, np.uint8)
    mask = np.zeros((240, 240), np.uint8)
    mask[60:120, 60:120] = 2
    picture = overlay(image, mask)
    assert (picture[mask == 0] == 100).all()
    assert picture[90, 90].tolist() == [round((100 + channel) / 2) for channel in rgb(2)]
    assert picture[60, 90].tolist() == rgb(2)
