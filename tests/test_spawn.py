"""What macOS and Windows do otherwise than Linux, as far as Linux can show it."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tiny_recipe import SMALL_NET, smvwe_recipe, training, write_recipe
from wsss.data import WithoutMasks
from wsss.data.loaders import TrainingBatches
from wsss.data.masks_png import write_mask
from wsss.data.transforms import Augmentation
from wsss.engine.provenance import peak_memory
from wsss.engine.segmentation_work import pseudo_target
from wsss.training import checkpoint
from wsss.training.checkpoint import load_state, save_state

UNIX_ONLY = ("resource", "fcntl", "pwd", "grp", "termios", "readline", "syslog")


def run_script(folder: Path, code: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run code as a script, which spawned processes import again."""
    script = folder / "script.py"
    script.write_text(code, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WSSS_OFFLINE": "1"}
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def spawning() -> Iterator[None]:
    """New processes start with nothing, as on macOS and Windows."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow
@pytest.mark.usefixtures("spawning")
def test_a_spawned_worker_makes_the_batches_of_this_process(tiny_scenes: Any, tmp_path: Path) -> None:
    ids = tiny_scenes.ids("train")
    for image_id in ids:
        mask = tiny_scenes.sample(image_id, with_mask=True).mask
        write_mask(tmp_path / f"{image_id}.png", mask)

    def batches(workers: int) -> list[Any]:
        loader = TrainingBatches(
            WithoutMasks(tiny_scenes),
            ids,
            Augmentation(crop_size=64),
            batch_size=4,
            seed=3,
            mean=(0.5, 0.5, 0.5),
            std=(0.2, 0.2, 0.2),
            aligned=partial(pseudo_target, tmp_path),
            workers=workers,
        )
        return [batch for epoch in range(2) for batch in loader.epoch(epoch)]

    own, spawned = batches(0), batches(1)
    assert len(own) == len(spawned) == 6
    for expected, found in zip(own, spawned, strict=True):
        assert found.image_ids == expected.image_ids
        for name in ("images", "image_labels", "valid"):
            assert torch.equal(getattr(found, name), getattr(expected, name))
        assert torch.equal(found.aligned["target"], expected.aligned["target"])
    assert any(len(batch.aligned["target"].unique()) > 1 for batch in own)


TRAIN = """
import multiprocessing, sys
from wsss import load_recipe, run

if __name__ == "__main__":  # or every worker would run all of this
    recipe, runs = sys.argv[1:]
    multiprocessing.set_start_method("spawn")
    sections = ("training", "segmentation.training", "refine.0.training")
    for workers in (0, 1):
        changes = [f"{section}.workers={workers}" for section in sections]
        run(load_recipe(recipe, changes), runs=f"{runs}/{workers}")
"""


def every_training(folder: Path) -> Path:
    """Saliency for a method, labels for a refiner and masks for a network all travel to the workers."""
    short = {**training(1), "epochs": None, "steps": 2}
    irn = {
        "name": "irn",
        **SMALL_NET,
        "backbone_trains": True,
        "radius": 4,
        "num_doublings": 2,
        "canvas": None,
    }
    return write_recipe(
        folder / "tiny.yaml",
        smvwe_recipe(),
        training=training(2),
        refine=[{**irn, "training": short}],
        segmentation={"preset": "scenes", "training": short},
    )


@pytest.mark.slow
def test_trainings_with_spawned_workers_end_with_the_same_weights(tmp_path: Path) -> None:
    done = run_script(tmp_path, TRAIN, every_training(tmp_path), tmp_path / "runs")
    assert done.returncode == 0, done.stderr[-3000:]
    without, spawned = (weights(tmp_path / "runs" / workers / "stages") for workers in "01")
    assert set(without) == {"train-method", "refine-irn", "train-segmentation"}
    assert without == spawned


def weights(stages: Path) -> dict[str, bytes]:
    """The trained networks, by the kind of their stage; names of folders change with the settings."""
    found = stages.rglob("model.safetensors")
    return {path.relative_to(stages).parts[0].rpartition("-")[0]: path.read_bytes() for path in found}


def test_no_module_needs_what_only_unix_has() -> None:
    files = list((Path(__file__).parents[1] / "src" / "wsss").rglob("*.py"))
    wanted = re.compile(rf"^[ \t]*(?:import|from) (?:{'|'.join(UNIX_ONLY)})\b", re.MULTILINE)
    assert wanted.search("import os\n    import resource\n")
    assert [path.name for path in files if wanted.search(path.read_text(encoding="utf-8"))] == []


def test_memory_is_known_without_the_module_that_only_unix_has(monkeypatch: pytest.MonkeyPatch) -> None:
    here = peak_memory()
    probe = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=7))
    monkeypatch.setitem(sys.modules, "resource", None)  # as where there is no such module
    monkeypatch.setitem(sys.modules, "psutil", SimpleNamespace(Process=lambda: probe))
    assert peak_memory() == 7
    assert here > 50e6


def test_states_are_saved_where_folders_can_not_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows opens no folders, and flushes only what is open for writing."""
    flags_of: dict[int, int] = {}

    def strict_open(path: Path, flags: int) -> int:
        if path.is_dir():
            raise PermissionError(13, "Permission denied", str(path))
        descriptor = os.open(path, flags)
        flags_of[descriptor] = flags
        return descriptor

    def strict_fsync(descriptor: int) -> None:
        if not flags_of[descriptor] & (os.O_RDWR | os.O_WRONLY):
            raise OSError(9, "Bad file descriptor")
        os.fsync(descriptor)

    same = {name: getattr(os, name) for name in ("O_RDONLY", "O_RDWR", "replace", "close")}
    windows = SimpleNamespace(name="nt", open=strict_open, fsync=strict_fsync, **same)
    monkeypatch.setattr(checkpoint, "os", windows)
    save_state(tmp_path / "state.safetensors", {"a": torch.arange(3)})
    assert torch.equal(load_state(tmp_path / "state.safetensors")[0]["a"], torch.arange(3))
    assert len(flags_of) == 1
