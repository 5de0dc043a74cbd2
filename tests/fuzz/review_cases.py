"""Runs that are to be reviewed while parts of them are missing or damaged, and places of reviews."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fuzz.case import Case, Write
from fuzz.correction_cases import IMAGE, SIDE, broken_masks, placed, write_files
from fuzz.hostile import arrays, lying_npy, npz, pickled
from fuzz.mutations import changed_bytes, changed_documents

REVIEW = ("review", "{given}/toy-seed0", "--out", "{out}")
CORRECTED = ("review", "{given}/corrected-seed0", "--out", "{out}")


def cases(originals: Path) -> Iterator[Case]:
    """All of them; some change copies of the originals, which are there already."""
    reported = originals / "reported"
    record = json.loads((reported / "toy-seed0" / "run.json").read_text())
    yield from _document_cases()
    for number, document in enumerate(changed_documents(record, 35, seed=93)):
        write = _run({"toy-seed0/run.json": json.dumps(document)})
        yield Case(f"review of a changed run {number}", write, REVIEW, is_broken=False)
    maps, masks = f"stages/activate-*/maps/{IMAGE}.npz", f"stages/pseudo-masks-*/pseudo_masks/{IMAGE}.png"
    for name, data in broken_masks().items():
        if name not in ("grey, not numbers",):
            yield Case(f"review with mask: {name}", _run({masks: data}), REVIEW, says=(IMAGE,))
    for name, data in _broken_maps().items():
        yield Case(f"review with maps: {name}", _run({maps: data}), REVIEW, says=(IMAGE,))
    (whole,) = reported.glob(maps)
    for number, data in enumerate(changed_bytes(whole.read_bytes(), 14, seed=94)):
        yield Case(f"review with changed maps {number}", _run({maps: data}), REVIEW, is_broken=False)
    for name, place in {
        "run": "toy-seed0",
        "record": "toy-seed0/run.json",
        "maps": maps,
        "mask": masks,
    }.items():
        yield Case(f"review without {name}", _run({place: None}), REVIEW)
    for name in ("activate-*", "pseudo-masks-*", "train-method-*"):
        broken = not name.startswith("train")
        yield Case(f"review without {name}", _run({f"stages/{name}": None}), REVIEW, is_broken=broken)
    yield from _second_opinions(masks)
    yield from _places_of_reviews()


def _document_cases() -> Iterator[Case]:
    """Records of the run and of its stages."""
    texts = {"empty": "", "open": '{"a": ', "deep": "[" * 100_000, "list": "[1]", "nan": "NaN"}
    for name, text in texts.items():
        yield Case(f"review of a run: {name}", _run({"toy-seed0/run.json": text}), REVIEW)
        chosen = _run({"stages/pseudo-masks-*/chosen_score.json": text})
        yield Case(f"review with a background score: {name}", chosen, REVIEW)
        write = _run({"stages/*/corrected.json": text}, "corrected")
        yield Case(f"review with corrected ids: {name}", write, CORRECTED)
    for name, value in {"text": "high", "nan": float("nan"), "list": [0.3], "true": True}.items():
        chosen = _run({"stages/pseudo-masks-*/chosen_score.json": json.dumps({"value": value})})
        yield Case(f"review with the background score {name}", chosen, REVIEW)
    for name, value in {"numbers": [1], "lists": [[]], "names": {"a": 1}, "nothing": None}.items():
        data = None if value is None else json.dumps(value)
        write = _run({"stages/*/corrected.json": data}, "corrected")
        yield Case(f"review with corrected ids of {name}", write, CORRECTED)
    whole = _run({"toy-seed0/nothing": None}, "corrected")
    yield Case("review of a corrected run", whole, CORRECTED, is_broken=False)


def _second_opinions(masks: str) -> Iterator[Case]:
    command = ("review", "{originals}/reported/toy-seed0", "{given}/toy-seed0", "--out", "{out}")
    for name in ("another size", "rgb", "half", "empty"):
        yield Case(f"second opinion: {name}", _run({masks: broken_masks()[name]}), command, says=(IMAGE,))
    twice = ("review", "{given}/toy-seed0", "{given}/../given/toy-seed0", "--out", "{out}")
    yield Case("a run as its own second opinion", _run({}), twice, is_broken=False)
    yield Case("a second opinion that is none", _run({}), (*REVIEW[:2], "{originals}/one", *REVIEW[2:]))


def _places_of_reviews() -> Iterator[Case]:
    """What stands where a review is to be written."""
    command = ("review", "{originals}/reported/toy-seed0", "--out")
    journals = {
        "binary": b"\xff\xfe\0",
        "empty": b"",
        "somebody's": b'{"mine": 1}\n',
        "list": b"[1]\n",
        "deep": b"[" * 100_000 + b"\n",
        "somebody's page": b"",
    }
    for name, data in journals.items():
        file = "index.html" if name == "somebody's page" else "signals.jsonl"
        write = _in_out({file: data})
        yield Case(f"review beside a journal: {name}", write, (*command, "{out}"), is_broken=name != "empty")
    yield Case(
        "review into a file", placed(lambda place: write_files(place, {"c": b"x"})), (*command, "{given}/c")
    )
    below = placed(lambda place: write_files(place, {"c": b"x"}))
    yield Case("review below a file", below, (*command, "{given}/c/out"))


def _broken_maps() -> dict[str, bytes]:
    small = {"class_ids": np.zeros(1, np.int16), "image_size": np.array(SIDE, np.int32)}
    scores, whole = np.zeros((1, 16, 16), np.float16), {**small, "peaks": np.ones(1, np.float32)}
    return {
        "empty": b"",
        "noise": np.random.default_rng(5).bytes(400),
        "pickle": npz(class_ids=pickled(), scores=pickled(), image_size=pickled()),
        "huge": npz(
            class_ids=lying_npy("(1,)"), scores=lying_npy("(9999999999,)"), image_size=lying_npy("(2,)")
        ),
        "no scores": arrays(**small),
        "another size": arrays(**{**small, "image_size": np.array((32, 64))}, scores=scores),
        "texts": arrays(**small, scores=np.array(["a"])),
        "no number": arrays(**small, scores=scores + np.nan),
        "unknown class": arrays(**{**small, "class_ids": np.array([99])}, scores=scores + 1),
        "scales of texts": arrays(**whole, scores=scores, scale_0=np.array(["a"]), scale_1=scores),
        "scales by name": arrays(**whole, scores=scores, scale_x=scores),
        "flat scales": arrays(**whole, scores=scores, scale_0=scores[0], scale_1=scores),
        "more classes": arrays(
            **whole, scores=scores, scale_0=scores, scale_1=np.zeros((3, 4, 4), np.float16)
        ),
        "empty scales": arrays(**whole, scores=scores, scale_0=scores[:, :0], scale_1=scores),
    }


def _run(files: dict[str, bytes | str | None], name: str = "reported") -> Write:
    """A copy of a finished run with files replaced, or deleted."""

    def write(given: Path, originals: Path) -> None:
        shutil.copytree(originals / name, given, dirs_exist_ok=True)
        for pattern, data in files.items():
            for path in list(given.glob(pattern)):
                if data is None:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                else:
                    path.write_bytes(data if isinstance(data, bytes) else data.encode())

    return write


def _in_out(files: dict[str, bytes | str]) -> Write:
    return lambda given, originals: write_files(
        given.parent, {f"out/{name}": data for name, data in files.items()}
    )
