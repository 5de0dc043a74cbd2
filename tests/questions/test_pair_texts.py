"""The table of text features: each text once, the same after an interruption, made anew when texts change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.fakes import FakeTeacher

import wsss.questions.pair_texts as room
from wsss.errors import DataError
from wsss.questions.pair_texts import PairTexts, prepared_table, read_pair_texts

PAIRS = [
    PairTexts("a", "boat", "boat", ("old boat", "old boat"), ("sea", "sky")),
    PairTexts("a", "cat", "cat", (), ()),
    PairTexts("b", "boat", "boat", ("new boat",), ("sky", "sea", "café")),
]
TEMPLATE = "a photo of {}."


def unit_features(nouns: list[str]) -> torch.Tensor:
    features = FakeTeacher().encode_texts([TEMPLATE.format(noun) for noun in nouns])
    return features / features.norm(dim=1, keepdim=True)


def test_features_are_found_where_the_indices_say(tmp_path: Path) -> None:
    teacher = FakeTeacher()
    table = prepared_table(tmp_path, PAIRS, teacher, TEMPLATE)
    nouns = ("boat", "cat", "café", "new boat", "old boat", "sea", "sky")
    assert sorted(teacher.texts[1:]) == sorted(map(TEMPLATE.format, nouns))  # the first: to know the teacher
    rows = table.rows_of([("b", "boat"), ("a", "cat"), ("a", "boat")])
    assert rows.tolist() == [2, 1, 0]
    labels, _ = table.of(table.labels[rows])
    assert torch.allclose(labels, unit_features(["boat", "cat", "boat"]), atol=1e-6)
    backgrounds, valid = table.of(table.background[rows])
    assert valid.tolist() == [[True] * 3, [False] * 3, [True, True, False]]
    assert torch.allclose(backgrounds[0], unit_features(["sky", "sea", "café"]), atol=1e-6)
    assert not backgrounds[1].any()
    foreground, answered = table.of(table.foreground[rows])
    assert answered.tolist() == [[True, False], [False, False], [True, True]]
    assert torch.equal(foreground[2, 0], foreground[2, 1])


def test_nothing_is_encoded_twice(tmp_path: Path) -> None:
    first = prepared_table(tmp_path, PAIRS, FakeTeacher(), TEMPLATE)
    teacher = FakeTeacher()
    again = prepared_table(tmp_path, PAIRS, teacher, TEMPLATE)
    assert teacher.texts == ["a photo of boat."]  # whether it is the same teacher
    assert torch.equal(first.features, again.features)
    assert list(read_pair_texts(tmp_path / "texts.jsonl")) == PAIRS
    assert json.loads((tmp_path / "texts.json").read_text())["pairs"] == 3


@pytest.mark.parametrize("change", ["pairs", "template", "teacher"])
def test_another_input_makes_another_table(tmp_path: Path, change: str) -> None:
    prepared_table(tmp_path, PAIRS, FakeTeacher(), TEMPLATE)
    teacher = FakeTeacher()
    pairs, template = PAIRS, TEMPLATE
    if change == "pairs":
        pairs = [*PAIRS[:2], PairTexts("b", "boat", "boat", (), ("lake",))]
    elif change == "template":
        template = "{}"
    else:
        teacher = FakeTeacher(towards=0.5)
    table = prepared_table(tmp_path, pairs, teacher, template)
    assert len(teacher.texts) > 3
    assert len(table.rows) == 3


def test_an_interruption_loses_at_most_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "AT_ONCE", 2)

    class Weak(FakeTeacher):
        """Gives up after two parts."""

        def encode_texts(self, texts):
            if len(self.texts) >= 5:
                raise KeyboardInterrupt
            return super().encode_texts(texts)

    with pytest.raises(KeyboardInterrupt):
        prepared_table(tmp_path, PAIRS, Weak(), TEMPLATE)
    assert not (tmp_path / "texts.json").exists()
    teacher, seen = FakeTeacher(), []
    table = prepared_table(
        tmp_path, PAIRS, teacher, TEMPLATE, progress=lambda done, total, note: seen.append((done, total))
    )
    assert len(teacher.texts) == 1 + 3
    assert seen == [(2, 7), (4, 7), (6, 7), (7, 7)]
    whole = prepared_table(tmp_path / "whole", PAIRS, FakeTeacher(), TEMPLATE)
    assert torch.equal(table.features, whole.features)
    assert not list(tmp_path.glob("part-*"))


def test_no_pair_at_all_is_a_table_too(tmp_path: Path) -> None:
    table = prepared_table(tmp_path, [], FakeTeacher(), TEMPLATE)
    assert table.rows_of([]).shape == (0,)


def test_a_pair_without_texts_is_named(tmp_path: Path) -> None:
    table = prepared_table(tmp_path, PAIRS, FakeTeacher(), TEMPLATE)
    with pytest.raises(DataError, match="class `cat` of image b"):
        table.rows_of([("b", "cat")])


def test_it_moves_and_is_in_no_state(tmp_path: Path) -> None:
    table = prepared_table(tmp_path, PAIRS, FakeTeacher(), TEMPLATE)
    assert not table.state_dict()
    assert table.to(torch.float64).features.dtype == torch.float64
    assert table.labels.dtype == torch.int64


def test_an_old_table_is_not_taken_for_one_that_was_interrupted(tmp_path: Path) -> None:
    prepared_table(tmp_path, PAIRS, FakeTeacher(), TEMPLATE)

    other = [PairTexts("z", "dog", "dog", (), ("lawn",))]
    honest = room.write_atomically

    def until_the_end(path: Path, data: bytes, **options: bool) -> None:
        if path.name == "texts.json":
            raise KeyboardInterrupt
        honest(path, data, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "write_atomically", until_the_end)
        with pytest.raises(KeyboardInterrupt):
            prepared_table(tmp_path, other, FakeTeacher(), TEMPLATE)
    table = prepared_table(tmp_path, PAIRS, FakeTeacher(), TEMPLATE)
    labels, _ = table.of(table.labels[table.rows_of([("a", "cat")])])
    assert torch.allclose(labels, unit_features(["cat"]), atol=1e-6)
