"""Malformed recipes, overrides and names."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import yaml

from fuzz.case import Case, content
from fuzz.hostile import yaml_bomb
from fuzz.mutations import changed_documents, changed_text
from tiny_recipe import CAM_RECIPE, REFINERS, clims_recipe
from wsss.engine.recipe_files import find_recipe, read_yaml

SHOW = ("show", "{given}/recipe.yaml")
DATA = "data: {kind: scenes}\n"
METHOD = "method: {name: cam}\n"
BOMB = yaml_bomb()

BROKEN = {
    "empty": "",
    "number": "3",
    "list": "- data\n- method\n",
    "no data": METHOD,
    "unknown section": DATA + METHOD + "methods: 3\n",
    "section twice": DATA + METHOD + METHOD,
    "open brace": "data: {kind: scenes\n",
    "tab": "data:\n\tkind: scenes\n",
    "unhashable key": DATA + "? [method, name]\n: cam\n",
    "unhashable keys": DATA + METHOD + "about: {? {a: b} : c}\n",
    "number as key": DATA + METHOD + "1: 2\n",
    "nothing as key": DATA + METHOD + "null: 2\n",
    "truth as key": DATA + METHOD + "yes: 2\n",
    "date as key": DATA + METHOD + "2020-01-01: 2\n",
    "impossible date": DATA + METHOD + "about: {title: 2020-99-99}\n",
    "python object": DATA + "method: !!python/object/apply:os.mkdir [code-ran]\n",
    "python name": DATA + "method: {name: !!python/name:os.system }\n",
    "python module": "!!python/module:antigravity\n",
    "own tag": DATA + "method: !cam {}\n",
    "binary": DATA + "method: {name: !!binary '####'}\n",
    "set": DATA + "method: !!set {name, cam}\n",
    "pairs": DATA + "method: !!omap [name: cam, 3]\n",
    "timestamp": DATA + "method: {name: !!timestamp cam}\n",
    "int": DATA + "method: {name: !!int cam}\n",
    "float": DATA + "method: {name: !!float cam}\n",
    "alias": DATA + "method: *nothing\n",
    "anchor twice": "data: &a {kind: &a scenes}\nmethod: *b\n",
    "itself": "data: &a {kind: *a}\n" + METHOD,
    "itself as method": DATA + "method: &a {name: *a}\n",
    "itself as refiners": DATA + METHOD + "refine: &a [*a]\n",
    "merge itself": DATA + "method: &a {<<: *a, name: cam}\n",
    "merge a text": DATA + "method: {<<: cam}\n",
    "bomb": f"data: {BOMB}\n" + METHOD,
    "bomb as method": DATA + f"method: {BOMB}\n",
    "bomb as name": DATA + f"method: {{name: {BOMB}}}\n",
    "bomb as recipe's name": DATA + METHOD + f"name: {BOMB}\n",
    "bomb as refiner": DATA + METHOD + f"refine: [{BOMB}]\n",
    "bomb as refiners": DATA + METHOD + f"refine: {BOMB}\n",
    "bomb as texts": DATA + f"method: {{name: clims, foreground_texts: {BOMB}}}\n",
    "bomb as questions": DATA + f"method: {{name: qa_clims, questions: {{scene: {BOMB}}}}}\n",
    "bomb as section": DATA + METHOD + f"bomb: {BOMB}\n",
    "bomb as key": DATA + METHOD + f"? {BOMB}\n: 3\n",
    "bomb as scales": DATA + METHOD + f"activation: {{scales: {BOMB}}}\n",
    "deep": "data: " + "[" * 3_000 + "]" * 3_000,
    "deep mapping": "data: " + "{a: " * 2_000 + "1" + "}" * 2_000,
    "no method's file": DATA + "method: {name: nowhere.py}\n",
    "folder as method": DATA + "method: {name: /}\n",
    "parent as method": DATA + "method: {name: ../../cam}\n",
    "dots as method": DATA + "method: {name: os.path}\n",
    "hidden method": DATA + "method: {name: __init__}\n",
    "base as method": DATA + "method: {name: base}\n",
    "private file as method": DATA + "method: {name: _qa_clims_config}\n",
    "zero byte in method": DATA + 'method: {name: "cam\\0"}\n',
    "long method": DATA + f"method: {{name: {'x' * 50_000}}}\n",
    "list as method": DATA + "method: [cam]\n",
    "method without a name": DATA + "method: {}\n",
    "nothing as method": DATA + "method: {name: null}\n",
    "unknown preset": DATA + "method: {name: cam, preset: best}\n",
    "list as preset": DATA + "method: {name: cam, preset: [best]}\n",
    "mapping as preset": DATA + "method: {name: cam, preset: {a: 1}}\n",
    "unknown kind": "data: {kind: imagenet}\n" + METHOD,
    "list as kind": "data: {kind: [scenes]}\n" + METHOD,
    "mapping as refiners": DATA + METHOD + "refine: {name: dense_crf}\n",
    "refiner without a name": DATA + METHOD + "refine: [{}]\n",
    "nothing as refiner": DATA + METHOD + "refine: [null]\n",
    "unknown refiner": DATA + METHOD + "refine: [{name: cam}]\n",
    "parent as refiner": DATA + METHOD + "refine: [{name: ../cam}]\n",
    "list as refiner's preset": DATA + METHOD + "refine: [{name: psa, preset: [a]}]\n",
    "list as training": DATA + METHOD + "refine: [{name: psa, training: [1]}]\n",
    "text as training": DATA + METHOD + "training: fast\n",
    "no number": DATA + METHOD + "training: {steps: 1, learning_rate: .nan}\n",
    "endless number": DATA + METHOD + f"training: {{steps: 1{'0' * 5_000}}}\n",
    "no steps": DATA + METHOD + "training: {steps: 0}\n",
    "minus workers": DATA + METHOD + "training: {steps: 1, workers: -1}\n",
    "no images": "data: {kind: scenes, train: 0}\n" + METHOD,
    "list as teacher": DATA + "method: {name: clims, teacher: [a]}\n",
    "list as initialise": DATA + METHOD + "initialise: [cam]\n",
    "initialise of nothing": DATA + METHOD + "initialise: {}\n",
    "unknown key to start from": DATA + METHOD + "initialise: {1: 2}\n",
    "list as weights": DATA + "method: {name: cam, backbone_weights: [a]}\n",
    "list as backbone": DATA + "method: {name: cam, backbone: [resnet50]}\n",
    "list as segmentation": DATA + METHOD + "segmentation: [deeplab_v2]\n",
    "unknown preset of segmentation": DATA + METHOD + "segmentation: {preset: [a]}\n",
}
BROKEN_BYTES = {
    "utf-16": (DATA + METHOD).encode("utf-16"),
    "latin-1": (DATA + METHOD + "about: {title: Zähler}\n").encode("latin-1"),
    "zeros": bytes(1_000),
    "zero byte": (DATA + METHOD).encode() + b"about: {title: a\0b}\n",
    "control letters": (DATA + METHOD).encode() + b"about: {title: \x1b[31m}\n",
    "surrogate": (DATA + METHOD).encode() + b"about: {title: \xed\xa0\x80}\n",
    "pickle": b"\x80\x04\x95\x00",
}
SETTINGS = (
    *(
        "method",
        "=",
        "=1",
        ".=1",
        "method.=1",
        ".method=1",
        "method..name=1",
        "method.name.x=1",
        "refine.0=1",
    ),
    *("refine.-1=1", "refine.x=1", "data=3", "data.kind=[1]", "method=[cam]", "method.name=[", "name={"),
    *("method.name=!!python/object/apply:os.mkdir [code-ran]", "method.name=*a", "method.name=&a [*a]"),
    *("training.steps=" + "9" * 5_000, "method.name=2020-99-99", "training.steps=nan", "refine.²=1", "\0=1"),
    *("method.name=a\0b", "x" * 5_000 + "=1", f"method.name={BOMB}", f"refine={BOMB}", "data.train=1e400"),
)


def cases() -> Iterator[Case]:
    """All of them; nothing is run, since a recipe is checked as a whole before."""
    for name, text in BROKEN.items():
        yield Case(f"recipe: {name}", content("recipe.yaml", text), SHOW)
    for name, data in BROKEN_BYTES.items():
        yield Case(f"recipe: {name}", content("recipe.yaml", data), SHOW)
    for number, document in enumerate(changed_documents(_recipe(), 70, seed=11)):
        text = yaml.safe_dump(document, allow_unicode=True)
        yield Case(f"changed recipe {number}", content("recipe.yaml", text), SHOW, is_broken=False)
    shipped = find_recipe("scenes/qa_clims").read_text()
    for number, data in enumerate(changed_text(shipped, 42, seed=12)):
        yield Case(f"changed text of a recipe {number}", content("recipe.yaml", data), SHOW, is_broken=False)
    for setting in SETTINGS:
        name = f"setting {setting[:40]!r}"
        yield Case(name, content("none", b""), ("show", "scenes/cam", "--set", setting))
    for name in (
        "",
        ".",
        "/",
        "..",
        "../scenes/cam",
        "scenes/../../x",
        "x" * 5_000,
        "a\0b",
        "methods/../x",
        "*",
    ):
        yield Case(f"shown name {name[:20]!r}", content("none", b""), ("show", name))


def _recipe() -> dict[str, Any]:
    """Sections of every kind."""
    recipe = clims_recipe(find_recipe("scenes/cam"))  # any path: the teacher is not looked for
    classifier = {"backbone": "vgg_small", "training": copy.deepcopy(CAM_RECIPE["training"])}
    judged = {**recipe["method"], "evaluator": "tag_classifier"}
    score = read_yaml(find_recipe("scenes/cam")).get("evaluation", {"fixed_background_score": 0.15})
    more = {"refine": copy.deepcopy(REFINERS), "tag_classifier": classifier, "evaluation": score}
    return {**recipe, **more, "method": judged, "pseudo_masks": {"background_score": 0.2}}
