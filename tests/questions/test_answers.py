from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from wsss.errors import DataError
from wsss.questions.answers import Header, complete_length, pair_line, read_answers, read_header

HEADER = Header(
    "blip", "ab12", {"beams": 3}, "voc", {"object": ("what is above the {}?", "what is near {}?")}
)
ABOVE, NEAR = "what is above the dog?", "what is near dog?"
FIRST = pair_line("2007_000032", "dog", "dog", {ABOVE: "sky", NEAR: ""})


def write(path: Path, *lines: str) -> Path:
    path.write_bytes("".join(lines).encode())
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    odd = {"q1": "", "q2": "two\nlines\r\n", "q3": "café \u6a39 \u2028 \x85 \x00", "q4": "x " * 5000}
    path = write(tmp_path / "answers.jsonl", HEADER.line(), FIRST, pair_line("b", "tv", "tv monitor", odd))
    answers = read_answers(path)
    assert answers.header == HEADER
    assert answers.of("2007_000032", "dog", "dog", HEADER.questions["object"]) == ("sky", "")
    assert answers.pairs["b", "tv"] == odd
    assert answers.nouns["b", "tv"] == "tv monitor"
    assert "café \u6a39" in path.read_text(encoding="utf-8")


def test_the_header_is_read_without_the_answers(tmp_path: Path) -> None:
    whole = ["\ufeff", "\r\n", HEADER.line(), FIRST]
    assert read_header(write(tmp_path / "a", *whole)) == read_answers(tmp_path / "a").header == HEADER
    assert read_header(write(tmp_path / "b", HEADER.line().rstrip())) == HEADER  # no end of the line
    assert read_header(write(tmp_path / "c", HEADER.line(), "no answer at all\n")) == HEADER


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["\n \n"],
        [FIRST],
        [HEADER.line()[:40]],
        [HEADER.line()[:40] + "\n", FIRST],
        ["[1]\n"],
        ["\n", "\ufeff" + HEADER.line()],
        [HEADER.line().replace('"version": 1', '"version": 2')],
        [HEADER.line().replace('"blip"', "7")],
    ],
)
def test_a_header_is_refused_as_with_its_answers(tmp_path: Path, lines: list[str]) -> None:
    path = write(tmp_path / "a", *lines)
    with pytest.raises(DataError) as expected:
        read_answers(path)
    with pytest.raises(DataError) as found:
        read_header(path)
    assert str(found.value) == str(expected.value)


def test_half_a_surrogate_pair_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a", HEADER.line(), pair_line("b", "dog", "dog", {ABOVE: "x\ud800"}))
    assert read_answers(path).pairs["b", "dog"][ABOVE] == "x\ud800"


def test_later_lines_on_a_pair_win_and_add_up(tmp_path: Path) -> None:
    later = pair_line("2007_000032", "dog", "hound", {ABOVE: "cloud", "what is near hound?": "cat"})
    answers = read_answers(write(tmp_path / "a", HEADER.line(), FIRST, later))
    assert answers.pairs["2007_000032", "dog"] == {ABOVE: "cloud", NEAR: "", "what is near hound?": "cat"}
    assert answers.of("2007_000032", "dog", "hound", ["what is near {}?"]) == ("cat",)


def test_a_missing_answer_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "answers.jsonl", HEADER.line(), FIRST)
    with pytest.raises(
        DataError, match=r"answers\.jsonl lacks 1 of 2 .* 'what scene is dog in\?'.*Ask again"
    ):
        read_answers(path).of("2007_000032", "dog", "dog", ["what is above the {}?", "what scene is {} in?"])
    with pytest.raises(DataError, match="lacks 1 of 1 answers on the class `cat` of other"):
        read_answers(path).of("other", "cat", "cat", ["what is above the {}?"])


def test_what_an_editor_on_windows_leaves_is_read(tmp_path: Path) -> None:
    text = "\ufeff" + HEADER.line() + "\n" + FIRST
    path = write(tmp_path / "a", text.replace("\n", "\r\n").rstrip())  # no end of the last line either
    assert read_answers(path).pairs == read_answers(write(tmp_path / "b", HEADER.line(), FIRST)).pairs


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    last = pair_line("b", "dog", "dog", {ABOVE: "\u6a39"}).encode()
    whole = (HEADER.line() + FIRST).encode()
    for length in range(1, len(last) - 1):
        caplog.clear()
        path = tmp_path / "a"
        path.write_bytes(whole + last[:length])
        with caplog.at_level(logging.WARNING):
            assert list(read_answers(path).pairs) == [("2007_000032", "dog")]
        assert "cut off" in caplog.text
        assert complete_length(path.read_bytes()) == len(whole)
    assert complete_length(whole + last[:-1]) == len(whole + last) - 1


def header_with(**values: Any) -> str:
    return json.dumps({**json.loads(HEADER.line()), **values}) + "\n"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([FIRST], "must begin with a header line"),
        ([], "must begin with a header line"),
        (['{"form'], "must begin with a header line"),
        ([HEADER.line(), FIRST, HEADER.line()], "line 3: a second header"),
        ([HEADER.line(), "\n", FIRST[:30] + "\n", FIRST], "line 3 is no valid JSON"),
        ([HEADER.line(), FIRST, FIRST[:30] + "\n"], "line 3 is no valid JSON"),
        ([HEADER.line(), "[1]\n"], "line 2 must be an object in braces; got list"),
        ([HEADER.line(), FIRST.replace('"class"', '"klass"')], "line 2: `class` must be a text.*got nothing"),
        ([HEADER.line(), FIRST.replace('"sky"', "7")], "line 2, `answers`: `what is above the dog.`.*got 7"),
        (
            [HEADER.line(), FIRST.replace('"2007_000032"', "2007")],
            "line 2: `image_id` must be a text.*got 2007",
        ),
        (
            [HEADER.line(), '{"image_id": "a", "class": "b", "noun": "c", "answers": []}\n'],
            "object in braces",
        ),
        ([header_with(version=2)], "line 1: expected a header of format 'wsss answers', version 1; got"),
        ([header_with(format="x")], "line 1: expected a header"),
        ([header_with(sha256=5)], "line 1: `sha256` must be a text"),
        ([header_with(settings=None)], "line 1: `settings` must be an object"),
        ([header_with(questions={"object": "what"})], "`questions.object` must be a list of texts"),
        ([header_with(questions={"object": ["what?"]})], "line 1: `questions.object`.*exactly once"),
    ],
)
def test_a_broken_file_says_where_and_what(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_answers(write(tmp_path / "a", *lines))


def test_another_encoding_and_a_missing_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(HEADER.line().encode() + FIRST.replace("sky", "café").encode("latin-1"))
    with pytest.raises(DataError, match="line 2 is not UTF-8"):
        read_answers(path)
    for read in (read_answers, read_header):
        with pytest.raises(DataError, match="no answers file"):
            read(tmp_path / "b")
