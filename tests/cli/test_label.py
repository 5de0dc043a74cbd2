"""`wsss label` as a program: one command from tags to masks, network and report; mistakes stop it early."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from scene_folder import write_scene_folder
from wsss.cli.label import parse_background_score, parse_refiners
from wsss.cli.main import app
from wsss.data.masks_png import read_mask, write_mask
from wsss.engine import label as engine
from wsss.errors import RecipeError


@pytest.fixture
def folder(tmp_path: Path, tiny_scenes: Any, tiny_tree: Path) -> Path:
    return write_scene_folder(tiny_scenes, tiny_tree, tmp_path / "scenes", masks=18)


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="wsss")


def plain(text: str) -> str:
    return " ".join(text.split())


def test_one_command_from_tags_to_a_report_and_again_after_an_interruption(
    folder: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch
):
    out = folder.parent / "out"
    command = ("label", folder / "images", folder / "tags.csv", "--out", out, "--quick", "--method", "cam")
    command = (*command, "--masks", folder / "masks", "--classes", tiny_tree / "classes.yaml")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine, "write_masks", interrupted)
        first = call(*command)
    assert first.exit_code == 130
    assert "Run the same command again to continue." in first.stderr
    result = call(*command)
    assert result.exit_code == 0, result.stderr
    assert "Train cam: already done." in result.stderr
    text = plain(result.stdout)
    assert "warning few-images" in text
    assert "18 masks are in" in text
    assert "chosen from images and maps, without any mask; the best one on the true masks would be" in text
    assert (out / "report" / "index.html").stat().st_size > 10_000
    page = (out / "report" / "index.html").read_text(encoding="utf-8")
    assert "chosen without any mask" in page
    assert "best on the true masks, for comparison only" in page
    assert "Which masks to look at first: `wsss review" in text
    (out / "model" / "model.onnx").write_bytes(b"exported beside it")
    check_again(command, out)
    assert (out / "model" / "model.onnx").read_bytes() == b"exported beside it"
    assert not (out / ".label-new").exists()
    check_corrections(command, out)
    masks = sorted((out / "masks").iterdir())
    assert len(masks) == 18
    assert {value for path in masks for value in read_mask(path).ravel()} <= set(range(9))


def check_corrections(command: tuple[str | Path, ...], out: Path) -> None:
    """The round that the last line tells of: review, correct, the same command with the corrections."""
    (run,) = (out / "runs").glob("*-quick-seed0")
    assert call("review", run, "--out", out / "review").exit_code == 0
    ranking = json.loads((out / "review" / "ranking.json").read_text(encoding="utf-8"))
    name = f"{ranking['ranking'][0]['image_id']}.png"
    write_mask(out / "corrected" / name, 0 * read_mask(out / "masks" / name))
    result = call(*command, "--corrections", out / "corrected")
    assert result.exit_code == 0, result.stderr
    assert "1 corrected by hand" in plain(result.stdout)
    assert not read_mask(out / "masks" / name).any()
    assert call("compare", run, run.with_name(run.name.replace("-seed0", "-corrected-seed0"))).exit_code == 0


def check_again(command: tuple[str | Path, ...], out: Path) -> None:
    """The same command once more, and with files in its way that it did not write."""
    assert call(*command).exit_code == 0
    for name in ("model/config.json", "model/README.md", "report/index.html"):
        whole = (out / name).read_bytes()
        (out / name).write_bytes(whole + b"\n")
        refused = call(*command)
        assert refused.exit_code == 2
        assert f"{name} was not written by `wsss label` as it is now" in plain(refused.stderr)
        assert (out / name).read_bytes() == whole + b"\n"
        (out / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("report/index.html", "report/index.html was not written by `wsss label`"),
        ("model/config.json", "model/config.json was not written by `wsss label`"),
        ("model", "model is a file where a folder is to be made"),
        ("report", "report is a file where a folder is to be made"),
        ("label-files.json", "must say which files `wsss label` wrote"),
    ],
)
def test_files_in_the_way_of_the_end_stop_it_at_the_beginning(folder: Path, name: str, words: str):
    out = folder.parent / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_bytes(b"{}")
    result = call("label", folder / "images", folder / "tags.csv", "--out", out, "--quick")
    assert result.exit_code == 2
    assert words in plain(result.stderr)
    assert [path for path in out.rglob("*") if path.is_file()] == [out / name]
    assert (out / name).read_bytes() == b"{}"


def test_faulty_data_stop_it_before_anything_is_made(folder: Path):
    (folder / "images" / "w7_train_00003.jpg").write_bytes(b"")
    out = folder.parent / "out"
    result = call("label", folder / "images", folder / "tags.csv", "--out", out, "--quick")
    assert result.exit_code == 2
    assert "error unreadable-image" in plain(result.stdout)
    assert "Expected data without errors; got" in plain(result.stderr)
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "names"), [("none", ()), ("dense_crf", ("dense_crf",)), ("irn, dense_crf", ("irn", "dense_crf"))]
)
def test_refiners_are_named_by_commas(text: str, names: tuple[str, ...]):
    assert parse_refiners(text) == names


def test_mistakes_in_options_are_explained():
    with pytest.raises(RecipeError, match="There is no refiner `crf`"):
        parse_refiners("crf")
    assert parse_background_score("auto") is None
    assert parse_background_score("0.25") == 0.25
    for wrong in ("automatic", "1.5", "nan"):
        with pytest.raises(RecipeError, match="takes `auto` or a number from 0 to 1"):
            parse_background_score(wrong)
