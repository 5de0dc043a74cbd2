from __future__ import annotations

import pytest

from wsss.errors import RecipeError
from wsss.layers.class_texts import (
    background_texts,
    class_prompts,
    of_classes,
    published_texts,
    restricted,
    spelling,
)
from wsss.methods.clims import Clims, ClimsConfig
from wsss.types import ClassInfo

VOC = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]


def infos(*names: str) -> list[ClassInfo]:
    return [ClassInfo(name) for name in names]


def test_published_lists_are_complete() -> None:
    improved, coco = published_texts("voc_improved"), published_texts("coco_improved")
    assert list(improved.prompts) == VOC
    changed = {name: noun for name, noun in improved.prompts.items() if name != noun}
    assert changed == {
        "diningtable": "dining table",
        "person": "player",
        "pottedplant": "potted plant",
        "tvmonitor": "tv monitor",
    }
    assert len(improved.background_texts) == 10
    assert len(coco.prompts) == 80
    assert coco.prompts["person"] == "player"
    assert len(set(coco.background_texts)) == len(coco.background_texts) == 88
    camera = published_texts("voc_camera_ready")
    assert camera.background_texts == {
        "boat": ("river", "water", "lake", "sea", "building"),
        "train": ("railroad", "railway", "branches", "tree"),
    }
    assert camera.class_weights == {"sofa": 3, "diningtable": 3, "chair": 3}
    assert list(camera.prompts.values()) == VOC
    assert published_texts("voc_paper").background_texts["train"] == ("railroad", "railway", "tree")


def test_published_prompts_are_for_their_own_classes_only() -> None:
    published = published_texts("voc_improved")
    assert class_prompts(infos("person", "dining table"), {}, published) == {
        "person": "player",
        "dining table": "dining table",
    }
    assert class_prompts(infos("person", "building"), {}, published) == {
        "person": "person",
        "building": "building",
    }
    assert background_texts(infos("person", "building"), None, published) == ()


def test_the_recipe_comes_before_the_data_set_and_that_before_the_publication() -> None:
    published = published_texts("voc_improved")
    classes = [ClassInfo("person", prompt="worker", background_texts=("desk",)), *infos("tvmonitor", "car")]
    assert class_prompts(classes, {"car": "van"}, published) == {
        "person": "worker",
        "tvmonitor": "tv monitor",
        "car": "van",
    }
    assert background_texts(classes, None, published) == {"person": ("desk",)}
    assert background_texts(classes, ("sky",), published) == ("sky",)
    assert background_texts(classes, {"Car": ("road",)}, published) == {"car": ("road",)}
    assert background_texts(infos("car"), None, published)[0] == "tree"


def test_published_lists_class_by_class_keep_the_classes_that_are_there() -> None:
    published = published_texts("voc_camera_ready")
    assert set(background_texts(infos("boat", "cat"), None, published)) == {"boat"}
    assert restricted(published.class_weights, ["dining table", "cat"]) == {"dining table": 3}


def test_published_weights_are_for_their_own_classes_only() -> None:
    config = ClimsConfig(**{**Clims.presets["camera_ready"], "background_texts": ("floor",)})
    assert config.with_class_texts(infos("chair", "cat")).class_weights == {"chair": 3}
    assert config.with_class_texts(infos("chair", "lamp")).class_weights == {}


def test_spelling_does_not_lose_a_weight() -> None:
    assert spelling("Dining-table") == spelling("diningtable") == spelling("dining_table") == "diningtable"
    assert of_classes({"dining table": 3.0}, ["diningtable"], "class_weights") == {"diningtable": 3.0}


def test_an_unknown_class_is_named_with_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match=r"`class_weights` names the class `bout`.*Did you mean `boat`"):
        of_classes({"bout": 1.0}, ["boat", "cat"], "class_weights")
