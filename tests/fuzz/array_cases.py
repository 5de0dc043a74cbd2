"""Malformed maps, saliency maps, weights, model folders and archives."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fuzz import hostile
from fuzz.case import Case, Write, content
from fuzz.hostile import arrays, lying_npy, npz, pickled, png, safetensors_file, torch_file
from fuzz.image_cases import broken_masks
from fuzz.mutations import changed_bytes, changed_documents
from wsss.activation.store import MapStore

WEIGHTS = ("safetensors", "pth", "params", "caffemodel")
SMALL = {"class_ids": np.zeros(1, np.int16), "image_size": np.array((64, 64), np.int32)}
SCORES = np.zeros((1, 16, 16), np.float16)
LAYOUT = "results/VOC2012/Segmentation/comp5_test_cls"


def cases(originals: Path) -> Iterator[Case]:
    """All of them; some change copies of the originals, which are there already."""
    yield from _map_cases(originals)
    yield from _weight_cases(originals / "weights")
    yield from _model_cases(originals / "model")
    yield from _helper_cases(originals)
    yield from _archive_cases(originals / "results.tar.gz")
    for name, data in broken_masks().items():
        if name not in ("sixteen", "rgb", "alpha", "values"):  # which may be saliency maps
            command = ("train-method", "{given}/saliency.yaml", "--runs", "{out}")
            yield Case(f"saliency map {name}", _saliency(data), command, says=("i0.png",))


def _map_cases(originals: Path) -> Iterator[Case]:
    command = ("pseudo-masks", "{originals}/maps.yaml", "--runs", "{out}/runs")
    broken = {
        "empty": b"",
        "noise": np.random.default_rng(3).bytes(400),
        "npy": lying_npy("(1, 16, 16)"),
        "pickle": pickled(),
        "pickle inside": npz(class_ids=pickled(), scores=pickled(), image_size=pickled()),
        "objects": npz(**{name: hostile.object_npy() for name in ("class_ids", "scores", "image_size")}),
        "huge": npz(
            class_ids=lying_npy("(1,)"), scores=lying_npy("(99999999999,)"), image_size=lying_npy("(2,)")
        ),
        "large": npz(
            class_ids=lying_npy("(1,)"), scores=lying_npy("(1, 99999, 99999)"), image_size=lying_npy("(2,)")
        ),
        "lying": npz(
            class_ids=lying_npy("(1,)"), scores=lying_npy("(1, 16, 16)"), image_size=lying_npy("(2,)")
        ),
        "no scores": arrays(**SMALL),
        "no classes": arrays(image_size=SMALL["image_size"], scores=SCORES),
        "texts": arrays(**SMALL, scores=np.array(["a", "b"])),
        "text as size": arrays(**{**SMALL, "image_size": np.array(["a", "b"])}, scores=SCORES),
        "one side": arrays(**{**SMALL, "image_size": np.array([64])}, scores=SCORES),
        "three sides": arrays(**{**SMALL, "image_size": np.array([64, 64, 3])}, scores=SCORES),
        "minus": arrays(**{**SMALL, "image_size": np.array([-64, 64])}, scores=SCORES),
        "huge size": arrays(**{**SMALL, "image_size": np.array([2**40, 2**40])}, scores=SCORES),
        "another size": arrays(**{**SMALL, "image_size": np.array([32, 64])}, scores=SCORES),
        "flat": arrays(**SMALL, scores=SCORES[0]),
        "too many": arrays(**SMALL, scores=np.zeros((3, 16, 16), np.float16)),
        "unknown class": arrays(**{**SMALL, "class_ids": np.array([99])}, scores=SCORES + 1),
        "minus class": arrays(**{**SMALL, "class_ids": np.array([-1])}, scores=SCORES),
        "no number": arrays(**SMALL, scores=SCORES + np.nan),
        "infinite": arrays(**SMALL, scores=SCORES + np.inf),
        "out of range": arrays(**SMALL, scores=SCORES + 9),
        "complex": arrays(**SMALL, scores=SCORES.astype(complex)),
        "peaks without scales": arrays(**SMALL, scores=SCORES, peaks=np.ones(1, np.float32)),
        "scales by name": arrays(**SMALL, scores=SCORES, peaks=np.ones(1, np.float32), scale_x=SCORES),
        "other scales": arrays(**SMALL, scores=SCORES, peaks=np.ones(1, np.float32), scale_0=SCORES[0]),
        "stride": arrays(**SMALL, scores=SCORES, stride=np.array([0, 1])),
        "no stride": arrays(**SMALL, scores=SCORES, stride=np.int32(0)),
        "background": arrays(**SMALL, scores=SCORES, background=np.zeros((3, 3), np.float16)),
    }
    for name, data in broken.items():
        yield Case(f"maps: {name}", _maps(data), command)
    (folder,) = (originals / "runs" / "stages").glob("activate-*")
    store = MapStore(folder / "maps")
    whole = store.path(store.ids()[0]).read_bytes()
    for number, data in enumerate(changed_bytes(whole, 21, seed=21)):
        yield Case(f"changed maps {number}", _maps(data), command, is_broken=False)


def _maps(data: bytes) -> Write:
    """The runs with the maps of the first image replaced."""

    def write(given: Path, originals: Path) -> None:
        runs = given.parent / "out" / "runs"
        shutil.copytree(originals / "runs", runs)
        (folder,) = (runs / "stages").glob("activate-*")
        store = MapStore(folder / "maps")
        store.path(store.ids()[0]).write_bytes(data)

    return write


def _weight_cases(folder: Path) -> Iterator[Case]:
    empty = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    many = {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}
    broken = {
        "empty.safetensors": b"",
        "short.safetensors": b"\x01\0\0",
        "long header.safetensors": safetensors_file(empty, bytes(4), length=2**62),
        "no json.safetensors": safetensors_file(b"{not json", bytes(4)),
        "list.safetensors": safetensors_file([1, 2]),
        "deep.safetensors": safetensors_file(b"[" * 50_000),
        "huge.safetensors": safetensors_file(many, bytes(4)),
        "minus.safetensors": safetensors_file({"a": {**empty["a"], "shape": [-1]}}, bytes(4)),
        "no dtype.safetensors": safetensors_file({"a": {**empty["a"], "dtype": "PICKLE"}}, bytes(4)),
        "beyond.safetensors": safetensors_file({"a": {**empty["a"], "data_offsets": [0, 99]}}, bytes(4)),
        "backwards.safetensors": safetensors_file({"a": {**empty["a"], "data_offsets": [4, 0]}}, bytes(4)),
        "metadata.safetensors": safetensors_file({"__metadata__": {"wsss": 3}, **empty}, bytes(4)),
        "no metadata.safetensors": safetensors_file({"__metadata__": {"wsss": "no json"}, **empty}, bytes(4)),
        "list metadata.safetensors": safetensors_file({"__metadata__": {"wsss": "[1]"}, **empty}, bytes(4)),
        "code.pth": torch_file(),
        "code.pt": pickled(),
        "code.bin": torch_file(),
        "code.safetensors": torch_file(),
        "code.params": torch_file(),
        "code.caffemodel": pickled(),
        "protocol 0.pth": b"cos\nmkdir\n(S'code-ran'\ntR.",
        "empty.pth": b"",
        "text.pth": b"not a checkpoint",
        "zip.pth": arrays(a=np.zeros(3)),
        "tar.pth": hostile.tar({"pickle": pickled(), "../../escaped": b"x"}),
        "empty.params": b"",
        "many.params": struct.pack("<QQQ", 0x112, 0, 2**60),
        "empty.caffemodel": b"",
        "deep.caffemodel": b"\xa2\x06" * 500,
        "folder.txt": b"x",
    }
    for name, data in broken.items():
        yield Case(f"weights {name}", content(name, data), ("weights", "show", "{given}/" + name))
    for number, suffix in enumerate(WEIGHTS):
        for place, data in enumerate(changed_bytes((folder / f"own.{suffix}").read_bytes(), 14, seed=number)):
            name = f"own.{suffix}"
            command = ("weights", "convert", "{given}/" + name, "{out}/x.safetensors", "--to", "resnet_small")
            yield Case(f"changed {name} {place}", content(name, data), command)


def _model_cases(model: Path) -> Iterator[Case]:
    command = ("predict", "{given}", "{originals}/photos", "--out", "{out}")
    config = json.loads((model / "config.json").read_text())

    def changed(**files: bytes) -> Write:
        def write(given: Path, originals: Path) -> None:
            for path in (originals / "model").iterdir():
                shutil.copy(path, given)
            for name, data in files.items():
                (given / {"config": "config.json", "weights": "model.safetensors"}[name]).write_bytes(data)

        return write

    weights = {"empty": b"", "pickle": torch_file(), "header": safetensors_file({}, b"", length=2**60)}
    weights |= {
        "other": safetensors_file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))
    }
    weights |= {"half": (model / "model.safetensors").read_bytes()[:-1_000]}
    for name, data in weights.items():
        yield Case(f"model with weights: {name}", changed(weights=data), command)
    texts = {"deep": "[" * 99_999, "list": "[]", "text": '"x"', "open": "{", "empty": "", "nan": "NaN"}
    for name, text in texts.items():
        yield Case(f"model with config: {name}", changed(config=text.encode()), command)
    for number, document in enumerate(changed_documents(config, 21, seed=31)):
        data = json.dumps(document).encode()
        yield Case(f"model with changed config {number}", changed(config=data), command, is_broken=False)


def _helper_cases(originals: Path) -> Iterator[Case]:
    """Models that methods use: each in a folder with a configuration and weights."""
    commands = {
        "clip": ("embedded", "evaluate", "clip", "--folder", "{given}", "--images", "2"),
        "vqa": ("embedded", "evaluate", "vqa", "--folder", "{given}", "--images", "2"),
        "detector": ("saliency", "{originals}/photos", "--out", "{out}", "--source", "{given}"),
    }
    broken = {
        "config.json": {
            "deep": b"[" * 99_999,
            "list": b"[]",
            "open": b"{",
            "empty": b"",
            "noise": b"\xff\xfe\0",
        },
        "model.safetensors": {
            "empty": b"",
            "pickle": torch_file(),
            "header": safetensors_file({}, length=2**60),
        },
    }
    for place, (kind, command) in enumerate(commands.items()):
        for name, files in broken.items():
            for words, data in files.items():
                yield Case(f"{kind} with {name}: {words}", _helper(kind, name, data), command)
        config = json.loads((originals / kind / "config.json").read_text())
        for number, document in enumerate(changed_documents(config, 12, seed=80 + place)):
            data = json.dumps(document).encode()
            case = f"{kind} with changed config {number}"
            yield Case(case, _helper(kind, "config.json", data), command, is_broken=False)


def _helper(kind: str, name: str, data: bytes) -> Write:
    """A copy of a model folder with one file replaced."""

    def write(given: Path, originals: Path) -> None:
        shutil.copytree(originals / kind, given, dirs_exist_ok=True)
        (given / name).write_bytes(data)

    return write


def _archive_cases(archive: Path) -> Iterator[Case]:
    mask, target = broken_masks()["half"], f"{LAYOUT}/2008_000020.png"
    members: dict[str, bytes] = {
        "parent": hostile.tar({"../../escaped.png": mask}),
        "absolute": hostile.tar({"/tmp/escaped.png": mask}),
        "inside": hostile.tar({f"{LAYOUT}/../../../../../escaped.png": mask}),
        "link": hostile.tar({target: "/etc/passwd"}, kind=tarfile.SYMTYPE),
        "hard link": hostile.tar({target: "../../../../../etc/passwd"}, kind=tarfile.LNKTYPE),
        "device": hostile.tar({target: ""}, kind=tarfile.CHRTYPE),
        "pipe": hostile.tar({target: ""}, kind=tarfile.FIFOTYPE),
        "damaged mask": hostile.tar({target: mask}),
        "huge mask": hostile.tar({target: png(2**31 - 1, 2**31 - 1, b"")}),
        "large mask": hostile.tar({target: png(30_000, 30_000, b"", colour=3)}),
        "pickle": hostile.tar({target: pickled()}),
        "no mask": hostile.tar({}),
        "long name": hostile.tar({"x" * 9_000: b""}),
        "control letters": hostile.tar({"\x1b[31m\n\u202e.png": b""}),
        "empty": b"",
        "text": b"no archive",
        "gzip of text": gzip.compress(b"no archive"),
        "gzip of zeros": gzip.compress(bytes(300_000_000), 1),
        "zip": arrays(a=np.zeros(1)),
        "tar": gzip.decompress(hostile.tar({target: mask})),
        "lying size": _lying_archive(target),
        "huge file": _lying_archive(target, 300_000_000, bytes(300_000_000)),
        "huge long name": _lying_archive("x", 2**40, kind=tarfile.GNUTYPE_LONGNAME),
        "huge note": _lying_archive("x", 2**40, kind=tarfile.XHDTYPE),
        "minus": _lying_archive(target, -512),
        "endless entry": hostile.tar({"x": b"29 size=99999999999999999999\n"}, as_kind=tarfile.XHDTYPE),
        "notes without end": hostile.tar(dict.fromkeys(map(str, range(2_000)), b""), as_kind=tarfile.XHDTYPE),
    }
    check = ("submission", "--check", "{given}/a.tar.gz")
    for name, data in members.items():
        yield Case(f"archive: {name}", content("a.tar.gz", data), check)
    for number, data in enumerate(changed_bytes(archive.read_bytes(), 14, seed=41)):
        yield Case(f"changed archive {number}", content("a.tar.gz", data), check, is_broken=False)


def _lying_archive(
    name: str, size: int = 2**40, data: bytes = bytes(10_240), kind: bytes = tarfile.REGTYPE
) -> bytes:
    """A member that says it has a terabyte, or some other size."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + data, 1)


def _saliency(data: bytes) -> Write:
    """A recipe that reads saliency maps, and the maps with the first one replaced."""

    def write(given: Path, originals: Path) -> None:
        shutil.copytree(originals / "saliency", given / "saliency")
        (given / "saliency" / "i0.png").write_bytes(data)
        text = (originals / "saliency.yaml").read_text()
        text = text.replace("folder: saliency", f"folder: {given / 'saliency'}")
        (given / "saliency.yaml").write_text(text.replace("root: data", f"root: {originals / 'data'}"))

    return write
