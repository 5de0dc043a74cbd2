from __future__ import annotations

import torch
from tests.fakes import FakeTeacher

from wsss.layers.text_tables import TextTables


def test_texts_are_encoded_once_each_and_only_when_asked_for() -> None:
    teacher = FakeTeacher()
    tables = TextTables(["cat", "boat"], [(), ("sea", "lake")])
    assert teacher.texts == []
    classes, backgrounds = tables.features(teacher)
    assert teacher.texts == ["a photo of cat.", "a photo of boat.", "a photo of sea.", "a photo of lake."]
    assert tables.features(teacher)[0] is classes
    assert len(teacher.texts) == 4
    assert torch.allclose(classes.norm(dim=1), torch.ones(2))
    assert not classes.requires_grad
    assert backgrounds.shape == (2, 8)


def test_shared_backgrounds_are_one_row() -> None:
    tables = TextTables(["boat", "train", "cat"], [("sea", "tree"), ("tree", "rail"), ()], "{}")
    assert tables.background_names == ("sea", "tree", "rail")
    assert tables.listed.tolist() == [[True, True, False], [False, True, True], [False, False, False]]


def test_tables_are_constants_beside_the_weights() -> None:
    tables = TextTables(["cat"], [("sea",)])
    tables.features(FakeTeacher())
    assert tables.state_dict() == {}
    assert not list(tables.parameters())
    moved = tables.to("meta")
    assert moved._classes.device.type == moved.listed.device.type == "meta"


def test_no_background_at_all_is_an_empty_table() -> None:
    tables = TextTables(["cat", "dog"], [(), ()])
    assert tables.listed.shape == (2, 0)
    assert tables.features(FakeTeacher())[1].shape == (0, 8)
