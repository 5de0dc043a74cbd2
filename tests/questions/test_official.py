from __future__ import annotations

import os
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsss.errors import DataError
from wsss.questions.answers import read_answers
from wsss.questions.official import import_official
from wsss.questions.questions import published_questions

OBJECT, ALIAS = published_questions()["object"], published_questions()["alias"]
BACKGROUND = {
    "2007_000032": {
        "dining table": {"vqa": [(OBJECT[1], "floors"), (OBJECT[0], "")], "answers": ["floor", ""]},
        "person": {"vqa": [[OBJECT[1], "table"], ["what colour is the {}?", "red"]], "answers": []},
    },
    "2007_000039": {},
}
FOREGROUND = {"2007_000032": {"person": {"vqa": [(ALIAS[0], "human")], "answers": ["human"]}}}


def save(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_published_files_become_a_file_of_answers(tmp_path: Path, protocol: int) -> None:
    files = [
        save(tmp_path / "bg.pkl", BACKGROUND, protocol),
        save(tmp_path / "fg.pkl", FOREGROUND, protocol),
    ]
    names, target = ["diningtable", "person"], tmp_path / "answers.jsonl"
    answers = import_official(files, target, allow_pickle=True, dataset_name="voc", class_names=names)
    assert answers.pairs == read_answers(target).pairs
    assert answers.of("2007_000032", "diningtable", "dining table", OBJECT[:2]) == ("", "floors")
    assert answers.of("2007_000032", "person", "person", (OBJECT[1], ALIAS[0])) == ("table", "human")
    assert answers.nouns["2007_000032", "diningtable"] == "dining table"
    header = answers.header
    assert (header.model, header.sha256, header.dataset) == ("imported", None, "voc")
    assert header.settings["source"] == "bg.pkl, fg.pkl"
    assert header.questions == {
        "object": OBJECT[:2],
        "alias": ALIAS[:1],
        "other": ("what colour is the {}?",),
    }


def test_without_class_names_the_published_ones_are_kept(tmp_path: Path) -> None:
    path = save(tmp_path / "bg.pkl", BACKGROUND)
    answers = import_official(path, tmp_path / "a", allow_pickle=True, dataset_name="voc")
    assert list(answers.pairs) == [("2007_000032", "dining table"), ("2007_000032", "person")]


def test_other_dictionaries_and_numpy_texts_are_read(tmp_path: Path) -> None:
    classes: dict[str, Any] = defaultdict(dict)
    classes["person"] = OrderedDict(vqa=[(OBJECT[0], np.str_("sky"))], answers=np.float32(1))
    path = save(tmp_path / "a.pkl", defaultdict(list, {"b": classes}))
    answers = import_official(path, tmp_path / "a", allow_pickle=True, dataset_name="voc")
    assert answers.of("b", "person", "person", OBJECT[:1]) == ("sky",)


def test_reading_a_pickle_needs_the_opt_in(tmp_path: Path) -> None:
    path = save(tmp_path / "bg.pkl", BACKGROUND)
    with pytest.raises(DataError, match="allow_pickle=True"):
        import_official(path, tmp_path / "a", dataset_name="voc")


class Attack:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


@pytest.mark.parametrize("call", [os.system, eval, getattr, np.load])
def test_no_code_runs(tmp_path: Path, call: Any) -> None:
    pwned = tmp_path / "pwned"
    path = save(tmp_path / "bg.pkl", {**BACKGROUND, "more": Attack(call, f"touch {pwned}")})
    with pytest.raises(DataError, match="no plain value"):
        import_official(path, tmp_path / "a", allow_pickle=True, dataset_name="voc")
    assert not pwned.exists()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must hold image ids as texts in a dictionary; got list"),
        ({7: {}}, "image ids as texts"),
        ({"profile": {"clip": "x"}}, "`vqa` of class clip of image profile must be a list"),
        ({"a": {"dog": {"answers": []}}}, "must be a list; got NoneType"),
        ({"a": {"dog": {"vqa": ["ab"]}}}, "pairs of texts; got 'ab'"),
        ({"a": {"dog": {"vqa": [(OBJECT[0], None)]}}}, "pairs of texts"),
        ({"a": {"zebra": {"vqa": [(OBJECT[0], "sky")]}}}, "the class `zebra`"),
        ({"a": {"dog": {"vqa": [("what is it?", "sky")]}}}, "exactly once"),
        ({}, "at least one template"),
    ],
)
def test_another_content_is_named(tmp_path: Path, content: Any, message: str) -> None:
    path = save(tmp_path / "a.pkl", content)
    with pytest.raises(DataError, match=message):
        import_official(path, tmp_path / "a", allow_pickle=True, dataset_name="voc", class_names=["dog"])


def test_broken_and_missing_files_are_named(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.pkl", BACKGROUND).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "b.pkl").write_bytes(whole[:length])
        with pytest.raises(DataError, match="no answers file of QA-CLIMS"):
            import_official(tmp_path / "b.pkl", tmp_path / "a", allow_pickle=True, dataset_name="voc")
    with pytest.raises(DataError, match="no file"):
        import_official(tmp_path / "c.pkl", tmp_path / "a", allow_pickle=True, dataset_name="voc")


def test_answers_that_are_there_are_not_written_over(tmp_path: Path) -> None:
    path = save(tmp_path / "bg.pkl", BACKGROUND)
    with pytest.raises(DataError, match="there already"):
        import_official(path, path, allow_pickle=True, dataset_name="voc")
    assert path.read_bytes() == pickle.dumps(BACKGROUND, protocol=4)
