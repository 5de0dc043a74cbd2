from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from wsss.engine.fingerprint import canonical, file_fingerprint, fingerprint


def make(**changes):
    settings = {"training": {"epochs": 3, "workers": 0, "log_every": 10}, "classes": ("a", "b")}
    given = {"kind": "train-method", "settings": settings, "inputs": ["x"], "seed": 0, "version": 1}
    given.update(changes)
    kind, settings, inputs = given.pop("kind"), given.pop("settings"), given.pop("inputs")
    return fingerprint(kind, settings, inputs, **given)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"settings": {}},
        {"inputs": ["y"]},
        {"inputs": []},
        {"seed": 1},
        {"seed": None},
        {"version": 2},
    ],
)
def test_whatever_can_change_the_result_changes_the_fingerprint(change):
    assert make(**change) != make()


def test_workers_and_logging_change_nothing():
    settings = {
        "training": {"epochs": 3, "workers": 4, "log_every": 1, "tensorboard": True},
        "classes": ["a", "b"],
    }
    assert make(settings=settings) == make()


def test_the_order_of_keys_changes_nothing_and_that_of_values_does():
    assert fingerprint("k", {"a": 1, "b": 2}, [], seed=0, version=1) == fingerprint(
        "k", {"b": 2, "a": 1}, [], seed=0, version=1
    )
    assert canonical([1, 2]) != canonical([2, 1])


def test_a_file_fingerprint_is_its_sha256(tmp_path: Path):
    path = tmp_path / "weights"
    path.write_bytes(b"abc" * 1_000_000)
    assert file_fingerprint(path) == hashlib.sha256(path.read_bytes()).hexdigest()
