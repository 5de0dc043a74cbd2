"""Looks at the machine: weights, device, memory, disk, and what a run will take of them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from wsss.data import ScenesConfig, open_dataset
from wsss.doctor.findings import Finding
from wsss.engine import provenance
from wsss.engine.estimate import Estimate, estimate
from wsss.engine.fit import check_classes, check_images
from wsss.engine.recipe import MethodSection, Recipe
from wsss.errors import WsssError
from wsss.models.saliency import load_detector
from wsss.models.weights import find_weights

MEMORY_SHARE: Final = 0.9  # of the memory; the system needs the rest
LONG_SECONDS: Final = 24 * 3600.0


@dataclass(frozen=True)
class Machine:
    """What a run can use.

    Args:
        device: where networks run.
        hardware: its name, or the number of cores.
        memory_bytes: of the accelerator, else of the machine; None where it can't be found out.
        free_disk_bytes: where results will be written.
    """

    device: str
    hardware: str
    memory_bytes: int | None
    free_disk_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def look_at_machine(place: Path) -> Machine:
    """Device, memory, and room on the disk of `place`, which need not exist."""
    device = provenance.default_device()
    return Machine(
        str(device),
        provenance.hardware(device),
        _memory(device),
        shutil.disk_usage(_existing(place)).free,
    )


def check_out(out: Path) -> list[Finding]:
    """Whether files can be written into `out` (or into the folder that it will be made in)."""
    place = _existing(out)
    problem = "" if place.is_dir() else "it is a file"
    try:
        if not problem:
            with tempfile.TemporaryFile(dir=place):
                pass
    except OSError as error:
        problem = error.strerror or str(error)
    if not problem:
        return []
    what = f"Nothing can be written into {out} ({problem})."
    return [Finding("error", "unwritable-folder", what, "Name another folder, or change its permissions.")]


def check_weights(recipe: Recipe) -> list[Finding]:
    """Whether all weights that the recipe reads are on this machine; downloads nothing."""
    findings: dict[str, Finding] = {}
    for look in _weights(recipe):
        try:
            look()
        except (WsssError, OSError) as error:  # noqa: PERF203  (each is missing on its own)
            finding = Finding(
                "error",
                "missing-weights",
                str(error),
                "Nothing is downloaded by itself. Get them, or choose settings that need none.",
            )
            findings[finding.what] = finding
    return list(findings.values())


def check_fit(recipe: Recipe) -> list[Finding]:
    """Whether the recipe fits its data, as a run checks before its first stage; generated data always do."""
    if isinstance(recipe.data, ScenesConfig):
        return []
    try:
        dataset = open_dataset(recipe.data)
        check_classes(recipe, dataset.classes)
        check_images(recipe, dataset)
    except WsssError as error:
        return [_would_stop(error)]
    return []


def check_needs(
    recipe: Recipe, machine: Machine, *, seed: int = 0, runs: Path = Path("runs")
) -> tuple[Estimate | None, list[Finding]]:
    """Estimate time, memory and disk of the stages that are not finished; builds and times each network."""
    try:
        needs = estimate(recipe, seed=seed, runs=runs)
    except WsssError as error:
        return None, [_would_stop(error)]
    findings = []
    if needs.disk_bytes > needs.free_disk_bytes:
        what = f"About {_size(needs.disk_bytes)} will be written, {_size(needs.free_disk_bytes)} are free."
        findings.append(
            Finding("error", "full-disk", what, "Make room, or keep results elsewhere (`--runs`, `--out`).")
        )
    if machine.memory_bytes and needs.memory_bytes > MEMORY_SHARE * machine.memory_bytes:
        there = _size(machine.memory_bytes)
        what = f"About {_size(needs.memory_bytes)} of memory are needed, {there} are there."
        advice = "Lower `batch_size` and `crop_size` in the recipe, or shrink the images."
        findings.append(Finding("warning", "little-memory", what, advice))
    if needs.seconds > LONG_SECONDS:
        what = f"On this device ({machine.hardware}) it will take about {needs.seconds / 3600:.0f} hours."
        advice = "Use an accelerator, or fewer epochs. It can be interrupted: the same command goes on."
        findings.append(Finding("warning", "long-run", what, advice))
    return needs, findings


def _would_stop(error: WsssError) -> Finding:
    what = f"A run would stop before its first stage: {error}"
    return Finding("error", "recipe-does-not-run", what, "Correct that first.")


def _weights(recipe: Recipe) -> Iterator[Callable[[], object]]:
    """Looks for each weight that the recipe names."""
    names: list[str | None] = []
    if recipe.segmentation is not None:
        names.append(recipe.segmentation.weights)
    names += [getattr(refiner.config, "backbone_weights", None) for refiner in recipe.refine]
    sections = [recipe.method, recipe.initialise.method if recipe.initialise else None]
    for section in filter(None, sections):
        names.append(getattr(section.config, "backbone_weights", None))
        if "teacher" in section.needs and recipe.train_teacher is None:
            names.append(section.teacher)
        yield from _helpers(section)
    for name in filter(None, names):
        yield partial(find_weights, name)


def _helpers(section: MethodSection) -> Iterator[Callable[[], object]]:
    if section.needs_saliency and section.saliency.folder is None:
        source = section.saliency
        yield partial(load_detector, source.source, weights=source.weights, device=torch.device("cpu"))
    if "answers" in section.needs and section.vqa.answers_file is None and not section.vqa.is_oracle:
        yield partial(find_weights, section.vqa.model, embedded="vqa")


def _memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system tells
        return None


def _existing(place: Path) -> Path:
    """The place itself, or the nearest folder above it that exists."""
    whole = place.absolute()
    return next(path for path in (whole, *whole.parents) if path.exists())


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
