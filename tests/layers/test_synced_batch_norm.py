"""Two processes with parts of a batch against torch's batch norm on the whole of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.layers import synced_parts
from tests.layers.synced_parts import CASES, PAIRS, STEPS
from torch import nn

from wsss.layers.pair_count import mean_over_pairs, sum_over_pairs, total_pairs
from wsss.layers.synced_batch_norm import (
    SyncedBatchNorm2d,
    _own_sums,
    _plain_sums,
    has_synced_batch_norms,
    synchronise_batch_norms,
)

LOOSE = {"bfloat16": 2e-2, "shifted": 2e-3}  # float32 itself is this coarse there


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both processes found."""
    folder = tmp_path_factory.mktemp("parts")
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), str(root / "src")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    command = [sys.executable, str(Path(synced_parts.__file__))]
    jobs = [subprocess.Popen([*command, str(rank), str(folder)], env=environment) for rank in (0, 1)]
    assert [job.wait(timeout=120) for job in jobs] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", CASES)
def test_parts_of_a_batch_give_what_torch_gives_for_the_whole(name: str, parts) -> None:
    case = CASES[name]
    whole = synced_parts.results(synced_parts.norm(case), case, slice(None))
    first, second = (part[name] for part in parts)
    close = {"rtol": LOOSE.get(name, 1e-5), "atol": LOOSE.get(name, 1e-5)}
    for step in range(STEPS):
        for what in (f"result{step}", f"gradient{step}"):
            assert first[what].dtype == whole[what].dtype
            torch.testing.assert_close(torch.cat([first[what], second[what]]), whole[what], **close)
    for key, value in whole.items():
        if key.startswith("gradient.0"):  # of parameters: training adds the parts up
            torch.testing.assert_close(first[key] + second[key], value, **close)
        elif key.startswith("0.") or key == "evaluated":
            torch.testing.assert_close(first[key], value, **close)
            assert torch.equal(first[key], second[key]), key
    assert whole.keys() == first.keys()


def test_the_memory_format_is_kept(parts) -> None:
    assert parts[1]["channels_last"]["result0"].is_contiguous(memory_format=torch.channels_last)


def test_a_lone_process_gets_torchs_own_numbers() -> None:
    for name in ("equal", "cumulative", "untracked"):
        net = synced_parts.norm(CASES[name])
        expected = synced_parts.results(net, CASES[name], slice(None))
        synced = synced_parts.norm(CASES[name])
        synchronise_batch_norms(synced)
        found = synced_parts.results(synced, CASES[name], slice(None))
        assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_sums_are_the_same_fused_and_plain() -> None:
    slopes, values = torch.randn(2, 3, 5, 4, 6, generator=torch.Generator().manual_seed(0)).double()
    mean, variance = values.mean(dim=(0, 2, 3)) + 0.5, 2 * values.var(dim=(0, 2, 3))
    plain = _plain_sums(slopes, values, mean, (variance + 1e-5).rsqrt())
    for fused, expected in zip(_own_sums(slopes, values, mean, variance, 1e-5), plain, strict=True):
        torch.testing.assert_close(fused, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("affine", [True, False])
def test_an_accelerator_gives_what_torch_gives(affine: bool, tmp_path: Path) -> None:
    device = torch.accelerator.current_accelerator()
    torch.distributed.init_process_group("nccl", f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    try:
        norms = [nn.BatchNorm2d(5, affine=affine, device=device) for _ in range(2)]
        whole, synced = norms[0], SyncedBatchNorm2d.of(norms[1])
        values = torch.randn(4, 5, 7, 6, device=device, generator=torch.Generator(device).manual_seed(0))
        found = []
        for run in (whole, synced._synced):
            features = values.clone().requires_grad_()
            result = run(features)
            result.pow(3).sum().backward()
            found.append((result, features.grad))
        for own, expected in zip(found[1], found[0], strict=True):
            torch.testing.assert_close(own, expected)
        for own, expected in zip(synced.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(own.grad, expected.grad)
        torch.testing.assert_close(synced.running_var, whole.running_var)
    finally:
        torch.distributed.destroy_process_group()


class Activated(nn.BatchNorm2d):
    """A norm that includes what follows it, as timm's do."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(super().forward(input)))


def test_norms_are_replaced_wherever_they_are_and_share_their_state(caplog) -> None:
    torch.manual_seed(0)
    shared = nn.BatchNorm2d(3)
    net = nn.Sequential(nn.Conv2d(3, 3, 1), shared, nn.Sequential(shared, Activated(3)), nn.Dropout())
    net[2][1].eval()
    names, parameters = list(net.state_dict()), list(net.parameters())
    images = torch.randn(2, 3, 4, 4)
    expected = net.eval()(images)
    net.train()
    net[2][1].eval()
    synchronise_batch_norms(net)
    assert net[1] is net[2][0]
    assert isinstance(net[1], SyncedBatchNorm2d)
    assert net[1].running_mean is shared.running_mean
    assert list(net.state_dict()) == names
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    assert net[1].training
    assert not net[2][1].training  # frozen norms stay frozen
    assert torch.equal(net.eval()(images), expected)
    assert not has_synced_batch_norms(net)
    assert has_synced_batch_norms(net.train())
    assert not caplog.records
    other = nn.Sequential(nn.BatchNorm1d(3))
    synchronise_batch_norms(other)
    assert type(other[0]) is nn.BatchNorm1d
    assert "BatchNorm1d normalises each process's own images" in caplog.text


# Reductions over pairs


def test_averages_over_processes_are_the_mean_and_the_sum_of_all_pairs(parts) -> None:
    values = [loss for own in PAIRS for loss in own]
    own = [part["pairs"] for part in parts]
    assert [float(found["total"]) for found in own] == [len(values)] * 2
    assert sum(float(found["mean"]) for found in own) / 2 == pytest.approx(sum(values) / len(values))
    assert sum(float(found["sum"]) for found in own) / 2 == pytest.approx(sum(values))
    gradients = [value / 2 for found in own for value in found["gradient"].tolist()]  # as training averages
    assert gradients == pytest.approx([1 / len(values)] * len(values))
    assert [float(part["nobody"]["mean"]) for part in parts] == [0, 0]


def test_one_process_has_plain_means_and_sums() -> None:
    losses = torch.rand(7, generator=torch.Generator().manual_seed(0))
    total = total_pairs(7, losses.device)
    assert float(total) == 7
    assert torch.equal(mean_over_pairs(losses, total), losses.mean())
    assert torch.equal(mean_over_pairs(losses), losses.mean())
    assert torch.equal(sum_over_pairs(losses), losses.sum())
