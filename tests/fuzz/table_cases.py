"""Malformed tags, classes, answers, and lists of images and splits."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

from fuzz.case import Case, Write, content
from fuzz.hostile import pickled, yaml_bomb
from fuzz.mutations import changed_documents, changed_text
from fuzz.originals import CLASSES, TAGS

HEAD = "image,labels\n"
PLAN = ("run", "{given}/recipe.yaml", "--runs", "{out}", "--until", "nothing")
"""Opens the data; where these are right, there is still no such stage."""

BROKEN_TAGS = {
    "empty": "",
    "no header": "i0,cat\n",
    "other header": "file,tags\ni0,cat\n",
    "header twice": "image,image,labels\ni0,i0,cat\n",
    "semicolons": "image;labels\ni0;cat\n",
    "tabs": "image\tlabels\ni0\tcat\n",
    "missing cell": HEAD + "i0\n",
    "additional cell": HEAD + "i0,cat,dog\n",
    "open quote": HEAD + 'i0,"cat\n',
    "quote inside": HEAD + 'i0,"ca"t"\n',
    "no image": HEAD + ",cat\n",
    "unknown class": HEAD + "i0,mouse\n",
    "unknown image": HEAD + "i9,cat\n",
    "twice": HEAD + "i0,cat\ni0,dog\n",
    "no class": HEAD + "i0,\n",
    "parent": HEAD + "../i0,cat\n",
    "deep parent": HEAD + "north/../../../x,cat\n",
    "parent of Windows": HEAD + "..\\i0,cat\n",
    "absolute": HEAD + "/etc/passwd,cat\n",
    "drive": HEAD + "C:\\i0.png,cat\n",
    "drive alone": HEAD + "C:,cat\n",
    "network": HEAD + "\\\\host\\share\\i0,cat\n",
    "zero byte": HEAD + "i0\0.png,cat\n",
    "zero byte in a class": HEAD + "i0,ca\0t\n",
    "long image": HEAD + "x" * 70_000 + ",cat\n",
    "long path": HEAD + "a/" * 5_000 + "x,cat\n",
    "very long cell": HEAD + "i0," + "c" * 200_000 + "\n",
    "many classes": HEAD + "".join(f"i0,{'|'.join(f'c{n}' for n in range(300))}\n"),
    "formula": HEAD + "=cmd|' /C calc'!A0,cat\n",
    "separator": HEAD + "i0,|\n",
    "background": HEAD + "i0,background\n",
    "direction": HEAD + "i0,\u202etac\n",
    "json": '{"image": "i0", "labels": ["cat"]}',
    "carriage returns": "image,labels\rno image,",
}
BROKEN_TAG_BYTES = {
    "latin-1": (HEAD + "i0,Zähler\n").encode("latin-1"),
    "utf-16": TAGS.encode("utf-16"),
    "utf-32": TAGS.encode("utf-32"),
    "half a letter": (HEAD + "i0,cat\n").encode() + b"\xc3",
    "surrogate": HEAD.encode() + b"i0,\xed\xa0\x80\n",
    "zip": b"PK\x03\x04" + bytes(100),
    "pickle": pickled(),
    "zeros": bytes(5_000),
}
BROKEN_CLASSES = {
    "empty.yaml": "",
    "number.yaml": "3\n",
    "text.yaml": "cat\n",
    "numbers.yaml": "[1, 2]\n",
    "none.yaml": "classes: []\n",
    "nothing.yaml": "classes:\n",
    "key.yaml": "class: [cat]\n",
    "unhashable.yaml": "? [a, b]\n: c\n",
    "unhashable entry.yaml": "classes:\n- ? {a: b}\n  : c\n",
    "truth.yaml": "classes: [yes, no]\n",
    "twice.yaml": "classes: [cat, cat]\n",
    "empty name.yaml": 'classes: ["", dog]\n',
    "background.yaml": "classes: [cat, background]\n",
    "separator.yaml": "classes: ['cat|dog']\n",
    "nested.yaml": "classes: [[cat]]\n",
    "unknown key.yaml": "classes: [{name: cat, colour: red}]\n",
    "no name.yaml": "classes: [{prompt: cat}]\n",
    "synonyms.yaml": "classes: [{name: cat, synonyms: cats}]\n",
    "null.yaml": "classes: [{name: null}]\n",
    "tag.yaml": "classes: !!python/object/apply:os.mkdir [code-ran]\n",
    "module.yaml": "!!python/module:os\n",
    "alias.yaml": "classes: *unknown\n",
    "itself.yaml": "&a [*a]\n",
    "itself in itself.yaml": "classes: &a\n- name: cat\n  synonyms: *a\n",
    "bomb.yaml": f"classes: {yaml_bomb()}\n",
    "bomb alone.yaml": yaml_bomb(),
    "bomb of names.yaml": f"classes: [{{name: {yaml_bomb()}}}]\n",
    "bomb of words.yaml": f"classes: [cat]\nbackground_names: [{yaml_bomb()}]\n",
    "bomb of keys.yaml": f"? {yaml_bomb()}\n: classes\n",
    "merge.yaml": "a: &a {x: 1}\nclasses: {<<: *a, <<: *a}\n",
    "open.yaml": "classes: [cat\n",
    "tabs.yaml": "classes:\n\t- cat\n",
    "zero byte.yaml": "classes: [ca\0t]\n",
    "date.yaml": "classes: [2020-01-01]\n",
    "impossible date.yaml": "classes: [2020-99-99]\n",
    "base 60.yaml": "classes: [1:2:3, 0x_, 0b_]\n",
    "deep.yaml": "[" * 3_000 + "]" * 3_000,
    "many.yaml": "[" + ", ".join(f"c{n}" for n in range(255)) + "]",
    "documents.yaml": "---\n[cat]\n---\n[dog]\n",
    "deep.json": "[" * 100_000 + "]" * 100_000,
    "open.json": '["cat"',
    "number.json": '["cat", 1' + "0" * 5_000 + "]",
    "nan.json": "[NaN, Infinity]",
    "surrogate.json": '["\\ud800"]',
    "object.json": '{"cat": 1}',
    "text.txt": "cat\ndog\n",
}
BROKEN_ANSWERS = {
    "empty": "",
    "no header": '{"image_id": "i0", "class": "cat", "noun": "cat", "answers": {}}\n',
    "no json": "what is above the cat? the sky\n",
    "list": "[]\n",
    "text": '"wsss answers"\n',
    "other version": '{"format": "wsss answers", "version": 9}\n',
    "other format": '{"format": ["wsss answers"], "version": 1}\n',
    "deep": "[" * 50_000 + "\n",
    "number": "1" * 10_000 + "\n",
    "nan": "NaN\n",
}
BROKEN_LISTS = {
    "empty.txt": b"",
    "comment.txt": b"# nothing\n",
    "zero byte.txt": b"i0\0.png\n",
    "binary.txt": b"\xff\xfe\0\0" + bytes(64),
    "missing.txt": b"../nowhere.png\n",
    "passwd.txt": b"/etc/passwd\n",
    "long.txt": b"x" * 10_000 + b".png\n",
    "newline.txt": b"a\x0bb.png\n",
    "folder.txt": b"/\n",
    "device.txt": b"/dev/null\n",
}


def cases() -> Iterator[Case]:
    """All of them."""
    for name, tags in {**BROKEN_TAGS, **BROKEN_TAG_BYTES}.items():
        classes = "none" if name in ("many classes", "no class", "separator") else "classes.yaml"
        yield Case(f"tags: {name}", _data(tags, classes), PLAN)
    for name in ("open quote", "unknown image", "parent", "zero byte", "very long cell", "no class"):
        command = ("label", "{given}/data/images", "{given}/data/tags.csv", "--out", "{out}", "--quick")
        yield Case(f"label with tags: {name}", _data(BROKEN_TAGS[name], "none"), command)
    for number, data in enumerate(changed_text(TAGS, 42, seed=1)):
        command = ("doctor", "{given}/data", "--no-estimate")
        yield Case(f"changed tags {number}", _data(data, "none"), command, is_broken=False)
    for name, text in BROKEN_CLASSES.items():
        command = ("evaluate", "--predictions", "{originals}/one", "--masks", "{originals}/one", "--classes")
        yield Case(f"classes {name}", content(name, text), (*command, "{given}/" + name))
    plain = {"classes": [{"name": name, "synonyms": [f"{name}s"]} for name in CLASSES], "background": ["sky"]}
    for number, document in enumerate(changed_documents(plain, 35, seed=2)):
        file = content("classes.json", json.dumps(document))
        masks = ("export", "png", "{originals}/masks", "--out", "{out}")
        yield Case(
            f"changed classes {number}", file, (*masks, "--classes", "{given}/classes.json"), is_broken=False
        )
    yield from _answer_cases()
    for name, data in BROKEN_LISTS.items():
        command = ("predict", "{originals}/model", "{given}/" + name, "--out", "{out}")
        yield Case(f"list {name}", content(name, data), command)


def _answer_cases() -> Iterator[Case]:
    show = ("questions", "show", "i0", "--answers", "{given}/answers.jsonl")
    for name, text in BROKEN_ANSWERS.items():
        yield Case(f"answers: {name}", content("answers.jsonl", text), show)
    header = {
        **{"format": "wsss answers", "version": 1, "model": "blip", "sha256": "f" * 64, "dataset": "data"},
        **{"settings": {"beams": 3}, "questions": {"scene": ["what is above the {}?"]}},
    }
    line = {"image_id": "i0", "class": "cat", "noun": "cat", "answers": {"what is above the cat?": "sky"}}
    for number, document in enumerate(changed_documents([header, line], 35, seed=3)):
        lines = "".join(json.dumps(entry) + "\n" for entry in document)
        yield Case(f"changed answers {number}", content("answers.jsonl", lines), show, is_broken=False)
    take = ("questions", "import", "{given}/a.pkl", "--out", "{out}/a.jsonl", "--data", "scenes/cam")
    good = {"i0": {"tree": {"vqa": [("what is above the {}?", "sky")], "answers": ["sky"]}}}
    published = {
        "payload": pickled(),
        "bare payload": b"cos\nmkdir\n(S'code-ran'\ntR.",
        "payload by getattr": b"c__builtin__\ngetattr\n(c__builtin__\ndict\nS'x'\ntR.",
        "half": pickle.dumps(good)[:40],
        "list": pickle.dumps([1, 2]),
        "numbers": pickle.dumps({1: {2: 3}}),
        "text": b"no pickle",
        "empty": b"",
        "endless list": b"(lp0\nh\x00" + b"a" * 10,
        "huge length": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
        "huge frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    }
    for name, data in published.items():
        yield Case(f"published answers: {name}", content("a.pkl", data), (*take, "--allow-pickle"))
    yield Case("published answers without consent", content("a.pkl", pickle.dumps(good)), take)


def _data(tags: str | bytes, classes: str) -> Write:
    """A data folder with these tags, and a recipe for it."""

    def write(given: Path, originals: Path) -> None:
        shutil.copytree(originals / "data" / "images", given / "data" / "images")
        (given / "data" / "tags.csv").write_bytes(tags if isinstance(tags, bytes) else tags.encode())
        recipe = (originals / "folder.yaml").read_text()
        if classes != "none":
            shutil.copy(originals / classes, given / "data")
            recipe = recipe.replace("images: images", f"images: images\n  classes: {classes}")
        recipe = recipe.replace("root: data", f"root: {given / 'data'}")
        (given / "recipe.yaml").write_text(recipe)

    return write
