"""Published numbers by what they are: rows of a results file, summed up over their seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss.engine.compare import summary
from wsss.engine.publish import read_rows
from wsss.report.weak_to_full import with_weak_to_full


@dataclass(frozen=True)
class Cell:
    """What a table asks for: a stage's metric at a background score.

    Args:
        stage: maps, refined-<name>, pseudo_masks or segmentation.
        source: who chose the background score; empty: whoever did, for masks that have only one.
        metric: miou, iou:<class>, weak_to_full and so on.
    """

    stage: str
    source: str = ""
    metric: str = "miou"


@dataclass(frozen=True)
class Results:
    """A results file.

    Args:
        rows: its rows, all values as text.
    """

    rows: tuple[Mapping[str, str], ...]

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read `results/<data set>.csv` with the weak-to-full ratios that follow from it.

        A missing file has no rows.

        Raises:
            DataError: the file has other columns.
        """
        return cls(with_weak_to_full(read_rows(path)))

    @classmethod
    def of_comparison(cls, comparison: Mapping[str, Any]) -> Results:
        """The rows of `wsss.engine.compare.Comparison.to_dict()`, one per seed, with all digits."""
        names = ("recipe", "method", "supervision", "stage", "split", "metric", "background_score_source")
        return cls(
            tuple(
                {**{name: str(row[name]) for name in names}, "seed": str(seed), "value": repr(float(value))}
                for row in comparison["rows"]
                for seed, value in row["by_seed"].items()
            )
        )

    @property
    def recipes(self) -> tuple[str, ...]:
        """Names of the recipes, in the order of the file."""
        return tuple(dict.fromkeys(row["recipe"] for row in self.rows))

    def recipe_named(self, name: str) -> str | None:
        """The recipe whose last part is `name`."""
        return next((recipe for recipe in self.recipes if recipe.rsplit("/", 1)[-1] == name), None)

    def seeds(self, recipe: str, cell: Cell) -> str:
        """How many seeds have a value."""
        return str(len(self.by_seed(recipe, cell)))

    def by_seed(self, recipe: str, cell: Cell) -> dict[int, float]:
        """The value of each seed, in percent."""
        return {int(row["seed"]): float(row["value"]) for row in self._matching(recipe, cell)}

    def mean(self, recipe: str, cell: Cell) -> float | None:
        """The mean over seeds, in percent."""
        values = self.by_seed(recipe, cell)
        return summary(list(values.values()))[0] if values else None

    def text(self, recipe: str, cell: Cell) -> str:
        """Mean ± standard deviation over seeds; a dash where there is none."""
        return spread(list(self.by_seed(recipe, cell).values()))

    def gain(self, recipe: str, over: str, cell: Cell) -> str:
        """Mean ± standard deviation of the differences between two recipes, seed by seed."""
        return self.gain_of(self.by_seed(recipe, cell), self.by_seed(over, cell))

    def gain_of(self, ours: Mapping[int, float], theirs: Mapping[int, float]) -> str:
        """Mean ± standard deviation of the differences between two numbers, seed by seed."""
        seeds = sorted(set(ours) & set(theirs))
        return spread([ours[seed] - theirs[seed] for seed in seeds], signed=True)

    def paper_value(self, recipe: str, cell: Cell) -> str:
        """The paper's number, or a dash."""
        values = dict.fromkeys(row.get("paper_value", "") for row in self._matching(recipe, cell))
        return next((value for value in values if value), "–")

    def metrics(self, prefix: str, cell: Cell) -> tuple[str, ...]:
        """What stands behind `prefix` in the metrics of a stage: classes, pairs, subsets."""
        found = (
            row["metric"].removeprefix(prefix)
            for row in self.rows
            if row["metric"].startswith(prefix) and _fits(row, cell)
        )
        return tuple(dict.fromkeys(found))

    def _matching(self, recipe: str, cell: Cell) -> list[Mapping[str, str]]:
        wanted = (recipe, cell.metric)
        return [row for row in self.rows if (row["recipe"], row["metric"]) == wanted and _fits(row, cell)]


def spread(values: Sequence[float], *, signed: bool = False) -> str:
    """Mean ± standard deviation (n - 1) of some values; a dash for none.

    Example:
        >>> spread([1.0, 2.0, 3.0])
        '2.0 ± 1.0'
    """
    if not values:
        return "–"
    mean, deviation, _ = summary(values)
    number = (f"{mean:+.1f}" if signed else f"{mean:.1f}").replace("-", "−")
    return number if deviation is None else f"{number} ± {deviation:.1f}"


def _fits(row: Mapping[str, str], cell: Cell) -> bool:
    return row["stage"] == cell.stage and cell.source in ("", row["background_score_source"])
