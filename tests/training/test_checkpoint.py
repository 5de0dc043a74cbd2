import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from wsss.errors import WeightsError
from wsss.training.checkpoint import (
    TEMPORARY_PREFIX,
    atomic_folder,
    atomic_path,
    load_state,
    pack,
    remove_leftovers,
    save_state,
    unpack,
    write_atomically,
)


class Failure(Exception):  # noqa: N818
    pass


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "file.npz"
    write_atomically(target, b"old")
    with pytest.raises(Failure), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_bytes(b"half of the ne")
        assert target.read_bytes() == b"old"
        raise Failure
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["file.npz"]


def test_a_killed_write_leaves_the_old_file_and_leftovers_can_be_removed(tmp_path):
    target = tmp_path / "file.bin"
    write_atomically(target, b"old")
    pid = os.fork()
    if pid == 0:
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert target.read_bytes() == b"old"
    assert sum(name.startswith(TEMPORARY_PREFIX) for name in names(tmp_path)) == 1
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["file.bin"]


def test_the_temporary_name_keeps_the_suffix_and_folders_are_made(tmp_path):
    target = tmp_path / "a" / "b" / "maps.npz"
    with atomic_path(target, durable=True) as temporary:
        assert temporary.suffix == ".npz"
        assert temporary.parent == target.parent
        np.savez(temporary, x=np.arange(3))
    assert np.load(target)["x"].tolist() == [0, 1, 2]


def test_long_names_and_replaced_files_work(tmp_path):
    target = tmp_path / ("x" * 250)
    for data in (b"1", b"2"):
        write_atomically(target, data)
    assert target.read_bytes() == b"2"


def test_files_have_the_usual_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    write_atomically(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == plain.stat().st_mode


def test_a_state_comes_back_as_it_was(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    state = {
        "transposed": base.t(),
        "shared": base,
        "half": torch.randn(3).bfloat16(),
        "scalar": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "channels_last": torch.randn(1, 3, 2, 2).to(memory_format=torch.channels_last),
    }
    save_state(tmp_path / "state.safetensors", state, {"step": "3", "note": "ü"})
    loaded, metadata = load_state(tmp_path / "state.safetensors")
    assert metadata == {"step": "3", "note": "ü"}
    assert loaded.keys() == state.keys()
    for name, value in state.items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value)


def test_the_same_state_gives_the_same_bytes(tmp_path):
    metadata = {f"key{n}": str(n) for n in range(10)}
    state = {f"weight{n}": torch.full((2,), float(n)) for n in range(10)}
    contents = set()
    for n in range(8):
        path = tmp_path / f"{n}.safetensors"
        save_state(path, dict(reversed(state.items())) if n % 2 else state, metadata)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_files_of_other_programs_are_read(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors", {"format": "pt"})
    loaded, metadata = load_state(tmp_path / "other.safetensors")
    assert torch.equal(loaded["a"], torch.ones(2))
    assert metadata == {"format": "pt"}


@pytest.mark.parametrize("content", [None, b"", b"no safetensors file at all"])
def test_missing_and_damaged_states_are_named(tmp_path, content):
    path: Path = tmp_path / "state.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"state\.safetensors"):
        load_state(path)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad])
def test_packed_networks_and_optimisers_come_back(tmp_path, kind):
    def fresh():
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        used = [{"params": net[0].parameters()}, {"params": [net[2].weight], "lr": 0.5}]
        return net, kind(used, lr=0.1, **options)

    net, optimizer = fresh()
    for _ in range(3):
        net(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    ranks = [{"torch": torch.full((3,), rank, dtype=torch.uint8)} for rank in range(11)]
    tensors, metadata = pack(net, optimizer, ranks)
    save_state(tmp_path / "checkpoint.safetensors", tensors, metadata)
    other, other_optimizer = fresh()
    states = unpack(*load_state(tmp_path / "checkpoint.safetensors"), other, other_optimizer)
    assert [int(state["torch"][0]) for state in states] == list(range(11))
    for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    first, second = optimizer.state_dict()["state"], other_optimizer.state_dict()["state"]
    assert first.keys() == second.keys()
    for index in first:
        assert first[index].keys() == second[index].keys()
        assert all(
            torch.equal(torch.as_tensor(v), torch.as_tensor(second[index][n]))
            for n, v in first[index].items()
        )


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "made" / "model"
    with atomic_folder(target) as place:
        (place / "old").write_text("1")
        assert not target.exists()
    with pytest.raises(Failure), atomic_folder(target) as place:  # noqa: PT012
        (place / "new").write_text("2")
        raise Failure
    assert [path.name for path in target.iterdir()] == ["old"]
    with atomic_folder(target) as place:
        (place / "new").write_text("2")
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_folders_that_a_killed_process_left_are_removed_too(tmp_path: Path) -> None:
    writer = atomic_folder(tmp_path / "model")
    (writer.__enter__() / "half").write_text("1")  # and killed
    assert len(list(tmp_path.iterdir())) == 1
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []
