"""The page in words and key numbers: headline, what was run, who made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml

from wsss.report.chosen_score import background_choice
from wsss.report.figures import difference_class, signed
from wsss.report.markup import Html, details, element, table, together
from wsss.report.passports import short_weights, stage_title
from wsss.report.runs import OWN, RecipeRuns, Reported, ReportedRun
from wsss.training.journal import duration

HOW_TO_READ: Final = (
    "Scores are mIoU in per cent: the overlap of found and true pixels, averaged over the classes; 100 is "
    "perfect. Unless a row says fully supervised, training saw only which classes each image shows; the true "
    "masks served for scoring alone."
)

HOW_TO_READ_PICTURES: Final = (
    "Training saw only which classes each image shows. Nothing could be scored without true masks, so look "
    "at the images: a good mask covers the whole object and nothing of its surroundings."
)

NAMED_IN_HEADING: Final = 3

SUPERVISION: Final = (
    "Supervision: I image tags, I+L image tags and a language teacher, I+S image tags and saliency maps, "
    "F true masks."
)

_PREFERRED: Final = ("oracle", "automatic", "fixed", "none", OWN)
"""Maps are spoken of at their best, so that the choice of a score does not blur what the methods find."""


def heading(reported: Reported) -> str:
    """The recipes and the data set."""
    labels = [entry.label for entry in reported.entries]
    if len(labels) > NAMED_IN_HEADING:
        return f"{len(labels)} recipes on {reported.data['name']}"
    names = labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
    return f"{names[:1].upper()}{names[1:]} on {reported.data['name']}"


def how_to_read(reported: Reported) -> str:
    """What a newcomer must know to read the page."""
    return HOW_TO_READ if reported.score_stages else HOW_TO_READ_PICTURES


def kicker(reported: Reported) -> str:
    """Data set, classes and seeds in one line."""
    seeds = sorted({run.seed for entry in reported.entries for run in entry.runs})
    word = "seed" if len(seeds) == 1 else "seeds"
    shown = ", ".join(str(seed) for seed in seeds)
    return f"{reported.data['name']} · {len(reported.class_names) - 1} classes · {word} {shown}"


def lead(reported: Reported) -> Html:
    """The headline sentence."""
    if not reported.score_stages:
        return together(["No true masks were scored; this page shows what the runs found."])
    stage = reported.score_stages[0]
    source = preferred_source(reported, stage)
    pair = reported.baseline_and_last
    where = f"the {stage_title(stage).lower()} on {reported.split(stage)}"
    if pair is None:
        return _lead_of_one(reported, (reported.weak or reported.entries)[-1])
    first, last = pair
    before, after = (reported.numbers.mean(entry, stage, "miou", source) for entry in pair)
    gain = reported.numbers.gain(first, last, stage, source)
    if before is None or after is None or gain is None:
        return _lead_of_one(reported, last)
    change = element("b", signed(gain["mean"]), " points", class_=difference_class(gain["mean"]))
    sentence = (
        f"For {where}, {last.label} reaches {after:.1f} mIoU where {first.label} reaches {before:.1f}: "
    )
    seeds = {run.seed for entry in pair for run in entry.runs}
    return together([sentence, change, ". ", element("small", _certainty(gain, source, seeds))])


def _certainty(gain: Mapping[str, Any], source: str, all_seeds: set[int]) -> Html:
    """How sure a gain is: over seeds and over images."""
    seeds = sorted(int(seed) for seed in gain["by_seed"])
    parts: list[object] = []
    if source not in ("none", OWN):
        parts.append(f"Each at its {source} background score. ")
    if set(seeds) != all_seeds:
        shown = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
        parts.append(f"The difference is that of {shown}, which both have. ")
    if gain["standard_error"] is None:
        parts.append("One seed. ")
    else:
        parts.append(f"Mean of {len(seeds)} seeds, standard error {gain['standard_error']:.1f}. ")
    if gain["interval"] is not None:
        low, high = gain["interval"]
        parts += ["95% of the resampled sets of images give ", signed(low), " to ", signed(high), "."]
    return together(parts)


def preferred_source(reported: Reported, stage: str) -> str:
    """The background score whose number stands for a stage."""
    sources = reported.sources(stage)
    return next(source for source in _PREFERRED if source in sources)


def _lead_of_one(reported: Reported, entry: RecipeRuns) -> Html:
    found = []
    for stage in reported.score_stages:
        value = reported.numbers.mean(entry, stage, "miou", preferred_source(reported, stage))
        if value is not None:
            found.append(f"{stage_title(stage).lower()} {value:.1f}")
    if not found:
        return together(["No score could be taken from these runs."])
    seen = "true masks" if entry.is_supervised else "image tags alone"
    label = f"{entry.label[:1].upper()}{entry.label[1:]}"
    return together([f"{label}, trained from {seen}, in mIoU: ", element("b", ", ".join(found)), "."])


def key_numbers(reported: Reported) -> Html | None:
    """A few large numbers: each stage's mIoU, and weak over full."""
    weak = reported.weak
    shown = weak[-1] if weak else reported.entries[-1]
    stages = [
        stage for stage in reported.score_stages if stage != "words" and not stage.startswith("refined-")
    ]
    tiles = [_stage_tile(reported, stage, shown) for stage in stages]
    ratio = next(
        (row for (recipe, _, metric, _), row in reported.numbers.rows.items()
         if metric == "weak_to_full" and recipe == shown.recipe_name), None,
    )  # fmt: skip
    if ratio is not None:
        tiles.append(_tile("Weak ÷ full", f"{ratio['mean'] / 100:.2f}", "of what true masks reach"))
    tiles.append(_tile("Time", duration(sum(_seconds(reported).values())), "all stages and seeds together"))
    found = [tile for tile in tiles if tile is not None]
    return element("dl", *found, class_="numbers")


def _stage_tile(reported: Reported, stage: str, entry: RecipeRuns) -> Html | None:
    source = preferred_source(reported, stage)
    row = reported.numbers.row(entry, stage, "miou", source)
    if row is None:
        return None
    pair = reported.baseline_and_last
    below: object = entry.label
    if pair is not None and entry is pair[1]:
        before = reported.numbers.mean(pair[0], stage, "miou", source)
        gain = reported.numbers.gain(pair[0], entry, stage, source)
        if before is not None and gain is not None:
            below = together([f"{pair[0].label} {before:.1f}, ", _change(gain["mean"])])
    spread = row["standard_deviation"]
    number = together(
        [f"{row['mean']:.1f}", None if spread is None else element("small", f" ± {spread:.1f}")]
    )
    level = "" if source in ("none", OWN) else f" · {source}"
    return _tile(f"{stage_title(stage)}{level}", number, below)


def _change(value: float) -> Html:
    return element("b", signed(value), class_=difference_class(value))


def _tile(name: object, number: object, below: object) -> Html:
    return element("div", element("dt", name), element("dd", number, class_="large"), element("dd", below))


def _seconds(reported: Reported) -> dict[str, float]:
    """Time of each stage folder, shared ones once."""
    return {
        str(stage.folder): stage.seconds
        for entry in reported.entries
        for run in entry.runs
        for stage in run.stages
    }


def what_was_run(reported: Reported) -> Html:
    """Recipes, data, seeds, commit, hardware, minutes; each recipe and its stages to unfold."""
    head = (
        "recipe",
        "what",
        "supervision",
        "seeds",
        "background score",
        "weights",
        "minutes",
        "hardware",
        "commit",
    )
    rows = [_run_row(entry) for entry in reported.entries]
    return together(
        [
            element("p", _data_sentence(reported)),
            table(head, rows, class_="runs"),
            element("p", SUPERVISION, class_="note"),
            *(_recipe_details(entry) for entry in reported.entries),
        ]
    )


def _data_sentence(reported: Reported) -> str:
    data = reported.data
    counts = {
        reported.split(stage): stage_folder.scores["images"]
        for stage in reported.score_stages
        for entry in reported.entries
        if (stage_folder := entry.first.scored(stage)) and stage_folder.scores
    }
    scored = "; ".join(
        f"{count:,} images of `{split}` scored".replace("`", "") for split, count in counts.items()
    )
    classes = ", ".join(reported.class_names[1:])
    ending = f" {scored[:1].upper()}{scored[1:]}." if scored else ""
    return (
        f"Data: {data['name']} ({data.get('data_version', '')}), trained on {data['train_split']}, "
        f"tested on {data['val_split']}. Classes: {classes}.{ending}"
    )


def _run_row(entry: RecipeRuns) -> list[object]:
    run = entry.first
    record = run.record
    about = record["recipe"].get("about") or {}
    minutes = [sum(stage.seconds for stage in item.stages) / 60 for item in entry.runs]
    weights = " ".join(f"{name}:{digest}" for name, digest in sorted(record["weights"].items()))
    return [
        entry.recipe_name,
        about.get("title") or entry.label,
        record["supervision"],
        ", ".join(str(item.seed) for item in entry.runs),
        background_choice(entry),
        short_weights(weights),
        f"{sum(minutes) / len(minutes):.1f}" + (" per seed" if len(minutes) > 1 else ""),
        record["hardware"],
        record["commit"],
    ]


def _recipe_details(entry: RecipeRuns) -> Html:
    run = entry.first
    rows = [[stage.title, duration(stage.seconds), stage.folder.name] for stage in run.stages]
    return details(
        f"{entry.recipe_name}: stages and complete recipe",
        _about(run),
        table(("stage", "time", "folder"), rows, class_="fine"),
        element(
            "pre",
            yaml.safe_dump(_without_about(run.record["recipe"]), sort_keys=False, allow_unicode=True),
            tabindex="0",
        ),
    )


def _about(run: ReportedRun) -> Html | None:
    about: Mapping[str, Any] = run.record["recipe"].get("about") or {}
    lines = [(key, about[key]) for key in ("paper", "command", "expected", "notes") if about.get(key)]
    if not lines:
        return None
    return element(
        "dl",
        *(together([element("dt", key), element("dd", _plain(value))]) for key, value in lines),
        class_="about",
    )


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list):  # mean and standard deviation
        return " ± ".join(_plain(inner) for inner in value)
    return str(value)


def _without_about(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key != "about"}


def colophon(reported: Reported) -> str:
    """Which program made what the page shows."""
    records = [run.record for entry in reported.entries for run in entry.runs]
    versions, commits = (sorted({str(record[key]) for record in records}) for key in ("version", "commit"))
    days = sorted({str(record["started"])[:10] for record in records})
    word = "commit" if len(commits) == 1 else "commits"
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    return f"wsss {', '.join(versions)}, {word} {', '.join(commits)}, run {when}."
