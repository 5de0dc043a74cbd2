"""Records of runs are read as they stand, or refused with the place of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiny_recipe import made_up_run
from wsss.engine.run import read_run, read_scores
from wsss.errors import StageError

CONFUSION = [[[90, 10], [20, 80]]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made_up_run(tmp_path, "toy", 0, {"maps": {"fixed": CONFUSION}})


def test_a_whole_record_is_given_as_it_stands(folder: Path) -> None:
    record = read_run(folder)
    assert record == json.loads((folder / "run.json").read_text())
    scores = read_scores(folder, record["stages"][0])
    assert scores is not None
    assert scores["entries"][0]["confusion"] == CONFUSION[0]


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "NaN", "[" * 100_000, "\ud800"])
def test_a_damaged_record_is_named(folder: Path, text: str) -> None:
    (folder / "run.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(StageError, match=r"run\.json .*Run the recipe again"):
        read_run(folder)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("seed",), "0"),
        (("recipe",), []),
        (("weights", "teacher"), 3),
        (("data", "class_names"), "cat"),
        (("stages", 0, "folder"), "a\0b"),
        (("stages", 0, "seconds"), float("nan")),
        (("data_root",), 3),
    ],
)
def test_a_value_of_another_type_is_named(folder: Path, place: tuple[Any, ...], value: Any) -> None:
    record = json.loads((folder / "run.json").read_text())
    holder = record
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(StageError, match=rf"not as wsss writes it \({'.'.join(map(str, place))}"):
        read_run(folder)


def test_damaged_scores_are_named(folder: Path) -> None:
    stage = read_run(folder)["stages"][0]
    path = (folder / stage["scores"]).resolve()
    document = json.loads(path.read_text())
    document["entries"][0]["iou"] = None
    path.write_text(json.dumps(document))
    with pytest.raises(StageError, match=r"scores\.json .*entries\.0\.iou.*Delete the folder score-maps"):
        read_scores(folder, stage)
