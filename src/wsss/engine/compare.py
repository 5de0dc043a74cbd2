"""Compare recipes over seeds: mean, spread, and whether a gain counts.

A gain counts when it is positive on every seed and its mean is over twice its standard error. Runs that were
not measured alike are compared only on request, and the comparison says how they differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from wsss.engine.measurements import FinishedRun, finished_run, with_weak_to_full
from wsss.engine.passport import Passport, passports_of
from wsss.engine.protocol import check_planned, check_same_protocol
from wsss.engine.recipe import Recipe, load_recipe
from wsss.engine.run import run, run_folder
from wsss.engine.stages import Listener
from wsss.errors import RecipeError
from wsss.metrics.intervals import paired_bootstrap
from wsss.metrics.per_image import load_per_image

Key = tuple[str, str, str, str]
"""stage, split, metric, background_score_source."""


@dataclass(frozen=True)
class Row:
    """One number of one recipe over its seeds, in percent.

    Args:
        by_seed: the value of each seed.
        mean: over seeds.
        standard_deviation: over seeds (n - 1); None for one seed.
        standard_error: standard deviation / sqrt(n); None for one seed.
    """

    recipe: str
    method: str
    supervision: str
    stage: str
    split: str
    metric: str
    background_score_source: str
    by_seed: Mapping[int, float]
    mean: float
    standard_deviation: float | None
    standard_error: float | None


@dataclass(frozen=True)
class Gain:
    """mIoU of a recipe minus that of the first recipe, seed by seed, in points.

    Args:
        interval: 95% of paired bootstrap resamples of the images (mIoU averaged over seeds) lie inside.
        counts: positive on every seed and mean over twice the standard error; None for one seed.
    """

    recipe: str
    over: str
    stage: str
    split: str
    background_score_source: str
    by_seed: Mapping[int, float]
    mean: float
    standard_error: float | None
    interval: tuple[float, float] | None
    counts: bool | None


@dataclass(frozen=True)
class Comparison:
    """All numbers of several recipes, and the gains over the first.

    Args:
        rows: one per recipe, stage, split, metric and background score.
        gains: one per recipe but the first, stage and background score.
        run_folders: what was compared.
        passports: what stands behind the numbers: one per run, stage and background score.
        mixed: differences in protocol that were put up with, in words; empty: all were measured alike.
    """

    rows: tuple[Row, ...]
    gains: tuple[Gain, ...]
    run_folders: tuple[Path, ...]
    passports: tuple[Passport, ...]
    mixed: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "gains": [asdict(gain) for gain in self.gains],
            "runs": [path.as_posix() for path in self.run_folders],
            "passports": [passport.to_dict() for passport in self.passports],
            "mixed": list(self.mixed),
        }

    def __repr__(self) -> str:
        recipes = list(dict.fromkeys(row.recipe for row in self.rows))
        parts = [f"{len(recipes)} recipes, {len(self.run_folders)} runs"]
        for stage, source in dict.fromkeys((r.stage, r.background_score_source) for r in self._miou()):
            if source not in ("fixed", "oracle"):  # the table has them all
                found = [r for r in self._miou() if (r.stage, r.background_score_source) == (stage, source)]
                parts.append(f"{stage}: " + ", ".join(f"{row.recipe} {_with_spread(row)}" for row in found))
        return f"Comparison({'; mIoU % of '.join(parts)})"

    def _repr_html_(self) -> str:
        """What notebooks show: mIoU of each recipe, stage and background score."""
        titles = ("recipe", "stage", "background score", "mIoU %", "seeds")
        head = "".join(f"<th>{title}</th>" for title in titles)
        body = ""
        for row in self._miou():
            cells = (row.recipe, row.stage, row.background_score_source, _with_spread(row), len(row.by_seed))
            body += "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>"
        return f"<table><tr>{head}</tr>{body}</table>"

    def _miou(self) -> list[Row]:
        return [row for row in self.rows if row.metric == "miou"]


def compare(
    recipes_or_runs: Sequence[str | Path],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    runs: Path | str = "runs",
    overrides: Sequence[str] = (),
    mix_protocols: bool = False,
    progress: Listener | None = None,
) -> Comparison:
    """Run what is unfinished, then compare.

    Args:
        recipes_or_runs: recipes (run with all `seeds`) and run folders (taken as they are); the first is what
            the others are compared with.
        seeds: training seeds of the recipes.
        runs: where results are kept.
        overrides: applied to every recipe.
        mix_protocols: compare runs of other splits or ways of testing all the same.
        progress: follows the stages.

    Raises:
        RecipeError: the runs were not measured alike, or two recipes have the same name.
    """
    wanted: list[Path | Recipe] = []
    named: dict[str, str | Path] = {}
    for item in recipes_or_runs:
        if (Path(item) / "run.json").is_file():
            wanted.append(Path(item))
            continue
        recipe = load_recipe(item, overrides)
        if recipe.name in named:
            raise RecipeError(
                f"{named[recipe.name]} and {item} are both called {recipe.name}, so their runs would share "
                "a folder. Rename one of the files."
            )
        named[recipe.name] = item
        wanted.append(recipe)
    if not mix_protocols:
        check_planned([item for item in wanted if isinstance(item, Recipe)])
    folders: list[Path] = []
    for each in wanted:
        if isinstance(each, Path):
            folders.append(each)
            continue
        for seed in seeds:
            run(each, seed=seed, runs=runs, progress=progress)
            folders.append(run_folder(each, seed, Path(runs)))
    return compare_runs(folders, mix_protocols=mix_protocols)


def compare_runs(folders: Sequence[Path | str], *, mix_protocols: bool = False) -> Comparison:
    """Compare finished runs; those of one recipe are its seeds.

    Args:
        folders: run folders; the first recipe is what the others are compared with.
        mix_protocols: compare runs of other splits or ways of testing all the same.

    Raises:
        StageError: a folder holds no finished run.
        RecipeError: the runs were not measured alike.
    """
    finished = with_weak_to_full([finished_run(folder) for folder in dict.fromkeys(folders)])
    if not finished:
        raise RecipeError("There is nothing to compare. Name recipes or run folders.")
    mixed = check_same_protocol(finished, mix_protocols=mix_protocols)
    by_recipe: dict[str, list[FinishedRun]] = {}
    for item in finished:
        by_recipe.setdefault(item.recipe_name, []).append(item)
    rows = tuple(row for group in by_recipe.values() for row in _rows(group))
    baseline, *others = by_recipe.values()
    gains = tuple(gain for group in others for gain in _gains(baseline, group))
    passports = tuple(passport for item in finished for passport in passports_of(item))
    return Comparison(rows, gains, tuple(item.folder for item in finished), passports, mixed)


def _with_spread(row: Row) -> str:
    """Mean and, over several seeds, standard deviation."""
    spread = "" if row.standard_deviation is None else f" ± {row.standard_deviation:.1f}"
    return f"{row.mean:.1f}{spread}"


def summary(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean, standard deviation (n - 1) and standard error; the last two None for one value.

    Example:
        >>> summary([1.0, 2.0, 3.0])[:2]
        (2.0, 1.0)
    """
    if len(values) < 2:
        return fmean(values), None, None
    spread = stdev(values)
    return fmean(values), spread, spread / math.sqrt(len(values))


def gain_counts(by_seed: Sequence[float]) -> bool | None:
    """Whether a gain is positive on every seed and its mean over twice its standard error."""
    mean, _, standard_error = summary(by_seed)
    if standard_error is None:
        return None
    return min(by_seed) > 0 and mean > 2 * standard_error


def _rows(group: Sequence[FinishedRun]) -> list[Row]:
    values: dict[Key, dict[int, float]] = {}
    for item in group:
        for m in item.measurements:
            key = (m.stage, m.split, m.metric, m.background_score_source)
            values.setdefault(key, {})[item.seed] = m.value
    first = group[0]
    supervision = str(first.record["supervision"])
    return [
        Row(first.recipe_name, first.method, supervision, *key, by_seed, *summary(list(by_seed.values())))
        for key, by_seed in values.items()
    ]


def _gains(baseline: Sequence[FinishedRun], group: Sequence[FinishedRun]) -> list[Gain]:
    base = {(r.stage, r.split, r.background_score_source): r for r in _rows(baseline) if r.metric == "miou"}
    gains = []
    for row in _rows(group):
        other = base.get((row.stage, row.split, row.background_score_source))
        if row.metric != "miou" or other is None:
            continue
        seeds = sorted(set(row.by_seed) & set(other.by_seed))
        if not seeds:
            continue
        by_seed = {seed: row.by_seed[seed] - other.by_seed[seed] for seed in seeds}
        mean, _, standard_error = summary(list(by_seed.values()))
        gains.append(
            Gain(
                row.recipe,
                other.recipe,
                row.stage,
                row.split,
                row.background_score_source,
                by_seed,
                mean,
                standard_error,
                _interval(baseline, group, row, seeds),
                gain_counts(list(by_seed.values())),
            )
        )
    return gains


def _interval(
    baseline: Sequence[FinishedRun], group: Sequence[FinishedRun], row: Row, seeds: Sequence[int]
) -> tuple[float, float] | None:
    """95% of paired bootstrap resamples of the images, mIoU averaged over the shared seeds; in points.

    None where the images are not the same on both sides: protocols were mixed.
    """
    sides = []
    for runs in (baseline, group):
        files = [item.per_image(row.stage) for item in runs if item.seed in seeds]
        if not all(path is not None and path.is_file() for path in files):
            return None
        sides.append(
            [load_per_image(path)[row.background_score_source] for path in files if path is not None]
        )
    if len({frozenset(counts.ids) for side in sides for counts in side}) > 1:
        return None
    found = paired_bootstrap(sides[0], sides[1])
    return 100 * found.low, 100 * found.high
