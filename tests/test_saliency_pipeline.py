"""SMVWE from saliency to maps and words: what is detected once, what is shared, and that no mask gets in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.test_masks_png import GREY, png
from tiny_recipe import Recorder, smvwe_recipe, write_recipe
from wsss.activation.words import read_word_classes, read_words
from wsss.data.file_dataset import FileDataset
from wsss.data.masks_png import read_mask
from wsss.engine.estimate import estimate
from wsss.engine.recipe import load_recipe
from wsss.engine.run import RunResult, read_run, run
from wsss.engine.saliency_work import SaliencySection, folder_digest
from wsss.errors import DataError, RecipeError
from wsss.models.saliency import read_saliency, saliency_file
from wsss.report.page import write_report

WORDS = 16


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smvwe")
    write_recipe(folder / "smvwe.yaml", smvwe_recipe())
    return folder


@pytest.fixture(scope="module")
def finished(place: Path) -> RunResult:
    return run(place / "smvwe.yaml", runs=place / "runs")


def again(place: Path, *overrides: str, until: str | None = None) -> tuple[RunResult, list[str]]:
    """Run with other settings; which stages had to work."""
    listener = Recorder()
    recipe = load_recipe(place / "smvwe.yaml", overrides)
    return run(recipe, runs=place / "runs", until=until, progress=listener), listener.started_titles


def stage_folder(result: RunResult, name: str) -> Path:
    stages = {stage["name"]: stage["folder"] for stage in read_run(result.folder)["stages"]}
    return (result.folder / stages[name]).resolve()


def test_a_run_detects_trains_and_scores_maps_and_words(finished: RunResult) -> None:
    record = read_run(finished.folder)
    assert [stage["name"] for stage in record["stages"]] == [
        *("data", "detect-saliency", "train-method", "activate", "write-words", "pseudo-masks")
    ]
    assert record["supervision"] == "I+S"
    assert len(record["weights"]["saliency"]) == 64
    lines = (stage_folder(finished, "train-method") / "log.jsonl").read_text().splitlines()
    assert set(json.loads(lines[-1])["losses"]) == {"classification", "words", "words_to_image", "saliency"}
    assert [e["background_score_source"] for e in finished.scores["words"]["entries"]] == ["none", "oracle"]


def test_saliency_maps_are_grey_images_of_the_images_sizes(finished: RunResult) -> None:
    maps = sorted((stage_folder(finished, "detect-saliency") / "maps").glob("*.png"))
    assert len(maps) == 12
    with Image.open(maps[0]) as image:
        assert (image.mode, image.size) == ("L", (64, 64))


def test_words_are_scored_as_what_they_stand_for(finished: RunResult) -> None:
    """A slow reference: every word map against every true mask, with the best class of each word."""
    folder = stage_folder(finished, "write-words") / "words"
    tree = stage_folder(finished, "data") / "tree"
    own, counts = read_word_classes(folder), np.zeros((WORDS, 9), dtype=int)
    masks = {}
    for path in sorted(folder.glob("*.png")):
        masks[path.stem] = read_words(path), read_mask(next(tree.rglob(f"SegmentationClass/{path.name}")))
        for word, true in zip(masks[path.stem][0].ravel(), masks[path.stem][1].ravel(), strict=True):
            if true != 255:
                counts[word, true] += 1
    assert len(own) == WORDS
    for entry, classes in zip(finished.scores["words"]["entries"], (own, counts.argmax(1)), strict=True):
        confusion = np.zeros((9, 9), dtype=int)
        for words, mask in masks.values():
            for word, true in zip(words.ravel(), mask.ravel(), strict=True):
                if true != 255:
                    confusion[true, classes[word]] += 1
        assert entry["confusion"] == confusion.tolist()


def test_a_second_run_does_nothing_and_other_settings_share_the_saliency(
    finished: RunResult, place: Path
) -> None:
    assert again(place)[1] == []
    other, started = again(place, "method.mu=0.3", until="train-method")
    assert started == ["Train smvwe"]
    assert stage_folder(other, "detect-saliency") == stage_folder(finished, "detect-saliency")


def test_without_saliency_nothing_is_detected(place: Path, finished: RunResult) -> None:
    result, started = again(place, "method.saliency_weight=0", until="train-method")
    assert started == ["Train smvwe"]
    assert read_run(result.folder)["supervision"] == "I"
    with pytest.raises(RecipeError, match="learns from no saliency maps"):
        load_recipe(place / "smvwe.yaml", ["method.saliency_weight=0", "method.saliency=u2net"])


def test_no_mask_reaches_the_saliency_or_the_training(
    finished: RunResult, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every reading of a true mask or context map is recorded with the stage that asked for it."""
    listener, readers = Recorder(), set()
    for method in ("_true_mask", "context"):
        original = getattr(FileDataset, method)

        def recorded(self, *args, original=original):
            readers.add(listener.current)
            return original(self, *args)

        monkeypatch.setattr(FileDataset, method, recorded)
    run(place / "smvwe.yaml", runs=tmp_path / "runs", progress=listener)
    assert readers == {title for title in listener.started_titles if title.startswith("Score ")}


def test_saliency_is_the_same_whatever_the_masks_say(finished: RunResult, tmp_path: Path) -> None:
    """The very bytes of all saliency maps, where the masks are those of other images."""
    tree = shutil.copytree(stage_folder(finished, "data") / "tree", tmp_path / "tree")
    (folder,) = {path.parent for path in tree.rglob("SegmentationClass/*.png")}
    masks = sorted(folder.glob("*.png"))
    contents = [path.read_bytes() for path in masks]
    for path, other in zip(masks, contents[1:] + contents[:1], strict=True):
        path.write_bytes(other)
    recipe = write_recipe(tmp_path / "voc.yaml", smvwe_recipe(), data={"kind": "voc", "root": str(tree)})
    result = run(recipe, runs=tmp_path / "runs", until="detect-saliency")
    first = sorted((stage_folder(finished, "detect-saliency") / "maps").glob("*.png"))
    second = sorted((stage_folder(result, "detect-saliency") / "maps").glob("*.png"))
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_maps_of_ones_own_are_used_and_their_content_counts(
    finished: RunResult, place: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(stage_folder(finished, "detect-saliency") / "maps", tmp_path / "own")
    setting = f"method.saliency={{folder: {own}}}"
    result, started = again(place, setting, until="train-method")
    assert started == ["Train smvwe"]
    assert len(read_run(result.folder)["weights"]["saliency maps"]) == 64
    weights = stage_folder(result, "train-method") / "model.safetensors"
    honest = stage_folder(finished, "train-method") / "model.safetensors"
    assert weights.read_bytes() == honest.read_bytes()  # the same maps, the same training
    path = next(own.glob("*.png"))
    Image.new("L", (64, 64), 255).save(path)
    assert again(place, setting, until="train-method")[1] == ["Train smvwe"]
    path.unlink()
    with pytest.raises(DataError, match=f"1 of 12 .*{path.name}"):
        again(place, setting, until="train-method")
    shutil.rmtree(own)
    with pytest.raises(DataError, match="There is no folder"):
        again(place, setting, until="train-method")
    with pytest.raises(RecipeError, match="exclude each other"):
        load_recipe(place / "smvwe.yaml", ["method.saliency={folder: x, source: u2net}"])


def test_true_masks_given_as_saliency_are_refused(finished: RunResult, place: Path) -> None:
    tree = stage_folder(finished, "data") / "tree"
    masks = next(path.parent for path in tree.rglob("SegmentationClass/*.png"))
    with pytest.raises(DataError, match=r"palette|indexed"):
        again(place, f"method.saliency={{folder: {masks}}}", until="train-method")


@pytest.fixture(scope="module")
def voc(finished: RunResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe for a copy of the data as files; its maps lie in `own`."""
    folder = tmp_path_factory.mktemp("voc")
    tree = shutil.copytree(stage_folder(finished, "data") / "tree", folder / "tree")
    shutil.copytree(stage_folder(finished, "detect-saliency") / "maps", folder / "own")
    data = {
        "kind": "voc",
        "root": str(tree),
        "context": "SegmentationContext",
        "context_names": "context.json",
        "classes": "classes.yaml",
    }
    return write_recipe(folder / "voc.yaml", smvwe_recipe(), data=data)


def train_with(recipe: Path, maps: Path | str) -> None:
    loaded = load_recipe(recipe, [f"method.saliency={{folder: {maps}}}"])
    run(loaded, runs=recipe.parent / "runs", until="train-method")


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_copies_of_grey_masks_are_refused_whatever_their_bits(voc: Path, tmp_path: Path, depth: int) -> None:
    """One copy among honest maps is enough; it is found before anything is trained."""
    maps = shutil.copytree(voc.parent / "own", tmp_path / "maps")
    path = sorted(maps.glob("*.png"))[3]
    mask = voc.parent / "tree" / "SegmentationClass" / path.name
    content = mask.read_bytes()
    mask.write_bytes(png(np.minimum(read_mask(mask), 2**depth - 1), depth, GREY))
    shutil.copyfile(mask, path)
    try:
        message = "is a copy of the true mask" if depth == 8 else f"got a grey image of {depth} bit"
        with pytest.raises(DataError, match=rf"{path.name} .*{message}.*must not serve as saliency"):
            train_with(voc, maps)
    finally:
        mask.write_bytes(content)
    assert not list((voc.parent / "runs").rglob("*.safetensors"))


@pytest.mark.parametrize("below", ["SegmentationClass", "SegmentationClass/maps", "SegmentationContext"])
def test_maps_among_the_data_sets_own_masks_are_refused(voc: Path, tmp_path: Path, below: str) -> None:
    folder = voc.parent / "tree" / below
    made = not folder.exists()
    if made:
        shutil.copytree(voc.parent / "own", folder)
    link = tmp_path / "link"
    link.symlink_to(folder, target_is_directory=True)
    try:
        for given in (folder, link, folder.parent / "nowhere" / ".." / folder.name):
            with pytest.raises(DataError, match=r"`method\.saliency\.folder` must be outside"):
                train_with(voc, given)
    finally:
        if made:
            shutil.rmtree(folder)


def test_honest_maps_train_and_an_empty_one_may_equal_an_empty_mask(
    voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = shutil.copytree(voc.parent / "own", tmp_path / "maps")
    path = next(maps.glob("*.png"))
    Image.new("L", (64, 64), 0).save(path)
    mask = voc.parent / "tree" / "SegmentationClass" / path.name
    content = mask.read_bytes()
    shutil.copyfile(path, mask)
    monkeypatch.setenv("HOME", str(tmp_path))
    try:
        train_with(voc, "~/maps")
    finally:
        mask.write_bytes(content)
    assert list((voc.parent / "runs").rglob("model.safetensors"))


def test_maps_in_folders_below_count_too(tmp_path: Path) -> None:
    section = SaliencySection.model_validate({"folder": str(tmp_path)})
    (tmp_path / "below").mkdir()
    seen = set()
    for number, name in enumerate(("a.png", "below/a.png", "below/b.png", "below/b.png")):
        Image.new("L", (4, 4), number).save(tmp_path / name)
        seen.add(folder_digest(section))
    assert len(seen) == 4


def test_an_interrupted_detection_goes_on(
    finished: RunResult, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsss.engine import saliency_work

    honest, calls = saliency_work.load_detector, []

    def weak(*args, **kwargs):
        detector = honest(*args, **kwargs)
        detect = detector.detect

        def once(images):
            calls.append(len(images))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return detect(images)

        monkeypatch.setattr(detector, "detect", once, raising=False)
        return detector

    monkeypatch.setattr(saliency_work, "load_detector", weak)
    original = saliency_work.detect_to_folder
    monkeypatch.setattr(
        saliency_work,
        "detect_to_folder",
        lambda *args, **kwargs: original(*args, **{**kwargs, "images_at_once": 5}),
    )
    with pytest.raises(KeyboardInterrupt):
        run(place / "smvwe.yaml", runs=tmp_path / "runs", until="detect-saliency")
    result = run(place / "smvwe.yaml", runs=tmp_path / "runs", until="detect-saliency")
    assert calls == [5, 5, 5, 2]  # the second batch again, nothing else twice
    for path in (stage_folder(finished, "detect-saliency") / "maps").glob("*.png"):
        again_ = saliency_file(stage_folder(result, "detect-saliency") / "maps", path.stem)
        assert np.array_equal(read_saliency(again_, (64, 64)), read_saliency(path, (64, 64)))


def test_the_estimate_knows_all_stages(place: Path, tmp_path: Path) -> None:
    found = estimate(load_recipe(place / "smvwe.yaml"), runs=tmp_path)
    seconds = {stage.title: stage.seconds for stage in found.stages}
    assert seconds["Detect salient objects"] > 0
    assert seconds["Write word maps"] > 0


def test_the_report_shows_saliency_and_words(finished: RunResult, tmp_path: Path) -> None:
    page = write_report([finished.folder], tmp_path).read_text()
    assert "saliency that SMVWE trained on" in page
    assert "visual words of SMVWE, each a colour" in page
    assert "Word labels" in page
