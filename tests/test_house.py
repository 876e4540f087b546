"""The structure of the package: floors, circles, sizes of files. Imports for types count as imports."""

from __future__ import annotations

import ast
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "volseg"
MOST_FLOORS, MOST_LINES = 9, 300


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def imported(module: str) -> frozenset[str]:
    """Modules of the package that a module imports, wherever in the file and whatever for."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else node.module for name in whole}
    return frozenset(found & set(MODULES) - {module})


def room(module: str) -> str:
    """The folder or file of `ls volseg/` that a module lies in."""
    return module.split(".")[1] if "." in module else "__init__"


def rooms() -> dict[str, set[str]]:
    """What each room imports of the others; the package's face, which imports the public names, is none."""
    graph: dict[str, set[str]] = {room(module): set() for module in MODULES if module != "volseg"}
    for module in MODULES:
        if module != "volseg":
            graph[room(module)] |= {room(other) for other in imported(module) if other != "volseg"} - {room(module)}
    return graph


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """How many imports lie below each room, in the longest chain."""
    height: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        height[name] = 1 + max((height[below] for below in graph[name]), default=0)
    return height


def planned_floors() -> dict[str, int]:
    """The floor of each room as pyproject.toml's import contract states it."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = config["tool"]["importlinter"]["contracts"][0]["layers"]
    return {name.strip(): len(layers) - at for at, layer in enumerate(layers) for name in layer.split("|")}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The first circle; empty without one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_circle_among_modules() -> None:
    # A package's face imports its own modules; they must not import the face.
    assert circle({module: set(imported(module)) for module in MODULES}) == []


def test_no_circle_among_rooms_and_nine_floors_at_most() -> None:
    assert circle(rooms()) == []
    assert max(floors(rooms()).values()) <= MOST_FLOORS


def test_every_room_is_on_a_floor_and_imports_run_down() -> None:
    planned = planned_floors()
    assert set(planned) == set(rooms())
    assert max(planned.values()) <= MOST_FLOORS
    upward = {(one, other) for one, below in rooms().items() for other in below if planned[other] >= planned[one]}
    assert upward == set()


def test_no_file_is_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES.values()}
    assert {path: n for path, n in lengths.items() if n > MOST_LINES} == {}


def test_a_circle_and_a_floor_are_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []
    assert floors({"a": {"b"}, "b": {"c"}, "c": set()}) == {"a": 3, "b": 2, "c": 1}
