"""`wsss list` and `wsss show`: what there is, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.markup import escape
from rich.table import Table

from wsss.cli.display import console, write_json
from wsss.cli.options import Settings
from wsss.errors import RecipeError

KINDS = ("methods", "refiners", "recipes")
OWN = "a method of this project, in no paper"


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("list")(list_kind)
    app.command()(show)


def list_kind(kind: Annotated[str, typer.Argument(help="methods, refiners or recipes.")]) -> None:
    """List methods, refiners or recipes."""
    if kind not in KINDS:
        from wsss.checks import nearest

        raise RecipeError(f"Can't list `{kind}`. {nearest(kind, KINDS)}")
    rows = {"methods": _method_rows, "refiners": _refiner_rows, "recipes": _recipe_rows}[kind]()
    if not rows:
        console.print(f"There are no {kind} yet.")
        return
    table = Table("name", "what it is", box=None)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


def show(
    name: Annotated[str, typer.Argument(help="A recipe, or methods/NAME or refiners/NAME.")],
    settings: Settings = None,
) -> None:
    """Show a recipe with all defaults filled in, or a method's paper, settings and presets."""
    kind, _, rest = name.partition("/")
    if kind == "methods" and rest:
        from wsss.methods.base import find_method

        _show_class(rest, find_method(rest))
    elif kind == "refiners" and rest:
        from wsss.refiners.base import find_refiner

        _show_class(rest, find_refiner(rest))
    else:
        from wsss.engine.recipe import load_recipe

        write_json(load_recipe(name, settings or ()).to_yaml().rstrip())


def _method_rows() -> list[tuple[str, str]]:
    from wsss.methods.base import find_method, list_methods

    return [(name, _cite(find_method(name))) for name in list_methods()]


def _refiner_rows() -> list[tuple[str, str]]:
    from wsss.refiners.base import find_refiner, list_refiners

    return [(name, _cite(find_refiner(name))) for name in list_refiners()]


def _recipe_rows() -> list[tuple[str, str]]:
    from wsss.engine.recipe_files import find_recipe, list_recipes, read_yaml

    return [
        (name, str(read_yaml(find_recipe(name)).get("about", {}).get("title", ""))) for name in list_recipes()
    ]


def _cite(cls: Any) -> str:
    """The paper; of a method without one (no venue), that it is of this project."""
    if not cls.paper.venue:
        return f"{cls.paper.title} ({OWN})"
    return f"{cls.paper.title} ({cls.paper.venue} {cls.paper.year})"


def _show_class(name: str, cls: Any) -> None:
    console.print(f"[bold]{Path(name).stem}[/]: {_cite(cls)}", highlight=False)
    basis = "" if cls.paper.venue else "Builds on "
    console.print(
        basis + " · ".join(text for text in (cls.paper.url, cls.paper.code) if text), highlight=False
    )
    console.print((cls.__doc__ or "").strip().splitlines()[0], highlight=False, markup=False)
    config: type[BaseModel] = cls.Config
    table = Table("key", "default", "what it is", title="Settings", title_justify="left")
    for key, field in config.model_fields.items():
        default = "required" if field.is_required() else repr(field.get_default(call_default_factory=True))
        table.add_row(key, escape(default), escape(field.description or ""))
    console.print(table)
    for preset, values in getattr(cls, "presets", {}).items():
        lines = [
            f"Preset {preset}:",
            *(f"  {key}: {value!r}" for key, value in values.items() or {"as": "the defaults"}.items()),
        ]
        console.print("\n".join(lines), markup=False, highlight=False)
