"""The command line's surface is frozen on purpose, light to load, and helpful."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import volseg
from volseg.cli.main import COMMANDS, main

SURFACE = {
    "convert": ["--overwrite", "--voxel-size", "SOURCE", "TARGET"],
    "train": ["RUN"],
    "predict": [
        "--block", "--chunk", "--cluster", "--device", "--dry-run", "--halo", "--ignore-voxel-size", "--json",
        "--model", "--overwrite", "--precision", "--resume", "--roi", "--shard", "--workers", "SOURCE", "TARGET",
    ],
    "evaluate": ["--json", "--membrane", "--roi", "--threshold", "PREDICTION", "TRUTH"],
    "models": ["--json", "NAME"],
    "view": ["--bind", "--host", "--no-browser", "--port", "SOURCES"],
    "demo": ["--overwrite", "--seconds", "FOLDER"],
}  # fmt: skip


def surface(command: click.Command) -> list[str]:
    return sorted(p.opts[0] if isinstance(p, click.Option) else str(p.name).upper() for p in command.params)


def test_the_surface_is_the_one_that_was_agreed() -> None:
    context = click.Context(main)
    found = {name: surface(main.get_command(context, name)) for name in COMMANDS}
    assert found == SURFACE


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *[[name, "--help"] for name in COMMANDS]])
def test_help_loads_neither_torch_nor_dask(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom volseg.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert not {'torch', 'dask', 'distributed', 'zarr'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_importing_volseg_loads_neither_torch_nor_dask() -> None:
    code = "import sys, volseg; print(sorted({'torch', 'dask', 'distributed'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_help_has_an_example(name: str) -> None:
    shown = CliRunner().invoke(main, [name, "--help"]).output
    assert "Example" in shown
    assert f"volseg {name}" in shown


def test_what_is_exported_is_what_all_names() -> None:
    public = {name for name in vars(volseg) if not name.startswith("_")}
    modules = {name for name in public if f"volseg.{name}" in sys.modules}
    assert public - modules == set(volseg.__all__) - {"__version__"}


def test_models_lists_networks_as_json() -> None:
    found = json.loads(CliRunner().invoke(main, ["models", "--json"]).output)
    assert [entry["name"] for entry in found["networks"]] == ["fusionnet", "unet"]
    unet = found["networks"][1]
    assert (unet["reach"], unet["stride"], unet["margin"]) == ([0, 107, 107], [1, 16, 16], [0, 92, 92])
    assert 31_000_000 < unet["parameters"] < 31_100_000
    assert isinstance(found["packaged"], list)
    table = CliRunner().invoke(main, ["models"]).output
    assert "0,240,240" in table
    assert "75.0 M" in table
