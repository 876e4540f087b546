"""Files around the package agree with it: versions, pins, workflows, the architecture page."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from volseg.version import __version__

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGE = (ROOT / "docs" / "architecture.md").read_text()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read_yaml(path: Path) -> Any:
    # yaml ships no types; Dask depends on it.
    return import_module("yaml").safe_load(path.read_text())


@cache
def definitions(path: str) -> frozenset[str]:
    """Names that a module defines at its top level, and `Class.member`."""
    names: set[str] = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{member.name}" for member in node.body if isinstance(member, ast.FunctionDef)}
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(names)


def all_names() -> set[str]:
    """Definitions, modules and folders of the package."""
    paths = list((ROOT / "volseg").rglob("*.py"))
    names = {name for path in paths for name in definitions(path.relative_to(ROOT).as_posix())}
    return names | {path.stem for path in paths} | {path.parent.name for path in paths}


def floors_of(page: str) -> dict[int, set[str]]:
    """Rooms of each floor in the page's drawing."""
    rows = re.findall(r"^ +(\d) +([\w ]+?) *\|", page, re.MULTILINE)
    return {int(floor): set(rooms.split()) for floor, rooms in rows}


def pins() -> dict[str, str]:
    """Normalised name -> version in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def requirements() -> list[Requirement]:
    """All direct dependencies, those of extras included."""
    groups = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    return [Requirement(line) for group in groups for line in group]


def test_versions_agree():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    heads = re.findall(r"^## \[(.+)\] - (Unreleased|\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert heads[0][0] == __version__
    assert [date for _, date in heads[1:] if date == "Unreleased"] == []
    assert read_yaml(ROOT / "CITATION.cff")["version"] == __version__
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "volseg/version.py"


def test_licences_agree():
    assert read_yaml(ROOT / "CITATION.cff")["license"] == PROJECT["project"]["license"]


def test_every_dependency_has_a_pin_within_its_range():
    unpinned = [r.name for r in requirements() if canonicalize_name(r.name) not in pins()]
    assert unpinned == []
    assert [str(r) for r in requirements() if pins()[canonicalize_name(r.name)] not in r.specifier] == []


def test_the_wheel_says_that_it_is_typed():
    assert (ROOT / "volseg" / "py.typed").is_file()
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["volseg"]


@pytest.mark.parametrize("name", ["check", "test"])
def test_workflows_run_on_every_supported_python(name: str):
    jobs = read_yaml(ROOT / ".github" / "workflows" / f"{name}.yml")["jobs"].values()
    (versions,) = [job["strategy"]["matrix"]["python"] for job in jobs if "strategy" in job]
    assert versions == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["project"]["requires-python"] == f">={versions[0]}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_use_pins_end_by_themselves_and_write_nothing(path: Path):
    workflow = read_yaml(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())
    installs = re.findall(r"pip.* install .*", path.read_text())
    assert all("--constraint constraints.txt" in line for line in installs)


def test_hooks_need_no_network():
    assert [repo["repo"] for repo in read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]] == ["local"]


def test_the_architecture_page_is_short_and_draws_the_floors_of_the_import_contract():
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    planned = {len(layers) - at: {name.strip() for name in layer.split("|")} for at, layer in enumerate(layers)}
    assert floors_of(PAGE) == planned
    assert len(PAGE.splitlines()) <= 180


def test_paths_on_the_architecture_page_exist():
    paths = re.findall(r"`((?:volseg|tests)/[\w/.]*)`", PAGE)
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_room_is_on_the_architecture_page():
    rooms = {
        path.stem
        for path in (ROOT / "volseg").iterdir()
        if not path.name.startswith("_") and path.suffix in ("", ".py")
    }
    assert rooms - {"version"} == set(re.findall(r"^\| `volseg/(\w+)(?:/|\.py)` \|", PAGE, re.MULTILINE))


def test_names_on_the_architecture_page_exist_where_it_says():
    pairs = re.findall(r"`([A-Za-z_][\w.]*)`\s+in\s+`(volseg/[\w/]+\.py)`", PAGE)
    assert len(pairs) > 20
    assert [(name, path) for name, path in pairs if name not in definitions(path)] == []
    single = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w*|[a-z]+_\w+)`", PAGE))
    assert single - all_names() == set()


def test_a_name_that_is_not_there_is_found():
    assert "process_block" in definitions("volseg/pipeline/block.py")
    assert "Journal.mark" in definitions("volseg/storage/journal.py")
    assert "process_blok" not in definitions("volseg/pipeline/block.py")
    assert floors_of("   2     a   b_c      | numpy in a\n") == {2: {"a", "b_c"}}


LIKE_MACOS = """
import os, sys
import torch
del os.sched_getaffinity
torch.backends.mkldnn.is_available = lambda: False
import volseg
summary = volseg.predict(*sys.argv[1:3], model=sys.argv[3], cluster="serial", halo="exact", precision="float32")
print(summary.done)
"""


def test_a_serial_run_needs_neither_cpu_affinity_nor_onednn(raw: Path, small_model: Path, tmp_path: Path):
    # macOS has neither.
    words = [sys.executable, "-c", LIKE_MACOS, str(raw), str(tmp_path / "map.zarr"), str(small_model)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 0
