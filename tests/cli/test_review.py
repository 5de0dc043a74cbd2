"""`wsss review`: thin over tested functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from builder import AUTOMATIC, CONFIG, Invented, build

from cli.test_commands import call, plain
from wsss.engine.map_work import CHOSEN


def test_a_run_is_ranked_and_shown(tmp_path: Path, tiny_scenes: Any, tiny_tree: Path) -> None:
    run = build(tmp_path / "runs", tiny_scenes, tiny_tree, CONFIG, Invented())
    masks = next((tmp_path / "runs" / "stages").glob("pseudo-masks-*"))
    (masks / CHOSEN).write_text(json.dumps({"value": AUTOMATIC}))
    done = call("review", run, "--top", "4", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    ranking = json.loads((tmp_path / "out" / "ranking.json").read_text())["ranking"]
    assert f"{len(ranking)} masks are ranked" in plain(done.stdout)
    assert "shows 4." in plain(done.stdout)
    assert f"1. {ranking[0]['image_id']}: {ranking[0]['reasons'][0]}" in plain(done.stdout)
    assert (tmp_path / "out" / "index.html").is_file()


def test_a_folder_without_a_run_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    done = call("review", tmp_path)
    assert done.exit_code in (1, 2)
    assert "no finished run" in plain(done.output)
    assert not (tmp_path / "review").exists()
