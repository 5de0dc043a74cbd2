"""Malformed documents: COCO's annotations, VOC's XML and lists, and records of runs and predictions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.case import Case, Write
from fuzz.hostile import pickled, xml_bomb
from fuzz.mutations import changed_bytes, changed_documents
from fuzz.table_cases import PLAN

DEEP = "[" * 100_000
BROKEN_JSON = {
    "empty": "",
    "text": '"x"',
    "list": "[1]",
    "open": '{"a": ',
    "deep": DEEP,
    "nan": "NaN",
    "null": "null",
}
BROKEN_XML = {
    "empty": "",
    "open": "<annotation><object><name>boat</name>",
    "bomb": xml_bomb("boat"),
    "file": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a><object><name>&x;</name></object></a>',
    "unknown class": "<annotation><object><name>unicorn</name></object></annotation>",
    "no class": "<annotation><object><name/></object></annotation>",
    "deep": "<a>" * 50_000,
    "zero byte": "<annotation>\0</annotation>",
    "text": "boat",
}


def cases(originals: Path) -> Iterator[Case]:
    """All of them; some change copies of the originals, which are there already."""
    yield from _coco_cases(originals / "coco")
    yield from _voc_cases(originals / "voc")
    record = json.loads((originals / "reported" / "toy-seed0" / "run.json").read_text())
    commands = {
        "report": ("report", "{given}/toy-seed0", "--out", "{out}"),
        "export": ("export", "coco", "{given}/toy-seed0", "--out", "{out}/x.json"),
        "predict": ("predict", "{given}/toy-seed0", "{originals}/photos", "--out", "{out}"),
        "submission": ("submission", "{given}/toy-seed0", "--out", "{out}/x.tgz"),
        "model": ("export", "model", "{given}/toy-seed0", "--out", "{out}/m"),
        "compare": ("compare", "{given}/toy-seed0"),
    }
    for place, (name, command) in enumerate(commands.items()):
        for kind, text in BROKEN_JSON.items():
            yield Case(f"{name} of a run: {kind}", _run(text), command)
        for number, document in enumerate(changed_documents(record, 8, seed=50 + place)):
            text = json.dumps(document)
            yield Case(f"{name} of a changed run {number}", _run(text), command, is_broken=False)
    for name, text in BROKEN_JSON.items():
        yield Case(f"scores: {name}", _scores(text), commands["report"])
        command = ("predict", "{originals}/model", "{originals}/photos", "--out", "{out}")
        yield Case(f"predictions: {name}", _predictions(text), command)


def _coco_cases(coco: Path) -> Iterator[Case]:
    document = json.loads((coco / "annotations" / "instances_train2014.json").read_text())
    for name, text in BROKEN_JSON.items():
        yield Case(f"COCO: {name}", _tree("coco", "annotations/instances_train2014.json", text), PLAN)
    document["categories"] = document["categories"][:80]
    small: dict[str, Any] = {key: value for key, value in document.items() if key != "categories"}
    for number, changed in enumerate(changed_documents(small, 49, seed=61)):
        text = json.dumps({**changed, "categories": document["categories"]})
        write = _tree("coco", "annotations/instances_train2014.json", text)
        yield Case(f"changed COCO {number}", write, PLAN, is_broken=False)


def _voc_cases(voc: Path) -> Iterator[Case]:
    for name, text in BROKEN_XML.items():
        yield Case(f"annotation: {name}", _tree("voc", "Annotations/2007_000001.xml", text), PLAN)
    lists = {
        "empty": "",
        "unknown": "2099_000001\n",
        "parent": "../../../etc/passwd\n",
        "absolute": "/etc/passwd\n",
        "zero byte": "2007_\0\n",
        "long": "x" * 100_000 + "\n",
        "latin-1": b"\xe9\n".decode("latin-1"),
    }
    for name, text in lists.items():
        yield Case(f"list of a split: {name}", _tree("voc", "ImageSets/Segmentation/train.txt", text), PLAN)
    train = ("train-segmentation", "{given}/recipe.yaml", "--runs", "{out}")
    mat = {"empty": b"", "text": b"MATLAB", "pickle": pickled(), "noise": np.random.default_rng(7).bytes(500)}
    for name, data in mat.items():
        write = _tree("voc", "SBD/cls/2008_000030.mat", data, recipe="supervised.yaml")
        yield Case(f"MATLAB file: {name}", write, train, says=("2008_000030",))
    whole = (voc / "SBD" / "cls" / "2008_000030.mat").read_bytes()
    for number, data in enumerate(changed_bytes(whole, 14, seed=71)):
        write = _tree("voc", "SBD/cls/2008_000030.mat", data, recipe="supervised.yaml")
        yield Case(f"changed MATLAB file {number}", write, train, is_broken=False)


def _tree(kind: str, name: str, data: str | bytes, recipe: str = "folder.yaml") -> Write:
    """A copy of a data tree with one file replaced, and a recipe for it."""

    def write(given: Path, originals: Path) -> None:
        shutil.copytree(originals / kind, given / kind)
        path = given / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
        text = (originals / recipe).read_text().replace("images: images", "")
        text = text.replace("kind: folder", f"kind: {kind}").replace("root: data", f"root: {given / kind}")
        (given / "recipe.yaml").write_text(text)

    return write


def _run(text: str) -> Write:
    def write(given: Path, originals: Path) -> None:
        shutil.copytree(originals / "reported", given, dirs_exist_ok=True)
        (given / "toy-seed0" / "run.json").write_text(text)

    return write


def _scores(text: str) -> Write:
    def write(given: Path, originals: Path) -> None:
        shutil.copytree(originals / "reported", given, dirs_exist_ok=True)
        scores = min((given / "stages").glob("score-*/scores.json"))
        scores.write_text(text)

    return write


def _predictions(text: str) -> Write:
    def write(given: Path, originals: Path) -> None:
        shutil.copytree(originals / "one", given.parent / "out")
        (given.parent / "out" / "predictions.json").write_text(text)

    return write
