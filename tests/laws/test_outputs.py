"""No command replaces its inputs or what it was not told to replace, and none makes a local folder of a URL."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner

import volseg
from volseg.cli.main import main
from volseg.errors import TargetError
from volseg.storage import Journal
from volseg.testing.factories import blobs, make_volume, read_volume

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (4, 64, 64)


@pytest.fixture
def here(tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container of two volumes, a volume, a folder of sections, a stack and a model."""
    monkeypatch.chdir(tmp_path)
    make_volume(tmp_path / "raw.zarr", SHAPE)
    group = zarr.create_group(tmp_path / "g.zarr").create_group("volumes")
    for name in ("raw", "labels"):
        group.create_array(name, shape=SHAPE, chunks=SHAPE, dtype="uint8", attributes={"voxel_size": [30, 6, 6]})[:] = 7
    (tmp_path / "sections").mkdir()
    for z, section in enumerate(np.arange(4 * 64 * 64).reshape(SHAPE) % 5):
        tifffile.imwrite(tmp_path / "sections" / f"{z}.tif", section.astype(np.uint8))
    tifffile.imwrite(tmp_path / "stack.tif", blobs(SHAPE), photometric="minisblack")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(small_model.read_bytes())
    (tmp_path / "run.toml").write_text(
        '[data]\nraw = "raw.zarr"\nlabels = "sections"\ntrain = [0, 4]\n[output]\nfolder = "sections"\n'
    )
    (tmp_path / "start.toml").write_text(
        '[data]\nraw = "raw.zarr"\nlabels = "sections"\ntrain = [0, 4]\n[output]\nfolder = "."\nname = "own"\n'
        '[network]\nstart = "own-last.safetensors"\n'
    )
    (tmp_path / "own-last.safetensors").write_bytes(small_model.read_bytes())
    return tmp_path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


SIZE = ["--voxel-size", "1,1,1", "--overwrite"]
MODEL = ["--model", "model.safetensors", "--overwrite"]
REFUSED: list[tuple[list[str], str]] = [
    (
        ["convert", "g.zarr/volumes/raw", "g.zarr", *SIZE],
        "g.zarr also holds volumes, so --overwrite does not replace it",
    ),
    (["convert", "raw.zarr", "g.zarr", *SIZE], "g.zarr also holds volumes, so --overwrite does not replace it"),
    (["convert", "raw.zarr", "raw.zarr", *SIZE], "would replace source raw.zarr; choose"),
    (["convert", "raw.zarr/0", "link/raw.zarr", *SIZE], "contains source raw.zarr/0; choose"),
    (["convert", "link/raw.zarr", "raw.zarr/copy.zarr", *SIZE], "is inside source link/raw.zarr; choose"),
    (["convert", "sections", "sections/raw.zarr", *SIZE], "is inside source sections; choose"),
    (["convert", "stack.tif", "https://b/x.zarr", *SIZE], "target https://b/x.zarr is a URL"),
    (["convert", "stack.tif", "raw.zarr", *SIZE[:2]], "raw.zarr exists already; give --overwrite to replace it, or"),
    (["predict", "raw.zarr", "g.zarr", *MODEL], "g.zarr also holds volumes, so --overwrite"),
    (["predict", "raw.zarr", "raw.zarr/map.zarr", *MODEL], "is inside source raw.zarr; choose"),
    (["predict", "raw.zarr", "link/raw.zarr", *MODEL], "(contains|would replace) source .*raw.zarr(/0)?; choose"),
    (["predict", "g.zarr/volumes/raw", "raw.zarr", "--mask", "link/raw.zarr", *MODEL], "contains mask .*raw.zarr/0"),
    (["evaluate", "raw.zarr", "sections", "--output", "link/sections"], "is inside truth sections; choose"),
    (["evaluate", "raw.zarr", "stack.tif", "--output", "raw.zarr/0"], "is inside prediction raw.zarr; choose"),
    (["evaluate", "raw.zarr", "stack.tif", "--output", "s3://b/scores"], "is a URL"),
    (["models", "export", "model.safetensors", "gs://b/m.onnx"], "is a URL"),
    (["models", "export", "model.safetensors", "link/model.safetensors", "--format", "onnx"], "would replace model"),
    (
        ["models", "import", "model.safetensors", "--network", "unet", "--voxel-size", "1,1,1", "--output", "s3://b/m"],
        "URL",
    ),
    (["demo", "s3://b/demo"], "is a URL"),
    (["train", "run.toml"], "is inside data.labels sections; choose"),
    (["train", "start.toml"], "own-last.safetensors would replace network.start own-last.safetensors"),
    (["train", "run.toml", "--set", "output.folder=s3://b/o"], "is a URL"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[" ".join(row[0]) for row in REFUSED])
def test_a_command_leaves_its_inputs_and_what_lies_beside_them(here: Path, arguments: list[str], message: str) -> None:
    before = tree(here)
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 1, done.output
    (line,) = done.stderr.strip().splitlines()
    assert re.search(message, line), line
    assert tree(here) == before
    assert not list(here.glob("[sg]*:*"))


@pytest.mark.parametrize("target", ["https://b/x.zarr", Path("s3://b/x.zarr"), "raw.zarr/x.zarr"])
def test_the_python_function_refuses_alike(here: Path, target: str | Path) -> None:
    with pytest.raises(TargetError, match="is a URL|is inside source"):
        volseg.convert("raw.zarr", target)
    assert not (here / "s3:").exists()


def test_what_is_apart_is_converted_and_replaced(here: Path) -> None:
    """Otherwise each refusal above could have another cause."""
    volseg.convert("g.zarr/volumes/raw", "g.zarr/volumes/copy")
    assert (read_volume(here / "g.zarr" / "volumes" / "copy") == 7).all()
    volseg.convert("stack.tif", "g.zarr/volumes/copy", voxel_size=(1, 1, 1), overwrite=True)
    np.testing.assert_array_equal(read_volume(here / "g.zarr" / "volumes" / "copy"), blobs(SHAPE))
    assert not list(here.rglob("*.staging"))
    assert not list(here.rglob(".partial"))


@pytest.mark.parametrize("command", [["convert", "stack.tif"], ["predict", "raw.zarr", "--model", "none.safetensors"]])
def test_a_target_in_use_is_refused_before_any_work(here: Path, command: list[str]) -> None:
    path = make_volume(here / "used.zarr", (2, 32, 32))
    with Journal(path / "0" / ".volseg"):
        before = tree(here)
        done = CliRunner().invoke(main, [*command, "used.zarr", "--overwrite"], catch_exceptions=False)
        assert done.exit_code == 1
        assert "another run is writing into" in done.stderr
        assert tree(here) == before


QUICK: Any = {
    "model": "model.safetensors", "cluster": "serial", "halo": (0, 8, 8), "tile": (1, 64, 64), "precision": "float32",
}  # fmt: skip


def meanwhile(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], object]) -> None:
    """Do something after a step of a run."""
    module = import_module("volseg.prediction.run")
    step = getattr(module, name)

    def then_act(*arguments: Any, **options: Any) -> Any:
        result = step(*arguments, **options)
        act()
        return result

    monkeypatch.setattr(module, name, then_act)


def test_a_map_that_appears_while_a_run_is_prepared_is_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile(monkeypatch, "resolve_run", lambda: make_volume(here / "map.zarr", (2, 32, 32)))
    with pytest.raises(TargetError, match="map.zarr appeared meanwhile and is kept"):
        volseg.predict("raw.zarr", "map.zarr", **QUICK)
    assert read_volume(here / "map.zarr").shape == (2, 32, 32)


def test_a_run_whose_target_another_replaced_does_not_begin(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volseg.predict("raw.zarr", "other.zarr", block=(2, 32, 32), **QUICK)

    def exchange() -> None:
        (here / "map.zarr").rename(here / "mine.zarr")
        (here / "other.zarr").rename(here / "map.zarr")

    meanwhile(monkeypatch, "create_own", exchange)
    with pytest.raises(TargetError, match=r"map.zarr was replaced by another run before this one began"):
        volseg.predict("raw.zarr", "map.zarr", **QUICK)
