"""Commands and options are a frozen list, --help loads neither torch nor Dask and has examples."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

import volseg
from volseg.cli.main import main
from volseg.models import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB = ["--account", "--cores", "--gpus", "--memory", "--queue", "--walltime"]
CLUSTER = [*JOB, "--adapt", "--cluster", "--tls", "--workers"]
OPTIONS = {
    "convert": [
        *CLUSTER, "--axes", "--channel", "--chunk", "--dry-run", "--dtype", "--format", "--json", "--levels",
        "--missing", "--missing-chunks", "--no-shards", "--overwrite", "--range", "--resample", "--resume", "--roi",
        "--scale-level", "--shard", "--voxel-size", "SOURCE", "TARGET",
    ],
    "pyramid": [
        *CLUSTER, "--check", "--dry-run", "--json", "--labels", "--levels", "--missing-chunks", "--overwrite",
        "--resume", "TARGET",
    ],
    "train": ["--print-config", "--resume", "--set", "RUN"],
    "predict": [
        *CLUSTER, "--at-model-size", "--axes", "--block", "--block-timeout", "--calibrate", "--channel", "--chunk",
        "--classes",
        "--device", "--dry-run", "--halo", "--halo-tolerance", "--ignore-voxel-size", "--json", "--levels", "--mask",
        "--max-failed", "--missing", "--missing-chunks", "--model", "--orientations", "--overwrite", "--part",
        "--precision", "--prices", "--resume", "--roi", "--scale-level", "--shard", "--tile", "--uncertainty",
        "--voxel-size", "SOURCE", "TARGET",
    ],
    "status": ["--cost", "--json", "--prices", "--traceback", "TARGET"],
    "verify": [
        *CLUSTER, "--block", "--deep", "--json", "--mask", "--model", "--repair", "--resume", "--seams", "--source",
        "TARGET",
    ],
    "evaluate": [
        "--channel", "--ignore", "--ignore-place", "--json", "--kind", "--membrane", "--output", "--pixels-only",
        "--roi", "--threshold", "PREDICTION", "TRUTH",
    ],
    "models": ["--json", "NAME"],
    "models import": [
        "--activation", "--argument", "--classes", "--concatenation", "--dtype", "--license", "--mean", "--name",
        "--network", "--normalization", "--output", "--std", "--voxel-size", "WEIGHTS",
    ],
    "models export": ["--author", "--format", "--license", "MODEL", "OUTPUT"],
    "view": ["--bind", "--host", "--no-browser", "--port", "SOURCES"],
    "cluster check": [*JOB, "--json", "--read", "--tls", "--write", "NAME"],
    "demo": ["--overwrite", "--steps", "FOLDER"],
}  # fmt: skip


def options_of(command: click.Command) -> list[str]:
    return sorted(p.opts[0] if isinstance(p, click.Option) else str(p.name).upper() for p in command.params)


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command by its full name; a group with a default subcommand counts as that subcommand."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            shown = command.get_command(context, "show")
            if shown is not None:
                yield f"{prefix}{name}", shown
            yield from commands(command, f"{name} ")
        else:
            yield f"{prefix}{name}", command


def test_commands_and_options_are_those_of_the_list() -> None:
    assert {name: options_of(command) for name, command in commands(main)} == {n: sorted(o) for n, o in OPTIONS.items()}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *[[*name.split(), "--help"] for name in OPTIONS]])
def test_help_loads_neither_torch_nor_dask(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom volseg.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert not {'torch', 'dask', 'distributed', 'zarr'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["models", "--help"]])
def test_commands_are_described_in_whole_sentences(arguments: list[str]) -> None:
    listed = CliRunner(env={"COLUMNS": "80"}).invoke(main, arguments).output.partition("Commands:")[2]
    assert listed
    assert all(line.endswith(".") and not line.endswith("..") for line in listed.strip().splitlines())


@pytest.mark.parametrize(
    ("command", "suggestion"), [(["predcit", "a"], "predict"), (["models", "improt", "a.pt"], "import")]
)
def test_a_misspelt_command_gets_the_nearest(command: list[str], suggestion: str) -> None:
    done = CliRunner().invoke(main, command)
    assert (done.exit_code, f"(did you mean {suggestion!r}?)" in done.stderr) == (2, True)


def test_importing_volseg_loads_neither_torch_nor_dask() -> None:
    code = "import sys, volseg; print(sorted({'torch', 'dask', 'distributed'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", list(OPTIONS))
def test_every_help_has_an_example(name: str) -> None:
    shown = CliRunner().invoke(main, [*name.split(), "--help"]).output
    assert "Example" in shown
    assert f"volseg {name}" in shown


def test_all_names_what_volseg_exports() -> None:
    assert all(hasattr(volseg, name) for name in volseg.__all__)
    defined = {name for name, value in vars(volseg).items() if getattr(value, "__module__", "").startswith("volseg.")}
    assert defined <= set(volseg.__all__)


def test_models_lists_networks_as_json() -> None:
    found = json.loads(CliRunner().invoke(main, ["models", "--json"]).output)
    networks = {entry["name"]: entry for entry in found["networks"]}
    assert list(networks) == sorted(NETWORKS)
    unet = networks["unet"]
    assert (unet["reach"], unet["stride"], unet["margin"]) == ([0, 107, 107], [1, 16, 16], [0, 92, 92])
    assert 31_000_000 < unet["parameters"] < 31_100_000
    assert (unet["layers"], unet["flops_per_voxel"]) == (23, 1_467_776)
    assert isinstance(found["packaged"], list)


def test_models_is_a_table_that_fits_a_terminal_of_80_columns() -> None:
    lines = CliRunner(env={"COLUMNS": "80"}).invoke(main, ["models"]).output.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.split()[0] in NETWORKS}
    assert set(rows) == set(NETWORKS)
    assert rows["fusionnet"] == ["0,245,245", "1,16,16", "0,0,0", "0,240,240", "50", "75.0", "M", "3163"]
