from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from wsss.cli.main import app
from wsss.engine.papers import exhibits

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsss.cli.display.console.width", 200, raising=False)


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="wsss")


def test_without_a_name_all_tables_and_figures_are_listed():
    listed = call("paper").stdout
    for exhibit in exhibits():
        assert exhibit.name in listed


def test_published_numbers_stand_beside_the_papers():
    shown = call("paper", "clims-table3", "--published", RESULTS).stdout
    assert "CLIMS (Xie et al., CVPR 2022), Table 3: Losses" in shown
    assert "paper, VOC 2012 train" in shown
    assert "OTM + BTM − OTM: +4.1 in the paper" in shown


def test_a_table_without_numbers_says_how_to_get_them(tmp_path: Path):
    assert "Run `wsss paper clims-table3`" in call("paper", "clims-table3", "--published", tmp_path).stdout


def test_an_unknown_name_is_one_message():
    result = call("paper", "clims-tabel3")
    assert result.exit_code == 2
    assert "Did you mean `clims-table3`?" in result.stderr
