"""README and docs tell the truth: tables, commands, recipes, links, messages and Python blocks."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

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


def commands() -> Iterator[tuple[str, str]]:
    """Every `wsss …` and `make …` of README and docs, with the page it stands on."""
    for page, name in zip(PAGES, NAMES, strict=True):
        text = page.read_text(encoding="utf-8")
        lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
        lines += INLINE.findall(FENCE.sub("", text))
        for line in lines:
            for command in re.split(r"\s*(?:&&|#)\s*", line.strip()):
                if re.match(r"(wsss|make)( |$)", command):
                    yield name, command


COMMANDS = sorted(set(commands()))


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
