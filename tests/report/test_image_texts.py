from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builder import CAM, Invented
from html_check import Page

from wsss.questions.pair_texts import PairTexts
from wsss.report import image_texts, page
from wsss.report.image_texts import ClassTexts, entry_texts
from wsss.report.page import write_report
from wsss.report.runs import read_reported

QA = Invented(recipe="scenes/qa_clims", method="qa_clims", skill=0.6, has_segmentation=False)
ORACLE = replace(QA, recipe="scenes/qa_clims-oracle", skill=0.7)
SKIPPED = "no background text: the pair is skipped"


def texts_of(
    dataset: Any, foreground: Callable[[str], tuple[str, ...]], background: tuple[str, ...]
) -> tuple[PairTexts, ...]:
    """The same about every class of every training image."""
    return tuple(
        PairTexts(image_id, name, name, foreground(name), background)
        for image_id in dataset.ids("train")
        for name in [
            dataset.classes[column].name for column in np.flatnonzero(dataset.image_labels(image_id))
        ]
    )


@pytest.fixture(scope="module")
def answered(tiny_scenes: Any) -> tuple[PairTexts, ...]:
    return texts_of(tiny_scenes, lambda name: (f"small {name}", name, f"small {name}"), ("grass", "blue sky"))


def write(folders: list[Path], out: Path) -> Page:
    made = Page(write_report(folders, out).read_text(encoding="utf-8"))
    assert not made.problems
    assert not made.loads
    return made


def blocks(made: Page) -> int:
    return sum(attributes.get("class") == "texts" for _, attributes in made.tags)


def test_each_class_has_its_texts_in_words_and_colours(
    runs: Any, answered: tuple[PairTexts, ...], tmp_path: Path
) -> None:
    made = write(runs(replace(CAM, has_segmentation=False), replace(QA, texts=answered)), tmp_path)
    kinds = [attributes.get("class") for tag, attributes in made.tags if tag == "span"]
    end = next(place for place, (_, a) in enumerate(made.tags) if a.get("id") == "try")
    shown = [a for tag, a in made.tags[:end] if tag == "article"]
    assert blocks(made) == len(shown)
    assert kinds.count("object") == kinds.count("around") >= len(shown)
    name = answered[0].class_name
    assert f"{name} object: {name}, small {name} around: grass, blue sky" in made.words
    assert "Texts that QA-CLIMS trained on" in made.words
    assert SKIPPED not in made.words


def test_a_pair_without_background_texts_says_that_it_is_skipped(
    runs: Any, tiny_scenes: Any, tmp_path: Path
) -> None:
    made = write(runs(replace(QA, texts=texts_of(tiny_scenes, lambda _: (), ()))), tmp_path)
    assert SKIPPED in made.words
    assert "around:" not in made.words
    assert any(attributes.get("class") == "skipped" for _, attributes in made.tags)


def test_entries_share_a_block_only_where_their_texts_are_equal(
    runs: Any, tiny_scenes: Any, answered: tuple[PairTexts, ...], tmp_path: Path
) -> None:
    true = texts_of(tiny_scenes, lambda name: (f"true {name}",), ("meadow",))
    equal = write(runs(replace(QA, texts=answered), replace(ORACLE, texts=answered)), tmp_path / "equal")
    assert "Texts that QA-CLIMS and QA-CLIMS oracle trained on" in equal.words
    assert "Texts that QA-CLIMS trained on" not in equal.words
    other = write(runs(replace(QA, texts=answered), replace(ORACLE, texts=true)), tmp_path / "other")
    for words in ("Texts that QA-CLIMS trained on", "Texts that QA-CLIMS oracle trained on"):
        assert other.words.count(words) == blocks(other)
    assert "around: meadow" in other.words


def test_an_oracle_is_named_wherever_its_runs_are(
    runs: Any, answered: tuple[PairTexts, ...], tmp_path: Path
) -> None:
    made = write(runs(replace(CAM, has_segmentation=False), replace(ORACLE, texts=answered)), tmp_path)
    assert "QA-CLIMS (oracle) map" in made.words
    assert "QA-CLIMS map" not in made.words


def test_methods_without_texts_have_no_block_and_predictions_neither(
    runs: Any, answered: tuple[PairTexts, ...], tmp_path: Path
) -> None:
    assert blocks(write(runs(CAM, QA), tmp_path / "none")) == 0
    made = write(runs(replace(QA, has_segmentation=True, texts=answered)), tmp_path / "both")
    pictures = sum(tag == "article" for tag, _ in made.tags)
    assert 0 < blocks(made) < pictures


def test_answers_are_shown_and_never_obeyed(runs: Any, tiny_scenes: Any, tmp_path: Path) -> None:
    nasty = "<script>alert('x')</script>&amp;\"<img src=x>"
    made_up = texts_of(tiny_scenes, lambda name: (nasty, "</span></li>"), (nasty, "</article>"))
    path = write_report(runs(replace(QA, texts=made_up)), tmp_path)
    text = path.read_text(encoding="utf-8")
    made = Page(text)
    assert not made.problems
    assert not made.loads
    assert [tag for tag, _ in made.tags if tag in ("script", "object")] == ["script"]  # the page's own
    assert nasty in made.words
    assert text.count("<script") == 1


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"{",
        b"[]\n",
        b"\xff\xfe",
        b'{"image_id": "a"}\n',
        b"null\n",
        json.dumps(asdict(PairTexts("ID", "NAME", "NAME", (["a"],), ())), default=str).encode(),  # type: ignore[arg-type]
        json.dumps({**asdict(PairTexts("ID", "NAME", "NAME", (), ())), "background": [3]}).encode(),
        json.dumps({**asdict(PairTexts("ID", "NAME", "NAME", (), ())), "image_id": []}).encode(),
    ],
    ids=[
        "missing",
        "empty",
        "cut short",
        "a list",
        "no text",
        "no keys",
        "null",
        "lists",
        "numbers",
        "no id",
    ],
)
def test_a_broken_file_costs_its_block_only(
    runs: Any, answered: tuple[PairTexts, ...], tmp_path: Path, content: bytes | None
) -> None:
    folder = runs(replace(QA, texts=answered))[0]
    shutil.copytree(folder.parent, tmp_path / "copy")
    [path] = (tmp_path / "copy").rglob("texts.jsonl")
    if content is None:
        path.unlink()
    else:
        image, name = answered[0].image_id.encode(), answered[0].class_name.encode()
        path.write_bytes(content.replace(b"ID", image).replace(b"NAME", name))
    made = write([tmp_path / "copy" / folder.name], tmp_path / "out")
    assert "QA-CLIMS map" in made.words
    assert blocks(made) == 0


def test_a_shared_file_is_read_once_and_shown_images_are_kept(
    runs: Any, answered: tuple[PairTexts, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = runs(replace(QA, texts=answered))[0]
    first = read_reported([folder]).entries[0]
    read: list[Path] = []

    def reading(path: Path) -> Any:
        read.append(path)
        return iter(answered)

    monkeypatch.setattr(image_texts, "read_pair_texts", reading)
    pair = answered[0]
    found = entry_texts([first, replace(first, label="again")], [pair.image_id])
    assert len(read) == 1
    assert list(found) == [first.label, "again"]
    assert list(found["again"]) == [pair.image_id]
    assert found["again"][pair.image_id][pair.class_name] == ClassTexts(
        (pair.label, f"small {pair.label}"), ("grass", "blue sky")
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_green_and_red_are_green_and_red_and_can_be_read(theme: str) -> None:
    style = page._style()
    lights = re.findall(r"--(paper|gain|loss|soft): (#[0-9a-f]{6})", style)
    at = [colours for name, colours in lights if name == "paper"].index(
        "#fbfaf7" if theme == "light" else "#15181b"
    )
    colours = {name: [c for n, c in lights if n == name][at] for name in ("paper", "gain", "loss", "soft")}
    for name in ("gain", "loss", "soft"):
        assert contrast(colours[name], colours["paper"]) >= 4.5
    red, green, blue = channels(colours["gain"])
    assert green > max(red, blue)
    red, green, blue = channels(colours["loss"])
    assert red > max(green, blue)
    for kind, name in (("object", "gain"), ("around", "loss"), ("skipped", "soft")):
        assert re.search(rf"\.texts \.{kind} {{[^}}]*color: var\(--{name}\)", style)


def channels(colour: str) -> list[float]:
    return [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""

    def light(colour: str) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels(colour)]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)
