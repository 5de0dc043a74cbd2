"""Who made a result: commit, version, device and hardware, for `stage.json` and `run.json`."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import torch

import wsss


def now() -> str:
    """The present moment, ISO 8601, UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def version() -> str:
    """The package's version."""
    return wsss.__version__


@functools.lru_cache(maxsize=1)
def commit() -> str:
    """The sources' git commit, `+changes` where files differ from it; `unknown` outside a clone."""
    root = Path(wsss.__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return "unknown"

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=10
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "src", "recipes")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def default_device() -> torch.device:
    """The accelerator of this machine (this process's own, where several processes run), or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def hardware(device: torch.device) -> str:
    """What the numbers of minutes belong to: the accelerator's name, or the number of CPU cores."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} CPU cores" if device.type == "cpu" else f"{device.type}, {cores} CPU cores"


def peak_memory() -> float:
    """Largest memory of this process so far, in bytes."""
    try:
        resource = importlib.import_module("resource")
    except ImportError:  # Windows has none; accelerate brings psutil
        return float(importlib.import_module("psutil").Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)
