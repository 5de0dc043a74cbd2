from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

from wsss.data.scenes import (
    BACKGROUND_NAMES,
    CLASS_NAMES,
    WORLD_VERSION,
    Scene,
    SceneSpec,
    answer,
    class_infos,
    context_names,
    draw_scene,
    is_finished,
    plan_scene,
    vocabulary,
    write_tree,
)
from wsss.data.scenes.relations import RELATIONS, describe
from wsss.errors import DataError

WORDS = vocabulary()
PLANS = [plan_scene(0, "train", index) for index in range(2000)]


@pytest.fixture(scope="module")
def scenes() -> list[tuple[SceneSpec, Scene]]:
    return [(plan, draw_scene(plan)) for plan in PLANS[:200]]


def test_names_are_the_vocabulary() -> None:
    assert tuple(words.name for words in WORDS.classes) == CLASS_NAMES[1:]
    assert tuple(words.name for words in WORDS.backgrounds) == BACKGROUND_NAMES
    assert context_names()[: 1 + len(BACKGROUND_NAMES)] == ("object", *BACKGROUND_NAMES)
    assert [info.name for info in class_infos()] == list(CLASS_NAMES[1:])


def test_a_scene_depends_on_its_name_alone() -> None:
    first, again = draw_scene(PLANS[5]), draw_scene(plan_scene(0, "train", 5))
    assert np.array_equal(first.image, again.image)
    assert first.metadata == again.metadata
    others = [plan_scene(1, "train", 5), plan_scene(0, "val", 5), plan_scene(0, "train", 6)]
    assert all(not np.array_equal(first.image, draw_scene(other).image) for other in others)


def test_the_world_is_the_one_of_its_version() -> None:
    """A change here is a new world: raise WORLD_VERSION, then renew the digest and every published number."""
    written = json.dumps([asdict(plan) for plan in PLANS[:50]])
    rounded = json.loads(written, parse_float=lambda text: round(float(text), 6))
    digest = hashlib.sha256(json.dumps(rounded, sort_keys=True).encode()).hexdigest()[:16]
    assert (WORLD_VERSION, digest) == (1, "2e23bd5812b64960")


def test_objects_keep_to_their_backgrounds() -> None:
    stands: dict[str, Counter[str]] = defaultdict(Counter)
    for plan in PLANS:
        for item in plan.objects:
            stands[item.name][plan.panels[item.panel].background] += 1
    for words in WORDS.classes:
        total = sum(stands[words.name].values())
        shares = {name: count / total for name, count in stands[words.name].items()}
        if words.home is None:
            assert max(shares.values()) < 0.17
        else:
            assert shares[words.home] == pytest.approx(words.home_share, abs=0.06)
            assert max(share for name, share in shares.items() if name != words.home) < 0.09


def test_free_scenes_have_no_habits() -> None:
    stands: dict[str, Counter[str]] = defaultdict(Counter)
    beside: dict[str, Counter[str]] = defaultdict(Counter)
    for index in range(2000):
        plan = plan_scene(0, "train", index, free=True)
        for item in plan.objects:
            stands[item.name][plan.panels[item.panel].background] += 1
            beside[item.name].update(thing.name for thing in plan.distractors)
    for counts in (*stands.values(), *beside.values()):
        even = 1 / (len(BACKGROUND_NAMES) if set(counts) <= set(BACKGROUND_NAMES) else len(WORDS.distractors))
        assert max(counts.values()) / sum(counts.values()) < even + 0.1


def test_numbers_of_objects_and_their_area(scenes: list[tuple[SceneSpec, Scene]]) -> None:
    counts = Counter(len(plan.objects) for plan in PLANS)
    assert counts[2] / len(PLANS) == pytest.approx(0.30, abs=0.04)
    assert counts[0] / len(PLANS) == pytest.approx(0.03, abs=0.015)
    classes = Counter(item.name for plan in PLANS for item in plan.objects)
    assert min(classes.values()) > 0.7 * sum(classes.values()) / len(WORDS.classes)
    assert 0.14 < np.mean([(scene.mask > 0).mean() for _, scene in scenes]) < 0.20


def test_masks_context_keys_and_labels_agree(scenes: list[tuple[SceneSpec, Scene]]) -> None:
    for plan, scene in scenes:
        assert scene.image.shape == (96, 96, 3)
        assert scene.image.dtype == scene.mask.dtype == scene.context.dtype == np.uint8
        assert np.array_equal(scene.mask > 0, scene.context == 0)
        assert not scene.key[scene.mask == 0].any()
        assert scene.context.max() < len(context_names())
        seen = {CLASS_NAMES[value] for value in np.unique(scene.mask) if value}
        assert seen == set(scene.metadata["labels"]) == {item.name for item in plan.objects}
        for entry, number in zip(scene.metadata["objects"], range(1, 3), strict=False):
            top, left, bottom, right = entry["box"]
            own = scene.instances == number
            assert own.sum() == own[top:bottom, left:right].sum() > 60
            for edge in (own[top], own[bottom - 1], own[:, left], own[:, right - 1]):
                assert edge.any()


def test_the_key_part_has_the_colour_of_its_class_and_the_body_has_not(
    scenes: list[tuple[SceneSpec, Scene]],
) -> None:
    colours = np.array([words.key_colour for words in WORDS.classes], float)
    key_hits, body_hits = [], []
    for plan, scene in scenes:
        for number, item in enumerate(plan.objects, start=1):
            own = scene.instances == number
            truth = CLASS_NAMES.index(item.name) - 1
            for pixels, hits in ((own & scene.key, key_hits), (own & ~scene.key, body_hits)):
                assert pixels.any()
                median = np.median(scene.image[pixels].astype(float), axis=0)
                hits.append(np.linalg.norm(colours - median, axis=1).argmin() == truth)
    assert np.mean(key_hits) > 0.95
    assert np.mean(body_hits) < 0.35


def test_every_body_colour_and_kind_occurs_in_every_class() -> None:
    kinds, patterns = defaultdict(set), defaultdict(set)
    for plan in PLANS:
        for item in plan.objects:
            kinds[item.name].add(item.kind)
            patterns[item.name].add(item.pattern)
    for words in WORDS.classes:
        assert kinds[words.name] == {kind for kind, _ in words.kinds}
        assert len(words.kinds) >= 2
        assert len(patterns[words.name]) == 5


def test_pairs_stand_side_by_side_on_their_own_backgrounds(scenes: list[tuple[SceneSpec, Scene]]) -> None:
    split = [(plan, scene) for plan, scene in scenes if len(plan.panels) == 2]
    assert len(split) > 20
    for plan, scene in split:
        left, right = plan.panels
        assert left.background != right.background
        main = [int(value) for value in (scene.context[:, 2].max(), scene.context[:, -3].max())]
        assert all(main)
        columns = [np.argwhere(scene.instances == number)[:, 1].mean() for number in (1, 2)]
        assert columns[0] < columns[1]


def test_unlisted_surroundings_are_marked(scenes: list[tuple[SceneSpec, Scene]]) -> None:
    listed = {text for words in WORDS.classes for text in words.background_texts}
    marked = 0
    for _, scene in scenes:
        shown = {context_names()[value] for value in np.unique(scene.context) if value}
        assert set(scene.metadata["specific_surroundings"]) == shown - listed
        assert scene.metadata["has_specific_surroundings"] == bool(shown - listed)
        marked += scene.metadata["has_specific_surroundings"]
    assert 0.25 < marked / len(scenes) < 0.65


def test_every_question_has_an_answer_in_known_words(scenes: list[tuple[SceneSpec, Scene]]) -> None:
    topics = [topic for _, topic in WORDS.questions]
    assert len(topics) == len(set(topics)) == 16
    assert all(template.count("{}") == 1 for template, _ in WORDS.questions)
    names = {*context_names()[1:], *CLASS_NAMES[1:], WORDS.nothing}
    for _, scene in scenes:
        metadata = json.loads(json.dumps(scene.metadata))
        for label in metadata["labels"]:
            given = {topic: answer(metadata, label, topic) for topic in topics}
            assert {given[topic] for topic in RELATIONS} <= names
            words = WORDS.object_words(label)
            assert (given["kind"], given["type"]) in words.kinds
            assert (given["alias"], given["alias_word"], given["alias_name"]) == words.aliases
            largest = max(
                (entry for entry in metadata["objects"] if entry["name"] == label),
                key=lambda entry: (entry["box"][2] - entry["box"][0]) * (entry["box"][3] - entry["box"][1]),
            )
            place = WORDS.background_words(largest["background"])
            assert (given["scene"], given["environment"], given["place"]) == (
                place.scene,
                place.environment,
                place.place,
            )


def test_relations_are_read_off_the_picture() -> None:
    plan = next(plan for plan in PLANS if len(plan.objects) == 1)
    names = context_names()
    context = np.full((96, 96), names.index("grass"), np.uint8)
    context[:30] = names.index("sky")
    context[30:, 60:] = names.index("road")
    context[45:60, 10:29] = names.index("rock")
    instances = np.zeros((96, 96), np.uint8)
    instances[35:65, 30:60] = 1
    context[instances > 0] = 0
    instances[35, 30] = 0
    context[35, 30] = names.index("grass")
    relations = describe(plan, context, instances)["objects"][0]["relations"]
    assert relations["above"][0] == "sky"
    assert relations["under"] == ["grass"]
    assert relations["behind"] == ["grass"]
    assert relations["left"] == ["rock", "grass"]
    assert relations["right"] == ["road"]
    assert relations["next"] == ["rock", "grass", "road"]
    assert set(relations["around"]) == {"grass", "road", "rock"}
    assert relations["around"][-1] == "rock"


def test_the_picture_is_the_same_at_every_size() -> None:
    for plan in PLANS[:8]:
        small, large = draw_scene(plan), draw_scene(replace(plan, size=192))
        assert large.image.shape == (192, 192, 3)
        assert (small.mask == large.mask[::2, ::2]).mean() > 0.97
        difference = np.abs(small.image.astype(float) - np.asarray(Image.fromarray(large.image).reduce(2)))
        assert difference.mean() < 12


def test_reserved_worlds_share_nothing_with_the_benchmark() -> None:
    assert len(WORDS.reserved_shapes) >= 6
    assert len(WORDS.reserved_backgrounds) >= 5
    assert not set(WORDS.reserved_shapes) & set(CLASS_NAMES)
    assert not set(WORDS.reserved_backgrounds) & set(context_names())
    for index in range(20):
        scene = draw_scene(plan_scene(0, "train", index, reserved=True))
        assert set(scene.metadata["labels"]) <= set(WORDS.reserved_shapes)
        assert set(scene.metadata["backgrounds"]) <= set(WORDS.reserved_backgrounds)
        assert np.array_equal(scene.mask > 0, scene.context == 0)


def test_impossible_plans_are_refused() -> None:
    for world, index, size in ((-1, 0, 96), (0, -1, 96), (0, 0, 16)):
        with pytest.raises(DataError, match="size"):
            plan_scene(world, "train", index, size=size)


def test_the_tree_is_an_ordinary_voc_tree(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_tree(tmp_path / "tree", world=3, train=5, val=3, size=64, progress=lambda *at: seen.append(at))
    tree = tmp_path / "tree"
    assert seen[-1] == (8, 8)
    ids = (tree / "ImageSets" / "Segmentation" / "trainval.txt").read_text().split()
    lists = tree / "ImageSets" / "Segmentation"
    parts = [(lists / f"{split}.txt").read_text().split() for split in ("train", "val")]
    assert ids == parts[0] + parts[1]
    assert parts[0][0] == "w3_train_00000"
    lines = [json.loads(line) for line in (tree / "scenes.jsonl").read_text().splitlines()]
    assert [line["image_id"] for line in lines] == ids
    for line in lines:
        image_id = line["image_id"]
        with Image.open(tree / "JPEGImages" / f"{image_id}.jpg") as image:
            assert image.size == (64, 64)
            assert image.mode == "RGB"
        masks = {}
        for folder in ("SegmentationClass", "SegmentationContext", "KeyParts"):
            with Image.open(tree / folder / f"{image_id}.png") as stored:
                assert stored.mode == "P"
                assert stored.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
                masks[folder] = np.array(stored)
        drawn = draw_scene(plan_scene(3, line["split"], line["index"], size=64))
        assert np.array_equal(masks["SegmentationClass"], drawn.mask)
        assert np.array_equal(masks["SegmentationContext"], drawn.context)
        assert np.array_equal(masks["KeyParts"], np.where(drawn.key, drawn.mask, 0))
        tags = ElementTree.parse(tree / "Annotations" / f"{image_id}.xml").findall("./object/name")
        assert {tag.text for tag in tags} == {CLASS_NAMES[value] for value in np.unique(drawn.mask) if value}
    classes = yaml.safe_load((tree / "classes.yaml").read_text())
    assert [entry["name"] for entry in classes["classes"]] == list(CLASS_NAMES[1:])
    assert classes["background_names"] == list(BACKGROUND_NAMES)
    assert json.loads((tree / "context.json").read_text())["3"] == "water"
    assert json.loads((tree / "scenes.json").read_text()) == {
        "version": WORLD_VERSION,
        "world": 3,
        "train": 5,
        "val": 3,
        "size": 64,
    }


def test_images_do_not_depend_on_how_many_are_written(tmp_path: Path) -> None:
    write_tree(tmp_path / "few", world=3, train=2, val=1, size=48)
    write_tree(tmp_path / "many", world=3, train=4, val=2, size=48)
    for path in sorted((tmp_path / "few" / "JPEGImages").iterdir()):
        assert path.read_bytes() == (tmp_path / "many" / "JPEGImages" / path.name).read_bytes()


def test_a_finished_tree_is_left_alone_and_another_replaces_it(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    write_tree(tree, world=3, train=2, val=1, size=48)
    written = (tree / "scenes.json").stat().st_mtime_ns
    write_tree(tree, world=3, train=2, val=1, size=48)
    assert (tree / "scenes.json").stat().st_mtime_ns == written
    write_tree(tree, world=3, train=3, val=1, size=48)
    assert is_finished(tree, world=3, train=3, val=1, size=48)
    assert not is_finished(tree, world=3, train=2, val=1, size=48)


def test_an_interrupted_writing_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tree(tmp_path / "tree", world=3, train=3, val=1, size=48, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        write_tree(tmp_path, world=3, train=1, val=1)
    assert (tmp_path / "mine.txt").read_text() == "mine"
