from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from data.test_masks_png import GREY, INDEXED, png
from wsss.data.dataset import Dataset, WithoutMasks
from wsss.data.masks_png import write_mask
from wsss.errors import DataError, ShapeError, WeightsError
from wsss.models import saliency_folder
from wsss.models.embedded import SALIENCY_FOLDER
from wsss.models.embedded.saliency_format import load_saliency_net, normalised
from wsss.models.saliency import (
    SaliencyDetector,
    check_saliency_folder,
    detect_missing,
    detect_to_folder,
    load_detector,
    read_saliency,
    saliency_file,
    write_saliency,
)
from wsss.models.saliency_folder import detect_image_folder

CPU = torch.device("cpu")
VALUES = np.array([[0, 10, 51], [102, 200, 255]], np.uint8)


class BrightnessDetector:
    """Calls bright pixels salient and remembers what it saw; ten lines of a detector."""

    name, sha256 = "brightness", "ab" * 32

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.dies_at = 10**6

    def detect(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        if sum(self.seen) + len(images) > self.dies_at:
            raise KeyboardInterrupt
        self.seen.append(len(images))
        return [image.mean(axis=2).astype(np.float32) / 255 for image in images]


# --- files ---


def test_a_written_map_comes_back_to_the_nearest_of_256_levels(tmp_path: Path) -> None:
    saliency = np.random.default_rng(0).random((7, 5)).astype(np.float32)
    write_saliency(tmp_path, "a/b", saliency)
    assert Image.open(tmp_path / "a" / "b.png").mode == "L"
    back = read_saliency(saliency_file(tmp_path, "a/b"), (7, 5))
    assert back.dtype == np.float32
    assert np.abs(back - saliency).max() <= 0.5 / 255 + 1e-6
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.png"]


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "RGBA", "LA"])
def test_every_usual_kind_of_map_is_read(tmp_path: Path, mode: str) -> None:
    expected = VALUES / 255
    image = Image.fromarray(VALUES)
    if mode == "I;16":
        image = Image.fromarray(VALUES.astype(np.uint16) * 257)
    elif mode != "L":
        image = image.convert(mode)
    image.save(tmp_path / "x.png")
    np.testing.assert_allclose(read_saliency(tmp_path / "x.png", (2, 3)), expected, atol=1e-6)


def test_colours_are_averaged_and_transparency_is_ignored(tmp_path: Path) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (4, 6, 4), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "x.png")
    expected = [[sum(int(v) for v in pixel[:3]) / 3 / 255 for pixel in row] for row in colours]
    np.testing.assert_allclose(read_saliency(tmp_path / "x.png", (4, 6)), expected, atol=1e-6)


def test_a_map_of_another_size_is_resized_bilinearly(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "x.png")
    found = read_saliency(tmp_path / "x.png", (1, 4))
    np.testing.assert_allclose(found, [[0.0, 0.25, 0.75, 1.0]], atol=1e-6)  # half-pixel centres


def test_class_masks_are_refused_as_saliency(tmp_path: Path) -> None:
    write_mask(tmp_path / "x.png", np.array([[0, 1], [255, 2]], np.uint8))
    with pytest.raises(DataError, match="palette image, as class masks are"):
        read_saliency(tmp_path / "x.png", (2, 2))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("colour_type", [GREY, INDEXED], ids=["grey", "indexed"])
def test_kinds_that_only_masks_have_are_refused_before_training(
    tmp_path: Path, depth: int, colour_type: int
) -> None:
    values = np.array([[0, 1], [1, 0]], np.uint8)
    (tmp_path / "x.png").write_bytes(png(values, depth, colour_type))
    if (depth, colour_type) == (8, GREY):  # the usual kind of a saliency map
        check_saliency_folder(tmp_path, ["x"])
        np.testing.assert_allclose(read_saliency(tmp_path / "x.png", (2, 2)), values / 255, atol=1e-6)
        return
    kind = "a palette image" if colour_type == INDEXED else f"a grey image of {depth} bit"
    for read in (
        lambda: check_saliency_folder(tmp_path, ["x"]),
        lambda: read_saliency(tmp_path / "x.png", (2, 2)),
    ):
        with pytest.raises(DataError, match=rf"x\.png must be a grey PNG of 8 or 16 bits.* got {kind}"):
            read()


def test_missing_and_damaged_maps_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no saliency map .*x\.png"):
        read_saliency(tmp_path / "x.png", (2, 2))
    (tmp_path / "x.png").write_bytes(b"no picture")
    for read in (
        lambda: check_saliency_folder(tmp_path, ["x"]),
        lambda: read_saliency(tmp_path / "x.png", (2, 2)),
    ):
        with pytest.raises(DataError, match="no readable PNG"):
            read()
    write_saliency(tmp_path, "x", np.random.default_rng(0).random((40, 40)))
    (tmp_path / "x.png").write_bytes((tmp_path / "x.png").read_bytes()[:200])
    with pytest.raises(DataError, match="no readable PNG"):
        read_saliency(tmp_path / "x.png", (40, 40))


def test_an_incomplete_folder_says_how_many_maps_are_missing(tmp_path: Path) -> None:
    write_saliency(tmp_path, "b", np.zeros((2, 2)))
    check_saliency_folder(tmp_path, ["b"])
    with pytest.raises(DataError, match=r"2 of 3 images have no saliency map .* the first is a\.png"):
        check_saliency_folder(tmp_path, ["a", "b", "c"])
    with pytest.raises(DataError, match="no folder"):
        check_saliency_folder(tmp_path / "nowhere", ["a"])


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 2, 1)), np.full((2, 2), 1.1), np.full((2, 2), np.nan), np.zeros((0, 2))]
)
def test_what_is_no_map_is_not_written(tmp_path: Path, wrong: np.ndarray) -> None:
    with pytest.raises(ShapeError, match="must be"):
        write_saliency(tmp_path, "x", wrong)
    assert not list(tmp_path.iterdir())


# --- detectors ---


def random_images() -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    sizes = [(96, 96), (40, 96), (50, 31), (300, 200), (96, 96), (1, 1), (33, 700)]
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def test_the_shipped_detector_takes_images_of_any_size() -> None:
    detector = load_detector("embedded", device=CPU)
    assert isinstance(detector, SaliencyDetector)
    assert detector.name == "embedded"
    assert len(detector.sha256) == 64
    images = random_images()
    found = detector.detect(images)
    for image, saliency in zip(images, found, strict=True):
        assert saliency.shape == image.shape[:2]
        assert saliency.dtype == np.float32
        assert 0 <= saliency.min() <= saliency.max() <= 1
    for number in (0, 1, 3):  # no image depends on its neighbours
        np.testing.assert_allclose(detector.detect([images[number]])[0], found[number], atol=1e-5)
    assert detector.detect([]) == []


def test_an_image_and_its_mirror_image_have_mirrored_saliency() -> None:
    detector = load_detector("embedded", device=CPU)
    image = random_images()[0]
    plain, mirrored = detector.detect([image, image[:, ::-1].copy()])
    np.testing.assert_allclose(plain, mirrored[:, ::-1], atol=1e-5)


def test_saliency_is_the_mean_of_the_network_on_both_sides() -> None:
    image = random_images()[0]
    net = load_saliency_net(SALIENCY_FOLDER)
    with torch.no_grad():
        pixels = normalised(torch.from_numpy(image)[None])
        expected = (net(pixels).sigmoid() + net(pixels.flip(3)).sigmoid().flip(3))[0, 0] / 2
    found = load_detector("embedded", device=CPU).detect([image])[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_images_that_are_not_rgb_are_refused() -> None:
    detector = load_detector("embedded", device=CPU)
    for wrong in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)):
        with pytest.raises(ShapeError, match="uint8 RGB"):
            detector.detect([wrong])


def test_unknown_detectors_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"Unknown saliency detector `u2nett`\. Did you mean `u2net`"):
        load_detector("u2nett", device=CPU)
    with pytest.raises(WeightsError, match="holds no saliency detector"):
        load_detector(str(tmp_path), device=CPU)
    with pytest.raises(WeightsError, match="Leave it out, or choose `u2net`"):
        load_detector("embedded", weights="x.onnx", device=CPU)


# --- U2-Net through rembg, with a rembg of ten lines ---


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    made: list[object] = []

    def new_session(name: str, **options: object) -> str:
        made.append((name, options))
        return "session"

    def remove(image: np.ndarray, **options: object) -> np.ndarray:
        made.append(options)
        return image[..., 0]

    fake = SimpleNamespace(new_session=new_session, remove=remove)
    monkeypatch.setitem(sys.modules, "rembg", fake)  # type: ignore[arg-type]
    return made


def test_u2net_gives_rembgs_mask_alone(tmp_path: Path, calls: list[object]) -> None:
    weights = tmp_path / "mine.onnx"
    weights.write_bytes(b"weights")
    detector = load_detector("u2net", weights=str(weights), device=CPU)
    assert isinstance(detector, SaliencyDetector)
    assert calls == []  # nothing is loaded before it is needed
    images = random_images()[:3]
    for image, saliency in zip(images, detector.detect(images), strict=True):
        assert saliency.dtype == np.float32
        np.testing.assert_allclose(saliency, image[..., 0] / 255, atol=1e-6)
    # rembg never downloads for a custom model, whose path it is given
    assert calls[0] == ("u2net_custom", {"model_path": str(weights)})
    plain = {"session": "session", "only_mask": True, "alpha_matting": False, "post_process_mask": False}
    assert calls[1:] == [plain] * 3


def test_u2net_is_found_where_rembg_keeps_it(
    tmp_path: Path, calls: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"not on this machine \(looked for .*u2net\.onnx\)"):
        load_detector("u2net", device=CPU)
    (tmp_path / "u2net.onnx").write_bytes(b"weights")
    first = load_detector("u2net", device=CPU).sha256
    (tmp_path / "u2net.onnx").write_bytes(b"others")
    assert load_detector("u2net", device=CPU).sha256 != first
    with pytest.raises(WeightsError, match="no weights at"):
        load_detector("u2net", weights=str(tmp_path / "missing.onnx"), device=CPU)
    assert calls == []


def test_u2net_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rembg", None)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match=r'pip install "wsss\[saliency\]"'):
        load_detector("u2net", device=CPU)


# --- whole data sets and folders ---


def test_a_data_set_gets_what_is_missing_and_no_mask_is_asked_for(
    tmp_path: Path, tiny_scenes: Dataset
) -> None:
    dataset = WithoutMasks(tiny_scenes)
    ids = dataset.ids("train")[:5]
    detector = BrightnessDetector()
    write_saliency(tmp_path, ids[1], np.zeros((64, 64)))
    told: list[tuple[int, int]] = []
    made = detect_to_folder(
        detector, dataset, ids, tmp_path, images_at_once=3, progress=lambda *seen: told.append(seen[:2])
    )
    assert made == 4
    assert detector.seen == [3, 1]
    assert told == [(1, 5), (4, 5), (5, 5)]
    check_saliency_folder(tmp_path, ids)
    assert read_saliency(saliency_file(tmp_path, ids[1]), (64, 64)).max() == 0  # kept as it was
    expected = dataset.sample(ids[0]).image.mean(axis=2) / 255
    found = read_saliency(saliency_file(tmp_path, ids[0]), (64, 64))
    np.testing.assert_allclose(found, expected, atol=0.5 / 255 + 1e-6)


def test_an_interrupted_detection_goes_on_file_by_file(tmp_path: Path) -> None:
    images = {f"i{number}": np.full((4, 4, 3), 10 * number, np.uint8) for number in range(7)}
    first, second = BrightnessDetector(), BrightnessDetector()
    first.dies_at = 5
    with pytest.raises(KeyboardInterrupt):
        detect_missing(first, images.__getitem__, list(images), tmp_path, images_at_once=2)
    (tmp_path / ".tmp-0123-i5.png").write_bytes(b"half")  # what a killed process leaves
    assert len(list(tmp_path.glob("i*.png"))) == 4
    assert detect_missing(second, images.__getitem__, list(images), tmp_path, images_at_once=2) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"i{number}.png" for number in range(7)]
    assert detect_missing(second, images.__getitem__, list(images), tmp_path) == 0


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    images = {"a": np.full((4, 4, 3), 10, np.uint8)}
    (tmp_path / ".tmp-0123-b.png").write_bytes(b"half")
    assert detect_missing(BrightnessDetector(), images.__getitem__, ["a"], tmp_path, alone=False) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-0123-b.png", "a.png"]


def test_maps_of_two_detectors_are_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, out = tmp_path / "images", tmp_path / "images" / "saliency"
    (images / "below").mkdir(parents=True)
    for name in ("a.png", "below/b.jpg"):
        Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(images / name)
    assert detect_image_folder(images, out, device=CPU) == (2, 0)
    assert detect_image_folder(images, out, device=CPU) == (0, 2)  # maps are no images
    monkeypatch.setattr(saliency_folder, "load_detector", lambda *_, **__: BrightnessDetector())
    with pytest.raises(DataError, match="maps of the detector `embedded`, not of `brightness`"):
        detect_image_folder(images, out, device=CPU)
    with pytest.raises(DataError, match="folder of the images themselves"):
        detect_image_folder(images, images, device=CPU)


@pytest.mark.parametrize("card", [None, "{", "[]", "{}"])
def test_maps_of_an_unknown_detector_are_neither_kept_nor_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: str | None
) -> None:
    monkeypatch.setattr(saliency_folder, "load_detector", lambda *_, **__: BrightnessDetector())
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.full((4, 6, 3), 90, np.uint8)).save(images / f"{name}.png")
    out.mkdir()
    if card is not None:
        (out / "saliency.json").write_text(card)
    (out / ".tmp-0123-b.png").write_bytes(b"half")  # what a killed process leaves is no map
    write_saliency(out, "below/a", np.zeros((4, 6)))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=r"holds 1 PNG files, but no readable saliency\.json"):
        detect_image_folder(images, out, device=CPU)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    (out / "below" / "a.png").unlink()
    assert detect_image_folder(images, out, device=CPU) == (2, 0)
    assert '"brightness"' in (out / "saliency.json").read_text()


@pytest.mark.parametrize("widths", [None, [24, 48], [24, 48, 64, "96"], [24, 48, 64, 0], [24, 48, 64, 10**9]])
def test_a_detector_of_impossible_widths_is_refused(tmp_path: Path, widths: object) -> None:
    shutil.copytree(SALIENCY_FOLDER, tmp_path / "net")
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    (tmp_path / "net" / "config.json").write_text(json.dumps({**config, "widths": widths}))
    with pytest.raises(WeightsError, match="must be 4 numbers of channels"):
        load_saliency_net(tmp_path / "net")
