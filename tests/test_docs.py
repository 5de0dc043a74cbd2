"""README and docs tell the truth: tables, commands, recipes, links, messages and Python blocks."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from docs_walk import PLACES, STEPS
from scene_folder import write_scene_folder
from wsss.report.tables import BLOCK, filled_markdown

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(
    r"(?:<!-- file: (?P<file>[\w./-]+) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE
)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#[\w-]+)?\)")
INLINE = re.compile(r"`(wsss [^`]+)`")


def blocks(page: Path, kind: str) -> list[str]:
    return [
        found["text"] for found in FENCE.finditer(page.read_text(encoding="utf-8")) if found["kind"] == kind
    ]


def commands(*, whole: bool) -> Iterator[tuple[str, str]]:
    """Every `wsss …` and `make …` of README and docs, with the page it stands on.

    Args:
        whole: those of blocks, which can be run as they stand; else those within sentences.
    """
    for page, name in zip(PAGES, NAMES, strict=True):
        text = page.read_text(encoding="utf-8")
        lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
        for line in lines if whole else INLINE.findall(FENCE.sub("", text)):
            for command in re.split(r"\s*(?:&&|#|>)\s*", line.strip()):
                if re.match(r"(wsss|make)( |$)", command):
                    yield name, command.strip()


WHOLE = sorted(set(commands(whole=True)))
COMMANDS = sorted({*WHOLE, *commands(whole=False)})
CHEAP = re.compile(
    r"wsss (--help|--version|list \w+|weights list|paper|paper [\w-]+ --published results"
    r"|show (scenes|folder|voc12|coco14|msrc_v2|methods|refiners)/[a-z][\w-]*)$"
)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_tables_are_those_of_the_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- results:") == len(BLOCK.findall(text)), "a marker is not closed"
    if filled_markdown(text, ROOT / "results") != text:
        pytest.fail(f"The tables of {page.name} are not those of results/. Run `make docs`.")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    missing = [
        link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()
    ]
    assert not missing


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[command for _, command in COMMANDS])
def test_commands_exist_with_their_options(page: str, command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert all(word in targets for word in words[1:] if "=" not in word), f"{page}: {command}"
    else:
        check_program(page, words[1:])


@pytest.mark.parametrize(("page", "command"), WHOLE, ids=[command for _, command in WHOLE])
def test_commands_in_blocks_can_be_called_as_they_stand(page: str, command: str) -> None:
    """All arguments are there, and no option's value is of the wrong kind. Nothing is run."""
    words = [word for word in shlex.split(command) if word not in ("--offline", "--debug")]
    found, rest = leaf(words[1:])
    if words[0] == "make" or rest == ["--help"] or (not rest and found.no_args_is_help):
        return
    found.make_context(found.name, list(rest))  # raises where something is missing or wrong


def leaf(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and the words behind its name."""
    import typer.main

    from wsss.cli.main import app

    command: Any = typer.main.get_command(app)
    rest = list(words)
    while rest and hasattr(command, "commands") and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    return command, rest


@pytest.mark.parametrize("command", sorted({c for _, c in COMMANDS if CHEAP.match(c)}))
def test_commands_that_only_tell_something_do(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert len(called(command)) > 10


def called(command: str) -> str:
    """What a command prints; it must succeed."""
    from typer.testing import CliRunner

    from wsss.cli.main import app

    result = CliRunner().invoke(app, shlex.split(command)[1:], prog_name="wsss")
    assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"
    return str(result.output)


def check_program(page: str, words: list[str]) -> None:
    """Walk down to the command and look for each option and each named recipe."""
    import typer.main

    from wsss.cli.main import app
    from wsss.engine.recipe_files import list_recipes

    command: Any = typer.main.get_command(app)
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    rest = list(words)
    while rest and rest[0] in known:
        rest.pop(0)
    while rest and hasattr(command, "commands"):
        name = rest.pop(0).rstrip(",")
        assert name in command.commands, f"{page}: there is no command `{name}`"
        command = command.commands[name]
    known |= {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for word in rest:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, (
                f"{page}: `{' '.join(words)}` has an unknown option {word}"
            )
        elif re.match(r"(recipes/|scenes/|folder/|voc12/)[\w./-]+$", word):
            assert word.removeprefix("recipes/").removesuffix(".yaml") in list_recipes(), (
                f"{page}: no recipe {word}"
            )


def test_copied_recipes_are_there() -> None:
    for page in PAGES:
        for path in re.findall(r"\brecipes/[\w./-]+\.yaml\b", page.read_text(encoding="utf-8")):
            assert (ROOT / path).is_file(), f"{page.name}: {path}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_yaml_blocks_are_yaml(page: Path) -> None:
    for block in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(block), dict)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_blocks_are_python_and_import_what_is_there(page: Path) -> None:
    for block in blocks(page, "python"):
        tree = ast.parse(textwrap.dedent(block))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in imports:
            exec(compile(ast.Module([node], []), page.name, "exec"), {})


def messages() -> str:
    """All texts of the package, placeholders as …, one after the other."""
    found = []
    for path in (ROOT / "src" / "wsss").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values)
                )
    return "\n".join(found)


def test_errors_quotes_real_messages() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z…][^|]+?) \|", page, re.MULTILINE)
    assert len(rows) >= 10
    texts = messages().replace("`", "")
    for row in rows:
        for part in (part.strip(" .?") for part in row.split("…")):
            if part:
                assert part in texts, f"docs/errors.md: no message says “{part}”"


def test_the_example_method_trains_and_gives_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsss.engine.recipe import load_recipe
    from wsss.methods.base import Frozen, find_method
    from wsss.types import Batch

    page = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
    files = {found["file"]: found["text"] for found in FENCE.finditer(page) if found["file"]}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("my_method.yaml")
    assert recipe.method is not None
    method = find_method("my_method.py")(recipe.method.config, ("background", "cat", "dog"), Frozen())
    images, labels = torch.randn(2, 3, 64, 64), torch.tensor([[True, False], [False, True]])
    losses = method.losses(Batch(images, labels, ("a", "b"), torch.ones(2, 64, 64, dtype=torch.bool)))
    assert list(losses) == ["classification", "area"]
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in method.parameters())
    cams = method.eval().cams(images)
    assert cams.shape == (2, 2, 16, 16)
    assert float(cams.min()) >= 0


def test_the_example_refiner_refines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from wsss.engine.recipe import load_recipe
    from wsss.refiners.base import find_refiner
    from wsss.types import ActivationMaps, Sample

    page = (ROOT / "docs" / "add-a-refiner.md").read_text(encoding="utf-8")
    files = {found["file"]: found["text"] for found in FENCE.finditer(page) if found["file"]}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    section, crf = load_recipe("my_refiner.yaml").refine
    assert (section.short_name, crf.short_name) == ("my_refiner", "dense_crf")
    refiner = find_refiner("my_refiner.py")(section.config, ("background", "cat"))
    scores = torch.zeros(1, 20, 20)
    scores[0, 10:, :], scores[0, 3, 3] = 0.8, 1.0  # a speck that a median takes away
    sample = Sample("x", np.zeros((20, 20, 3), np.uint8), np.array([True]))
    refined = refiner.refine(sample, ActivationMaps(torch.tensor([1]), scores))
    assert float(refined.scores[0, 3, 3]) == 0
    assert float(refined.scores[0, 16, 4]) == pytest.approx(0.8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "recipe", "last"),
    [("add-a-method.md", "my_method", "activate"), ("add-a-refiner.md", "my_refiner", "refine-1-dense_crf")],
)
def test_recipes_of_the_pages_run(
    page: str, recipe: str, last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        if found["file"]:
            (tmp_path / found["file"]).write_text(found["text"], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    kind = "methods" if "method" in recipe else "refiners"
    assert "An idea" in called(f"wsss show {kind}/{recipe}.py")
    small = ("data.train=12", "data.val=6", "data.size=64", "activation.scales=[1.0]")
    short = ("training.epochs=null", "training.steps=30", "training.batch_size=4")
    crop = "training.augmentation.crop_size=64"
    changes = " ".join(f"--set {change}" for change in (*small, *short, crop))
    called(f"wsss run {recipe}.yaml --until {last} --runs runs {changes}")
    [document] = Path("runs").glob("*/run.json")
    assert f'"{last}"' in document.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wsss
    from wsss.engine.run import run

    small = [
        *("data.train=12", "data.val=6", "data.size=64", "training={steps: 2, batch_size: 2}"),
        *("activation.scales=[1.0]", "segmentation.training={steps: 2, batch_size: 2}"),
    ]

    def run_small(recipe: str, **options: Any) -> Any:
        start = [] if recipe.endswith("cam") else ["initialise.training={steps: 2, batch_size: 2}"]
        return run(wsss.load_recipe(recipe, [*small, *start]), **options)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(wsss, "run", run_small, raising=False)
    [block] = blocks(ROOT / "README.md", "python")
    # overrides become part of a recipe's name, so the folders have other names than in the full size
    lines = block.replace('["runs/demo-cam-seed0", "runs/demo-clims-seed0"]', "folders").replace(
        "    print(result", "    folders.append(result.folder)\n    print(result"
    )
    exec(compile("folders = []\n" + lines, "README.md", "exec"), {})
    assert (tmp_path / "report" / "index.html").stat().st_size > 10_000


def test_the_walk_is_that_of_the_pages() -> None:
    missing = [(page, command) for page, command, _ in STEPS if (page, command) not in WHOLE]
    assert not missing


@pytest.mark.slow
def test_somebody_with_a_folder_gets_where_the_pages_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_scenes: Any, tiny_tree: Path
) -> None:
    """Each command is run as it stands, but for names and for what makes it small."""
    write_scene_folder(tiny_scenes, tiny_tree, tmp_path / "DATA", untagged=3)
    shutil.copytree(tmp_path / "DATA" / "images", tmp_path / "photos")
    photographs = sorted((tmp_path / "photos").iterdir())
    (tmp_path / "list.txt").write_text(f"photos/{photographs[0].name}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for _, command, added in STEPS:
        words = shlex.split(f"{command} {added}")
        runs = [path.parent.as_posix() for path in Path("labels/runs").glob("*/run.json")]
        names = {name: place.replace("RUN", runs[0] if runs else "") for name, place in PLACES.items()}
        called(shlex.join(names.get(word, word) for word in words))
    made = {path.name for path in tmp_path.iterdir()}
    assert {"proposal", "labels", "model", "masks.json", "tasks.json", "tasks.xml", "masks.xml"} <= made
    assert {"model.onnx", "coloured", "report", "review"} <= made
    for folder, count in (("labels/masks", 18), ("masks", 18), ("others", 1)):
        assert len(list(Path(folder).rglob("*.png"))) == count
    assert len(list(Path("masks/overlays").glob("*.jpg"))) == 18


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_pictures_are_small_and_described(page: Path) -> None:
    for text, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        assert len(text) > 20, f"{target} says nothing to those who can't see it"
        assert (page.parent / target).stat().st_size < 60_000
