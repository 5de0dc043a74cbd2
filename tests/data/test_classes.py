import json
from pathlib import Path

import pytest

from wsss.data.classes import ClassList, classes_of_tags, named_classes, read_classes
from wsss.errors import DataError
from wsss.types import ClassInfo


def written(folder: Path, text: str, name: str = "classes.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_plain_lists_and_sections_give_the_same_classes(tmp_path: Path) -> None:
    forms = {
        "a.yaml": "[cat, dog]",
        "b.yml": "classes:\n  - cat\n  - dog\n",
        "c.json": '["cat", "dog"]',
        "d.json": '\ufeff{"classes": [{"name": "cat"}, "dog"]}',
        "e.yaml": "classes: [background, cat, dog]",
    }
    for name, text in forms.items():
        read = read_classes(written(tmp_path, text, name))
        assert read.class_names == ("background", "cat", "dog"), name
        assert read.infos == (ClassInfo("cat"), ClassInfo("dog")), name


def test_everything_that_can_be_said_of_a_class_is_read(tmp_path: Path) -> None:
    text = """
classes:
  - name: diningtable
    display: Dining table
    prompt: wooden table
    synonyms: [table, desk]
    background_texts: [floor]
  - cat
background: [grass, sky]
background_names: [grass, sky, water]
"""
    table, cat = read_classes(written(tmp_path, text)).infos
    assert table == ClassInfo("diningtable", "Dining table", "wooden table", ("table", "desk"), ("floor",))
    assert cat.background_texts == ("grass", "sky")  # those of the whole file


def test_names_synonyms_and_other_spellings_find_their_class() -> None:
    classes = ClassList((ClassInfo("dining table", synonyms=("desk",)), ClassInfo("TV")), "here")
    for label, place in {
        "dining table": 0,
        "desk": 0,
        "Dining_Table": 0,
        "diningtable": 0,
        "DESK": 0,
        "tv": 1,
    }.items():
        assert classes.index(label) == place
    assert classes.index("chair") is None


def test_an_exact_name_beats_a_relaxed_one_and_ambiguity_finds_nothing() -> None:
    classes = named_classes(["it", "IT"], "here")
    assert (classes.index("it"), classes.index("IT"), classes.index("It")) == (0, 1, None)


def test_an_unknown_label_names_place_and_nearest_class() -> None:
    classes = ClassList((ClassInfo("aeroplane", synonyms=("jet",)), ClassInfo("boat")), "classes.json")
    with pytest.raises(
        DataError, match=r"Unknown class `aroplane` in tags.csv, line 3. Did you mean `aeroplane`\?"
    ):
        classes.require("aroplane", "tags.csv, line 3")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("classes: [cat, cat]", "`cat` .* unique"),
        ("[{name: cat, synonyms: [dog]}, dog]", "`dog` .* unique"),
        ("[cat, background]", "foreground classes only"),
        ("['a|b']", r"without `\|`"),
        ("[' cat']", "spaces at its ends"),
        ("['']", "printable"),
        ("[no, yes]", r"class 1 of .* must be text; got False.*quotes"),
        ("[{name: cat, sinonyms: [x]}]", "Unknown key `sinonyms` in class 1 .* `synonyms`"),
        ("[{display: Cat}]", "`name` is missing in class 1"),
        ("[{name: cat, synonyms: dog}]", "must be a list of texts"),
        ("clases: [cat]", "Unknown key `clases` .* `classes`"),
        ("cat: 1", "Unknown key `cat`"),
        ("cat", "must hold a list of classes"),
        ("", "must hold a list of classes"),
        ("[]", "1 to 254 foreground classes.*got 0"),
        ("[cat", "can't be understood"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError, match=words) as caught:
        read_classes(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_classes_than_a_mask_can_hold_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps([f"c{i}" for i in range(255)]), "classes.json")
    with pytest.raises(DataError, match="got 255"):
        read_classes(path)
    assert len(named_classes([f"c{i}" for i in range(254)], "here")) == 254


def test_missing_files_and_other_endings_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no classes file .*gone\.json"):
        read_classes(tmp_path / "gone.json")
    with pytest.raises(DataError, match=r"must end in \.json, \.yaml or \.yml"):
        read_classes(written(tmp_path, "cat", "classes.txt"))
    (tmp_path / "broken.json").write_bytes(b'["\xff"]')
    with pytest.raises(DataError, match="can't be understood"):
        read_classes(tmp_path / "broken.json")


def test_classes_of_tags_are_sorted_whatever_the_order_of_the_rows() -> None:
    there = classes_of_tags({"zebra": 2, "ant": 3, "Moth": 9}, "tags.csv")
    back = classes_of_tags({"Moth": 2, "ant": 3, "zebra": 9}, "tags.csv")
    assert there.class_names == back.class_names == ("background", "Moth", "ant", "zebra")


def test_tags_that_differ_in_spelling_only_are_refused() -> None:
    with pytest.raises(DataError, match=r"`Cat` \(line 7\) and `cat` \(line 2\) in tags.csv"):
        classes_of_tags({"cat": 2, "Cat": 7}, "tags.csv")
    with pytest.raises(DataError, match="names no class at all"):
        classes_of_tags({}, "tags.csv")
