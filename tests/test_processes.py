"""Several processes give what one gives: losses, weights, maps, refined maps, words and answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import masked_networks
import process_work
from masked_networks import NETWORKS, MaskedBatches
from process_work import BATCH_SIZE, SCENES, STEPS, TRAININGS, Sparse
from wsss.data import ScenesConfig, open_dataset
from wsss.data.image_work import of_everyone
from wsss.engine import answers_work
from wsss.layers.text_matching import positive_pairs
from wsss.training.checkpoint import load_state
from wsss.training.journal import read_journal
from wsss.training.processes import OtherProcessError, connected, own_share

HERE = Path(__file__).parent
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def launched(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """Two processes of the script, as `torchrun` starts them."""
    paths = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parent / "src")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "WSSS_OFFLINE": "1"}
    command = [sys.executable, *LAUNCH, str(HERE / "process_work.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def both(tiny_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders that one process and two processes have filled."""
    folders = {count: tmp_path_factory.mktemp(f"processes{count}") for count in (1, 2)}
    done = launched(tiny_tree, folders[2])
    assert done.returncode == 0, done.stderr[-3000:]
    with pytest.MonkeyPatch.context() as patch:
        replaced = {
            "map_work": "trained_method", "resnet_small": "F", "taps": "F", "answers_work": "IMAGES_AT_ONCE",
            "saliency_work": "IMAGES_AT_ONCE",
        }  # fmt: skip
        for module, name in replaced.items():  # by the work, for its own process
            owner = getattr(process_work, module)
            patch.setattr(owner, name, getattr(owner, name))
        process_work.work(tiny_tree, folders[1])
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TRAININGS, *NETWORKS])
def test_losses_and_weights_are_those_of_one_process(name: str, both: dict[int, Path]) -> None:
    one, two = (read_journal(both[count] / name / "log.jsonl") for count in (1, 2))
    assert len(one) == len(two) == (masked_networks.STEPS if name in NETWORKS else STEPS)
    for alone, together in zip(one, two, strict=True):
        assert alone["losses"].keys() == together["losses"].keys()
        assert together["losses"] == pytest.approx(alone["losses"], rel=2e-5, abs=1e-7)
    assert one[0]["loss"] != pytest.approx(one[-1]["loss"], rel=2e-3)  # a hundred times as far apart
    states = [load_state(both[count] / name / "model.safetensors")[0] for count in (1, 2)]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=2e-5, msg=key)


@pytest.mark.slow
def test_some_shares_have_no_pair_where_others_have(tiny_tree: Path) -> None:
    """Or the test above would not show that nobody waits for ever."""
    dataset = Sparse(open_dataset(ScenesConfig(**SCENES), root=tiny_tree))
    counts = []
    for rank in (0, 1):
        batches = process_work.batches_of(dataset, 3, rank, 2)
        shown = [batch for epoch in range(STEPS) for batch in batches.epoch(epoch)][:STEPS]
        counts.append([len(positive_pairs(batch.image_labels)) for batch in shown])
        assert all(len(batch.images) == BATCH_SIZE // 2 for batch in shown)
    assert any(bool(first) != bool(second) for first, second in zip(*counts, strict=True))
    assert len({first - second for first, second in zip(*counts, strict=True)}) > 1


def test_ignored_pixels_are_not_shared_out_evenly() -> None:
    """Or a mean over each process's own pixels would do."""
    parts = [[batch.aligned["target"] for batch in MaskedBatches(rank, 2).epoch(0)] for rank in (0, 1)]
    counts = [[(int((mask == 0).sum()), int((mask % 255 > 0).sum())) for mask in part] for part in parts]
    first, second = counts
    assert first[0] == second[-1] == (0, 0)
    assert first[1][0] == 0 < first[1][1]
    assert all(background > 0 < foreground for background, foreground in (first[2], *second[:-1]))
    whole = [batch.aligned["target"] for batch in MaskedBatches(0, 1).epoch(0)]
    assert all(torch.equal(torch.cat(own), mask) for *own, mask in zip(*parts, whole, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["maps", "refined", "words", "answers", "saliency"])
def test_files_are_the_same_bytes_whoever_makes_them(folder: str, both: dict[int, Path]) -> None:
    found = [
        {path.name: path.read_bytes() for path in (both[count] / folder).rglob("*") if path.is_file()}
        for count in (1, 2)
    ]
    assert len(found[0]) >= (1 if folder == "answers" else SCENES["train"])
    assert found[0].keys() == found[1].keys()
    assert [name for name, content in found[0].items() if found[1][name] != content] == []


def test_answers_that_an_interruption_left_in_parts_are_put_together(tmp_path: Path) -> None:
    place, names = tmp_path / "answers-x.jsonl", ("first", "second", "third")
    header = b'{"format": "wsss answers"}\n'
    lines = {name: json.dumps({"image_id": name, "class": "cat"}).encode() + b"\n" for name in names}
    place.write_bytes(header + lines["first"] + b'{"image_id": "sec')
    (tmp_path / "answers-x-process0.jsonl").write_bytes(header + lines["first"] + lines["third"])
    (tmp_path / "answers-x-process1.jsonl").write_bytes(header + lines["second"] + lines["third"][:9])
    (tmp_path / "answers-y-process0.jsonl").write_bytes(header)
    answers_work._put_together(names, place)
    assert place.read_bytes() == header + b"".join(lines.values())
    answers_work._put_together(names, place)
    assert place.read_bytes() == header + b"".join(lines.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers-x.jsonl", "answers-y-process0.jsonl"]


def test_shares_hold_every_item_once_and_progress_is_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_share("abcdefg") == "abcdefg"
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(own_share("abcdefg"))
    assert shares == ["adg", "be", "cf"]
    told: list[tuple[int, int]] = []
    tell = of_everyone(lambda done, total, note: told.append((done, total)), 7)
    for done in range(3):
        tell(done, 2, "images")
    assert told == [(1, 7), (4, 7), (7, 7)]


def test_only_a_broken_connection_blames_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OtherProcessError, match="Another process of this run has ended early"), connected():
        raise RuntimeError("[/gloo/transport/tcp/pair.cc:561] Connection closed by peer")
    with pytest.raises(RuntimeError, match="out of memory") as raised, connected():
        raise RuntimeError("out of memory")
    assert not isinstance(raised.value, OtherProcessError)


@pytest.mark.slow
def test_all_end_with_one_message_each(tiny_tree: Path, tmp_path: Path) -> None:
    failed = launched(tiny_tree, tmp_path, "failing")
    assert failed.returncode != 0
    told = [line for line in failed.stderr.splitlines() if line.startswith("process ")]
    assert sorted(line[:65] for line in told) == [
        "process 0: OtherProcessError: Another process of this run has end",
        "process 0: StageError: 1 of 12 images has no maps; the first is w",
        "process 1: OtherProcessError: 1 of 12 images has no maps. See the",
    ]
    assert len(list((tmp_path / "maps").glob("*.npz"))) == SCENES["train"] - 1
