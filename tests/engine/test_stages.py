from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
import torch

from tiny_recipe import Recorder
from wsss.data import ScenesConfig
from wsss.engine.stages import Stage, Workspace, complete, stage_record
from wsss.errors import StageError


def make(work, **settings) -> Stage:
    return Stage(name="data", kind="data", title="Work", settings=settings, inputs=(), work=work)


def workspace(runs: Path, listener: Recorder | None = None) -> Workspace:
    return Workspace(runs, ScenesConfig(), torch.device("cpu"), listener or Recorder())


def test_a_finished_stage_is_not_redone_and_says_where_it_came_from(tmp_path: Path):
    calls, listener = [], Recorder()
    stage = make(lambda folder, place, progress: calls.append(folder) or {"images": 3}, size=5)
    for _ in range(2):
        record = complete(stage, workspace(tmp_path, listener))
    assert len(calls) == 1
    assert listener.skipped_titles == ["Work"]
    assert record["facts"] == {"images": 3}
    assert record["settings"] == {"size": 5}
    assert {"commit", "version", "device", "hardware", "seconds", "seed", "fingerprint"} <= record.keys()
    assert calls[0] == tmp_path / "stages" / f"data-{stage.fingerprint}"


def test_a_failed_stage_is_tried_again_in_the_same_folder(tmp_path: Path):
    def work(folder, place, progress):
        if not (folder / "half").exists():
            (folder / "half").write_text("")
            raise StageError("interrupted")
        return {}

    stage = make(work)
    with pytest.raises(StageError):
        complete(stage, workspace(tmp_path))
    assert stage_record(workspace(tmp_path).folder(stage)) is None
    assert complete(stage, workspace(tmp_path))["kind"] == "data"


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path):
    stage = make(lambda folder, place, progress: None)
    place = workspace(tmp_path).folder(stage) / "maps"
    place.mkdir(parents=True)
    (place / ".tmp-123-a.npz").write_text("half")
    complete(stage, workspace(tmp_path))
    assert not list(place.iterdir())


def test_two_runs_never_work_in_one_folder_at_once(tmp_path: Path):
    inside, most, done = [0], [0], []
    listener = Recorder()

    def work(folder, place, progress):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.5)
        inside[0] -= 1
        done.append(1)

    def one() -> None:
        complete(make(work), workspace(tmp_path, listener))

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert len(done) == 1  # whoever waited found the stage finished
    assert any("waiting" in note for note in listener.notes)


def test_a_damaged_record_is_named(tmp_path: Path):
    stage = make(lambda folder, place, progress: None)
    folder = workspace(tmp_path).folder(stage)
    folder.mkdir(parents=True)
    (folder / "stage.json").write_text('{"kind":')
    with pytest.raises(StageError, match=r"damaged.*Delete the folder"):
        complete(stage, workspace(tmp_path))
    (folder / "stage.json").write_text(json.dumps({"kind": "data"}))
    assert complete(stage, workspace(tmp_path)) == {"kind": "data"}
