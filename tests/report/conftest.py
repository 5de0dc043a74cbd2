"""Invented runs of the tiny scenes, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from builder import CONFIG, Invented, build


@dataclass
class Runs:
    """Makes runs below one folder, each once."""

    root: Path
    dataset: Any
    tree: Path

    def __call__(self, *invented: Invented) -> list[Path]:
        folders = []
        for run in invented:
            place = self.root / f"{abs(hash(repr(run)))}"
            folder = place / f"{run.recipe.replace('/', '-')}-seed{run.seed}"
            if not folder.is_dir():
                build(place, self.dataset, self.tree, CONFIG, run)
            folders.append(folder)
        return folders


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_scenes: Any, tiny_tree: Path) -> Runs:
    return Runs(tmp_path_factory.mktemp("invented"), tiny_scenes, tiny_tree)
