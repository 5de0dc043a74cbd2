"""Shared fixtures: a tiny generated data set, and a guard against network access."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["WSSS_OFFLINE"] = "1"

import pytest
import torch

TINY = {"world": 7, "train": 12, "val": 6, "size": 64}


def pytest_configure() -> None:
    torch.set_num_threads(min(2, os.cpu_count() or 1))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu say what is missing when there is no accelerator."""
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs an accelerator; none is here"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection that leaves this machine fails the test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def tiny_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated scenes tree of 12 training and 6 validation images, 64x64."""
    from wsss.data.scenes import write_tree

    folder = tmp_path_factory.mktemp("scenes") / "tree"
    write_tree(folder, **TINY)
    return folder


@pytest.fixture(scope="session")
def tiny_scenes(tiny_tree: Path) -> Any:
    """The tiny tree, opened."""
    from wsss.data import ScenesConfig, open_dataset

    return open_dataset(ScenesConfig(**TINY), root=tiny_tree)


@pytest.fixture(scope="session")
def photographs() -> Path:
    """The real photographs, where they are; otherwise the test is skipped."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "msrc_v2"
    if not folder.is_dir():
        pytest.skip(f"needs the photographs in {folder.name}, which are not part of the repository")
    return folder
