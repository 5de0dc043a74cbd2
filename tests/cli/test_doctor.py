"""`wsss doctor` as a program: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from doctor.small_folder import clean_rows, write_folder, write_tags
from wsss.cli.main import app
from wsss.engine.recipe import load_recipe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "parts")


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="wsss")


def plain(text: str) -> str:
    return " ".join(text.split())


def test_a_clean_folder_ends_with_0(folder: Path):
    result = call("doctor", folder, "--no-estimate")
    assert result.exit_code == 0
    assert (
        "48 images, 48 of them tagged, 0 with masks. Images of each class: blisk 24, rotor 24."
        in result.stdout
    )
    assert f"Nothing is wrong with {folder}." in result.stdout


def test_errors_end_with_2_and_warnings_with_0(folder: Path):
    write_tags(folder / "tags.csv", clean_rows()[:-1])
    result = call("doctor", folder, "--no-estimate")
    assert result.exit_code == 0
    assert "warning image-without-tag: Images have no line" in result.stdout
    (folder / "images" / "000.png").write_bytes(b"")
    result = call("doctor", folder, "--no-estimate")
    assert result.exit_code == 2
    text = plain(result.stdout)
    assert text.index("error unreadable-image") < text.index("warning image-without-tag")
    assert "000.png → Replace these files" in text
    assert "1 error, 1 other finding in" in text
    assert "Traceback" not in result.stderr


def test_json_is_one_object_and_nothing_else(folder: Path, tmp_path: Path):
    (folder / "images" / "000.png").write_bytes(b"")
    result = call("doctor", folder, "--json", "--no-estimate", "--out", tmp_path / "out")
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert document["ok"] is False
    assert [(finding["level"], finding["code"], finding["where"]) for finding in document["findings"]] == [
        ("error", "unreadable-image", ["000.png"])
    ]
    assert document["written"] == [str(tmp_path / "out" / name) for name in ("classes.yaml", "recipe.yaml")]
    assert document["proposal"]["recipe"]["method"]["name"] == "smvwe"


def test_proposals_are_written_once(folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert call("doctor", folder, "--no-estimate", "--method", "clims", "--out", out).exit_code == 0
    assert load_recipe(out / "recipe.yaml").method_name == "clims"
    again = call("doctor", folder, "--no-estimate", "--out", out)
    assert again.exit_code == 2
    assert "is there already and is not replaced" in plain(again.stderr)
    assert load_recipe(out / "recipe.yaml").method_name == "clims"
    assert call("doctor", folder, "--no-estimate", "--out", out, "--overwrite").exit_code == 0
    assert load_recipe(out / "recipe.yaml").method_name == "smvwe"


def test_the_proposed_recipe_is_itself_without_fault(folder: Path, tmp_path: Path):
    call("doctor", folder, "--no-estimate", "--out", tmp_path / "out")
    result = call("doctor", tmp_path / "out" / "recipe.yaml", "--no-estimate")
    assert result.exit_code == 0
    assert "Nothing is wrong" in result.stdout


def test_no_target_looks_at_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    result = call("doctor")
    assert result.exit_code == 0
    assert "Device: " in result.stdout
    assert "Nothing is wrong with this machine." in result.stdout


def test_a_generated_data_set_needs_no_files():
    result = call("doctor", "scenes/cam", "--no-estimate")
    assert result.exit_code == 0, result.stdout


def test_a_missing_data_set_hides_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # nothing of VOC, no weights
    missing = ["method.backbone_weights=own.pth", f"data.root={tmp_path / 'nowhere'}"]
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(load_recipe("voc12/clims", missing).to_yaml())
    result = call("doctor", recipe, "--json")
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert document["ok"] is False
    first, *others = document["findings"]
    assert (first["level"], first["code"]) == ("error", "no-data")
    assert str(tmp_path / "nowhere") in first["what"]
    assert "missing-weights" in {finding["code"] for finding in others}
    assert document["facts"]["images"] == 0
    assert document["estimate"] is document["proposal"] is None
    assert document["machine"]["free_disk_bytes"] > 0
    assert document["method"] == "clims"
    shown = call("doctor", recipe)
    assert shown.exit_code == 2
    text = plain(shown.stdout)
    assert text.index("error no-data: ") < text.index("error missing-weights") < text.index("Device: ")
    assert "There is no data folder" not in shown.stderr


def test_missing_coco_is_a_finding_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    result = call("doctor", "coco14/eps", "--json")
    assert result.exit_code == 2
    assert [f["code"] for f in json.loads(result.stdout)["findings"]][:2] == ["no-data", "missing-weights"]


def test_a_target_that_is_not_there():
    result = call("doctor", "nowhere")
    assert result.exit_code == 2
    assert "Expected a folder of images or a recipe" in plain(result.stderr)
