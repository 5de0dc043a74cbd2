"""A review of invented runs: nothing reads a true mask, files agree, and an interrupted review goes on."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builder import AUTOMATIC, CONFIG, Invented, build
from html_check import Page

from wsss.activation.store import MapStore, sum_full_size
from wsss.data import WithoutMasks
from wsss.data.masks_png import read_mask, write_mask
from wsss.data.scenes_dataset import ScenesDataset
from wsss.engine.map_work import CHOSEN
from wsss.errors import DataError, StageError
from wsss.report.per_image import image_scores
from wsss.review import page as page_module
from wsss.review import review, share_of_worst
from wsss.review.inputs import open_run, per_scale
from wsss.review.review import JOURNAL
from wsss.review.signals import SIGNALS, agreement
from wsss.types import ActivationMaps

SPOILT = 3  # images whose pseudo masks are made bad


def finished(place: Path, dataset: Any, tree: Path, run: Invented) -> Path:
    folder = build(place, dataset, tree, CONFIG, run)
    masks = stage(folder, "pseudo-masks")
    (masks / CHOSEN).write_text(json.dumps({"value": AUTOMATIC, "source": "automatic", "details": {}}))
    return folder


def stage(run: Path, name: str) -> Path:
    entries = json.loads((run / "run.json").read_text())["stages"]
    return (run / next(entry["folder"] for entry in entries if entry["name"] == name)).resolve()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_scenes: Any, tiny_tree: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("review")
    good = Invented(recipe="scenes/clims", method="clims", skill=1.0)
    refined = Invented(recipe="scenes/clims-crf", method="clims", skill=0.9, refiner="dense_crf")
    runs = {
        "good": finished(folder, tiny_scenes, tiny_tree, good),
        "refined": finished(folder, tiny_scenes, tiny_tree, refined),
        "tree": tiny_tree,
    }
    masks = stage(runs["good"], "pseudo-masks") / "pseudo_masks"
    for number, image_id in enumerate(spoilt(tiny_scenes)):
        mask = read_mask(masks / f"{image_id}.png")
        write_mask(masks / f"{image_id}.png", np.full_like(mask, 8 if number % 2 else 0))
    return runs


def spoilt(dataset: Any) -> list[str]:
    """Some tagged images."""
    tagged = [image_id for image_id in dataset.ids("train") if dataset.image_labels(image_id).any()]
    return tagged[::4][:SPOILT]


@pytest.fixture(scope="module")
def reviewed(place: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return review([place["good"]], top=5, out=tmp_path_factory.mktemp("out"))


def test_spoilt_masks_come_first(reviewed: Any, tiny_scenes: Any) -> None:
    first = {suspect.ranked.image_id for suspect in reviewed.suspects[:SPOILT]}
    assert first == set(spoilt(tiny_scenes))


def test_the_measure_agrees_with_the_true_iou_of_single_images(place: Any, reviewed: Any) -> None:
    scores = place["good"].parents[0] / "stages" / f"score-activate-{place['good'].name}"
    ious = image_scores(scores, "automatic")
    ranking = [suspect.ranked.image_id for suspect in reviewed.suspects]
    expected = sorted(ranking, key=lambda image_id: (ious[image_id], image_id))[: -(-len(ranking) // 5)]
    found = set(ranking[: len(expected)]) & set(expected)
    assert share_of_worst(ranking, ious) == pytest.approx(len(found) / len(expected))


def test_no_true_mask_is_read(
    place: Any, reviewed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(self: Any, image_id: str, *, with_mask: bool = False) -> Any:
        assert not with_mask, f"the mask of {image_id} was asked for"
        return sample(self, image_id)

    sample = ScenesDataset.sample
    monkeypatch.setattr(ScenesDataset, "sample", without)
    dataset = open_run(place["good"]).dataset
    assert isinstance(dataset, WithoutMasks)
    with pytest.raises(DataError, match="Only evaluation reads masks"):
        dataset.sample(dataset.ids("train")[0], with_mask=True)
    blind = tmp_path / "tree"
    shutil.copytree(place["tree"], blind)
    destroyed = [path for path in blind.rglob("*.png") if path.parent.name != "images"]
    assert destroyed
    for path in destroyed:
        path.write_bytes(b"no mask")
    copied = tmp_path / "runs" / place["good"].name
    shutil.copytree(place["good"].parent / "stages", tmp_path / "runs" / "stages")
    shutil.copytree(place["good"], copied)
    for path in (tmp_path / "runs" / "stages").glob("score-*"):
        shutil.rmtree(path)
    record = json.loads((copied / "run.json").read_text()) | {"data_root": str(blind)}
    (copied / "run.json").write_text(json.dumps(record))
    again = review([copied], top=5, out=tmp_path / "out")
    assert [s.as_dict() for s in again.suspects] == [s.as_dict() for s in reviewed.suspects]


def test_images_without_tags_are_left_out(reviewed: Any, tiny_scenes: Any) -> None:
    ranked = {suspect.ranked.image_id for suspect in reviewed.suspects}
    assert ranked == {i for i in tiny_scenes.ids("train") if tiny_scenes.image_labels(i).any()}


def test_files_and_page_say_the_same(reviewed: Any) -> None:
    out = reviewed.page.parent
    document = json.loads((out / "ranking.json").read_text())
    assert document["ranking"] == [suspect.as_dict() for suspect in reviewed.suspects]
    assert Path(document["masks"], document["ranking"][0]["file"]).is_file()
    with (out / "ranking.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["image_id"] for row in rows] == [entry["image_id"] for entry in document["ranking"]]
    for row, entry in zip(rows, document["ranking"], strict=True):
        for name in SIGNALS:
            assert (float(row[name]) if row[name] else None) == entry["signals"].get(name)
    parsed = Page(reviewed.page.read_text(encoding="utf-8"))
    assert parsed.problems == []
    assert all(address.startswith("data:") for address in parsed.loads)
    articles = [attributes["id"] for tag, attributes in parsed.tags if tag == "article"]
    assert articles == [f"image-{place}" for place in range(1, 6)]
    assert reviewed.shown == 5
    text = reviewed.page.read_text(encoding="utf-8")
    for suspect in reviewed.suspects[:5]:
        assert f"<code>{suspect.file}</code>" in text
        assert all(reason in text for reason in suspect.reasons)


def test_an_interrupted_review_goes_on(place: Any, reviewed: Any, tmp_path: Path) -> None:
    seen: list[int] = []

    def stop(done: int, total: int, note: str) -> None:
        seen.append(done)
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        review([place["good"]], out=tmp_path, progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == [JOURNAL]
    with (tmp_path / JOURNAL).open("a") as stream:
        stream.write('{"image_id": "cut sh')
    lines = (tmp_path / JOURNAL).read_text().splitlines()[1:5]
    again = review([place["good"]], out=tmp_path)
    assert (tmp_path / JOURNAL).read_text().splitlines()[1:5] == lines
    assert [s.as_dict() for s in again.suspects] == [s.as_dict() for s in reviewed.suspects]


def test_measurements_of_other_runs_are_not_used(place: Any, reviewed: Any, tmp_path: Path) -> None:
    review([place["refined"]], out=tmp_path)
    again = review([place["good"]], out=tmp_path)
    assert [s.as_dict() for s in again.suspects] == [s.as_dict() for s in reviewed.suspects]


def test_other_runs_and_refiners_are_second_opinions(place: Any, tmp_path: Path) -> None:
    found = review([place["refined"], place["good"]], top=2, out=tmp_path)
    runs = [open_run(place[name]) for name in ("refined", "good")]
    for suspect in found.suspects:
        image_id = suspect.ranked.image_id
        masks = [run.mask(image_id) for run in runs]
        tags = runs[0].tags(image_id)
        signals = suspect.ranked.signals
        assert signals["methods"] == pytest.approx(1 - agreement(masks[0], masks[1], tags))
        before = runs[0].maps.read(image_id).to_mask(runs[0].unrefined_score).numpy()
        assert signals["refinement"] == pytest.approx(1 - agreement(masks[0], before, tags))
    assert "scenes-clims-seed0" in found.page.read_text(encoding="utf-8")


def test_a_run_without_pseudo_masks_is_reviewed_too(place: Any, tmp_path: Path) -> None:
    copied = tmp_path / "runs" / place["refined"].name
    shutil.copytree(place["refined"].parent / "stages", tmp_path / "runs" / "stages")
    shutil.copytree(place["refined"], copied)
    record = json.loads((copied / "run.json").read_text())
    record["stages"] = [entry for entry in record["stages"] if entry["name"] in ("train-method", "activate")]
    record["data_root"] = str(place["tree"])
    (copied / "run.json").write_text(json.dumps(record))
    run = open_run(copied)
    found = review([copied], out=tmp_path / "out")
    image_id = found.suspects[0].ranked.image_id
    assert run.background_score is not None
    assert (run.mask(image_id) == run.maps.read(image_id).to_mask(run.background_score).numpy()).all()
    assert "wsss pseudo-masks" in found.page.read_text(encoding="utf-8")


def test_the_page_keeps_to_its_room(place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = review([place["good"]], out=tmp_path / "whole")
    size = len(whole.page.read_bytes())
    monkeypatch.setattr(page_module, "MAX_BYTES", size // 2)
    half = review([place["good"]], out=tmp_path / "half")
    assert 0 < half.shown < whole.shown
    assert len(half.page.read_bytes()) <= size // 2 + 10
    assert len(half.suspects) == len(whole.suspects)


def test_maps_of_single_scales_add_up_to_the_stored_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    store, class_ids = MapStore(tmp_path), torch.tensor([2, 5])
    scales = [torch.rand(2, 4, 5), torch.rand(2, 8, 9)]
    maps = ActivationMaps.from_present_cams(sum_full_size(scales, (32, 40)), class_ids)
    store.write("a", maps, image_size=(32, 40), per_scale=scales)
    found, classes = per_scale(store, "a")
    assert classes.tolist() == [2, 5]
    peaks = torch.stack([scale.flatten(1).amax(1) for scale in scales]).amax(0)[:, None, None]
    for one, scale in zip(found, scales, strict=True):
        assert torch.allclose(one * peaks, scale, atol=2e-3)


def test_what_cannot_be_reviewed_is_refused(place: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`runs` is empty"):
        review([], out=tmp_path)
    with pytest.raises(DataError, match="`top` must be at least 1; got 0"):
        review([place["good"]], top=0, out=tmp_path)
    with pytest.raises(StageError, match="no finished run"):
        review([tmp_path], out=tmp_path)
    record = json.loads((place["good"] / "run.json").read_text())
    trained = {**record, "stages": [entry for entry in record["stages"] if entry["name"] == "predict"]}
    other = {**record, "data": {**record["data"], "data_version": "another"}}
    for name, content in (("trained", trained), ("other", other)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({**content, "data_root": str(place["tree"])}))
    with pytest.raises(StageError, match="has no activation maps"):
        review([tmp_path / "trained"], out=tmp_path)
    entries = [{**e, "folder": str(stage(place["good"], e["name"]))} for e in record["stages"]]
    content = {**other, "stages": entries, "data_root": str(place["tree"])}
    (tmp_path / "other" / "run.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="their `data_version` differ"):
        review([place["good"], tmp_path / "other"], out=tmp_path)


def test_corrected_images_are_done(place: Any, tmp_path: Path, tiny_scenes: Any) -> None:
    record = json.loads((place["good"] / "run.json").read_text())
    done = spoilt(tiny_scenes)
    (tmp_path / "corrected").mkdir()
    (tmp_path / "corrected" / "corrected.json").write_text(json.dumps(done))
    entries = [{**e, "folder": str(stage(place["good"], e["name"]))} for e in record["stages"]]
    entries.append({**entries[0], "name": "correct-masks", "folder": str(tmp_path / "corrected")})
    content = {**record, "stages": entries, "data_root": str(place["tree"])}
    (tmp_path / "run.json").write_text(json.dumps(content))
    found = review([tmp_path], out=tmp_path / "out")
    assert not {suspect.ranked.image_id for suspect in found.suspects} & set(done)
    assert json.loads((tmp_path / "out" / "ranking.json").read_text())["corrected"] == SPOILT


def test_files_that_no_review_wrote_are_not_replaced(place: Any, tmp_path: Path) -> None:
    for name in (JOURNAL, "index.html", "ranking.csv", "ranking.json"):
        path = tmp_path / name / name
        path.parent.mkdir()
        path.write_bytes(b"mine")
        with pytest.raises(
            DataError, match=rf"{path} was not written by `wsss review` and would be replaced"
        ):
            review([place["good"]], out=path.parent)
        assert [(found, found.read_bytes()) for found in path.parent.iterdir()] == [(path, b"mine")]


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: b"\n".join([*lines[:3], b"\xff\xfe", *lines[3:]]),
        lambda lines: lines[0][:20],
        lambda lines: b"\n".join([*lines[:3], b'{"image_id": 3}', b"[" * 50_000]),
        lambda lines: b"\n".join([line.replace(b"foreground", b"background") for line in lines]),
        lambda lines: b"\n".join([line.replace(b'"colour": ', b'"colour": 1') for line in lines[:4]]) + b"x",
        lambda lines: b"\n".join([line.replace(b'"shares": {', b'"shares": {"9": 0.5, ') for line in lines]),
        lambda lines: b"\n".join([line.replace(b'"image_id": "', b'"image_id": "x') for line in lines]),
    ],
)
def test_a_damaged_journal_is_measured_again(place: Any, reviewed: Any, tmp_path: Path, damage: Any) -> None:
    lines = (reviewed.page.parent / JOURNAL).read_bytes().splitlines()
    damaged = damage(lines)
    (tmp_path / JOURNAL).write_bytes(damaged)
    again = review([place["good"]], out=tmp_path)
    if b'"colour": 1' not in damaged:  # numbers that were changed into others can't be told
        assert [s.as_dict() for s in again.suspects] == [s.as_dict() for s in reviewed.suspects]


def test_masks_and_maps_that_do_not_fit_are_named(place: Any, tmp_path: Path, tiny_scenes: Any) -> None:
    shutil.copytree(place["good"].parent, tmp_path / "runs")
    copied = tmp_path / "runs" / place["good"].name
    record = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps({**record, "data_root": str(place["tree"])}))
    image_id = open_run(copied).tagged[0]
    folder = stage(copied, "pseudo-masks")
    mask = read_mask(folder / "pseudo_masks" / f"{image_id}.png")
    for spoilt_mask, words in ((mask[:-1], "its image 64 x 64"), (mask | 32, "must hold 0-8 and 255; got")):
        write_mask(folder / "pseudo_masks" / f"{image_id}.png", spoilt_mask)
        for runs in ([copied], [place["good"], copied]):
            with pytest.raises(DataError, match=words) as caught:
                review(runs, out=tmp_path / f"out-{len(runs)}-{words[:3]}")
            assert str(caught.value).endswith(f"Delete the folder {folder.name} and run the recipe again.")
    (folder / CHOSEN).write_text('{"value": "high"}')
    with pytest.raises(StageError, match=rf"Delete the folder {folder.name} and run the recipe again"):
        _ = open_run(copied).background_score
