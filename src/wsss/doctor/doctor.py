"""`diagnose`: everything that can be checked before anything runs, and a proposal for what to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from wsss.doctor.class_checks import advise_other_tools, check_classes
from wsss.doctor.findings import Finding, in_order
from wsss.doctor.image_checks import ImageFacts, check_images
from wsss.doctor.inputs import Inputs, find_inputs
from wsss.doctor.machine_checks import (
    Machine,
    check_fit,
    check_needs,
    check_out,
    check_weights,
    look_at_machine,
)
from wsss.doctor.mask_checks import check_masks
from wsss.doctor.proposals import Proposal, check_language, propose
from wsss.doctor.survey import Survey, survey
from wsss.doctor.tag_checks import check_tags
from wsss.engine.estimate import Estimate
from wsss.engine.folder_recipe import DEFAULT_METHOD, METHODS, check_method
from wsss.engine.recipe import Recipe
from wsss.training.journal import Progress


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Args:
        target: what was looked at, for people.
        method: the method that the proposal, or the recipe, is for.
        findings: errors first.
        facts: counts of images, tags, classes and masks.
        machine: what a run can use.
        estimate: what a run will take; None where it was not asked for or can't be told.
        proposal: classes and a recipe; None where too little is known.
    """

    target: str
    method: str
    findings: tuple[Finding, ...]
    facts: dict[str, Any]
    machine: Machine
    estimate: Estimate | None
    proposal: Proposal | None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that a run would stop at."""
        return tuple(finding for finding in self.findings if finding.level == "error")

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        needs = self.estimate
        return {
            "target": self.target,
            "method": self.method,
            "ok": not self.errors,
            "findings": [finding.as_dict() for finding in self.findings],
            "facts": self.facts,
            "machine": self.machine.as_dict(),
            "estimate": None
            if needs is None
            else {
                "seconds": needs.seconds,
                "memory_bytes": needs.memory_bytes,
                "disk_bytes": needs.disk_bytes,
                "stages": {stage.title: stage.seconds for stage in needs.stages},
            },
            "proposal": None if self.proposal is None else self.proposal.as_dict(),
        }


def diagnose(
    target: str | Path | Inputs | None = None,
    *,
    method: str | None = None,
    out: Path | None = None,
    quick: bool = False,
    with_estimate: bool = True,
    progress: Progress | None = None,
) -> Diagnosis:
    """Check data, recipe and machine; reads everything, writes nothing.

    Args:
        target: a data folder, a recipe (file or shipped name), or files one by one; None: the machine alone.
        method: what the proposal is for; None: the recipe's method, else the default.
        out: where results will be written.
        quick: decode some of the images only, and propose nothing to estimate.
        with_estimate: build each network and time a step of it, which takes a minute at most.
        progress: told of images read.

    Raises:
        DataError: there is nothing at `target`.
        RecipeError: the recipe is wrong, or the method has no template.
    """
    chosen = DEFAULT_METHOD if method is None else check_method(method)
    place = out or Path()
    findings = check_out(place)
    if target is None:
        return Diagnosis("this machine", chosen, tuple(findings), {}, look_at_machine(place), None, None)
    inputs = target if isinstance(target, Inputs) else find_inputs(target)
    if method is None and inputs.recipe is not None and inputs.recipe.method is not None:
        chosen = inputs.recipe.method_name
    found, seen = survey(inputs)
    findings += seen
    facts, looked = _look(found, quick, progress)
    masks, of_masks = check_masks(found, facts, quick=quick)
    findings += [*looked, *check_tags(found), *check_classes(found), *of_masks]
    findings += advise_other_tools(found, masks)
    proposal = _proposal(found, chosen, facts, masks)
    if proposal is not None and inputs.recipe is None:
        findings += check_language(proposal, chosen)
    recipe = inputs.recipe or (proposal.parsed() if proposal else None)
    machine = look_at_machine(place)
    needs, of_run = _of_run(
        recipe,
        findings,
        machine,
        is_given=inputs.recipe is not None,
        with_estimate=with_estimate and not quick,
    )
    findings += of_run
    shown = "the given files" if isinstance(target, Inputs) else str(target)
    numbers = _facts(found, facts, masks)
    return Diagnosis(shown, chosen, in_order(findings), numbers, machine, needs, proposal)


def _look(
    found: Survey, quick: bool, progress: Progress | None
) -> tuple[dict[str, ImageFacts], list[Finding]]:
    if found.images is None:
        return {}, []
    return check_images(found.images, max_pixels=found.inputs.max_pixels, quick=quick, progress=progress)


def _proposal(found: Survey, method: str, facts: dict[str, ImageFacts], masks: int) -> Proposal | None:
    if method not in METHODS:
        return None
    return propose(found, method, _sizes(facts), masks)


def _sizes(facts: dict[str, ImageFacts]) -> tuple[tuple[int, int], ...]:
    return tuple(found.size for found in facts.values() if found.size is not None)


def _of_run(
    recipe: Recipe | None,
    findings: list[Finding],
    machine: Machine,
    *,
    is_given: bool,
    with_estimate: bool,
) -> tuple[Estimate | None, list[Finding]]:
    """Weights, whether a given recipe fits its data, and what the run takes where nothing is in its way."""
    if recipe is None:
        return None, []
    missing = check_weights(recipe)
    if any(finding.level == "error" for finding in findings):
        return None, missing
    if missing or not with_estimate:  # a proposal's classes are in no file yet, so its data can't be opened
        return None, missing + (check_fit(recipe) if is_given else [])
    return check_needs(recipe, machine)


def _facts(found: Survey, facts: dict[str, ImageFacts], masks: int) -> dict[str, Any]:
    """Numbers for people."""
    sizes = _sizes(facts)
    return {
        "images": len(facts),
        "tagged": len(found.labels),
        "without_class": sum(not names for names in found.labels.values()),
        "with_scene_words": sum(bool(words) for words in found.scenes.values()),
        "masks": masks,
        "median_height": median(height for height, _ in sizes) if sizes else None,
        "median_width": median(width for _, width in sizes) if sizes else None,
        "images_of_class": {name: len(ids) for name, ids in found.images_of().items()},
    }
