"""Rules of the house that a machine can check."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "wsss"
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = (
    {"types", "errors", "checks"},
    {"data", "models", "layers", "crf", "affinity", "metrics", "training", "questions"},
    {"methods"},
    {"activation", "refiners", "segmentation"},
    {"engine"},
    {"export", "report", "review", "doctor", "cli"},
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
FORBIDDEN_NAMES = {"utils", "common", "helpers", "misc", "legacy", "util", "helper"}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            names = [node.module or ""]
            if node.module == "wsss":
                names = [f"wsss.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("wsss.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_the_layers(path: Path) -> None:
    if room(path) in ("__init__", "__main__"):
        return
    here = LEVEL[room(path)]
    above = {name for name in imported_rooms(path) if name in LEVEL and LEVEL[name] > here}
    assert not above, f"{path.relative_to(PACKAGE)} imports upwards: {sorted(above)}"


def test_methods_never_import_each_other() -> None:
    for path in (PACKAGE / "methods").glob("*.py"):
        if path.stem not in ("base", "__init__"):
            others = re.findall(r"from wsss\.methods\.(\w+)", path.read_text())
            # a variant may build on the method that its name begins with: qa_clims_saliency on qa_clims
            own = {f"_{path.stem}_config"}
            for base in (name for name in others if path.stem.startswith(f"{name}_")):
                own |= {base, f"_{base}_config"}
            assert set(others) <= {"base", *own}, f"{path.name} imports {others}"


def test_training_knows_no_method_data_set_or_recipe() -> None:
    for path in (PACKAGE / "training").glob("*.py"):
        known = imported_rooms(path) & {"methods", "engine", "segmentation", "models"}
        assert not known, f"{path.name} knows {known}"


def test_no_room_has_a_forbidden_name() -> None:
    names = {part.removesuffix(".py") for path in FILES for part in path.relative_to(PACKAGE).parts}
    assert not names & FORBIDDEN_NAMES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_code_is_device_free_and_quiet(path: Path) -> None:
    text = path.read_text()
    assert ".cuda(" not in text
    readers = ("npy_import.py", "weights.py", "official.py")  # behind an opt-in: arrays and plain values only
    assert "import pickle" not in text or path.name in readers
    assert "pickle.load" not in text
    assert "weights_only=False" not in text
    if room(path) != "cli":
        calls = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)]
        assert not any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls), (
            "print outside cli"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_resize_states_its_corners(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "interpolate"
        ):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        mode = given.get("mode")
        nearest = isinstance(mode, ast.Constant) and str(mode.value).startswith(("nearest", "area"))
        assert "mode" in given, f"{path.name}:{node.lineno} states no mode"
        assert nearest or "align_corners" in given, f"{path.name}:{node.lineno} states no align_corners"


def test_the_repository_names_no_development_machine() -> None:
    suspicious = re.compile(r"/(?:root|home)/\w|/work/(?:main|shared)|\.pyenv")
    for path in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "recipes").rglob("*.yaml"),
        *FILES,
    ]:
        assert not suspicious.search(path.read_text()), path
