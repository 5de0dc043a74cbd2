from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from questions.fake_answerers import FakeAnswerer, FakeDataset
from wsss.data.dataset import WithoutMasks
from wsss.errors import DataError, RecipeError, StageError
from wsss.questions.answers import Answers, read_answers
from wsss.questions.asking import OracleSource, VqaSource, ask
from wsss.questions.questions import all_templates, published_questions

QUESTIONS = {"object": ("above {}?", "under {}?"), "alias": ("other word for {}?",)}
NOUNS = {"cat": "cat", "dog": "dog", "tvmonitor": "tv monitor"}
DATASET: Any = FakeDataset()
PAIRS = [("a", "cat"), ("a", "dog"), ("b", "tvmonitor"), ("c", "cat"), ("d", "dog"), ("e", "cat")]


def run(path: Path, answerer: FakeAnswerer | None = None, **options: Any) -> Answers:
    options = {"questions": QUESTIONS, "nouns": NOUNS, "images_at_once": 2, **options}
    source = VqaSource(answerer or FakeAnswerer(), options.pop("sha256", None))
    return ask(options.pop("dataset", DATASET), options.pop("ids", DATASET.all_ids), source, path, **options)


def test_everything_present_is_asked_once(tmp_path: Path) -> None:
    answerer, told = FakeAnswerer(), []
    answers = run(tmp_path / "a.jsonl", answerer, progress=lambda *at: told.append(at))
    assert list(answers.pairs) == PAIRS
    assert answers.of("b", "tvmonitor", "tv monitor", QUESTIONS["alias"]) == (
        "on other word for tv monitor?",
    )
    assert len(answerer.asked) == len(PAIRS) * 3
    assert answerer.shapes == [(3, 4, 3)] * 5  # neither the untagged image nor the one without classes
    assert told == [(done, 6, "images") for done in (1, 3, 5, 6)]  # the empty one needs nothing
    assert answers.pairs == read_answers(tmp_path / "a.jsonl").pairs


def test_a_finished_file_is_not_asked_for_again(tmp_path: Path) -> None:
    run(tmp_path / "a.jsonl")
    before, told = (tmp_path / "a.jsonl").read_bytes(), []
    answerer = FakeAnswerer(batches=0)
    answers = run(tmp_path / "a.jsonl", answerer, progress=lambda *at: told.append(at))
    assert list(answers.pairs) == PAIRS
    assert told == [(6, 6, "images")]
    assert (tmp_path / "a.jsonl").read_bytes() == before


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_an_interruption_loses_one_batch_at_most(tmp_path: Path, batches: int) -> None:
    whole = run(tmp_path / "whole.jsonl")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a.jsonl", FakeAnswerer(batches=batches))
    assert len({pair[0] for pair in read_answers(tmp_path / "a.jsonl").pairs}) == 2 * batches
    answerer = FakeAnswerer()
    assert run(tmp_path / "a.jsonl", answerer).pairs == whole.pairs
    assert len(answerer.shapes) == 5 - 2 * batches
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_file_cut_at_any_byte_of_its_last_line_is_completed(tmp_path: Path) -> None:
    def say(question: str) -> str:
        return f"\u6a39 {question}\n"

    path, answerer = tmp_path / "a.jsonl", FakeAnswerer()
    answerer.say = say
    run(path, answerer)
    whole = path.read_bytes()
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    for length in range(start, len(whole)):
        path.write_bytes(whole[:length])
        again = FakeAnswerer()
        again.say = say
        run(path, again)
        assert path.read_bytes() == whole, length
        assert len(again.asked) == (0 if length == len(whole) - 1 else 3)


def test_a_file_edited_on_windows_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(path, FakeAnswerer(batches=1))
    edited = "\ufeff\n" + path.read_text(encoding="utf-8").replace("\n", "\r\n").rstrip()
    path.write_bytes(edited.encode())
    more = {**QUESTIONS, "scene": ("where is {}?",)}
    assert list(run(path, questions=more).pairs) == PAIRS
    assert read_answers(path).header.questions == more


def test_new_questions_ask_only_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    run(path)
    more = {"object": ("above {}?", "near {}?"), "alias": QUESTIONS["alias"]}
    answerer = FakeAnswerer()
    answers = run(path, answerer, questions=more)
    assert set(answerer.asked) == {"near cat?", "near dog?", "near tv monitor?"}
    assert len(answerer.asked) == len(PAIRS)
    assert answers.header.questions == read_answers(path).header.questions == more
    assert answers.of("a", "dog", "dog", all_templates(QUESTIONS))  # the old ones are still there
    assert run(path, FakeAnswerer(batches=0)).header.questions == QUESTIONS
    assert [item.name for item in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_new_noun_asks_about_its_class_only(tmp_path: Path) -> None:
    path, answerer = tmp_path / "a.jsonl", FakeAnswerer()
    run(path)
    answers = run(path, answerer, nouns={**NOUNS, "dog": "hound"})
    assert len(answerer.asked) == 2 * 3
    assert answers.nouns["a", "dog"] == "hound"
    assert answers.of("d", "dog", "hound", ["above {}?"]) == ("on above hound?",)


@pytest.mark.parametrize("change", ["model", "weights", "settings", "dataset"])
def test_answers_of_another_source_are_put_aside(
    tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, other = tmp_path / "answers.jsonl", FakeDataset()
    other.name = "other data"
    run(path)
    before = path.read_bytes()
    answerer = {"model": FakeAnswerer("other"), "settings": FakeAnswerer(beams=1)}.get(change, FakeAnswerer())
    options = {"weights": {"sha256": "ab12"}, "dataset": {"dataset": other}}.get(change, {})
    with caplog.at_level(logging.WARNING):
        run(path, answerer, **options)
    assert len(answerer.asked) == len(PAIRS) * 3
    (kept,) = tmp_path.glob("answers.before-????????.jsonl")
    assert kept.read_bytes() == before
    assert kept.name in caplog.text


def test_answers_are_stored_as_they_come(tmp_path: Path) -> None:
    said = ["", "two\nlines", "café \u2028", "word " * 3000, "half \ud800"]
    answerer, waiting = FakeAnswerer(), iter(said * 10)
    answerer.say = lambda question: next(waiting)
    answers = run(tmp_path / "a.jsonl", answerer)
    assert [answer for own in answers.pairs.values() for answer in own.values()] == (said * 10)[:18]


def test_settings_that_json_changes_are_still_the_same(tmp_path: Path) -> None:
    run(tmp_path / "a.jsonl", FakeAnswerer(size=(4, 4)))
    run(tmp_path / "a.jsonl", FakeAnswerer(batches=0, size=(4, 4)))


def test_what_cannot_be_asked_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(RecipeError, match="nothing for the class `dog` of image a"):
        run(path, nouns={"cat": "cat"})
    with pytest.raises(RecipeError, match="exactly once"):
        run(path, questions={"object": ("what?",)})
    with pytest.raises(RecipeError, match="images_at_once"):
        run(path, images_at_once=0)
    silent = FakeAnswerer()
    silent.answer = lambda images, questions: [[] for _ in images]  # type: ignore[method-assign]
    with pytest.raises(StageError, match="must answer each question"):
        run(path, silent)
    path.write_text("a letter to a friend")
    with pytest.raises(DataError, match="must begin with a header"):
        run(path)
    assert path.read_text() == "a letter to a friend"


def test_the_generator_answers_about_its_scenes(tmp_path: Path, tiny_scenes: Any) -> None:
    nouns = {info.name: info.prompt for info in tiny_scenes.classes}
    source = OracleSource(tiny_scenes.metadata)
    ids, questions = tiny_scenes.ids("train"), published_questions()
    dataset = WithoutMasks(tiny_scenes)
    answers = ask(dataset, ids, source, tmp_path / "a.jsonl", questions=questions, nouns=nouns)
    assert answers.header.settings == {"oracle": True, "use": "ablation only"}
    assert len(answers.pairs) == sum(int(dataset.image_labels(image_id).sum()) for image_id in ids)
    for (image_id, name), own in answers.pairs.items():
        assert len(own) == 16
        assert own[f"What is this {name} usually called?"] == name
        item = next(entry for entry in tiny_scenes.metadata(image_id)["objects"] if entry["name"] == name)
        assert own[f"What is another word for this {name}?"] == item["aliases"][1]
    with pytest.raises(RecipeError, match="can't answer"):
        ask(dataset, ids, source, tmp_path / "b", questions={"object": ("hm, {}?",)}, nouns=nouns)


def test_a_replaced_image_is_asked_about_again_alone(tmp_path: Path) -> None:
    path, first = tmp_path / "answers.jsonl", FakeAnswerer()
    digests = {image_id: f"{image_id}1" for image_id in DATASET.all_ids}
    run(path, first, digests=digests)
    unchanged = FakeAnswerer()
    run(path, unchanged, digests=digests)
    assert unchanged.asked == []
    again = FakeAnswerer()
    answers = run(path, again, digests={**digests, "a": "a2"})
    assert len(again.asked) == 2 * 3  # the two classes of image a
    assert answers.images["a", "cat"] == "a2"
    assert read_answers(path).pairs.keys() == answers.pairs.keys()


def test_the_same_weights_under_another_name_are_the_same_model(tmp_path: Path) -> None:
    path, other = tmp_path / "answers.jsonl", FakeAnswerer("another name")
    run(path, FakeAnswerer(), sha256="ab12")
    run(path, other, sha256="ab12")
    assert other.asked == []
