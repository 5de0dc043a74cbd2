"""Tables and figures of the papers: which recipes stand for them, what the papers say, and how to make them.

The list itself is data (`papers.yaml`). Here it is read and checked, and the recipes of an exhibit are run as
far as they are unfinished. Numbers are laid out in `wsss.report.paper_tables`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Final, Literal, TypeAlias

import yaml
from pydantic import ConfigDict, TypeAdapter

from wsss.activation.feature_points import POINTS, PointCosines, first_with, point_cosines
from wsss.checks import nearest
from wsss.data.dataset import WithoutMasks
from wsss.engine import provenance
from wsss.engine.compare import Comparison, compare
from wsss.engine.fingerprint import fingerprint
from wsss.engine.method_work import build_method
from wsss.engine.plan import plan
from wsss.engine.recipe import Recipe, load_recipe
from wsss.engine.stages import Listener, Silence, Stage, Workspace, stage_record
from wsss.errors import RecipeError, StageError
from wsss.methods.base import Frozen
from wsss.training.checkpoint import load_state, write_atomically

POINTS_FILE: Final = "points.json"
POINTS_VERSION: Final = 1  # raised by hand when points are drawn or compared in another way

Kind: TypeAlias = Literal["table", "classes", "curves", "pictures", "points"]

NO_BASE: Final = "none"
"""What `base` says of a row that is compared with no other."""

_STRICT: Final = ConfigDict(extra="forbid")  # a misspelt field of papers.yaml is an error


@dataclass(frozen=True)
class Column:
    """One number of each row.

    Args:
        title: heading.
        stage: scored stage, or `points` for features at points.
        source: who chose the background score; empty: whoever did.
        metrics: names of metrics; of several, the mean.
        recipe: the recipe that has the number; `{}` stands for the row's.
        needs: recipes that must be run as well, because the number is a ratio to theirs.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    title: str
    stage: str
    source: str = ""
    metrics: tuple[str, ...] = ("miou",)
    recipe: str = "{}"
    needs: tuple[str, ...] = ()

    def recipe_of(self, row: Row) -> str:
        """The recipe with this number of `row`."""
        return self.recipe.format(row.recipe)

    def stage_of(self, row: Row) -> str:
        """The stage that `row` shows here."""
        return row.stage or self.stage

    def source_of(self, row: Row) -> str:
        """Who chose the background score of `row`; empty: whoever did."""
        return row.source or self.source


@dataclass(frozen=True)
class Row:
    """One recipe of an exhibit.

    Args:
        recipe: its name.
        label: what it stands for.
        paper: the paper's own numbers, by column title, or by class where lines are classes.
        stage: the stage that it shows in place of the columns'; empty: theirs.
        source: who chose its background score, in place of the columns'; empty: theirs.
        base: labels or recipes of the rows that its numbers are compared with; empty: the row before that has
            a number of the paper; `NO_BASE`: none.
        paper_by: what the paper's numbers were made with, for all columns or by column; differences of rows
            that are unlike in it are not judged.
        picture: which pictures show it (`maps` or `refined`).
        series: the curve that it belongs to.
        x: its place on that curve; None: the setting is off.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    recipe: str
    label: str
    paper: Mapping[str, float] = field(default_factory=dict)
    stage: str = ""
    source: str = ""
    base: str | tuple[str, ...] = ()
    paper_by: str | Mapping[str, str] = ""
    picture: Literal["maps", "refined"] = "maps"
    series: str = ""
    x: float | None = None

    @property
    def base_names(self) -> tuple[str, ...]:
        """Labels or recipes of the rows that it is compared with, as far as they are named."""
        return (self.base,) if isinstance(self.base, str) else self.base

    def made_by(self, title: str) -> str:
        """What the paper's number in this column was made with; empty: as all others."""
        return self.paper_by if isinstance(self.paper_by, str) else self.paper_by.get(title, "")

    def is_called(self, name: str) -> bool:
        """Whether `name` is its label or its recipe."""
        return name in (self.label, self.recipe)


@dataclass(frozen=True)
class Exhibit:
    """A table or figure.

    Args:
        paper: key of the paper, which is its method's name.
        paper_title: the paper, for readers.
        key: such as `table3`.
        title: what it shows.
        says: what the paper finds, in our words.
        where: what the paper's numbers were measured on.
        columns: numbers of each row.
        rows: recipes.
        kind: how it is laid out.
        axis: name of a curve's setting.
        classes: whose points are shown, one image each.
        number: the exhibit's name in the paper; empty: from the key.
        is_apart: it is on other data than the paper's other exhibits, so it must be asked for by its name.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    paper: str
    paper_title: str
    key: str
    title: str
    says: str
    where: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    kind: Kind = "table"
    axis: str = ""
    classes: tuple[str, ...] = ()
    number: str = ""
    is_apart: bool = False

    def __post_init__(self) -> None:
        labels = [row.label for row in self.rows]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise RecipeError(f"Rows of {self.name} must have different labels; got {twice} more than once.")
        for row in self.rows:
            _check_base(self, row)

    @property
    def name(self) -> str:
        """What the command calls it, such as `clims-table3`."""
        return f"{self.paper}-{self.key}"

    @property
    def heading(self) -> str:
        """Such as `Table 3`."""
        kind = self.key.rstrip("0123456789")
        return self.number or f"{kind.capitalize()} {self.key[len(kind) :]}"

    def bases(self, row: Row, title: str) -> tuple[Row, ...]:
        """Rows that the paper's number of `row` in a column is compared with."""
        told = [each for each in self.rows if title in each.paper]
        if row.base_names:
            return tuple(other for name in row.base_names for other in told if other.is_called(name))
        return tuple(told[: told.index(row)][-1:])

    @property
    def recipes(self) -> tuple[str, ...]:
        """All recipes that it needs, those of the rows first."""
        others = [column.recipe_of(row) for column in self.columns for row in self.rows]
        needed = [recipe for column in self.columns for recipe in column.needs]
        found = (*(row.recipe for row in self.rows), *others, *needed)
        return tuple(dict.fromkeys(found))


@functools.cache
def exhibits() -> tuple[Exhibit, ...]:
    """All exhibits, paper by paper."""
    text = files("wsss.engine").joinpath("papers.yaml").read_text(encoding="utf-8")
    return tuple(
        _exhibit(paper, known["title"], key, fields)
        for paper, known in yaml.safe_load(text).items()
        for key, fields in known["exhibits"].items()
    )


def find_exhibits(name: str) -> tuple[Exhibit, ...]:
    """One exhibit by its name (`clims-table3`), or all of a paper (`clims`) that are on the same data.

    Raises:
        RecipeError: there is no such exhibit or paper.
    """
    known = exhibits()
    found = tuple(each for each in known if each.name == name or (each.paper == name and not each.is_apart))
    if not found:
        choices = (*dict.fromkeys(each.paper for each in known), *(each.name for each in known))
        raise RecipeError(f"There is no paper table or figure `{name}`. {nearest(name, choices)}")
    return found


def recipes_of(shown: Sequence[Exhibit]) -> tuple[str, ...]:
    """Recipes of several exhibits, each once; the first is what the others are compared with."""
    return tuple(dict.fromkeys(recipe for each in shown for recipe in each.recipes))


def reproduce(
    shown: Sequence[Exhibit],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    runs: Path | str = "runs",
    progress: Listener | None = None,
) -> tuple[Comparison, tuple[Path, ...]]:
    """Run what is unfinished of some exhibits, and compare features at points where one shows them.

    Args:
        shown: exhibits on the same data.
        seeds: training seeds.
        runs: where results are kept.
        progress: follows the stages.

    Returns:
        The comparison of all runs, and the files of points (`points.json`).

    Raises:
        RecipeError: the exhibits are of different data, or a recipe is not there.
    """
    comparison = compare(recipes_of(shown), seeds=seeds, runs=runs, progress=progress)
    listener = progress or Silence()
    points = [
        measure_points(row.recipe, each.classes, seed=seed, runs=runs, progress=listener)
        for each in shown
        if each.kind == "points"
        for row in each.rows
        for seed in seeds
    ]
    return comparison, tuple(dict.fromkeys(points))


def measure_points(
    recipe_name: str | Path,
    classes: Sequence[str],
    *,
    seed: int = 0,
    runs: Path | str = "runs",
    progress: Listener | None = None,
) -> Path:
    """Compare features at points with the classes' weights, once, beside the run's stages.

    One image is taken of each class: the first training image that shows nothing else. Points are drawn with
    the run's seed.

    Args:
        recipe_name: a recipe whose method is trained already with this seed.
        classes: names of the classes whose images are looked at; those that the data lack are left out.
        seed: of the run.
        runs: where results are kept.
        progress: follows the work.

    Returns:
        `points.json`: recipe, seed, class names, one entry per image, and means over the images.

    Raises:
        StageError: the method is not trained yet.
        RecipeError: the recipe has no method.
    """
    recipe, listener = load_recipe(recipe_name), progress or Silence()
    if recipe.method is None:
        raise RecipeError(f"{recipe.name} trains no method, so it has no features of points. Take another.")
    workspace = Workspace(Path(runs), recipe.data, provenance.default_device(), listener)
    trained = {stage.name: stage for stage in plan(recipe, seed, workspace)}["train-method"]
    if stage_record(workspace.folder(trained)) is None:
        raise StageError(f"{recipe.name} is not trained with seed {seed} yet. Run it first.")
    settings = {"classes": list(classes), "points": POINTS}
    key = fingerprint("feature-points", settings, [trained.fingerprint], seed=seed, version=POINTS_VERSION)
    path = Path(runs) / "stages" / f"feature-points-{key}" / POINTS_FILE
    title = f"Compare features of {recipe.name} with the classes' weights"
    if path.is_file():
        listener.skipped(title)
        return path
    listener.started(title)
    found = _compared_points(recipe, trained, classes, seed=seed, workspace=workspace)
    names = workspace.dataset.class_names
    document = {"recipe": recipe.name, "seed": seed, **_document(found, names)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())
    return path


def _compared_points(
    recipe: Recipe, trained: Stage, classes: Sequence[str], *, seed: int, workspace: Workspace
) -> list[PointCosines]:
    """One image's points for each class that the data have."""
    assert recipe.method is not None
    dataset = workspace.dataset
    method = build_method(recipe.method, WithoutMasks(dataset), Frozen(), seed=0)
    state, _ = load_state(workspace.folder(trained) / "model.safetensors")
    method.load_state_dict(state)
    method.to(workspace.device)
    found = []
    for name in (name for name in classes if name in dataset.class_names):
        class_id = dataset.class_names.index(name)
        image_id = first_with(dataset, recipe.maps_split, class_id)
        if image_id is not None:
            sample = dataset.sample(image_id, with_mask=True)
            found.append(point_cosines(method, sample, class_id, seed=seed))
    return found


def _document(found: Sequence[PointCosines], class_names: Sequence[str]) -> dict[str, Any]:
    measures = ("of_object", "of_other_classes", "of_background")
    images = [
        {
            "image_id": each.image_id,
            "class_name": class_names[each.class_id],
            "points": [list(point) for point in each.points],
            "cosines": [[round(value, 4) for value in row] for row in each.cosines.tolist()],
            **{name: getattr(each, name) for name in measures},
        }
        for each in found
    ]
    means = {name: fmean(getattr(each, name) for each in found) for name in measures} if found else {}
    return {"class_names": list(class_names[1:]), "images": images, "means": means}


def _exhibit(paper: str, paper_title: str, key: str, fields: Mapping[str, Any]) -> Exhibit:
    """One entry of `papers.yaml`; rows of curves come from its series."""
    given = {name: value for name, value in fields.items() if name != "series"}
    if "series" in fields:
        given["rows"] = [asdict(row) for row in _curve_rows(fields["series"])]
    whole = {"paper": paper, "paper_title": paper_title, "key": key, **given}
    return TypeAdapter(Exhibit).validate_python(whole)


def _check_base(exhibit: Exhibit, row: Row) -> None:
    """What a row is compared with must be other rows, each with a number of the paper in a shared column."""
    if not row.base_names or row.base == NO_BASE:
        return
    where = f"`base` of {row.label} in {exhibit.name}"
    if exhibit.kind in ("classes", "curves"):
        raise RecipeError(f"{where} has no meaning: rows of {exhibit.kind} are not compared. Leave it out.")
    others = [other for other in exhibit.rows if other is not row]
    for name in row.base_names:
        found = [other for other in others if other.is_called(name)]
        if len(found) != 1:
            choices = [other.label for other in others]
            raise RecipeError(f"{where} must name one other row; got `{name}`. {nearest(name, choices)}")
        if not set(row.paper) & set(found[0].paper):
            raise RecipeError(f"{where} must be a row with the same numbers of the paper; `{name}` has none.")


def _curve_rows(series: Mapping[str, Mapping[float | str, str]]) -> Iterator[Row]:
    for name, recipes in series.items():
        for x, recipe in recipes.items():
            number = None if x == "off" else float(x)
            yield Row(recipe, f"{name}, {x}", series=name, x=number)
