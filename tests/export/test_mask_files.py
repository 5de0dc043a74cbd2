"""Masks for other tools: every format loads back to the same masks, and they score the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_rle
from pycocotools.coco import COCO

from export.small_model import NAMES, mask_folder, masks, without_ignored
from wsss.activation.scoring import evaluate_folders
from wsss.data.masks_png import read_mask, voc_palette, write_mask
from wsss.errors import DataError
from wsss.export import coco, cvat, label_studio, png
from wsss.export.mask_source import MaskSource


@pytest.fixture
def source(tmp_path: Path) -> MaskSource:
    return mask_folder(tmp_path)


def bits_of_runs(values: list[int]) -> list[int]:
    """A slow encoder of the brush's packing that only writes single literal values."""
    bits = f"{len(values):032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    for value in values:
        bits += "0" + "00" + "000" + f"{value:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def slow_unpack(packed: list[int]) -> list[int]:
    """The brush's packing, read bit by bit."""
    bits = iter("".join(f"{byte:08b}" for byte in packed))

    def read(count: int) -> int:
        return int("".join(next(bits) for _ in range(count)), 2)

    total, width = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        is_repeated = read(1)
        count = read(sizes[read(2)]) + 1
        values += [read(width)] * count if is_repeated else [read(width) for _ in range(count)]
    return values


REGIONS = [
    np.array(rows, dtype=bool)
    for rows in (
        [[0]],
        [[1]],
        [[0, 1, 1], [1, 0, 0]],
        [[1] * 5] * 3,
        np.eye(9),
        np.indices((20, 31)).sum(0) % 3 == 0,
    )
] + [np.arange(40_000).reshape(200, 200) > 39_000, np.ones((150, 150))]


@pytest.mark.parametrize("region", REGIONS, ids=range(len(REGIONS)))
def test_the_brushs_packing_is_read_by_a_slow_reader(region: np.ndarray) -> None:
    region = region.astype(bool)
    packed = label_studio.encode_rle(region)
    assert all(isinstance(byte, int) and 0 <= byte <= 255 for byte in packed)
    assert slow_unpack(packed) == [255 * int(pixel) for pixel in region.ravel() for _ in range(4)]
    assert np.array_equal(label_studio.decode_rle(packed, region.shape), region)


def test_regions_painted_in_label_studio_are_read_too() -> None:
    rng = np.random.default_rng(0)
    alpha = rng.choice([0, 255], (3, 5))
    values = [int(v) for pixel in alpha.ravel() for v in (12, 200, 7, pixel)]
    assert np.array_equal(label_studio.decode_rle(bits_of_runs(values), (3, 5)), alpha > 0)


def test_damaged_regions_are_refused() -> None:
    packed = label_studio.encode_rle(np.eye(5, dtype=bool))
    for damaged, size in (
        (packed[:-3], (5, 5)),
        (packed, (5, 6)),
        ([], (5, 5)),
        ([300], (5, 5)),
        (["x"], (1, 1)),
    ):
        with pytest.raises(DataError, match="can't be unpacked"):
            label_studio.decode_rle(damaged, size)


def slow_runs(box: np.ndarray) -> list[int]:
    """Run lengths of a box, zeros first, pixel by pixel."""
    runs, value = [0], False
    for pixel in box.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


@pytest.mark.parametrize("region", REGIONS, ids=range(len(REGIONS)))
def test_cvats_runs_are_those_of_a_slow_counter(region: np.ndarray) -> None:
    region = region.astype(bool)
    assert cvat.encode_runs(region) == slow_runs(region)
    assert np.array_equal(cvat.decode_runs(slow_runs(region), region.shape), region)


def test_runs_that_do_not_fill_their_box_are_refused() -> None:
    for runs in ([3], [2, 3], [-1, 5], [[4]]):
        with pytest.raises(DataError, match="must fill its box of 2 x 2"):
            cvat.decode_runs(runs, (2, 2))  # type: ignore[arg-type]


def test_coco_loads_with_pycocotools(source: MaskSource, tmp_path: Path) -> None:
    count = coco.write_coco(source, tmp_path / "masks.json")
    loaded = COCO(tmp_path / "masks.json")
    assert {c["id"]: c["name"] for c in loaded.cats.values()} == dict(enumerate(NAMES[1:], start=1))
    by_name = {image["file_name"]: image for image in loaded.imgs.values()}
    assert sorted(by_name) == sorted(masks())
    found = 0
    for name, mask in masks().items():
        image = by_name[name]
        assert (image["height"], image["width"]) == mask.shape
        annotations = loaded.imgToAnns[image["id"]]
        assert [a["category_id"] for a in annotations] == [
            v for v in np.unique(mask).tolist() if v not in (0, 255)
        ]
        for annotation in annotations:
            inside = mask == annotation["category_id"]
            assert np.array_equal(loaded.annToMask(annotation).astype(bool), inside)
            rows, columns = np.nonzero(inside)
            left, top = columns.min(), rows.min()
            assert annotation["bbox"] == [left, top, columns.max() - left + 1, rows.max() - top + 1]
            assert annotation["area"] == inside.sum() == coco_rle.area(annotation["segmentation"])
            found += 1
    assert found == count == len(loaded.anns)


def read_pngs(style: str) -> Callable[[MaskSource, Path], dict[str, np.ndarray]]:
    def back(source: MaskSource, folder: Path) -> dict[str, np.ndarray]:
        png.write_pngs(source, folder / "png", style)
        if style == "colour":
            palette = png.class_palette(source)
            return {name: png.read_colours(folder / "png" / name, palette) for name in source.names}
        return {name: read_mask(folder / "png" / name) for name in source.names}

    return back


def through_coco(source: MaskSource, folder: Path) -> dict[str, np.ndarray]:
    coco.write_coco(source, folder / "x.json")
    return dict(coco.read_coco(folder / "x.json"))


def through_label_studio(source: MaskSource, folder: Path) -> dict[str, np.ndarray]:
    label_studio.write_label_studio(source, folder / "x.json", prefix="/data/?d=")
    found = label_studio.read_label_studio(folder / "x.json", NAMES)
    return {name.removeprefix("/data/?d="): mask for name, mask in found}


def through_cvat(source: MaskSource, folder: Path) -> dict[str, np.ndarray]:
    cvat.write_cvat(source, folder / "x.xml")
    return dict(cvat.read_cvat(folder / "x.xml", NAMES))


@pytest.mark.parametrize(
    "back",
    [through_coco, through_label_studio, through_cvat, *map(read_pngs, png.STYLES)],
    ids=["coco", "label-studio", "cvat", *png.STYLES],
)
def test_masks_come_back_the_same_and_score_the_same(back, source: MaskSource, tmp_path: Path) -> None:
    found = back(source, tmp_path)
    keeps_ignored = not back.__name__.startswith("through")
    rng = np.random.default_rng(1)
    for name, mask in masks().items():
        mask = mask if keeps_ignored else without_ignored(mask)
        restored = found.get(name, np.zeros_like(mask))  # Label Studio has no size of a task without regions
        assert np.array_equal(restored, mask), name
        write_mask(tmp_path / "again" / f"{name.replace('/', '-')}", restored)
        write_mask(tmp_path / "own" / f"{name.replace('/', '-')}", masks()[name])
        truth = np.where(rng.random(mask.shape) < 0.3, rng.integers(0, 4, mask.shape), without_ignored(mask))
        write_mask(tmp_path / "truth" / f"{name.replace('/', '-')}", truth.astype(np.uint8))
    scores = [evaluate_folders(tmp_path / way, tmp_path / "truth", NAMES) for way in ("own", "again")]
    own, again = (score["entries"][0] for score in scores)
    assert again["miou"] == own["miou"]
    assert again["iou"] == own["iou"]


def test_the_brushes_labels_have_names_and_colours(source: MaskSource, tmp_path: Path) -> None:
    count = label_studio.write_label_studio(source, tmp_path / "x.json")
    tasks = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert [task["data"]["image"] for task in tasks] == sorted(masks())
    results = [region for task in tasks for region in task["predictions"][0]["result"]]
    assert len(results) == count
    setup = ElementTree.parse(tmp_path / "x.xml").getroot()
    image, brush = setup.find("Image"), setup.find("BrushLabels")
    assert image is not None
    assert brush is not None
    assert [label.attrib["value"] for label in brush] == list(NAMES[1:])
    assert brush[0].attrib["background"] == "#800000"
    for region in results:
        assert (region["from_name"], region["to_name"]) == (brush.attrib["name"], image.attrib["name"])
        assert region["value"]["brushlabels"][0] in NAMES


def test_annotated_tasks_count_before_predicted_ones(source: MaskSource, tmp_path: Path) -> None:
    label_studio.write_label_studio(source, tmp_path / "x.json")
    tasks = [t for t in json.loads((tmp_path / "x.json").read_text()) if t["data"]["image"] == "full.png"]
    corrected = json.loads(json.dumps(tasks[0]["predictions"][0]["result"]))
    corrected[0]["value"]["brushlabels"] = ["cat"]
    tasks[0]["annotations"] = [{"result": corrected}]
    (tmp_path / "y.json").write_text(json.dumps(tasks))
    assert dict(label_studio.read_label_studio(tmp_path / "y.json", NAMES))["full.png"].min() == 1


def test_cvats_file_says_what_it_holds(source: MaskSource, tmp_path: Path) -> None:
    count = cvat.write_cvat(source, tmp_path / "x.xml")
    root = ElementTree.parse(tmp_path / "x.xml").getroot()
    assert root.tag == "annotations"
    assert root.findtext("version") == "1.1"
    assert [label.findtext("name") for label in root.iter("label")] == list(NAMES[1:])
    assert len(list(root.iter("mask"))) == count
    one = next(image for image in root.iter("image") if image.attrib["name"] == "one.png")
    mask = one[0].attrib
    assert (mask["left"], mask["top"], mask["width"], mask["height"], mask["rle"]) == (
        "11",
        "0",
        "1",
        "1",
        "0, 1",
    )


def test_pngs_are_of_the_style_that_is_asked_for(source: MaskSource, tmp_path: Path) -> None:
    for style, mode in (("palette", "P"), ("plain", "L"), ("colour", "RGB")):
        assert png.write_pngs(source, tmp_path / style, style) == len(masks())
        with Image.open(tmp_path / style / "below" / "a.png") as picture:
            assert picture.mode == mode
            if mode == "RGB":
                wanted = voc_palette()[masks()["below/a.png"]]
                assert np.array_equal(np.asarray(picture), wanted)
        classes = json.loads((tmp_path / style / "classes.json").read_text(encoding="utf-8"))
        assert [(c["value"], c["name"]) for c in classes] == list(enumerate(NAMES))
    with pytest.raises(DataError, match="Did you mean `colour`"):
        png.write_pngs(source, tmp_path / "x", "color")
    with pytest.raises(DataError, match="folder of the masks themselves"):
        png.write_pngs(source, source.folder, "plain")
    palette = voc_palette().copy()
    palette[2] = 1
    with pytest.raises(DataError, match="a colour that no class has"):
        png.read_colours(tmp_path / "colour" / "below" / "a.png", palette)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "[" * 100_000, '{"images": [{"id": 1}], "annotations": []}', "[1]"]
)
def test_damaged_files_are_one_clear_error(content: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    path.write_text(content)
    readers = (coco.read_coco(path), label_studio.read_label_studio(path, NAMES), cvat.read_cvat(path, NAMES))
    for reader in readers[: 1 if content == "[]" else 3]:  # no tasks at all are a list of tasks
        with pytest.raises(DataError, match="Export it again"):
            list(reader)


def test_an_xml_bomb_and_masks_outside_their_image_are_refused(tmp_path: Path) -> None:
    mask = '<mask label="cat" rle="0, 4" left="3" top="0" width="2" height="2"/>'
    inside = f'<annotations><image name="a" width="4" height="4">{mask}</image></annotations>'
    for content in (
        inside,
        inside.replace('left="3"', 'left="0"').replace("cat", "dog"),
        inside.replace('width="4"', 'width="99999999"'),
        '<!DOCTYPE a [<!ENTITY b "c">]><annotations/>',
    ):
        (tmp_path / "x.xml").write_text(content)
        with pytest.raises(DataError, match="Export it again"):
            list(cvat.read_cvat(tmp_path / "x.xml", NAMES))


def test_coco_of_other_programs_is_read(tmp_path: Path) -> None:
    mask = masks()["below/a.png"]
    plain = {"size": list(mask.shape), "counts": slow_runs(mask.T == 2)}
    square = [[2.0, 3.0, 6.0, 3.0, 6.0, 8.0, 2.0, 8.0]]
    image = {"id": 5, "file_name": "a", "height": mask.shape[0], "width": mask.shape[1]}
    for segmentation, inside in ((plain, mask == 2), (square, np.indices(mask.shape))):
        annotation = {"image_id": 5, "category_id": 2, "segmentation": segmentation}
        (tmp_path / "x.json").write_text(json.dumps({"images": [image], "annotations": [annotation]}))
        found = dict(coco.read_coco(tmp_path / "x.json"))["a"]
        if inside.ndim == 3:
            rows, columns = inside
            inside = (rows >= 3) & (rows < 8) & (columns >= 2) & (columns < 6)
        assert np.array_equal(found == 2, inside)


def test_coco_annotations_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    image = {"id": 1, "file_name": "a", "height": 2, "width": 2}
    whole = {"size": [2, 2], "counts": [0, 4]}
    for changed, annotation in (
        ({}, {"category_id": 1, "segmentation": {"size": [3, 3], "counts": "0"}}),
        ({}, {"category_id": 300, "segmentation": whole}),
        ({}, {"category_id": "cat", "segmentation": whole}),
        ({"width": 10**9}, {"category_id": 1, "segmentation": whole}),
        ({"id": 2}, {"category_id": 1, "segmentation": whole}),
    ):
        document = {"images": [image | changed], "annotations": [annotation | {"image_id": 1}]}
        (tmp_path / "x.json").write_text(json.dumps(document))
        with pytest.raises(DataError, match="is no COCO file of masks"):
            list(coco.read_coco(tmp_path / "x.json"))


@pytest.mark.parametrize("name", ["tasks.xml", "tasks.XML"])
def test_tasks_never_have_the_name_of_their_set_up(source: MaskSource, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"ends in \.json"):
        label_studio.write_label_studio(source, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_only_a_set_up_is_replaced_by_a_set_up(source: MaskSource, tmp_path: Path) -> None:
    cvat.write_cvat(source, tmp_path / "x.xml")
    before = (tmp_path / "x.xml").read_bytes()
    with pytest.raises(DataError, match=r"x\.xml, where the labelling set-up goes, holds something else"):
        label_studio.write_label_studio(source, tmp_path / "x.json")
    assert (tmp_path / "x.xml").read_bytes() == before
    assert not (tmp_path / "x.json").exists()
    assert label_studio.write_label_studio(source, tmp_path / "y.json") == (
        label_studio.write_label_studio(source, tmp_path / "y.json")
    )


def test_pngs_replace_nothing_but_an_earlier_export(
    source: MaskSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="or inside it"):
        png.write_pngs(source, source.folder / "plain", "plain")
    for name in ("below/a.png", "classes.json"):  # 11 and 12 letters
        mine = tmp_path / f"with-{len(name)}" / name
        mine.parent.mkdir(parents=True)
        mine.write_text('["cat"]')
        with pytest.raises(DataError, match="is there already, and of no export"):
            png.write_pngs(source, tmp_path / f"with-{len(name)}", "plain")
        assert mine.read_text() == '["cat"]'

    written: list[Path] = []

    def interrupted(path: Path, *_: object) -> None:
        if written:
            raise KeyboardInterrupt
        path.write_bytes(b"of an export")
        written.append(path)

    with monkeypatch.context() as patch:
        patch.setattr(png, "write_indexed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            png.write_pngs(source, tmp_path / "out", "palette")
    assert png.write_pngs(source, tmp_path / "out", "palette") == len(masks())
    assert np.array_equal(read_mask(written[0]), masks()[written[0].name])
