from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from wsss.cli.main import app
from wsss.engine.papers import exhibits, find_exhibits
from wsss.report.paper_tables import paper_table, published

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


@pytest.mark.parametrize("name", [exhibit.name for exhibit in exhibits()])
@pytest.mark.parametrize("width", [80, 120])
def test_everything_can_be_read_on_a_narrow_terminal(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsss.cli.display.console.width", width, raising=False)
    shown = call("paper", name, "--published", RESULTS).stdout
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    [exhibit] = find_exhibits(name)
    table = paper_table(exhibit, published(exhibit, RESULTS))
    if table is None:
        return
    words = re.sub(r"[│┃]", " ", shown).split()
    for cell in (*table.head, *(cell for row in table.rows for cell in row)):
        for word in re.sub("[:,]", " ", cell).split():
            assert any(word in other for other in words) or word == "–", cell
    for row in table.rows:  # numbers and their spread are never torn apart
        for cell in row[1:]:
            assert "(" in cell or cell == "–" or cell in shown


def test_wide_tables_become_blocks_with_the_papers_number_behind_the_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wsss.cli.display.console.width", 80, raising=False)
    [exhibit] = find_exhibits("clims-table4")
    shown = call("paper", exhibit.name, "--published", RESULTS).stdout
    found = paper_table(exhibit, published(exhibit, RESULTS))
    assert found is not None
    for row in found.rows:
        block = shown.partition(f"\n{row[0]}\n")[2]
        paper = row[found.papers[1]]
        told = "" if paper == "–" else f"; paper: {paper}"
        assert block.startswith(f"  boat: {row[1]}{told}\n")
    assert "Numbers of the paper: VOC 2012 train, IoU." in shown


def test_a_table_without_numbers_says_how_to_get_them(tmp_path: Path):
    assert "Run `wsss paper clims-table3`" in call("paper", "clims-table3", "--published", tmp_path).stdout


def test_an_unknown_name_is_one_message():
    result = call("paper", "clims-tabel3")
    assert result.exit_code == 2
    assert "Did you mean `clims-table3`?" in result.stderr
