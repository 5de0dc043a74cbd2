"""From a validation error to one sentence that names the key, the file and the nearest valid key."""

from __future__ import annotations

import types
import typing
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from wsss.checks import nearest
from wsss.errors import RecipeError

T = TypeVar("T")


def validated(model: Any, value: Any, *, where: str, source: str, advice: str = "") -> Any:
    """`value` as `model`, or a `RecipeError` that says which key of `source` is wrong and what to write.

    Args:
        model: a pydantic model or any type that pydantic validates.
        value: plain data from a recipe.
        where: the dotted place of `value` in the recipe, for example `method`.
        source: the recipe's file.
        advice: added to messages about unknown keys.
    """
    try:
        return TypeAdapter(model).validate_python(value)
    except ValidationError as error:
        raise RecipeError(_explain(error, model, where, source, advice)) from error


def unknown_key(
    where: str, key: str, choices: typing.Iterable[str], source: str, advice: str = ""
) -> RecipeError:
    """The error for a key that nobody reads."""
    path = f"{where}.{key}" if where else key
    return RecipeError(f"Unknown key `{path}` in {source}. {nearest(str(key), choices)} {advice}".rstrip())


def _explain(error: ValidationError, model: Any, where: str, source: str, advice: str) -> str:
    problems = error.errors(include_url=False)
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    path, choices = _walk(model, list(problem["loc"]))
    full = ".".join([where, *path]) if where else ".".join(path)
    if problem["type"] == "extra_forbidden":
        parent = ".".join([where, *path[:-1]]).strip(".")
        return str(unknown_key(parent, path[-1], choices, source, advice))
    if problem["type"] == "missing":
        return f"Key `{full}` is missing in {source}. Add it."
    message = problem["msg"].removeprefix("Value error, ")
    shown = problem["input"] if isinstance(problem["input"], (str, int, float, bool)) else "a section"
    got = f"; got {shown!r}" if shown != "a section" else ""
    what = message[:1].lower() + message[1:].rstrip(".")
    return f"`{full}` in {source} is wrong: {what}{got}. Correct the value."


def _walk(annotation: Any, location: list[Any]) -> tuple[list[str], list[str]]:
    """The readable path of `location` inside `annotation`, and the valid keys beside its last part."""
    path: list[str] = []
    choices: list[str] = []
    for part in location:
        if isinstance(part, str) and ("[" in part or "(" in part):
            continue  # pydantic's description of a member of a union or of a validator
        candidates = _members(annotation)
        tagged = [m for m in candidates if isinstance(part, str) and part in (m.__name__, *_tags(m))]
        models = [m for m in candidates if issubclass(m, BaseModel)]
        if len(candidates) > 1 and tagged:
            annotation = tagged[0]  # pydantic names the member of a union; the reader wrote no such key
            continue
        if models and any(part in m.model_fields for m in models):
            owner = next(m for m in models if part in m.model_fields)
            choices, annotation = list(owner.model_fields), owner.model_fields[str(part)].annotation
        elif models:
            choices = [name for m in models for name in m.model_fields]
        elif isinstance(part, int):
            annotation = (typing.get_args(annotation) or (None,))[0]
        path.append(str(part))
    return path, choices


def _members(annotation: Any) -> list[type]:
    """The classes that a (union) annotation stands for."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [member for item in typing.get_args(annotation) for member in _members(item)]
    return [annotation] if isinstance(annotation, type) and origin is None else []


def _tags(model: type) -> tuple[str, ...]:
    """Values of the literal field that tells members of a union apart."""
    if not issubclass(model, BaseModel) or "kind" not in model.model_fields:
        return ()
    return tuple(str(tag) for tag in typing.get_args(model.model_fields["kind"].annotation))
