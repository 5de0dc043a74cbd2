"""Malformed masks that were corrected by hand, and what stands in their place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from export.small_model import noise
from fuzz.case import Case, Write
from fuzz.hostile import pickled, png
from fuzz.image_cases import HUGE, encoded
from fuzz.mutations import changed_bytes, changed_documents

RUN = ("run", "{originals}/toy.yaml", "--corrections", "{given}/c", "--runs", "{out}", "--no-estimate")
SIDE = (64, 64)
IMAGE = "w7_train_00000"
RUNS_TEXT = {"size": list(SIDE), "counts": [100, 50, 64 * 64 - 150]}
ROWS = bytes(SIDE[0] * (SIDE[1] + 1))

Change = Callable[[Path], None]
"""Changes the folder that the command is given."""


def cases() -> Iterator[Case]:
    """All of them."""
    for name, data in broken_masks().items():
        yield Case(f"corrected mask: {name}", _given({f"{IMAGE}.png": data}), RUN, says=(f"{IMAGE}",))
    whole = encoded(np.ones(SIDE, np.uint8), "PNG", palette=True)
    for number, data in enumerate(changed_bytes(whole, 14, seed=91)):
        yield Case(f"changed corrected mask {number}", _given({f"{IMAGE}.png": data}), RUN, is_broken=False)
    yield from _folder_cases(whole)
    for name, text in broken_coco().items():
        yield Case(f"corrections in COCO: {name}", _given({"a.json": text}), RUN, says=("given/c",))
    for number, document in enumerate(changed_documents(coco(), 42, seed=92)):
        write = _given({"a.json": json.dumps(document)})
        yield Case(f"changed corrections in COCO {number}", write, RUN, is_broken=False)
    good = {"c/w7_train_00001.png": whole}
    for name in ("empty", "half", "rgb", "noise"):
        data = broken_masks()[name]
        yield Case(f"corrections beside a pseudo mask: {name}", _beside(good, data), RUN, says=(f"{IMAGE}",))
    yield Case("corrections beside a missing pseudo mask", _beside(good, None), RUN, says=(f"{IMAGE}",))


def broken_masks() -> dict[str, bytes]:
    """Files that are no mask of 64 x 64 pixels and eight classes."""
    grey = np.zeros(SIDE, np.uint8)
    half = encoded(noise(*SIDE)[..., 0], "PNG")
    return {
        "another size": encoded(grey[:32], "PNG", palette=True),
        "turned": encoded(np.zeros((48, 64), np.uint8), "PNG", palette=True),
        "one pixel": encoded(grey[:1, :1], "PNG", palette=True),
        "rgb": encoded(noise(*SIDE), "PNG"),
        "sixteen bits": encoded(np.zeros(SIDE, np.uint16), "PNG"),
        "alpha": encoded(np.zeros((*SIDE, 4), np.uint8), "PNG"),
        "grey and alpha": encoded(np.zeros((*SIDE, 2), np.uint8), "PNG"),
        "beyond the classes": encoded(grey + 9, "PNG", palette=True),
        "just below 255": encoded(grey + 254, "PNG", palette=True),
        "grey, not numbers": encoded(grey + 128, "PNG"),
        "jpeg": encoded(grey, "JPEG"),
        "gif": encoded(grey, "GIF"),
        "empty": b"",
        "noise": np.random.default_rng(4).bytes(300),
        "half": half[: len(half) // 2],
        "huge": png(*HUGE, ROWS),
        "large": png(13_000, 13_000, ROWS),
        "without size": png(0, 0, b""),
        "pickle": pickled(),
        "text": b"<html>not found</html>",
    }


def coco(**changes: Any) -> dict[str, Any]:
    """One corrected image; valid unless changed."""
    return {
        "images": [{"id": 1, "file_name": f"images/{IMAGE}.jpg", "height": 64, "width": 64}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[9, 9, 40, 9, 40, 40, 9, 40]]},
            {"id": 2, "image_id": 1, "category_id": 2, "segmentation": RUNS_TEXT},
        ],
        "categories": [{"id": 1, "name": "ignore"}, {"id": 2, "name": "cow"}],
        **changes,
    }


def broken_coco() -> dict[str, str]:
    """Texts that give no mask of an image."""
    whole = json.dumps(coco())
    texts = {
        "empty": "",
        "open": whole[: len(whole) // 2],
        "deep": "[" * 100_000,
        "deep inside": '{"images": ' + '{"a":' * 50_000,
        "list": "[]",
        "null": "null",
        "nan": "NaN",
        "bytes": "\x00\x01",
        "two documents": whole + whole,
        "no image": json.dumps(coco(images=[], annotations=[])),
        "no annotations": json.dumps({k: v for k, v in coco().items() if k != "annotations"}),
        "no categories": json.dumps({k: v for k, v in coco().items() if k != "categories"}),
        "texts": json.dumps(coco(images="abc", annotations="abc", categories="abc")),
        "numbers": json.dumps(coco(images=1, annotations=2, categories=3)),
        "unknown category": json.dumps(
            coco(categories=[{"id": 1, "name": "x"}, {"id": 2, "name": "unicorn"}])
        ),
        "category twice": json.dumps(coco(categories=[{"id": 1, "name": "cow"}, {"id": 1, "name": "dog"}])),
    }
    images = coco()["images"]
    for name, entries in {
        "image twice": images * 2,
        "id twice": [images[0], {**images[0], "file_name": "w7_train_00001.png"}],
        "unknown image": [{**images[0], "file_name": "unknown.jpg"}],
        "of another folder": [{**images[0], "file_name": "../../../etc/passwd.png"}],
        "no name": [{**images[0], "file_name": ""}],
        "name of dots": [{**images[0], "file_name": ".."}],
        "name of a number": [{**images[0], "file_name": 7}],
        "name with a zero byte": [{**images[0], "file_name": "a\0b.png"}],
        "long name": [{**images[0], "file_name": "x" * 100_000 + ".png"}],
        "another size": [{**images[0], "height": 32}],
        "huge": [{**images[0], "height": 2**31, "width": 2**31}],
        "minus": [{**images[0], "height": -64}],
        "size that is none": [{**images[0], "height": float("nan")}],
        "infinite size": [{**images[0], "height": float("inf")}],
    }.items():
        texts[name] = json.dumps(coco(images=entries))
    return texts | {name: json.dumps(coco(annotations=[found])) for name, found in _annotations().items()}


def _annotations() -> dict[str, Any]:
    """One wrong annotation each."""
    found = {"id": 1, "image_id": 1, "category_id": 2, "segmentation": RUNS_TEXT}
    wrap = [2**62] * 4
    shapes = {
        "no shape": [],
        "shape of null": None,
        "shape of text": "abc",
        "two corners": [[1, 1, 2, 2]],
        "odd corners": [[1, 1, 2, 2, 3, 3, 4]],
        "corners of texts": [["a"] * 6],
        "corners of nan": [[float("nan")] * 6],
        "infinite corners": [[float("inf")] * 6],
        "corners far away": [[0, 0, 1e300, 0, 1e300, 1e300]],
        "no counts": {"size": [64, 64]},
        "no size": {"counts": [64 * 64]},
        "wrong size": {"size": [32, 64], "counts": [32 * 64]},
        "huge size": {"size": [2**40, 2**40], "counts": [2**80]},
        "counts too few": {"size": [64, 64], "counts": [100, 50]},
        "counts too many": {"size": [64, 64], "counts": [64 * 64, 1]},
        "minus counts": {"size": [64, 64], "counts": [64 * 64 + 5, -5]},
        "counts of nan": {"size": [64, 64], "counts": [float("nan")]},
        "counts of texts": {"size": [64, 64], "counts": ["a"]},
        "nested counts": {"size": [64, 64], "counts": [[64 * 64]]},
        "counts that wrap around": {"size": [64, 64], "counts": [*wrap, 64 * 64]},
        "text that wraps around": {"size": [64, 64], "counts": run_text([0, *([2**53] * 2048), 64 * 64])},
        "cut text": {"size": [64, 64], "counts": "oo"},
        "damaged text": {"size": [64, 64], "counts": "\x7f\x00é"},
        "endless text": {"size": [64, 64], "counts": "o" * 10_000},
    }
    return {name: {**found, "segmentation": shape} for name, shape in shapes.items()} | {
        "unknown category id": {**found, "category_id": 99},
        "unknown image id": {**found, "image_id": 99},
        "no category": {"image_id": 1, "segmentation": RUNS_TEXT},
        "category of null": {**found, "category_id": None},
        "annotation of text": "abc",
    }


def run_text(counts: list[int]) -> str:
    """COCO's text of run lengths, worked out from its description: groups of five bits, the lowest first."""
    letters = []
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            letters.append(chr(48 + bits + 32 * more))
    return "".join(letters)


def _folder_cases(whole: bytes) -> Iterator[Case]:
    """What stands in the place of corrected masks."""
    name, document = f"{IMAGE}.png", json.dumps(coco())
    mask = {f"c/{IMAGE}.png": whole}
    changes: dict[str, Change] = {
        "nothing": lambda place: None,
        "an empty folder": lambda place: (place / "c").mkdir(),
        "a PNG file": lambda place: write_files(place, {"c": whole}),
        "a text file": lambda place: write_files(place, {"c": b"none"}),
        "a link to itself": lambda place: (place / "c").symlink_to(place / "c"),
        "a broken link": lambda place: (place / "c").symlink_to(place / "nowhere"),
        "a pipe": lambda place: os.mkfifo(place / "c"),
        "folders that go round": lambda place: _links(place, {"round": ".."}),
        "a mask that links to itself": lambda place: _links(place, {name: name}),
        "a mask that links to nothing": lambda place: _links(place, {name: "nowhere.png"}),
        "a mask that is a pipe": lambda place: _pipe(place / "c" / name),
        "a folder named like a mask": lambda place: (place / "c" / name).mkdir(parents=True),
        "hidden masks": lambda place: write_files(place, {f"c/.hidden/{name}": whole}),
        "two JSON files": lambda place: write_files(place, {"c/a.json": document, "c/b.json": document}),
        "a JSON file below": lambda place: write_files(place, {"c/below/a.json": document}),
        "both kinds": lambda place: write_files(place, {**mask, "c/a.json": document}),
        "both kinds, one damaged": lambda place: write_files(place, {**mask, "c/a.json": document[:50]}),
        "a mask and a link to more": lambda place: write_files(place, mask) or _links(place, {"more": "/"}),
        "a mask and a broken one": lambda place: write_files(place, mask) or _links(place, {"more.png": "x"}),
        "an unknown image": lambda place: write_files(place, {"c/unknown.png": whole}),
        "an image of another split": lambda place: write_files(place, {"c/w7_val_00000.png": whole}),
        "the same image twice": lambda place: write_files(place, {f"c/{name}": whole, f"c/x/{name}": whole}),
        "both cases": lambda place: write_files(place, {f"c/{name}": whole, f"c/{IMAGE}.PNG": whole}),
        "a strange name": lambda place: write_files(place, {"c/\x1b[31m\n.png": whole}),
        "a long name": lambda place: write_files(place, {f"c/{'x' * 240}.png": whole}),
    }
    for words, change in changes.items():
        yield Case(f"corrections are {words}", placed(change), RUN)
    for words, path in {"home": "~nobody-of-this-name/c", "name": "x" * 5_000}.items():
        yield Case(f"corrections at a bad {words}", placed(changes["nothing"]), (*RUN[:3], path, *RUN[4:]))


def _given(files: dict[str, bytes | str]) -> Write:
    """Corrections in the folder `c`, beside a finished run to go on from."""
    return placed(lambda place: write_files(place, {f"c/{name}": data for name, data in files.items()}))


def placed(change: Change) -> Write:
    """A copy of the finished run in the output folder, and anything in the given one."""

    def write(given: Path, originals: Path) -> None:
        shutil.copytree(originals / "reported", given.parent / "out")
        change(given)

    return write


def _beside(files: dict[str, bytes | str], data: bytes | None) -> Write:
    """Good corrections, and a finished run whose pseudo mask of another image is damaged or missing."""

    def write(given: Path, originals: Path) -> None:
        placed(lambda place: write_files(place, files))(given, originals)
        (path,) = given.parent.glob(f"out/stages/pseudo-masks-*/pseudo_masks/{IMAGE}.png")
        path.unlink()
        if data is not None:
            path.write_bytes(data)

    return write


def write_files(place: Path, files: dict[str, bytes | str]) -> None:
    for name, data in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())


def _links(place: Path, links: dict[str, str]) -> None:
    (place / "c").mkdir(exist_ok=True)
    for name, target in links.items():
        (place / "c" / name).symlink_to(target)


def _pipe(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
