"""Where recipe files are, how they are read, and how single values are overridden."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

import wsss
from wsss.checks import nearest
from wsss.data.yaml_text import parse_yaml
from wsss.errors import RecipeError


def recipe_folder() -> Path:
    """The shipped recipes: beside the sources in a clone, inside the package when installed."""
    package = Path(wsss.__file__).resolve().parent
    clone = package.parents[1] / "recipes"
    return clone if package.parent.name == "src" and clone.is_dir() else package / "recipes"


def list_recipes() -> tuple[str, ...]:
    """Names of the shipped recipes, such as `scenes/clims`."""
    folder = recipe_folder()
    return tuple(sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml")))


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe given by path or by shipped name (with or without `recipes/` and `.yaml`).

    Raises:
        RecipeError: there is none.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    name = path.as_posix().removeprefix("recipes/").removesuffix(".yaml")
    if name in list_recipes():
        return recipe_folder() / f"{name}.yaml"
    raise RecipeError(
        f"There is no recipe {recipe}, neither a file nor a shipped one. {nearest(name, list_recipes())}"
    )


def recipe_name(path: Path, overrides: Sequence[str] = ()) -> str:
    """Name for tables and folders: `scenes/clims`, a file's stem elsewhere, plus a mark of overrides."""
    try:
        name = path.resolve().relative_to(recipe_folder()).with_suffix("").as_posix()
    except ValueError:
        name = path.stem
    return _marked(name, overrides)


def named(raw: dict[str, Any], path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe file's content with the name that its runs have: its own, or that of its place.

    Overrides leave their mark on either, since a changed run must not replace the run of the file as it is.
    Whoever overrides `name` itself gets that name without a mark.

    Example:
        >>> named({"name": "photos"}, Path("recipe.yaml"), ["training.epochs=1"])["name"]
        'photos+275be8'
    """
    own = raw.get("name", "")
    if not isinstance(own, str):  # no name; whoever validates says so
        return dict(raw)
    return {**raw, "name": _marked(own, overrides) if own else recipe_name(path, overrides)}


def _marked(name: str, overrides: Sequence[str]) -> str:
    if not overrides:
        return name
    return f"{name}+{hashlib.sha256('|'.join(sorted(overrides)).encode()).hexdigest()[:6]}"


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key written twice."""


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise RecipeError(
                f"Key `{key}` is written twice in {node.start_mark.name}, line {node.start_mark.line + 1} "
                "and after. Keep one of them."
            )
    return dict(loader.construct_mapping(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)


def read_yaml(path: Path) -> dict[str, Any]:
    """The file's mapping.

    Raises:
        RecipeError: not YAML, or not a mapping.
    """
    try:
        value = parse_yaml(path.read_text(encoding="utf-8"), _Loader, name=str(path))
    except RecipeError:
        raise
    except ValueError as error:  # no UTF-8, or no YAML
        raise RecipeError(f"{path} is not valid YAML: {error}. Correct the file.") from error
    if not isinstance(value, dict):
        raise RecipeError(
            f"{path} must hold sections such as `data:` and `method:`; got {type(value).__name__}."
        )
    return value


def with_overrides(raw: dict[str, Any], overrides: Sequence[str], source: str) -> dict[str, Any]:
    """A copy of `raw` with `key.key=value` texts applied; numbers in keys index lists.

    Raises:
        RecipeError: no equals sign, or a list that is too short.

    Example:
        >>> with_overrides({"refine": [{"steps": 3}]}, ["refine.0.steps=5"], "x.yaml")
        {'refine': [{'steps': 5}]}
    """
    changed = copy.deepcopy(raw)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise RecipeError(
                f"`--set` takes key=value; got {text!r}. Write for example `--set method.area_weight=5`."
            )
        try:
            parsed = parse_yaml(value)
        except ValueError as error:
            raise RecipeError(
                f"The value of `--set {key.strip()}` can't be understood: {error}. Write it as in a recipe."
            ) from error
        _assign(changed, key.strip().split("."), parsed, f"{key.strip()} (for {source})")
    return changed


def _assign(target: Any, keys: list[str], value: Any, shown: str) -> None:
    *parents, last = keys
    for key in parents:
        if isinstance(target, list):
            target = target[_index(target, key, shown)]
        elif isinstance(target, dict):
            if target.get(key) is None:
                target[key] = {}
            target = target[key]
        else:
            raise RecipeError(f"`{shown}` goes through `{key}`, which is a plain value. Check the path.")
    if isinstance(target, list):
        target[_index(target, last, shown)] = value
    elif isinstance(target, dict):
        target[last] = value
    else:
        raise RecipeError(f"`{shown}` ends in a plain value that has no keys. Check the path.")


def _index(target: list[Any], key: str, shown: str) -> int:
    if not key.isdigit() or int(key) >= len(target):
        raise RecipeError(f"`{shown}`: `{key}` is no entry of a list of {len(target)}. Count from 0.")
    return int(key)
