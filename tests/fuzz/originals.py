"""Valid files of every kind that the program reads, small; cases change copies of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml

from data.tiny_trees import LISTS, SIZE, write_coco, write_voc
from export.small_model import noise, save_image, small_model
from models.weight_files import caffe_layer, write_caffe, write_mxnet
from tiny_recipe import CAM_RECIPE, random_teacher, random_vqa, smvwe_recipe, training, write_recipe
from wsss.data.masks_png import write_mask
from wsss.engine.run import run
from wsss.export.voc_submission import test_sizes, write_submission
from wsss.models import embedded
from wsss.questions.answers import Header, pair_line

test_sizes.__test__ = False  # a function of the package, not a test

CLASSES = ["cat", "dining table", "dog"]
TAGS = "image,labels,scene\ni0,cat,grass\ni1,cat|dog,grass|sky\nnorth/i2,dining table,\n"


def write_originals(place: Path) -> Path:
    """Write everything; see the functions below for the names."""
    small_model(test_flip=False).save_pretrained(place / "model")
    random_teacher(place / "clip")
    random_vqa(place / "vqa")
    shutil.copytree(Path(embedded.__file__).parent / "saliency", place / "detector")
    _write_folder(place)
    _write_masks(place)
    _write_weights(place / "weights")
    _write_answers(place / "answers.jsonl")
    write_coco(place / "coco")
    _write_voc(place)
    _write_runs(place)
    return place


def _write_folder(place: Path) -> None:
    """`photos` alone; `data` with images, tags and classes; recipes for it."""
    for number, name in enumerate(("i0.png", "i1.jpg", "north/i2.bmp")):
        for folder in (place / "photos", place / "data" / "images"):
            save_image(folder / name, noise(40, 48, seed=number))
    (place / "data" / "tags.csv").write_text(TAGS)
    (place / "classes.yaml").write_text(
        yaml.safe_dump({"classes": [{"name": name, "prompt": f"a {name}"} for name in CLASSES]})
    )
    (place / "classes.json").write_text(json.dumps(CLASSES))
    write_recipe(place / "folder.yaml", folder_recipe("data"))


def folder_recipe(root: str, **data: Any) -> dict[str, Any]:
    """One step of CAM on a folder."""
    recipe = {key: value for key, value in CAM_RECIPE.items() if key != "segmentation"}
    small = {**training(1), "epochs": None, "steps": 1, "batch_size": 2}
    return {**recipe, "data": {"kind": "folder", "root": root, "images": "images", **data}, "training": small}


def _write_masks(place: Path) -> None:
    """`masks` and `saliency` of the images; `one` mask alone."""
    rng = np.random.default_rng(0)
    for name in ("i0", "i1", "north/i2"):
        write_mask(place / "masks" / f"{name}.png", rng.integers(0, 4, (40, 48), dtype=np.uint8))
    write_mask(place / "one" / "i0.png", rng.integers(0, 4, (40, 48), dtype=np.uint8))
    for name in ("i0", "i1", "i2"):
        save_image(place / "saliency" / f"{name}.png", rng.integers(0, 256, (40, 48), dtype=np.uint8))


def _write_weights(folder: Path) -> None:
    """One small file of every format."""
    folder.mkdir()
    state = {"conv1.weight": torch.arange(54.0).reshape(2, 3, 3, 3), "bn1.bias": torch.zeros(2)}
    safetensors.torch.save_file(state, folder / "own.safetensors", {"wsss": '{"network": "x"}'})
    torch.save({"state_dict": state}, folder / "own.pth")
    write_mxnet(folder / "own.params", {"arg:conv1a_weight": np.zeros((4, 3, 3, 3), np.float32)})
    layer = caffe_layer(
        "conv1_1", "Convolution", [np.zeros((2, 3, 3, 3), np.float32), np.zeros(2, np.float32)]
    )
    write_caffe(folder / "own.caffemodel", [layer])


def _write_answers(path: Path) -> None:
    header = Header("blip", "f" * 64, {"beams": 3}, "data", {"scene": ("what is above the {}?",)})
    given = {"what is above the cat?": "a blue sky"}
    path.write_text(
        "".join([header.line(), *(pair_line(name, "cat", "cat", given) for name in ("i0", "i1"))])
    )


def _write_voc(place: Path) -> None:
    """`voc`, and an archive of predictions of its test images."""
    write_voc(place / "voc")
    for image_id in LISTS["test"]:
        write_mask(place / "predictions" / f"{image_id}.png", np.ones(SIZE, np.uint8))
    write_submission(place / "predictions", place / "results.tar.gz", test_sizes(place / "voc"))


def _write_runs(place: Path) -> None:
    """`runs` with maps of four scenes, by the recipe `maps.yaml`; `reported` and `corrected`, whole runs."""
    small = {**training(1), "epochs": None, "steps": 1, "batch_size": 2}
    data = {"kind": "scenes", "world": 7, "train": 4, "val": 2, "size": 64}
    changes = {"training": small, "segmentation": None, "data": data, "activation": {"scales": [1.0]}}
    write_recipe(place / "maps.yaml", CAM_RECIPE, **changes)
    run(place / "maps.yaml", runs=place / "runs", until="activate")
    for folder in (place / "runs" / "stages").glob("s*-*"):  # chosen and scored again from changed maps
        shutil.rmtree(folder)
    for folder in (place / "runs" / "stages").glob("choose-*"):
        shutil.rmtree(folder)
    saliency = smvwe_recipe()
    saliency["method"]["saliency"] = {"folder": "saliency"}
    write_recipe(
        place / "saliency.yaml",
        saliency,
        training={**small, "batch_size": 3},
        data=folder_recipe("data")["data"],
    )
    images = {"kind": "voc", "root": "data", "train_split": "train_aug"}
    masks = {"preset": "scenes", "target": "masks", "training": {**small, "batch_size": 6}}
    write_recipe(place / "supervised.yaml", {"about": CAM_RECIPE["about"]}, data=images, segmentation=masks)
    network = {"preset": "scenes", "training": {**small, "augmentation": {"crop_size": 64}}}
    write_recipe(place / "toy.yaml", CAM_RECIPE, **{**changes, "segmentation": network})
    run(place / "toy.yaml", runs=place / "reported")
    shutil.copytree(place / "reported", place / "corrected")
    shutil.rmtree(place / "corrected" / "toy-seed0")
    write_mask(place / "redrawn" / "w7_train_00000.png", np.ones((64, 64), np.uint8))
    given = {"corrections": {"folder": str(place / "redrawn")}}
    write_recipe(place / "corrected.yaml", CAM_RECIPE, **{**changes, "segmentation": network, **given})
    run(place / "corrected.yaml", runs=place / "corrected")
