import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from wsss.data.transforms import Augmentation, Jitter, augment
from wsss.errors import ShapeError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = {"long_side": None, "flip": 0.0}


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose red is the row + 1, green the column + 1, blue 255; (H, W, 3)."""
    rows, columns = np.mgrid[1 : height + 1, 1 : width + 1]
    return np.stack([rows, columns, np.full_like(rows, 255)], axis=-1).astype(np.uint8)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def colours(images: torch.Tensor) -> np.ndarray:
    """Back to 0-255; (H, W, 3)."""
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return ((images * std + mean) * 255).permute(1, 2, 0).numpy()


def run(image, seed, aligned=None, **settings):
    rng = np.random.default_rng(seed)
    return augment(image, aligned or {}, rng, MEAN, STD, Augmentation(**settings))


def reference(image: np.ndarray, seed: int, low: int, high: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The published pipeline, step by step in its own order, pixel by pixel, in float64."""
    rng = np.random.default_rng(seed)
    long_side = int(rng.integers(low, high + 1))
    height, width = image.shape[:2]
    factor = long_side / max(height, width)
    size = int(np.round(height * factor)), int(np.round(width * factor))
    resized = np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))
    normalised = (resized / 255.0 - np.array(MEAN)) / np.array(STD)
    if rng.random() < 0.5:
        normalised = normalised[:, ::-1]
    places = []
    for length in size:
        drawn = int(rng.integers(0, abs(length - side) + 1))
        places.append((drawn, 0) if length > side else (0, drawn))  # (in the image, in the crop)
    crop, valid = np.zeros((side, side, 3)), np.zeros((side, side), bool)
    for row in range(side):
        for column in range(side):
            y = row - places[0][1] + places[0][0]
            x = column - places[1][1] + places[1][0]
            inside = places[0][1] <= row < places[0][1] + min(side, size[0]) and places[1][
                1
            ] <= column < places[1][1] + min(side, size[1])
            if inside:
                crop[row, column], valid[row, column] = normalised[y, x], True
    return crop, valid


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (33, 33), (7, 50)])
@pytest.mark.parametrize("side", [24, 48, 100])
def test_the_whole_pipeline_agrees_with_the_published_one(size, side) -> None:
    image = noise(*size)
    for seed in range(6):
        crop, valid = reference(image, seed, 30, 70, side)
        images, _, mask = run(image, seed, crop_size=side, long_side=(30, 70))
        assert images.shape == (3, side, side)
        assert images.dtype == torch.float32
        assert mask.dtype == torch.bool
        assert np.array_equal(mask.numpy(), valid)
        assert np.abs(images.permute(1, 2, 0).numpy() - crop).max() < 1e-5


def test_the_defaults_are_those_of_clims() -> None:
    config = Augmentation()
    assert (config.crop_size, config.long_side, config.flip, config.jitter) == (512, (320, 640), 0.5, None)
    assert (config.interpolation, config.pad, config.pad_position) == ("bicubic", "mean", "random")


def test_both_limits_of_the_long_side_are_drawn_and_halves_round_to_even() -> None:
    shapes = set()
    for seed in range(60):
        _, _, valid = run(coordinates(2, 8), seed, crop_size=40, long_side=(9, 12))
        rows, columns = valid.any(1).sum().item(), valid.any(0).sum().item()
        shapes.add((rows, columns))
    assert shapes == {(2, 9), (2, 10), (3, 11), (3, 12)}  # 2.25, 2.5 -> 2, 2.75, 3


def test_no_side_vanishes() -> None:
    assert run(coordinates(1, 90), 0, crop_size=8, long_side=(4, 4))[2].sum() == 4


def test_long_images_are_cut_at_every_offset_and_stay_in_one_piece() -> None:
    image, seen = coordinates(6, 9), set()
    for seed in range(200):
        images, _, valid = run(image, seed, crop_size=4, **PLAIN)
        assert valid.all()
        values = np.rint(colours(images)).astype(int)
        top, left = values[0, 0, :2]
        seen.add((top, left))
        assert np.array_equal(values, image[top - 1 : top + 3, left - 1 : left + 3])
    assert seen == {(top, left) for top in (1, 2, 3) for left in range(1, 7)}


def test_short_images_lie_at_every_place_of_a_mean_coloured_canvas() -> None:
    image, seen = coordinates(3, 2), set()
    for seed in range(200):
        images, _, valid = run(image, seed, crop_size=5, **PLAIN)
        rows, columns = np.flatnonzero(valid.any(1)), np.flatnonzero(valid.any(0))
        assert (len(rows), len(columns)) == (3, 2)
        assert valid.sum() == 6
        seen.add((rows[0], columns[0]))
        values = np.rint(colours(images)).astype(int)
        assert np.array_equal(values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], image)
        assert (images[:, ~valid] == 0).all()  # 0 after normalisation is the mean colour
    assert seen == {(top, left) for top in range(3) for left in range(4)}


def test_one_axis_may_be_cut_and_the_other_padded() -> None:
    image = coordinates(2, 9)
    images, _, valid = run(image, 1, crop_size=5, **PLAIN)
    assert valid.sum() == 10
    values = np.rint(colours(images)).astype(int)[valid.any(1).numpy()]
    assert (np.diff(values[0, :, 1]) == 1).all()


def test_mirroring_is_left_and_right_and_happens_as_often_as_asked() -> None:
    image = coordinates(4, 6)
    mirrored, _, _ = run(image, 0, crop_size=6, long_side=None, flip=1.0, pad_position="end")
    assert np.array_equal(np.rint(colours(mirrored))[:4], image[:, ::-1])
    square = coordinates(6, 6)
    shown = [run(square, seed, crop_size=6, long_side=None, flip=0.25)[0] for seed in range(400)]
    share = np.mean([images[1, 0, 0] > images[1, 0, 5] for images in shown])
    assert 0.18 < share < 0.32


@pytest.mark.parametrize(("pad", "value"), [("mean", 0.0), ("black", None)])
def test_padding_is_mean_or_black_and_may_follow_the_image(pad, value) -> None:
    images, _, valid = run(coordinates(3, 2), 3, crop_size=5, pad=pad, pad_position="end", **PLAIN)
    assert valid[:3, :2].all()
    assert valid.sum() == 6
    outside = images[:, ~valid]
    expected = torch.tensor([-m / s if value is None else value for m, s in zip(MEAN, STD, strict=True)])
    assert torch.allclose(outside, expected[:, None].expand_as(outside))


def test_aligned_inputs_move_with_the_image() -> None:
    image = coordinates(40, 60)
    mask = (image[..., 0] + image[..., 1]).astype(np.uint8)
    planes = image.transpose(2, 0, 1).astype(np.float32)
    aligned = {"target": mask, "row": planes[0], "both": planes[:2], "none": planes[:0]}
    for seed in range(30):
        images, moved, valid = run(
            image, seed, aligned, crop_size=50, long_side=(40, 90), interpolation="bilinear"
        )
        values = colours(images).transpose(2, 0, 1)
        inside = valid.numpy()
        assert moved["target"].dtype == torch.uint8
        assert moved["row"].dtype == torch.float32
        assert moved["both"].shape == (2, 50, 50)
        assert moved["none"].shape == (0, 50, 50)
        assert (moved["target"].numpy()[~inside] == 255).all()
        assert (moved["both"].numpy()[:, ~inside] == 0).all()
        assert np.abs(moved["row"].numpy() - values[0])[inside].max() < 0.51  # image values are rounded
        assert np.abs(moved["both"].numpy() - values[:2])[:, inside].max() < 0.51
        # nearest neighbour: at most half a pixel away on each axis, in either image's pixels
        assert np.abs(moved["target"].numpy() - values[0] - values[1])[inside].max() < 2.1


def test_masks_are_never_mixed() -> None:
    mask = np.where(noise(50, 50)[..., 0] > 128, 200, 3).astype(np.uint8)
    for seed in range(10):
        moved = run(noise(50, 50), seed, {"target": mask}, crop_size=64, long_side=(20, 90))[1]["target"]
        assert set(moved.unique().tolist()) <= {3, 200, 255}


def test_what_is_aligned_changes_nothing_else() -> None:
    image = noise(30, 40)
    settings = {"crop_size": 32, "long_side": (20, 60), "jitter": Jitter()}
    alone, _, valid = run(image, 5, **settings)
    together, _, same = run(image, 5, {"target": image[..., 0], "plane": image[..., 0] / 255.0}, **settings)
    assert torch.equal(alone, together)
    assert torch.equal(valid, same)


def test_the_inputs_are_left_as_they_were() -> None:
    image = noise(8, 8)
    image.flags.writeable = False
    mask = image[..., 0]
    images, moved, _ = run(image, 0, {"target": mask}, crop_size=8, **PLAIN)
    images += 1
    moved["target"] += 1
    assert np.array_equal(image, noise(8, 8))


@pytest.mark.parametrize("size", [(8, 9), (9, 8)])
def test_aligned_inputs_of_another_size_or_type_are_refused(size) -> None:
    with pytest.raises(ShapeError, match=r"`target` must be \(8, 8\) like its image; got"):
        run(noise(8, 8), 0, {"target": np.zeros(size, np.uint8)})
    for wrong in (np.zeros((8, 8), np.int64), np.zeros((8, 8, 3), np.uint8), np.zeros((1, 1, 8, 8))):
        with pytest.raises(ShapeError, match="`saliency` must be a uint8 mask"):
            run(noise(8, 8), 0, {"saliency": wrong})


def test_scales_resize_both_sides_by_one_factor() -> None:
    widths = set()
    for seed in range(40):
        _, _, valid = run(coordinates(20, 40), seed, crop_size=100, scale=(0.5, 1.5))
        rows, columns = valid.any(1).sum().item(), valid.any(0).sum().item()
        assert abs(columns - 2 * rows) <= 1
        widths.add(columns)
    assert min(widths) >= 20
    assert max(widths) <= 60
    assert len(widths) > 15
    chosen = {
        run(coordinates(20, 40), seed, crop_size=100, scale_choices=(0.5, 2))[2].sum().item()
        for seed in range(20)
    }
    assert chosen == {10 * 20, 40 * 80}
    cut = run(coordinates(15, 21), 0, crop_size=100, scale_choices=(0.5,))[2]
    assert cut.sum().item() == 7 * 10  # deeplab-pytorch cuts fractions off


def test_jitter_changes_colours_within_limits_and_nothing_else() -> None:
    image = np.full((6, 6, 3), (100, 150, 50), np.uint8)
    settings = {"crop_size": 6, **PLAIN}
    none = Jitter(brightness=0, contrast=0, saturation=0, hue=0)
    assert torch.equal(run(image, 1, jitter=none, **settings)[0], run(image, 1, **settings)[0])
    brightness = Jitter(brightness=0.3, contrast=0, saturation=0, hue=0)
    factors = [
        colours(run(image, seed, jitter=brightness, **settings)[0])[0, 0, 1] / 150 for seed in range(100)
    ]
    assert 0.69 < min(factors) < 0.76
    assert 1.24 < max(factors) < 1.31
    hue = Jitter(brightness=0, contrast=0, saturation=0, hue=0.5)
    brightest = {colours(run(image, seed, jitter=hue, **settings)[0])[0, 0].argmax() for seed in range(30)}
    assert brightest == {0, 1, 2}


@pytest.mark.parametrize(
    "wrong",
    [
        {"long_side": (640, 320)},
        {"long_side": (0, 5)},
        {"scale": (-1, 1)},
        {"scale_choices": ()},
        {"scale_choices": (0.5, 0)},
        {"long_side": (3, 5), "scale": (0.5, 1)},
        {"scale": (0.5, 1), "scale_choices": (1,)},
        {"crop_size": 0},
        {"flip": 1.5},
        {"jitter": {"hue": 0.7}},
        {"pad": "grey"},
        {"crop": 5},
    ],
)
def test_wrong_settings_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        Augmentation(**wrong)


def test_settings_round_trip_and_a_scale_switches_the_long_side_off() -> None:
    for given in ({}, {"scale": (0.5, 1.5)}, {"scale_choices": [0.5, 1], "jitter": {}}):
        config = Augmentation(**given)
        assert Augmentation(**config.model_dump(mode="json")) == config
        assert (config.long_side is None) == bool(given)
