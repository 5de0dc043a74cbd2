"""`wsss doctor`: what is wrong with data, recipe or machine, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsss.cli.display import StageDisplay, console, write_json
from wsss.cli.options import AsJson

if TYPE_CHECKING:
    from wsss.doctor.doctor import Diagnosis
    from wsss.doctor.findings import Finding

COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("doctor")(doctor)


def doctor(
    target: Annotated[
        str | None,
        typer.Argument(help="Folder of images and tags, VOC tree, or recipe; none: this machine alone."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Method to propose for: smvwe (default), cam, clims or qa_clims.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the proposed classes.yaml and recipe.yaml into this folder.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of `--out`.")] = False,
    estimate: Annotated[bool, typer.Option(help="Estimate time, memory and disk of a run.")] = True,
    as_json: AsJson = False,
) -> None:
    """Check data, recipe and machine, propose classes and a recipe; exit status 2 where there are errors."""
    from wsss.doctor.doctor import diagnose

    with StageDisplay() as display:
        found = diagnose(
            target,
            method=method,
            out=out,
            with_estimate=estimate,
            progress=None if target is None else display.started("Check the images"),
        )
    if not as_json:
        print_findings(found.findings)
    written = _write(found, out, overwrite=overwrite)
    if as_json:
        document: dict[str, Any] = {**found.as_dict(), "written": [str(path) for path in written]}
        write_json(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        _print_numbers(found, written)
    if found.errors:
        raise typer.Exit(2)


def print_findings(findings: tuple[Finding, ...]) -> None:
    """What was found, where, and what to do."""
    for finding in findings:
        where = f"\n    {finding.place}" if finding.where else ""
        count = f" ({finding.count:,})" if finding.count > 1 else ""
        console.print(
            f"[{COLOURS[finding.level]}]{finding.level}[/] {finding.code}{count}: ",
            end="",
            highlight=False,
        )
        console.print(
            f"{finding.what}{where}\n    → {finding.advice}", highlight=False, markup=False, soft_wrap=True
        )


def _write(found: Diagnosis, out: Path | None, *, overwrite: bool) -> tuple[Path, ...]:
    from wsss.doctor.proposals import write_proposal

    if out is None or found.proposal is None or any(e.code == "unwritable-folder" for e in found.errors):
        return ()
    return write_proposal(found.proposal, out, overwrite=overwrite)


def _print_numbers(found: Diagnosis, written: tuple[Path, ...]) -> None:
    from wsss.cli.tables import print_estimate

    facts, machine = found.facts, found.machine
    if facts:
        classes = ", ".join(f"{name} {count:,}" for name, count in facts["images_of_class"].items())
        _say(
            f"{facts['images']:,} images, {facts['tagged']:,} of them tagged, {facts['masks']:,} with masks. "
            f"Images of each class: {classes or 'unknown'}."
        )
    memory = "" if machine.memory_bytes is None else f", {machine.memory_bytes / 1e9:.0f} GB of memory"
    _say(f"Device: {machine.hardware}{memory}, {machine.free_disk_bytes / 1e9:.0f} GB of free disk.")
    if found.estimate is not None:
        print_estimate(found.estimate)
    for path in written:
        _say(f"Proposed: {path}. Look through it before you run it.")
    errors = len(found.errors)
    others = len(found.findings) - errors
    _say(
        f"{errors} error{'s' * (errors != 1)}, {others} other finding{'s' * (others != 1)} in {found.target}."
        if found.findings
        else f"Nothing is wrong with {found.target}."
    )


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
