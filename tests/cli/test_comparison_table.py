from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tiny_recipe import made_up_run
from wsss.cli.main import app

IMAGES = {
    "maps": {"fixed": [[[90, 10], [20, 30]]]},
    "words": {"none": [[[90, 10], [20, 30]]]},
    "segmentation": {"automatic": [[[80, 20], [10, 40]]]},
}


def call(*arguments: str | Path) -> Result:
    environment = {"COLUMNS": "200"}
    return CliRunner(env=environment).invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Runs of each kind of supervision, in no order."""
    kinds = {"full": "F", "cam": "I", "clims": "I+L", "smvwe": "I+S", "eps": "I+S"}
    return [made_up_run(tmp_path, name, 0, IMAGES, supervision=kind) for name, kind in kinds.items()]


def first_words(text: str, names: tuple[str, ...]) -> list[str]:
    """Of the first table (gains stand below it): the first column, borders left out."""
    rows = [line.replace("│", " ").split() for line in text.partition("Gains over")[0].splitlines()]
    return [row[0] for row in rows if row and row[0] in names]


def test_rows_are_grouped_by_what_recipes_learned_from(runs: list[Path]) -> None:
    result = call("compare", *runs)
    assert result.exit_code == 0, result.output
    names = ("F", "I", "I+S", "I+L", "full", "cam", "clims", "smvwe", "eps")
    assert first_words(result.stdout, names) == [
        *("I", "cam", "I+S", "smvwe", "eps", "I+L", "clims", "F", "full"),
    ]
    assert "I+S: image tags and saliency maps" in " ".join(result.stdout.split())
    assert "not measured alike" not in result.output


def test_recipes_of_one_supervision_need_no_heads(runs: list[Path]) -> None:
    result = call("compare", runs[3], runs[4])
    assert first_words(result.stdout, ("I+S", "smvwe", "eps")) == ["smvwe", "eps"]
    assert "learned from" not in result.stdout


def test_other_protocols_are_refused_unless_they_are_to_be_mixed(runs: list[Path]) -> None:
    record = json.loads((runs[1] / "run.json").read_text())
    record["recipe"]["activation"]["flip"] = False
    (runs[1] / "run.json").write_text(json.dumps(record))
    refused = call("compare", runs[1], runs[2])
    assert refused.exit_code != 0
    mixed = call("compare", runs[1], runs[2], "--mix-protocols")
    assert mixed.exit_code == 0, mixed.output
    assert "These runs were not measured alike" in mixed.stdout
    assert "flip of maps: no (cam-seed0), yes (clims-seed0)" in mixed.stdout
    as_json = call("compare", runs[1], runs[2], "--mix-protocols", "--json")
    assert json.loads(as_json.stdout)["mixed"] == ["flip of maps: no (cam-seed0), yes (clims-seed0)"]
    assert "These runs were not measured alike" in as_json.stderr
